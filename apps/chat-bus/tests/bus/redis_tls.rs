//! A Redis with TLS, which asks for a certificate.

use std::time::Duration;

use bytes::Bytes;
use chat_bus::{Bus, BusEvent, ProxyId, RedisBus, RedisConfig, RedisTls};
use crossbeam_channel::unbounded;
use nexus_testkit::{Authority, Identity, Redis, RedisOptions, ServerFiles};

use crate::suite::{DEADLINE, LONG};

fn tls(ca: &Authority, identity: Option<&Identity>) -> RedisTls {
    let identity = identity.map(|own| (own.certificate.clone(), own.key.clone()));
    RedisTls::from_pem(ca.certificate(), identity).unwrap()
}

#[test]
fn a_redis_with_tls_serves_who_shows_a_certificate_and_is_known_by_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Authority::open(folder.path(), "ca").unwrap();
    let other_ca = Authority::open(folder.path(), "other-ca").unwrap();
    let node = ca.issue("node", "chat-server").unwrap();
    let stranger = other_ca.issue("stranger", "chat-server").unwrap();
    let redis = Redis::start_with(RedisOptions {
        tls: Some(ServerFiles {
            identity: ca.issue("redis", "redis").unwrap(),
            client_ca: ca.certificate(),
            probe: node.clone(),
        }),
        ..RedisOptions::default()
    })
    .unwrap();
    let bus = |tls: RedisTls| {
        let mut config = RedisConfig::new(redis.url());
        config.tls = Some(tls);
        RedisBus::new(config).unwrap()
    };
    let proxy = ProxyId::random();
    for (what, tls) in [
        ("without a certificate", tls(&ca, None)),
        ("with a stranger's", tls(&ca, Some(&stranger))),
        (
            "to a Redis that is not believed",
            tls(&other_ca, Some(&node)),
        ),
    ] {
        assert!(bus(tls).renew_lease(proxy, LONG).is_err(), "{what}");
    }

    let bus = bus(tls(&ca, Some(&node)));
    bus.renew_lease(proxy, LONG).unwrap();
    let (sender, events) = unbounded();
    let _subscription = bus.subscribe(
        proxy,
        Box::new(move |event| {
            let _ = sender.send(event);
        }),
    );
    assert!(matches!(
        events.recv_timeout(DEADLINE),
        Ok(BusEvent::Connected)
    ));
    // Larger than a record of TLS, and than what is read at once.
    let large = Bytes::from(vec![b'x'; 200_000]);
    for message in [Bytes::from_static(b"small"), large] {
        bus.publish(&[(proxy, message.clone())]).unwrap();
        match events.recv_timeout(DEADLINE) {
            Ok(BusEvent::Message(came)) => assert_eq!(came, message),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_certificate_that_is_renewed_is_shown_on_the_next_connection() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Authority::open(folder.path(), "ca").unwrap();
    let other_ca = Authority::open(folder.path(), "other-ca").unwrap();
    let redis = Redis::start_with(RedisOptions {
        tls: Some(ServerFiles {
            identity: ca.issue("redis", "redis").unwrap(),
            client_ca: ca.certificate(),
            probe: ca.issue("probe", "probe").unwrap(),
        }),
        ..RedisOptions::default()
    })
    .unwrap();
    // Not let in at first: somebody else has signed it.
    let own = other_ca.issue("own", "chat-server").unwrap();
    let tls = tls(&ca, Some(&own));
    let mut config = RedisConfig::new(redis.url());
    config.tls = Some(tls.clone());
    let bus = RedisBus::new(config).unwrap();
    let proxy = ProxyId::random();
    assert!(bus.renew_lease(proxy, LONG).is_err());
    ca.issue("own", "chat-server").unwrap();
    tls.reload().unwrap();
    nexus_testkit::wait_until("it is let in", Duration::from_secs(20), || {
        bus.renew_lease(proxy, LONG).is_ok()
    });
    std::fs::remove_file(&own.key).unwrap();
    assert!(tls.reload().unwrap_err().contains("own.key"));
    bus.renew_lease(proxy, LONG).unwrap();
}

#[test]
fn certificates_for_a_redis_without_tls_are_a_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Authority::open(folder.path(), "ca").unwrap();
    let mut config = RedisConfig::new("redis://127.0.0.1:6379");
    config.tls = Some(tls(&ca, None));
    assert!(RedisBus::new(config).is_err_and(|error| error.to_string().contains("rediss://")));
}
