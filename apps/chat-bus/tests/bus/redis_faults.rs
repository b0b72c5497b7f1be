//! What the bus does while Redis is away, silent, restarted or unwilling.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chat_bus::{
    Bus, BusError, BusEvent, Claim, Lease, LoginPolicy, NO_NUMBER, ProxyId, RedisBus, RedisConfig,
    SessionRef,
};
use crossbeam_channel::unbounded;
use nexus_testkit::{Redis, free_port, wait_until};

use crate::suite::{DEADLINE, FIRST, LONG, held, listen, live_proxy, session};

/// The timeout of a call in these tests.
const TIMEOUT: Duration = Duration::from_millis(500);
/// More than a call takes at the very most, on a busy machine.
const CALL_MAX: Duration = Duration::from_millis(1500);

pub(crate) fn config(url: String) -> RedisConfig {
    let mut config = RedisConfig::new(url);
    config.timeout = TIMEOUT;
    config.ping_interval = Duration::from_millis(200);
    config
}

pub(crate) fn bus(redis: &Redis) -> RedisBus {
    RedisBus::new(config(redis.url())).expect("a good configuration")
}

fn claim(bus: &RedisBus, user: i32, session: SessionRef) -> Claim {
    bus.claim(user, session, NO_NUMBER.into(), LoginPolicy::NewerWins)
        .expect("claimed")
}

pub(crate) fn is_unavailable<T>(result: Result<T, BusError>) -> bool {
    matches!(result, Err(BusError::Unavailable { .. }))
}

/// The first line of Redis's answer to a command.
pub(crate) fn ask_redis(redis: &Redis, command: &str) -> String {
    redis.ask(command).expect("Redis is there")
}

#[test]
fn presence_and_messages_come_back_after_a_restart_that_lost_everything() {
    let redis = Redis::start().expect("Redis starts");
    let bus = bus(&redis);
    let proxy = live_proxy(&bus);
    claim(&bus, 1, session(proxy, 1));
    let (_subscription, seen) = listen(&bus, proxy);

    redis.kill();
    assert_eq!(seen.recv_timeout(DEADLINE), Ok(BusEvent::Lost));
    assert!(is_unavailable(bus.locate(&[1])));
    redis.restart().expect("Redis restarts");

    wait_until("the bus works again", DEADLINE, || {
        bus.locate(&[1]) == Ok(vec![None])
    });
    assert_eq!(bus.renew_lease(proxy, LONG), Ok(Lease::New));
    assert_eq!(bus.restore(proxy, &held(&[(1, 1)])), Ok(Default::default()));
    assert_eq!(bus.locate(&[1]), Ok(vec![Some(session(proxy, 1))]));

    assert_eq!(seen.recv_timeout(DEADLINE), Ok(BusEvent::Connected));
    bus.publish(&[(proxy, Bytes::from_static(b"x"))])
        .expect("published");
    let message = BusEvent::Message(Bytes::from_static(b"x"));
    assert_eq!(seen.recv_timeout(DEADLINE), Ok(message));
}

#[test]
fn a_restart_between_two_calls_is_not_noticed_by_the_caller() {
    let redis = Redis::start().expect("Redis starts");
    let bus = bus(&redis);
    let proxy = live_proxy(&bus);
    redis.kill();
    redis.restart().expect("Redis restarts");
    assert_eq!(bus.publish(&[(proxy, Bytes::from_static(b"x"))]), Ok(()));
}

#[test]
fn a_silent_redis_holds_a_call_no_longer_than_its_timeout() {
    let redis = Redis::start().expect("Redis starts");
    let bus = bus(&redis);
    let proxy = live_proxy(&bus);
    redis.pause();

    // Many commands in one call cost one timeout as well.
    let messages = vec![(proxy, Bytes::from_static(b"x")); 1000];
    let start = Instant::now();
    assert!(is_unavailable(bus.publish(&messages)));
    assert!(start.elapsed() < CALL_MAX, "{:?}", start.elapsed());

    // And those that follow find out at once, but for the one that asks again.
    let start = Instant::now();
    for _ in 0..100 {
        assert!(is_unavailable(bus.locate(&[1])));
    }
    assert!(start.elapsed() < CALL_MAX, "{:?}", start.elapsed());

    redis.resume();
    wait_until("the bus works again", DEADLINE, || {
        bus.locate(&[1]) == Ok(vec![None])
    });
}

