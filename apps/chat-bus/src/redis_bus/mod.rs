//! [`RedisBus`]: presence and messages through Redis, for a cluster.
//!
//! | key or channel | holds | lives |
//! |---|---|---|
//! | `nexus:user:{id}` | the user's session, `proxy:session` | until released, at most `entry_life` |
//! | `nexus:login:{id}` | the number of the user's latest login | `entry_life` |
//! | `nexus:lost:{id}` | list: sessions that lost the user | some minutes |
//! | `nexus:asked:{id}` | `run:attempt:time`: which attempt of which client the last claim was for, and when (ms, by this Redis) the client asked | `entry_life` |
//! | `nexus:proxy:{proxy}` | the lease of a proxy: how often it was renewed | as long as the lease |
//! | `nexus:proxy:{proxy}:users` | set: the users whose entries are the proxy's | `entry_life` |
//! | `nexus:to:{proxy}` | channel: messages to a proxy | |
//! | `nexus:to:{proxy}:{subscription}` | channel: beats of a subscription to itself | |
//! | `nexus:check`, `nexus:check:*` | what shows that Redis takes writes | a minute |
//! | `nexus:budget:{name}` | nothing: its remaining life is what was used of a budget | until the budget is full |
//! | `nexus:fact:{fact}` | nothing: it is there; `over:{session}` says that a session was released | as long as the fact is remembered |
//!
//! An entry whose lease key is gone is dead: it counts as absent everywhere and is overwritten by
//! the next claim. The life of an entry is only there so that dead ones do not pile up; each
//! `restore` starts it anew, so a proxy that restores more often than `entry_life` never loses one.
//!
//! Redis may go back to an older state: it restarts from a snapshot, or a replica that lagged takes over. The lease then
//! says less than its holder left in it, or comes from another run of Redis, and counts as new
//! ([`renew_lease`](Bus::renew_lease)). Entries that came back with that state are found by the set of their proxy's users
//! ([`retain`](Bus::retain)), which every script that writes an entry keeps in step with it.
//!
//! Programs of the version before know neither logins' numbers nor lost sessions, and write entries as ever: of a user
//! whom one of them has claimed, no login is older than another.
//!
//! | file | holds |
//! |---|---|
//! | `link.rs` | one connection: every request on it has a deadline |
//! | `refusal.rs` | errors of Redis that are as good as no Redis, and what to do about them |
//! | `pool.rs` | a bounded number of links behind a circuit breaker |
//! | `scripts.rs` | what Redis has to do atomically |
//! | `subscriber.rs` | the thread of a subscription |
//! | `tls.rs` | certificates |
//!
//! Needs one Redis (or one behind a fail-over), version 5 or later; not Redis Cluster, as a
//! script looks at the lease of the proxy that it finds in an entry.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use redis::{Cmd, FromRedisValue, Value};

use crate::budgets::fact_life;
use crate::{
    Budget, Bus, BusError, Claim, ClaimOrder, HeldSession, LOST_LIFE, LOST_MAX, Lease, LoginNumber,
    LoginPolicy, OVER_LIFE, OnEvent, ProxyId, Restored, SessionRef, Spending, Subscription,
    check_sizes, lease_time, over_fact,
};

mod link;
mod pool;
mod refusal;
mod scripts;
mod subscriber;
mod tls;

use link::Endpoint;
use pool::Pool;
use refusal::server_error;
use subscriber::Subscriber;
pub use tls::RedisTls;

/// Most users in one `MGET` or one run of the restoring script: Redis serves nobody else meanwhile.
const USERS_PER_COMMAND: usize = 500;
/// Most proxies whose leases are asked for before it is known that they hold one of the users.
const HOLDERS_EXPECTED_MAX: usize = 32;
/// Most commands and (about) most bytes written before the replies are read.
const COMMANDS_PER_ROUND_TRIP: usize = 1024;
const BYTES_PER_ROUND_TRIP: usize = 1024 * 1024;

