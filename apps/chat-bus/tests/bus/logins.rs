//! Cases of the suite: which of several logins of one user stays.

use chat_bus::{
    Bus, Claim, HeldSession, LoginNumber, LoginPolicy, NO_NUMBER, Restored, SessionRef, over_fact,
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
        assert_eq!(a.claim(1, old, older, policy), refused);
    }
    assert_eq!(restore_as(a, old, older), outdated());
    assert_eq!(b.locate(&[1]), Ok(vec![Some(new)]));
    // Nor when the newer one has left already.
    assert_eq!(b.release(1, new), Ok(true));
    for policy in [LoginPolicy::NewerWins, LoginPolicy::OlderWins] {
        assert_eq!(a.claim(1, old, older, policy), late);
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
            assert_eq!(a.claim(1, over, number, policy), Ok(Claim::Over));
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
