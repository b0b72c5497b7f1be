//! The contract of [`Bus`], as cases that every implementation passes.
//!
//! A case gets two handles to the same bus, as two programs of a cluster have them, and shares it
//! with no other case.

use std::collections::HashSet;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use chat_bus::{
    Bus, BusError, BusEvent, Claim, HeldSession, Lease, LoginNumber, LoginPolicy,
    MESSAGE_BYTES_MAX, NO_NUMBER, ProxyId, Restored, SessionRef, Subscription,
};
use crossbeam_channel::{Receiver, unbounded};
use nexus_testkit::wait_until;

pub(crate) use crate::budgets::*;
pub(crate) use crate::logins::*;

/// Longer than anything here takes; only a failure waits for it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
/// A lease that does not run out while a case is on.
pub(crate) const LONG: Duration = Duration::from_secs(600);
pub(crate) const SHORT: Duration = Duration::from_millis(200);

/// Two handles to one bus.
pub(crate) type TwoHandles = (Arc<dyn Bus>, Arc<dyn Bus>);

/// Makes a test of each case, for the bus that `$two_handles` gives.
macro_rules! conformance {
    ($two_handles:path: $($case:ident)*) => {
        $(#[test] fn $case() {
            let (a, b) = $two_handles();
            crate::suite::$case(a.as_ref(), b.as_ref());
        })*
    };
    ($two_handles:path) => {
        conformance!($two_handles:
            a_claimed_user_is_located_by_everyone
            a_claim_without_a_lease_counts_once_the_lease_is_there
            a_newer_login_replaces_and_names_the_older_one
            an_older_login_stays_under_the_other_policy
            a_second_claim_of_the_same_session_replaces_nobody
            who_was_replaced_is_named_until_it_is_certainly_known
            an_older_login_never_replaces_a_newer_one
            of_one_login_the_later_claim_has_the_user_and_no_restore
            a_released_session_is_not_brought_back_by_what_runs_late
            a_login_without_a_number_is_neither_older_nor_newer
            a_claim_that_has_waited_displaces_nobody_who_came_meanwhile
            of_two_attempts_of_one_client_the_later_has_the_user
            only_the_session_that_has_the_user_releases_it
            users_of_an_expired_lease_are_offline_and_can_be_claimed
            an_ended_lease_takes_its_users_offline_at_once
            a_lease_is_new_only_when_there_was_none
            restoring_brings_back_what_is_missing_and_names_what_is_taken
            many_users_are_restored_and_located_in_order
            entries_without_a_session_are_removed_and_no_others
            of_many_concurrent_claims_exactly_one_holds
            messages_of_one_publisher_arrive_in_order
            a_message_reaches_its_proxy_and_no_other
            a_message_without_a_subscriber_is_dropped
            a_message_at_the_limit_passes_and_one_over_is_refused
            any_bytes_can_be_sent
            a_dropped_subscription_is_silent
            every_subscription_of_a_proxy_gets_its_messages
            a_budget_is_shared_and_says_how_long_to_wait
            of_several_budgets_all_are_charged_or_none
            what_is_given_back_can_be_spent_again
            a_budget_is_regained_with_time
            of_many_who_spend_at_once_as_many_get_as_there_are
            a_fact_is_remembered_for_its_life
        );
    };
}

/// A proxy that holds a lease.
pub(crate) fn live_proxy(bus: &dyn Bus) -> ProxyId {
    let proxy = ProxyId::random();
    assert_eq!(bus.renew_lease(proxy, LONG), Ok(Lease::New));
    proxy
}

pub(crate) fn session(proxy: ProxyId, session: u64) -> SessionRef {
    SessionRef { proxy, session }
}

/// Subscribes and waits until messages arrive.
pub(crate) fn listen(bus: &dyn Bus, proxy: ProxyId) -> (Subscription, Receiver<BusEvent>) {
    let (events, seen) = unbounded();
    let on_event = Box::new(move |event| drop(events.send(event)));
    let subscription = bus.subscribe(proxy, on_event);
    assert_eq!(seen.recv_timeout(DEADLINE), Ok(BusEvent::Connected));
    (subscription, seen)
}