/// Where Redis is and how patient to be with it.
#[derive(Clone)]
#[non_exhaustive]
pub struct RedisConfig {
    /// `redis://[[user]:password@]host:port[/db]`, `rediss://` for TLS, or `unix:///path`. A name is resolved at every
    /// connect, by the system and with its timeouts.
    pub url: String,
    /// How Redis is known under TLS, and who the bus is. Default: by the certificates that the system
    /// trusts, and nobody in particular.
    pub tls: Option<RedisTls>,
    /// What all keys and channels begin with; separates clusters that share a Redis. At most 64
    /// bytes. Default `nexus:`.
    pub key_prefix: String,
    /// How long a call may take per round trip, waiting for a connection and connecting included.
    /// Default 1 s.
    pub timeout: Duration,
    /// Most connections for calls; a subscription has one of its own, and one for its beats. Default 8.
    pub connections_max: usize,
    /// How long a user's entry lives after it was last claimed or restored. Default 24 h.
    pub entry_life: Duration,
    /// How often a subscription publishes something to itself. It is lost if that does not arrive within `timeout`, or
    /// goes to another Redis. Default 2 s.
    pub ping_interval: Duration,
}

impl RedisConfig {
    /// The defaults, for the Redis at `url`.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            tls: None,
            key_prefix: "nexus:".to_owned(),
            timeout: Duration::from_secs(1),
            connections_max: 8,
            entry_life: Duration::from_secs(24 * 60 * 60),
            ping_interval: Duration::from_secs(2),
        }
    }

    fn check(&self) -> Result<Endpoint, BusError> {
        let wrong = |key, reason: &str| {
            Err(BusError::Config {
                key,
                reason: reason.to_owned(),
            })
        };
        if self.key_prefix.len() > 64 {
            return wrong("key_prefix", "expected at most 64 bytes");
        }
        if self.connections_max == 0 {
            return wrong("connections_max", "expected at least 1");
        }
        let (least, hour) = (Duration::from_millis(1), Duration::from_secs(60 * 60));
        if !(least..=hour).contains(&self.timeout) {
            return wrong("timeout", "expected 1ms to 1h");
        }
        if !(least..=hour).contains(&self.ping_interval) {
            return wrong("ping_interval", "expected 1ms to 1h");
        }
        if !(least..=hour * 24 * 365).contains(&self.entry_life) {
            return wrong("entry_life", "expected 1ms to 365 days");
        }
        let check_key = format!("{}check", self.key_prefix);
        Endpoint::new(&self.url, self.tls.as_ref(), &check_key, self.timeout)
            .map_err(|reason| BusError::Config { key: "url", reason })
    }
}

/// A bus on Redis.
pub struct RedisBus {
    keys: Keys,
    pool: Arc<Pool>,
    entry_life_ms: u64,
    ping_interval: Duration,
    /// Proxies that held users lately.
    holders: Mutex<Vec<ProxyId>>,
    /// Leases that were renewed here, until they are given up.
    leases: Mutex<HashMap<ProxyId, Renewed>>,
}

/// A lease as its holder left it.
struct Renewed {
    count: i64,
    /// Which run of Redis it is in; empty: not known.
    run: String,
}

impl RedisBus {
    /// A bus on the Redis of `config`; connects when first used, so Redis need not be there yet.
    ///
    /// # Errors
    /// [`BusError::Config`] names the field that cannot work; [`BusError::Unavailable`] if the system has
    /// no thread to give.
    pub fn new(config: RedisConfig) -> Result<Self, BusError> {
        let endpoint = config.check()?;
        let keys = Keys {
            prefix: config.key_prefix.into(),
        };
        let pool = Pool::new(endpoint, config.connections_max, &keys.probe());
        let pool = pool.map_err(|error| BusError::Unavailable {
            reason: format!("no thread: {error}"),
        })?;
        Ok(Self {
            keys,
            pool: Arc::new(pool),
            entry_life_ms: as_ms(config.entry_life),
            ping_interval: config.ping_interval,
            holders: Mutex::default(),
            leases: Mutex::default(),
        })
    }

