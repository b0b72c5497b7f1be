//! Answers that grow with what is stored.

use chat_proto::ids::{MessageId, code};
use chat_proto::messages::*;
use prost::Message as _;

use super::{friends, login, member, offline};
use crate::{System, WireClient};

fn history(client: &mut WireClient, friend_id: i32, first_sequence: u64) -> FetchHistoryResponse {
    let request = FetchHistoryRequest {
        user_id: client.user_id,
        conversation: Some(Conversation {
            friend_id,
            group_id: 0,
        }),
        first_sequence,
        count_max: 0,
    };
    let id = MessageId::FETCH_HISTORY_ANSWER;
    let answer: FetchHistoryResponse = client.request(MessageId::FETCH_HISTORY, &request, id);
    assert_eq!(answer.error_code, code::SUCCESS, "{}", answer.error_text);
    answer
}

pub(super) fn the_longest_messages_come_in_pages(system: &System) {
    const MESSAGES: usize = 40;
    let (mut left, mut right) = friends(system);
    let (a, b) = (left.user_id, right.user_id);
    right.logout();
    let longest = "\u{1F600}".repeat(16 * 1024);
    for _ in 0..MESSAGES {
        let answer = left.chat(b, &longest);
        assert_eq!(answer.error_code, code::SUCCESS, "{}", answer.error_text);
    }
    // An old client gets what has room in the login's answer, and then the rest.
    let answer = login(&mut right, b, false);
    let listed = offline(&answer)
        .iter()
        .filter(|message| message.content == longest);
    let listed = listed.count();
    assert!((1..MESSAGES).contains(&listed), "{listed}");
    let mut last = offline(&answer).last().unwrap().sequence;
    for _ in listed..MESSAGES {
        let push: FriendChatRequest = right.push(MessageId::RECV_FRIEND);
        assert_eq!(push.content, longest);
        assert_eq!(push.sequence, last + 1);
        last = push.sequence;
    }
    // The whole conversation, asked for by both: first of all, many times at once.
    for (client, friend) in [(&mut left, b), (&mut right, a)] {
        let (mut next, mut pages) = (1, 0);
        while next <= last {
            let page = history(client, friend, next);
            assert_eq!(page.last_sequence, last);
            for message in &page.messages {
                assert_eq!(message.sequence, next);
                next += 1;
            }
            pages += 1;
        }
        assert!(pages > 1);
        let asked: Vec<u64> = (0..20)
            .map(|_| {
                let request = FetchHistoryRequest {
                    user_id: client.user_id,
                    conversation: Some(Conversation {
                        friend_id: friend,
                        group_id: 0,
                    }),
                    first_sequence: 1,
                    count_max: 0,
                };
                client.send(MessageId::FETCH_HISTORY, &request)
            })
            .collect();
        for request_id in asked {
            let frame = client.any_answer();
            assert_eq!(frame.request_id, request_id);
            let page = FetchHistoryResponse::decode(frame.content).unwrap();
            assert_eq!(page.error_code, code::SUCCESS, "{}", page.error_text);
            assert!(!page.messages.is_empty());
        }
    }
}

pub(super) fn lists_come_in_pages(system: &System) {
    let (mut left, mut right) = friends(system);
    let group_id = left.create_group("g").group.unwrap().group_id;
    assert_eq!(right.join_group(group_id).error_code, code::SUCCESS);
    let mut ids = [left.user_id, right.user_id];
    ids.sort_unstable();

    let mut members = |after_user_id| {
        let request = FetchGroupMembersRequest {
            user_id: right.user_id,
            group_id,
            after_user_id,
        };
        let answer: FetchGroupMembersResponse = right.request(
            MessageId::FETCH_GROUP_MEMBERS,
            &request,
            MessageId::FETCH_GROUP_MEMBERS_ANSWER,
        );
        assert_eq!((answer.error_code, answer.more), (code::SUCCESS, false));
        let members = answer.group_user_list.unwrap_or_default().group_users;
        assert!(
            members
                .iter()
                .all(|member| &member.user_state[..] == b"online")
        );
        members
            .iter()
            .map(|member| member.user_id)
            .collect::<Vec<_>>()
    };
    assert_eq!(members(0), ids);
    assert_eq!(members(ids[0]), ids[1..]);
    assert!(members(ids[1]).is_empty());

    let mut friends = |after_friend_id| {
        let request = FetchFriendsRequest {
            user_id: left.user_id,
            after_friend_id,
        };
        let id = MessageId::FETCH_FRIENDS_ANSWER;
        let answer: FetchFriendsResponse = left.request(MessageId::FETCH_FRIENDS, &request, id);
        assert_eq!((answer.error_code, answer.more), (code::SUCCESS, false));
        let friends = answer.friend_list.unwrap_or_default().friend_users;
        friends
            .iter()
            .map(|friend| friend.friend_id)
            .collect::<Vec<_>>()
    };
    assert_eq!(friends(0), [right.user_id]);
    assert!(friends(right.user_id).is_empty());

    let mut groups = |after_group_id| {
        let request = FetchGroupsRequest {
            user_id: left.user_id,
            after_group_id,
        };
        let id = MessageId::FETCH_GROUPS_ANSWER;
        let answer: FetchGroupsResponse = left.request(MessageId::FETCH_GROUPS, &request, id);
        assert_eq!((answer.error_code, answer.more), (code::SUCCESS, false));
        let groups = answer.group_list.unwrap_or_default().groups;
        groups
            .iter()
            .map(|group| group.group_id)
            .collect::<Vec<_>>()
    };
    assert_eq!(groups(0), [group_id]);
    assert!(groups(group_id).is_empty());

    let mut stranger = member(system.left);
    let request = FetchGroupMembersRequest {
        user_id: stranger.user_id,
        group_id,
        after_user_id: 0,
    };
    let answer: FetchGroupMembersResponse = stranger.request(
        MessageId::FETCH_GROUP_MEMBERS,
        &request,
        MessageId::FETCH_GROUP_MEMBERS_ANSWER,
    );
    assert_eq!(answer.error_code, code::NOT_YOURSELF);
}