fn claim(bus: &dyn Bus, user: i32, session: SessionRef) -> Claim {
    claim_as(bus, user, session, NO_NUMBER)
}

pub(crate) fn claim_as(bus: &dyn Bus, user: i32, session: SessionRef, login: LoginNumber) -> Claim {
    bus.claim(user, session, login.into(), LoginPolicy::NewerWins)
        .expect("claimed")
}

pub(crate) const FIRST: Claim = granted(Vec::new());

pub(crate) const fn granted(replaced: Vec<SessionRef>) -> Claim {
    Claim::Granted { replaced }
}

/// Sessions to restore, `(user, session)`, of logins without a number.
pub(crate) fn held(sessions: &[(i32, u64)]) -> Vec<HeldSession> {
    let held = sessions.iter().map(|&(user, session)| HeldSession {
        user,
        session,
        login: NO_NUMBER,
    });
    held.collect()
}

pub(crate) fn nothing() -> Restored {
    Restored::default()
}

pub(crate) fn taken(users: &[i32]) -> Restored {
    Restored {
        taken: users.to_vec(),
        ..nothing()
    }
}

pub(crate) fn a_claimed_user_is_located_by_everyone(a: &dyn Bus, b: &dyn Bus) {
    let proxy = live_proxy(a);
    let (one, two) = (session(proxy, 0), session(proxy, u64::MAX));
    assert_eq!(claim(a, i32::MIN, one), FIRST);
    assert_eq!(claim(b, i32::MAX, two), FIRST);
    for bus in [a, b] {
        let users = [i32::MAX, 7, i32::MIN, i32::MAX];
        assert_eq!(
            bus.locate(&users),
            Ok(vec![Some(two), None, Some(one), Some(two)])
        );
        assert_eq!(bus.locate(&[]), Ok(vec![]));
    }
}

pub(crate) fn a_claim_without_a_lease_counts_once_the_lease_is_there(a: &dyn Bus, b: &dyn Bus) {
    let proxy = ProxyId::random();
    assert_eq!(claim(a, 1, session(proxy, 1)), FIRST);
    assert_eq!(b.locate(&[1]), Ok(vec![None]));
    assert_eq!(a.renew_lease(proxy, LONG), Ok(Lease::New));
    assert_eq!(a.restore(proxy, &held(&[(1, 1)])), Ok(nothing()));
    assert_eq!(b.locate(&[1]), Ok(vec![Some(session(proxy, 1))]));
}

pub(crate) fn a_newer_login_replaces_and_names_the_older_one(a: &dyn Bus, b: &dyn Bus) {
    let (old, new) = (session(live_proxy(a), 1), session(live_proxy(b), 1));
    assert_eq!(claim(a, 1, old), FIRST);
    assert_eq!(claim_as(b, 1, new, 1), granted(vec![old]));
    assert_eq!(a.locate(&[1]), Ok(vec![Some(new)]));
    // On the same proxy as well.
    let newest = session(new.proxy, 2);
    assert_eq!(claim_as(b, 1, newest, 2), granted(vec![old, new]));
}

pub(crate) fn an_older_login_stays_under_the_other_policy(a: &dyn Bus, b: &dyn Bus) {
    let (old, new) = (session(live_proxy(a), 1), session(live_proxy(b), 1));
    assert_eq!(a.claim(1, old, 1.into(), LoginPolicy::OlderWins), Ok(FIRST));
    let refused = b.claim(1, new, 2.into(), LoginPolicy::OlderWins);
    assert_eq!(refused, Ok(Claim::Refused));
    assert_eq!(a.claim(1, old, 1.into(), LoginPolicy::OlderWins), Ok(FIRST));
    assert_eq!(b.locate(&[1]), Ok(vec![Some(old)]));
}

pub(crate) fn a_second_claim_of_the_same_session_replaces_nobody(a: &dyn Bus, b: &dyn Bus) {
    let held = session(live_proxy(a), 1);
    assert_eq!(claim(a, 1, held), FIRST);
    assert_eq!(claim(b, 1, held), FIRST);
}

