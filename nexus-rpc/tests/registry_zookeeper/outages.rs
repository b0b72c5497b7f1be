//! ZooKeeper goes away and comes back, or a client of it does.

use crate::*;

#[test]
fn a_crashed_provider_vanishes_when_its_session_expires() {
    let server = start();
    let relay = Relay::start(server.address());
    let (doomed, observer) = (open(&relay.address()), open(&server.address()));
    let seen = Seen::default();
    let _watch = seen.watch(&observer);
    let registration = register(&doomed, 80);
    seen.wait(&[80], PATIENCE);
    relay.cut();
    seen.wait(&[], SESSION_TIMEOUT * 5);
    wait_until("the provider's side has noticed", PATIENCE, || {
        doomed.state() == RegistryState::Away && !registration.is_registered()
    });
    // It did not crash after all, and comes back by itself.
    relay.mend();
    seen.wait(&[80], RECOVERY);
}

#[test]
fn deregistered_while_zookeeper_is_away_is_not_registered_again() {
    let server = start();
    let relay = Relay::start(server.address());
    let (registry, observer) = (open(&relay.address()), open(&server.address()));
    let seen = Seen::default();
    let _watch = seen.watch(&observer);
    let (going, _staying) = (register(&registry, 80), register(&registry, 81));
    seen.wait(&[80, 81], PATIENCE);
    relay.cut();
    wait_until("the loss is noticed", PATIENCE, || {
        !registry.state().is_connected()
    });
    assert!(!going.deregister(Instant::now() + Duration::from_millis(100)));
    relay.mend();
    seen.wait(&[81], RECOVERY);
    wait_until("connected again", PATIENCE, || {
        registry.state().is_connected()
    });
    assert_eq!(seen.last(), Some(vec![81]));
}

#[test]
fn a_list_that_is_empty_after_a_reconnect_is_doubted() {
    let server = start();
    let relay = Relay::start(server.address());
    let far_relay = Relay::start(server.address());
    let (providers, callers) = (open(&relay.address()), open(&far_relay.address()));
    let near = open(&server.address());
    let (seen, seen_near) = (Seen::default(), Seen::default());
    let (_watch, _watch_near) = (seen.watch(&callers), seen_near.watch(&near));
    let _registration = register(&providers, 80);
    seen.wait(&[80], PATIENCE);
    seen_near.wait(&[80], PATIENCE);

    // Both lose their sessions, and the caller is back first.
    relay.cut();
    far_relay.cut();
    wait_until("the caller has noticed", PATIENCE, || {
        !callers.state().is_connected()
    });
    // Who never was away believes it at once.
    seen_near.wait(&[], PATIENCE);
    far_relay.mend();
    wait_until("the caller is back", PATIENCE, || {
        callers.state().is_connected()
    });
    relay.mend();
    seen_near.wait(&[80], RECOVERY);
    let probe = open(&server.address());
    let _second = register(&probe, 81);
    seen.wait(&[80, 81], PATIENCE);
    seen.assert_never_empty_again();
}

#[test]
fn a_list_that_stays_empty_after_a_reconnect_is_believed_in_the_end() {
    let server = start();
    let relay = Relay::start(server.address());
    let mut doubting = options(&relay.address());
    doubting.empty_grace = Duration::from_secs(3);
    let callers = ZooKeeperRegistry::open(doubting).expect("valid options");
    let near = open(&server.address());
    let seen = Seen::default();
    let _watch = seen.watch(&callers);
    let registration = register(&near, 80);
    seen.wait(&[80], PATIENCE);
    relay.cut();
    wait_until("the caller has noticed", PATIENCE, || {
        !callers.state().is_connected()
    });
    assert!(registration.deregister(Instant::now() + PATIENCE));
    relay.mend();
    wait_until("the caller is back", PATIENCE, || {
        callers.state().is_connected()
    });
    let back = Instant::now();
    seen.wait(&[], PATIENCE);
    assert!(
        back.elapsed() > Duration::from_secs(2),
        "{:?}",
        back.elapsed()
    );
}

#[test]
fn zookeeper_may_be_away_from_the_beginning() {
    // Nobody listens there until the server starts.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let port = port.expect("a free port").port();
    let registry = open(&format!("127.0.0.1:{port}"));
    let seen = Seen::default();
    let _watch = seen.watch(&registry);
    let registration = registry.register(SERVICE, &[], &provider(80));
    assert!(!registration.wait_registered(Instant::now() + Duration::from_millis(500)));
    assert_eq!(registry.state(), RegistryState::Connecting);
    assert_eq!(seen.last(), None);
    let options = nexus_testkit::ZooKeeperOptions {
        port: Some(port),
        ..Default::default()
    };
    let _server = ZooKeeper::start_with(options).expect("ZooKeeper");
    assert!(registration.wait_registered(Instant::now() + RECOVERY));
    seen.wait(&[80], RECOVERY);
}

