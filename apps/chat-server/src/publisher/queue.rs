//! What waits for the publisher's thread.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use chat_bus::SessionRef;
use chat_store::UserId;
use parking_lot::{Condvar, Mutex};

use super::{End, Job};
use crate::log_limit::LogLimit;

/// Jobs that may wait, and the bytes of their texts.
pub(super) const QUEUE_MAX: usize = 65_536;
pub(super) const QUEUE_BYTES_MAX: usize = 64 << 20;
/// Ends of sessions that may wait. Each comes of a claim that the bus has granted, so there are no more while it is
/// away.
pub(super) const ENDS_MAX: usize = 65_536;

static QUEUE_IS_FULL: LogLimit = LogLimit::new();
static TOO_MANY_ENDS: LogLimit = LogLimit::new();

/// Jobs in their order, and ends of sessions, which are no job and go first.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// There is something to do, or the queue is closed.
    woken: Condvar,
    /// There is nothing left to do.
    idle: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Of the texts of jobs that wait or are being published.
    bytes: usize,
    ends: Vec<(UserId, SessionRef, End)>,
    /// The thread has been told of what waits.
    called: bool,
    at_work: bool,
    closed: bool,
}

impl Queue {
    // ---- any thread ----

    /// Adds a job, unless too much waits. The thread learns of it with the next [`wake`](Self::wake).
    pub(super) fn add(&self, job: Job) {
        let mut state = self.state.lock();
        let bytes = state.bytes + job.bytes();
        if state.jobs.len() < QUEUE_MAX && bytes <= QUEUE_BYTES_MAX {
            state.bytes = bytes;
            state.jobs.push_back(job);
        } else if QUEUE_IS_FULL.allows() {
            log::warn!("the publisher's queue is full; a push is left to be fetched");
        }
    }

    /// Adds the end of a session, unless too many wait.
    pub(super) fn add_end(&self, user: UserId, session: SessionRef, end: End) {
        let mut state = self.state.lock();
        if state.ends.len() < ENDS_MAX {
            state.ends.push((user, session, end));
        } else if TOO_MANY_ENDS.allows() {
            log::warn!("too many ends of sessions wait; one is left to be found");
        }
    }

    /// Has the thread look at what was added.
    pub(super) fn wake(&self) {
        let mut state = self.state.lock();
        if !state.is_empty() && !state.called {
            state.called = true;
            drop(state);
            self.woken.notify_one();
        }
    }

    /// What comes later is not waited for: the thread ends when it has tried what there is.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.woken.notify_one();
    }

    /// Waits until there is nothing left to do.
    pub(super) fn wait_idle(&self, within: Duration) {
        let deadline = Instant::now() + within;
        let mut state = self.state.lock();
        while state.at_work || !state.is_empty() {
            if self.idle.wait_until(&mut state, deadline).timed_out() {
                return;
            }
        }
    }

    // ---- the publisher's thread ----

    /// Waits for something to do, and takes as many jobs; `None` when there is and will be nothing. Ends stay where
    /// they are until [`told`](Self::told).
    pub(super) fn take(&self, count_max: usize) -> Option<Vec<Job>> {
        let mut state = self.state.lock();
        while !state.called && !state.closed {
            self.woken.wait(&mut state);
        }
        if state.is_empty() {
            return None;
        }
        let count = state.jobs.len().min(count_max);
        let taken = state.jobs.drain(..count).collect();
        state.at_work = true;
        Some(taken)
    }

    /// What was taken has been dealt with.
    pub(super) fn done(&self, taken: &[Job]) {
        let mut state = self.state.lock();
        state.bytes -= taken.iter().map(Job::bytes).sum::<usize>();
        state.at_work = false;
        state.called = !state.is_empty();
        if state.is_empty() {
            drop(state);
            self.idle.notify_all();
        }
    }

    pub(super) fn ends(&self) -> Vec<(UserId, SessionRef, End)> {
        self.state.lock().ends.clone()
    }

    /// Removes the first ends, or all.
    pub(super) fn told(&self, count_max: usize) {
        let ends = &mut self.state.lock().ends;
        let count = ends.len().min(count_max);
        ends.drain(..count);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> (usize, usize, usize) {
        let state = self.state.lock();
        (state.jobs.len(), state.bytes, state.ends.len())
    }
}

impl State {
    fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.ends.is_empty()
    }
}
