//! Groups and messages to them.

use chat_proto::ids::{MessageId, code};
use chat_proto::messages::*;

use super::{login, member, offline};
use crate::System;

pub(super) fn groups_live_and_die(system: &System) {
    let mut admin = member(system.left);
    let mut other = member(system.right);
    assert_eq!(admin.create_group("").error_code, code::CREATE_GROUP_EMPTY);
    let group = admin.create_group("读书会").group.unwrap();
    let id = group.group_id;
    assert_eq!(group.group_name, "读书会".as_bytes());
    let members = group.group_user_list.unwrap().group_users;
    assert_eq!(members.len(), 1);
    assert_eq!(&members[0].user_role[..], b"admin");
    assert_eq!(&members[0].user_state[..], b"online");

    assert_eq!(other.join_group(0).error_code, code::JOIN_BAD_ID);
    assert_eq!(other.join_group(i32::MAX).error_code, code::JOIN_NO_GROUP);
    let joined = other.join_group(id);
    assert_eq!(joined.error_code, code::SUCCESS, "{}", joined.error_text);
    assert_eq!(
        joined
            .group
            .unwrap()
            .group_user_list
            .unwrap()
            .group_users
            .len(),
        2
    );
    let notice: AddGroupRequest = admin.push(MessageId::RECV_ADD_GROUP);
    assert_eq!((notice.user_id, notice.group_id), (other.user_id, id));
    assert!(!notice.user_name.is_empty());
    assert_eq!(other.join_group(id).error_code, code::JOIN_ALREADY);

    assert_eq!(
        other.delete_group(id).error_code,
        code::DELETE_GROUP_NOT_ADMIN
    );
    assert_eq!(other.quit_group(0).error_code, code::LEAVE_BAD_ID);
    let left = other.quit_group(id);
    assert_eq!((left.error_code, left.group_id), (code::SUCCESS, id));
    let notice: QuitGroupRequest = admin.push(MessageId::RECV_QUIT_GROUP);
    assert_eq!(notice.user_id, other.user_id);
    assert_eq!(other.quit_group(id).error_code, code::LEAVE_NOT_MEMBER);
    assert_eq!(
        other.delete_group(id).error_code,
        code::DELETE_GROUP_NOT_MEMBER
    );
    assert_eq!(other.delete_group(-5).error_code, code::DELETE_GROUP_BAD_ID);

    other.join_group(id);
    let _: AddGroupRequest = admin.push(MessageId::RECV_ADD_GROUP);
    let deleted = admin.delete_group(id);
    assert_eq!((deleted.error_code, deleted.group_id), (code::SUCCESS, id));
    let notice: DeleteGroupRequest = other.push(MessageId::RECV_DELETE_GROUP);
    assert_eq!((notice.user_id, notice.group_id), (admin.user_id, id));
    let request = FetchGroupsRequest {
        user_id: other.user_id,
        ..Default::default()
    };
    let answer: FetchGroupsResponse = other.request(
        MessageId::FETCH_GROUPS,
        &request,
        MessageId::FETCH_GROUPS_ANSWER,
    );
    assert_eq!(answer.error_code, code::SUCCESS);
    assert!(answer.group_list.unwrap_or_default().groups.is_empty());
}

pub(super) fn group_messages_reach_every_other_member(system: &System) {
    let mut sender = member(system.left);
    let mut near = member(system.left);
    let mut far = member(system.right);
    let mut away = member(system.right);
    let id = sender.create_group("g").group.unwrap().group_id;
    for client in [&mut near, &mut far, &mut away] {
        assert_eq!(client.join_group(id).error_code, code::SUCCESS);
        let _: AddGroupRequest = sender.push(MessageId::RECV_ADD_GROUP);
    }
    for _ in 0..2 {
        let _: AddGroupRequest = near.push(MessageId::RECV_ADD_GROUP);
    }
    let _: AddGroupRequest = far.push(MessageId::RECV_ADD_GROUP);
    let away_id = away.user_id;
    away.logout();
    for i in 0..10 {
        let answer = sender.group_chat(id, &format!("to all {i}"));
        assert_eq!(answer.error_code, code::SUCCESS, "{}", answer.error_text);
    }
    for client in [&mut near, &mut far] {
        for i in 0..10 {
            let push: GroupChatRequest = client.push(MessageId::RECV_GROUP);
            assert_eq!(push.content, format!("to all {i}"));
            assert_eq!(push.sender.unwrap().user_id, sender.user_id);
            assert_eq!(push.receiver.unwrap().group_id, id);
        }
    }
    sender.assert_no_push();
    let answer = login(&mut away, away_id, true);
    let texts: Vec<_> = offline(&answer).iter().map(|m| m.content.clone()).collect();
    assert_eq!(
        texts,
        (0..10).map(|i| format!("to all {i}")).collect::<Vec<_>>()
    );
    assert!(
        offline(&answer)
            .iter()
            .all(|m| m.receiver.as_ref().unwrap().group_id == id)
    );
    let mut stranger = member(system.left);
    assert_eq!(
        stranger.group_chat(id, "x").error_code,
        code::GROUP_CHAT_NOT_MEMBER
    );
    assert_eq!(
        stranger.group_chat(i32::MAX, "x").error_code,
        code::GROUP_CHAT_NOT_MEMBER
    );
}
