//! [`Pool`]: a bounded number of links, made when needed, behind a circuit breaker.
//!
//! While Redis is slow or away, callers are refused at once; a thread of the circuit's finds out when it is
//! back. A Redis that does not answer costs the callers who were first a time-out, and those after them nothing.

use std::time::{Duration, Instant};

use nexus_rpc::{BreakerOptions, Circuit, CircuitOptions};
use parking_lot::Mutex;
use redis::Value;

use super::link::{Endpoint, Link, LinkError};
use crate::BusError;

/// Links to one Redis.
pub(super) struct Pool {
    endpoint: Endpoint,
    circuit: Circuit,
    /// Not lent; the circuit limits how many there are.
    idle: Mutex<Vec<Link>>,
}

impl Pool {
    /// A pool without links yet.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub(super) fn new(endpoint: Endpoint, links_max: usize) -> std::io::Result<Self> {
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
        let probed = endpoint.clone();
        Ok(Self {
            circuit: Circuit::start("redis", options, move || answers(&probed))?,
            endpoint,
            idle: Mutex::default(),
        })
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Writes `request`, which holds `replies` commands, on some link and reads the replies.
    ///
    /// A link that Redis had closed since its last use is replaced and the request sent again,
    /// once. It may then have been carried out twice: all requests here bear that.
    pub(super) fn round_trip(
        &self,
        request: &[u8],
        replies: usize,
    ) -> Result<Vec<Value>, BusError> {
        let passage = self
            .circuit
            .enter()
            .map_err(|reason| unavailable(&reason))?;
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
                Err(LinkError::Closed) => self.forget_idle(),
                Err(error) => return Err(error),
            }
        }
        let mut link = self.endpoint.connect(deadline)?;
        let values = link.exchange(request, replies, deadline)?;
        Ok((link, values))
    }

    /// What closed or silenced one link did so to all: the idle ones are dropped with it.
    fn forget_idle(&self) {
        let stale = std::mem::take(&mut *self.idle.lock());
        drop(stale);
    }
}

/// The circuit's probe: any answer but an error is a sign of life.
fn answers(endpoint: &Endpoint) -> bool {
    let deadline = Instant::now() + endpoint.timeout;
    let ping = redis::cmd("PING").get_packed_command();
    let pong = endpoint
        .connect(deadline)
        .and_then(|mut link| link.exchange(&ping, 1, deadline));
    matches!(pong.as_deref(), Ok([pong]) if !matches!(pong, Value::ServerError(_)))
}

fn unavailable(reason: &dyn std::fmt::Display) -> BusError {
    BusError::Unavailable {
        reason: reason.to_string(),
    }
}
