//! Two claims to one address: a process that was started again, or two that live.

use crate::logged::lines_with;
use crate::*;

#[test]
fn a_restarted_provider_outlives_the_session_of_its_crashed_predecessor() {
    let server = start();
    let relay = Relay::start(server.address());
    let (crashed, observer) = (open(&relay.address()), open(&server.address()));
    let seen = Seen::default();
    let _watch = seen.watch(&observer);
    let _left_over = register(&crashed, 80);
    let _also_left_over = register(&crashed, 81);
    seen.wait(&[80, 81], PATIENCE);
    let raw = raw_client(&server);
    let owner = || {
        let stat = raw.exists(NODE, false).expect("an answer");
        stat.expect("the provider's node").ephemeral_owner
    };
    let owner_crashed = owner();
    relay.cut();
    let restarted = open(&server.address());
    let _registration = register(&restarted, 80);
    // It did not take over the node of the session that is about to expire.
    assert_ne!(owner(), owner_crashed);
    // The crashed one's session expired when its other provider vanished.
    seen.wait(&[80], SESSION_TIMEOUT * 5);
    assert_ne!(owner(), owner_crashed);
}

#[test]
fn of_two_live_processes_with_one_address_the_first_keeps_it() {
    const RIVALS: &str = "test.Rivals";
    let server = start();
    let (first, second) = (open(&server.address()), open(&server.address()));
    let owner = owner_in(&server, RIVALS);
    let held = first.register(RIVALS, &[], &provider(80));
    assert!(held.wait_registered(Instant::now() + PATIENCE));
    let waiting = second.register(RIVALS, &[], &provider(80));
    wait_until("the second has given in", PATIENCE, || {
        !lines_with(&["test.Rivals", "a live process holds it"]).is_empty()
    });
    wait_until("the first has taken its node back", PATIENCE, || {
        held.is_registered() && owner().is_some()
    });
    let (owner_first, zxid) = (owner(), server.zxid().expect("it serves"));
    // Longer than a rereading, and than the first pauses of whoever waits.
    let looked = Instant::now();
    wait_until("some seconds have passed", PATIENCE, || {
        assert!(!waiting.is_registered());
        looked.elapsed() > Duration::from_secs(6)
    });
    assert_eq!(server.zxid(), Some(zxid), "they write");
    assert_eq!(owner(), owner_first);
    let said = lines_with(&["test.Rivals", "a live process holds it"]);
    assert_eq!(said.len(), 1, "{said:?}");

    // It takes over when the first goes, in whichever way.
    drop(first);
    let gone = Instant::now();
    assert!(waiting.wait_registered(Instant::now() + PATIENCE));
    assert!(
        gone.elapsed() < Duration::from_secs(3),
        "{:?}",
        gone.elapsed()
    );
    drop(held);
}

#[test]
fn two_that_come_back_at_the_same_moment_settle_it() {
    let server = start();
    let relays = [(); 2].map(|()| Relay::start(server.address()));
    let registries = [0, 1].map(|at: usize| open(&relays[at].address()));
    let both = [0, 1].map(|at: usize| registries[at].register(SERVICE, &[], &provider(80)));
    let registered = || both.iter().filter(|one| one.is_registered()).count();
    let owner = owner_in(&server, SERVICE);
    for _ in 0..3 {
        wait_until("one of them is registered", PATIENCE, || registered() >= 1);
        let mut zxid = server.zxid();
        let mut quiet_since = Instant::now();
        wait_until("nothing is written for 2 s", PATIENCE, || {
            let now = server.zxid();
            if now != zxid {
                (zxid, quiet_since) = (now, Instant::now());
            }
            quiet_since.elapsed() > Duration::from_secs(2)
        });
        assert_eq!(registered(), 1);
        assert!(owner().is_some());
        for relay in &relays {
            relay.cut();
        }
        wait_until("both have noticed", PATIENCE, || registered() == 0);
        for relay in &relays {
            relay.mend();
        }
    }
}

/// A process of an earlier version takes its node back for as long as somebody else has it.
#[test]
fn a_rival_that_never_gives_in_is_left_the_address() {
    const STUBBORN: &str = "test.Stubborn";
    let server = start();
    let registry = open(&server.address());
    let registration = registry.register(STUBBORN, &[], &provider(80));
    assert!(registration.wait_registered(Instant::now() + PATIENCE));
    let raw = raw_client(&server);
    let path = format!("/nexus/services/{STUBBORN}/providers/127.0.0.1:80");
    let create = |path: &str| {
        let acl = Acl::open_unsafe().clone();
        raw.create(path, Vec::new(), acl, CreateMode::Ephemeral)
    };
    let owner = |path: &str| {
        let node = raw.exists(path, false).expect("an answer");
        node.map(|node| node.ephemeral_owner)
    };
    create("/own").expect("created");
    let own = owner("/own");
    wait_until("it is left to the rival", PATIENCE, || {
        if owner(&path) != own {
            // Deleted or created by the other in between, it is tried again.
            let _ = raw.delete(&path, None);
            let _ = create(&path);
        }
        !lines_with(&[STUBBORN, "a live process holds it"]).is_empty()
    });
    drop(raw);
    assert!(registration.wait_registered(Instant::now() + PATIENCE));
}

/// Who owns the node of the provider at port 80.
fn owner_in(server: &ZooKeeper, service: &str) -> impl Fn() -> Option<i64> {
    let raw = raw_client(server);
    let path = format!("/nexus/services/{service}/providers/127.0.0.1:80");
    move || {
        let stat = raw.exists(&path, false).expect("an answer");
        stat.map(|stat| stat.ephemeral_owner)
    }
}