    /// Runs one command and reads its answer as a `T`.
    fn ask<T: FromRedisValue>(&self, command: Cmd) -> Result<T, BusError> {
        let mut answers = self.ask_all(&[command])?;
        answers.pop().ok_or_else(unexpected)
    }

    /// Runs `commands` in order, as many per round trip as the limits allow.
    fn ask_all<T: FromRedisValue>(&self, commands: &[Cmd]) -> Result<Vec<T>, BusError> {
        let mut answers = Vec::with_capacity(commands.len());
        let mut request = Vec::new();
        let mut waiting = 0;
        for (index, command) in commands.iter().enumerate() {
            command.write_packed_command(&mut request);
            waiting += 1;
            let last = index + 1 == commands.len();
            if last || waiting == COMMANDS_PER_ROUND_TRIP || request.len() >= BYTES_PER_ROUND_TRIP {
                for value in self.pool.round_trip(&request, waiting)? {
                    answers.push(answer(value)?);
                }
                request.clear();
                waiting = 0;
            }
        }
        Ok(answers)
    }

    /// A script that gives users to sessions, with the arguments that all of them have.
    fn giving(&self, code: &str, to: impl Iterator<Item = (i32, SessionRef)>) -> Cmd {
        let keys = |(user, session)| {
            let over = self.keys.fact(&over_fact(session));
            self.keys.of_user(user).into_iter().chain([over])
        };
        let keys: Vec<String> = to.flat_map(keys).collect();
        let mut script = script(code, &keys);
        script
            .arg(self.keys.lease_prefix())
            .arg(self.entry_life_ms)
            .arg(as_ms(LOST_LIFE))
            .arg(LOST_MAX);
        script
    }

    fn releasing(&self, user: i32, session: SessionRef) -> Cmd {
        let over = self.keys.fact(&over_fact(session));
        let keys = [
            self.keys.user(user),
            over,
            self.keys.users_of(session.proxy),
        ];
        let mut release = script(scripts::RELEASE, &keys);
        release
            .arg(session.to_string())
            .arg(as_ms(OVER_LIFE))
            .arg(user);
        release
    }

    /// Those of `users` whose entries are of `proxy`, with the entry's session.
    fn entries(&self, proxy: ProxyId, users: &[i32]) -> Result<Vec<(i32, SessionRef)>, BusError> {
        let mut keys = vec![self.keys.users_of(proxy)];
        keys.extend(users.iter().map(|&user| self.keys.user(user)));
        let mut entries = script(scripts::ENTRIES, &keys);
        entries.arg(proxy.to_string()).arg(users);
        let found: Vec<(i32, String)> = self.ask(entries)?;
        let found = found.into_iter();
        Ok(found
            .filter_map(|(user, entry)| Some((user, entry.parse().ok()?)))
            .collect())
    }

    /// The values of `keys`, in their order.
    fn values(&self, keys: &[String]) -> Result<Vec<Option<String>>, BusError> {
        let commands: Vec<Cmd> = keys
            .chunks(USERS_PER_COMMAND)
            .map(|keys| command("MGET", keys))
            .collect();
        let values: Vec<Vec<Option<String>>> = self.ask_all(&commands)?;
        let values: Vec<Option<String>> = values.into_iter().flatten().collect();
        if values.len() == keys.len() {
            Ok(values)
        } else {
            Err(unexpected())
        }
    }
}

impl Bus for RedisBus {
    fn claim(
        &self,
        user: i32,
        session: SessionRef,
        order: ClaimOrder,
        policy: LoginPolicy,
    ) -> Result<Claim, BusError> {
        let policy = match policy {
            LoginPolicy::NewerWins => scripts::NEWER_WINS,
            LoginPolicy::OlderWins => scripts::OLDER_WINS,
        };
        let mut claim = self.giving(scripts::CLAIM, std::iter::once((user, session)));
        let ClaimOrder {
            login,
            attempt,
            waited,
        } = order;
        claim.arg(session.to_string()).arg(login).arg(policy);
        claim.arg(attempt.run).arg(attempt.number);
        claim.arg(as_ms(waited));
        match self.ask::<(i64, LoginNumber, Vec<String>)>(claim)? {
            (scripts::GRANTED, _, lost) => Ok(Claim::Granted {
                replaced: sessions(lost).collect(),
            }),
            (scripts::REFUSED, ..) => Ok(Claim::Refused),
            (scripts::OUTDATED, latest, _) => Ok(Claim::Outdated { latest }),
            (scripts::OVER, ..) => Ok(Claim::Over),
            _ => Err(unexpected()),
        }
    }

