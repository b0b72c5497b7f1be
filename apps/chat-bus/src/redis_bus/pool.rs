//! [`Pool`]: a bounded number of links, made when needed, and quick refusals while Redis is away.
//!
//! ```text
//!           a link fails                         the probe fails: wait longer
//!    Up ───────────────────> Down{retry_at} <──────────────────────────────┐
//!     ^                           │ retry_at has come: one caller goes on  │
//!     └──── any link works ───────┴────────────────────────────────────────┘
//! ```
//!
//! While down, callers are refused at once; only one at a time finds out whether Redis is back. So
//! a Redis that does not answer costs each thread one timeout, not one per call.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use redis::Value;

use super::link::{Endpoint, Link, LinkError};
use crate::BusError;

/// The pause after a first failure, and the longest one.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Links to one Redis.
pub(super) struct Pool {
    endpoint: Endpoint,
    links_max: usize,
    state: Mutex<State>,
    /// Signalled when a link was given back or given up, and when the health changed.
    changed: Condvar,
}

struct State {
    idle: Vec<Link>,
    /// Links idle or lent: at most `links_max`.
    links: usize,
    health: Health,
}

#[derive(Clone, Copy)]
enum Health {
    Up,
    Down { retry_at: Instant, pause: Duration },
}

impl Pool {
    /// A pool without links yet.
    pub(super) fn new(endpoint: Endpoint, links_max: usize) -> Self {
        let state = State {
            idle: Vec::new(),
            links: 0,
            health: Health::Up,
        };
        Self {
            endpoint,
            links_max,
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
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
        let deadline = Instant::now() + self.endpoint.timeout;
        let Permit { idle, probe } = self.admit(deadline)?;
        match self.exchange(idle, request, replies, deadline) {
            Ok((link, values)) => {
                self.give_back(link);
                Ok(values)
            }
            Err(error) => {
                self.give_up(&error, probe);
                Err(BusError::Unavailable {
                    reason: error.to_string(),
                })
            }
        }
    }

    fn exchange(
        &self,
        idle: Option<Link>,
        request: &[u8],
        replies: usize,
        deadline: Instant,
    ) -> Result<(Link, Vec<Value>), LinkError> {
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

    /// Waits for the right to use one link.
    fn admit(&self, deadline: Instant) -> Result<Permit, BusError> {
        let mut state = self.state.lock();
        let mut probe = false;
        loop {
            if let Health::Down { retry_at, pause } = state.health
                && !probe
            {
                if Instant::now() < retry_at {
                    return Err(unavailable("it failed a moment ago"));
                }
                probe = true;
                // The others stay refused while this one tries.
                state.health = Health::Down {
                    retry_at: deadline,
                    pause,
                };
            }
            if let Some(link) = state.idle.pop() {
                return Ok(Permit {
                    idle: Some(link),
                    probe,
                });
            }
            if state.links < self.links_max {
                state.links += 1;
                return Ok(Permit { idle: None, probe });
            }
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                return Err(unavailable("all connections are busy"));
            }
        }
    }

    fn give_back(&self, link: Link) {
        let mut state = self.state.lock();
        state.idle.push(link);
        let was_down = matches!(state.health, Health::Down { .. });
        state.health = Health::Up;
        drop(state);
        self.changed.notify_one();
        if was_down {
            log::info!("Redis is back");
        }
    }

    fn give_up(&self, error: &LinkError, probe: bool) {
        let mut state = self.state.lock();
        state.links -= 1;
        let pause = match state.health {
            Health::Up => PAUSE_MIN,
            Health::Down { pause, .. } if probe => (pause * 2).min(PAUSE_MAX),
            // Others that were under way when Redis went: no news.
            Health::Down { pause, .. } => pause,
        };
        let was_up = matches!(state.health, Health::Up);
        if was_up || probe {
            state.health = Health::Down {
                retry_at: Instant::now() + pause,
                pause,
            };
        }
        let stale = forget_idle(&mut state);
        drop(state);
        drop(stale);
        self.changed.notify_all();
        if was_up {
            log::warn!("Redis is not available: {error}; trying again");
        }
    }

    fn forget_idle(&self) {
        let stale = forget_idle(&mut self.state.lock());
        self.changed.notify_all();
        drop(stale);
    }
}

/// What closed or silenced one link did so to all: the idle ones are dropped with it.
fn forget_idle(state: &mut State) -> Vec<Link> {
    state.links -= state.idle.len();
    std::mem::take(&mut state.idle)
}

/// The right to use one link: an idle one, or one to be made.
struct Permit {
    idle: Option<Link>,
    /// Whether the caller is the one that finds out if Redis is back.
    probe: bool,
}

fn unavailable(reason: &str) -> BusError {
    BusError::Unavailable {
        reason: reason.to_owned(),
    }
}
