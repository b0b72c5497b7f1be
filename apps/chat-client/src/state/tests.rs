//! One behaviour each. Any order of everything: see [`super::properties`].

use std::time::Duration;

use chat_proto::ids::{MessageId as Id, code};
use chat_proto::messages as proto;
use prost::Message as _;

use super::testing::*;
use super::{HISTORY_MAX, Request};
use crate::model::Answer;
use crate::{Body, ChatError, Conversation, Event, Message, Operation, Sent};

const SECOND: Duration = Duration::from_secs(1);
const GAP: Duration = Duration::from_millis(200);

fn refused(operation: Operation, code: i32) -> ChatError {
    ChatError::Refused {
        operation,
        code,
        text: String::new(),
    }
}

fn login_refusal(error_code: i32) -> proto::LoginResponse {
    proto::LoginResponse {
        error_code,
        ..Default::default()
    }
}

fn friend_conversation() -> proto::Conversation {
    Conversation::Friend(user(FRIEND)).to_proto()
}

// ---- requests ----

#[test]
fn requests_made_before_the_connection_go_out_in_order_once_it_is_there() {
    let mut rig = Rig::new();
    let login = rig.ask(login());
    let sent = rig.ask(send(7));
    assert!(rig.written.is_empty());
    rig.open();
    let (id, content) = rig.expect(Id::LOGIN);
    let request = proto::LoginRequest::decode(content).unwrap();
    assert!(request.acknowledges);
    assert_eq!(request.user_password, b"secret"[..]);
    assert!(rig.written.is_empty(), "sent before the login was answered");
    rig.answer(id, Id::LOGIN_ANSWER, &login_answer(Vec::new()));
    assert!(matches!(login.all()[..], [Ok(Answer::Login(_))]));
    let (id, content) = rig.expect(Id::FRIEND_CHAT);
    let request = proto::FriendChatRequest::decode(content).unwrap();
    assert_eq!(request.client_message_id, 7);
    assert_eq!(request.sender.unwrap().user_id, ME);
    assert_eq!(request.receiver.unwrap().user_id, FRIEND);
    rig.answer(id, Id::FRIEND_CHAT_ANSWER, &sent_answer(4));
    let expected = Sent {
        sequence: 4,
        server_time_ms: 0,
    };
    assert_eq!(sent.all(), [Ok(Answer::Sent(expected))]);
}

#[test]
fn what_needs_a_login_is_refused_without_one() {
    let mut rig = Rig::new();
    rig.open();
    let friends = rig.ask(Request::Friends);
    let error = refused(Operation::Friends, code::NOT_LOGGED_IN);
    assert_eq!(friends.all(), [Err(error)]);
    assert!(rig.written.is_empty());
}

#[test]
fn what_waits_for_a_login_is_refused_when_that_is() {
    let mut rig = Rig::new();
    rig.open();
    let login = rig.ask(login());
    let friends = rig.ask(Request::Friends);
    let id = rig.expect(Id::LOGIN).0;
    rig.answer(id, Id::LOGIN_ANSWER, &login_refusal(4));
    assert_eq!(login.all(), [Err(refused(Operation::Login, 4))]);
    assert_eq!(
        friends.all(),
        [Err(refused(Operation::Friends, code::NOT_LOGGED_IN))]
    );
}

#[test]
fn a_second_login_is_refused_here() {
    let mut rig = Rig::signed_in(Vec::new());
    let again = rig.ask(login());
    let error = refused(Operation::Login, code::ALREADY_LOGGED_IN);
    assert_eq!(again.all(), [Err(error)]);
    assert!(rig.written.is_empty());
}

#[test]
fn answers_may_come_in_any_order() {
    let mut rig = Rig::signed_in(Vec::new());
    let (friends, groups) = (rig.ask(Request::Friends), rig.ask(Request::Groups));
    let first = rig.expect(Id::FETCH_FRIENDS).0;
    let second = rig.expect(Id::FETCH_GROUPS).0;
    let answer = proto::FetchGroupsResponse {
        error_code: code::SUCCESS,
        ..Default::default()
    };
    rig.answer(second, Id::FETCH_GROUPS_ANSWER, &answer);
    assert_eq!(groups.all(), [Ok(Answer::Groups(Vec::new()))]);
    assert!(friends.all().is_empty());
    let answer = proto::FetchFriendsResponse {
        error_code: code::UNAVAILABLE,
        error_text: "later".to_owned(),
        ..Default::default()
    };
    rig.answer(first, Id::FETCH_FRIENDS_ANSWER, &answer);
    let error = ChatError::Refused {
        operation: Operation::Friends,
        code: code::UNAVAILABLE,
        text: "later".to_owned(),
    };
    assert_eq!(friends.all(), [Err(error)]);
}

