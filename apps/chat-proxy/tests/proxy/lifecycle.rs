//! Logins, and every way in which one ends.

use std::net::Shutdown;
use std::time::Duration;

use chat_bus::{Bus, Claim, Lease, LoginPolicy, NO_NUMBER, ProxyId, SessionRef};
use chat_proto::ids::{MessageId, code};
use chat_proto::messages::*;

use super::{Setting, wait_until};
use crate::client::{Client, login_request, logout_request};

#[test]
fn a_connection_that_closes_logs_its_user_out() {
    let setting = Setting::new();
    let client = setting.logged_in(1);
    assert!(setting.is_online(1));
    assert_eq!(setting.proxy.sessions(), 1);
    drop(client);
    setting.fake.wait("the logout", |state| {
        let last = state.calls.last().expect("a call");
        last.name == "logout" && last.user == Some(1) && last.session.is_some()
    });
    assert!(!setting.is_online(1));
    assert_eq!(setting.proxy.sessions(), 0);
}

#[test]
fn a_silent_client_is_closed_and_a_heartbeat_keeps_one() {
    let setting = Setting::with(|options| options.idle_timeout = Duration::from_secs(2));
    let mut silent = [setting.connect(), setting.logged_in(2)];
    // Both show that they know heartbeats, each in its way.
    silent[0].log_in(1, true);
    silent[1].expect_silence();
    let (mut alive, mut old) = (setting.logged_in(3), setting.logged_in(4));
    while setting.is_online(1) || setting.is_online(2) {
        alive.expect_silence();
    }
    for silent in &mut silent {
        silent.expect_closed();
    }
    alive.expect_silence();
    // One that does not know them may be silent.
    old.expect_silence();
}

#[test]
fn a_client_without_heartbeats_is_closed_when_it_has_been_silent_for_long() {
    let setting =
        Setting::with(|options| options.idle_timeout_without_heartbeat = Duration::from_secs(1));
    let mut old = setting.logged_in(1);
    old.expect_closed();
    wait_until("the logout", || !setting.is_online(1));
}

#[test]
fn a_client_that_has_finished_sending_gets_its_answers() {
    let setting = Setting::new();
    let mut client = setting.logged_in(1);
    setting.fake.script(|state| state.hold_chats = true);
    client.chat(1, 1, 2, "hello");
    client.chat(2, 1, 2, "hello");
    setting
        .fake
        .wait("the first is held", |state| state.held.len() == 1);
    client.shutdown(Shutdown::Write);
    setting.fake.release_chats();
    assert_eq!(client.receive().request_id, 1);
    assert_eq!(client.receive().request_id, 2);
    client.expect_closed();
    wait_until("the logout", || !setting.is_online(1));
}

#[test]
fn after_a_logout_another_user_may_log_in_on_the_connection() {
    let setting = Setting::new();
    let mut client = setting.logged_in(1);
    setting.fake.script(|state| state.hold_chats = true);
    client.chat(1, 1, 2, "hello");
    setting.fake.wait("the chat", |state| state.held.len() == 1);
    // Waits for the chat; what comes behind it finds nobody logged in.
    client.send(MessageId::LOGOUT, 2, &logout_request(1));
    client.chat(3, 1, 2, "hello");
    let refused: FriendChatResponse = client.expect(MessageId::FRIEND_CHAT_ANSWER);
    assert_eq!(refused.error_code, code::NOT_LOGGED_IN);
    setting.fake.release_chats();
    assert_eq!(client.receive().request_id, 1);
    let answer: LogoutResponse = client.expect(MessageId::LOGOUT_ANSWER);
    assert_eq!(answer.error_code, code::SUCCESS);
    assert!(!setting.is_online(1));
    assert_eq!(client.log_in(2, false).error_code, code::SUCCESS);
    // What is pushed to the first user is not for the second.
    setting.fake.commit(9, 1);
    setting.fake.push_by(setting.proxy.id(), 9, 1, 1);
    setting.fake.commit(9, 2);
    setting.fake.push(9, 2, 1);
    let push: FriendChatRequest = client.expect(MessageId::RECV_FRIEND);
    assert_eq!(push.receiver.map(|receiver| receiver.user_id), Some(2));
    client.expect_silence();
}

