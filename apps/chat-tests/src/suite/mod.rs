//! What every chat must do, as functions of a running [`System`]. Each makes users of its own, so
//! all of them may run on one system at once.

mod accounts;
mod friends;
mod groups;
mod offline;
mod pages;
mod protocol;
mod resuming;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chat_proto::ids::{MessageId, code};
use chat_proto::messages::*;

use crate::{Entrance, System, WireClient};

const PASSWORD: &str = "correct horse 密码";

/// A case by name.
pub type Case = (&'static str, fn(&System));

/// All cases.
pub const CASES: &[Case] = &[
    (
        "register_and_login_answer_with_their_codes",
        accounts::register_and_login_answer_with_their_codes,
    ),
    (
        "a_name_does_where_an_id_does",
        accounts::a_name_does_where_an_id_does,
    ),
    (
        "friends_are_added_and_deleted_and_told",
        friends::friends_are_added_and_deleted_and_told,
    ),
    (
        "messages_arrive_in_order_and_intact",
        friends::messages_arrive_in_order_and_intact,
    ),
    ("only_friends_can_write", friends::only_friends_can_write),
    (
        "offline_messages_wait_for_the_login",
        offline::offline_messages_wait_for_the_login,
    ),
    (
        "a_long_absence_is_made_up_for_once_and_in_order",
        offline::a_long_absence_is_made_up_for_once_and_in_order,
    ),
    (
        "pending_until_acknowledged",
        offline::pending_until_acknowledged,
    ),
    (
        "a_send_repeated_is_stored_once",
        friends::a_send_repeated_is_stored_once,
    ),
    ("groups_live_and_die", groups::groups_live_and_die),
    (
        "group_messages_reach_every_other_member",
        groups::group_messages_reach_every_other_member,
    ),
    ("the_newer_login_wins", accounts::the_newer_login_wins),
    (
        "the_longest_messages_come_in_pages",
        pages::the_longest_messages_come_in_pages,
    ),
    ("lists_come_in_pages", pages::lists_come_in_pages),
    (
        "a_session_goes_on_at_another_proxy",
        resuming::a_session_goes_on_at_another_proxy,
    ),
    (
        "a_session_ends_with_its_logout_or_a_newer_login",
        resuming::a_session_ends_with_its_logout_or_a_newer_login,
    ),
    (
        "nothing_is_done_before_login_or_for_others",
        accounts::nothing_is_done_before_login_or_for_others,
    ),
    (
        "a_closed_connection_logs_out",
        accounts::a_closed_connection_logs_out,
    ),
    (
        "history_has_both_sides_without_gaps",
        friends::history_has_both_sides_without_gaps,
    ),
    (
        "frames_split_glued_and_broken",
        protocol::frames_split_glued_and_broken,
    ),
    (
        "an_old_client_is_served_in_full",
        protocol::an_old_client_is_served_in_full,
    ),
];

/// Runs all cases, four at a time, and panics with the names of those that failed.
pub fn run(system: &System) {
    let next = AtomicU64::new(0);
    let failed = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((name, case)) = usize::try_from(next.fetch_add(1, Ordering::Relaxed))
                    .ok()
                    .and_then(|index| CASES.get(index))
                {
                    let result =
                        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(system)));
                    println!("{name}: {}", if result.is_ok() { "ok" } else { "FAILED" });
                    if result.is_err() {
                        failed.lock().unwrap().push(*name);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "failed: {failed:?}");
}

/// A user who is not there yet; names are unique among all runs on one store.
pub fn new_user(client: &mut WireClient) -> i32 {
    let answer = client.register(&unique_name("user"), PASSWORD);
    assert_eq!(answer.error_code, code::SUCCESS, "{}", answer.error_text);
    answer.user_id
}

fn unique_name(what: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_nanos();
    format!("{what} {now} {}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A new user who has logged in, as a client that acknowledges.
fn member(entrance: Entrance) -> WireClient {
    let mut client = WireClient::connect(entrance);
    let user = new_user(&mut client);
    login(&mut client, user, true);
    client
}

/// Logs a user of the suite in.
pub fn login(client: &mut WireClient, user: i32, acknowledges: bool) -> LoginResponse {
    let answer = client.login(user, PASSWORD, acknowledges);
    assert_eq!(answer.error_code, code::SUCCESS, "{}", answer.error_text);
    answer
}

/// Sends the login of a user of the suite, and returns its request id.
pub fn send_login(client: &mut WireClient, user: i32) -> u64 {
    let request = LoginRequest {
        user_id: user,
        user_password: PASSWORD.into(),
        acknowledges: true,
        wants_session_token: true,
        ..Default::default()
    };
    client.send(MessageId::LOGIN, &request)
}

/// Two friends, one on each proxy, with the notice of their friendship taken.
pub fn friends(system: &System) -> (WireClient, WireClient) {
    let mut left = member(system.left);
    let mut right = member(system.right);
    let answer = left.add_friend(right.user_id);
    assert_eq!(answer.error_code, code::SUCCESS, "{}", answer.error_text);
    let notice: AddFriendRequest = right.push(MessageId::RECV_ADD_FRIEND);
    assert_eq!(
        (notice.user_id, notice.friend_id),
        (left.user_id, right.user_id)
    );
    (left, right)
}

/// Whether a proxy has found all services: each answers, if only to refuse.
pub fn serves(entrance: impl Into<Entrance>) -> bool {
    let mut client = WireClient::connect(entrance);
    let name = unique_name("probe");
    let user = client.register(&name, PASSWORD);
    if user.error_code != code::SUCCESS
        || client.login(user.user_id, PASSWORD, true).error_code != code::SUCCESS
    {
        return false;
    }
    client.chat(i32::MAX, "").error_code == code::FRIEND_CHAT_NOT_FRIENDS
        && client.group_chat(i32::MAX, "").error_code == code::GROUP_CHAT_NOT_MEMBER
        && client.add_friend(i32::MAX).error_code == code::ADD_FRIEND_NO_USER
        && client.join_group(i32::MAX).error_code == code::JOIN_NO_GROUP
}

fn offline(answer: &LoginResponse) -> &[Message] {
    answer
        .offline_message_list
        .as_ref()
        .map_or(&[], |list| &list.messages)
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < until, "{what}");
        std::thread::yield_now();
    }
}