#[test]
fn an_answer_of_the_wrong_kind_or_unreadable_is_a_protocol_error() {
    let mut rig = Rig::signed_in(Vec::new());
    let friends = rig.ask(Request::Friends);
    let id = rig.expect(Id::FETCH_FRIENDS).0;
    rig.answer(id, Id::FETCH_GROUPS_ANSWER, &sent_answer(1));
    assert!(matches!(friends.all()[..], [Err(ChatError::Protocol(_))]));

    let friends = rig.ask(Request::Friends);
    let frame = proto::ResponseFrame {
        message_id: Id::FETCH_FRIENDS_ANSWER.0,
        content: bytes::Bytes::from_static(&[0xff]),
        request_id: rig.expect(Id::FETCH_FRIENDS).0,
    };
    rig.state.handle_frame(rig.now, frame);
    rig.settle();
    assert!(matches!(friends.all()[..], [Err(ChatError::Protocol(_))]));
}

#[test]
fn a_late_answer_is_dropped() {
    let mut rig = Rig::signed_in(Vec::new());
    let friends = rig.ask(Request::Friends);
    let id = rig.expect(Id::FETCH_FRIENDS).0;
    rig.advance(10 * SECOND);
    assert_eq!(friends.all(), [Err(ChatError::Timeout)]);
    let answer = proto::FetchFriendsResponse {
        error_code: code::SUCCESS,
        ..Default::default()
    };
    rig.answer(id, Id::FETCH_FRIENDS_ANSWER, &answer);
    assert_eq!(friends.all().len(), 1);
}

#[test]
fn an_error_frame_completes_the_request_it_names_and_is_else_an_event() {
    let mut rig = Rig::signed_in(Vec::new());
    let sent = rig.ask(send(1));
    let id = rig.expect(Id::FRIEND_CHAT).0;
    let notice = proto::ErrorNotice {
        error_code: code::TOO_LARGE,
        error_text: String::new(),
    };
    rig.answer(id, Id::ERROR, &notice);
    assert_eq!(
        sent.all(),
        [Err(refused(Operation::FriendChat, code::TOO_LARGE))]
    );
    rig.answer(id, Id::ERROR, &notice);
    let problem = Event::Problem {
        code: code::TOO_LARGE,
        text: String::new(),
    };
    assert_eq!(rig.events.last(), Some(&problem));
}

#[test]
fn more_requests_than_allowed_are_refused_at_once() {
    let mut rig = Rig::new();
    let first: Vec<_> = (0..10_000).map(|_| rig.ask(login())).collect();
    let over = rig.ask(login());
    assert_eq!(over.all(), [Err(ChatError::Busy)]);
    assert!(first.iter().all(|results| results.all().is_empty()));
}

#[test]
fn closing_fails_what_has_no_answer_and_acknowledges_what_was_shown() {
    let mut rig = Rig::signed_in(vec![stored(FRIEND, 3)]);
    let friends = rig.ask(Request::Friends);
    rig.expect(Id::FETCH_FRIENDS);
    rig.state.handle_close(rig.now);
    rig.settle();
    assert_eq!(friends.all(), [Err(ChatError::Disconnected)]);
    assert_eq!(rig.expect_ack(), [(friend_conversation(), 3)]);
}

// ---- sessions ----

#[test]
fn after_a_lost_connection_the_user_is_signed_in_again_and_sends_are_repeated() {
    let mut rig = Rig::signed_in(Vec::new());
    let sent = rig.ask(send(7));
    let friends = rig.ask(Request::Friends);
    rig.lose();
    assert_eq!(friends.all(), [Err(ChatError::Disconnected)]);
    let groups = rig.ask(Request::Groups);
    assert_eq!(rig.state.user(), Some(user(ME)));
    rig.open();
    let id = rig.expect(Id::LOGIN).0;
    assert!(rig.written.is_empty());
    rig.answer(id, Id::LOGIN_ANSWER, &login_answer(vec![stored(FRIEND, 1)]));
    let (id, content) = rig.expect(Id::FRIEND_CHAT);
    let request = proto::FriendChatRequest::decode(content).unwrap();
    assert_eq!(request.client_message_id, 7);
    rig.answer(id, Id::FRIEND_CHAT_ANSWER, &sent_answer(2));
    assert!(matches!(sent.all()[..], [Ok(Answer::Sent(_))]));
    rig.expect(Id::FETCH_GROUPS);
    assert!(groups.all().is_empty());
    let lost = Event::Disconnected {
        reason: "lost".to_owned(),
    };
    let expected = [
        Event::Connected,
        lost,
        Event::Reconnected { resent: 1 },
        Event::Message(text_message(1)),
    ];
    assert_eq!(rig.events, expected);
}

#[test]
fn signing_in_again_is_tried_again_while_the_server_is_not_able_to() {
    let mut rig = Rig::signed_in(Vec::new());
    rig.lose();
    rig.open();
    for _ in 0..3 {
        let id = rig.expect(Id::LOGIN).0;
        rig.answer(id, Id::LOGIN_ANSWER, &login_refusal(code::UNAVAILABLE));
        assert!(rig.written.is_empty(), "tried again at once");
        rig.advance(5 * SECOND);
    }
    let id = rig.expect(Id::LOGIN).0;
    rig.answer(id, Id::LOGIN_ANSWER, &login_answer(Vec::new()));
    assert_eq!(rig.events.last(), Some(&Event::Reconnected { resent: 0 }));
}

