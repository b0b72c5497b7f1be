//! Redis is there, and refuses.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chat_bus::{
    Budget, Bus, BusError, BusEvent, Lease, LoginPolicy, NO_NUMBER, ProxyId, RedisBus, Spending,
};
use crossbeam_channel::unbounded;
use nexus_testkit::{Redis, RedisOptions, free_port, wait_until};

use crate::redis_faults::{bus, config, is_unavailable};
use crate::suite::{DEADLINE, FIRST, LONG, claim_as, listen, live_proxy, session};

/// A connection to Redis that is there before Redis refuses others.
struct Console(BufReader<TcpStream>);

impl Console {
    fn open(redis: &Redis) -> Self {
        let stream = TcpStream::connect(redis.address()).expect("Redis is there");
        Self(BufReader::new(stream))
    }

    /// Sends one inline command and returns the first line of the answer.
    fn ask(&mut self, command: &str) -> String {
        let stream = self.0.get_mut();
        stream
            .write_all(format!("{command}\r\n").as_bytes())
            .expect("written");
        let mut line = String::new();
        self.0.read_line(&mut line).expect("an answer");
        line.trim_end().to_owned()
    }

    fn expect(&mut self, commands: &[&str]) {
        for command in commands {
            let answer = self.ask(command);
            assert!(!answer.starts_with('-'), "{command}: {answer}");
        }
    }

    /// Ends all connections but this one.
    fn end_others(&mut self) {
        self.expect(&["CLIENT KILL TYPE normal", "CLIENT KILL TYPE pubsub"]);
    }
}

/// One of everything that a chat asks.
fn use_all(bus: &RedisBus, proxy: ProxyId) -> Result<(), BusError> {
    let held = session(proxy, 1);
    bus.renew_lease(proxy, LONG)?;
    bus.claim(1, held, NO_NUMBER.into(), LoginPolicy::NewerWins)?;
    bus.locate(&[1])?;
    bus.publish(&[(proxy, Bytes::from_static(b"x"))])?;
    bus.remembers("anything")?;
    bus.retain(proxy, &|_, _| true).map(drop)
}

/// Redis begins to refuse, and ceases: meanwhile it is as good as away, with a word of advice, and then whole.
fn refuses(begin: impl FnOnce(&mut Console), advice: &str, end: impl FnOnce(&mut Console)) {
    let redis = Redis::start().expect("Redis starts");
    let mut console = Console::open(&redis);
    let bus = bus(&redis);
    let proxy = live_proxy(&bus);
    let (_subscription, seen) = listen(&bus, proxy);
    assert_eq!(use_all(&bus, proxy), Ok(()));
    begin(&mut console);
    wait_until(advice, DEADLINE, || match use_all(&bus, proxy) {
        Ok(()) => false,
        Err(BusError::Unavailable { reason }) => reason.contains(advice),
        Err(error) => panic!("{advice}: {error}"),
    });
    end(&mut console);
    wait_until("whole again", DEADLINE, || use_all(&bus, proxy).is_ok());
    let message = Bytes::from_static(b"again");
    wait_until("heard", DEADLINE, || {
        let published = bus.publish(&[(proxy, message.clone())]);
        published.is_ok()
            && seen
                .try_iter()
                .any(|event| event == BusEvent::Message(message.clone()))
    });
}

#[test]
fn a_command_that_is_not_allowed_is_an_outage() {
    for command in ["eval", "publish", "mget", "set", "lrem", "sscan"] {
        refuses(
            |console| console.expect(&[&format!("ACL SETUSER default -{command}")]),
            "-@dangerous",
            |console| console.expect(&[&format!("ACL SETUSER default +{command}")]),
        );
    }
}

#[test]
fn why_redis_is_not_asked_is_told_as_well() {
    let redis = Redis::start().expect("Redis starts");
    let bus = bus(&redis);
    let proxy = live_proxy(&bus);
    Console::open(&redis).expect(&["ACL SETUSER default -eval"]);
    // Far more than it takes until Redis is not asked any more.
    for _ in 0..100 {
        let error = use_all(&bus, proxy).expect_err("refused").to_string();
        assert!(error.contains("'eval'"), "{error}");
    }
    // Nor asked for what it would do, over and over, before it does all.
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        assert!(is_unavailable(bus.locate(&[1])));
    }
}

#[test]
fn keys_or_channels_that_are_not_allowed_are_an_outage() {
    refuses(
        |console| console.expect(&["ACL SETUSER default resetkeys"]),
        "~nexus:*",
        |console| console.expect(&["ACL SETUSER default allkeys"]),
    );
    refuses(
        |console| console.expect(&["ACL SETUSER default resetchannels"]),
        "&nexus:*",
        |console| console.expect(&["ACL SETUSER default allchannels"]),
    );
}

