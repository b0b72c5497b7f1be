//! Users who are named by their names.

use chat_proto::ids::{MessageId, code};
use chat_proto::messages::*;
use prost::Message as _;

use super::{Setting, wait_until};
use crate::client::{Client, login_request};

fn log_in(client: &mut Client, name: &str, password: &'static str) -> LoginResponse {
    let request = LoginRequest {
        user_id: 0,
        user_name: name.to_owned().into(),
        user_password: password.into(),
        ..login_request(0, false)
    };
    client.ask(MessageId::LOGIN, &request, MessageId::LOGIN_ANSWER)
}

#[test]
fn a_login_by_name_is_a_login_of_the_user_whom_the_service_finds() {
    let setting = Setting::new();
    let mut client = setting.connect();
    assert_eq!(
        log_in(&mut client, "user-7", "secret").error_code,
        code::SUCCESS
    );
    assert!(setting.is_online(7));
    assert_eq!(setting.proxy.sessions(), 1);
    let sequence = setting.fake.commit(3, 7);
    setting.fake.push(3, 7, sequence);
    assert_eq!(client.receive().message_id, MessageId::RECV_FRIEND.0);
    client.chat(1, 7, 3, "hello");
    let answer: FriendChatResponse = client.expect(MessageId::FRIEND_CHAT_ANSWER);
    assert_eq!(answer.error_code, code::SUCCESS);
}

#[test]
fn what_is_pushed_while_a_login_by_name_is_under_way_arrives() {
    let setting = Setting::new();
    let mut client = setting.connect();
    setting.fake.script(|state| state.hold_logins = true);
    let request = LoginRequest {
        user_name: "user-7".into(),
        ..login_request(0, false)
    };
    client.send(MessageId::LOGIN, 1, &request);
    setting.fake.wait("the claim", |state| state.claims == 1);
    let sequence = setting.fake.commit(3, 7);
    setting.fake.push(3, 7, sequence);
    setting.fake.script(|state| state.hold_logins = false);
    assert_eq!(client.receive().message_id, MessageId::LOGIN_ANSWER.0);
    assert_eq!(client.receive().message_id, MessageId::RECV_FRIEND.0);
}

#[test]
fn the_service_refuses_a_name_that_nobody_has_and_counts_it() {
    let setting = Setting::new();
    let mut client = setting.connect();
    let answer = log_in(&mut client, "nobody", "a guess");
    assert_eq!(answer.error_code, code::LOGIN_WRONG_PASSWORD);
    assert_eq!(setting.fake.count("login"), 1);
    // The connection may try again.
    assert_eq!(
        log_in(&mut client, "user-7", "secret").error_code,
        code::SUCCESS
    );
    assert_eq!(
        log_in(&mut client, "user-8", "secret").error_code,
        code::ALREADY_LOGGED_IN
    );
}

#[test]
fn a_client_that_goes_while_its_name_is_looked_for_stays_online_nowhere() {
    let setting = Setting::with(|options| options.clients.connections_per_address_max = 1);
    setting.fake.script(|state| state.hold_names = true);
    let mut client = setting.connect();
    let request = LoginRequest {
        user_name: "user-7".into(),
        ..login_request(0, false)
    };
    client.send(MessageId::LOGIN, 1, &request);
    setting.fake.wait("the name is asked for", |state| {
        state.calls.iter().any(|call| call.name == "find_user")
    });
    client.abort();
    setting.fake.script(|state| state.hold_names = false);
    wait_until("the connection has ended", || {
        let mut next = setting.connect();
        next.send(MessageId::HEARTBEAT, 1, &Heartbeat { token: 1 });
        next.receive().message_id == MessageId::HEARTBEAT_ANSWER.0
    });
    wait_until("the user is offline", || !setting.is_online(7));
    assert_eq!(setting.proxy.sessions(), 0);
}

#[test]
fn a_friend_who_was_added_by_name_can_be_heard_at_once() {
    let setting = Setting::new();
    let mut client = setting.logged_in(7);
    let request = AddFriendRequest {
        user_id: 7,
        friend_name: "user-3".into(),
        ..Default::default()
    };
    let sequence = setting.fake.commit(7, 3);
    setting.fake.script(|state| state.added = (3, sequence));
    client.send(MessageId::ADD_FRIEND, 1, &request);
    let frame = client.receive();
    let answer = AddFriendResponse::decode(frame.content).expect("an answer");
    assert_eq!(answer.sequence, sequence);
    // The next one needs nothing before it, so nothing is fetched.
    let sequence = setting.fake.commit(3, 7);
    setting.fake.push(3, 7, sequence);
    assert_eq!(client.receive().message_id, MessageId::RECV_FRIEND.0);
    assert_eq!(setting.fake.count("fetch_pending"), 0);
}
