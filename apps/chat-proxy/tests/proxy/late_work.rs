//! What a client is told of what may have been done, and sessions that were displaced.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chat_proto::ids::{MessageId, code};
use chat_proto::messages::*;

use super::Setting;
use crate::client::{Client, chat};

const CHAT: MessageId = MessageId::FRIEND_CHAT;
const CHAT_ANSWER: MessageId = MessageId::FRIEND_CHAT_ANSWER;

fn chat_with_id(id: u64) -> FriendChatRequest {
    FriendChatRequest {
        client_message_id: id,
        ..chat(1, 2, "hello")
    }
}

fn send(client: &mut Client, request: &FriendChatRequest) -> i32 {
    let answer: FriendChatResponse = client.ask(CHAT, request, CHAT_ANSWER);
    answer.error_code
}

#[test]
fn only_what_was_certainly_not_done_or_is_recognised_is_to_be_tried_again() {
    let setting = Setting::with(|options| options.request_timeout = Duration::from_millis(300));
    let mut ann = setting.logged_in(1);
    setting.fake.script(|state| state.hold_chats = true);
    assert_eq!(send(&mut ann, &chat(1, 2, "hello")), code::UNCERTAIN);
    assert_eq!(send(&mut ann, &chat_with_id(7)), code::UNAVAILABLE);
    setting.fake.release_chats();
    assert_eq!(send(&mut ann, &chat(1, 2, "hello")), code::SUCCESS);
}

#[test]
fn what_waits_behind_a_request_of_unknown_fate_is_not_carried_out_after_its_own_deadline() {
    let setting = Setting::with(|options| options.request_timeout = Duration::from_millis(300));
    let mut ann = setting.logged_in(1);
    setting.fake.script(|state| state.hold_chats = true);
    ann.chat(1, 1, 2, "first");
    ann.chat(2, 1, 2, "second");
    let codes = [(); 2].map(|()| ann.expect::<FriendChatResponse>(CHAT_ANSWER).error_code);
    assert_eq!(codes, [code::UNCERTAIN, code::UNAVAILABLE]);
    assert_eq!(setting.fake.count("friend_chat"), 1);
}

#[test]
fn a_session_ends_when_a_service_knows_a_newer_login() {
    let setting = Setting::new();
    let mut ann = setting.logged_in(1);
    let refuse = |state: &mut crate::fake::State| state.refuse_with = Some(code::NOT_LOGGED_IN);
    setting.fake.script(refuse);
    assert_eq!(send(&mut ann, &chat(1, 2, "hello")), code::NOT_LOGGED_IN);
    let notice: SignedOut = ann.expect(MessageId::SIGNED_OUT);
    assert!(!notice.resumed, "{notice:?}");
    ann.expect_closed();
}

#[test]
fn a_session_that_asks_for_nothing_ends_when_it_looks_for_what_it_has_missed() {
    let setting = Setting::with(|options| options.resync_interval = Duration::from_millis(100));
    let mut ann = setting.logged_in(1);
    let refuse = |state: &mut crate::fake::State| state.refuse_with = Some(code::NOT_LOGGED_IN);
    setting.fake.script(refuse);
    let notice: SignedOut = ann.expect(MessageId::SIGNED_OUT);
    assert!(!notice.resumed, "{notice:?}");
    ann.expect_closed();
}

#[test]
fn a_call_says_of_which_login_it_is_and_until_when_it_is_waited_for() {
    let setting = Setting::new();
    let mut ann = setting.logged_in(1);
    let now = || {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970");
        i64::try_from(since.as_millis()).expect("not too late")
    };
    let before = now();
    assert_eq!(send(&mut ann, &chat(1, 2, "hello")), code::SUCCESS);
    let call = setting.fake.script(|state| state.calls.last().cloned());
    let call = call.expect("a call");
    assert_eq!((call.name, call.login), ("friend_chat", Some(1)));
    let time = call.time.expect("a time");
    assert!((before..=now()).contains(&time.asked_ms), "{time:?}");
    assert_eq!(time.deadline_ms - time.asked_ms, 5_000);
}

#[test]
fn a_server_whose_clock_differs_is_told_not_to_compare_it() {
    let setting = Setting::new();
    let mut ann = setting.logged_in(1);
    setting.fake.script(|state| state.late_epoch = Some(0));
    // It says so at once, and so it cannot be true.
    assert_eq!(send(&mut ann, &chat(1, 2, "hello")), code::UNAVAILABLE);
    assert_eq!(send(&mut ann, &chat(1, 2, "hello")), code::SUCCESS);
}
