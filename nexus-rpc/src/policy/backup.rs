//! When a call that has no answer yet is sent a second time, to another provider.
//!
//! After a fixed delay, or when it has taken longer than most of the method's recent calls did. How
//! many of them may be sent is the [`budget`](super::budget)'s affair.
//!
//! The recent calls are a histogram: buckets that widen with the latency, 8 to each doubling, so a
//! percentile is at most an eighth too high. Counts are halved every few seconds, and thus old calls
//! fade. A method that is called at a steady rate is described by about its last 20 s.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// When a backup request is sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum BackupAfter {
    /// This long after the call.
    Delay(Duration),
    /// Once the call has taken longer than this share of the method's recent calls, 0.95 for the
    /// slowest twentieth; never until 100 calls have been seen.
    Percentile {
        /// 0.0 to 1.0.
        share: f64,
        /// Not before: a second call costs more than waiting so long.
        min: Duration,
        /// Not after, however slow the method has become.
        max: Duration,
    },
}

/// Calls that must have been seen before a percentile says anything.
const CALLS_MIN: u32 = 100;

/// The delay is computed again every so many calls.
const CALLS_PER_UPDATE: u32 = 64;

/// Counts are halved this often, and when there are [`CALLS_MAX`] of them.
const HALVED_EVERY: Duration = Duration::from_secs(10);
const CALLS_MAX: u32 = 1 << 30;

/// Buckets to each doubling of the latency.
const STEPS: u32 = 8;
/// Of the unit, which the first bucket is wide: 2^10 ns, a microsecond.
const UNIT_BITS: u32 = 10;
/// The last bucket begins at about a minute.
const DOUBLINGS: u32 = 24;
const BUCKETS: usize = (STEPS * (DOUBLINGS + 1)) as usize;

/// `delay_ns` while nothing is known.
const UNKNOWN: u64 = u64::MAX;

/// Knows when a backup request of a method is due. From any thread, without a lock.
pub(crate) struct BackupTimer {
    after: BackupAfter,
    origin: Instant,
    buckets: [AtomicU32; BUCKETS],
    /// Calls in the buckets, about.
    calls: AtomicU32,
    halved_ns: AtomicU64,
    /// The last computed percentile.
    delay_ns: AtomicU64,
}

impl BackupTimer {
    pub(crate) fn new(after: BackupAfter, now: Instant) -> Self {
        Self {
            after,
            origin: now,
            buckets: [const { AtomicU32::new(0) }; BUCKETS],
            calls: AtomicU32::new(0),
            halved_ns: AtomicU64::new(0),
            delay_ns: AtomicU64::new(UNKNOWN),
        }
    }

    /// How long to wait for the first answer. `None`: no backup request, too little is known.
    pub(crate) fn delay(&self) -> Option<Duration> {
        match self.after {
            BackupAfter::Delay(delay) => Some(delay),
            BackupAfter::Percentile { min, max, .. } => {
                let delay_ns = self.delay_ns.load(Ordering::Relaxed);
                // Not `clamp`, which panics when a caller has set the minimum above the maximum.
                (delay_ns != UNKNOWN).then(|| Duration::from_nanos(delay_ns).max(min).min(max))
            }
        }
    }

    /// A call was answered, or given up, after `latency`. Counts each call once, with the time from
    /// its first sending.
    pub(crate) fn observe(&self, latency: Duration, now: Instant) {
        let BackupAfter::Percentile { share, .. } = self.after else {
            return;
        };
        self.buckets[bucket_of(nanoseconds(latency))].fetch_add(1, Ordering::Relaxed);
        let calls = self.calls.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if calls.is_multiple_of(CALLS_PER_UPDATE) || calls == CALLS_MIN {
            self.fade(calls, now);
            self.update(share);
        }
    }

    /// Halves the counts when it is time. What other threads count meanwhile is kept.
    fn fade(&self, calls: u32, now: Instant) {
        let now_ns = nanoseconds(now.saturating_duration_since(self.origin));
        let halved_ns = self.halved_ns.load(Ordering::Relaxed);
        let periods = now_ns.saturating_sub(halved_ns) / nanoseconds(HALVED_EVERY);
        let halvings = periods.max(u64::from(calls >= CALLS_MAX));
        if halvings == 0 {
            return;
        }
        let won = self.halved_ns.compare_exchange(
            halved_ns,
            now_ns,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        if won.is_err() {
            return;
        }
        let mut kept = 0_u32;
        for bucket in &self.buckets {
            let count = bucket.load(Ordering::Relaxed);
            let left = count
                .checked_shr(u32::try_from(halvings).unwrap_or(u32::MAX))
                .unwrap_or(0);
            bucket.fetch_sub(count - left, Ordering::Relaxed);
            kept = kept.saturating_add(left);
        }
        self.calls.store(kept, Ordering::Relaxed);
    }

    fn update(&self, share: f64) {
        let counts = self.buckets.iter().map(|b| b.load(Ordering::Relaxed));
        let total: u64 = counts.clone().map(u64::from).sum();
        if total < u64::from(CALLS_MIN) {
            // What was known is better than nothing, so it stays.
            return;
        }
        let wanted = (total as f64 * share.clamp(0.0, 1.0)).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in counts.enumerate() {
            seen += u64::from(count);
            if seen >= wanted.max(1) {
                self.delay_ns.store(end_of(bucket), Ordering::Relaxed);
                return;
            }
        }
    }
}

/// The bucket of a latency: the first `STEPS` are one unit wide each, then every doubling has
/// `STEPS` of equal width.
fn bucket_of(latency_ns: u64) -> usize {
    let units = latency_ns >> UNIT_BITS;
    let octave = (units / u64::from(STEPS))
        .checked_ilog2()
        .map_or(0, |o| o + 1);
    // Above the first `STEPS`, this leaves STEPS..2*STEPS.
    let within = units >> octave.saturating_sub(1);
    let index = if octave == 0 {
        within
    } else {
        u64::from(octave * STEPS) + within - u64::from(STEPS)
    };
    usize::try_from(index).map_or(BUCKETS - 1, |index| index.min(BUCKETS - 1))
}

/// The latency that no call of the bucket reached.
fn end_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let (octave, within) = (bucket / u64::from(STEPS), bucket % u64::from(STEPS));
    let units = match octave {
        0 => within + 1,
        _ => (u64::from(STEPS) + within + 1) << (octave - 1),
    };
    units << UNIT_BITS
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn percentile(share: f64) -> BackupAfter {
        BackupAfter::Percentile {
            share,
            min: MS,
            max: Duration::from_secs(1),
        }
    }

