//! Messages: in order, once, acknowledged.

use std::time::Duration;

use chat_proto::ids::{MessageId as Id, code};
use chat_proto::messages as proto;
use prost::Message as _;

use super::*;
use crate::state::{HISTORY_MAX, Request};
use crate::{Body, Conversation, Event, Message};

#[test]
fn shown_messages_are_acknowledged_together_after_a_moment() {
    let mut rig = Rig::signed_in(vec![stored(FRIEND, 3), stored(FRIEND, 5)]);
    rig.push(6);
    assert_eq!(rig.shown(), [3, 5, 6]);
    assert!(rig.written.is_empty());
    rig.advance(Duration::from_millis(50));
    assert_eq!(rig.expect_ack(), [(friend_conversation(), 6)]);
}

#[test]
fn messages_that_the_application_does_not_have_are_not_acknowledged() {
    let mut rig = Rig::signed_in(Vec::new());
    let frame = proto::ResponseFrame {
        message_id: Id::RECV_FRIEND.0,
        content: pushed(1).encode_to_vec().into(),
        request_id: 0,
    };
    rig.state.handle_frame(rig.now, frame);
    let later = rig.now + SECOND;
    rig.state.handle_timeout(later);
    assert!(rig.state.poll_output().is_none());
}

#[test]
fn a_message_listed_again_after_a_reconnect_is_acknowledged_again_and_not_shown() {
    let mut rig = Rig::signed_in(vec![stored(FRIEND, 3)]);
    rig.lose();
    rig.open();
    let (id, received) = rig.expect_resume();
    // So the server need not list it.
    assert_eq!(received, [(friend_conversation(), 3)]);
    let list = vec![stored(FRIEND, 3)];
    rig.answer(id, Id::RESUME_ANSWER, &resume_answer(list));
    assert_eq!(rig.shown(), [3]);
    rig.advance(SECOND);
    assert_eq!(rig.expect_ack(), [(friend_conversation(), 3)]);
}

#[test]
fn another_user_starts_with_nothing_seen() {
    let mut rig = Rig::signed_in(vec![stored(FRIEND, 3)]);
    let logout = rig.ask(Request::Logout);
    rig.expect_ack();
    let id = rig.expect(Id::LOGOUT).0;
    let answer = proto::LogoutResponse {
        error_code: code::SUCCESS,
        ..Default::default()
    };
    rig.answer(id, Id::LOGOUT_ANSWER, &answer);
    assert_eq!(logout.all().len(), 1);
    let _ = rig.ask(login_of(9));
    let id = rig.expect(Id::LOGIN).0;
    rig.answer(id, Id::LOGIN_ANSWER, &login_answer(vec![stored(FRIEND, 1)]));
    assert_eq!(rig.shown(), [3, 1]);
}

#[test]
fn a_gap_that_lasts_is_filled_from_the_history() {
    let mut rig = Rig::signed_in(vec![stored(FRIEND, 1)]);
    rig.push(5);
    rig.advance(GAP);
    rig.expect_ack();
    let (id, content) = rig.expect(Id::FETCH_HISTORY);
    let request = proto::FetchHistoryRequest::decode(content).unwrap();
    assert_eq!((request.first_sequence, request.count_max), (2, 4));
    assert_eq!(request.conversation, Some(friend_conversation()));
    let answer = proto::FetchHistoryResponse {
        error_code: code::SUCCESS,
        messages: vec![
            stored(FRIEND, 2),
            stored(ME, 3),
            stored(FRIEND, 4),
            stored(FRIEND, 5),
        ],
        last_sequence: 5,
        ..Default::default()
    };
    rig.answer(id, Id::FETCH_HISTORY_ANSWER, &answer);
    assert_eq!(rig.shown(), [1, 2, 4, 5]);
    rig.advance(SECOND);
    assert_eq!(rig.expect_ack(), [(friend_conversation(), 5)]);
    assert!(rig.written.is_empty());
}

#[test]
fn a_gap_that_closes_by_itself_is_not_fetched() {
    let mut rig = Rig::signed_in(vec![stored(FRIEND, 1)]);
    let _ = rig.ask(send(1));
    let id = rig.expect(Id::FRIEND_CHAT).0;
    rig.push(3);
    rig.answer(id, Id::FRIEND_CHAT_ANSWER, &sent_answer(2));
    assert_eq!(rig.shown(), [1, 3]);
    rig.advance(SECOND);
    rig.expect_ack();
    assert!(rig.written.is_empty());
}