pub(crate) fn only_the_session_that_has_the_user_releases_it(a: &dyn Bus, b: &dyn Bus) {
    let (old, new) = (session(live_proxy(a), 1), session(live_proxy(b), 1));
    claim(a, 1, old);
    claim(b, 1, new);
    assert_eq!(a.release(1, old), Ok(false));
    assert_eq!(a.locate(&[1]), Ok(vec![Some(new)]));
    assert_eq!(b.release(1, new), Ok(true));
    assert_eq!(b.release(1, new), Ok(false));
    assert_eq!(a.locate(&[1]), Ok(vec![None]));
}

pub(crate) fn users_of_an_expired_lease_are_offline_and_can_be_claimed(a: &dyn Bus, b: &dyn Bus) {
    let dying = ProxyId::random();
    a.renew_lease(dying, SHORT).expect("renewed");
    claim(a, 1, session(dying, 1));
    wait_until("the lease runs out", DEADLINE, || {
        b.locate(&[1]) == Ok(vec![None])
    });
    let next = session(live_proxy(b), 1);
    assert_eq!(
        b.claim(1, next, NO_NUMBER.into(), LoginPolicy::OlderWins),
        Ok(FIRST)
    );
    assert_eq!(a.locate(&[1]), Ok(vec![Some(next)]));
    assert_eq!(a.renew_lease(dying, LONG), Ok(Lease::New));
    assert_eq!(a.locate(&[1]), Ok(vec![Some(next)]));
}

pub(crate) fn an_ended_lease_takes_its_users_offline_at_once(a: &dyn Bus, b: &dyn Bus) {
    let (leaving, staying) = (live_proxy(a), live_proxy(b));
    claim(a, 1, session(leaving, 1));
    claim(b, 2, session(staying, 1));
    assert_eq!(a.end_lease(leaving), Ok(()));
    assert_eq!(a.end_lease(leaving), Ok(()));
    assert_eq!(b.locate(&[1, 2]), Ok(vec![None, Some(session(staying, 1))]));
}

pub(crate) fn a_lease_is_new_only_when_there_was_none(a: &dyn Bus, b: &dyn Bus) {
    let proxy = ProxyId::random();
    assert_eq!(a.renew_lease(proxy, LONG), Ok(Lease::New));
    assert_eq!(b.renew_lease(proxy, SHORT), Ok(Lease::Kept));
    claim(a, 1, session(proxy, 1));
    wait_until("the lease runs out", DEADLINE, || {
        b.locate(&[1]) == Ok(vec![None])
    });
    // Any duration is a lease, however short or long.
    assert_eq!(a.renew_lease(proxy, Duration::MAX), Ok(Lease::New));
    assert_eq!(a.renew_lease(proxy, Duration::ZERO), Ok(Lease::Kept));
}

pub(crate) fn restoring_brings_back_what_is_missing_and_names_what_is_taken(
    a: &dyn Bus,
    b: &dyn Bus,
) {
    let (proxy, other, dead) = (live_proxy(a), live_proxy(b), ProxyId::random());
    claim(a, 1, session(proxy, 1));
    claim(b, 2, session(other, 2));
    claim(b, 3, session(dead, 3));
    claim(a, 4, session(proxy, 44));
    let restored = a.restore(proxy, &held(&[(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)]));
    assert_eq!(restored, Ok(taken(&[2, 4])));
    let located = b.locate(&[1, 2, 3, 4, 5]).expect("located");
    let expected = [(proxy, 1), (other, 2), (proxy, 1), (proxy, 44), (proxy, 1)];
    assert_eq!(
        located,
        expected.map(|(proxy, number)| Some(session(proxy, number)))
    );
    assert_eq!(a.restore(proxy, &[]), Ok(nothing()));
}

pub(crate) fn many_users_are_restored_and_located_in_order(a: &dyn Bus, b: &dyn Bus) {
    let (one, two) = (live_proxy(a), live_proxy(b));
    let users: Vec<i32> = (0..20_000).collect();
    let sessions = |proxy: ProxyId, skip| {
        let sessions: Vec<(i32, u64)> = users
            .iter()
            .skip(skip)
            .step_by(2)
            .map(|&user| (user, 9))
            .collect();
        assert_eq!(a.restore(proxy, &held(&sessions)), Ok(nothing()));
        sessions
    };
    let of_one = sessions(one, 0);
    sessions(two, 1);
    let expected: Vec<i32> = of_one.iter().map(|&(user, _)| user).collect();
    assert_eq!(b.restore(two, &held(&of_one)), Ok(taken(&expected)));
    let located = b.locate(&users).expect("located");
    assert_eq!(located.len(), users.len());
    for (&user, located) in users.iter().zip(located) {
        let proxy = if user % 2 == 0 { one } else { two };
        assert_eq!(located, Some(session(proxy, 9)), "user {user}");
    }
}

