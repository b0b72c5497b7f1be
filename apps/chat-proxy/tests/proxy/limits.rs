//! What one client may do, and what becomes of one that does more.

use std::time::Duration;

use chat_bus::Rate;
use chat_proto::ids::{MessageId, code};
use chat_proto::messages::*;

use super::{Setting, wait_until};
use crate::client::{Client, chat, login_request};

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(500);

/// The client is told why, and then the connection ends.
#[track_caller]
fn expect_turned_away(client: &mut Client, code: i32) -> String {
    let notice: ErrorNotice = client.expect(MessageId::ERROR);
    assert_eq!(notice.error_code, code, "{}", notice.error_text);
    client.expect_closed();
    notice.error_text
}

fn send_chat(client: &mut Client, from: i32) -> i32 {
    let (id, answer_id) = (MessageId::FRIEND_CHAT, MessageId::FRIEND_CHAT_ANSWER);
    let answer: FriendChatResponse = client.ask(id, &chat(from, 9, "hello"), answer_id);
    answer.error_code
}

#[test]
fn more_connections_from_one_address_than_allowed_are_told_and_closed() {
    let setting = Setting::with(|options| options.clients.connections_per_address_max = 2);
    let (mut one, mut two) = (setting.connect(), setting.connect());
    one.expect_silence();
    two.expect_silence();
    expect_turned_away(&mut setting.connect(), code::RATE_LIMITED);
    one.expect_silence();
    drop(two);
    wait_until("there is room again", || {
        let mut again = setting.connect();
        again.send(MessageId::HEARTBEAT, 1, &Heartbeat { token: 1 });
        let frame = again.receive();
        frame.message_id == MessageId::HEARTBEAT_ANSWER.0
    });
}

#[test]
fn who_does_not_log_in_in_time_is_closed() {
    let setting = Setting::with(|options| options.clients.login_timeout = SHORT);
    let mut member = setting.logged_in(1);
    let mut stranger = setting.connect();
    // Heartbeats do not help.
    stranger.expect_silence();
    expect_turned_away(&mut stranger, code::NOT_LOGGED_IN);
    // Who has logged in may stay, and then has as much time again.
    member.expect_silence();
    let request = LogoutRequest {
        user_id: 1,
        ..Default::default()
    };
    let answer: LogoutResponse = member.ask(MessageId::LOGOUT, &request, MessageId::LOGOUT_ANSWER);
    assert_eq!(answer.error_code, code::SUCCESS);
    assert_eq!(member.log_in(2, false).error_code, code::SUCCESS);
    let mut late = setting.connect();
    expect_turned_away(&mut late, code::NOT_LOGGED_IN);
    member.expect_silence();
}

#[test]
fn a_login_that_is_being_answered_is_in_time() {
    let setting = Setting::with(|options| options.clients.login_timeout = SHORT);
    setting.fake.script(|state| state.hold_logins = true);
    let mut client = setting.connect();
    let request = login_request(1, false);
    client.send(MessageId::LOGIN, 5, &request);
    setting
        .fake
        .wait("the login", |state| !state.calls.is_empty());
    // The other one shows that the time is over.
    expect_turned_away(&mut setting.connect(), code::NOT_LOGGED_IN);
    setting.fake.script(|state| state.hold_logins = false);
    assert_eq!(client.receive().request_id, 5);
    client.expect_silence();
}

#[test]
fn half_a_frame_is_waited_for_only_so_long() {
    let setting = Setting::with(|options| options.clients.frame_timeout = SHORT);
    let (mut slow, mut idle) = (setting.logged_in(1), setting.logged_in(2));
    slow.send_raw(&[0, 0]);
    let text = expect_turned_away(&mut slow, code::INVALID);
    assert!(text.contains("too long"), "{text}");
    wait_until("the logout", || !setting.is_online(1));
    idle.expect_silence();
}

#[test]
fn a_frame_that_trickles_in_gains_no_time() {
    let setting = Setting::with(|options| options.clients.frame_timeout = SHORT);
    let mut client = setting.logged_in(1);
    client.send_raw(&[0, 0, 16, 0]);
    // The frame would take 40 s.
    let sent = (0..4096).take_while(|_| {
        std::thread::sleep(Duration::from_millis(10));
        client.try_send_raw(&[0])
    });
    assert!(sent.count() < 4096);
}