#[test]
fn a_password_that_was_changed_is_an_outage() {
    refuses(
        |console| {
            console.expect(&["CONFIG SET requirepass other"]);
            console.end_others();
        },
        "check user and password",
        |console| console.expect(&["ACL SETUSER default nopass"]),
    );
}

#[test]
fn too_many_connections_are_an_outage() {
    refuses(
        |console| {
            console.expect(&["CONFIG SET maxclients 1"]);
            console.end_others();
        },
        "raise maxclients",
        |console| console.expect(&["CONFIG SET maxclients 1000"]),
    );
}

#[test]
fn a_full_memory_is_an_outage() {
    refuses(
        |console| console.expect(&["CONFIG SET maxmemory 1"]),
        "raise maxmemory",
        |console| console.expect(&["CONFIG SET maxmemory 0"]),
    );
}

#[test]
fn a_lack_of_replicas_is_an_outage() {
    refuses(
        |console| console.expect(&["CONFIG SET min-replicas-to-write 1"]),
        "min-replicas-to-write",
        |console| console.expect(&["CONFIG SET min-replicas-to-write 0"]),
    );
}

#[test]
fn a_replica_without_its_master_is_an_outage() {
    let away = format!("REPLICAOF 127.0.0.1 {}", free_port());
    for stale_data in ["yes", "no"] {
        refuses(
            |console| {
                let stale_data = format!("CONFIG SET replica-serve-stale-data {stale_data}");
                console.expect(&[&stale_data, &away]);
            },
            "lead to the master",
            |console| console.expect(&["REPLICAOF NO ONE"]),
        );
    }
}

#[test]
fn a_disk_that_cannot_be_written_is_an_outage() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = RedisOptions {
        data_dir: Some(folder.path().to_owned()),
        ..RedisOptions::default()
    };
    let redis = Redis::start_with(options).expect("Redis starts");
    let mut console = Console::open(&redis);
    let bus = bus(&redis);
    let proxy = live_proxy(&bus);
    // Saving ends with a rename to this name.
    let dump = folder.path().join("dump.rdb");
    std::fs::create_dir(&dump).expect("made");
    console.expect(&["CONFIG SET save \"3600 1\"", "BGSAVE"]);
    wait_until("cannot save", DEADLINE, || {
        let error = use_all(&bus, proxy).err();
        error.is_some_and(|error| error.to_string().contains("cannot save to its disk"))
    });
    assert!(is_unavailable(use_all(&bus, proxy)));
    std::fs::remove_dir(&dump).expect("removed");
    console.expect(&["BGSAVE"]);
    wait_until("whole again", DEADLINE, || use_all(&bus, proxy).is_ok());
}

#[test]
fn a_refused_subscription_is_not_taken_for_a_working_one() {
    let redis = Redis::start().expect("Redis starts");
    let mut console = Console::open(&redis);
    let bus = bus(&redis);
    console.expect(&["ACL SETUSER default resetchannels"]);
    let (events, seen) = unbounded();
    let on_event = Box::new(move |event| drop(events.send(event)));
    let _subscription = bus.subscribe(ProxyId::random(), on_event);
    wait_until("it was refused", DEADLINE, || {
        console.ask("ACL LOG") != "*0"
    });
    assert!(seen.is_empty());
    let mut console = Console::open(&redis);
    console.expect(&["ACL SETUSER default allchannels"]);
    assert_eq!(seen.recv_timeout(DEADLINE), Ok(BusEvent::Connected));
}

#[test]
fn a_redis_user_with_the_rights_of_the_advice_can_run_a_chat() {
    let redis = Redis::start().expect("Redis starts");
    let mut console = Console::open(&redis);
    console.expect(&[
        "ACL SETUSER chat on >sesame ~nexus:* &nexus:* +@all -@dangerous",
        "ACL SETUSER default off",
    ]);
    let url = format!("redis://chat:sesame@{}", redis.address());
    let bus = RedisBus::new(config(url)).expect("a good configuration");
    let proxy = live_proxy(&bus);
    let (_subscription, seen) = listen(&bus, proxy);
    assert_eq!(claim_as(&bus, 1, session(proxy, 1), 1), FIRST);
    assert_eq!(bus.renew_lease(proxy, LONG), Ok(Lease::Kept));
    assert_eq!(use_all(&bus, proxy), Ok(()));
    assert_eq!(bus.release(1, session(proxy, 1)), Ok(true));
    let budget = Budget {
        name: "anything".to_owned(),
        rate: "1/1h".parse().expect("a rate"),
    };
    let budgets = [budget];
    assert_eq!(bus.spend(&budgets), Ok(Spending::Granted));
    assert_eq!(bus.refund(&budgets), Ok(()));
    assert_eq!(bus.end_lease(proxy), Ok(()));
    let message = BusEvent::Message(Bytes::from_static(b"x"));
    assert_eq!(seen.recv_timeout(DEADLINE), Ok(message));
}
