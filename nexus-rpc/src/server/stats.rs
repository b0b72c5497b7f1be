//! What a method has served: counters and a histogram of latencies, written without a lock and read at
//! any time.
//!
//! Buckets are linear within an octave, eight to each, so a latency is known to an eighth: fine enough for
//! percentiles, and small enough that a copy for every few seconds can be kept. Each method has the counters
//! several times, and a thread writes always the same, so that loops seldom share a cache line.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// Copies of a method's counters.
const SHARDS: usize = 4;

/// Buckets of an octave, as a power of two.
const SUB_BITS: u32 = 3;

/// Octaves above the first eight microseconds; latencies beyond the last, of 134 s, count in it.
const OCTAVES: usize = 24;

const BUCKETS: usize = (OCTAVES + 1) << SUB_BITS;

thread_local! {
    static SHARD: Cell<Option<usize>> = const { Cell::new(None) };
}

fn own_shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    SHARD.get().unwrap_or_else(|| {
        let shard = NEXT.fetch_add(1, Relaxed) % SHARDS;
        SHARD.set(Some(shard));
        shard
    })
}

/// How one call ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) failed: bool,
    pub(crate) latency: Duration,
    pub(crate) request_bytes: usize,
    pub(crate) response_bytes: usize,
}

/// What a method has served since it was started.
#[derive(Debug, Default)]
pub(crate) struct MethodStats {
    shards: [Shard; SHARDS],
    refused: AtomicU64,
}

#[derive(Debug)]
#[repr(align(128))]
struct Shard {
    errors: AtomicU64,
    request_bytes: AtomicU64,
    response_bytes: AtomicU64,
    latency_us: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

impl Default for Shard {
    fn default() -> Self {
        Self {
            errors: AtomicU64::default(),
            request_bytes: AtomicU64::default(),
            response_bytes: AtomicU64::default(),
            latency_us: AtomicU64::default(),
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
        }
    }
}

impl MethodStats {
    /// Counts a call that has run.
    pub(crate) fn record(&self, sample: &Sample) {
        let Some(shard) = self.shards.get(own_shard()) else {
            return;
        };
        let micros = micros(sample.latency);
        if let Some(bucket) = shard.buckets.get(bucket_of(micros)) {
            bucket.fetch_add(1, Relaxed);
        }
        shard.latency_us.fetch_add(micros, Relaxed);
        let bytes = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        shard
            .request_bytes
            .fetch_add(bytes(sample.request_bytes), Relaxed);
        shard
            .response_bytes
            .fetch_add(bytes(sample.response_bytes), Relaxed);
        if sample.failed {
            shard.errors.fetch_add(1, Relaxed);
        }
    }

    /// Counts a call that was refused before it ran.
    pub(crate) fn refuse(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// All counters as they are now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut all = Snapshot {
            refused: self.refused.load(Relaxed),
            ..Snapshot::default()
        };
        for shard in &self.shards {
            all.errors += shard.errors.load(Relaxed);
            all.request_bytes += shard.request_bytes.load(Relaxed);
            all.response_bytes += shard.response_bytes.load(Relaxed);
            all.latency_us += shard.latency_us.load(Relaxed);
            for (sum, bucket) in all.buckets.iter_mut().zip(&shard.buckets) {
                *sum += bucket.load(Relaxed);
            }
        }
        all
    }
}

/// A method's counters at one moment, or their growth between two.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    /// Calls that ran and failed.
    pub(crate) errors: u64,
    /// Calls that were refused before they ran.
    pub(crate) refused: u64,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
    /// Of all calls together.
    pub(crate) latency_us: u64,
    buckets: [u64; BUCKETS],
}

impl Default for Snapshot {
    fn default() -> Self {
        Self {
            errors: 0,
            refused: 0,
            request_bytes: 0,
            response_bytes: 0,
            latency_us: 0,
            buckets: [0; BUCKETS],
        }
    }
}

