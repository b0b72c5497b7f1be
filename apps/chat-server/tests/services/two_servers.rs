//! The limits of two servers that share one Redis.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chat_bus::{Bus, Rate, RedisBus, RedisConfig};
use chat_proto::ids::code;
use chat_store::{SqliteStore, Store};
use nexus_testkit::{Redis, wait_until};

use super::{Node, PATIENCE};

const HOUR: Duration = Duration::from_secs(3600);
const ADDRESS: &str = "192.0.2.1";
const MADE_UP: Bytes = Bytes::from_static(&[0; 32]);

struct Pair {
    redis: Redis,
    buses: [Arc<RedisBus>; 2],
    servers: [Node; 2],
}

impl Pair {
    /// Two servers, with three of everything that is limited.
    fn new() -> Self {
        let redis = Redis::start().unwrap();
        let store: Arc<dyn Store> = Arc::new(SqliteStore::in_memory().unwrap());
        let bus = || RedisBus::new(RedisConfig::new(redis.url())).unwrap();
        let buses = [Arc::new(bus()), Arc::new(bus())];
        let servers = [0, 1].map(|server| {
            let bus = Arc::clone(&buses[server]);
            Node::start(&store, bus, |options| {
                let three = Rate::literal(3, HOUR);
                options.clients.registrations_per_address = three;
                options.clients.failed_logins_per_address = three;
                options.clients.failed_logins_per_address_and_user = three;
            })
        });
        Self {
            redis,
            buses,
            servers,
        }
    }

    fn register(&self, server: usize, name: &str) -> i32 {
        self.servers[server].register(name, "secret").error_code
    }

    fn login(&self, server: usize, user: i32, password: &str) -> i32 {
        self.login_from(ADDRESS, server, user, password)
    }

    fn login_from(&self, address: &str, server: usize, user: i32, password: &str) -> i32 {
        let reply = self.servers[server].login(address, user, password);
        reply.response.unwrap().error_code
    }

    fn resume(&self, server: usize, user: i32) -> i32 {
        let reply = self.servers[server].resume(ADDRESS, user, &MADE_UP);
        reply.response.unwrap().error_code
    }

    /// Tries this at both servers until it is refused there; how often it was not.
    fn tried_at_each(&self, attempt: impl Fn(usize) -> i32) -> [usize; 2] {
        [0, 1].map(|server| {
            let codes = (0..10).map(|_| attempt(server));
            codes.take_while(|&code| code != code::RATE_LIMITED).count()
        })
    }
}

#[test]
fn failed_logins_at_one_server_stop_a_guess_at_the_other() {
    let pair = Pair::new();
    let user = pair.servers[0].register("ann", "secret").user_id;
    for server in [0, 1, 0] {
        let code = pair.login(server, user, "guess");
        assert_eq!(code, code::LOGIN_WRONG_PASSWORD);
    }
    for server in [0, 1] {
        assert_eq!(pair.login(server, user, "secret"), code::RATE_LIMITED);
        let elsewhere = pair.login_from("198.51.100.1", server, user, "secret");
        assert_eq!(elsewhere, code::SUCCESS);
    }
}

#[test]
fn made_up_tokens_at_one_server_are_not_looked_at_by_the_other() {
    let pair = Pair::new();
    for server in [0, 0, 1] {
        assert_eq!(pair.resume(server, 7), code::SESSION_ENDED);
    }
    for server in [0, 1] {
        assert_eq!(pair.resume(server, 7), code::RATE_LIMITED);
        assert_eq!(pair.login(server, 8, "guess"), code::RATE_LIMITED);
    }
}

#[test]
fn registrations_at_both_servers_count_together() {
    let pair = Pair::new();
    for (server, name) in [(0, "ann"), (1, "bob"), (1, "cid")] {
        assert_eq!(pair.register(server, name), code::SUCCESS);
    }
    for server in [0, 1] {
        assert_eq!(pair.register(server, "dan"), code::RATE_LIMITED);
    }
}

#[test]
fn without_redis_each_server_counts_alone() {
    let pair = Pair::new();
    let user = pair.servers[0].register("ann", "secret").user_id;
    let guess = |server| pair.login(server, user, "guess");
    assert_eq!(pair.tried_at_each(guess), [3, 0]);
    pair.redis.kill();
    // From zero, and no further.
    assert_eq!(pair.tried_at_each(guess), [3, 3]);
    // The name is taken, which costs as much.
    let register = |server| pair.register(server, "ann");
    assert_eq!(pair.tried_at_each(register), [3, 3]);
    pair.redis.restart().unwrap();
    wait_until("Redis is back for both", PATIENCE, || {
        pair.buses.iter().all(|bus| bus.remembers("").is_ok())
    });
    assert_eq!(pair.tried_at_each(guess), [3, 0]);
}