#[test]
fn a_silent_redis_holds_many_callers_no_longer_than_one() {
    let redis = Redis::start().expect("Redis starts");
    let mut config = config(redis.url());
    config.connections_max = 2;
    let bus = RedisBus::new(config).expect("a good configuration");
    live_proxy(&bus);
    redis.pause();
    let start = Instant::now();
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| assert!(is_unavailable(bus.locate(&[1]))));
        }
    });
    assert!(start.elapsed() < CALL_MAX, "{:?}", start.elapsed());
    redis.resume();
}

#[test]
fn a_silent_redis_is_noticed_by_the_subscriber() {
    let redis = Redis::start().expect("Redis starts");
    let bus = bus(&redis);
    let (subscription, seen) = listen(&bus, ProxyId::random());
    redis.pause();
    assert_eq!(seen.recv_timeout(DEADLINE), Ok(BusEvent::Lost));
    redis.resume();
    assert_eq!(seen.recv_timeout(DEADLINE), Ok(BusEvent::Connected));
    redis.pause();
    let start = Instant::now();
    drop(subscription);
    assert!(start.elapsed() < CALL_MAX * 2, "{:?}", start.elapsed());
    redis.resume();
}

#[test]
fn a_quiet_subscription_stays() {
    let redis = Redis::start().expect("Redis starts");
    let bus = bus(&redis);
    let proxy = ProxyId::random();
    let (_subscription, seen) = listen(&bus, proxy);
    // Five ping intervals without a message.
    assert!(seen.recv_timeout(Duration::from_secs(1)).is_err());
    bus.publish(&[(proxy, Bytes::from_static(b"x"))])
        .expect("published");
    let message = BusEvent::Message(Bytes::from_static(b"x"));
    assert_eq!(seen.recv_timeout(DEADLINE), Ok(message));
}

#[test]
fn a_message_that_arrives_in_pieces_is_whole() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
    let address = listener.local_addr().expect("an address");
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the subscriber");
        let mut from = BufReader::new(stream.try_clone().expect("cloned"));
        let mut request = Vec::new();
        // SET nexus:check "" PX 60000
        from.read_until(b'6', &mut request).expect("the check");
        stream.write_all(b"+OK\r\n").expect("written");
        // SUBSCRIBE nexus:to:0000000000000001 and the channel of beats
        from.read_until(b'U', &mut request).expect("SUBSCRIBE");
        let channel = "$25\r\nnexus:to:0000000000000001\r\n";
        let subscribed = format!("*3\r\n$9\r\nsubscribe\r\n{channel}:1\r\n");
        for _ in 0..2 {
            stream.write_all(subscribed.as_bytes()).expect("written");
        }
        let message = format!("*3\r\n$7\r\nmessage\r\n{channel}$5\r\nhello\r\n");
        // Pieces further apart than the subscriber's reads are long.
        for piece in message.as_bytes().chunks(25) {
            thread::sleep(Duration::from_millis(150));
            stream.write_all(piece).expect("written");
        }
        stream
    });
    let mut config = config(format!("redis://{address}"));
    config.ping_interval = DEADLINE;
    let bus = RedisBus::new(config).expect("a good configuration");
    let (_subscription, seen) = listen(&bus, ProxyId::from_u64(1));
    let message = BusEvent::Message(Bytes::from_static(b"hello"));
    assert_eq!(seen.recv_timeout(DEADLINE), Ok(message));
    drop(server.join().expect("no panic"));
}

#[test]
fn redis_may_come_later_than_the_bus() {
    let port = free_port();
    let bus = RedisBus::new(config(format!("redis://127.0.0.1:{port}"))).expect("a good one");
    let proxy = ProxyId::random();
    let (events, seen) = unbounded();
    let _subscription = bus.subscribe(proxy, Box::new(move |event| drop(events.send(event))));
    let start = Instant::now();
    assert!(is_unavailable(bus.locate(&[1])));
    assert!(start.elapsed() < CALL_MAX);

    let options = nexus_testkit::RedisOptions {
        port: Some(port),
        ..Default::default()
    };
    let _redis = Redis::start_with(options).expect("Redis starts");
    wait_until("the bus works", DEADLINE, || {
        bus.renew_lease(proxy, LONG).is_ok()
    });
    assert_eq!(seen.recv_timeout(DEADLINE), Ok(BusEvent::Connected));
}

#[test]
fn calls_from_more_threads_than_connections_all_succeed() {
    let redis = Redis::start().expect("Redis starts");
    let mut config = config(redis.url());
    config.connections_max = 2;
    config.timeout = DEADLINE;
    let bus = Arc::new(RedisBus::new(config).expect("a good configuration"));
    let proxy = live_proxy(bus.as_ref());
    thread::scope(|scope| {
        for user in 0..16 {
            let bus = &bus;
            scope.spawn(move || {
                for number in 0..50 {
                    claim(bus, user, session(proxy, number));
                }
            });
        }
    });
    let located = bus.locate(&(0..16).collect::<Vec<i32>>()).expect("located");
    assert_eq!(located, vec![Some(session(proxy, 49)); 16]);
}

