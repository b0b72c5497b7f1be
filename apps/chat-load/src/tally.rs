//! Numbers of a run: how many, how fast, and when.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// How many acknowledgements and deliveries there were in each hundredth of a second, so that one can see
/// how long an outage was.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Timeline {
    /// Acknowledgements per slot of [`SLOT`], from the load's epoch on.
    pub acknowledged: Vec<u32>,
    /// Deliveries, likewise. Only messages that the recipient had not seen.
    pub delivered: Vec<u32>,
}

/// One slot of a [`Timeline`].
pub const SLOT: Duration = Duration::from_millis(10);

impl Timeline {
    /// The longest time without an acknowledgement between two moments, counted from the epoch. An
    /// acknowledgement at a moment is not known better than to its slot.
    pub fn longest_silence(&self, from: Duration, to: Duration) -> Duration {
        let (mut longest, mut silent) = (0, 0);
        for slot in slot(from)..slot(to) {
            let count = self.acknowledged.get(slot).copied().unwrap_or(0);
            silent = if count == 0 { silent + 1 } else { 0 };
            longest = longest.max(silent);
        }
        SLOT * longest
    }

    /// When, counted from the epoch, the first acknowledgement at or after a moment was.
    pub fn first_acknowledged(&self, from: Duration) -> Option<Duration> {
        let from = slot(from);
        let later = self.acknowledged.iter().skip(from);
        let index = later.enumerate().find(|&(_, &count)| count > 0)?.0;
        Some(SLOT * (from + index) as u32)
    }
}

fn slot(at: Duration) -> usize {
    (at.as_millis() / SLOT.as_millis()) as usize
}

fn count(slots: &mut Vec<u32>, at_us: u64) {
    let slot = slot(Duration::from_micros(at_us));
    if slots.len() <= slot {
        slots.resize(slot + 1, 0);
    }
    slots[slot] += 1;
}

/// Latencies, as values in microseconds with how often each occurred.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Latencies(Vec<(u64, u64)>);

impl Latencies {
    /// Adds those of another load.
    pub fn merge(&mut self, other: Self) {
        self.0.extend(other.0);
        self.0.sort_unstable();
    }

    /// The latency that this share (0.0 to 1.0) of all does not exceed; 0 for none.
    pub fn quantile(&self, share: f64) -> Duration {
        let total: u64 = self.0.iter().map(|(_, count)| count).sum();
        let rank = (total as f64 * share).ceil().max(1.0) as u64;
        let mut before = 0;
        let at_rank = self.0.iter().find(|(_, count)| {
            before += count;
            before >= rank
        });
        Duration::from_micros(at_rank.map_or(0, |(value, _)| *value))
    }
}

impl From<&Histogram<u64>> for Latencies {
    fn from(histogram: &Histogram<u64>) -> Self {
        let recorded = histogram.iter_recorded();
        Self(
            recorded
                .map(|one| (one.value_iterated_to(), one.count_since_last_iteration()))
                .collect(),
        )
    }
}

/// What is counted while a load runs.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Only what was due in here is measured; microseconds since the epoch.
    pub(crate) measured_us: std::ops::Range<u64>,
    pub(crate) acknowledged: u64,
    pub(crate) delivered: u64,
    pub(crate) acknowledged_measured: u64,
    pub(crate) delivered_measured: u64,
    pub(crate) ack_us: Histogram<u64>,
    pub(crate) receive_us: Histogram<u64>,
    pub(crate) timeline: Timeline,
    pub(crate) sent_again: u64,
    pub(crate) fetched: u64,
    pub(crate) reconnects: u64,
    pub(crate) sessions_ended: u64,
    pub(crate) refused: u64,
    pub(crate) shed: u64,
}

impl Tally {
    pub(crate) fn new() -> Self {
        // Three digits, up to ten minutes.
        let histogram = || Histogram::new_with_max(600_000_000, 3).expect("valid bounds");
        Self {
            measured_us: u64::MAX..u64::MAX,
            acknowledged: 0,
            delivered: 0,
            acknowledged_measured: 0,
            delivered_measured: 0,
            ack_us: histogram(),
            receive_us: histogram(),
            timeline: Timeline::default(),
            sent_again: 0,
            fetched: 0,
            reconnects: 0,
            sessions_ended: 0,
            refused: 0,
            shed: 0,
        }
    }

    /// A message that was due then has been acknowledged now.
    pub(crate) fn acknowledged(&mut self, due_us: u64, now_us: u64) {
        self.acknowledged += 1;
        count(&mut self.timeline.acknowledged, now_us);
        if self.measured_us.contains(&now_us) {
            self.acknowledged_measured += 1;
        }
        if self.measured_us.contains(&due_us) {
            self.ack_us.saturating_record(now_us.saturating_sub(due_us));
        }
    }

    /// A message that was due then has reached one recipient now.
    pub(crate) fn delivered(&mut self, due_us: u64, now_us: u64) {
        self.delivered += 1;
        count(&mut self.timeline.delivered, now_us);
        if self.measured_us.contains(&now_us) {
            self.delivered_measured += 1;
        }
        if self.measured_us.contains(&due_us) {
            self.receive_us
                .saturating_record(now_us.saturating_sub(due_us));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn a_silence_is_as_long_as_its_empty_slots() {
        let mut tally = Tally::new();
        for at_ms in [0, 5, 12, 95, 100] {
            tally.acknowledged(0, at_ms * 1000);
        }
        let timeline = &tally.timeline;
        assert_eq!(timeline.longest_silence(MS(0), MS(110)), MS(70));
        assert_eq!(timeline.longest_silence(MS(0), MS(20)), MS(0));
        assert_eq!(timeline.longest_silence(MS(100), MS(400)), MS(290));
        assert_eq!(timeline.first_acknowledged(MS(20)), Some(MS(90)));
        assert_eq!(timeline.first_acknowledged(MS(110)), None);
    }

    #[test]
    fn only_what_was_due_in_the_measured_time_is_in_the_latencies() {
        let mut tally = Tally::new();
        tally.measured_us = 1000..2000;
        for due_us in [999, 1000, 1999, 2000] {
            tally.delivered(due_us, due_us + 100);
        }
        assert_eq!(tally.delivered, 4);
        assert_eq!(tally.receive_us.len(), 2);
    }

    #[test]
    fn quantiles_of_merged_latencies_are_those_of_all() {
        let mut latencies = Latencies(vec![(1, 50), (100, 1)]);
        latencies.merge(Latencies(vec![(2, 49)]));
        assert_eq!(latencies.quantile(0.5), Duration::from_micros(1));
        assert_eq!(latencies.quantile(0.99), Duration::from_micros(2));
        assert_eq!(latencies.quantile(1.0), Duration::from_micros(100));
        assert_eq!(Latencies::default().quantile(0.5), Duration::ZERO);
    }
}
