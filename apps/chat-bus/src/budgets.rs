//! Budgets: what may be done only so often, counted for all nodes or for one.
//!
//! [`LocalBudgets`] counts in this process: for [`LocalBus`](crate::LocalBus), and for a node whose
//! bus is away.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::{Bucket, Rate};

/// Most budgets and most facts that are kept in a process, about 10 MiB of each. Beyond it those are
/// forgotten first that are nearest to being forgotten anyway, so whoever is at a limit stays there.
const ENTRIES_MAX: usize = 100_000;
/// From here on those that are over are looked for.
const ENTRIES_KEPT: usize = 4096;

/// Something that may be done only so often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// Says whose and of what; the same name always with the same rate.
    pub name: String,
    /// How often.
    pub rate: Rate,
}

/// What became of a wish to spend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spending {
    /// One was taken from each budget.
    Granted,
    /// Nothing was taken.
    UsedUp {
        /// The place of the budget that will be the last to have one again.
        index: usize,
        /// How long that takes.
        wait: Duration,
    },
}

/// Budgets and facts of this process. As they are on a [`Bus`](crate::Bus), except that nothing here
/// can fail.
#[derive(Debug, Default)]
pub struct LocalBudgets {
    buckets: Mutex<Entries<Bucket>>,
    facts: Mutex<Entries<Instant>>,
}

/// What is forgotten when it is over.
#[derive(Debug)]
struct Entries<V> {
    by_name: HashMap<String, V>,
    /// At how many those that are over are looked for.
    sweep_at: usize,
}

impl LocalBudgets {
    /// Nothing spent, nothing remembered.
    pub fn new() -> Self {
        Self::default()
    }

    /// As [`Bus::spend`](crate::Bus::spend).
    pub fn spend(&self, budgets: &[Budget]) -> Spending {
        let mut buckets = self.buckets.lock();
        let now = Instant::now();
        let wait = |budget: &Budget| {
            let bucket = buckets.by_name.get(&budget.name);
            let bucket = bucket.copied().unwrap_or_default();
            bucket.wait(budget.rate, now)
        };
        let longest = budgets.iter().map(wait).enumerate().max_by_key(|(_, w)| *w);
        if let Some((index, wait)) = longest.filter(|(_, wait)| !wait.is_zero()) {
            return Spending::UsedUp { index, wait };
        }
        buckets.make_room(|bucket| bucket.debt(now));
        for Budget { name, rate } in budgets {
            // There is one: looked at just now, under the same lock.
            let bucket = buckets.by_name.entry(name.clone()).or_default();
            let _ = bucket.spend(*rate, now);
        }
        Spending::Granted
    }

    /// As [`Bus::refund`](crate::Bus::refund).
    pub fn refund(&self, budgets: &[Budget]) {
        let mut buckets = self.buckets.lock();
        let now = Instant::now();
        for Budget { name, rate } in budgets {
            if let Some(bucket) = buckets.by_name.get_mut(name) {
                bucket.refund(*rate, now);
                if bucket.is_full(now) {
                    buckets.by_name.remove(name);
                }
            }
        }
    }

    /// As [`Bus::remember`](crate::Bus::remember).
    pub fn remember(&self, fact: &str, life: Duration) {
        let mut facts = self.facts.lock();
        let now = Instant::now();
        facts.make_room(|until| until.saturating_duration_since(now));
        facts.by_name.insert(fact.to_owned(), now + fact_life(life));
    }

    /// As [`Bus::remembers`](crate::Bus::remembers).
    pub fn remembers(&self, fact: &str) -> bool {
        let facts = self.facts.lock();
        let until = facts.by_name.get(fact);
        until.is_some_and(|&until| Instant::now() < until)
    }
}

/// Brings the life of a fact into its range.
pub(crate) fn fact_life(life: Duration) -> Duration {
    life.clamp(
        Duration::from_millis(1),
        Duration::from_secs(366 * 24 * 60 * 60),
    )
}

impl<V> Entries<V> {
    /// Makes room for more when there are twice as many as last time: what is over goes, and, if that
    /// is little and the limit is reached, also the half that has the least `left`.
    fn make_room(&mut self, left: impl Fn(&V) -> Duration) {
        let count = self.by_name.len();
        if count < self.sweep_at {
            return;
        }
        self.by_name.retain(|_, entry| !left(entry).is_zero());
        if count >= ENTRIES_MAX && self.by_name.len() > ENTRIES_MAX / 2 {
            let mut all: Vec<Duration> = self.by_name.values().map(&left).collect();
            let half = all.len() / 2;
            let (_, &mut median, _) = all.select_nth_unstable(half);
            self.by_name.retain(|_, entry| left(entry) > median);
        }
        self.sweep_at = (self.by_name.len() * 2).clamp(ENTRIES_KEPT, ENTRIES_MAX);
    }
}

impl<V> Default for Entries<V> {
    fn default() -> Self {
        Self {
            by_name: HashMap::new(),
            sweep_at: ENTRIES_KEPT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_limit_those_nearest_to_full_are_forgotten() {
        let budgets = LocalBudgets::new();
        let rate = Rate::literal(2, Duration::from_secs(3600));
        let budget = |name: String| [Budget { name, rate }];
        let worst = budget("worst".to_owned());
        assert_eq!(budgets.spend(&worst), Spending::Granted);
        assert_eq!(budgets.spend(&worst), Spending::Granted);
        for number in 0..ENTRIES_MAX * 2 {
            budgets.spend(&budget(number.to_string()));
        }
        assert!(budgets.buckets.lock().by_name.len() <= ENTRIES_MAX);
        let refused = budgets.spend(&worst);
        assert!(matches!(refused, Spending::UsedUp { .. }), "{refused:?}");
    }

    #[test]
    fn what_is_over_is_forgotten_long_before_the_limit() {
        let mut entries = Entries::default();
        // A few last.
        let left = |number: usize| Duration::from_secs(u64::from(number.is_multiple_of(100)));
        for number in 0..ENTRIES_KEPT * 10 {
            entries.make_room(|entry| *entry);
            entries.by_name.insert(number.to_string(), left(number));
        }
        assert!(entries.by_name.len() <= ENTRIES_KEPT);
        let lasting = entries.by_name.values().filter(|left| !left.is_zero());
        assert_eq!(lasting.count(), ENTRIES_KEPT.div_ceil(10));
    }

    #[test]
    fn what_is_given_back_in_full_takes_no_room() {
        let budgets = LocalBudgets::new();
        let rate = Rate::literal(2, Duration::from_secs(3600));
        let name = "a".to_owned();
        let budget = [Budget { name, rate }];
        budgets.spend(&budget);
        budgets.refund(&budget);
        assert!(budgets.buckets.lock().by_name.is_empty());
    }
}
