//! Signing in, coming back, and signing out.

use chat_proto::ids::{MessageId as Id, code};
use chat_proto::messages as proto;
use prost::Message as _;

use super::*;
use crate::model::Answer;
use crate::state::{Password, Request};
use crate::{ChatError, Event, Operation, SessionToken, Status};

#[test]
fn after_a_lost_connection_the_session_is_resumed_and_sends_are_repeated() {
    let mut rig = Rig::signed_in(Vec::new());
    let sent = rig.ask(send(7));
    let friends = rig.ask(Request::Friends);
    rig.lose();
    assert_eq!(friends.all(), [Err(ChatError::Disconnected)]);
    let groups = rig.ask(Request::Groups);
    assert_eq!(rig.state.user(), Some(user(ME)));
    rig.open();
    let (id, received) = rig.expect_resume();
    assert_eq!(received, []);
    assert!(rig.written.is_empty());
    rig.answer(
        id,
        Id::RESUME_ANSWER,
        &resume_answer(vec![stored(FRIEND, 1)]),
    );
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
fn who_signs_in_by_name_goes_on_under_the_id_of_the_answer() {
    let mut rig = Rig::new();
    rig.open();
    let login = rig.ask(Request::Login {
        user: "ann".into(),
        password: Password("secret".to_owned()),
    });
    let (id, content) = rig.expect(Id::LOGIN);
    let request = proto::LoginRequest::decode(content).unwrap();
    assert_eq!((request.user_id, &request.user_name[..]), (0, &b"ann"[..]));
    let answer = proto::LoginResponse {
        user: Some(proto::User {
            user_id: ME,
            ..Default::default()
        }),
        ..login_answer(Vec::new())
    };
    rig.answer(id, Id::LOGIN_ANSWER, &answer);
    assert!(matches!(&login.all()[..], [Ok(Answer::Login(login))] if login.user == user(ME)));
    assert_eq!(rig.state.user(), Some(user(ME)));

    let added = rig.ask(Request::AddFriend("bob".into()));
    let (id, content) = rig.expect(Id::ADD_FRIEND);
    let request = proto::AddFriendRequest::decode(content).unwrap();
    assert_eq!((request.user_id, request.friend_id), (ME, 0));
    assert_eq!(request.friend_name, b"bob"[..]);
    let answer = proto::AddFriendResponse {
        error_code: code::SUCCESS,
        friend_user: Some(proto::FriendUser {
            friend_id: FRIEND,
            ..Default::default()
        }),
        sequence: 1,
        ..Default::default()
    };
    rig.answer(id, Id::ADD_FRIEND_ANSWER, &answer);
    assert!(
        matches!(&added.all()[..], [Ok(Answer::Friend(friend))] if friend.user == user(FRIEND))
    );
    // The user's own message is no gap: what follows is shown at once.
    rig.answer(0, Id::RECV_FRIEND, &pushed(2));
    assert_eq!(rig.events.last(), Some(&Event::Message(text_message(2))));
    // And the session is resumed by the id.
    rig.lose();
    rig.open();
    rig.expect_resume();
}

#[test]
fn a_connection_that_ends_because_nobody_signed_in_is_made_anew_without_a_word() {
    let mut rig = Rig::new();
    rig.open();
    // Written before the notice arrives, and never read by the server.
    let login = rig.ask(login());
    rig.expect(Id::LOGIN);
    let notice = proto::ErrorNotice {
        error_code: code::NOT_LOGGED_IN,
        error_text: "nobody logged in for too long".to_owned(),
    };
    rig.answer(0, Id::ERROR, &notice);
    assert_eq!(login.all(), []);
    rig.open();
    let (id, _) = rig.expect(Id::LOGIN);
    rig.answer(id, Id::LOGIN_ANSWER, &login_answer(Vec::new()));
    assert!(matches!(login.all()[..], [Ok(Answer::Login(_))]));
    assert_eq!(rig.events, [Event::Connected, Event::Connected]);
}

#[test]
fn a_login_by_name_whose_answer_names_nobody_signs_nobody_in() {
    let mut rig = Rig::new();
    rig.open();
    let login = rig.ask(Request::Login {
        user: "ann".into(),
        password: Password("secret".to_owned()),
    });
    let id = rig.expect(Id::LOGIN).0;
    rig.answer(id, Id::LOGIN_ANSWER, &login_answer(Vec::new()));
    assert!(matches!(login.all()[..], [Err(ChatError::Protocol(_))]));
    assert_eq!(rig.state.user(), None);
}

/// Answers the next frame, a send, and says which one it was.
fn take_send(rig: &mut Rig, answer: &proto::FriendChatResponse) -> u64 {
    let (id, content) = rig.expect(Id::FRIEND_CHAT);
    rig.answer(id, Id::FRIEND_CHAT_ANSWER, answer);
    let request = proto::FriendChatRequest::decode(content).unwrap();
    request.client_message_id
}

fn send_refusal(error_code: i32) -> proto::FriendChatResponse {
    proto::FriendChatResponse {
        error_code,
        ..Default::default()
    }
}

#[test]
fn repeated_sends_keep_their_order_and_stand_before_later_ones() {
    let mut rig = Rig::signed_in(Vec::new());
    let _first = [3, 1, 2].map(|id| rig.ask(send(id)));
    assert_eq!(take_send(&mut rig, &sent_answer(1)), 3);
    rig.lose();
    let _later = rig.ask(send(9));
    rig.open();
    let id = rig.expect_resume().0;
    rig.answer(id, Id::RESUME_ANSWER, &resume_answer(Vec::new()));
    let again = [2, 3, 4].map(|place| take_send(&mut rig, &sent_answer(place)));
    assert_eq!(again, [1, 2, 9]);
    assert!(rig.written.is_empty());
}

#[test]
fn a_send_that_cannot_be_taken_now_is_sent_again_before_those_behind_it() {
    let mut rig = Rig::signed_in(Vec::new());
    let sent = [1, 2].map(|id| rig.ask(send(id)));
    for code in [code::UNAVAILABLE, code::RATE_LIMITED, code::UNAVAILABLE] {
        assert_eq!(take_send(&mut rig, &send_refusal(code)), 1);
        assert!(rig.written.is_empty(), "sent again at once, or overtaken");
        rig.advance(5 * SECOND);
    }
    assert_eq!(take_send(&mut rig, &sent_answer(1)), 1);
    assert_eq!(take_send(&mut rig, &send_refusal(2)), 2);
    assert!(matches!(sent[0].all()[..], [Ok(Answer::Sent(_))]));
    // What will not change is told at once.
    assert_eq!(sent[1].all(), [Err(refused(Operation::FriendChat, 2))]);
    assert!(rig.written.is_empty());
}

#[test]
fn a_send_that_is_never_taken_times_out_and_the_next_has_its_turn() {
    let mut rig = Rig::signed_in(Vec::new());
    let first = rig.ask(send(1));
    let began = rig.now;
    let mut attempts = 0;
    while first.all().is_empty() {
        assert_eq!(take_send(&mut rig, &send_refusal(code::UNAVAILABLE)), 1);
        attempts += 1;
        if attempts == 3 {
            let _ = rig.ask(send(2));
        }
        while rig.written.is_empty() && first.all().is_empty() {
            rig.advance(SECOND);
            rig.answer(0, Id::HEARTBEAT_ANSWER, &proto::Heartbeat::default());
            rig.written
                .retain(|frame| frame.message_id != Id::HEARTBEAT.0);
        }
    }
    // With whether it was stored left open, as the server's word is not the last.
    assert_eq!(first.all(), [Err(ChatError::Timeout)]);
    assert_eq!(rig.now - began, 60 * SECOND);
    assert!((10..30).contains(&attempts), "{attempts}");
    assert_eq!(take_send(&mut rig, &sent_answer(1)), 2);
}

#[test]
fn conversations_do_not_wait_for_each_other_and_changes_wait_for_their_own() {
    let mut rig = Rig::signed_in(Vec::new());
    let _ = rig.ask(send(1));
    let _ = rig.ask(Request::DeleteFriend(user(FRIEND)));
    let _ = rig.ask(Request::JoinGroup(group(5)));
    let _ = rig.ask(Request::Logout);
    let id = rig.expect(Id::FRIEND_CHAT).0;
    let join = rig.expect(Id::ADD_GROUP).0;
    assert!(rig.written.is_empty());
    rig.answer(id, Id::FRIEND_CHAT_ANSWER, &sent_answer(1));
    let delete = rig.expect(Id::DELETE_FRIEND).0;
    rig.answer(
        delete,
        Id::DELETE_FRIEND_ANSWER,
        &proto::DeleteFriendResponse {
            error_code: code::UNAVAILABLE,
            ..Default::default()
        },
    );
    assert!(rig.written.is_empty());
    rig.answer(
        join,
        Id::ADD_GROUP_ANSWER,
        &proto::AddGroupResponse {
            error_code: code::UNAVAILABLE,
            ..Default::default()
        },
    );
    // The logout comes last.
    rig.expect(Id::LOGOUT);
}

#[test]
fn a_session_is_resumed_again_and_again_by_the_same_token() {
    let mut rig = Rig::signed_in(Vec::new());
    for _ in 0..3 {
        rig.lose();
        rig.open();
        // Lost before the answer.
        rig.expect_resume();
        rig.lose();
        rig.open();
        let id = rig.expect_resume().0;
        rig.answer(id, Id::RESUME_ANSWER, &resume_answer(Vec::new()));
        assert_eq!(rig.events.last(), Some(&Event::Reconnected { resent: 0 }));
    }
}

#[test]
fn the_status_tells_how_the_client_stands() {
    let mut rig = Rig::new();
    assert_eq!(rig.state.status(), Status::Connecting);
    rig.open();
    assert_eq!(rig.state.status(), Status::Connected);
    let _ = rig.ask(login());
    assert_eq!(rig.state.status(), Status::Connected);
    let id = rig.expect(Id::LOGIN).0;
    rig.answer(id, Id::LOGIN_ANSWER, &login_answer(Vec::new()));
    assert_eq!(rig.state.status(), Status::Live);
    rig.lose();
    assert_eq!(rig.state.status(), Status::Connecting);
    rig.open();
    assert_eq!(rig.state.status(), Status::Resuming);
    let id = rig.expect_resume().0;
    rig.answer(id, Id::RESUME_ANSWER, &resume_answer(Vec::new()));
    assert_eq!(rig.state.status(), Status::Live);
}

#[test]
fn resuming_is_tried_again_while_the_server_is_not_able_to() {
    let mut rig = Rig::signed_in(Vec::new());
    rig.lose();
    rig.open();
    for _ in 0..3 {
        let id = rig.expect_resume().0;
        rig.answer(id, Id::RESUME_ANSWER, &login_refusal(code::UNAVAILABLE));
        assert!(rig.written.is_empty(), "tried again at once");
        rig.advance(5 * SECOND);
    }
    let id = rig.expect_resume().0;
    rig.answer(id, Id::RESUME_ANSWER, &resume_answer(Vec::new()));
    assert_eq!(rig.events.last(), Some(&Event::Reconnected { resent: 0 }));
}

#[test]
fn a_session_that_has_ended_signs_out_until_the_next_login() {
    let mut rig = Rig::signed_in(Vec::new());
    let sent = rig.ask(send(7));
    rig.lose();
    rig.open();
    let id = rig.expect_resume().0;
    rig.answer(id, Id::RESUME_ANSWER, &login_refusal(code::SESSION_ENDED));
    let reason = "the session has ended; sign in with your password".to_owned();
    let error = ChatError::SignedOut {
        reason: reason.clone(),
    };
    assert_eq!(sent.all(), [Err(error)]);
    assert_eq!(rig.events.last(), Some(&Event::SignedOut { reason }));
    assert_eq!(rig.state.user(), None);
    // On the same connection.
    let login = rig.ask(login());
    let id = rig.expect(Id::LOGIN).0;
    rig.answer(id, Id::LOGIN_ANSWER, &login_answer(Vec::new()));
    assert!(matches!(login.all()[..], [Ok(Answer::Login(_))]));
}

#[test]
fn a_server_that_gave_no_token_needs_the_password_again() {
    let mut rig = Rig::new();
    rig.open();
    let _ = rig.ask(login());
    let id = rig.expect(Id::LOGIN).0;
    rig.answer(id, Id::LOGIN_ANSWER, &resume_answer(Vec::new()));
    rig.lose();
    rig.open();
    assert!(matches!(rig.events.last(), Some(Event::SignedOut { .. })));
    assert_eq!(rig.state.status(), Status::Connected);
}

#[test]
fn the_application_can_resume_the_session_of_an_earlier_process() {
    let mut rig = Rig::new();
    rig.open();
    let token = SessionToken::new(user(ME), &TOKEN.into()).unwrap();
    let resumed = rig.ask(Request::Resume {
        token: token.clone(),
        received: Vec::new(),
        attempt: 0,
    });
    let id = rig.expect_resume().0;
    rig.answer(
        id,
        Id::RESUME_ANSWER,
        &resume_answer(vec![stored(FRIEND, 4)]),
    );
    let [Ok(Answer::Login(snapshot))] = &resumed.all()[..] else {
        panic!("{:?}", resumed.all());
    };
    assert_eq!((snapshot.user, snapshot.waiting), (user(ME), 1));
    assert_eq!(snapshot.token, Some(token));
    assert_eq!(rig.shown(), [4]);
    rig.lose();
    rig.open();
    assert_eq!(rig.expect_resume().1, [(friend_conversation(), 4)]);
}

#[test]
fn a_newer_login_elsewhere_signs_out_for_good() {
    let mut rig = Rig::signed_in(Vec::new());
    let sent = rig.ask(send(7));
    rig.expect(Id::FRIEND_CHAT);
    let reason = "signed in elsewhere".to_owned();
    let notice = proto::SignedOut {
        reason: reason.clone(),
        resumed: false,
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
fn each_attempt_to_resume_has_a_higher_number_than_those_before() {
    let mut rig = Rig::signed_in(Vec::new());
    for number in 1..=3 {
        rig.lose();
        rig.open();
        let content = rig.expect(Id::RESUME).1;
        let request = proto::ResumeRequest::decode(content).unwrap();
        assert_eq!((request.attempt, request.client_run), (number, RUN));
    }
}

#[test]
fn a_session_that_went_on_elsewhere_is_resumed_unless_another_program_has_it() {
    let mut rig = Rig::signed_in(vec![stored(FRIEND, 1)]);
    let sent = rig.ask(send(7));
    rig.expect(Id::FRIEND_CHAT);
    let notice = proto::SignedOut {
        reason: "your session continues on another connection".to_owned(),
        resumed: true,
    };
    rig.answer(0, Id::SIGNED_OUT, &notice);
    assert!(!rig.is_open);
    rig.lose();
    rig.open();
    let id = rig.expect_resume().0;
    rig.answer(id, Id::RESUME_ANSWER, &resume_answer(Vec::new()));
    rig.expect(Id::FRIEND_CHAT);
    assert!(sent.all().is_empty());
    assert_eq!(rig.state.status(), Status::Live);

    rig.advance(30 * SECOND);
    rig.answer(0, Id::SIGNED_OUT, &notice);
    assert!(matches!(rig.events.last(), Some(Event::SignedOut { .. })));
    assert_eq!(rig.state.user(), None);
}

#[test]
fn only_a_wrong_token_is_forgotten() {
    let mut rig = Rig::signed_in(Vec::new());
    rig.lose();
    rig.open();
    for code in [
        code::LOGIN_ALREADY_ONLINE,
        code::NOT_LOGGED_IN,
        code::RATE_LIMITED,
        code::TOO_LARGE,
        code::UNAVAILABLE,
        code::INTERNAL,
        code::INVALID,
        code::UNKNOWN_MESSAGE,
        code::UNCERTAIN,
        999,
    ] {
        let id = rig.expect_resume().0;
        rig.answer(id, Id::RESUME_ANSWER, &login_refusal(code));
        assert_eq!(rig.state.user(), Some(user(ME)), "{code}");
        rig.lose();
        rig.open();
    }
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
fn a_logout_while_resuming_ends_that_connection() {
    let mut rig = Rig::signed_in(Vec::new());
    rig.lose();
    rig.open();
    rig.expect_resume();
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
fn neither_a_password_nor_a_token_is_printed() {
    assert!(!format!("{:?}", login()).contains("secret"));
    let rig = Rig::signed_in(Vec::new());
    let token = rig.state.me.as_ref().unwrap().token.clone();
    let resume = Request::Resume {
        token: token.unwrap(),
        received: Vec::new(),
        attempt: 0,
    };
    let printed = format!("{resume:?}");
    let secret = std::str::from_utf8(TOKEN).unwrap();
    assert!(!printed.contains(secret), "{printed}");
}
