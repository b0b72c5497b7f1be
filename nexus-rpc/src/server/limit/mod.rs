//! How many calls may be in work: the counter that every call passes, and the limit that it must not
//! exceed.
//!
//! Passing costs two atomic operations and no lock. An adaptive limit is moved by whichever call completes
//! a window of measurements; what it decides is in [`adaptive`], which knows no thread and no clock.

mod adaptive;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use self::adaptive::{Adaptive, Window};

/// How many calls may be in work at a time, in a provider or of one of its methods. One more is refused
/// with [`ErrorCode::OVERLOADED`](crate::ErrorCode::OVERLOADED), which callers send to another provider.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub enum ConcurrencyLimit {
    /// As many as come.
    #[default]
    Unlimited,
    /// Always the same.
    Constant(usize),
    /// Found by measuring: as many as are served without waiting for each other, and a few more.
    Adaptive(AdaptiveLimit),
}

/// How a limit is found by measuring.
///
/// A server is full when more calls in work make each slower and no more of them per second. The limit
/// follows the most calls per second times the lowest latency, with headroom that grows while latency
/// stays low. What the lowest latency is may change, so now and then the limit is lowered for a moment
/// to see it; but nothing is lowered while the limit is not reached.
#[derive(Debug, Clone, PartialEq)]
pub struct AdaptiveLimit {
    /// The limit before anything is measured. Default 40.
    pub initial: usize,
    /// Never below. Default 4.
    pub min: usize,
    /// Never above. Default 10,000.
    pub max: usize,
    /// How long latencies are gathered before the limit moves; longer while there are fewer than 50.
    /// Default 100 ms.
    pub window: Duration,
    /// How often the lowest latency is measured anew while the limit is reached. Default 10 s.
    pub probe_interval: Duration,
}

impl Default for AdaptiveLimit {
    fn default() -> Self {
        Self {
            initial: 40,
            min: 4,
            max: 10_000,
            window: Duration::from_millis(100),
            probe_interval: Duration::from_secs(10),
        }
    }
}

/// Counts calls in work and refuses those over the limit.
#[derive(Debug)]
pub(crate) struct Limiter {
    in_flight: AtomicUsize,
    limit: AtomicUsize,
    adapting: Option<Adapting>,
}

/// What is gathered between two moves of an adaptive limit.
#[derive(Debug)]
struct Adapting {
    started: Instant,
    window_ns: u64,
    /// When the present window may end, since `started`.
    window_ends_ns: AtomicU64,
    window_began_ns: AtomicU64,
    calls: AtomicU64,
    latency_ns: AtomicU64,
    in_flight_peak: AtomicUsize,
    adaptive: Mutex<Adaptive>,
}

impl Limiter {
    /// A limiter; never above `at_most`, whatever `limit` says.
    pub(crate) fn new(limit: &ConcurrencyLimit, at_most: usize, now: Instant) -> Self {
        let (limit, adapting) = match limit {
            ConcurrencyLimit::Unlimited => (at_most, None),
            ConcurrencyLimit::Constant(limit) => ((*limit).min(at_most), None),
            ConcurrencyLimit::Adaptive(options) => {
                let adaptive = Adaptive::new(options, at_most);
                let window_ns = nanos(options.window).max(1);
                let adapting = Adapting {
                    started: now,
                    window_ns,
                    window_ends_ns: AtomicU64::new(window_ns),
                    window_began_ns: AtomicU64::new(0),
                    calls: AtomicU64::new(0),
                    latency_ns: AtomicU64::new(0),
                    in_flight_peak: AtomicUsize::new(0),
                    adaptive: Mutex::new(adaptive),
                };
                let limit = adapting.adaptive.lock().limit();
                (limit, Some(adapting))
            }
        };
        Self {
            in_flight: AtomicUsize::new(0),
            limit: AtomicUsize::new(limit),
            adapting,
        }
    }

    /// Counts a call in, unless the limit is reached. Whoever counts in counts out.
    pub(crate) fn enter(&self) -> bool {
        let before = self.in_flight.fetch_add(1, Relaxed);
        if before < self.limit.load(Relaxed) {
            if let Some(adapting) = &self.adapting {
                adapting.in_flight_peak.fetch_max(before + 1, Relaxed);
            }
            return true;
        }
        self.in_flight.fetch_sub(1, Relaxed);
        false
    }