pub(crate) fn entries_without_a_session_are_removed_and_no_others(a: &dyn Bus, b: &dyn Bus) {
    let (proxy, other) = (live_proxy(a), live_proxy(b));
    // More than are read at a time.
    let sessions: Vec<(i32, u64)> = (0..2_000).zip(0..).collect();
    assert_eq!(a.restore(proxy, &held(&sessions)), Ok(nothing()));
    claim_as(b, 1, session(other, 1), 1);
    claim(a, 2, session(proxy, 2_002));
    assert_eq!(b.release(3, session(proxy, 3)), Ok(true));
    claim(a, 3, session(proxy, 2_003));
    claim(b, -7, session(proxy, 2_007));
    let is_held = |user: i32, number: u64| {
        user % 2 == 0 && u64::try_from(user) == Ok(number) || (user, number) == (3, 2_003)
    };
    // The odd ones without user 1 and user 3; users 2 and -7.
    assert_eq!(b.retain(proxy, &is_held), Ok(1_000));
    assert_eq!(a.retain(proxy, &is_held), Ok(0));
    let located = b.locate(&[0, 1, 2, 3, 4, 5, -7]).expect("located");
    let of = |proxy, number| Some(session(proxy, number));
    let expected = [
        of(proxy, 0),
        of(other, 1),
        None,
        of(proxy, 2_003),
        of(proxy, 4),
        None,
        None,
    ];
    assert_eq!(located, expected);
    // They are over, as those that were released.
    let late = a.claim(5, session(proxy, 5), 9.into(), LoginPolicy::NewerWins);
    assert_eq!(late, Ok(Claim::Over));
    assert_eq!(a.retain(ProxyId::random(), &|_, _| false), Ok(0));
}

