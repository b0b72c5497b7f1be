//! [`Pool`]: a bounded number of links, made when needed, behind a circuit breaker.
//!
//! While Redis is slow or away, or refuses, callers are refused at once; a thread of the circuit's finds out when it is
//! back. A Redis that does not answer costs the callers who were first a time-out, and those after them nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus_rpc::{BreakerOptions, Circuit, CircuitOptions, NoPassage, Passage};
use parking_lot::Mutex;
use redis::{Cmd, Value};

use super::link::{Endpoint, Link, LinkError};
use super::refusal::LastRefusal;
use crate::BusError;

/// Links to one Redis.
pub(super) struct Pool {
    endpoint: Endpoint,
    circuit: Circuit,
    /// Not lent; the circuit limits how many there are.
    idle: Mutex<Vec<Link>>,
    refusal: Arc<LastRefusal>,
}

impl Pool {
    /// A pool without links yet. Redis is back when it carries out all of `probe`.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub(super) fn new(
        endpoint: Endpoint,
        links_max: usize,
        probe: &[Cmd],
    ) -> std::io::Result<Self> {
        let options = CircuitOptions {
            // A request that has waited for half of its time is one sign, that it ends without an answer another.
            stalled_after: (endpoint.timeout / 2).max(Duration::from_millis(1)),
            at_work_max: links_max,
            wait_max: endpoint.timeout,
            breaker: BreakerOptions {
                silent_timeouts: 2,
                ..CircuitOptions::default().breaker
            },
        };
        let refusal = Arc::<LastRefusal>::default();
        let probe = Probe {
            endpoint: endpoint.clone(),
            refusal: Arc::clone(&refusal),
            commands: probe.len(),
            request: probe.iter().flat_map(Cmd::get_packed_command).collect(),
        };
        Ok(Self {
            circuit: Circuit::start("redis", options, move || probe.succeeds())?,
            endpoint,
            idle: Mutex::default(),
            refusal,
        })
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Writes `request`, which holds `replies` commands, on some link and reads the replies.
    ///
    /// A link that has ended since its last use (closed, or at a Redis that refuses by now) is replaced and the request
    /// sent again, once. It may then have been carried out twice: all requests here bear that.
    pub(super) fn round_trip(
        &self,
        request: &[u8],
        replies: usize,
    ) -> Result<Vec<Value>, BusError> {
        self.pass(self.circuit.enter(), request, replies)
    }

    /// As [`round_trip`](Self::round_trip), without waiting for a link: for the few requests of subscriptions.
    pub(super) fn round_trip_at_once(
        &self,
        request: &[u8],
        replies: usize,
    ) -> Result<Vec<Value>, BusError> {
        self.pass(self.circuit.enter_at_once(), request, replies)
    }

    fn pass(
        &self,
        passage: Result<Passage<'_>, NoPassage>,
        request: &[u8],
        replies: usize,
    ) -> Result<Vec<Value>, BusError> {
        let passage = passage.map_err(|reason| match self.refusal.recent() {
            Some(refusal) => unavailable(&LinkError::Refused(refusal)),
            None => unavailable(&reason),
        })?;
        // From here: what was waited for a link is none of Redis's time.
        let deadline = Instant::now() + self.endpoint.timeout;
        match self.exchange(request, replies, deadline) {
            Ok((link, values)) => {
                self.idle.lock().push(link);
                passage.answered();
                Ok(values)
            }
            Err(error) => {
                self.forget_idle();
                passage.failed();
                if let LinkError::Refused(refusal) = &error {
                    self.refusal.note(refusal);
                }
                Err(unavailable(&error))
            }
        }
    }

    fn exchange(
        &self,
        request: &[u8],
        replies: usize,
        deadline: Instant,
    ) -> Result<(Link, Vec<Value>), LinkError> {
        let idle = self.idle.lock().pop();
        if let Some(mut link) = idle {
            match link.exchange(request, replies, deadline) {
                Ok(values) => return Ok((link, values)),
                Err(LinkError::Closed | LinkError::Refused(_)) => self.forget_idle(),
                Err(error) => return Err(error),
            }
        }
        let mut link = self.endpoint.connect(deadline)?;
        let values = link.exchange(request, replies, deadline)?;
        Ok((link, values))
    }

    /// What closed, silenced or demoted one link did so to all: the idle ones are dropped with it.
    fn forget_idle(&self) {
        let stale = std::mem::take(&mut *self.idle.lock());
        drop(stale);
    }
}

/// The circuit's probe. A sign of life is not enough: Redis may answer a `PING` and refuse all else.
struct Probe {
    endpoint: Endpoint,
    refusal: Arc<LastRefusal>,
    request: Vec<u8>,
    commands: usize,
}

impl Probe {
    fn succeeds(&self) -> bool {
        let deadline = Instant::now() + self.endpoint.timeout;
        let answered = self
            .endpoint
            .connect(deadline)
            .and_then(|mut link| link.exchange_checked(&self.request, self.commands, deadline));
        if let Err(LinkError::Refused(refusal)) = &answered {
            self.refusal.note(refusal);
        }
        answered.is_ok()
    }
}

fn unavailable(reason: &dyn std::fmt::Display) -> BusError {
    BusError::Unavailable {
        reason: reason.to_string(),
    }
}