    /// Counts a call out. `latency` of one that ran and succeeded; others say nothing about how long a call
    /// takes.
    pub(crate) fn leave(&self, now: Instant, latency: Option<Duration>) {
        self.in_flight.fetch_sub(1, Relaxed);
        if let (Some(adapting), Some(latency)) = (&self.adapting, latency)
            && let Some(limit) = adapting.measured(now, latency)
        {
            self.limit.store(limit, Relaxed);
        }
    }

    /// Calls in work.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    /// How many may be in work at present.
    pub(crate) fn limit(&self) -> usize {
        self.limit.load(Relaxed)
    }
}

impl Adapting {
    /// Adds a measurement; the one that completes a window moves the limit.
    fn measured(&self, now: Instant, latency: Duration) -> Option<usize> {
        let calls = self.calls.fetch_add(1, Relaxed) + 1;
        self.latency_ns.fetch_add(nanos(latency), Relaxed);
        let now_ns = nanos(now.saturating_duration_since(self.started));
        if calls < adaptive::WINDOW_CALLS_MIN || now_ns < self.window_ends_ns.load(Relaxed) {
            return None;
        }
        // Somebody else is at it already.
        let mut adaptive = self.adaptive.try_lock()?;
        let began_ns = self.window_began_ns.swap(now_ns, Relaxed);
        self.window_ends_ns
            .store(now_ns.saturating_add(self.window_ns), Relaxed);
        let calls = self.calls.swap(0, Relaxed);
        let latency_ns = self.latency_ns.swap(0, Relaxed);
        let window = Window {
            began: Duration::from_nanos(began_ns),
            ended: Duration::from_nanos(now_ns),
            calls,
            latency: Duration::from_nanos(latency_ns.checked_div(calls)?),
            in_flight_peak: self.in_flight_peak.swap(0, Relaxed),
        };
        Some(adaptive.observe(&window))
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_limit_lets_in_as_many_as_it_says_and_again_after_they_have_left() {
        let now = Instant::now();
        let limiter = Limiter::new(&ConcurrencyLimit::Constant(2), 10, now);
        assert!(limiter.enter() && limiter.enter() && !limiter.enter());
        limiter.leave(now, None);
        assert!(limiter.enter() && !limiter.enter());
        assert_eq!((limiter.in_flight(), limiter.limit()), (2, 2));
    }

    #[test]
    fn the_bound_holds_over_every_kind_of_limit() {
        let now = Instant::now();
        let adaptive = ConcurrencyLimit::Adaptive(AdaptiveLimit::default());
        for limit in [
            ConcurrencyLimit::Unlimited,
            ConcurrencyLimit::Constant(9),
            adaptive,
        ] {
            assert_eq!(Limiter::new(&limit, 1, now).limit(), 1);
        }
    }

    #[test]
    fn calls_of_many_threads_never_exceed_the_limit_and_all_are_counted_out() {
        let limiter = Limiter::new(&ConcurrencyLimit::Constant(3), 10, Instant::now());
        let inside = AtomicUsize::new(0);
        std::thread::scope(|threads| {
            for _ in 0..8 {
                threads.spawn(|| {
                    for _ in 0..1000 {
                        if limiter.enter() {
                            assert!(inside.fetch_add(1, Relaxed) < 3);
                            inside.fetch_sub(1, Relaxed);
                            limiter.leave(Instant::now(), None);
                        }
                    }
                });
            }
        });
        assert_eq!(limiter.in_flight(), 0);
    }

    #[test]
    fn a_full_window_moves_an_adaptive_limit() {
        let now = Instant::now();
        let options = AdaptiveLimit::default();
        let limiter = Limiter::new(&ConcurrencyLimit::Adaptive(options), 1000, now);
        let mut at = now;
        for _ in 0..2000 {
            while limiter.enter() {}
            at += Duration::from_millis(1);
            for _ in 0..limiter.in_flight() {
                limiter.leave(at, Some(Duration::from_millis(1)));
            }
        }
        // Latency never rises, however many are in work.
        assert!(limiter.limit() > 40, "{}", limiter.limit());
    }
}
