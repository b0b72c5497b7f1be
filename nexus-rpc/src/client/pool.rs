//! The further connections to a provider: as many as the options say, or as many as calls need at a time.
//!
//! ```text
//!   a call finds none idle ─► add ─► used ... idle for a whole period ─► closed
//! ```
//!
//! Once a period it is looked which of those that were added had a call since the last look. One that had none
//! is taken off the list and dropped, and closes when the last call that found it there is over.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use nexus_net::LoopHandle;
use parking_lot::Mutex;

use super::link::{InFlight, Link};

/// A shorter period would be all looking.
const PERIOD_MIN: Duration = Duration::from_millis(10);

pub(super) struct Pool {
    /// Replaced as a whole, so that a call reads it without a lock.
    links: ArcSwap<Vec<Arc<Link>>>,
    /// Held while the list changes. Whether the next look is due by itself.
    looking: Mutex<bool>,
    period: Duration,
    timers: LoopHandle,
}

impl Pool {
    /// These connections, which stay, and such as are [added](Self::add), which are closed when a call has
    /// used none of them for `period`. `timers` is a loop that looks.
    pub(super) fn new(links: Vec<Arc<Link>>, period: Duration, timers: LoopHandle) -> Arc<Self> {
        Arc::new(Self {
            links: ArcSwap::from_pointee(links),
            looking: Mutex::new(false),
            period: period.max(PERIOD_MIN),
            timers,
        })
    }

    pub(super) fn links(&self) -> Guard<Arc<Vec<Arc<Link>>>> {
        self.links.load()
    }

    /// A connection that `claim` has found, looking again while nobody else adds one; or else one that
    /// `start` has made, if there are fewer than `max`. Whether it is a new one.
    pub(super) fn claim_or_add(
        self: &Arc<Self>,
        max: usize,
        claim: impl FnOnce(&[Arc<Link>]) -> Option<(Arc<Link>, InFlight)>,
        start: impl FnOnce() -> (Arc<Link>, InFlight),
    ) -> Option<((Arc<Link>, InFlight), bool)> {
        let mut looking = self.looking.lock();
        let links = self.links.load();
        if let Some(claimed) = claim(&links) {
            return Some((claimed, false));
        }
        if links.len() >= max {
            return None;
        }
        let claimed = start();
        let mut more = Vec::clone(&links);
        more.push(Arc::clone(&claimed.0));
        self.links.store(Arc::new(more));
        if !std::mem::replace(&mut *looking, true) {
            self.look_later();
        }
        Some((claimed, true))
    }

    fn look_later(self: &Arc<Self>) {
        let pool = Arc::downgrade(self);
        // Refused, the loop has gone, and with it the connections.
        let _ = self.timers.post_after(self.period, move |_| {
            if let Some(pool) = pool.upgrade() {
                pool.close_unused();
            }
        });
    }

    fn close_unused(self: &Arc<Self>) {
        let mut looking = self.looking.lock();
        let links = self.links.load();
        let used = links.iter().filter(|link| link.was_used());
        let used: Vec<_> = used.map(Arc::clone).collect();
        *looking = !used.is_empty();
        if *looking {
            self.look_later();
        }
        if used.len() < links.len() {
            self.links.store(Arc::new(used));
        }
    }
}
