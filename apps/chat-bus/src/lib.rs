//! Presence and the messages between proxies, on Redis or in process.
//!
//! Three things pass through the bus:
//!
//! - **presence**: which user is logged in, in which session of which proxy. An entry counts only
//!   while its proxy holds a lease, so the users of a proxy that died are offline as soon as its
//!   lease has run out;
//! - **messages**: bytes for one proxy, sent by a chat server or another proxy;
//! - **budgets**: what a client may do only so often, counted for all nodes together, and facts about
//!   clients that are remembered for a while.
//!
//! The bus is a fast path and never the only copy of anything: a message may be lost (Redis
//! restarted, a subscriber was away) or arrive twice (a publish was retried), and all presence may
//! vanish at any time. The proxies bring presence back with [`Bus::restore`]; what a user has yet
//! to receive stands in the store; budgets begin anew.
//!
//! | file | holds |
//! |---|---|
//! | `lib.rs` | the [`Bus`] trait and its errors |
//! | `presence.rs` | the ids and answers of presence |
//! | `rate.rs`, `budgets.rs` | rates, and budgets of this process |
//! | `subscription.rs` | what a subscriber is told, and the handle that ends it |
//! | `local.rs` | [`LocalBus`]: everything in this process, for the standalone chat and tests |
//! | `redis_bus/` | [`RedisBus`]: Redis, shared by all programs of a cluster |
//!
//! Both implementations pass the suite in `tests/bus/suite.rs`.

use std::time::Duration;

use bytes::Bytes;

mod budgets;
mod local;
mod presence;
mod rate;
mod redis_bus;
mod subscription;

pub use budgets::{Budget, LocalBudgets, Spending};
pub use local::LocalBus;
pub use presence::{
    Attempt, Claim, ClaimOrder, HeldSession, Lease, LoginNumber, LoginPolicy, NO_NUMBER, ProxyId,
    Restored, SessionRef, over_fact,
};
pub use rate::{BadRate, Bucket, Rate};
pub use redis_bus::{RedisBus, RedisConfig, RedisTls};
pub use subscription::{BusEvent, OnEvent, Subscription};

/// How long sessions that lost their user are named, at least: longer than until their own proxies restore
/// theirs. And how many of a user at most, the last ones.
const LOST_LIFE: Duration = Duration::from_secs(5 * 60);
const LOST_MAX: usize = 8;
/// How long a released session is remembered: longer than a claim can be under way, at a server that stood still or
/// on a connection that was silent.
const OVER_LIFE: Duration = Duration::from_secs(10 * 60);

