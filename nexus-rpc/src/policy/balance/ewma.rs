//! What a call to a member takes: an average of the recent latencies that believes a peak at once and
//! forgets it slowly.
//!
//! ```text
//!   0                     32                    64 bits of one atomic
//!   ├─ latency, f32 in ns ─┼─ when, in 2^20 ns ─┤
//! ```
//!
//! The weight of an observation is the time since the last, not its number. So of the
//! observations within one tick of 1 ms only a peak changes anything, and threads that answer thousands of
//! calls in a millisecond hardly ever write.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// 2^20 ns are about 1 ms.
const TICK_BITS: u32 = 20;

/// How late a thread may be: about a minute.
const LATE_TICKS_MAX: u32 = 1 << 16;

/// A peak-sensitive moving average. From any thread, without a lock.
///
/// An error that comes faster than an answer would must not be observed as it is: it would make the
/// member look fast.
#[derive(Debug)]
pub(crate) struct PeakEwma {
    origin: Instant,
    decay_ticks: f32,
    packed: AtomicU64,
}

impl PeakEwma {
    /// After `decay` an old latency counts for a third (1/e) of what it did. 10 s is a usual choice.
    pub(crate) fn new(decay: Duration, now: Instant) -> Self {
        let tick = Duration::from_nanos(1 << TICK_BITS);
        Self {
            origin: now,
            decay_ticks: decay.div_duration_f32(tick).max(1.0),
            packed: AtomicU64::new(0),
        }
    }

    /// A call took `latency`.
    pub(crate) fn observe(&self, latency: Duration, now: Instant) {
        let tick = self.tick(now);
        let seen_ns = latency.as_nanos() as f32;
        let _ = self
            .packed
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |packed| {
                let (average_ns, at) = unpack(packed);
                match elapsed(at, tick) {
                    // Also a peak that is reported late keeps the time of the last observation.
                    0 => (seen_ns > average_ns).then(|| pack(seen_ns, at)),
                    _ if seen_ns > average_ns => Some(pack(seen_ns, tick)),
                    ticks => {
                        let kept = self.kept(ticks);
                        Some(pack(average_ns * kept + seen_ns * (1.0 - kept), tick))
                    }
                }
            });
    }

    /// The latency to expect, in ns; 0 while nothing was observed. It falls while nothing is, so that
    /// a member that was avoided is tried again.
    pub(crate) fn value_ns(&self, now: Instant) -> u64 {
        let (average_ns, at) = unpack(self.packed.load(Ordering::Relaxed));
        match elapsed(at, self.tick(now)) {
            // Spares the exponential where calls are frequent.
            0 => average_ns as u64,
            ticks => (average_ns * self.kept(ticks)) as u64,
        }
    }

    /// What is left of an average after so many ticks.
    fn kept(&self, ticks: u32) -> f32 {
        (-(ticks as f32) / self.decay_ticks).exp()
    }

    fn tick(&self, now: Instant) -> u32 {
        (now.saturating_duration_since(self.origin).as_nanos() >> TICK_BITS) as u32
    }
}

/// Ticks from `at` to `now`; 0 if a thread is late with its `now`. The count wraps around after 52
/// days, so what looks later by most of that is taken for up to a minute earlier.
fn elapsed(at: u32, now: u32) -> u32 {
    let ticks = now.wrapping_sub(at);
    if ticks > u32::MAX - LATE_TICKS_MAX {
        0
    } else {
        ticks
    }
}

fn pack(average_ns: f32, tick: u32) -> u64 {
    u64::from(average_ns.to_bits()) << 32 | u64::from(tick)
}

fn unpack(packed: u64) -> (f32, u32) {
    (f32::from_bits((packed >> 32) as u32), packed as u32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const DECAY: Duration = Duration::from_secs(10);

    fn close(ns: u64, expected: Duration) -> bool {
        Duration::from_nanos(ns).abs_diff(expected) <= expected / 50
    }

    #[test]
    fn nothing_observed_is_zero() {
        let now = Instant::now();
        assert_eq!(PeakEwma::new(DECAY, now).value_ns(now + DECAY), 0);
    }

    #[test]
    fn a_peak_counts_at_once_and_fades_slowly() {
        let start = Instant::now();
        let latency = PeakEwma::new(DECAY, start);
        latency.observe(MS, start);
        latency.observe(100 * MS, start);
        assert!(close(latency.value_ns(start), 100 * MS));
        // Within the same tick nothing but a peak counts.
        latency.observe(MS, start);
        assert!(close(latency.value_ns(start), 100 * MS));
        let mut now = start;
        while now < start + DECAY {
            now += 5 * MS;
            latency.observe(MS, now);
        }
        // 1/e of the peak, and the rest from the fast calls.
        assert!(close(latency.value_ns(now), Duration::from_micros(37_420)));
    }

    #[test]
    fn it_falls_while_nothing_is_observed() {
        let start = Instant::now();
        let latency = PeakEwma::new(DECAY, start);
        latency.observe(100 * MS, start);
        let later = latency.value_ns(start + DECAY);
        assert!(close(later, Duration::from_micros(36_788)));
        assert!(latency.value_ns(start + 10 * DECAY) < 10_000);
    }

    #[test]
    fn a_late_observer_does_not_erase_what_is_known() {
        let start = Instant::now();
        let latency = PeakEwma::new(DECAY, start);
        latency.observe(100 * MS, start + DECAY);
        latency.observe(MS, start);
        assert!(close(latency.value_ns(start + DECAY), 100 * MS));
        // Nor does the clock's wrapping around.
        let wrapped = start + Duration::from_nanos(1 << TICK_BITS) * u32::MAX;
        latency.observe(100 * MS, wrapped);
        latency.observe(50 * MS, wrapped + 2 * MS);
        assert!(close(latency.value_ns(wrapped + 2 * MS), 100 * MS));
    }

    proptest! {
        #[test]
        fn it_stays_between_the_least_and_the_greatest(
            observed in prop::collection::vec((1..1_000_000_u64, 0..1_000_u64), 1..100),
        ) {
            let mut now = Instant::now();
            let latency = PeakEwma::new(DECAY, now);
            for (us, pause_ms) in &observed {
                now += Duration::from_millis(*pause_ms);
                latency.observe(Duration::from_micros(*us), now);
                let last = *us as f64 * 1e3;
                // A peak is believed at once, and nothing is forgotten within its tick.
                prop_assert!(latency.value_ns(now) as f64 >= last * 0.999);
            }
            let all = observed.iter().map(|(us, _)| *us as f64 * 1e3);
            let greatest = all.fold(0.0, f64::max);
            prop_assert!(latency.value_ns(now) as f64 <= greatest * 1.001);
        }

        #[test]
        fn no_latency_and_no_decay_panics(latency: Duration, decay: Duration) {
            let now = Instant::now();
            let average = PeakEwma::new(decay, now);
            average.observe(latency, now);
            average.observe(latency, now + DECAY);
            average.value_ns(now + 2 * DECAY);
        }
    }
}
