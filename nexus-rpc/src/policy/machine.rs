//! What an endpoint does next: connect, probe, wait.
//!
//! ```text
//!            time                connected
//!   ┌─► Idle ────► Connecting ─────────────► Ready ──── provider stops ───► Stopping
//!   │                  │                      │  │                              │
//!   │ ◄── lost ────────┘        ill ──────────┘  │ ◄── answered ──┐             │
//!   │ ◄── lost ───────────────── │ ──────────────┘                │             │
//!   │ ◄── lost, or time ──────── │ ───────────────────────────────│─────────────┘
//!                                ▼          time                  │
//!                            Isolated ─────────────► Probing ─────┘
//!                                ▲                      │
//!                                └── lost, unanswered ──┘        (and from everywhere: Removed)
//! ```
//!
//! Pure, in the way of quinn: the driver tells what happened, then calls [`Machine::decide`] and does what it
//! says until that is to wait; it calls it again when something happened or the time has come. An attempt is
//! named by a [`ConnectionId`], so news of one that was given up changes nothing.
//!
//! Three rules:
//!
//! - **Never stuck.** Every state but Ready and Removed ends by itself: an attempt, a probe and a provider that
//!   says it stops are given up after a time, even if the driver never hears how they ended.
//! - **One attempt at a time.** The next begins when the last has succeeded, failed, or was closed.
//! - **An isolated endpoint has no connection.** The old one is closed once its calls are over, and the probe
//!   makes a new one: a way that swallows everything is left, and not tested again and again.
//!
//! An endpoint with several connections has one machine. The first connection is the machine's, the others
//! are the driver's affair, and `connection_lost` is told when the last has gone.

use std::time::{Duration, Instant};

use nexus_net::Backoff;

use super::breaker::{Breaker, BreakerOptions, BreakerState, Outcome};
use super::mix::{Seeded, fraction, mix};

/// The longest of any time here, so that no option overflows a clock.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug, Clone)]
pub(crate) struct MachineOptions {
    pub(crate) breaker: BreakerOptions,
    /// Between attempts to connect.
    pub(crate) backoff: Backoff,
    /// An attempt is given up after this time. It should be longer than the time-out of the connection,
    /// which is then what ends an attempt.
    pub(crate) attempt_max: Duration,
    /// A probe not answered by then has failed.
    pub(crate) probe_timeout: Duration,
    /// A provider that said it stops, and still is there after this time, is connected to anew.
    pub(crate) stopping_max: Duration,
    /// A connection that is lost sooner counts as a failed attempt. Also, a silent one
    /// that cannot be isolated is replaced after this time.
    pub(crate) stable_after: Duration,
}

impl Default for MachineOptions {
    fn default() -> Self {
        Self {
            breaker: BreakerOptions::default(),
            backoff: Backoff::default(),
            attempt_max: Duration::from_secs(5),
            probe_timeout: Duration::from_secs(1),
            stopping_max: Duration::from_secs(30),
            stable_after: Duration::from_secs(5),
        }
    }
}

/// An attempt to connect, and the connection that comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ConnectionId(pub(crate) u64);

/// What the driver is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Start to connect, and report [`Machine::connected`] or [`Machine::connection_lost`].
    Connect(ConnectionId),
    /// Send one call over the connection and report [`Machine::probe_answered`] or
    /// [`Machine::probe_failed`].
    Probe(ConnectionId),
    /// Give up an attempt, or close a connection once the calls in flight on it are over. Nothing
    /// needs to be reported.
    Close(ConnectionId),
    /// Nothing until something happens or this time has come.
    Wait(Option<Instant>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Not connected; waits for the next attempt.
    Idle,
    /// The attempt runs.
    Connecting,
    /// Takes calls.
    Ready,
    /// Failed too often: gets nothing for a while.
    Isolated,
    /// Connects for a probe, or waits for its answer.
    Probing,
    /// The provider takes no new calls.
    Stopping,
    /// No longer wanted.
    Removed,
}

/// The state of one endpoint.
#[derive(Debug)]
pub(crate) struct Machine {
    options: MachineOptions,
    phase: Phase,
    breaker: Breaker,
    random: Seeded,
    /// Attempts that failed in a row.
    failures: u32,
    last_id: u64,
    /// To be closed before anything else. No phase that connects is entered with one.
    closing: Option<ConnectionId>,
}

