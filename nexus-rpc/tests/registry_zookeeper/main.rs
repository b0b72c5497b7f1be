//! The registry against a real ZooKeeper that is stopped, killed, paused and cut off.
//!
//! Who is to lose its connection while the others keep theirs reaches ZooKeeper through a [`Relay`].

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nexus_rpc::registry::{
    MethodInfo, Provider, Registration, Registry, RegistryState, Watch, ZooKeeperOptions,
    ZooKeeperRegistry,
};
use nexus_testkit::{ZooKeeper, wait_until};
use parking_lot::Mutex;
use zookeeper::{Acl, CreateMode, ZooKeeper as RawClient};

const SERVICE: &str = "test.Service";
const NODE: &str = "/nexus/services/test.Service/providers/127.0.0.1:80";
const PATIENCE: Duration = Duration::from_secs(30);
/// Within this time after ZooKeeper is back, everything is as before.
const RECOVERY: Duration = Duration::from_secs(10);
const SESSION_TIMEOUT: Duration = Duration::from_secs(2);

#[test]
fn nodes_lie_where_they_should_and_hold_what_they_should() {
    let server = start();
    let registry = open(&server.address());
    let methods = [method("Echo"), method("Ping")];
    let registration = registry.register(SERVICE, &methods, &provider(80));
    assert!(registration.wait_registered(Instant::now() + PATIENCE));
    let raw = raw_client(&server);
    let stat = raw
        .exists(NODE, false)
        .expect("an answer")
        .expect("the provider's node");
    assert_ne!(stat.ephemeral_owner, 0);
    // ip = 1, port = 2, keep_alive = 3, weight = 4.
    let (content, _) = raw.get_data(NODE, false).expect("its content");
    assert_eq!(content, b"\x0a\x09127.0.0.1\x10\x50\x18\x01\x20\x01");
    let path = "/nexus/services/test.Service/methods";
    wait_until("the methods are published", PATIENCE, || {
        let mut names = raw.get_children(path, false).unwrap_or_default();
        names.sort();
        names == ["Echo", "Ping"]
    });
    let (content, stat) = raw
        .get_data(&format!("{path}/Echo"), false)
        .expect("a method");
    assert_eq!(content, b"\x0a\x08t.EchoIn\x12\x09t.EchoOut");
    assert_eq!(stat.ephemeral_owner, 0);
}

#[test]
fn nodes_with_garbage_are_skipped() {
    let server = start();
    let registry = open(&server.address());
    let registration = register(&registry, 80);
    let raw = raw_client(&server);
    for (name, content) in [
        ("a", &b"\xff\xff"[..]),
        ("b", b""),
        ("c:1", b"{\"json\":true}"),
    ] {
        let path = format!("/nexus/services/{SERVICE}/providers/{name}");
        let acl = Acl::open_unsafe().clone();
        raw.create(&path, content.to_vec(), acl, CreateMode::Persistent)
            .expect("created");
    }
    let seen = Seen::default();
    let _watch = seen.watch(&registry);
    seen.wait(&[80], PATIENCE);
    drop(registration);
    seen.wait(&[], PATIENCE);
}

#[test]
fn a_node_deleted_by_somebody_is_created_again() {
    let server = start();
    let mut options = options(&server.address());
    // So that only the watch can notice.
    options.reread_interval = Duration::from_secs(3600);
    let registry = ZooKeeperRegistry::open(options).expect("valid options");
    let _registration = register(&registry, 80);
    let raw = raw_client(&server);
    for _ in 0..3 {
        let before = raw
            .exists(NODE, false)
            .expect("an answer")
            .expect("the node")
            .czxid;
        raw.delete(NODE, None).expect("deleted");
        wait_until("the node is there again", PATIENCE, || {
            let stat = raw.exists(NODE, false).expect("an answer");
            stat.is_some_and(|stat| stat.czxid > before)
        });
    }
}