    fn claimed_since(&self, user: i32, waited: Duration) -> Result<bool, BusError> {
        let [.., asked] = self.keys.of_user(user);
        let mut script = script(scripts::CLAIMED_SINCE, &[asked]);
        script.arg(as_ms(waited));
        self.ask(script)
    }

    fn release(&self, user: i32, session: SessionRef) -> Result<bool, BusError> {
        self.ask(self.releasing(user, session))
    }

    fn locate(&self, users: &[i32]) -> Result<Vec<Option<SessionRef>>, BusError> {
        let mut keys: Vec<String> = users.iter().map(|&user| self.keys.user(user)).collect();
        // Nearly always the same few proxies hold everybody: their leases are asked for in the same round trip.
        let expected = self.holders.lock().clone();
        keys.extend(expected.iter().map(|&proxy| self.keys.lease(proxy)));
        let mut values = self.values(&keys)?;
        let mut leases: HashMap<ProxyId, bool> = expected
            .into_iter()
            .zip(values.drain(users.len()..))
            .map(|(proxy, lease)| (proxy, lease.is_some()))
            .collect();
        // An entry that cannot be read is nobody's: as good as absent.
        let held: Vec<Option<SessionRef>> = values
            .into_iter()
            .map(|entry| entry.and_then(|entry| entry.parse().ok()))
            .collect();
        let holders: HashSet<ProxyId> = held.iter().flatten().map(|held| held.proxy).collect();
        let unexpected: Vec<ProxyId> = holders
            .into_iter()
            .filter(|proxy| !leases.contains_key(proxy))
            .collect();
        if !unexpected.is_empty() {
            let keys: Vec<String> = unexpected
                .iter()
                .map(|&proxy| self.keys.lease(proxy))
                .collect();
            let values = self.values(&keys)?.into_iter();
            leases.extend(
                unexpected
                    .into_iter()
                    .zip(values.map(|lease| lease.is_some())),
            );
            let live = leases.iter().filter(|&(_, &live)| live);
            *self.holders.lock() = live
                .map(|(&proxy, _)| proxy)
                .take(HOLDERS_EXPECTED_MAX)
                .collect();
        }
        let is_live = |proxy| leases.get(&proxy).copied().unwrap_or(false);
        Ok(held
            .into_iter()
            .map(|held| held.filter(|held| is_live(held.proxy)))
            .collect())
    }

    fn renew_lease(&self, proxy: ProxyId, time_to_live: Duration) -> Result<Lease, BusError> {
        let left = match self.leases.lock().get(&proxy) {
            Some(left) => (left.count, left.run.clone()),
            None => (0, String::new()),
        };
        let mut renew = script(scripts::RENEW_LEASE, &[self.keys.lease(proxy)]);
        renew.arg(as_ms(lease_time(time_to_live))).arg(left.0);
        let (before, count, run): (i64, i64, String) = self.ask(renew)?;
        let is_older = before < left.0;
        let is_another = !run.is_empty() && !left.1.is_empty() && run != left.1;
        self.leases.lock().insert(proxy, Renewed { count, run });
        if before >= 0 && (is_older || is_another) {
            log::warn!("redis went back to an older state, or another one took over");
        }
        Ok(match before < 0 || is_older || is_another {
            true => Lease::New,
            false => Lease::Kept,
        })
    }

