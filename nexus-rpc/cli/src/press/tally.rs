//! What was answered, how fast, and what failed.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use nexus_rpc::{ErrorCode, RpcError};

/// Latencies are told apart from 1 µs to an hour, to three digits.
const LATENCY_NS_MIN: u64 = 1_000;
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;
const DIGITS: u8 = 3;

/// Calls that are over.
pub(super) struct Tally {
    /// Of the calls that succeeded.
    latency_ns: Histogram<u64>,
    failed: BTreeMap<ErrorCode, Failed>,
}

/// The calls that failed with one code.
pub(super) struct Failed {
    pub(super) count: u64,
    /// The first of them.
    pub(super) example: RpcError,
}

impl Tally {
    pub(super) fn new() -> Self {
        let bounds = Histogram::new_with_bounds(LATENCY_NS_MIN, LATENCY_NS_MAX, DIGITS);
        Self {
            latency_ns: bounds.expect("the bounds above are valid"),
            failed: BTreeMap::new(),
        }
    }

    /// Takes in a call that succeeded.
    pub(super) fn succeeded(&mut self, latency: Duration) {
        let latency_ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.latency_ns.saturating_record(latency_ns);
    }

    /// Takes in a call that failed.
    pub(super) fn failed(&mut self, error: RpcError) {
        let failed = self.failed.entry(error.code());
        let failed = failed.or_insert(Failed {
            count: 0,
            example: error,
        });
        failed.count += 1;
    }

    /// Moves what `other` has to the end of this one; `other` is empty then.
    pub(super) fn absorb(&mut self, other: &mut Self) {
        // It can only fail for values out of bounds, and the bounds are the same.
        let added = self.latency_ns.add(&other.latency_ns);
        debug_assert!(added.is_ok());
        other.latency_ns.reset();
        for (code, new) in std::mem::take(&mut other.failed) {
            match self.failed.get_mut(&code) {
                Some(known) => known.count += new.count,
                None => {
                    self.failed.insert(code, new);
                }
            }
        }
    }

    pub(super) fn successes(&self) -> u64 {
        self.latency_ns.len()
    }

    pub(super) fn failures(&self) -> u64 {
        self.failed.values().map(|failed| failed.count).sum()
    }

    /// The most frequent first.
    pub(super) fn by_code(&self) -> Vec<(ErrorCode, &Failed)> {
        let mut failed: Vec<_> = self
            .failed
            .iter()
            .map(|(code, failed)| (*code, failed))
            .collect();
        failed.sort_by_key(|(_, failed)| std::cmp::Reverse(failed.count));
        failed
    }

    /// The latency that this share of the calls that succeeded was not above; 0 when there were none.
    pub(super) fn quantile(&self, share: f64) -> Duration {
        Duration::from_nanos(self.latency_ns.value_at_quantile(share))
    }

    pub(super) fn max(&self) -> Duration {
        Duration::from_nanos(self.latency_ns.max())
    }

    /// What the most calls failed with, if none succeeded.
    pub(super) fn only_error(&self) -> Option<&RpcError> {
        match self.successes() {
            0 => self.by_code().first().map(|(_, failed)| &failed.example),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: i32, text: &'static str) -> RpcError {
        RpcError::new(ErrorCode::new(code), text)
    }

    #[test]
    fn what_is_absorbed_is_counted_once() {
        let (mut total, mut second) = (Tally::new(), Tally::new());
        for round in 0..3 {
            second.succeeded(Duration::from_millis(1 + round));
            second.failed(error(7, "first"));
            second.failed(error(8, "other"));
            second.failed(error(8, "other"));
            total.absorb(&mut second);
            assert_eq!((second.successes(), second.failures()), (0, 0));
        }
        assert_eq!((total.successes(), total.failures()), (3, 9));
        let codes: Vec<_> = total
            .by_code()
            .iter()
            .map(|(code, failed)| (code.number(), failed.count))
            .collect();
        assert_eq!(codes, [(8, 6), (7, 3)]);
        let max_ms = total.max().as_secs_f64() * 1e3;
        assert!((2.99..3.01).contains(&max_ms), "{max_ms}");
        assert!(total.only_error().is_none());
    }

    #[test]
    fn latencies_out_of_bounds_are_counted() {
        let mut tally = Tally::new();
        tally.succeeded(Duration::ZERO);
        tally.succeeded(Duration::from_secs(1_000_000));
        assert_eq!(tally.successes(), 2);
    }
}