#[test]
fn a_new_service_is_named_by_the_watch_alone() {
    let server = start();
    let mut options = options(&server.address());
    options.reread_interval = Duration::from_secs(3600);
    let registry = ZooKeeperRegistry::open(options).expect("valid options");
    let told: Arc<Mutex<Vec<Vec<String>>>> = Arc::default();
    let names = Arc::clone(&told);
    let _watch = registry.watch_services(Box::new(move |list| names.lock().push(list.to_vec())));
    let wait = |expected: &[&str]| {
        wait_until(&format!("the names are {expected:?}"), PATIENCE, || {
            told.lock().last().is_some_and(|list| list == expected)
        });
    };
    // The node of the services is not there yet.
    wait(&[]);
    let other = open(&server.address());
    let _first = other.register("test.First", &[], &provider(80));
    wait(&["test.First"]);
    let _second = other.register("test.Second", &[], &provider(80));
    wait(&["test.First", "test.Second"]);
}

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

fn start() -> ZooKeeper {
    let _ = env_logger::builder().is_test(true).try_init();
    ZooKeeper::start().expect("ZooKeeper")
}

fn options(address: &str) -> ZooKeeperOptions {
    let mut options = ZooKeeperOptions::new([address]);
    options.session_timeout = SESSION_TIMEOUT;
    options.operation_deadline = Duration::from_secs(2);
    options.reread_interval = Duration::from_secs(2);
    options
}

fn open(address: &str) -> ZooKeeperRegistry {
    ZooKeeperRegistry::open(options(address)).expect("valid options")
}

fn register(registry: &ZooKeeperRegistry, port: u16) -> Registration {
    let registration = registry.register(SERVICE, &[], &provider(port));
    assert!(registration.wait_registered(Instant::now() + PATIENCE));
    registration
}

fn provider(port: u16) -> Provider {
    Provider::new(SocketAddr::from(([127, 0, 0, 1], port)))
}

fn method(name: &str) -> MethodInfo {
    MethodInfo {
        name: name.to_owned(),
        request_type: format!("t.{name}In"),
        response_type: format!("t.{name}Out"),
    }
}

fn raw_client(server: &ZooKeeper) -> RawClient {
    RawClient::connect(&server.address(), PATIENCE, |_| ()).expect("a session")
}

/// The ports in the lists that a watch was given.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Vec<u16>>>>);

impl Seen {
    fn watch(&self, registry: &ZooKeeperRegistry) -> Watch {
        let lists = Arc::clone(&self.0);
        let on_change = move |list: &[Provider]| {
            let ports = list.iter().map(|provider| provider.address.port());
            lists.lock().push(ports.collect());
        };
        registry.watch(SERVICE, Box::new(on_change))
    }

    /// Only the first list, from before anything was registered, was empty.
    #[track_caller]
    fn assert_never_empty_again(&self) {
        let lists = self.0.lock();
        assert!(
            lists.iter().skip(1).all(|list| !list.is_empty()),
            "{lists:?}"
        );
    }

    fn last(&self) -> Option<Vec<u16>> {
        self.0.lock().last().cloned()
    }

    #[track_caller]
    fn wait(&self, expected: &[u16], deadline: Duration) {
        wait_until(&format!("the list is {expected:?}"), deadline, || {
            self.last().as_deref() == Some(expected)
        });
    }
}

/// Passes connections on to a server until it is cut.
struct Relay {
    address: SocketAddr,
    links: Arc<Mutex<Links>>,
}

#[derive(Default)]
struct Links {
    cut: bool,
    streams: Vec<TcpStream>,
}

impl Relay {
    fn start(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let links: Arc<Mutex<Links>> = Arc::default();
        let accepted = Arc::clone(&links);
        // Ends with the process: a test's relay is needed until its end.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let mut links = accepted.lock();
                if !links.cut {
                    // A server that is not there is what the client then sees.
                    let _ = links.join(client, &server);
                }
            }
        });
        Self { address, links }
    }

    fn address(&self) -> String {
        self.address.to_string()
    }

    /// Ends every connection, and every one that is begun from now on.
    fn cut(&self) {
        let mut links = self.links.lock();
        links.cut = true;
        for stream in links.streams.drain(..) {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn mend(&self) {
        self.links.lock().cut = false;
    }
}

impl Links {
    fn join(&mut self, client: TcpStream, server: &str) -> io::Result<()> {
        let server = TcpStream::connect(server)?;
        for (from, to) in [(&client, &server), (&server, &client)] {
            let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
            thread::spawn(move || {
                let _ = io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
        self.streams.extend([client, server]);
        Ok(())
    }
}