#[test]
fn signing_in_again_with_a_password_that_is_now_wrong_signs_out() {
    let mut rig = Rig::signed_in(Vec::new());
    let sent = rig.ask(send(7));
    rig.lose();
    rig.open();
    let id = rig.expect(Id::LOGIN).0;
    rig.answer(
        id,
        Id::LOGIN_ANSWER,
        &login_refusal(code::LOGIN_WRONG_PASSWORD),
    );
    let reason = "the password is wrong".to_owned();
    let error = ChatError::SignedOut {
        reason: reason.clone(),
    };
    assert_eq!(sent.all(), [Err(error)]);
    assert_eq!(rig.events.last(), Some(&Event::SignedOut { reason }));
    assert_eq!(rig.state.user(), None);
}

#[test]
fn a_newer_login_elsewhere_signs_out_for_good() {
    let mut rig = Rig::signed_in(Vec::new());
    let sent = rig.ask(send(7));
    rig.expect(Id::FRIEND_CHAT);
    let reason = "signed in elsewhere".to_owned();
    let notice = proto::SignedOut {
        reason: reason.clone(),
    };
    rig.answer(0, Id::SIGNED_OUT, &notice);
    assert!(!rig.is_open);
    rig.open();
    assert!(rig.written.is_empty());
    assert!(matches!(sent.all()[..], [Err(ChatError::SignedOut { .. })]));
    assert_eq!(
        rig.events[1..],
        [Event::SignedOut { reason }, Event::Connected]
    );
}

#[test]
fn after_a_logout_nobody_is_signed_in_again() {
    let mut rig = Rig::signed_in(vec![stored(FRIEND, 1)]);
    let logout = rig.ask(Request::Logout);
    assert_eq!(rig.expect_ack(), [(friend_conversation(), 1)]);
    let id = rig.expect(Id::LOGOUT).0;
    let answer = proto::LogoutResponse {
        error_code: code::SUCCESS,
        ..Default::default()
    };
    rig.answer(id, Id::LOGOUT_ANSWER, &answer);
    assert_eq!(logout.all(), [Ok(Answer::Done)]);
    rig.lose();
    rig.open();
    assert!(rig.written.is_empty());
}

#[test]
fn a_connection_lost_during_a_logout_logs_out() {
    let mut rig = Rig::signed_in(Vec::new());
    let logout = rig.ask(Request::Logout);
    rig.lose();
    assert_eq!(logout.all(), [Ok(Answer::Done)]);
    assert_eq!(rig.state.user(), None);
}

#[test]
fn a_logout_between_two_connections_needs_no_server() {
    let mut rig = Rig::signed_in(Vec::new());
    rig.lose();
    let sent = rig.ask(send(7));
    let logout = rig.ask(Request::Logout);
    assert_eq!(logout.all(), [Ok(Answer::Done)]);
    assert!(matches!(sent.all()[..], [Err(ChatError::SignedOut { .. })]));
    rig.open();
    assert!(rig.written.is_empty());
}

#[test]
fn a_logout_while_signing_in_again_ends_that_connection() {
    let mut rig = Rig::signed_in(Vec::new());
    rig.lose();
    rig.open();
    rig.expect(Id::LOGIN);
    let logout = rig.ask(Request::Logout);
    assert_eq!(logout.all(), [Ok(Answer::Done)]);
    assert!(!rig.is_open);
    assert_eq!(rig.state.user(), None);
}

#[test]
fn a_login_without_an_answer_ends_the_connection() {
    let mut rig = Rig::new();
    rig.open();
    let login = rig.ask(login());
    rig.advance(10 * SECOND);
    assert_eq!(login.all(), [Err(ChatError::Timeout)]);
    assert!(!rig.is_open);
}

#[test]
fn a_quiet_connection_is_kept_up_by_heartbeats_and_a_silent_one_is_given_up() {
    let mut rig = Rig::signed_in(Vec::new());
    rig.advance(15 * SECOND);
    rig.expect(Id::HEARTBEAT);
    rig.answer(0, Id::HEARTBEAT_ANSWER, &proto::Heartbeat::default());
    rig.advance(39 * SECOND);
    assert!(rig.is_open);
    rig.advance(SECOND);
    assert!(!rig.is_open);
    let reason = "the server is silent".to_owned();
    assert_eq!(rig.events.last(), Some(&Event::Disconnected { reason }));
}

#[test]
fn a_password_is_not_printed() {
    assert!(!format!("{:?}", login()).contains("secret"));
}

// ---- messages ----

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
    let id = rig.expect(Id::LOGIN).0;
    let list = vec![stored(FRIEND, 3)];
    rig.answer(id, Id::LOGIN_ANSWER, &login_answer(list));
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
    let Request::Login(mut credentials) = login() else {
        unreachable!()
    };
    credentials.user = user(9);
    let _ = rig.ask(Request::Login(credentials));
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
