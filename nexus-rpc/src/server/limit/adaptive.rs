//! Decides an adaptive limit, one window of measurements after the other. Pure: time is in the windows.
//!
//! ```text
//!            limit reached                      probe due, or latency does not fall with the limit
//!   slack ◄───────────────► saturated ─────────────────────────────────► probing
//!   (limit stays)           limit ─► calls/s × lowest latency + headroom  halve while latency falls,
//!                                   ◄────────────────────────────────────  then go back
//! ```
//!
//! Little's law gives the target: a server that completes `x` calls per second, each in the time it takes
//! when it waits for no other, has `x` times that time in work. Both factors are measured, and each can go
//! stale:
//!
//! - The most calls per second fade while the limit is reached and they are not.
//! - The lowest latency is lowered a step with each window that is below it. Taken over at once, it would be that of
//!   the luckiest window, which calls do not have on the average, and a limit made of it would shrink until it is at
//!   its least. That it has risen cannot be told from waiting while the limit is reached, so it is probed.

use std::time::Duration;

use super::AdaptiveLimit;

/// Calls without which a window says nothing.
pub(super) const WINDOW_CALLS_MIN: u64 = 50;

/// In this part of the limit at least the calls in work came near it.
const SATURATED_FROM: f64 = 0.8;

/// A latency within this of the lowest shows no waiting.
const NO_WAITING: f64 = 1.1;

/// Headroom above the target, its bounds and its step per window.
const HEADROOM_MIN: f64 = 0.06;
const HEADROOM_MAX: f64 = 0.3;
const HEADROOM_STEP: f64 = 0.02;

/// How much of the way from the lowest latency to its own one window goes.
const LOWEST_STEP: f64 = 0.1;

/// How much of the way to the target one window goes.
const SMOOTHING: f64 = 0.5;

/// Growth per window while no waiting shows.
const GROWTH: f64 = 1.1;

/// How much of the most calls per second is kept when a saturated window has fewer.
const RATE_KEPT: f64 = 0.9;

/// What was measured between two moments.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    /// When it began, on a clock that only has to run.
    pub(super) began: Duration,
    pub(super) ended: Duration,
    /// Calls that succeeded.
    pub(super) calls: u64,
    /// Their mean latency.
    pub(super) latency: Duration,
    /// The most calls that were in work.
    pub(super) in_flight_peak: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Following,
    /// The limit is `restore` divided by a power of two; before the last step the latency was `latency_s`.
    Probing {
        restore: f64,
        latency_s: f64,
    },
}

/// The state of one adaptive limit.
#[derive(Debug)]
pub(super) struct Adaptive {
    min: f64,
    max: f64,
    probe_interval: Duration,
    limit: f64,
    /// Of a call that waits for no other, in seconds; 0 while unknown.
    lowest_s: f64,
    /// The most calls per second.
    rate_max: f64,
    headroom: f64,
    phase: Phase,
    next_probe: Duration,
    /// Windows that began earlier have calls from before the last step of a probe.
    settled_at: Duration,
}

impl Adaptive {
    pub(super) fn new(options: &AdaptiveLimit, at_most: usize) -> Self {
        let max = options.max.min(at_most).max(1);
        let min = options.min.clamp(1, max);
        Self {
            min: min as f64,
            max: max as f64,
            probe_interval: options.probe_interval,
            limit: options.initial.clamp(min, max) as f64,
            lowest_s: 0.0,
            rate_max: 0.0,
            headroom: HEADROOM_MAX,
            phase: Phase::Following,
            next_probe: Duration::ZERO,
            settled_at: Duration::ZERO,
        }
    }

    /// The limit as a number of calls.
    pub(super) fn limit(&self) -> usize {
        // Between `min` and `max`, which were usizes.
        self.limit.round() as usize
    }

    /// Takes a window into account; the limit that holds from now on.
    pub(super) fn observe(&mut self, window: &Window) -> usize {
        let took_s = window.ended.saturating_sub(window.began).as_secs_f64();
        let latency_s = window.latency.as_secs_f64();
        if window.began >= self.settled_at
            && window.calls >= WINDOW_CALLS_MIN
            && took_s > 0.0
            && latency_s > 0.0
        {
            let rate = window.calls as f64 / took_s;
            match self.phase {
                Phase::Following => self.follow(window, latency_s, rate),
                Phase::Probing {
                    restore,
                    latency_s: before_s,
                } => {
                    self.probe(window, latency_s, restore, before_s);
                }
            }
        }
        self.limit = self.limit.clamp(self.min, self.max);
        self.limit()
    }

    fn follow(&mut self, window: &Window, latency_s: f64, rate: f64) {
        let saturated = window.in_flight_peak as f64 >= self.limit * SATURATED_FROM;
        if self.lowest_s == 0.0 {
            self.lowest_s = latency_s;
        } else if latency_s < self.lowest_s || !saturated {
            // Below the limit nobody waited for its sake: that is what a call takes now, more or less.
            self.lowest_s += (latency_s - self.lowest_s) * LOWEST_STEP;
        }
        if !saturated {
            self.rate_max = self.rate_max.max(rate);
            return;
        }
        self.rate_max = match rate >= self.rate_max {
            true => rate,
            false => self.rate_max * RATE_KEPT + rate * (1.0 - RATE_KEPT),
        };
        if window.ended >= self.next_probe {
            if self.limit > self.min {
                self.step_down(window, latency_s, self.limit);
                return;
            }
            // There is no way down from here, so this is as low as latency gets.
            self.lowest_s = latency_s;
            self.next_probe = window.ended + self.probe_interval;
        }
        if latency_s <= self.lowest_s * NO_WAITING {
            self.headroom = (self.headroom + HEADROOM_STEP).min(HEADROOM_MAX);
            self.limit = (self.limit * GROWTH).max(self.limit + 1.0);
            return;
        }
        self.headroom = (self.headroom - HEADROOM_STEP).max(HEADROOM_MIN);
        let target = (self.rate_max * self.lowest_s * (1.0 + self.headroom)).max(self.min);
        self.limit += (target - self.limit) * SMOOTHING;
    }

    /// The limit was lowered: has latency fallen with it?
    fn probe(&mut self, window: &Window, latency_s: f64, restore: f64, before_s: f64) {
        let fell = latency_s * NO_WAITING < before_s;
        self.lowest_s = latency_s;
        if fell && self.limit > self.min {
            self.step_down(window, latency_s, restore);
            return;
        }
        // What a call takes when it waits for no other. Calls per second are measured anew as well.
        self.phase = Phase::Following;
        self.next_probe = window.ended + self.probe_interval;
        self.settled_at = window.ended + window.latency;
        let target = self.rate_max * self.lowest_s * (1.0 + self.headroom);
        self.limit = target.clamp(self.limit, restore);
    }

    fn step_down(&mut self, window: &Window, latency_s: f64, restore: f64) {
        self.phase = Phase::Probing { restore, latency_s };
        self.limit = (self.limit / 2.0).max(self.min);
        // Until those that are in work now have left.
        self.settled_at = window.ended + window.latency * 2;
    }
}

#[cfg(test)]
mod tests;