#[test]
fn a_newer_login_ends_the_older_and_says_why() {
    let setting = Setting::new();
    let other = setting.another_proxy();
    for address in [setting.proxy.local_addr(), other.local_addr()] {
        let mut old = setting.logged_in(1);
        let mut new = Client::logged_in(address, 1);
        let word: SignedOut = old.expect(MessageId::SIGNED_OUT);
        assert!(!word.reason.is_empty());
        old.expect_closed();
        drop(old);
        new.expect_silence();
        // The late logout of the older does not take the newer one's presence.
        wait_until("one session", || {
            setting.proxy.sessions() + other.sessions() == 1
        });
        assert!(setting.is_online(1));
        setting.fake.commit(2, 1);
        let sequence = setting.fake.commit(2, 1);
        setting.fake.push(2, 1, sequence);
        assert_eq!(new.expect_push(), sequence - 1);
        assert_eq!(new.expect_push(), sequence);
        drop(new);
        wait_until("the logout", || !setting.is_online(1));
    }
}

#[test]
fn a_login_that_was_overtaken_by_a_newer_one_ends_as_soon_as_it_is_answered() {
    let setting = Setting::new();
    setting.fake.commit(6, 5);
    let mut witness = setting.logged_in(5);
    setting.fake.script(|state| state.hold_logins = true);
    let (mut old, mut new) = (setting.connect(), setting.connect());
    for (count, client) in [(2, &mut old), (3, &mut new)] {
        client.send(MessageId::LOGIN, 1, &login_request(1, false));
        setting
            .fake
            .wait("the claim", |state| state.claims == count);
    }
    // The bus keeps the order: the word that the older login has ended was there before this.
    setting.fake.push(6, 5, 2);
    assert_eq!(witness.expect_push(), 2);
    setting.fake.script(|state| state.hold_logins = false);
    let answer: LoginResponse = old.expect(MessageId::LOGIN_ANSWER);
    assert_eq!(answer.error_code, code::SUCCESS);
    let _: SignedOut = old.expect(MessageId::SIGNED_OUT);
    old.expect_closed();
    let answer: LoginResponse = new.expect(MessageId::LOGIN_ANSWER);
    assert_eq!(answer.error_code, code::SUCCESS);
    new.expect_silence();
    wait_until("two sessions", || setting.proxy.sessions() == 2);
    assert!(setting.is_online(1));
}

#[test]
fn a_login_whose_client_is_gone_is_undone() {
    let setting = Setting::new();
    setting.fake.script(|state| state.hold_logins = true);
    let mut client = setting.connect();
    client.send(MessageId::LOGIN, 1, &login_request(1, false));
    wait_until("the login has begun", || setting.is_online(1));
    client.abort();
    setting.fake.script(|state| state.hold_logins = false);
    wait_until("the logout", || !setting.is_online(1));
    assert_eq!(setting.proxy.sessions(), 0);
}

#[test]
fn a_login_that_took_too_long_is_undone_and_may_be_repeated() {
    let setting = Setting::with(|options| options.request_timeout = Duration::from_millis(300));
    setting.fake.script(|state| state.hold_logins = true);
    let mut client = setting.connect();
    assert_eq!(client.log_in(1, false).error_code, code::UNAVAILABLE);
    assert!(setting.is_online(1), "the service has done its part");
    setting.fake.script(|state| state.hold_logins = false);
    wait_until("the logout", || !setting.is_online(1));
    assert_eq!(client.log_in(1, false).error_code, code::SUCCESS);
    assert!(setting.is_online(1));
}

#[test]
fn a_login_that_failed_after_it_made_its_user_online_is_undone() {
    let setting = Setting::new();
    setting.fake.script(|state| state.fail_logins = true);
    let mut client = setting.connect();
    assert_eq!(client.log_in(1, false).error_code, code::UNAVAILABLE);
    wait_until("the logout", || !setting.is_online(1));
    setting.fake.script(|state| state.fail_logins = false);
    assert_eq!(client.log_in(1, false).error_code, code::SUCCESS);
}

#[test]
fn a_login_that_was_certainly_not_begun_is_followed_by_no_logout() {
    let setting = Setting::new();
    setting.fake.script(|state| state.refuse_logins = true);
    let mut client = setting.connect();
    assert_eq!(client.log_in(1, false).error_code, code::UNAVAILABLE);
    let resume = ResumeRequest {
        user_id: 1,
        ..Default::default()
    };
    let answer: LoginResponse = client.ask(MessageId::RESUME, &resume, MessageId::RESUME_ANSWER);
    assert_eq!(answer.error_code, code::UNAVAILABLE);
    // Also when nobody waits for the answer.
    client.send(MessageId::LOGIN, 1, &login_request(1, false));
    client.abort();
    setting
        .fake
        .wait("the second login", |state| state.calls.len() == 3);
    setting.fake.script(|state| state.refuse_logins = false);
    // A logout is sent when those before it are answered, or together with them.
    for (user, logouts) in [(2, 1), (3, 2)] {
        drop(setting.logged_in(user));
        setting.fake.wait("the logout", |state| {
            let last = state.calls.last().expect("a call");
            last.name == "logout" && last.user == Some(user)
        });
        assert_eq!(setting.fake.count("logout"), logouts);
    }
}

