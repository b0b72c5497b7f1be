//! When an endpoint gets no calls for a while, because too many of its last ones failed.
//!
//! ```text
//!             ill, and enough others are left            time is over
//!   Closed ───────────────────────────────────► Isolated ────────────► HalfOpen
//!     ▲                                             ▲                   │   │
//!     │                                             └── a probe failed ─┘   │
//!     └──────────────────── enough probes were answered ────────────────────┘
//! ```
//!
//! Ill is an endpoint by any of three signs:
//!
//! - Of the calls in a short window, more than a share failed: it broke.
//! - Of those in a long window, more than a smaller share did: it fails now and then.
//! - Calls timed out in a row, and no answer came while they waited: it is not there. This sign needs no
//!   number of calls, so a quiet client sees a black hole after two deadlines.
//!
//! How long it is isolated grows with each time and shrinks back while it is healthy. So that a failure of
//! something that all endpoints depend on does not isolate all of them, whoever keeps several asks
//! [`BreakerOptions::may_isolate`].

use std::time::{Duration, Instant};

use nexus_net::Backoff;

use super::mix::{Seeded, fraction};

/// The longest of any time here, so that no option overflows a clock.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// When an endpoint is isolated, and how long.
#[derive(Debug, Clone)]
pub struct BreakerOptions {
    /// Sees that an endpoint broke. By default half of at least 20 calls in 5 s.
    pub short: FailureWindow,
    /// Sees that it fails now and then. By default a fifth of at least 100 calls in 60 s.
    pub long: FailureWindow,
    /// Isolates after so many time-outs in a row, during which nothing was answered; 0: never.
    /// Default 2.
    pub silent_timeouts: u32,
    /// Counts very slow answers as failures. Default: off.
    pub slow: Option<SlowCalls>,
    /// How long an endpoint is isolated the first time, and at most. A part of it is random. By default 100
    /// ms to 30 s.
    pub isolation: Backoff,
    /// An isolation is forgotten after so much time in health: the next is half as long. Default 30 s.
    pub forgiven_after: Duration,
    /// Probes that must be answered before calls are. Default 1.
    pub probes: u32,
    /// Of the endpoints of a service, the share that is never isolated. At least one never is.
    /// Default 0.5.
    pub usable_share_min: f64,
}

/// How many calls may fail in a span of time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FailureWindow {
    /// The span.
    pub length: Duration,
    /// With fewer calls, it says nothing.
    pub calls_min: u32,
    /// The share of failures that is still taken for health, 0.0 to 1.0.
    pub failure_share_max: f64,
}

/// Which answers are so slow that they count as failures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlowCalls {
    /// Slower than this many times the endpoint's average.
    pub times_average: f64,
    /// And at least so slow: no call is a failure by microseconds.
    pub at_least: Duration,
}

impl Default for BreakerOptions {
    fn default() -> Self {
        Self {
            short: FailureWindow {
                length: Duration::from_secs(5),
                calls_min: 20,
                failure_share_max: 0.5,
            },
            long: FailureWindow {
                length: Duration::from_secs(60),
                calls_min: 100,
                failure_share_max: 0.2,
            },
            silent_timeouts: 2,
            slow: None,
            isolation: Backoff {
                initial: Duration::from_millis(100),
                max: Duration::from_secs(30),
            },
            forgiven_after: Duration::from_secs(30),
            probes: 1,
            usable_share_min: 0.5,
        }
    }
}

impl BreakerOptions {
    /// Whether one more of `total` endpoints may be isolated when `isolated_now` are. Whoever asks
    /// from several threads must count and ask in one step.
    pub(crate) fn may_isolate(&self, total: usize, isolated_now: usize) -> bool {
        let share = self.usable_share_min.clamp(0.0, 1.0);
        let usable_min = ((total as f64 * share).ceil() as usize).max(1);
        total.saturating_sub(isolated_now) > usable_min
    }
}

/// What became of a call, as far as it speaks for or against the endpoint. An error that the application
/// chose is a success, and so is one that the caller is at fault for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Answered.
    Success,
    /// Answered that it cannot, or lost with its connection.
    Failure,
    /// Not answered in time.
    TimedOut,
}

