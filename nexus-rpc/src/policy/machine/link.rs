//! One link of an endpoint: a place for a connection, as the machine sees it.

use std::time::{Duration, Instant};

use crate::policy::breaker::Outcome;

/// A link of an endpoint. The first is [`FIRST_LINK`]; the number of a removed one is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct LinkId(pub(crate) usize);

/// The link that every endpoint has. It makes the probes.
pub(crate) const FIRST_LINK: LinkId = LinkId(0);

/// An attempt to connect, and the connection that comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ConnectionId {
    pub(crate) link: LinkId,
    /// Never repeats within a machine.
    pub(super) attempt: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Link {
    pub(super) phase: Phase,
    /// To be closed before the link connects again.
    pub(super) closing: Option<ConnectionId>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Phase {
    /// There is no such link.
    Vacant,
    /// To be connected at once.
    Due,
    /// Lost, or could not be made: to be connected after the pause.
    Down,
    Connecting {
        id: ConnectionId,
        give_up_at: Instant,
    },
    /// Connected, and takes no calls before it has answered a probe.
    Trying {
        id: ConnectionId,
        step: Step,
        give_up_at: Instant,
    },
    Ready {
        id: ConnectionId,
        since: Instant,
        silence: Silence,
    },
    Stopping {
        id: ConnectionId,
        give_up_at: Instant,
    },
}

/// Time-outs of one connection in a row, during which nothing was answered on it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Silence {
    pub(super) timeouts: u32,
    answered_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Connecting,
    /// Connected, and the driver has not been told to send.
    Due,
    Sent,
}

impl Link {
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::Due,
            closing: None,
        }
    }
}

impl Phase {
    /// The present connection or attempt.
    pub(super) fn id(&self) -> Option<ConnectionId> {
        match self {
            Self::Connecting { id, .. }
            | Self::Trying { id, .. }
            | Self::Ready { id, .. }
            | Self::Stopping { id, .. } => Some(*id),
            Self::Vacant | Self::Due | Self::Down => None,
        }
    }
}

impl Silence {
    pub(super) fn note(&mut self, outcome: Outcome, now: Instant, latency: Duration) {
        if outcome != Outcome::TimedOut {
            self.timeouts = 0;
            self.answered_at = Some(now);
        } else if self
            .answered_at
            .is_none_or(|at| now.checked_sub(latency) >= Some(at))
        {
            // Nothing was answered while the call waited.
            self.timeouts = self.timeouts.saturating_add(1);
        }
    }
}
