//! Friends, and messages between two.

use chat_proto::ids::{MessageId, code};
use chat_proto::messages::*;
use prost::Message as _;

use super::{friends, login, member};
use crate::{System, WireClient};

pub(super) fn friends_are_added_and_deleted_and_told(system: &System) {
    let (mut left, mut right) = friends(system);
    let (a, b) = (left.user_id, right.user_id);
    assert_eq!(left.add_friend(b).error_code, code::ADD_FRIEND_ALREADY);
    assert_eq!(right.add_friend(a).error_code, code::ADD_FRIEND_ALREADY);
    assert_eq!(left.add_friend(a).error_code, code::ADD_FRIEND_BAD_ID);
    assert_eq!(left.add_friend(-1).error_code, code::ADD_FRIEND_BAD_ID);
    assert_eq!(
        left.add_friend(i32::MAX).error_code,
        code::ADD_FRIEND_NO_USER
    );
    let seen = right.friends();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].friend_id, a);
    assert_eq!(&seen[0].friend_state[..], b"online");

    let answer = right.delete_friend(a);
    assert_eq!((answer.error_code, answer.friend_id), (code::SUCCESS, a));
    let notice: DeleteFriendRequest = left.push(MessageId::RECV_DELETE_FRIEND);
    assert_eq!((notice.user_id, notice.friend_id), (b, a));
    assert_eq!(
        right.delete_friend(a).error_code,
        code::DELETE_FRIEND_NOT_FRIENDS
    );
    assert_eq!(left.delete_friend(0).error_code, code::DELETE_FRIEND_BAD_ID);
    assert_eq!(
        left.delete_friend(i32::MAX).error_code,
        code::DELETE_FRIEND_NO_USER
    );
    assert!(left.friends().is_empty());
}

pub(super) fn messages_arrive_in_order_and_intact(system: &System) {
    let (mut left, mut right) = friends(system);
    let (a, b) = (left.user_id, right.user_id);
    let texts = [
        "hi",
        "it's \"quoted\"; -- DROP",
        "你好，世界 👋",
        "",
        "same",
        "same",
        "\n\ttabs\r\n",
    ];
    for text in texts {
        let answer = left.chat(b, text);
        assert_eq!(answer.error_code, code::SUCCESS, "{}", answer.error_text);
    }
    let mut last = 0;
    for text in texts {
        let push: FriendChatRequest = right.push(MessageId::RECV_FRIEND);
        assert_eq!(push.content, text);
        assert_eq!(push.time, "2026-01-02 03:04:05");
        assert_eq!(push.sender.unwrap().user_id, a);
        assert_eq!(push.receiver.unwrap().user_id, b);
        assert!(push.sequence > last);
        assert!(push.server_time_ms > 0);
        last = push.sequence;
    }
    // Pipelined, both ways at once.
    let mut asked = Vec::new();
    for i in 0..200 {
        let request = left.chat_request(b, &format!("left {i}"), 0);
        asked.push(left.send(MessageId::FRIEND_CHAT, &request));
        let answer = right.chat(a, &format!("right {i}"));
        assert_eq!(answer.error_code, code::SUCCESS, "{}", answer.error_text);
        if asked.len() == 20 {
            for _ in asked.drain(..) {
                let frame = left.any_answer();
                let answer = FriendChatResponse::decode(frame.content).unwrap();
                assert_eq!(answer.error_code, code::SUCCESS, "{}", answer.error_text);
            }
        }
    }
    for i in 0..200 {
        let push: FriendChatRequest = right.push(MessageId::RECV_FRIEND);
        assert_eq!(push.content, format!("left {i}"));
        let push: FriendChatRequest = left.push(MessageId::RECV_FRIEND);
        assert_eq!(push.content, format!("right {i}"));
    }
    left.assert_no_push();
    right.assert_no_push();
}

