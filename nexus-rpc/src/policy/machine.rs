//! What an endpoint does next: connect, probe, wait.
//!
//! An endpoint has one or several links, places for one connection each. One machine makes all of their
//! connections:
//!
//! ```text
//!   a link:      Due ────► Connecting ──┬─────────────────────► Ready ────► Stopping     (provider stops)
//!                 ▲            │        └► Trying ─ answered ──► │             │
//!                 │ time       │ lost        │ lost, unanswered  │ lost        │ lost, or time
//!                 └────────── Down ◄─────────┴───────────────────┴─────────────┘
//!
//!   the endpoint:      Well ──── ill ───► Isolated ── time ──► Probing ── answered ──► Well
//!                                            ▲                    │
//!                                            └─ lost, unanswered ─┘    (and from everywhere: Removed)
//! ```
//!
//! While the endpoint is well, its [`State`] is that of its best link: it is Ready as long as one connection
//! stands.
//!
//! Pure, in the way of quinn: the driver tells what happened, then calls [`Machine::decide`] and does what it
//! says until that is to wait; it calls it again when something happened or the time has come. An attempt is
//! named by a [`ConnectionId`], so news of one that was given up changes nothing.
//!
//! Five rules:
//!
//! - **Never stuck.** Every state but Ready and Removed ends by itself: an attempt, a probe and a provider that
//!   says it stops are given up after a time, even if the driver never hears how they ended.
//! - **One pause for all links.** After a failure no lost link connects before the pause is over. Further
//!   failures during the pause do not lengthen the next pause. While no connection stands, the links connect one
//!   at a time; when an attempt succeeds, the other links follow.
//! - **Nothing is risked while a connection stands.** A connection that is made beside others after a failure
//!   answers a probe before calls are sent on it: a load balancer accepts connections without a provider behind it.
//! - **An isolated endpoint has no connection.** The old ones are closed once their calls are over, and the probe
//!   makes a new one: a way that swallows everything is left, and not tested again and again.
//! - **A connection speaks for itself.** Calls that fail because their connection was lost say nothing about the
//!   others, so they do not count towards isolation.

mod link;

use std::time::{Duration, Instant};

use nexus_net::Backoff;

pub(crate) use self::link::{ConnectionId, FIRST_LINK, LinkId};
use self::link::{Link, Phase, Silence, Step};
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
    /// No connection stands, and an attempt runs.
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
    health: Health,
    /// By their ids.
    links: Vec<Link>,
    breaker: Breaker,
    random: Seeded,
    /// Failures in a row, those during a pause left out.
    failures: u32,
    failed_at: Option<Instant>,
    /// The end of the pause after the last failure.
    retry_at: Instant,
    last_attempt: u64,
}

#[derive(Debug, Clone, Copy)]
enum Health {
    Well,
    Isolated {
        until: Instant,
    },
    /// Over [`FIRST_LINK`], which is Down meanwhile.
    Probing {
        id: ConnectionId,
        step: Step,
        give_up_at: Instant,
    },
    Removed,
}