pub(crate) fn of_many_concurrent_claims_exactly_one_holds(a: &dyn Bus, b: &dyn Bus) {
    let (one, two) = (live_proxy(a), live_proxy(b));
    for (user, policy) in [(1, LoginPolicy::NewerWins), (2, LoginPolicy::OlderWins)] {
        let start = Barrier::new(8);
        let claims: Vec<(SessionRef, Claim)> = thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|number| {
                    let (bus, proxy) = if number % 2 == 0 { (a, one) } else { (b, two) };
                    let (start, session) = (&start, session(proxy, number));
                    scope.spawn(move || {
                        start.wait();
                        let claim = bus.claim(user, session, NO_NUMBER.into(), policy);
                        (session, claim.expect("claimed"))
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"))
                .collect()
        });
        let holder = a.locate(&[user]).expect("located")[0].expect("someone holds the user");
        // Each but the holder was either refused or named as replaced.
        let mut out: HashSet<SessionRef> = HashSet::new();
        for (session, claim) in &claims {
            match claim {
                Claim::Granted { replaced } => out.extend(replaced),
                _ => {
                    out.insert(*session);
                }
            }
        }
        assert_eq!(out.len(), 7, "{claims:?}");
        assert!(!out.contains(&holder), "{claims:?}");
    }
}

pub(crate) fn messages_of_one_publisher_arrive_in_order(a: &dyn Bus, b: &dyn Bus) {
    let proxies = [ProxyId::random(), ProxyId::random()];
    let listening = proxies.map(|proxy| listen(a, proxy));
    for call in 0..50_u32 {
        let messages: Vec<(ProxyId, Bytes)> = (0..100_u32)
            .map(|index| {
                let proxy = proxies[index as usize % 2];
                (
                    proxy,
                    Bytes::copy_from_slice(&(call * 100 + index).to_be_bytes()),
                )
            })
            .collect();
        b.publish(&messages).expect("published");
    }
    for (first, (_subscription, seen)) in (0..).zip(&listening) {
        for number in (first..5_000_u32).step_by(2) {
            let expected = Bytes::copy_from_slice(&number.to_be_bytes());
            assert_eq!(seen.recv_timeout(DEADLINE), Ok(BusEvent::Message(expected)));
        }
    }
}

pub(crate) fn a_message_reaches_its_proxy_and_no_other(a: &dyn Bus, b: &dyn Bus) {
    let (one, two) = (ProxyId::random(), ProxyId::random());
    let (_one, one_seen) = listen(a, one);
    let (_two, two_seen) = listen(b, two);
    let message = |text: &'static str| Bytes::from_static(text.as_bytes());
    a.publish(&[(two, message("to two")), (one, message("to one"))])
        .expect("published");
    assert_eq!(
        one_seen.recv_timeout(DEADLINE),
        Ok(BusEvent::Message(message("to one")))
    );
    assert_eq!(
        two_seen.recv_timeout(DEADLINE),
        Ok(BusEvent::Message(message("to two")))
    );
}

pub(crate) fn a_message_without_a_subscriber_is_dropped(a: &dyn Bus, b: &dyn Bus) {
    let proxy = ProxyId::random();
    assert_eq!(a.publish(&[(proxy, Bytes::from_static(b"early"))]), Ok(()));
    let (_subscription, seen) = listen(b, proxy);
    assert_eq!(a.publish(&[(proxy, Bytes::from_static(b"late"))]), Ok(()));
    let late = BusEvent::Message(Bytes::from_static(b"late"));
    assert_eq!(seen.recv_timeout(DEADLINE), Ok(late));
}

pub(crate) fn a_message_at_the_limit_passes_and_one_over_is_refused(a: &dyn Bus, b: &dyn Bus) {
    let proxy = ProxyId::random();
    let (_subscription, seen) = listen(b, proxy);
    let largest = Bytes::from(vec![7; MESSAGE_BYTES_MAX]);
    let too_large = Bytes::from(vec![7; MESSAGE_BYTES_MAX + 1]);
    let small = Bytes::from_static(b"x");
    assert_eq!(
        a.publish(&[(proxy, small.clone()), (proxy, too_large)]),
        Err(BusError::TooLarge {
            bytes: MESSAGE_BYTES_MAX + 1
        })
    );
    a.publish(&[(proxy, largest.clone()), (proxy, small.clone())])
        .expect("published");
    // Nothing of the refused call was sent.
    assert_eq!(seen.recv_timeout(DEADLINE), Ok(BusEvent::Message(largest)));
    assert_eq!(seen.recv_timeout(DEADLINE), Ok(BusEvent::Message(small)));
}

pub(crate) fn any_bytes_can_be_sent(a: &dyn Bus, b: &dyn Bus) {
    let proxy = ProxyId::random();
    let (_subscription, seen) = listen(b, proxy);
    let messages = [&b""[..], b"\0", b"\r\n", b"$-1\r\n", &[0xff; 9]].map(Bytes::from_static);
    a.publish(&messages.clone().map(|message| (proxy, message)))
        .expect("published");
    for message in messages {
        assert_eq!(seen.recv_timeout(DEADLINE), Ok(BusEvent::Message(message)));
    }
}

pub(crate) fn a_dropped_subscription_is_silent(a: &dyn Bus, b: &dyn Bus) {
    let proxy = ProxyId::random();
    let (subscription, seen) = listen(b, proxy);
    drop(subscription);
    a.publish(&[(proxy, Bytes::from_static(b"x"))])
        .expect("published");
    // Its thread has ended and dropped the sender with the closure.
    assert!(seen.recv().is_err());
}

pub(crate) fn every_subscription_of_a_proxy_gets_its_messages(a: &dyn Bus, b: &dyn Bus) {
    let proxy = ProxyId::random();
    let (_one, one_seen) = listen(a, proxy);
    let (_two, two_seen) = listen(b, proxy);
    a.publish(&[(proxy, Bytes::from_static(b"x"))])
        .expect("published");
    for seen in [one_seen, two_seen] {
        let expected = BusEvent::Message(Bytes::from_static(b"x"));
        assert_eq!(seen.recv_timeout(DEADLINE), Ok(expected));
    }
}