#[test]
fn zookeeper_stopped_for_20_s_interrupts_nothing() {
    let server = start();
    let (providers, callers) = (open(&server.address()), open(&server.address()));
    let seen = Seen::default();
    let _watch = seen.watch(&callers);
    let _registrations = (register(&providers, 80), register(&providers, 81));
    seen.wait(&[80, 81], PATIENCE);
    server.stop();
    let stopped = Instant::now();
    wait_until("20 s have passed", PATIENCE, || {
        assert_eq!(seen.last(), Some(vec![80, 81]), "while ZooKeeper is away");
        stopped.elapsed() > Duration::from_secs(20)
    });
    assert_eq!(callers.state(), RegistryState::Away);
    server.restart().expect("ZooKeeper again");
    assert_recovered(&server, &providers, &callers, &seen);
}

#[test]
fn zookeeper_killed_and_restarted_at_once_interrupts_nothing() {
    let server = start();
    let (providers, callers) = (open(&server.address()), open(&server.address()));
    let seen = Seen::default();
    let _watch = seen.watch(&callers);
    let _registrations = (register(&providers, 80), register(&providers, 81));
    seen.wait(&[80, 81], PATIENCE);
    for _ in 0..2 {
        server.kill();
        server.restart().expect("ZooKeeper again");
        assert_recovered(&server, &providers, &callers, &seen);
    }
}

#[test]
fn zookeeper_paused_for_longer_than_a_session_interrupts_nothing() {
    let server = start();
    let (providers, callers) = (open(&server.address()), open(&server.address()));
    let seen = Seen::default();
    let _watch = seen.watch(&callers);
    let _registrations = (register(&providers, 80), register(&providers, 81));
    seen.wait(&[80, 81], PATIENCE);
    server.pause();
    let paused = Instant::now();
    wait_until("the silence is noticed", PATIENCE, || {
        let states = [callers.state(), providers.state()];
        states == [RegistryState::Away; 2] && paused.elapsed() > SESSION_TIMEOUT * 3
    });
    assert_eq!(seen.last(), Some(vec![80, 81]));
    server.resume();
    assert_recovered(&server, &providers, &callers, &seen);
}

#[test]
fn dropping_a_registry_does_not_wait_long_for_a_silent_zookeeper() {
    let server = start();
    let registry = open(&server.address());
    let registration = register(&registry, 80);
    server.pause();
    let dropped = Instant::now();
    drop(registry);
    // Two operation deadlines, and something for a busy machine.
    assert!(
        dropped.elapsed() < Duration::from_secs(6),
        "{:?}",
        dropped.elapsed()
    );
    assert!(!registration.is_registered());
    assert!(registration.deregister(Instant::now()));
    server.resume();
}

/// Both providers are registered in ZooKeeper itself by a session that lives, within [`RECOVERY`].
fn assert_recovered(
    server: &ZooKeeper,
    providers: &ZooKeeperRegistry,
    callers: &ZooKeeperRegistry,
    seen: &Seen,
) {
    let back = Instant::now();
    wait_until("both are connected again", RECOVERY, || {
        providers.state().is_connected() && callers.state().is_connected()
    });
    // A provider that comes and goes is seen by the callers: their watch works again.
    let marker = register(providers, 99);
    seen.wait(&[80, 81, 99], RECOVERY.saturating_sub(back.elapsed()));
    assert!(marker.deregister(Instant::now() + PATIENCE));
    seen.wait(&[80, 81], PATIENCE);
    // The node is the new session's: what the old session left would vanish with it.
    let raw = raw_client(server);
    let marker = register(providers, 98);
    let owner = |port: u16| {
        let path = format!("/nexus/services/{SERVICE}/providers/127.0.0.1:{port}");
        let stat = raw.exists(&path, false).expect("an answer");
        stat.map(|stat| stat.ephemeral_owner)
    };
    assert!(owner(98).is_some());
    wait_until("all are of one session", RECOVERY, || {
        owner(80) == owner(98) && owner(81) == owner(98)
    });
    drop(marker);
    seen.wait(&[80, 81], PATIENCE);
    seen.assert_never_empty_again();
}
