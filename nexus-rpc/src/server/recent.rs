//! Counters as they were up to a minute ago, so that pages can show what has happened since.

use std::collections::VecDeque;
use std::sync::Weak;
use std::time::{Duration, Instant};

use nexus_net::LoopContext;
use parking_lot::Mutex;

use super::serving::Serving;
use super::stats::Snapshot;

/// How often the counters are copied.
const INTERVAL: Duration = Duration::from_secs(10);

/// Copies kept: what is recent lasts as many intervals.
const COPIES: usize = 6;

/// The copies, the oldest first.
#[derive(Debug)]
pub(crate) struct Recent {
    started: Instant,
    copies: Mutex<VecDeque<(Instant, Vec<Snapshot>)>>,
}

impl Recent {
    pub(super) fn new(now: Instant) -> Self {
        let copies = Mutex::default();
        Self {
            started: now,
            copies,
        }
    }

    /// The oldest copy, method by method, and how long ago it was made; since the start and nothing to
    /// subtract before there is one.
    pub(crate) fn before(&self) -> (Duration, Vec<Snapshot>) {
        match self.copies.lock().front() {
            Some((at, copy)) => (at.elapsed(), copy.clone()),
            None => (self.started.elapsed(), Vec::new()),
        }
    }

    fn add(&self, copy: Vec<Snapshot>) {
        let mut copies = self.copies.lock();
        if copies.len() >= COPIES {
            copies.pop_front();
        }
        copies.push_back((Instant::now(), copy));
    }
}

/// Copies the counters from time to time, for as long as the provider lives.
pub(super) fn keep_copying(context: &mut LoopContext<'_>, serving: Weak<Serving>) {
    context.after(INTERVAL, move |context| {
        let Some(alive) = serving.upgrade() else {
            return;
        };
        let methods = alive.methods().iter();
        alive
            .recent
            .add(methods.map(|method| method.stats.snapshot()).collect());
        drop(alive);
        keep_copying(context, serving);
    });
}