/// The endpoint is to get no calls until then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Isolate {
    pub(crate) until: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BreakerState {
    /// Calls go through.
    Closed,
    /// Nothing goes through.
    Isolated { until: Instant },
    /// Probes go through.
    HalfOpen,
}

/// The circuit breaker of one endpoint.
#[derive(Debug)]
pub(crate) struct Breaker {
    options: BreakerOptions,
    random: Seeded,
    phase: Phase,
    short: Window,
    long: Window,
    /// Time-outs in a row whose whole wait was silent.
    silent_timeouts: u32,
    answered_at: Option<Instant>,
    average: Average,
    /// Isolations that are not forgiven.
    isolations: u32,
}

#[derive(Debug)]
enum Phase {
    /// `since`: the last isolation, if there was one.
    Closed { since: Option<Instant> },
    Open {
        until: Instant,
        probes_answered: u32,
    },
}

impl Breaker {
    pub(crate) fn new(options: BreakerOptions, now: Instant, seed: u64) -> Self {
        let isolation = Backoff {
            initial: options.isolation.initial.min(LONGEST),
            max: options.isolation.max.min(LONGEST),
        };
        Self {
            random: Seeded::new(seed),
            phase: Phase::Closed { since: None },
            short: Window::new(options.short, now),
            long: Window::new(options.long, now),
            silent_timeouts: 0,
            answered_at: None,
            average: Average::default(),
            isolations: 0,
            options: BreakerOptions {
                isolation,
                ..options
            },
        }
    }

    pub(crate) fn state(&self, now: Instant) -> BreakerState {
        match self.phase {
            Phase::Closed { .. } => BreakerState::Closed,
            Phase::Open { until, .. } if now < until => BreakerState::Isolated { until },
            Phase::Open { .. } => BreakerState::HalfOpen,
        }
    }

    /// A call ended after `latency`. `may_isolate` is asked only when the endpoint is ill; if it
    /// says no, it is asked again at the next failure.
    pub(crate) fn on_outcome(
        &mut self,
        now: Instant,
        outcome: Outcome,
        latency: Duration,
        may_isolate: &mut dyn FnMut() -> bool,
    ) -> Option<Isolate> {
        let Phase::Closed { since } = self.phase else {
            return None;
        };
        let sent_at = now.checked_sub(latency);
        if since.is_some_and(|since| sent_at.is_none_or(|sent_at| sent_at < since)) {
            // What was sent before the isolation has been judged by it.
            return None;
        }
        let failed = match outcome {
            Outcome::Success => {
                let slow = self.options.slow;
                self.answered(now);
                self.average.observe(latency, slow)
            }
            Outcome::Failure => {
                self.answered(now);
                true
            }
            Outcome::TimedOut => {
                // At high rates there are time-outs in a row by chance, but not silence.
                if self.answered_at.is_none() || sent_at >= self.answered_at {
                    self.silent_timeouts = self.silent_timeouts.saturating_add(1);
                }
                true
            }
        };
        self.short.count(now, failed);
        self.long.count(now, failed);
        let ill = failed && (self.is_silent() || self.short.is_ill() || self.long.is_ill());
        (ill && may_isolate()).then(|| self.isolate(now))
    }

    /// A probe was answered. When enough were, calls go through again.
    pub(crate) fn probe_answered(&mut self, now: Instant) {
        if let Phase::Open {
            probes_answered, ..
        } = &mut self.phase
        {
            *probes_answered = probes_answered.saturating_add(1);
            if *probes_answered >= self.options.probes {
                self.phase = Phase::Closed { since: Some(now) };
            }
        }
    }

    /// A probe was not answered: isolated again, and longer.
    pub(crate) fn probe_failed(&mut self, now: Instant) -> Isolate {
        self.isolate(now)
    }

    /// Whether nothing has been heard while calls timed out in a row.
    pub(crate) fn is_silent(&self) -> bool {
        let enough = self.options.silent_timeouts;
        enough > 0 && self.silent_timeouts >= enough
    }

    /// Calls go another way from now on, so a silence so far says nothing.
    pub(crate) fn forget_silence(&mut self) {
        self.silent_timeouts = 0;
    }

    fn answered(&mut self, now: Instant) {
        self.silent_timeouts = 0;
        self.answered_at = Some(now);
    }

