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
#[derive(Default)]
pub struct LocalBudgets {
    buckets: Mutex<HashMap<String, Bucket>>,
    facts: Mutex<HashMap<String, Instant>>,
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
            let bucket = buckets.get(&budget.name).copied().unwrap_or_default();
            bucket.wait(budget.rate, now)
        };
        let longest = budgets.iter().map(wait).enumerate().max_by_key(|(_, w)| *w);
        if let Some((index, wait)) = longest.filter(|(_, wait)| !wait.is_zero()) {
            return Spending::UsedUp { index, wait };
        }
        make_room(&mut buckets, |bucket| bucket.debt(now));
        for Budget { name, rate } in budgets {
            // There is one: looked at just now, under the same lock.
            let _ = buckets.entry(name.clone()).or_default().spend(*rate, now);
        }
        Spending::Granted
    }

    /// As [`Bus::refund`](crate::Bus::refund).
    pub fn refund(&self, budgets: &[Budget]) {
        let mut buckets = self.buckets.lock();
        let now = Instant::now();
        for Budget { name, rate } in budgets {
            if let Some(bucket) = buckets.get_mut(name) {
                bucket.refund(*rate, now);
                if bucket.is_full(now) {
                    buckets.remove(name);
                }
            }
        }
    }

    /// As [`Bus::remember`](crate::Bus::remember).
    pub fn remember(&self, fact: &str, life: Duration) {
        let mut facts = self.facts.lock();
        let now = Instant::now();
        make_room(&mut facts, |until| until.saturating_duration_since(now));
        facts.insert(fact.to_owned(), now + fact_life(life));
    }

    /// As [`Bus::remembers`](crate::Bus::remembers).
    pub fn remembers(&self, fact: &str) -> bool {
        let facts = self.facts.lock();
        facts.get(fact).is_some_and(|&until| Instant::now() < until)
    }
}

/// Brings the life of a fact into its range.
pub(crate) fn fact_life(life: Duration) -> Duration {
    life.clamp(
        Duration::from_millis(1),
        Duration::from_secs(366 * 24 * 60 * 60),
    )
}

/// Makes room for more, if the limit is reached: what is over goes, and if that is little, also the
/// half that has the least `left`.
fn make_room<V>(entries: &mut HashMap<String, V>, left: impl Fn(&V) -> Duration) {
    if entries.len() < ENTRIES_MAX {
        return;
    }
    entries.retain(|_, entry| !left(entry).is_zero());
    if entries.len() > ENTRIES_MAX / 2 {
        let mut all: Vec<Duration> = entries.values().map(&left).collect();
        let half = all.len() / 2;
        let (_, &mut median, _) = all.select_nth_unstable(half);
        entries.retain(|_, entry| left(entry) > median);
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
        assert!(budgets.buckets.lock().len() <= ENTRIES_MAX);
        let refused = budgets.spend(&worst);
        assert!(matches!(refused, Spending::UsedUp { .. }), "{refused:?}");
    }

    #[test]
    fn what_is_given_back_in_full_takes_no_room() {
        let budgets = LocalBudgets::new();
        let rate = Rate::literal(2, Duration::from_secs(3600));
        let name = "a".to_owned();
        let budget = [Budget { name, rate }];
        budgets.spend(&budget);
        budgets.refund(&budget);
        assert!(budgets.buckets.lock().is_empty());
    }
}