#[test]
fn users_whose_logout_no_server_takes_are_made_offline_all_the_same() {
    let mut setting = Setting::with(|options| options.request_timeout = Duration::from_millis(50));
    let client = setting.logged_in(1);
    setting.provider.drain(Duration::ZERO);
    drop(client);
    wait_until("offline", || !setting.is_online(1));
    assert_eq!(setting.fake.count("logout"), 0);
}

#[test]
fn presence_that_was_lost_is_restored_and_sessions_that_lost_their_user_end() {
    let setting = Setting::with(|options| options.lease_ttl = Duration::from_millis(90));
    let other = setting.another_proxy();
    let mut stays = setting.logged_in(1);
    let mut loses = setting.logged_in(2);
    setting.bus.cut();
    setting.bus.end_lease(setting.proxy.id()).expect("ended");
    // The word that the older session has ended is lost with the bus.
    let _newer = Client::logged_in(other.local_addr(), 2);
    wait_until("restored", || setting.is_online(1));
    setting.bus.mend();
    let _: SignedOut = loses.expect(MessageId::SIGNED_OUT);
    loses.expect_closed();
    stays.expect_silence();
}

#[test]
fn entries_of_sessions_that_ended_are_removed_when_the_bus_is_back() {
    let setting = Setting::new();
    let mut stays = setting.logged_in(1);
    let proxy = setting.proxy.id();
    setting.bus.cut();
    // As from an older state of the bus.
    let ended = SessionRef {
        proxy,
        session: u64::MAX,
    };
    let came_back = setting
        .bus
        .claim(2, ended, NO_NUMBER.into(), LoginPolicy::NewerWins);
    came_back.expect("claimed");
    assert!(setting.is_online(2));
    setting.bus.mend();
    wait_until("compared", || !setting.is_online(2));
    assert!(setting.is_online(1));
    stays.expect_silence();
}

/// User 1 has logged in; then, while the proxy hears nothing, another proxy has that user on the bus, in a session of the
/// same login: as when the session has moved here after the state that the bus went back to.
fn moved_back(setting: &Setting) -> (Client, SessionRef) {
    let client = setting.logged_in(1);
    setting.bus.cut();
    let proxy = ProxyId::random();
    let before = SessionRef { proxy, session: 1 };
    let lease = setting.bus.renew_lease(proxy, Duration::from_secs(600));
    assert_eq!(lease, Ok(Lease::New));
    let number = setting.fake.script(|state| state.last_login);
    let claimed = setting
        .bus
        .claim(1, before, number.into(), LoginPolicy::NewerWins);
    assert!(matches!(claimed, Ok(Claim::Granted { .. })), "{claimed:?}");
    (client, before)
}

#[test]
fn a_session_stays_that_another_proxy_has_only_until_it_compares() {
    let setting = Setting::new();
    let (mut client, before) = moved_back(&setting);
    let restores = setting.bus.restores();
    setting.bus.mend();
    wait_until("the other one is found", || {
        setting.bus.restores() > restores
    });
    assert_eq!(setting.bus.release(1, before), Ok(true));
    let proxy = setting.proxy.id();
    wait_until("restored", || {
        let place = setting.bus.locate(&[1]).unwrap().pop().flatten();
        place.is_some_and(|place| place.proxy == proxy)
    });
    client.expect_silence();
}

#[test]
fn a_session_ends_that_another_proxy_has_for_longer_than_a_lease() {
    let setting = Setting::with(|options| options.lease_ttl = Duration::from_millis(90));
    let (mut client, _) = moved_back(&setting);
    setting.bus.mend();
    let _: SignedOut = client.expect(MessageId::SIGNED_OUT);
    client.expect_closed();
}

#[test]
fn who_could_not_be_claimed_at_login_is_claimed_by_the_proxy() {
    let setting = Setting::new();
    setting.fake.script(|state| state.unclaimed_logins = true);
    let _clients: Vec<_> = (1..=3).map(|user| setting.logged_in(user)).collect();
    wait_until("online", || (1..=3).all(|user| setting.is_online(user)));
}

