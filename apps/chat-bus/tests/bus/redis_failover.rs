//! Another Redis takes over behind the same address.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use chat_bus::{Bus, BusEvent, ProxyId, RedisBus};
use crossbeam_channel::{Receiver, unbounded};
use nexus_testkit::{Redis, Relay, wait_until};

use crate::redis_faults::{ask_redis, bus, config, is_unavailable};
use crate::suite::{DEADLINE, FIRST, claim_as, listen, live_proxy, session};

/// Two servers and a relay to the first.
fn two_behind_one_address() -> (Redis, Redis, Relay, RedisBus) {
    let [old, new] = [(), ()].map(|()| Redis::start().expect("Redis starts"));
    let relay = Relay::start(old.address()).expect("a relay");
    let bus = RedisBus::new(config(format!("redis://{}", relay.address()))).expect("a good one");
    (old, new, relay, bus)
}

fn follow(replica: &Redis, master: &Redis) {
    let command = format!("REPLICAOF 127.0.0.1 {}", master.port());
    assert_eq!(ask_redis(replica, &command), "+OK");
}

/// Waits until `replica` has what is at `master` now.
fn wait_until_in_step(replica: &Redis, master: &Redis) {
    let marker = format!("marker-{}", ProxyId::random());
    ask_redis(master, &format!("SET {marker} x"));
    wait_until("the replica is in step", DEADLINE, || {
        ask_redis(replica, &format!("EXISTS {marker}")) == ":1"
    });
}

/// The subscription is lost, stands again, and hears what others publish at `new`; nothing of it is left at `old`.
fn assert_moved(proxy: ProxyId, seen: &Receiver<BusEvent>, old: &Redis, new: &Redis) {
    assert_eq!(seen.recv_timeout(DEADLINE), Ok(BusEvent::Lost));
    assert_eq!(seen.recv_timeout(DEADLINE), Ok(BusEvent::Connected));
    let message = Bytes::from_static(b"x");
    let published = bus(new).publish(&[(proxy, message.clone())]);
    assert_eq!(published, Ok(()));
    assert_eq!(seen.recv_timeout(DEADLINE), Ok(BusEvent::Message(message)));
    let left = ask_redis(old, &format!("PUBLISH nexus:to:{proxy} x"));
    assert_eq!(left, ":0");
}

#[test]
fn a_demoted_master_is_left_though_it_keeps_its_connections() {
    let (old, new, relay, bus) = two_behind_one_address();
    follow(&new, &old);
    let proxy = live_proxy(&bus);
    assert_eq!(claim_as(&bus, 1, session(proxy, 1), 1), FIRST);
    let (_subscription, seen) = listen(&bus, proxy);
    wait_until_in_step(&new, &old);

    relay.lead_to(new.address());
    assert_eq!(ask_redis(&new, "REPLICAOF NO ONE"), "+OK");
    follow(&old, &new);
    // At once, and without a word to the caller.
    assert_eq!(claim_as(&bus, 2, session(proxy, 2), 1), FIRST);
    let at_new = ask_redis(&new, "EXISTS nexus:user:1 nexus:user:2");
    assert_eq!(at_new, ":2");
    assert_moved(proxy, &seen, &old, &new);
}

#[test]
fn a_publisher_that_writes_nothing_leaves_a_demoted_master_too() {
    let (old, new, relay, bus) = two_behind_one_address();
    let proxy = ProxyId::random();
    let (_subscription, seen) = listen(&crate::redis_faults::bus(&new), proxy);
    let message = Bytes::from_static(b"x");
    // A replica takes this, and passes it on to nobody.
    assert_eq!(bus.publish(&[(proxy, message.clone())]), Ok(()));
    relay.lead_to(new.address());
    follow(&old, &old);
    wait_until("what is published arrives", DEADLINE, || {
        bus.publish(&[(proxy, message.clone())]).expect("published");
        !seen.is_empty()
    });
}

#[test]
fn a_subscription_goes_where_publishers_have_gone() {
    let (old, new, relay, bus) = two_behind_one_address();
    let proxy = live_proxy(&bus);
    let (_subscription, seen) = listen(&bus, proxy);
    // The old one goes on as a master, and keeps the subscription's connection.
    relay.lead_to(new.address());
    wait_until("there is a connection to end", DEADLINE, || {
        ask_redis(&old, "CLIENT KILL TYPE normal") != ":0"
    });
    assert_moved(proxy, &seen, &old, &new);
}

#[test]
fn what_repeats_what_it_is_sent_is_not_taken_for_redis() {
    // As a connection that is connected to itself does.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("accepted");
            thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut bytes) {
                    let _ = stream.write_all(&bytes[..read]);
                }
            });
        }
    });
    let bus = RedisBus::new(config(format!("redis://{address}"))).expect("a good configuration");
    let (events, seen) = unbounded();
    let on_event = Box::new(move |event| drop(events.send(event)));
    let _subscription = bus.subscribe(ProxyId::random(), on_event);
    let error = bus.locate(&[1]).expect_err("no Redis");
    assert!(error.to_string().contains("as Redis does"), "{error}");
    assert!(is_unavailable(bus.end_lease(ProxyId::random())));
    assert!(seen.recv_timeout(Duration::from_millis(300)).is_err());
}
