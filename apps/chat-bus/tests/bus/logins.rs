//! Cases of the suite: which of several logins of one user stays.

use std::time::Duration;

use chat_bus::{
    Attempt, Bus, Claim, ClaimOrder, HeldSession, LoginNumber, LoginPolicy, NO_NUMBER, Restored,
    SessionRef, over_fact,
};

use crate::suite::{FIRST, claim_as, granted, live_proxy, nothing, session, taken};

pub(crate) fn who_was_replaced_is_named_until_it_is_certainly_known(a: &dyn Bus, b: &dyn Bus) {
    let (old, new) = (session(live_proxy(a), 1), session(live_proxy(b), 1));
    assert_eq!(claim_as(a, 1, old, 1), FIRST);
    // The answers were lost, one after the other.
    assert_eq!(claim_as(a, 1, new, 2), granted(vec![old]));
    assert_eq!(claim_as(b, 1, new, 2), granted(vec![old]));
    assert_eq!(restore_as(b, new, 2), replaced(&[old]));
    assert_eq!(restore_as(b, new, 2), replaced(&[old]));
    // So was that of the next one's.
    let newest = session(old.proxy, 2);
    assert_eq!(claim_as(a, 1, newest, 3), granted(vec![old, new]));
    // Not everybody for ever.
    let mut named = vec![old, new, newest];
    for number in 4..30 {
        let next = session(new.proxy, number);
        assert_eq!(
            claim_as(b, 1, next, number),
            granted(named[named.len().saturating_sub(8)..].to_vec())
        );
        named.push(next);
    }
    assert_eq!(a.locate(&[1]), Ok(vec![named.pop()]));
}

pub(crate) fn an_older_login_never_replaces_a_newer_one(a: &dyn Bus, b: &dyn Bus) {
    let (old, new) = (session(live_proxy(a), 1), session(live_proxy(b), 1));
    // More than a text comparison would put in order.
    let (older, newer) = (9, 10);
    let late = Ok(Claim::Outdated { latest: newer });
    assert_eq!(claim_as(b, 1, new, newer), FIRST);
    for policy in [LoginPolicy::NewerWins, LoginPolicy::OlderWins] {
        let refused = match policy {
            LoginPolicy::NewerWins => late.clone(),
            LoginPolicy::OlderWins => Ok(Claim::Refused),
        };
        assert_eq!(a.claim(1, old, older.into(), policy), refused);
    }
    assert_eq!(restore_as(a, old, older), outdated());
    assert_eq!(b.locate(&[1]), Ok(vec![Some(new)]));
    // Nor when the newer one has left already.
    assert_eq!(b.release(1, new), Ok(true));
    for policy in [LoginPolicy::NewerWins, LoginPolicy::OlderWins] {
        assert_eq!(a.claim(1, old, older.into(), policy), late);
    }
    assert_eq!(restore_as(a, old, older), outdated());
    assert_eq!(b.locate(&[1]), Ok(vec![None]));
    // The newer one, when it comes late, replaces the older.
    let (newest, latest) = (session(old.proxy, 2), 100);
    assert_eq!(claim_as(a, 1, old, newer), FIRST);
    assert_eq!(restore_as(a, newest, latest), replaced(&[old]));
    assert_eq!(restore_as(a, old, newer), outdated());
    assert_eq!(b.locate(&[1]), Ok(vec![Some(newest)]));
}

pub(crate) fn of_one_login_the_later_claim_has_the_user_and_no_restore(a: &dyn Bus, b: &dyn Bus) {
    let (before, resumed) = (session(live_proxy(a), 1), session(live_proxy(b), 1));
    assert_eq!(claim_as(a, 1, before, 5), FIRST);
    assert_eq!(claim_as(b, 1, resumed, 5), granted(vec![before]));
    assert_eq!(restore_as(a, before, 5), taken(&[1]));
    // Nor does a claim that was under way longer.
    assert_eq!(claim_as(a, 1, before, 5), Claim::Over);
    assert_eq!(b.locate(&[1]), Ok(vec![Some(resumed)]));
    assert_eq!(claim_as(a, 1, before, 6), granted(vec![resumed]));
}

pub(crate) fn a_released_session_is_not_brought_back_by_what_runs_late(a: &dyn Bus, b: &dyn Bus) {
    let (left, never) = (session(live_proxy(a), 1), session(live_proxy(b), 1));
    assert_eq!(claim_as(a, 1, left, 1), FIRST);
    assert_eq!(b.release(1, left), Ok(true));
    // Given up before it was claimed.
    assert_eq!(b.release(1, never), Ok(false));
    for (over, number) in [(left, 1), (left, 9), (never, NO_NUMBER), (never, 9)] {
        assert_eq!(a.remembers(&over_fact(over)), Ok(true));
        for policy in [LoginPolicy::NewerWins, LoginPolicy::OlderWins] {
            assert_eq!(a.claim(1, over, number.into(), policy), Ok(Claim::Over));
        }
        assert_eq!(restore_as(b, over, number), outdated());
    }
    assert_eq!(a.locate(&[1]), Ok(vec![None]));
    let next = session(left.proxy, 2);
    assert_eq!(a.remembers(&over_fact(next)), Ok(false));
    assert_eq!(claim_as(a, 1, next, 2), FIRST);
}