impl Machine {
    /// With one link, which connects at the first [`decide`](Self::decide).
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
            health: Health::Well,
            links: vec![Link::new()],
            breaker: Breaker::new(options.breaker.clone(), now, mix(seed)),
            random: Seeded::new(seed),
            failures: 0,
            failed_at: None,
            retry_at: now,
            last_attempt: 0,
            options,
        }
    }

    /// One more link. It connects at the next [`decide`](Self::decide), while the endpoint is well.
    pub(crate) fn add_link(&mut self) -> LinkId {
        let is_vacant = |link: &Link| matches!(link.phase, Phase::Vacant);
        let at = self.links.iter().position(is_vacant);
        let at = at.unwrap_or_else(|| {
            self.links.push(Link::new());
            self.links.len() - 1
        });
        if let Some(link) = self.links.get_mut(at) {
            *link = Link::new();
        }
        LinkId(at)
    }

    /// The driver has closed the link for good. Never the first.
    pub(crate) fn remove_link(&mut self, link: LinkId) {
        if let Some(link) = self.links.get_mut(link.0) {
            let (phase, closing) = (Phase::Vacant, None);
            *link = Link { phase, closing };
        }
    }

    /// Whether it may be given calls.
    #[cfg(test)]
    fn usable(&self) -> bool {
        self.state() == State::Ready
    }

    pub(crate) fn state(&self) -> State {
        match self.health {
            Health::Isolated { .. } => return State::Isolated,
            Health::Probing { .. } => return State::Probing,
            Health::Removed => return State::Removed,
            Health::Well => {}
        }
        let mut best = State::Idle;
        for link in &self.links {
            best = match (link.phase, best) {
                (Phase::Ready { .. }, _) => return State::Ready,
                (Phase::Connecting { .. } | Phase::Trying { .. }, _) => State::Connecting,
                (Phase::Stopping { .. }, State::Idle) => State::Stopping,
                (_, best) => best,
            };
        }
        best
    }

    /// Until when it is isolated, if it is.
    #[cfg(test)]
    fn isolated_until(&self) -> Option<Instant> {
        match self.health {
            Health::Isolated { until } => Some(until),
            _ => None,
        }
    }

    /// What to do now. To be called until it says [`Decision::Wait`].
    pub(crate) fn decide(&mut self, now: Instant) -> Decision {
        self.give_up(now);
        if let Some(id) = self.links.iter_mut().find_map(|link| link.closing.take()) {
            return Decision::Close(id);
        }
        match self.health {
            Health::Removed => Decision::Wait(None),
            Health::Isolated { until } if now >= until => {
                let id = self.next_id(FIRST_LINK);
                let give_up_at = now + self.options.attempt_max;
                self.probe(id, Step::Connecting, give_up_at);
                Decision::Connect(id)
            }
            Health::Probing {
                id,
                step: Step::Due,
                ..
            } => {
                self.probe(id, Step::Sent, now + self.options.probe_timeout);
                Decision::Probe(id)
            }
            Health::Isolated { until: at } | Health::Probing { give_up_at: at, .. } => {
                Decision::Wait(Some(at))
            }
            Health::Well => self.connect_or_wait(now),
        }
    }

    fn connect_or_wait(&mut self, now: Instant) -> Decision {
        // While no connection stands, the attempt that runs speaks for all links that were down.
        let down_may_connect = self.state() != State::Connecting;
        let mut wait_until: Option<Instant> = None;
        for (at, link) in self.links.iter().enumerate() {
            let next = match link.phase {
                Phase::Due => now,
                Phase::Down if down_may_connect => self.retry_at,
                Phase::Trying {
                    id,
                    step: Step::Due,
                    ..
                } => {
                    let give_up_at = now + self.options.probe_timeout;
                    let step = Step::Sent;
                    let trying = Phase::Trying {
                        id,
                        step,
                        give_up_at,
                    };
                    self.set(id.link, trying);
                    return Decision::Probe(id);
                }
                Phase::Connecting { give_up_at, .. }
                | Phase::Trying { give_up_at, .. }
                | Phase::Stopping { give_up_at, .. } => {
                    wait_until = Some(wait_until.map_or(give_up_at, |at| at.min(give_up_at)));
                    continue;
                }
                Phase::Down | Phase::Ready { .. } | Phase::Vacant => continue,
            };
            if next <= now {
                let link = LinkId(at);
                let id = self.next_id(link);
                let give_up_at = now + self.options.attempt_max;
                self.set(link, Phase::Connecting { id, give_up_at });
                return Decision::Connect(id);
            }
            wait_until = Some(wait_until.map_or(next, |at| at.min(next)));
        }
        Decision::Wait(wait_until)
    }

    /// The attempt succeeded. Whether calls may be sent on the connection, as far as it is concerned; if not,
    /// they may once a probe is answered.
    pub(crate) fn connected(&mut self, id: ConnectionId, now: Instant) -> bool {
        if let Health::Probing {
            id: current,
            step: Step::Connecting,
            give_up_at,
        } = self.health
            && id == current
        {
            self.probe(id, Step::Due, give_up_at);
            return true;
        }
        let Some(Phase::Connecting { give_up_at, .. }) = self.phase_of(id) else {
            return true;
        };
        if self.failures == 0 || self.state() != State::Ready {
            self.ready(id, now);
            return true;
        }
        let step = Step::Due;
        let trying = Phase::Trying {
            id,
            step,
            give_up_at,
        };
        self.set(id.link, trying);
        false
    }

    /// The attempt failed, or the connection ended.
    pub(crate) fn connection_lost(&mut self, id: ConnectionId, now: Instant) {
        if self.is_probing(id) {
            self.isolate_again(now);
            return;
        }
        match self.phase_of(id) {
            Some(Phase::Ready { since, .. }) => {
                let lived = now.saturating_duration_since(since);
                if lived >= self.options.stable_after {
                    self.failures = 0;
                }
            }
            Some(Phase::Stopping { .. }) => self.failures = 0,
            Some(_) => {}
            None => return,
        }
        self.set(id.link, Phase::Down);
        self.failed(now);
    }

    /// A call over this connection ended after `latency`. `may_isolate` is asked only if the endpoint is
    /// to be isolated; true, it is. Whether the machine has something to decide now.
    pub(crate) fn outcome(
        &mut self,
        id: ConnectionId,
        now: Instant,
        outcome: Outcome,
        latency: Duration,
        may_isolate: &mut dyn FnMut() -> bool,
    ) -> bool {
        let Some(Phase::Ready {
            since, mut silence, ..
        }) = self.phase_of(id)
        else {
            return false;
        };
        if outcome == Outcome::Success && self.failed_at.is_none_or(|failed_at| failed_at <= since)
        {
            self.failures = 0;
        }
        if let Some(isolate) = self.breaker.on_outcome(now, outcome, latency, may_isolate) {
            self.close_all(Phase::Down);
            self.health = Health::Isolated {
                until: isolate.until,
            };
            return true;
        }
        silence.note(outcome, now, latency);
        let too_silent = self.options.breaker.silent_timeouts;
        let is_silent = too_silent > 0 && silence.timeouts >= too_silent;
        if is_silent && now.saturating_duration_since(since) >= self.options.stable_after {
            // Perhaps it is not the provider but this connection that is dead, and TCP would take minutes to
            // find out.
            self.breaker.forget_silence();
            self.close(id, Phase::Due);
            return true;
        }
        self.set(id.link, Phase::Ready { id, since, silence });
        false
    }

    /// The provider said that it stops. Other connections to the address may lead to another process, and hear
    /// for themselves.
    pub(crate) fn stopping(&mut self, id: ConnectionId, now: Instant) {
        match self.phase_of(id) {
            Some(Phase::Ready { .. }) => {
                let give_up_at = now + self.options.stopping_max;
                self.set(id.link, Phase::Stopping { id, give_up_at });
            }
            _ => self.probe_failed(id, now),
        }
    }

    /// The probe was answered; what it said does not matter.
    pub(crate) fn probe_answered(&mut self, id: ConnectionId, now: Instant) {
        if let Some(Phase::Trying {
            step: Step::Sent, ..
        }) = self.phase_of(id)
        {
            self.ready(id, now);
            return;
        }
        let Health::Probing {
            id: current,
            step: Step::Sent,
            give_up_at,
        } = self.health
        else {
            return;
        };
        if current != id {
            return;
        }
        self.breaker.probe_answered(now);
        if self.breaker.state(now) != BreakerState::Closed {
            self.probe(id, Step::Due, give_up_at);
            return;
        }
        self.health = Health::Well;
        self.failures = 0;
        for link in &mut self.links {
            if matches!(link.phase, Phase::Down) {
                link.phase = Phase::Due;
            }
        }
        self.ready(id, now);
    }

    /// The probe failed in some other way than by the loss of the connection.
    pub(crate) fn probe_failed(&mut self, id: ConnectionId, now: Instant) {
        if self.is_probing(id) {
            self.close(id, Phase::Down);
            self.isolate_again(now);
        } else if let Some(Phase::Trying { .. }) = self.phase_of(id) {
            self.close(id, Phase::Down);
            self.failed(now);
        }
    }

    /// It is no longer wanted. Its connections are closed once their calls are over.
    pub(crate) fn removed(&mut self) {
        if let Health::Probing { id, .. } = self.health {
            self.close(id, Phase::Down);
        }
        self.close_all(Phase::Down);
        self.health = Health::Removed;
    }

    /// Ends what has taken too long.
    fn give_up(&mut self, now: Instant) {
        if let Health::Probing {
            id,
            step: Step::Connecting | Step::Sent,
            give_up_at,
        } = self.health
            && now >= give_up_at
        {
            self.probe_failed(id, now);
        }
        for at in 0..self.links.len() {
            match self.links.get(at).map(|link| link.phase) {
                Some(
                    Phase::Connecting { id, give_up_at } | Phase::Trying { id, give_up_at, .. },
                ) if now >= give_up_at => {
                    self.close(id, Phase::Down);
                    self.failed(now);
                }
                Some(Phase::Stopping { id, give_up_at }) if now >= give_up_at => {
                    self.close(id, Phase::Due);
                }
                _ => {}
            }
        }
    }

    fn isolate_again(&mut self, now: Instant) {
        let until = self.breaker.probe_failed(now).until;
        self.health = Health::Isolated { until };
    }

    /// Begins a pause, or leaves the one that runs.
    fn failed(&mut self, now: Instant) {
        self.failed_at = Some(now);
        if now < self.retry_at {
            return;
        }
        self.failures = self.failures.saturating_add(1);
        let random = fraction(self.random.next());
        self.retry_at = now + self.options.backoff.delay(self.failures, random);
    }

    fn ready(&mut self, id: ConnectionId, since: Instant) {
        let silence = Silence::default();
        self.set(id.link, Phase::Ready { id, since, silence });
    }

    fn probe(&mut self, id: ConnectionId, step: Step, give_up_at: Instant) {
        self.health = Health::Probing {
            id,
            step,
            give_up_at,
        };
    }

    fn is_probing(&self, id: ConnectionId) -> bool {
        matches!(self.health, Health::Probing { id: current, .. } if current == id)
    }

    /// The phase of the link that this is the present connection or attempt of.
    fn phase_of(&self, id: ConnectionId) -> Option<Phase> {
        let phase = self.links.get(id.link.0)?.phase;
        (phase.id() == Some(id)).then_some(phase)
    }

    fn set(&mut self, link: LinkId, phase: Phase) {
        if let Some(link) = self.links.get_mut(link.0) {
            link.phase = phase;
        }
    }

    fn close(&mut self, id: ConnectionId, then: Phase) {
        if let Some(link) = self.links.get_mut(id.link.0) {
            link.closing = Some(id);
            link.phase = then;
        }
    }

    fn close_all(&mut self, then: Phase) {
        for link in &mut self.links {
            if let Some(id) = link.phase.id() {
                link.closing = Some(id);
            }
            if !matches!(link.phase, Phase::Vacant) {
                link.phase = then;
            }
        }
    }

    fn next_id(&mut self, link: LinkId) -> ConnectionId {
        self.last_attempt += 1;
        ConnectionId {
            link,
            attempt: self.last_attempt,
        }
    }
}

#[cfg(test)]
mod tests;
