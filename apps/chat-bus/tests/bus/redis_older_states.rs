//! Redis goes back to an older state: it restarts from a snapshot, or a copy that lagged takes over.

use chat_bus::{Bus, Lease, LoginPolicy, NO_NUMBER, RedisBus};
use nexus_testkit::{Redis, wait_until};

use crate::redis_faults::{ask_redis, bus};
use crate::suite::{DEADLINE, FIRST, LONG, claim_as, granted, held, live_proxy, nothing, session};

/// Kills Redis and starts it from the snapshot that it has saved.
fn restart(redis: &Redis, bus: &RedisBus) {
    redis.kill();
    redis.restart().expect("Redis restarts");
    wait_until("the bus works again", DEADLINE, || bus.locate(&[1]).is_ok());
}

#[test]
fn a_lease_that_came_back_with_an_older_state_is_new() {
    let redis = Redis::start().expect("Redis starts");
    let bus = bus(&redis);
    let proxy = live_proxy(&bus);
    assert_eq!(ask_redis(&redis, "SAVE"), "+OK");
    assert_eq!(bus.renew_lease(proxy, LONG), Ok(Lease::Kept));
    restart(&redis, &bus);
    assert_eq!(bus.renew_lease(proxy, LONG), Ok(Lease::New));
    assert_eq!(bus.renew_lease(proxy, LONG), Ok(Lease::Kept));
}

#[test]
fn a_lease_that_is_less_than_it_was_left_is_new_in_the_same_run_of_redis() {
    let redis = Redis::start().expect("Redis starts");
    let bus = bus(&redis);
    let proxy = live_proxy(&bus);
    let lease = format!("nexus:proxy:{proxy}");
    assert_eq!(ask_redis(&redis, &format!("COPY {lease} older")), ":1");
    assert_eq!(bus.renew_lease(proxy, LONG), Ok(Lease::Kept));
    assert_eq!(ask_redis(&redis, &format!("RENAME older {lease}")), "+OK");
    assert_eq!(bus.renew_lease(proxy, LONG), Ok(Lease::New));
    assert_eq!(bus.renew_lease(proxy, LONG), Ok(Lease::Kept));
}

#[test]
fn a_lease_is_new_in_another_run_of_redis_also_if_it_is_as_it_was_left() {
    let redis = Redis::start().expect("Redis starts");
    let bus = bus(&redis);
    let proxy = live_proxy(&bus);
    assert_eq!(ask_redis(&redis, "SAVE"), "+OK");
    restart(&redis, &bus);
    assert_eq!(bus.renew_lease(proxy, LONG), Ok(Lease::New));
    // For a Redis user that may not ask which run it is, the count is all there is.
    assert_eq!(ask_redis(&redis, "ACL SETUSER default -info"), "+OK");
    assert_eq!(bus.renew_lease(proxy, LONG), Ok(Lease::Kept));
}

#[test]
fn sessions_that_ended_after_a_snapshot_do_not_come_back_with_it() {
    let redis = Redis::start().expect("Redis starts");
    let bus = bus(&redis);
    let (proxy, other) = (live_proxy(&bus), live_proxy(&bus));
    for (user, number) in (1..=4).zip(1..) {
        assert_eq!(claim_as(&bus, user, session(proxy, number), 1), FIRST);
    }
    assert_eq!(ask_redis(&redis, "SAVE"), "+OK");
    // Of the four one stays, one leaves, one moves to another proxy, one to another session; a fifth comes.
    assert_eq!(bus.release(2, session(proxy, 2)), Ok(true));
    let moved = claim_as(&bus, 3, session(other, 3), 2);
    assert_eq!(moved, granted(vec![session(proxy, 3)]));
    let again = claim_as(&bus, 4, session(proxy, 44), 2);
    assert_eq!(again, granted(vec![session(proxy, 4)]));
    assert_eq!(claim_as(&bus, 5, session(proxy, 5), 1), FIRST);
    restart(&redis, &bus);

    assert_eq!(bus.renew_lease(proxy, LONG), Ok(Lease::New));
    assert_eq!(bus.renew_lease(other, LONG), Ok(Lease::New));
    assert_eq!(bus.locate(&[2]), Ok(vec![Some(session(proxy, 2))]));
    let of_proxy = [(1, 1), (4, 44), (5, 5)];
    let is_held = |user: i32, number: u64| of_proxy.contains(&(user, number));
    assert_eq!(bus.retain(proxy, &is_held), Ok(3));
    assert_eq!(bus.restore(proxy, &held(&of_proxy)), Ok(nothing()));
    assert_eq!(bus.retain(other, &|user, _| user == 3), Ok(0));
    assert_eq!(bus.restore(other, &held(&[(3, 3)])), Ok(nothing()));
    let of = |proxy, number| Some(session(proxy, number));
    let expected = vec![
        of(proxy, 1),
        None,
        of(other, 3),
        of(proxy, 44),
        of(proxy, 5),
    ];
    assert_eq!(bus.locate(&[1, 2, 3, 4, 5]), Ok(expected));
    let login = bus.claim(
        2,
        session(other, 2),
        NO_NUMBER.into(),
        LoginPolicy::OlderWins,
    );
    assert_eq!(login, Ok(FIRST));
}

#[test]
fn the_list_of_a_proxys_users_is_in_step_with_the_entries() {
    let redis = Redis::start().expect("Redis starts");
    let bus = bus(&redis);
    let (proxy, other) = (live_proxy(&bus), live_proxy(&bus));
    let listed = |proxy| ask_redis(&redis, &format!("SCARD nexus:proxy:{proxy}:users"));
    for (user, number) in (1..=3).zip(1..) {
        claim_as(&bus, user, session(proxy, number), 1);
    }
    assert_eq!(listed(proxy), ":3");
    claim_as(&bus, 1, session(other, 1), 2);
    assert_eq!((listed(proxy), listed(other)), (":2".into(), ":1".into()));
    bus.release(2, session(proxy, 2)).expect("released");
    assert_eq!(listed(proxy), ":1");
    // An entry that ended by itself, and one that a program of the version before has overwritten.
    ask_redis(&redis, "DEL nexus:user:3");
    ask_redis(&redis, &format!("SET nexus:user:1 {proxy}:9"));
    assert_eq!(bus.retain(proxy, &|_, _| true), Ok(0));
    assert_eq!(bus.retain(other, &|_, _| true), Ok(0));
    assert_eq!((listed(proxy), listed(other)), (":0".into(), ":0".into()));
}