impl Snapshot {
    /// Calls that ran.
    pub(crate) fn calls(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// What has come since `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            errors: self.errors.saturating_sub(before.errors),
            refused: self.refused.saturating_sub(before.refused),
            request_bytes: self.request_bytes.saturating_sub(before.request_bytes),
            response_bytes: self.response_bytes.saturating_sub(before.response_bytes),
            latency_us: self.latency_us.saturating_sub(before.latency_us),
            buckets: std::array::from_fn(|i| {
                let of = |snapshot: &Self| snapshot.buckets.get(i).copied().unwrap_or(0);
                of(self).saturating_sub(of(before))
            }),
        }
    }

    /// The latency that `part` (0 to 1) of the calls did not exceed; `None` without calls.
    pub(crate) fn percentile(&self, part: f64) -> Option<Duration> {
        let calls = self.calls();
        if calls == 0 {
            return None;
        }
        // Exact up to 2^53 calls, which no process lives to see.
        let rank = ((calls as f64 * part).ceil() as u64).clamp(1, calls);
        let mut seen = 0;
        let bucket = self.buckets.iter().position(|&count| {
            seen += count;
            seen >= rank
        })?;
        Some(Duration::from_micros(upper_bound_us(bucket)))
    }

    /// Calls by latency: the bounds of whole octaves, each with the calls that did not exceed it and
    /// exceeded the one before. The last one's has no meaning: longer latencies count there too.
    pub(crate) fn octaves(&self) -> impl Iterator<Item = (Duration, u64)> {
        self.buckets
            .chunks(1 << SUB_BITS)
            .enumerate()
            .map(|(octave, buckets)| {
                let last = (octave << SUB_BITS) + buckets.len() - 1;
                let bound = Duration::from_micros(upper_bound_us(last));
                (bound, buckets.iter().sum())
            })
    }
}

fn micros(latency: Duration) -> u64 {
    u64::try_from(latency.as_micros()).unwrap_or(u64::MAX)
}

fn bucket_of(micros: u64) -> usize {
    let sub_count = 1 << SUB_BITS;
    if micros < sub_count {
        return usize::try_from(micros).unwrap_or(BUCKETS - 1);
    }
    let octave = micros.ilog2() - SUB_BITS;
    let within = (micros >> octave) - sub_count;
    let bucket = (u64::from(octave) + 1) * sub_count + within;
    usize::try_from(bucket)
        .unwrap_or(usize::MAX)
        .min(BUCKETS - 1)
}

/// The largest number of microseconds that counts in this bucket.
fn upper_bound_us(bucket: usize) -> u64 {
    let sub_count = 1 << SUB_BITS;
    let octave = bucket / sub_count;
    let within = (bucket % sub_count) as u64;
    match octave {
        0 => within,
        octave => ((sub_count as u64 + within + 1) << (octave - 1)) - 1,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample(micros: u64) -> Sample {
        Sample {
            failed: micros % 2 == 1,
            latency: Duration::from_micros(micros),
            request_bytes: 10,
            response_bytes: 20,
        }
    }

    proptest! {
        #[test]
        fn a_latency_counts_in_a_bucket_that_is_at_most_an_eighth_too_high(micros in 0u64..60_000_000) {
            let bound = upper_bound_us(bucket_of(micros));
            prop_assert!(bound >= micros, "{} {}", micros, bound);
            prop_assert!(bound - micros <= micros / 8, "{} {}", micros, bound);
        }

        #[test]
        fn percentiles_are_those_of_the_sorted_latencies(
            mut latencies in proptest::collection::vec(0u64..10_000_000, 1..200),
            part in 0.0f64..=1.0,
        ) {
            let stats = MethodStats::default();
            latencies.iter().for_each(|&micros| stats.record(&sample(micros)));
            latencies.sort_unstable();
            let rank = ((latencies.len() as f64 * part).ceil() as usize).max(1);
            let exact = latencies[rank - 1];
            let found = stats.snapshot().percentile(part).expect("calls").as_micros() as u64;
            prop_assert!(found >= exact && found - exact <= exact / 8, "{} {}", found, exact);
        }
    }

    #[test]
    fn longer_latencies_than_the_last_bucket_s_count_in_it() {
        let stats = MethodStats::default();
        stats.record(&Sample {
            latency: Duration::MAX,
            ..sample(0)
        });
        assert_eq!(stats.snapshot().calls(), 1);
        assert!(stats.snapshot().percentile(0.5) > Some(Duration::from_secs(60)));
    }

    #[test]
    fn a_window_holds_what_came_in_it() {
        let stats = MethodStats::default();
        stats.record(&sample(1));
        let before = stats.snapshot();
        assert_eq!(before.percentile(0.5), Some(Duration::from_micros(1)));
        stats.record(&sample(4));
        stats.refuse();
        let window = stats.snapshot().since(&before);
        assert_eq!((window.calls(), window.errors, window.refused), (1, 0, 1));
        assert_eq!((window.request_bytes, window.response_bytes), (10, 20));
        assert_eq!(window.percentile(0.99), Some(Duration::from_micros(4)));
        assert_eq!(window.octaves().map(|(_, calls)| calls).sum::<u64>(), 1);
    }

    #[test]
    fn threads_that_count_at_once_lose_nothing() {
        let stats = MethodStats::default();
        std::thread::scope(|threads| {
            for _ in 0..8 {
                threads.spawn(|| (0..1000).for_each(|micros| stats.record(&sample(micros))));
            }
        });
        let all = stats.snapshot();
        assert_eq!((all.calls(), all.errors), (8000, 4000));
    }
}