    fn retain(
        &self,
        proxy: ProxyId,
        is_held: &dyn Fn(i32, u64) -> bool,
    ) -> Result<usize, BusError> {
        let mut removed = 0;
        let mut cursor: u64 = 0;
        loop {
            let mut scan = command("SSCAN", &[self.keys.users_of(proxy)]);
            scan.arg(cursor).arg("COUNT").arg(USERS_PER_COMMAND);
            let (next, users): (u64, Vec<String>) = self.ask(scan)?;
            let users: Vec<i32> = users.iter().filter_map(|user| user.parse().ok()).collect();
            for some in users.chunks(USERS_PER_COMMAND) {
                let entries = self.entries(proxy, some)?.into_iter();
                let over: Vec<Cmd> = entries
                    .filter(|&(user, held)| held.proxy == proxy && !is_held(user, held.session))
                    .map(|(user, held)| self.releasing(user, held))
                    .collect();
                let released: Vec<bool> = self.ask_all(&over)?;
                removed += released.into_iter().filter(|&released| released).count();
            }
            cursor = next;
            if cursor == 0 {
                return Ok(removed);
            }
        }
    }

    fn restore(&self, proxy: ProxyId, sessions: &[HeldSession]) -> Result<Restored, BusError> {
        let mut answers: Vec<(i64, Vec<String>)> = Vec::with_capacity(sessions.len());
        // A round trip each: a thousand sessions are some ten thousand operations, and the time limit is for one answer.
        for some in sessions.chunks(USERS_PER_COMMAND) {
            let place = |session| SessionRef { proxy, session };
            let to = some.iter().map(|held| (held.user, place(held.session)));
            let mut restore = self.giving(scripts::RESTORE, to);
            for &HeldSession { session, login, .. } in some {
                restore.arg(place(session).to_string()).arg(login);
            }
            answers.extend(self.ask::<Vec<(i64, Vec<String>)>>(restore)?);
        }
        if answers.len() != sessions.len() {
            return Err(unexpected());
        }
        let mut restored = Restored::default();
        for (&HeldSession { user, .. }, (how, lost)) in sessions.iter().zip(answers) {
            match how {
                scripts::REFUSED => restored.taken.push(user),
                scripts::OUTDATED | scripts::OVER => restored.outdated.push(user),
                _ => restored
                    .replaced
                    .extend(self::sessions(lost).map(|lost| (user, lost))),
            }
        }
        Ok(restored)
    }

    fn end_lease(&self, proxy: ProxyId) -> Result<(), BusError> {
        self.ask::<Value>(command("DEL", &[self.keys.lease(proxy)]))?;
        self.leases.lock().remove(&proxy);
        Ok(())
    }

    fn publish(&self, messages: &[(ProxyId, Bytes)]) -> Result<(), BusError> {
        check_sizes(messages)?;
        let commands: Vec<Cmd> = messages
            .iter()
            .map(|(proxy, message)| {
                let mut publish = command("PUBLISH", &[self.keys.channel(*proxy)]);
                publish.arg(message.as_ref());
                publish
            })
            .collect();
        self.ask_all::<Value>(&commands).map(drop)
    }

    fn subscribe(&self, proxy: ProxyId, on_event: OnEvent) -> Subscription {
        let channel = self.keys.channel(proxy);
        let subscriber = Subscriber {
            pool: Arc::clone(&self.pool),
            beat_channel: format!("{channel}:{:016x}", rand::random::<u64>()),
            channel,
            beat_interval: self.ping_interval,
            on_event,
        };
        Subscription::spawn(move |stop| subscriber.run(&stop))
    }

    fn spend(&self, budgets: &[Budget]) -> Result<Spending, BusError> {
        let mut spend = script(scripts::SPEND, &self.keys.budgets(budgets));
        for budget in budgets {
            spend.arg(step_ms(budget)).arg(as_ms(budget.rate.period()));
        }
        let (place, wait_ms): (usize, u64) = self.ask(spend)?;
        Ok(match place.checked_sub(1) {
            None => Spending::Granted,
            Some(index) => Spending::UsedUp {
                index,
                wait: Duration::from_millis(wait_ms),
            },
        })
    }