pub(crate) fn a_login_without_a_number_is_neither_older_nor_newer(a: &dyn Bus, b: &dyn Bus) {
    let (one, two) = (session(live_proxy(a), 1), session(live_proxy(b), 1));
    assert_eq!(claim_as(a, 1, one, 5), FIRST);
    assert_eq!(claim_as(b, 1, two, NO_NUMBER), granted(vec![one]));
    assert_eq!(restore_as(a, one, NO_NUMBER), taken(&[1]));
    assert_eq!(claim_as(a, 1, one, 5), Claim::Over);
    assert_eq!(restore_as(b, two, NO_NUMBER), replaced(&[one]));
}

/// As [`claim_as`] of user 1, of a login whose number is 5.
fn claim_after(bus: &dyn Bus, session: SessionRef, attempt: Attempt, waited: Duration) -> Claim {
    let order = ClaimOrder {
        login: 5,
        attempt,
        waited,
    };
    bus.claim(1, session, order, LoginPolicy::NewerWins)
        .expect("claimed")
}

pub(crate) fn a_claim_that_has_waited_displaces_nobody_who_came_meanwhile(
    a: &dyn Bus,
    b: &dyn Bus,
) {
    const LONG: Duration = Duration::from_secs(60);
    let (early, late) = (session(live_proxy(a), 1), session(live_proxy(b), 1));
    let nobody = Attempt::default();
    assert_eq!(a.claimed_since(1, LONG), Ok(false));
    // Nobody came: it may have waited for as long as it likes.
    assert_eq!(claim_after(a, early, nobody, LONG), FIRST);
    assert_eq!(a.claimed_since(1, LONG / 2), Ok(false));
    assert_eq!(claim_after(b, late, nobody, LONG / 2), granted(vec![early]));
    assert_eq!(a.claimed_since(1, LONG), Ok(true));
    assert_eq!(claim_after(a, early, nobody, LONG), Claim::Over);
    let other = session(early.proxy, 2);
    assert_eq!(claim_after(a, other, nobody, LONG), Claim::Over);
    assert_eq!(b.locate(&[1]), Ok(vec![Some(late)]));
    // Nor when the one who came has left again.
    assert_eq!(b.release(1, late), Ok(true));
    assert_eq!(claim_after(a, other, nobody, LONG), Claim::Over);
    let claimed = claim_after(a, other, nobody, Duration::ZERO);
    assert_eq!(claimed, granted(vec![early]));
    // What a proxy puts back was asked for at some time before, and nobody knows when.
    let back = session(late.proxy, 2);
    assert_eq!(restore_as(b, back, 6), replaced(&[early, other]));
    let late = ClaimOrder {
        login: 6,
        waited: LONG,
        ..ClaimOrder::default()
    };
    let claimed = a.claim(1, session(early.proxy, 3), late, LoginPolicy::NewerWins);
    assert_eq!(claimed, Ok(Claim::Over));
}

pub(crate) fn of_two_attempts_of_one_client_the_later_has_the_user(a: &dyn Bus, b: &dyn Bus) {
    let (one, two) = (session(live_proxy(a), 1), session(live_proxy(b), 1));
    let attempt = |run, number| Attempt { run, number };
    let at_once = Duration::ZERO;
    // Nearly the largest, and more than a text comparison would put in order.
    let run = u64::MAX - 1;
    assert_eq!(claim_after(b, two, attempt(run, 10), at_once), FIRST);
    assert_eq!(claim_after(a, one, attempt(run, 9), at_once), Claim::Over);
    assert_eq!(b.locate(&[1]), Ok(vec![Some(two)]));
    // However long it has waited.
    let long = Duration::from_secs(60);
    let later = claim_after(a, one, attempt(run, 11), long);
    assert_eq!(later, granted(vec![two]));
    // Another run counts for itself, and so does a client that does not count.
    let other = session(two.proxy, 2);
    let claimed = claim_after(b, other, attempt(run - 1, 1), at_once);
    assert_eq!(claimed, granted(vec![two, one]));
    let claimed = claim_after(a, session(one.proxy, 2), Attempt::default(), at_once);
    assert_eq!(claimed, granted(vec![two, one, other]));
}

/// Restores the session as that of user 1.
fn restore_as(bus: &dyn Bus, session: SessionRef, login: LoginNumber) -> Restored {
    let held = HeldSession {
        user: 1,
        session: session.session,
        login,
    };
    bus.restore(session.proxy, &[held]).expect("restored")
}

/// Of user 1.
fn replaced(sessions: &[SessionRef]) -> Restored {
    Restored {
        replaced: sessions.iter().map(|&session| (1, session)).collect(),
        ..nothing()
    }
}

fn outdated() -> Restored {
    Restored {
        outdated: vec![1],
        ..nothing()
    }
}