#[test]
fn who_logs_in_while_the_bus_is_away_takes_over_from_the_older_session() {
    let setting = Setting::new();
    let other = setting.another_proxy();
    let mut here = setting.logged_in(1);
    let mut there = Client::logged_in(other.local_addr(), 2);
    setting.fake.script(|state| state.unclaimed_logins = true);
    let mut newer = [1, 2].map(|user| setting.logged_in(user));
    for older in [&mut here, &mut there] {
        let _: SignedOut = older.expect(MessageId::SIGNED_OUT);
        older.expect_closed();
    }
    newer.iter_mut().for_each(Client::expect_silence);
}

#[test]
fn a_login_that_the_bus_learns_of_late_does_not_end_a_newer_one() {
    let setting = Setting::with(|options| options.lease_ttl = Duration::from_millis(600));
    let other = setting.another_proxy();
    setting.bus.refuse_to_restore(true);
    setting.fake.script(|state| state.unclaimed_logins = true);
    let mut older = setting.logged_in(1);
    setting.fake.script(|state| state.unclaimed_logins = false);
    let mut newer = Client::logged_in(other.local_addr(), 1);
    setting.bus.refuse_to_restore(false);
    let _: SignedOut = older.expect(MessageId::SIGNED_OUT);
    older.expect_closed();
    newer.expect_silence();
}

#[test]
fn of_two_logins_that_the_bus_learns_of_late_the_older_ends() {
    let setting = Setting::with(|options| options.lease_ttl = Duration::from_millis(600));
    setting.bus.refuse_to_restore(true);
    setting.fake.script(|state| state.unclaimed_logins = true);
    let mut older = setting.logged_in(1);
    let mut newer = setting.logged_in(1);
    let _: SignedOut = older.expect(MessageId::SIGNED_OUT);
    older.expect_closed();
    setting.bus.refuse_to_restore(false);
    wait_until("online", || setting.is_online(1));
    newer.expect_silence();
}

#[test]
fn a_session_that_was_replaced_by_a_claim_whose_answer_was_lost_ends() {
    let setting = Setting::new();
    let other = setting.another_proxy();
    let mut older = Client::logged_in(other.local_addr(), 1);
    setting.fake.script(|state| state.lost_claims = true);
    let mut newer = setting.logged_in(1);
    let _: SignedOut = older.expect(MessageId::SIGNED_OUT);
    older.expect_closed();
    newer.expect_silence();
}

#[test]
fn a_drain_finishes_what_is_in_flight_and_logs_everybody_out() {
    let mut setting = Setting::new();
    let (mut busy, mut idle) = (setting.logged_in(1), setting.logged_in(2));
    setting.fake.script(|state| state.hold_chats = true);
    busy.chat(1, 1, 3, "hello");
    setting.fake.wait("the chat", |state| state.held.len() == 1);
    let address = setting.proxy.local_addr();
    let report = std::thread::scope(|scope| {
        let draining = scope.spawn(|| setting.proxy.drain(Duration::from_secs(20)));
        idle.expect_closed();
        drop(idle);
        setting.fake.release_chats();
        assert_eq!(busy.receive().request_id, 1);
        busy.expect_closed();
        drop(busy);
        draining.join().expect("drained")
    });
    assert_eq!(
        (report.open_at_start, report.aborted, report.logouts_left),
        (2, 0, 0)
    );
    assert_eq!(setting.fake.count("logout"), 2);
    assert!(!setting.is_online(1) && !setting.is_online(2));
    assert!(std::net::TcpStream::connect(address).is_err());
    assert!(!setting.proxy.is_ready());
}

#[test]
fn a_client_that_does_not_read_is_closed_and_no_other() {
    let setting = Setting::with(|options| options.output_bytes_max = options.output_high_bytes);
    let mut other = setting.logged_in(1);
    let mut stuck = setting.logged_in(2);
    setting.fake.script(|state| state.page = usize::MAX);
    let mut sequence = 0;
    while setting.is_online(2) {
        setting.fake.script(|state| {
            for _ in 0..1000 {
                sequence = state.commit(1, 2);
            }
        });
        for sequence in sequence - 999..=sequence {
            setting.fake.push(1, 2, sequence);
        }
        other.expect_silence();
    }
    // What had left the proxy arrives, and then the end.
    while stuck.try_receive().is_some() {}
}
