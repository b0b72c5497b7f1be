//! What one client may do at this proxy: [`ClientLimits`], and what is counted for them over several
//! connections.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chat_bus::{Bucket, Budget, LocalBudgets, Rate, Spending};
use chat_node::config::{self, Problems};
use chat_proto::client_address::ClientAddress;
use chat_proto::conversation::UserId;
use parking_lot::Mutex;
use serde::Deserialize;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// From here on, paces that have become full again are looked for.
const KEPT_PACES: usize = 4096;

/// What one client may do. The section `[clients]` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientLimits {
    /// Connections from one address; more are told so and closed. Default 1,000.
    pub connections_per_address_max: usize,
    /// Logins, resumes and registrations from one address, whether they succeed or not; those beyond are
    /// answered "rate limited". Default 2,000 per minute.
    pub logins_per_address: Rate,
    /// How long a connection may take to log in, and may stay after it has logged out. Default 2 min.
    #[serde(with = "config::duration")]
    pub login_timeout: Duration,
    /// How long a frame may take from its first byte to its last. Default 30 s.
    #[serde(with = "config::duration")]
    pub frame_timeout: Duration,
    /// Requests of one connection; those beyond are answered "rate limited". Heartbeats and
    /// acknowledgements are none. Default 1,000 per 10 s.
    pub requests_per_connection: Rate,
    /// Messages of one user, to friends and to groups together; those beyond are answered "rate
    /// limited". Default 200 per 10 s.
    pub messages_per_user: Rate,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            connections_per_address_max: 1000,
            logins_per_address: Rate::literal(2000, 60 * SECOND),
            login_timeout: 120 * SECOND,
            frame_timeout: 30 * SECOND,
            requests_per_connection: Rate::literal(1000, 10 * SECOND),
            messages_per_user: Rate::literal(200, 10 * SECOND),
        }
    }
}

impl ClientLimits {
    /// Notes what cannot work.
    pub(crate) fn check(&self, problems: &mut Problems) {
        problems.require(
            "clients.connections_per_address_max",
            self.connections_per_address_max > 0,
            "expected at least 1",
        );
        for (key, duration) in [
            ("clients.login_timeout", self.login_timeout),
            ("clients.frame_timeout", self.frame_timeout),
        ] {
            let range = Duration::from_millis(1)..=DAY;
            problems.require(key, range.contains(&duration), "expected 1ms to 1day");
        }
    }
}

/// How many connections there are from each address, and how many logins were.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    connections: Mutex<HashMap<ClientAddress, usize>>,
    logins: LocalBudgets,
}

/// A connection that is counted, until dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    addresses: Arc<Addresses>,
    address: ClientAddress,
}

impl Addresses {
    /// Counts one more; `None`: there are `most` from that address.
    pub(crate) fn enter(self: &Arc<Self>, address: ClientAddress, most: usize) -> Option<Seat> {
        let mut connections = self.connections.lock();
        let count = connections.entry(address).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Seat {
            addresses: Arc::clone(self),
            address,
        })
    }

    /// Whether one more login, resume or registration can be taken from that address now; if so, it
    /// counts.
    pub(crate) fn takes_login(&self, address: ClientAddress, rate: Rate) -> bool {
        let budget = Budget {
            name: address.to_string(),
            rate,
        };
        self.logins.spend(&[budget]) == Spending::Granted
    }
}

impl Seat {
    pub(crate) fn address(&self) -> ClientAddress {
        self.address
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut connections = self.addresses.connections.lock();
        if let Entry::Occupied(mut count) = connections.entry(self.address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// How much the users who have left lately may send, so that none gets more by coming back.
#[derive(Debug, Default)]
pub(crate) struct Paces {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    buckets: HashMap<UserId, Bucket>,
    /// At how many those that are full again are dropped.
    sweep_at: usize,
}

impl Paces {
    /// What a user may send who logs in.
    pub(crate) fn take(&self, user: UserId) -> Bucket {
        let mut kept = self.kept.lock();
        kept.buckets.remove(&user).unwrap_or_default()
    }

    /// What a user who leaves may send on coming back.
    pub(crate) fn keep(&self, user: UserId, bucket: Bucket, now: Instant) {
        if bucket.is_full(now) {
            return;
        }
        let mut kept = self.kept.lock();
        if kept.buckets.len() >= kept.sweep_at.max(KEPT_PACES) {
            kept.buckets.retain(|_, bucket| !bucket.is_full(now));
            kept.sweep_at = kept.buckets.len() * 2;
        }
        kept.buckets.insert(user, bucket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_seats_and_each_is_given_back() {
        let addresses = Arc::new(Addresses::default());
        let address: ClientAddress = "192.0.2.1".parse().expect("an address");
        let other: ClientAddress = "192.0.2.2".parse().expect("an address");
        let (one, two) = (addresses.enter(address, 2), addresses.enter(address, 2));
        assert!(one.is_some() && two.is_some());
        assert!(addresses.enter(address, 2).is_none());
        assert!(addresses.enter(other, 2).is_some());
        drop(one);
        let three = addresses.enter(address, 2);
        assert!(three.is_some() && addresses.enter(address, 2).is_none());
        drop((two, three));
        assert!(addresses.connections.lock().is_empty());
    }

    #[test]
    fn each_address_has_logins_of_its_own() {
        let addresses = Addresses::default();
        let rate = Rate::literal(2, DAY);
        let logins = |from: &str| {
            let address = from.parse().expect("an address");
            let taken = (0..5).filter(|_| addresses.takes_login(address, rate));
            taken.count()
        };
        assert_eq!(logins("192.0.2.1"), 2);
        assert_eq!(logins("192.0.2.1"), 0);
        assert_eq!(logins("192.0.2.2"), 2);
        assert_eq!(logins("2001:db8::1"), 2);
        assert_eq!(logins("2001:db8::2"), 0);
    }

    #[test]
    fn who_comes_back_may_send_no_more_than_who_stays() {
        let (paces, rate) = (Paces::default(), Rate::literal(2, 10 * SECOND));
        let (user, now) = (UserId::new(1).expect("positive"), Instant::now());
        let mut bucket = paces.take(user);
        assert!(bucket.spend(rate, now).is_ok() && bucket.spend(rate, now).is_ok());
        paces.keep(user, bucket, now);
        assert!(paces.take(user).spend(rate, now).is_err());
    }

    #[test]
    fn those_who_are_full_again_are_forgotten() {
        let (paces, rate) = (Paces::default(), Rate::literal(2, SECOND));
        let start = Instant::now();
        for id in 1..=3 * KEPT_PACES {
            let user = i32::try_from(id).ok().and_then(UserId::new);
            let now = start + SECOND * u32::try_from(id).expect("small");
            let mut bucket = Bucket::default();
            bucket.spend(rate, now).expect("one");
            paces.keep(user.expect("positive"), bucket, now);
        }
        assert!(paces.kept.lock().buckets.len() <= KEPT_PACES);
    }
}
