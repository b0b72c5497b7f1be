//! What came of the calls, gathered from the threads that make them.

use std::time::Duration;

use hdrhistogram::Histogram;
use nexus_benches::BoxError;
use nexus_benches::rpc::Slow;
use parking_lot::Mutex;

/// A call that took longer counts as this long.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// Counts and latencies. Each thread that makes calls has a part of its own, whose lock is free but
/// for the moments in which a measurement begins and ends.
pub(crate) struct Recorder {
    shards: Vec<Mutex<Stats>>,
}

/// What was recorded between two looks.
pub(crate) struct Stats {
    /// Of the calls that were not meant to be slow.
    pub(crate) latency_ns: Histogram<u64>,
    /// Calls that were meant to be slow.
    pub(crate) slow: u64,
    pub(crate) errors: u64,
}

impl Stats {
    fn new() -> Result<Self, BoxError> {
        Ok(Self {
            latency_ns: Histogram::new_with_max(LATENCY_NS_MAX, 3)?,
            slow: 0,
            errors: 0,
        })
    }

    pub(crate) fn calls(&self) -> u64 {
        self.latency_ns.len() + self.slow
    }

    pub(crate) fn quantile_us(&self, quantile: f64) -> f64 {
        self.latency_ns.value_at_quantile(quantile) as f64 / 1000.0
    }
}

impl Recorder {
    pub(crate) fn new(threads: usize) -> Result<Self, BoxError> {
        let shards: Result<_, BoxError> = (0..threads)
            .map(|_| Ok(Mutex::new(Stats::new()?)))
            .collect();
        Ok(Self { shards: shards? })
    }

    /// Records `count` answers that came after `latency`. `shard` is any number; who uses the same
    /// number from one thread only waits for nobody.
    pub(crate) fn answered(&self, shard: usize, latency: Duration, count: u64, slow: Slow) {
        let mut stats = self.shards[shard % self.shards.len()].lock();
        match slow {
            Slow::Yes => stats.slow += count,
            Slow::No => {
                let latency_ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
                let latency_ns = latency_ns.min(LATENCY_NS_MAX);
                stats.latency_ns.saturating_record_n(latency_ns, count);
            }
        }
    }

    pub(crate) fn failed(&self, shard: usize) {
        self.shards[shard % self.shards.len()].lock().errors += 1;
    }

    /// Returns what was recorded so far and begins anew.
    pub(crate) fn take(&self) -> Result<Stats, BoxError> {
        let mut all = Stats::new()?;
        for shard in &self.shards {
            let one = std::mem::replace(&mut *shard.lock(), Stats::new()?);
            all.latency_ns.add(&one.latency_ns)?;
            all.slow += one.slow;
            all.errors += one.errors;
        }
        Ok(all)
    }
}