/// [`State`], with what belongs to each.
#[derive(Debug, Clone, Copy)]
enum Phase {
    Idle {
        retry_at: Instant,
    },
    Connecting {
        id: ConnectionId,
        give_up_at: Instant,
    },
    Ready {
        id: ConnectionId,
        since: Instant,
    },
    Isolated {
        until: Instant,
    },
    Probing {
        id: ConnectionId,
        step: Step,
        give_up_at: Instant,
    },
    Stopping {
        id: ConnectionId,
        give_up_at: Instant,
    },
    Removed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Connecting,
    /// Connected, and the driver has not been told to send.
    Due,
    Sent,
}

impl Machine {
    /// Connects at the first [`decide`](Self::decide).
    pub(crate) fn new(mut options: MachineOptions, now: Instant, seed: u64) -> Self {
        for time in [
            &mut options.backoff.initial,
            &mut options.backoff.max,
            &mut options.attempt_max,
            &mut options.probe_timeout,
            &mut options.stopping_max,
        ] {
            *time = (*time).min(LONGEST);
        }
        Self {
            phase: Phase::Idle { retry_at: now },
            breaker: Breaker::new(options.breaker.clone(), now, mix(seed)),
            random: Seeded::new(seed),
            failures: 0,
            last_id: 0,
            closing: None,
            options,
        }
    }

    /// Whether it may be given calls.
    #[cfg(test)]
    fn usable(&self) -> bool {
        self.state() == State::Ready
    }

    pub(crate) fn state(&self) -> State {
        match self.phase {
            Phase::Idle { .. } => State::Idle,
            Phase::Connecting { .. } => State::Connecting,
            Phase::Ready { .. } => State::Ready,
            Phase::Isolated { .. } => State::Isolated,
            Phase::Probing { .. } => State::Probing,
            Phase::Stopping { .. } => State::Stopping,
            Phase::Removed => State::Removed,
        }
    }

    /// Until when it is isolated, if it is.
    #[cfg(test)]
    fn isolated_until(&self) -> Option<Instant> {
        match self.phase {
            Phase::Isolated { until } => Some(until),
            _ => None,
        }
    }

    /// What to do now. To be called until it says [`Decision::Wait`].
    pub(crate) fn decide(&mut self, now: Instant) -> Decision {
        if self.closing.is_none() {
            self.give_up(now);
        }
        if let Some(id) = self.closing.take() {
            return Decision::Close(id);
        }
        match self.phase {
            Phase::Idle { retry_at } if now >= retry_at => {
                let id = self.next_id();
                let give_up_at = now + self.options.attempt_max;
                self.phase = Phase::Connecting { id, give_up_at };
                Decision::Connect(id)
            }
            Phase::Isolated { until } if now >= until => {
                let id = self.next_id();
                let give_up_at = now + self.options.attempt_max;
                self.probe(id, Step::Connecting, give_up_at);
                Decision::Connect(id)
            }
            Phase::Probing {
                id,
                step: Step::Due,
                ..
            } => {
                self.probe(id, Step::Sent, now + self.options.probe_timeout);
                Decision::Probe(id)
            }
            Phase::Idle { retry_at: at }
            | Phase::Isolated { until: at }
            | Phase::Connecting { give_up_at: at, .. }
            | Phase::Probing { give_up_at: at, .. }
            | Phase::Stopping { give_up_at: at, .. } => Decision::Wait(Some(at)),
            Phase::Ready { .. } | Phase::Removed => Decision::Wait(None),
        }
    }

    /// The attempt succeeded.
    pub(crate) fn connected(&mut self, id: ConnectionId, now: Instant) {
        match self.phase {
            Phase::Connecting { id: current, .. } if id == current => {
                self.phase = Phase::Ready { id, since: now };
            }
            Phase::Probing {
                id: current,
                step: Step::Connecting,
                give_up_at,
            } if id == current => self.probe(id, Step::Due, give_up_at),
            _ => {}
        }
    }

    /// The attempt failed, or the connection ended.
    pub(crate) fn connection_lost(&mut self, id: ConnectionId, now: Instant) {
        if self.current() != Some(id) {
            return;
        }
        match self.phase {
            Phase::Probing { .. } => self.isolate_again(now),
            Phase::Ready { since, .. } => {
                let lived = now.saturating_duration_since(since);
                if lived >= self.options.stable_after {
                    self.failures = 0;
                }
                self.retry_later(now);
            }
            Phase::Stopping { .. } => {
                self.failures = 0;
                self.retry_later(now);
            }
            _ => self.retry_later(now),
        }
    }