#[test]
fn a_user_who_sends_too_much_is_refused_also_after_coming_back() {
    let setting = Setting::with(|options| {
        options.clients.messages_per_user = Rate::literal(3, LONG);
    });
    let mut client = setting.logged_in(1);
    for _ in 0..3 {
        assert_eq!(send_chat(&mut client, 1), code::SUCCESS);
    }
    assert_eq!(send_chat(&mut client, 1), code::RATE_LIMITED);
    // Only messages are.
    let friend = AddFriendRequest {
        user_id: 1,
        friend_id: 2,
        ..Default::default()
    };
    let (id, answer_id) = (MessageId::ADD_FRIEND, MessageId::ADD_FRIEND_ANSWER);
    let answer: AddFriendResponse = client.ask(id, &friend, answer_id);
    assert_eq!(answer.error_code, code::SUCCESS);
    drop(client);
    wait_until("the logout", || !setting.is_online(1));
    assert_eq!(send_chat(&mut setting.logged_in(1), 1), code::RATE_LIMITED);
    assert_eq!(send_chat(&mut setting.logged_in(3), 3), code::SUCCESS);
    assert_eq!(setting.fake.count("friend_chat"), 4);
}

#[test]
fn requests_beyond_the_rate_are_refused_and_heartbeats_are_none() {
    let setting = Setting::with(|options| {
        options.clients.requests_per_connection = Rate::literal(3, LONG);
    });
    // The login is one.
    let mut client = setting.logged_in(1);
    for _ in 0..5 {
        client.expect_silence();
    }
    assert_eq!(send_chat(&mut client, 1), code::SUCCESS);
    assert_eq!(send_chat(&mut client, 1), code::SUCCESS);
    assert_eq!(send_chat(&mut client, 1), code::RATE_LIMITED);
    let register = RegisterRequest::default();
    let (id, answer_id) = (MessageId::REGISTER, MessageId::REGISTER_ANSWER);
    let answer: RegisterResponse = client.ask(id, &register, answer_id);
    assert_eq!(answer.error_code, code::RATE_LIMITED);
    client.expect_silence();
    // Another connection has requests of its own.
    assert_eq!(send_chat(&mut setting.logged_in(2), 2), code::SUCCESS);
}

#[test]
fn logins_resumes_and_registrations_of_one_address_are_limited_together() {
    let setting = Setting::with(|options| {
        options.clients.logins_per_address = Rate::literal(4, LONG);
    });
    let mut member = setting.logged_in(1);
    // A login where somebody has logged in already reaches nobody and costs nothing.
    assert_eq!(member.log_in(1, false).error_code, code::ALREADY_LOGGED_IN);
    let enter = || {
        let register = RegisterRequest {
            user_name: "ann".into(),
            ..Default::default()
        };
        let (id, answer_id) = (MessageId::REGISTER, MessageId::REGISTER_ANSWER);
        let registered: RegisterResponse = setting.connect().ask(id, &register, answer_id);
        let resume = ResumeRequest {
            user_id: 2,
            session_token: "made up".into(),
            ..Default::default()
        };
        let (id, answer_id) = (MessageId::RESUME, MessageId::RESUME_ANSWER);
        let resumed: LoginResponse = setting.connect().ask(id, &resume, answer_id);
        let login = LoginRequest {
            user_password: "a guess".into(),
            ..login_request(2, false)
        };
        let (id, answer_id) = (MessageId::LOGIN, MessageId::LOGIN_ANSWER);
        let logged_in: LoginResponse = setting.connect().ask(id, &login, answer_id);
        assert!(resumed.error_text.is_empty() || resumed.error_text.contains("your address"));
        [
            registered.error_code,
            resumed.error_code,
            logged_in.error_code,
        ]
    };
    let (ended, wrong) = (code::SESSION_ENDED, code::LOGIN_WRONG_PASSWORD);
    assert_eq!(enter(), [code::SUCCESS, ended, wrong]);
    assert_eq!(enter(), [code::RATE_LIMITED; 3]);
    for (call, count) in [("register", 1), ("resume", 1), ("login", 2)] {
        assert_eq!(setting.fake.count(call), count, "{call}");
    }
    // Who is in already is not concerned.
    assert_eq!(send_chat(&mut member, 1), code::SUCCESS);
}

#[test]
fn the_services_learn_from_where_a_login_comes() {
    let setting = Setting::new();
    let mut client = setting.connect();
    let register = RegisterRequest {
        user_name: "ann".into(),
        user_password: "secret".into(),
    };
    let (id, answer_id) = (MessageId::REGISTER, MessageId::REGISTER_ANSWER);
    let _: RegisterResponse = client.ask(id, &register, answer_id);
    client.log_in(1, false);
    send_chat(&mut client, 1);
    let seen = setting.fake.script(|state| {
        let calls = state.calls.iter();
        let mut seen: Vec<_> = calls.map(|call| (call.name, call.address)).collect();
        seen.retain(|(name, _)| *name != "fetch_pending");
        seen
    });
    let here = Some("127.0.0.1".parse().expect("an address"));
    assert_eq!(
        seen,
        [("register", here), ("login", here), ("friend_chat", None)]
    );
}