    #[test]
    fn a_fixed_delay_needs_no_history() {
        let timer = BackupTimer::new(BackupAfter::Delay(7 * MS), Instant::now());
        assert_eq!(timer.delay(), Some(7 * MS));
    }

    #[test]
    fn a_percentile_says_nothing_until_enough_calls_were_seen() {
        let now = Instant::now();
        let timer = BackupTimer::new(percentile(0.9), now);
        for seen in 0..CALLS_MIN {
            assert_eq!(timer.delay(), None, "after {seen} calls");
            timer.observe(10 * MS, now);
        }
        assert!(timer.delay().is_some());
    }

    #[test]
    fn the_delay_stays_within_its_bounds() {
        let now = Instant::now();
        for (latency, expected) in [(MS / 100, MS), (3_600_000 * MS, Duration::from_secs(1))] {
            let timer = BackupTimer::new(percentile(0.9), now);
            (0..CALLS_MIN).for_each(|_| timer.observe(latency, now));
            assert_eq!(timer.delay(), Some(expected));
        }
    }

    #[test]
    fn bounds_the_wrong_way_round_do_not_panic() {
        let now = Instant::now();
        let after = BackupAfter::Percentile {
            share: f64::NAN,
            min: 9 * MS,
            max: 2 * MS,
        };
        let timer = BackupTimer::new(after, now);
        (0..CALLS_MIN).for_each(|_| timer.observe(MS, now));
        assert_eq!(timer.delay(), Some(2 * MS));
    }

    #[test]
    fn old_calls_fade() {
        let start = Instant::now();
        let timer = BackupTimer::new(percentile(0.5), start);
        (0..10_000).for_each(|_| timer.observe(500 * MS, start));
        assert!(timer.delay().unwrap() >= 500 * MS);
        // A minute later, 640 calls outweigh what is left of the 10,000.
        let later = start + 6 * HALVED_EVERY;
        (0..640).for_each(|_| timer.observe(5 * MS, later));
        assert!(timer.delay().unwrap() < 6 * MS);
    }

    #[test]
    fn a_rest_of_any_length_is_survived() {
        let start = Instant::now();
        let timer = BackupTimer::new(percentile(0.5), start);
        for hours in [0, 1, 1_000, 100_000] {
            let now = start + Duration::from_secs(3600 * hours);
            (0..2 * CALLS_MIN).for_each(|_| timer.observe(20 * MS, now));
            let delay = timer.delay().unwrap();
            assert!(20 * MS <= delay && delay < 23 * MS, "{delay:?}");
        }
    }

    #[test]
    fn threads_lose_no_calls() {
        let start = Instant::now();
        let timer = BackupTimer::new(percentile(0.5), start);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| timer.observe(MS, start)));
            }
        });
        let counted: u32 = timer
            .buckets
            .iter()
            .map(|b| b.load(Ordering::Relaxed))
            .sum();
        assert_eq!(counted, 40_000);
    }

    proptest! {
        #[test]
        fn a_bucket_ends_above_its_latencies_by_an_eighth_at_most(ns in 0..64_000_000_000_u64) {
            let bucket = bucket_of(ns);
            prop_assert!(end_of(bucket) > ns);
            let slack = (ns / u64::from(STEPS)).max(1 << UNIT_BITS);
            prop_assert!(end_of(bucket) <= ns + slack + 1, "{ns}: {}", end_of(bucket));
            if bucket > 0 {
                prop_assert!(end_of(bucket - 1) <= ns);
            }
        }

        #[test]
        fn any_latency_has_a_bucket(ns: u64) {
            prop_assert!(bucket_of(ns) < BUCKETS);
        }

        #[test]
        fn the_delay_exceeds_the_wanted_share_of_calls(
            share in 0.01..1.0_f64,
            latencies_us in prop::collection::vec(1_000..900_000_u64, 512),
        ) {
            let now = Instant::now();
            let timer = BackupTimer::new(percentile(share), now);
            for us in &latencies_us {
                timer.observe(Duration::from_micros(*us), now);
            }
            let delay = timer.delay().unwrap();
            let faster = |limit: Duration| {
                latencies_us.iter().filter(|us| Duration::from_micros(**us) < limit).count()
            };
            prop_assert!(faster(delay + Duration::from_nanos(1)) as f64 >= 512.0 * share - 1.0);
            prop_assert!((faster(delay * 8 / 10) as f64) <= 512.0 * share + 1.0);
        }
    }
}
