//! Lists that come in pages.

use std::time::Duration;

use chat_proto::ids::{MessageId as Id, code};
use chat_proto::messages as proto;
use prost::Message as _;

use super::*;
use crate::model::Answer;
use crate::state::Request;
use crate::{ChatError, Operation};

fn friends(ids: &[i32]) -> proto::FriendList {
    let friend = |&friend_id: &i32| proto::FriendUser {
        friend_id,
        ..Default::default()
    };
    proto::FriendList {
        friend_users: ids.iter().map(friend).collect(),
    }
}

fn members(ids: &[i32]) -> proto::GroupUserList {
    let member = |&user_id: &i32| proto::GroupUser {
        user_id,
        ..Default::default()
    };
    proto::GroupUserList {
        group_users: ids.iter().map(member).collect(),
    }
}

fn a_group(group_id: i32, ids: &[i32], more_members: bool) -> proto::Group {
    proto::Group {
        group_id,
        group_user_list: Some(members(ids)),
        more_members,
        ..Default::default()
    }
}

fn answer_friends(rig: &mut Rig, after: i32, ids: &[i32], more: bool) {
    let (id, content) = rig.expect(Id::FETCH_FRIENDS);
    let request = proto::FetchFriendsRequest::decode(content).unwrap();
    assert_eq!((request.user_id, request.after_friend_id), (ME, after));
    let answer = proto::FetchFriendsResponse {
        error_code: code::SUCCESS,
        friend_list: Some(friends(ids)),
        more,
        ..Default::default()
    };
    rig.answer(id, Id::FETCH_FRIENDS_ANSWER, &answer);
}

fn answer_groups(rig: &mut Rig, after: i32, groups: Vec<proto::Group>, more: bool) {
    let (id, content) = rig.expect(Id::FETCH_GROUPS);
    let request = proto::FetchGroupsRequest::decode(content).unwrap();
    assert_eq!(request.after_group_id, after);
    let answer = proto::FetchGroupsResponse {
        error_code: code::SUCCESS,
        group_list: Some(proto::GroupList { groups }),
        more,
        ..Default::default()
    };
    rig.answer(id, Id::FETCH_GROUPS_ANSWER, &answer);
}

fn answer_members(rig: &mut Rig, (group, after): (i32, i32), ids: &[i32], more: bool) {
    let answer = proto::FetchGroupMembersResponse {
        error_code: code::SUCCESS,
        group_user_list: Some(members(ids)),
        more,
        ..Default::default()
    };
    answer_members_with(rig, (group, after), &answer);
}

fn answer_members_with(
    rig: &mut Rig,
    (group, after): (i32, i32),
    answer: &proto::FetchGroupMembersResponse,
) {
    let (id, content) = rig.expect(Id::FETCH_GROUP_MEMBERS);
    let request = proto::FetchGroupMembersRequest::decode(content).unwrap();
    assert_eq!((request.group_id, request.after_user_id), (group, after));
    rig.answer(id, Id::FETCH_GROUP_MEMBERS_ANSWER, answer);
}

fn refused(error_code: i32) -> proto::FetchGroupMembersResponse {
    proto::FetchGroupMembersResponse {
        error_code,
        ..Default::default()
    }
}

/// What a list of groups shows: ids, members, and whether there are more.
fn shown(groups: &[crate::Group]) -> Vec<(i32, Vec<i32>, bool)> {
    let ids = |group: &crate::Group| group.members.iter().map(|one| one.user.get()).collect();
    groups
        .iter()
        .map(|group| (group.group.get(), ids(group), group.more_members))
        .collect()
}

fn groups_of(results: &Results) -> Vec<(i32, Vec<i32>, bool)> {
    match &results.all()[..] {
        [Ok(Answer::Groups(groups))] => shown(groups),
        other => panic!("{other:?}"),
    }
}

/// Connected, and a login answered with a friend, a group and more of each.
fn signed_in_with_more(rig: &mut Rig) -> Results {
    rig.open();
    let results = rig.ask(login());
    let id = rig.expect(Id::LOGIN).0;
    let answer = proto::LoginResponse {
        friend_list: Some(friends(&[3])),
        more_friends: true,
        group_list: Some(proto::GroupList {
            groups: vec![a_group(5, &[1, 2], true)],
        }),
        more_groups: true,
        ..login_answer(Vec::new())
    };
    rig.answer(id, Id::LOGIN_ANSWER, &answer);
    assert!(results.all().is_empty());
    results
}

#[test]
fn a_login_is_handed_over_with_all_that_its_answer_left_out() {
    let mut rig = Rig::new();
    let login = signed_in_with_more(&mut rig);
    // Nothing else waits for that.
    let sent = rig.ask(send(7));
    answer_friends(&mut rig, 3, &[4], true);
    let id = rig.expect(Id::FRIEND_CHAT).0;
    rig.answer(id, Id::FRIEND_CHAT_ANSWER, &sent_answer(1));
    assert_eq!(sent.all().len(), 1);
    answer_friends(&mut rig, 4, &[5, 6], false);
    answer_groups(
        &mut rig,
        5,
        vec![a_group(6, &[1], false), a_group(7, &[], true)],
        false,
    );
    answer_members(&mut rig, (5, 2), &[3], true);
    answer_members(&mut rig, (5, 3), &[4], false);
    answer_members(&mut rig, (7, 0), &[1], false);
    let results = login.all();
    let [Ok(Answer::Login(snapshot))] = &results[..] else {
        panic!("{results:?}");
    };
    let ids: Vec<i32> = snapshot.friends.iter().map(|one| one.user.get()).collect();
    assert_eq!(ids, [3, 4, 5, 6]);
    let expected = [
        (5, vec![1, 2, 3, 4], false),
        (6, vec![1], false),
        (7, vec![1], false),
    ];
    assert_eq!(shown(&snapshot.groups), expected);
    assert!(!snapshot.more_friends && !snapshot.more_groups);
    assert!(rig.written.is_empty());
}