    fn refund(&self, budgets: &[Budget]) -> Result<(), BusError> {
        let mut refund = script(scripts::REFUND, &self.keys.budgets(budgets));
        for budget in budgets {
            refund.arg(step_ms(budget));
        }
        self.ask::<Value>(refund).map(drop)
    }

    fn remember(&self, fact: &str, life: Duration) -> Result<(), BusError> {
        let mut remember = command("SET", &[self.keys.fact(fact)]);
        remember.arg("").arg("PX").arg(as_ms(fact_life(life)));
        self.ask::<Value>(remember).map(drop)
    }

    fn remembers(&self, fact: &str) -> Result<bool, BusError> {
        self.ask(command("EXISTS", &[self.keys.fact(fact)]))
    }
}

/// The names of keys and channels.
struct Keys {
    prefix: Arc<str>,
}

impl Keys {
    fn user(&self, user: i32) -> String {
        format!("{}user:{user}", self.prefix)
    }

    /// What the scripts that give users to sessions want.
    fn of_user(&self, user: i32) -> [String; 4] {
        let prefix = &self.prefix;
        [
            self.user(user),
            format!("{prefix}login:{user}"),
            format!("{prefix}lost:{user}"),
            format!("{prefix}asked:{user}"),
        ]
    }

    fn lease_prefix(&self) -> String {
        format!("{}proxy:", self.prefix)
    }

    fn lease(&self, proxy: ProxyId) -> String {
        format!("{}proxy:{proxy}", self.prefix)
    }

    /// As the scripts spell it.
    fn users_of(&self, proxy: ProxyId) -> String {
        format!("{}:users", self.lease(proxy))
    }

    fn channel(&self, proxy: ProxyId) -> String {
        format!("{}to:{proxy}", self.prefix)
    }

    fn budgets(&self, budgets: &[Budget]) -> Vec<String> {
        let names = budgets.iter().map(|budget| &budget.name);
        names
            .map(|name| format!("{}budget:{name}", self.prefix))
            .collect()
    }

    fn fact(&self, fact: &str) -> String {
        format!("{}fact:{fact}", self.prefix)
    }

    /// Everything that the bus asks of Redis, on keys that mean nothing.
    fn probe(&self) -> Vec<Cmd> {
        let check = |what| format!("{}check:{what}", self.prefix);
        let [text, list, set] = ["text", "list", "set"].map(check);
        let mut scan = command("SSCAN", std::slice::from_ref(&set));
        scan.arg(0);
        let mut publish = command("PUBLISH", &[format!("{}to:check", self.prefix)]);
        publish.arg("");
        let every = script(scripts::PROBE, &[text.clone(), list, set]);
        vec![
            every,
            scan,
            command("MGET", std::slice::from_ref(&text)),
            command("EXISTS", std::slice::from_ref(&text)),
            command("DEL", &[text]),
            publish,
        ]
    }
}

fn command(name: &str, keys: &[String]) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(keys);
    command
}

/// `EVAL`, not `EVALSHA`: the scripts are a few hundred bytes, and so there is no second way for
/// the time after a restart, when Redis does not know them.
fn script(code: &str, keys: &[String]) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(code).arg(keys.len()).arg(keys);
    command
}

/// Refusals have ended the link; an error that is here is of the request.
fn answer<T: FromRedisValue>(value: Value) -> Result<T, BusError> {
    match value {
        Value::ServerError(error) => Err(BusError::Refused {
            reason: server_error(&error),
        }),
        value => T::from_redis_value(value).map_err(|_| unexpected()),
    }
}

/// What cannot be read is nobody's.
fn sessions(texts: Vec<String>) -> impl Iterator<Item = SessionRef> {
    texts.into_iter().filter_map(|text| text.parse().ok())
}

fn unexpected() -> BusError {
    BusError::Refused {
        reason: "an answer of an unexpected form".to_owned(),
    }
}

fn as_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What one use costs. Redis counts life in milliseconds; a faster rate is kept as 1,000 per second.
fn step_ms(budget: &Budget) -> u64 {
    as_ms(budget.rate.step()).max(1)
}