pub(super) fn only_friends_can_write(system: &System) {
    let (mut left, mut right) = friends(system);
    let mut stranger = member(system.right);
    assert_eq!(
        stranger.chat(left.user_id, "x").error_code,
        code::FRIEND_CHAT_NOT_FRIENDS
    );
    assert_eq!(
        left.chat(left.user_id, "x").error_code,
        code::FRIEND_CHAT_NOT_FRIENDS
    );
    assert_eq!(
        left.chat(i32::MAX, "x").error_code,
        code::FRIEND_CHAT_NOT_FRIENDS
    );
    right.delete_friend(left.user_id);
    assert_eq!(
        left.chat(right.user_id, "x").error_code,
        code::FRIEND_CHAT_NOT_FRIENDS
    );
    right.assert_no_push();
    let large = "x".repeat(100_000);
    left.add_friend(right.user_id);
    assert_eq!(left.chat(right.user_id, &large).error_code, code::TOO_LARGE);
    // What could do something to a terminal.
    let control = left.chat(right.user_id, "\u{1b}[2J");
    assert_eq!(control.error_code, code::INVALID);
}

pub(super) fn a_send_repeated_is_stored_once(system: &System) {
    let (mut left, mut right) = friends(system);
    let b = right.user_id;
    let request = left.chat_request(b, "once", 4711);
    let ask = |client: &mut WireClient| -> FriendChatResponse {
        client.request(
            MessageId::FRIEND_CHAT,
            &request,
            MessageId::FRIEND_CHAT_ANSWER,
        )
    };
    let first = ask(&mut left);
    let again = ask(&mut left);
    assert_eq!(first.error_code, code::SUCCESS);
    assert_eq!(first, again);
    // Also over another proxy, after the connection was lost.
    let user = left.user_id;
    drop(left);
    let mut left = WireClient::connect(system.right);
    login(&mut left, user, true);
    assert_eq!(ask(&mut left), first);
    assert_eq!(left.chat(b, "next").sequence, first.sequence + 1);
    let push: FriendChatRequest = right.push(MessageId::RECV_FRIEND);
    assert_eq!(push.content, "once");
    let push: FriendChatRequest = right.push(MessageId::RECV_FRIEND);
    assert_eq!(push.content, "next");
    right.assert_no_push();
}

pub(super) fn history_has_both_sides_without_gaps(system: &System) {
    let (mut left, mut right) = friends(system);
    let (a, b) = (left.user_id, right.user_id);
    for i in 0..10 {
        assert_eq!(left.chat(b, &format!("l{i}")).error_code, code::SUCCESS);
        assert_eq!(right.chat(a, &format!("r{i}")).error_code, code::SUCCESS);
    }
    let request = FetchHistoryRequest {
        user_id: a,
        conversation: Some(Conversation {
            friend_id: b,
            group_id: 0,
        }),
        first_sequence: 1,
        count_max: 0,
    };
    let answer: FetchHistoryResponse = left.request(
        MessageId::FETCH_HISTORY,
        &request,
        MessageId::FETCH_HISTORY_ANSWER,
    );
    assert_eq!(answer.error_code, code::SUCCESS, "{}", answer.error_text);
    let sequences: Vec<u64> = answer.messages.iter().map(|m| m.sequence).collect();
    assert_eq!(sequences, (1..=21).collect::<Vec<_>>());
    assert_eq!(answer.last_sequence, 21);
    let mut stranger = member(system.right);
    let request = FetchHistoryRequest {
        user_id: stranger.user_id,
        conversation: Some(Conversation {
            friend_id: a,
            group_id: 0,
        }),
        ..Default::default()
    };
    let answer: FetchHistoryResponse = stranger.request(
        MessageId::FETCH_HISTORY,
        &request,
        MessageId::FETCH_HISTORY_ANSWER,
    );
    assert_ne!(answer.error_code, code::SUCCESS);
    assert!(answer.messages.is_empty());
}
