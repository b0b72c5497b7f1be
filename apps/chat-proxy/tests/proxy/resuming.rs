//! Sessions that go on after a lost connection.

use chat_proto::frame;
use chat_proto::ids::{MessageId, code};
use chat_proto::messages::*;

use super::{Setting, wait_until};
use crate::client::{Client, chat, login_request, logout_request};
use crate::fake::{pair, token};

fn resume_request(user_id: i32, received: Vec<ConversationAck>) -> ResumeRequest {
    ResumeRequest {
        user_id,
        session_token: token(user_id),
        acknowledges: true,
        received,
        ..Default::default()
    }
}

fn resume(client: &mut Client, request: &ResumeRequest) -> LoginResponse {
    client.ask(MessageId::RESUME, request, MessageId::RESUME_ANSWER)
}

fn received(friend_id: i32, sequence: u64) -> ConversationAck {
    ConversationAck {
        conversation: Some(Conversation {
            friend_id,
            group_id: 0,
        }),
        sequence,
    }
}

#[test]
fn a_token_comes_with_a_login_that_asks_for_it_and_opens_a_session() {
    let setting = Setting::new();
    let mut client = setting.connect();
    assert!(client.log_in(1, true).session_token.is_empty());
    drop(client);
    let mut client = setting.connect();
    let request = LoginRequest {
        wants_session_token: true,
        ..login_request(1, true)
    };
    let answer: LoginResponse = client.ask(MessageId::LOGIN, &request, MessageId::LOGIN_ANSWER);
    assert_eq!(answer.session_token, token(1));
    client.abort();
    wait_until("the logout", || !setting.is_online(1));

    let mut client = setting.connect();
    let answer = resume(&mut client, &resume_request(1, vec![]));
    assert_eq!(answer.error_code, code::SUCCESS);
    assert!(setting.is_online(1));
    let sequence = setting.fake.commit(2, 1);
    setting.fake.push(2, 1, sequence);
    assert_eq!(client.expect_push(), sequence);
    client.chat(5, 1, 2, "mine");
    assert_eq!(client.receive().request_id, 5);
}

#[test]
fn what_a_client_has_is_acknowledged_up_to_what_there_is() {
    let setting = Setting::new();
    for _ in 0..3 {
        setting.fake.commit(2, 1);
        setting.fake.commit(3, 1);
    }
    let mut client = setting.connect();
    let list = vec![
        received(2, 2),
        received(3, 100),
        received(4, 1),
        received(2, 0),
    ];
    let answer = resume(&mut client, &resume_request(1, list.clone()));
    assert_eq!(answer.error_code, code::SUCCESS);
    setting.fake.wait("acknowledged", |state| {
        state.acks.get(&(1, pair(1, 2))) == Some(&2)
            && state.acks.get(&(1, pair(1, 3))) == Some(&3)
            // Of nobody's conversation nothing is.
            && !state.acks.contains_key(&(1, pair(1, 4)))
    });
    assert_eq!(setting.fake.script(|state| state.received.clone()), list);
}

#[test]
fn a_resume_ends_the_connection_that_is_left_and_no_logout_follows_it() {
    let setting = Setting::new();
    let other = setting.another_proxy();
    for address in [setting.proxy.local_addr(), other.local_addr()] {
        let mut old = setting.logged_in(1);
        let mut new = Client::connect(address);
        let answer = resume(&mut new, &resume_request(1, vec![]));
        assert_eq!(answer.error_code, code::SUCCESS);
        let word: SignedOut = old.expect(MessageId::SIGNED_OUT);
        assert!(!word.reason.contains("logged in"), "{}", word.reason);
        old.expect_closed();
        drop(old);
        wait_until("one session", || {
            setting.proxy.sessions() + other.sessions() == 1
        });
        new.expect_silence();
        assert!(setting.is_online(1));
        drop(new);
        wait_until("the logout", || !setting.is_online(1));
    }
}

#[test]
fn a_wrong_token_is_refused_and_the_password_still_helps() {
    let setting = Setting::new();
    let mut client = setting.connect();
    let wrong = ResumeRequest {
        session_token: token(2),
        ..resume_request(1, vec![])
    };
    assert_eq!(resume(&mut client, &wrong).error_code, code::SESSION_ENDED);
    assert!(!setting.is_online(1));
    assert_eq!(setting.proxy.sessions(), 0);
    assert_eq!(client.log_in(1, true).error_code, code::SUCCESS);
    let again = resume(&mut client, &resume_request(1, vec![]));
    assert_eq!(again.error_code, code::ALREADY_LOGGED_IN);
}

#[test]
fn an_unreadable_resume_and_one_without_a_user_are_refused() {
    let setting = Setting::new();
    let mut client = setting.connect();
    let garbage = RequestFrame {
        message_id: MessageId::RESUME.0,
        content: vec![0xff].into(),
        request_id: 3,
    };
    client.send_raw(&frame::to_bytes(&garbage));
    let answer: LoginResponse = client.expect(MessageId::RESUME_ANSWER);
    assert_eq!(answer.error_code, code::INVALID);
    let nobody = ResumeRequest::default();
    assert_eq!(resume(&mut client, &nobody).error_code, code::SESSION_ENDED);
    client.expect_silence();
}

#[test]
fn a_logout_ends_the_token_and_a_lost_connection_does_not() {
    let setting = Setting::new();
    let mut client = setting.connect();
    resume(&mut client, &resume_request(1, vec![]));
    client.abort();
    wait_until("the logout", || !setting.is_online(1));
    assert!(setting.fake.script(|state| state.ended_tokens.is_empty()));

    let mut client = setting.connect();
    resume(&mut client, &resume_request(1, vec![]));
    let mut forged = logout_request(1);
    forged.session_token = token(2);
    let answer: LogoutResponse = client.ask(MessageId::LOGOUT, &forged, MessageId::LOGOUT_ANSWER);
    assert_eq!(answer.error_code, code::SUCCESS);
    let ended = setting.fake.script(|state| state.ended_tokens.clone());
    assert_eq!(ended, [token(1)]);
}

#[test]
fn a_logout_whose_connection_ends_before_its_answer_ends_the_token_too() {
    let setting = Setting::new();
    let mut client = setting.connect();
    resume(&mut client, &resume_request(1, vec![]));
    setting.fake.script(|state| state.hold_chats = true);
    client.send(MessageId::FRIEND_CHAT, 2, &chat(1, 2, "slow"));
    setting
        .fake
        .wait("the send is held", |state| !state.held.is_empty());
    // It waits for the answer to the send.
    client.send(MessageId::LOGOUT, 3, &logout_request(1));
    client.abort();
    setting.fake.wait("the token has ended", |state| {
        state.ended_tokens == [token(1)]
    });
    wait_until("the logout", || !setting.is_online(1));
}

#[test]
fn a_resume_whose_client_is_gone_is_undone() {
    let setting = Setting::new();
    setting.fake.script(|state| state.hold_logins = true);
    let mut client = setting.connect();
    client.send(MessageId::RESUME, 1, &resume_request(1, vec![]));
    wait_until("the resume has begun", || setting.is_online(1));
    client.abort();
    setting.fake.script(|state| state.hold_logins = false);
    wait_until("the logout", || !setting.is_online(1));
    assert_eq!(setting.proxy.sessions(), 0);
}
