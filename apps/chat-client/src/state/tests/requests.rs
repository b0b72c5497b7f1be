//! Requests, answers, and the order of both.

use chat_proto::ids::{MessageId as Id, code};
use chat_proto::messages as proto;
use prost::Message as _;

use super::*;
use crate::model::Answer;
use crate::state::Request;
use crate::{ChatError, Event, Operation, Sent};

#[test]
fn requests_made_before_the_connection_go_out_in_order_once_it_is_there() {
    let mut rig = Rig::new();
    let login = rig.ask(login());
    let sent = rig.ask(send(7));
    assert!(rig.written.is_empty());
    rig.open();
    let (id, content) = rig.expect(Id::LOGIN);
    let request = proto::LoginRequest::decode(content).unwrap();
    assert!(request.acknowledges && request.wants_session_token);
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
        reason: None,
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