#[test]
fn entries_end_by_themselves_and_restoring_starts_their_life_anew() {
    let redis = Redis::start().expect("Redis starts");
    let mut config = config(redis.url());
    config.entry_life = Duration::from_secs(1000);
    let bus = RedisBus::new(config).expect("a good configuration");
    let proxy = live_proxy(&bus);
    claim(&bus, 1, session(proxy, 1));
    assert_eq!(ask_redis(&redis, "EXPIRE nexus:user:1 10"), ":1");
    bus.restore(proxy, &held(&[(1, 1)])).expect("restored");
    let left = ask_redis(&redis, "TTL nexus:user:1");
    let left: u64 = left.trim_start_matches(':').parse().expect("a number");
    assert!((990..=1000).contains(&left), "{left}");
}

#[test]
fn an_entry_that_cannot_be_read_is_nobodys() {
    let redis = Redis::start().expect("Redis starts");
    let bus = bus(&redis);
    let proxy = live_proxy(&bus);
    for (number, garbage) in (1..).zip(["x", ":", "1:", "nexus:1", "-1:1"]) {
        assert_eq!(
            ask_redis(&redis, &format!("SET nexus:user:1 {garbage}")),
            "+OK"
        );
        assert_eq!(bus.locate(&[1]), Ok(vec![None]), "{garbage}");
        let session = session(proxy, number);
        let granted = bus.claim(1, session, NO_NUMBER.into(), LoginPolicy::OlderWins);
        assert_eq!(granted, Ok(FIRST), "{garbage}");
        assert_eq!(bus.release(1, session), Ok(true));
    }
}

#[test]
fn what_redis_refuses_is_an_error_without_the_message_in_it() {
    let redis = Redis::start().expect("Redis starts");
    let bus = bus(&redis);
    live_proxy(&bus);
    ask_redis(&redis, "SET nexus:user:1 x");
    ask_redis(&redis, "DEL nexus:lost:1");
    ask_redis(&redis, "SET nexus:lost:1 secret");
    let claim = bus.claim(
        1,
        session(ProxyId::random(), 1),
        NO_NUMBER.into(),
        LoginPolicy::NewerWins,
    );
    let refused = claim.expect_err("a key of another type");
    assert!(matches!(&refused, BusError::Refused { .. }), "{refused:?}");
    assert!(!refused.to_string().contains("secret"), "{refused}");
    // It is of that request, and nobody else's.
    assert_eq!(bus.locate(&[2]), Ok(vec![None]));
}

#[test]
fn a_password_and_a_database_are_used() {
    let redis = Redis::start().expect("Redis starts");
    assert_eq!(ask_redis(&redis, "CONFIG SET requirepass sesame"), "+OK");
    let url = |password: &str| format!("redis://:{password}@127.0.0.1:{}/3", redis.port());
    let bus = RedisBus::new(config(url("sesame"))).expect("a good configuration");
    live_proxy(&bus);
    let wrong = RedisBus::new(config(url("guess"))).expect("a good configuration");
    let error = wrong.locate(&[1]).expect_err("a wrong password");
    assert!(error.to_string().contains("WRONGPASS"), "{error}");
    assert!(!error.to_string().contains("guess"), "{error}");
}

#[test]
fn a_configuration_that_cannot_work_names_its_key() {
    let good = RedisConfig::new("redis://127.0.0.1:1");
    let key = |change: fn(&mut RedisConfig)| {
        let mut config = good.clone();
        change(&mut config);
        match RedisBus::new(config) {
            Err(BusError::Config { key, .. }) => key,
            other => panic!("{:?}", other.err()),
        }
    };
    assert_eq!(key(|config| config.url = "secret@here".to_owned()), "url");
    assert_eq!(key(|config| config.url = "http://here".to_owned()), "url");
    assert_eq!(
        key(|config| config.url = "rediss://here/#insecure".to_owned()),
        "url"
    );
    assert_eq!(
        key(|config| config.key_prefix = "x".repeat(65)),
        "key_prefix"
    );
    assert_eq!(key(|config| config.timeout = Duration::ZERO), "timeout");
    assert_eq!(key(|config| config.connections_max = 0), "connections_max");
    assert_eq!(
        key(|config| config.entry_life = Duration::MAX),
        "entry_life"
    );
    assert_eq!(
        key(|config| config.ping_interval = Duration::ZERO),
        "ping_interval"
    );
    assert!(RedisBus::new(good).is_ok());
}