#[test]
fn a_fill_that_fails_is_tried_again_and_one_that_is_refused_gives_up() {
    let mut rig = Rig::signed_in(vec![stored(FRIEND, 1)]);
    rig.push(3);
    rig.advance(GAP);
    rig.expect_ack();
    let mut refusal = proto::FetchHistoryResponse {
        error_code: code::UNAVAILABLE,
        ..Default::default()
    };
    let id = rig.expect(Id::FETCH_HISTORY).0;
    rig.answer(id, Id::FETCH_HISTORY_ANSWER, &refusal);
    assert_eq!(rig.shown(), [1]);
    rig.advance(GAP);
    let id = rig.expect(Id::FETCH_HISTORY).0;
    refusal.error_code = 2;
    rig.answer(id, Id::FETCH_HISTORY_ANSWER, &refusal);
    assert_eq!(rig.shown(), [1, 3]);
}

#[test]
fn a_history_that_answers_nonsense_does_not_loop() {
    let mut rig = Rig::signed_in(vec![stored(FRIEND, 1)]);
    rig.push(u64::MAX);
    rig.advance(GAP);
    rig.expect_ack();
    let (id, content) = rig.expect(Id::FETCH_HISTORY);
    let request = proto::FetchHistoryRequest::decode(content).unwrap();
    assert_eq!(request.count_max, HISTORY_MAX);
    // Before what was asked for.
    let answer = proto::FetchHistoryResponse {
        error_code: code::SUCCESS,
        messages: vec![stored(FRIEND, 1)],
        ..Default::default()
    };
    rig.answer(id, Id::FETCH_HISTORY_ANSWER, &answer);
    rig.state.handle_timeout(rig.now);
    rig.settle();
    assert!(rig.written.is_empty(), "asked again at once");
}

#[test]
fn joining_a_group_begins_after_what_was_said_before() {
    let mut rig = Rig::signed_in(Vec::new());
    let _ = rig.ask(Request::JoinGroup(group(5)));
    let id = rig.expect(Id::ADD_GROUP).0;
    let answer = proto::AddGroupResponse {
        error_code: code::SUCCESS,
        group: Some(proto::Group {
            group_id: 5,
            ..Default::default()
        }),
        sequence: 20,
        ..Default::default()
    };
    rig.answer(id, Id::ADD_GROUP_ANSWER, &answer);
    let chat = |sequence| proto::GroupChatRequest {
        sender: stored(FRIEND, 1).sender,
        receiver: Some(proto::Receiver {
            group_id: 5,
            ..Default::default()
        }),
        sequence,
        ..Default::default()
    };
    rig.answer(0, Id::RECV_GROUP, &chat(22));
    assert!(rig.shown().is_empty());
    rig.answer(0, Id::RECV_GROUP, &chat(21));
    assert_eq!(rig.shown(), [21, 22]);
}

#[test]
fn every_kind_of_push_is_a_message() {
    let mut rig = Rig::signed_in(Vec::new());
    let (user_id, group_id) = (FRIEND, 5);
    rig.answer(
        0,
        Id::RECV_ADD_FRIEND,
        &proto::AddFriendRequest {
            user_id,
            friend_id: ME,
            sequence: 1,
            ..Default::default()
        },
    );
    rig.answer(
        0,
        Id::RECV_DELETE_FRIEND,
        &proto::DeleteFriendRequest {
            user_id,
            friend_id: ME,
            sequence: 2,
            ..Default::default()
        },
    );
    rig.answer(
        0,
        Id::RECV_ADD_GROUP,
        &proto::AddGroupRequest {
            user_id,
            group_id,
            sequence: 8,
            ..Default::default()
        },
    );
    rig.answer(
        0,
        Id::RECV_QUIT_GROUP,
        &proto::QuitGroupRequest {
            user_id,
            group_id,
            sequence: 9,
            ..Default::default()
        },
    );
    rig.answer(
        0,
        Id::RECV_DELETE_GROUP,
        &proto::DeleteGroupRequest {
            user_id,
            group_id,
            sequence: 10,
            ..Default::default()
        },
    );
    let of_friend = Conversation::Friend(user(FRIEND));
    let of_group = Conversation::Group(group(5));
    let expected = [
        (of_friend, 1, Body::FriendAdded),
        (of_friend, 2, Body::FriendDeleted),
        (of_group, 8, Body::GroupJoined),
        (of_group, 9, Body::GroupLeft),
        (of_group, 10, Body::GroupDeleted),
    ]
    .map(|(conversation, sequence, body)| {
        Event::Message(Message {
            conversation,
            sequence,
            body,
            ..text_message(sequence)
        })
    });
    assert_eq!(rig.events[1..], expected);
}

#[test]
fn messages_without_a_place_are_shown_as_they_come() {
    let mut rig = Rig::signed_in(Vec::new());
    rig.push(0);
    rig.push(0);
    assert_eq!(rig.shown(), [0, 0]);
    rig.advance(SECOND);
    assert!(rig.written.is_empty());
}

#[test]
fn a_push_that_names_nobody_is_passed_over() {
    let mut rig = Rig::signed_in(Vec::new());
    let nobody = proto::FriendChatRequest::default();
    rig.answer(0, Id::RECV_FRIEND, &nobody);
    assert!(rig.shown().is_empty());
}