/// The largest message that can be published, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// Presence of users, and messages to proxies.
///
/// Every method may be called from any thread and may block for a round trip to the backend, never
/// longer than the implementation's timeout per round trip: not for loop threads.
///
/// How a proxy uses it:
///
/// ```text
/// start    subscribe, renew_lease
/// always   renew_lease every third of the time to live
/// login    claim          logout, connection closed    release
/// renew_lease answered New, the subscription reported Connected again, and every few minutes:
///          retain what it holds; restore all sessions, close those reported as outdated, and as taken for longer
///          than a lease, and tell those reported as replaced
/// a login that could not be claimed because the bus was away:
///          restore its session
/// stop     end_lease
/// ```
pub trait Bus: Send + Sync + 'static {
    /// Makes `session` the session of `user`, atomically. `order` says of which login it is, and when it was asked for.
    ///
    /// If another live session has the user, `policy` decides who stays; an entry whose proxy has no lease counts as
    /// absent. Where the policy keeps nobody, a login that is older than the latest one seen is [`Claim::Outdated`];
    /// that one is remembered for as long as an entry lives without being restored. Of two sessions of the same login,
    /// the one that the client has asked for later has the user: by the client's own count, else by how long the claims
    /// have waited, else by which claim comes later. Claiming again for the same session is granted, replaces nobody, and
    /// names once more who was replaced. A session that was released, or has lost the user to one that is not older, is
    /// [`Claim::Over`], so that a claim that runs late brings nobody back. The entry counts as online once the
    /// session's own proxy holds a lease.
    ///
    /// # Errors
    /// Any [`BusError`]. After one, the claim may or may not have been carried out, or may be carried out yet.
    fn claim(
        &self,
        user: i32,
        session: SessionRef,
        order: ClaimOrder,
        policy: LoginPolicy,
    ) -> Result<Claim, BusError>;

    /// Whether `user` was claimed for what a client has asked for within the last `waited`: then what has waited for so
    /// long was overtaken.
    ///
    /// # Errors
    /// Any [`BusError`].
    fn claimed_since(&self, user: i32, waited: Duration) -> Result<bool, BusError>;

    /// Makes `user` offline if it still is in `session`; says whether it was.
    ///
    /// # Errors
    /// Any [`BusError`]. After one, the entry may still be there.
    fn release(&self, user: i32, session: SessionRef) -> Result<bool, BusError>;

    /// Where each of `users` is; `None` for one who is offline or whose proxy has no lease.
    ///
    /// The answers stand in the order of the question. Costs at most two round trips for up to
    /// 10,000 users, and two more for each further ten thousands.
    ///
    /// # Errors
    /// Any [`BusError`].
    fn locate(&self, users: &[i32]) -> Result<Vec<Option<SessionRef>>, BusError>;

    /// Holds the lease of `proxy` for `time_to_live` from now (a millisecond to a day; what is
    /// outside of that is taken as the nearer end).
    ///
    /// [`Lease::New`] means that there was none as it was left: this is the first time, it had expired, or the backend
    /// lost its data or went back to an older state of it. The proxy must then [`retain`](Bus::retain) and
    /// [`restore`](Bus::restore) its sessions.
    ///
    /// # Errors
    /// Any [`BusError`]. After one, the lease may or may not have been prolonged.
    fn renew_lease(&self, proxy: ProxyId, time_to_live: Duration) -> Result<Lease, BusError>;

    /// Removes the entries of `proxy` that `is_held` (user, session) denies, as [`release`](Bus::release) does; returns
    /// how many. Entries outlive their session when the backend goes back to an older state.
    ///
    /// `is_held` is asked about each entry on the calling thread, and must not call the bus. Costs some round trips per
    /// 500 entries; the backend serves others between them.
    ///
    /// # Errors
    /// Any [`BusError`]. After one, some may have been removed; calling again is safe.
    fn retain(&self, proxy: ProxyId, is_held: &dyn Fn(i32, u64) -> bool)
    -> Result<usize, BusError>;

    /// Puts the sessions of `proxy` back where they are missing or another live session of an older login is, and
    /// prolongs the life of those that are there.
    ///
    /// Where another live session is not known to be of an older login, or the user has logged in later, nothing is
    /// replaced, and the caller should close its own, if that lasts for the life of a lease: until then the other one may be of an
    /// older state that the backend went back to. Who was replaced should be told; it is named again when the same is
    /// restored again.
    ///
    /// # Errors
    /// Any [`BusError`]. After one, some sessions may have been restored; calling again is safe.
    fn restore(&self, proxy: ProxyId, sessions: &[HeldSession]) -> Result<Restored, BusError>;

    /// Gives the lease of `proxy` up: its users are offline at once.
    ///
    /// # Errors
    /// Any [`BusError`]. After one, the lease ends when its time is over.
    fn end_lease(&self, proxy: ProxyId) -> Result<(), BusError>;

    /// Sends each message to the subscribers of its proxy.
    ///
    /// Messages of one call, and of calls that follow each other, reach a proxy in that order. A
    /// message to a proxy without a subscriber is dropped. Delivery is not confirmed: a message may
    /// be lost, and, when a broken connection made this call start over, arrive twice.
    ///
    /// # Errors
    /// [`BusError::TooLarge`] before anything is sent, if a message exceeds
    /// [`MESSAGE_BYTES_MAX`]; else any other [`BusError`], after which some messages may have been
    /// sent.
    fn publish(&self, messages: &[(ProxyId, Bytes)]) -> Result<(), BusError>;

    /// Calls `on_event` with what is published to `proxy`, and with the state of the subscription,
    /// until the returned handle is dropped.
    ///
    /// `on_event` runs on the subscription's own thread. While it blocks, messages queue up in the
    /// backend, whose limit, once reached, costs the queued ones (reported as `Lost`, `Connected`).
    ///
    /// # Panics
    /// If the system cannot start a thread.
    fn subscribe(&self, proxy: ProxyId, on_event: OnEvent) -> Subscription;

    /// Takes one from each of `budgets`, or from none if one of them is used up. Atomic.
    ///
    /// # Errors
    /// Any [`BusError`]. After one, they may or may not have been charged, at worst twice.
    fn spend(&self, budgets: &[Budget]) -> Result<Spending, BusError>;

    /// Gives one back to each of `budgets`: what it was spent for does not count after all.
    ///
    /// # Errors
    /// Any [`BusError`]. After one, it may or may not have been given back.
    fn refund(&self, budgets: &[Budget]) -> Result<(), BusError>;

    /// Remembers `fact` for `life` from now (a millisecond to a year; what is outside of that is taken
    /// as the nearer end), unless the backend loses its data.
    ///
    /// # Errors
    /// Any [`BusError`]. After one, the fact may or may not be remembered.
    fn remember(&self, fact: &str, life: Duration) -> Result<(), BusError>;

    /// Whether `fact` was remembered, and is still.
    ///
    /// # Errors
    /// Any [`BusError`].
    fn remembers(&self, fact: &str) -> Result<bool, BusError>;
}

/// Why the bus did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// The backend is not reachable, did not answer in time, or failed a moment ago and is not
    /// asked again yet. Worth trying again later.
    #[error("the bus is not available: {reason}")]
    Unavailable {
        /// What happened.
        reason: String,
    },
    /// The backend answered with an error.
    #[error("the bus refused: {reason}")]
    Refused {
        /// The backend's words, without arguments.
        reason: String,
    },
    /// A message is larger than [`MESSAGE_BYTES_MAX`].
    #[error("a message of {bytes} bytes is more than the bus carries ({MESSAGE_BYTES_MAX} bytes)")]
    TooLarge {
        /// The size of the message.
        bytes: usize,
    },
    /// The configuration cannot work.
    #[error("{key}: {reason}")]
    Config {
        /// The field of [`RedisConfig`] that is wrong.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

/// Brings the time to live of a lease into its range.
fn lease_time(time_to_live: Duration) -> Duration {
    time_to_live.clamp(Duration::from_millis(1), Duration::from_secs(24 * 60 * 60))
}

/// Refuses messages beyond the limit; shared by the implementations.
fn check_sizes(messages: &[(ProxyId, Bytes)]) -> Result<(), BusError> {
    match messages
        .iter()
        .find(|(_, message)| message.len() > MESSAGE_BYTES_MAX)
    {
        Some((_, message)) => Err(BusError::TooLarge {
            bytes: message.len(),
        }),
        None => Ok(()),
    }
}