    /// A call over the endpoint ended after `latency`. `may_isolate` is asked only if the endpoint is
    /// to be isolated; true, it is.
    pub(crate) fn outcome(
        &mut self,
        now: Instant,
        outcome: Outcome,
        latency: Duration,
        may_isolate: &mut dyn FnMut() -> bool,
    ) {
        let Phase::Ready { id, since } = self.phase else {
            return;
        };
        if outcome == Outcome::Success {
            self.failures = 0;
        }
        let isolate = self.breaker.on_outcome(now, outcome, latency, may_isolate);
        if let Some(isolate) = isolate {
            self.closing = Some(id);
            self.phase = Phase::Isolated {
                until: isolate.until,
            };
        } else if self.breaker.is_silent()
            && now.saturating_duration_since(since) >= self.options.stable_after
        {
            // The only one there is. Perhaps it is not the provider but this connection that is dead,
            // and TCP would take minutes to find out.
            self.breaker.forget_silence();
            self.closing = Some(id);
            self.phase = Phase::Idle { retry_at: now };
        }
    }

    /// The provider said that it stops.
    pub(crate) fn stopping(&mut self, id: ConnectionId, now: Instant) {
        match self.phase {
            Phase::Ready { id: current, .. } if id == current => {
                let give_up_at = now + self.options.stopping_max;
                self.phase = Phase::Stopping { id, give_up_at };
            }
            _ => self.probe_failed(id, now),
        }
    }

    /// The probe was answered; what it said does not matter.
    pub(crate) fn probe_answered(&mut self, id: ConnectionId, now: Instant) {
        let Phase::Probing {
            step: Step::Sent,
            give_up_at,
            ..
        } = self.phase
        else {
            return;
        };
        if self.current() != Some(id) {
            return;
        }
        self.breaker.probe_answered(now);
        if self.breaker.state(now) == BreakerState::Closed {
            self.failures = 0;
            self.phase = Phase::Ready { id, since: now };
        } else {
            self.probe(id, Step::Due, give_up_at);
        }
    }

    /// The probe failed in some other way than by the loss of the connection.
    pub(crate) fn probe_failed(&mut self, id: ConnectionId, now: Instant) {
        if self.current() == Some(id) && self.state() == State::Probing {
            self.closing = Some(id);
            self.isolate_again(now);
        }
    }

    /// It is no longer wanted. Its connection is closed once its calls are over.
    pub(crate) fn removed(&mut self) {
        if let Some(id) = self.current() {
            self.closing = Some(id);
        }
        self.phase = Phase::Removed;
    }

    /// Ends what has taken too long.
    fn give_up(&mut self, now: Instant) {
        match self.phase {
            Phase::Connecting { id, give_up_at } if now >= give_up_at => {
                self.closing = Some(id);
                self.retry_later(now);
            }
            Phase::Probing {
                id,
                step: Step::Connecting | Step::Sent,
                give_up_at,
            } if now >= give_up_at => self.probe_failed(id, now),
            Phase::Stopping { id, give_up_at } if now >= give_up_at => {
                self.closing = Some(id);
                self.phase = Phase::Idle { retry_at: now };
            }
            _ => {}
        }
    }

    fn isolate_again(&mut self, now: Instant) {
        let until = self.breaker.probe_failed(now).until;
        self.phase = Phase::Isolated { until };
    }

    fn retry_later(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        let random = fraction(self.random.next());
        let delay = self.options.backoff.delay(self.failures, random);
        self.phase = Phase::Idle {
            retry_at: now + delay,
        };
    }

    fn probe(&mut self, id: ConnectionId, step: Step, give_up_at: Instant) {
        self.phase = Phase::Probing {
            id,
            step,
            give_up_at,
        };
    }

    fn current(&self) -> Option<ConnectionId> {
        match self.phase {
            Phase::Connecting { id, .. }
            | Phase::Ready { id, .. }
            | Phase::Probing { id, .. }
            | Phase::Stopping { id, .. } => Some(id),
            Phase::Idle { .. } | Phase::Isolated { .. } | Phase::Removed => None,
        }
    }

    fn next_id(&mut self) -> ConnectionId {
        self.last_id += 1;
        ConnectionId(self.last_id)
    }
}

#[cfg(test)]
mod tests;