#[test]
fn a_login_whose_pages_do_not_come_is_handed_over_as_far_as_it_has() {
    let mut rig = Rig::new();
    let login = signed_in_with_more(&mut rig);
    answer_friends(&mut rig, 3, &[4], false);
    rig.lose();
    let results = login.all();
    let [Ok(Answer::Login(snapshot))] = &results[..] else {
        panic!("{results:?}");
    };
    assert_eq!((snapshot.friends.len(), snapshot.more_friends), (2, false));
    assert_eq!((snapshot.groups.len(), snapshot.more_groups), (1, true));
    assert!(snapshot.groups[0].more_members);
}

#[test]
fn a_list_is_whole_or_an_error() {
    let mut rig = Rig::signed_in(Vec::new());
    let whole = rig.ask(Request::Friends);
    answer_friends(&mut rig, 0, &[2, 3], true);
    answer_friends(&mut rig, 3, &[4], false);
    assert!(matches!(&whole.all()[..], [Ok(Answer::Friends(friends))] if friends.len() == 3));

    let cut_off = rig.ask(Request::Groups);
    answer_groups(&mut rig, 0, vec![a_group(1, &[1], true)], false);
    rig.lose();
    assert_eq!(cut_off.all(), [Err(ChatError::Disconnected)]);
}

#[test]
fn a_page_that_cannot_be_had_at_the_moment_is_asked_for_again() {
    let mut rig = Rig::signed_in(Vec::new());
    let groups = rig.ask(Request::Groups);
    answer_groups(&mut rig, 0, vec![a_group(1, &[1], true)], false);
    for error_code in [code::RATE_LIMITED, code::UNAVAILABLE] {
        answer_members_with(&mut rig, (1, 1), &refused(error_code));
        assert!(rig.written.is_empty() && groups.all().is_empty());
        rig.advance(Duration::from_secs(10));
    }
    answer_members(&mut rig, (1, 1), &[2], false);
    assert_eq!(groups_of(&groups), [(1, vec![1, 2], false)]);
}

#[test]
fn a_page_that_is_refused_for_good_ends_its_list() {
    let mut rig = Rig::signed_in(Vec::new());
    let groups = rig.ask(Request::Groups);
    answer_groups(&mut rig, 0, vec![a_group(1, &[1], true)], false);
    answer_members_with(&mut rig, (1, 1), &refused(code::INTERNAL));
    let error = ChatError::Refused {
        operation: Operation::Members,
        code: code::INTERNAL,
        text: String::new(),
        reason: None,
    };
    assert_eq!(groups.all(), [Err(error)]);

    // Waiting for its next attempt, the list ends with the session.
    let groups = rig.ask(Request::Groups);
    answer_groups(&mut rig, 0, vec![a_group(1, &[1], true)], false);
    answer_members_with(&mut rig, (1, 1), &refused(code::RATE_LIMITED));
    rig.lose();
    assert_eq!(groups.all(), [Err(ChatError::Disconnected)]);
}

#[test]
fn a_group_that_was_left_meanwhile_stays_as_it_was_shown() {
    let mut rig = Rig::signed_in(Vec::new());
    let groups = rig.ask(Request::Groups);
    let both = vec![a_group(1, &[1], true), a_group(2, &[1], true)];
    answer_groups(&mut rig, 0, both, false);
    answer_members_with(&mut rig, (1, 1), &refused(code::NOT_YOURSELF));
    answer_members(&mut rig, (2, 1), &[2], false);
    assert_eq!(
        groups_of(&groups),
        [(1, vec![1], false), (2, vec![1, 2], false)]
    );
}

#[test]
fn a_group_that_is_joined_comes_with_all_members() {
    let mut rig = Rig::signed_in(Vec::new());
    let joined = rig.ask(Request::JoinGroup(group(9)));
    let id = rig.expect(Id::ADD_GROUP).0;
    let answer = proto::AddGroupResponse {
        error_code: code::SUCCESS,
        group: Some(a_group(9, &[1, 2], true)),
        sequence: 4,
        ..Default::default()
    };
    rig.answer(id, Id::ADD_GROUP_ANSWER, &answer);
    answer_members(&mut rig, (9, 2), &[3], false);
    let results = joined.all();
    let [Ok(Answer::Group(group))] = &results[..] else {
        panic!("{results:?}");
    };
    assert_eq!(
        shown(std::slice::from_ref(group)),
        [(9, vec![1, 2, 3], false)]
    );
}

#[test]
fn an_endless_list_ends() {
    let mut rig = Rig::signed_in(Vec::new());
    rig.state.options.list_entries_max = 3;
    let friends = rig.ask(Request::Friends);
    answer_friends(&mut rig, 0, &[2, 3], true);
    answer_friends(&mut rig, 3, &[4, 5], true);
    assert!(matches!(&friends.all()[..], [Err(ChatError::Protocol(_))]));
    // And one whose pages are empty.
    let friends = rig.ask(Request::Friends);
    answer_friends(&mut rig, 0, &[2], true);
    answer_friends(&mut rig, 2, &[], true);
    assert!(matches!(&friends.all()[..], [Ok(Answer::Friends(friends))] if friends.len() == 1));
    assert!(rig.written.is_empty());
}