    fn isolate(&mut self, now: Instant) -> Isolate {
        if let Phase::Closed { since: Some(since) } = self.phase {
            let healthy = now.saturating_duration_since(since).as_nanos();
            let forgiven = healthy / self.options.forgiven_after.as_nanos().max(1);
            let forgiven = u32::try_from(forgiven).unwrap_or(u32::MAX);
            self.isolations = self.isolations.saturating_sub(forgiven);
        }
        self.isolations = self.isolations.saturating_add(1);
        let random = fraction(self.random.next());
        let until = now + self.options.isolation.delay(self.isolations, random);
        self.phase = Phase::Open {
            until,
            probes_answered: 0,
        };
        self.silent_timeouts = 0;
        self.short.clear();
        self.long.clear();
        Isolate { until }
    }
}

/// Slots that a window consists of; it moves on by one of them at a time.
const SLOTS: usize = 10;

/// Calls and failures of the last `length` of time.
#[derive(Debug)]
struct Window {
    limit: FailureWindow,
    start: Instant,
    slot_ns: u64,
    /// The slot that `now` was in last, counted from `start`.
    at: u64,
    slots: [Count; SLOTS],
    sum: Count,
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    calls: u32,
    failures: u32,
}

impl Window {
    fn new(limit: FailureWindow, now: Instant) -> Self {
        Self {
            limit,
            start: now,
            slot_ns: (nanos(limit.length) / SLOTS as u64).max(1),
            at: 0,
            slots: [Count::default(); SLOTS],
            sum: Count::default(),
        }
    }

    fn count(&mut self, now: Instant, failed: bool) {
        let at = nanos(now.saturating_duration_since(self.start)) / self.slot_ns;
        let passed = usize::try_from(at.saturating_sub(self.at)).unwrap_or(usize::MAX);
        for _ in 0..passed.min(SLOTS) {
            self.at += 1;
            let old = std::mem::take(&mut self.slots[(self.at % SLOTS as u64) as usize]);
            self.sum.calls -= old.calls;
            self.sum.failures -= old.failures;
        }
        // All slots are empty if it was more. A clock that is late counts in the present slot.
        self.at = self.at.max(at);
        let slot = &mut self.slots[(self.at % SLOTS as u64) as usize];
        if self.sum.calls == u32::MAX {
            return;
        }
        for count in [slot, &mut self.sum] {
            count.calls += 1;
            count.failures += u32::from(failed);
        }
    }

    fn is_ill(&self) -> bool {
        let allowed = f64::from(self.sum.calls) * self.limit.failure_share_max;
        self.sum.calls >= self.limit.calls_min && f64::from(self.sum.failures) > allowed
    }

    fn clear(&mut self) {
        self.slots = [Count::default(); SLOTS];
        self.sum = Count::default();
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Answers before their average says anything.
const ANSWERS_MIN: u32 = 50;

/// The weight of one answer in the average, and of one that was too slow. Small, so that some hundreds
/// of slow answers are noticed before they are the rule.
const ANSWER_WEIGHT: f64 = 1.0 / 64.0;
const SLOW_WEIGHT: f64 = 1.0 / 1024.0;

/// What an answer of the endpoint usually takes.
#[derive(Debug, Default)]
struct Average {
    ns: f64,
    answers: u32,
}

impl Average {
    /// Adds an answer, and says whether it was too slow.
    fn observe(&mut self, latency: Duration, slow: Option<SlowCalls>) -> bool {
        let Some(slow) = slow else {
            return false;
        };
        let seen_ns = latency.as_nanos() as f64;
        if self.answers < ANSWERS_MIN {
            self.answers += 1;
            self.ns += (seen_ns - self.ns) / f64::from(self.answers);
            return false;
        }
        let limit_ns = self.ns * slow.times_average.max(1.0);
        let too_slow = seen_ns > limit_ns && latency >= slow.at_least;
        let weight = if too_slow { SLOW_WEIGHT } else { ANSWER_WEIGHT };
        // However slow it was, it counts as what is just not too slow.
        self.ns += (seen_ns.min(limit_ns) - self.ns) * weight;
        too_slow
    }
}

#[cfg(test)]
mod tests;
