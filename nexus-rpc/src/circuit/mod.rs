//! A circuit breaker for what a service itself depends on: a database, a cache, whatever is not reached
//! through a channel.
//!
//! ```text
//!   enter ──► Passage ── the work ──► answered, failed ──► too many: open, enter refuses at once
//!                │                                            │
//!   the watch ───┴─ it takes too long: counts as a time-out   └─ the watch probes until it is answered: closed
//! ```
//!
//! When it opens is decided as for an endpoint of a channel ([`BreakerOptions`]). Two things differ, because the
//! work here holds a thread: how many are at it at a time is limited, and work that hangs speaks against the
//! dependency while it hangs, not only when its own time-out ends it.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nexus_net::Backoff;
use parking_lot::{Condvar, Mutex, MutexGuard};
use rand::RngExt;

use crate::policy::breaker::{Breaker, BreakerState, Outcome};
use crate::{BreakerOptions, FailureWindow};

/// When a [`Circuit`] opens, and what it lets through.
#[derive(Debug, Clone)]
pub struct CircuitOptions {
    /// What is too many failures, and the pauses between probes. By default half of at least 10 in 5 s, or
    /// two time-outs in a row while nothing was answered; probed after 100 ms, then more and more seldom, at
    /// least once a second.
    pub breaker: BreakerOptions,
    /// Work that takes so long counts as a time-out, and as another one each time it has taken so much
    /// longer. Default 1 s.
    pub stalled_after: Duration,
    /// How many may be at work at a time; more wait for one to end. Default: no limit.
    pub at_work_max: usize,
    /// The longest that one waits for another to end. Default 1 s.
    pub wait_max: Duration,
}

impl Default for CircuitOptions {
    fn default() -> Self {
        Self {
            breaker: BreakerOptions {
                short: FailureWindow {
                    length: Duration::from_secs(5),
                    calls_min: 10,
                    failure_share_max: 0.5,
                },
                isolation: Backoff {
                    initial: Duration::from_millis(100),
                    max: Duration::from_secs(1),
                },
                ..BreakerOptions::default()
            },
            stalled_after: Duration::from_secs(1),
            at_work_max: usize::MAX,
            wait_max: Duration::from_secs(1),
        }
    }
}

/// Why the work is not to be begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoPassage {
    /// It failed too often a moment ago.
    #[error("it failed a moment ago and is not asked until it answers again")]
    Open,
    /// As many as may were at work for all of [`CircuitOptions::wait_max`].
    #[error("too many are at it already")]
    Busy,
}

/// Stands before one dependency. Dropped, it ends its thread.
#[derive(Debug)]
pub struct Circuit {
    shared: Arc<Shared>,
}

impl Circuit {
    /// A closed circuit. `probe` asks the dependency for a sign of life, and is called only while the circuit is
    /// open, on a thread of the circuit's own: it may block. `name` is for the log.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(
        name: impl Into<String>,
        options: CircuitOptions,
        probe: impl FnMut() -> bool + Send + 'static,
    ) -> io::Result<Self> {
        let breaker = Breaker::new(
            options.breaker.clone(),
            Instant::now(),
            rand::rng().random(),
        );
        let shared = Arc::new(Shared {
            name: name.into(),
            options,
            open: AtomicBool::new(false),
            state: Mutex::new(State {
                breaker,
                at_work: BTreeMap::new(),
                limited: 0,
                last_number: 0,
                watch_sleeps: false,
                on_open: Vec::new(),
                stop: false,
            }),
            changed: Condvar::new(),
            to_watch: Condvar::new(),
        });
        let watch = Arc::clone(&shared);
        thread::Builder::new()
            .name(format!("circuit-{}", shared.name))
            .spawn(move || watch.watch(probe))?;
        Ok(Self { shared })
    }

    /// Leave to begin. Blocks while [`CircuitOptions::at_work_max`] are at work, at most for
    /// [`CircuitOptions::wait_max`]; any thread that may do so.
    ///
    /// # Errors
    /// [`NoPassage`]; at once when the circuit is open or opens.
    pub fn enter(&self) -> Result<Passage<'_>, NoPassage> {
        let options = &self.shared.options;
        let until = Instant::now() + options.wait_max;
        let mut state = self.shared.state.lock();
        loop {
            if !state.is_closed() {
                return Err(NoPassage::Open);
            }
            if state.limited < options.at_work_max {
                return Ok(self.shared.begin(state, true));
            }
            let waited = self.shared.changed.wait_until(&mut state, until);
            if waited.timed_out() {
                return Err(NoPassage::Busy);
            }
        }
    }

    /// As [`enter`](Self::enter), without the limit and without blocking: for the few whose work shall not wait for
    /// others'.
    ///
    /// # Errors
    /// [`NoPassage::Open`].
    pub fn enter_at_once(&self) -> Result<Passage<'_>, NoPassage> {
        let state = self.shared.state.lock();
        match state.is_closed() {
            true => Ok(self.shared.begin(state, false)),
            false => Err(NoPassage::Open),
        }
    }

    /// Whether [`enter`](Self::enter) would refuse. Never blocks; any thread.
    pub fn is_open(&self) -> bool {
        self.shared.open.load(Ordering::Acquire)
    }

    /// How many are at work.
    pub fn at_work(&self) -> usize {
        self.shared.state.lock().at_work.len()
    }

    /// Calls `act` each time the circuit opens, on its own thread, before the first probe.
    pub fn on_open(&self, act: impl Fn() + Send + Sync + 'static) {
        self.shared.state.lock().on_open.push(Arc::new(act));
    }
}

impl Drop for Circuit {
    fn drop(&mut self) {
        self.shared.state.lock().stop = true;
        self.shared.to_watch.notify_one();
    }
}

/// Leave to do one piece of work. Dropped without a word on how it ended, it says nothing about the dependency.
#[derive(Debug)]
#[must_use = "say how it ended"]
pub struct Passage<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Passage<'_> {
    /// The dependency answered, be it with an error that is the asker's fault.
    pub fn answered(self) {
        self.shared.end(self.number, Some(Outcome::Success));
    }

    /// The dependency did not answer, or that it cannot.
    pub fn failed(self) {
        self.shared.end(self.number, Some(Outcome::Failure));
    }
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        self.shared.end(self.number, None);
    }
}

struct Shared {
    name: String,
    options: CircuitOptions,
    /// What the breaker says, to be read without the lock.
    open: AtomicBool,
    state: Mutex<State>,
    /// One less is at work, or the circuit has opened.
    changed: Condvar,
    /// The watch has something to watch.
    to_watch: Condvar,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("name", &self.name)
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}

struct State {
    breaker: Breaker,
    /// By number, so the oldest first.
    at_work: BTreeMap<u64, Work>,
    /// How many of those count towards the limit.
    limited: usize,
    last_number: u64,
    /// It waits without a time, because nothing was at work.
    watch_sleeps: bool,
    on_open: Vec<Arc<dyn Fn() + Send + Sync>>,
    stop: bool,
}

struct Work {
    began: Instant,
    limited: bool,
    /// When it counts as a time-out (again).
    stalls_at: Instant,
    /// It did count: if it fails, it was by a time-out.
    stalled: bool,
}

impl State {
    fn is_closed(&self) -> bool {
        self.breaker.state(Instant::now()) == BreakerState::Closed
    }
}

impl Shared {
    fn begin(&self, mut state: MutexGuard<'_, State>, limited: bool) -> Passage<'_> {
        let now = Instant::now();
        state.last_number += 1;
        let number = state.last_number;
        let work = Work {
            began: now,
            limited,
            stalls_at: now + self.options.stalled_after,
            stalled: false,
        };
        state.at_work.insert(number, work);
        state.limited += usize::from(limited);
        if std::mem::take(&mut state.watch_sleeps) {
            self.to_watch.notify_one();
        }
        Passage {
            shared: self,
            number,
        }
    }

    fn end(&self, number: u64, outcome: Option<Outcome>) {
        let mut state = self.state.lock();
        let Some(work) = state.at_work.remove(&number) else {
            return;
        };
        state.limited -= usize::from(work.limited);
        let outcome = match outcome {
            Some(Outcome::Failure) if work.stalled => Some(Outcome::TimedOut),
            outcome => outcome,
        };
        if let Some(outcome) = outcome {
            self.count(&mut state, outcome, work.began);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Tells the breaker, and everybody if it opens the circuit.
    fn count(&self, state: &mut State, outcome: Outcome, began: Instant) {
        let now = Instant::now();
        let latency = now.saturating_duration_since(began);
        let opens = state
            .breaker
            .on_outcome(now, outcome, latency, &mut || true)
            .is_some();
        if opens {
            self.open.store(true, Ordering::Release);
            self.changed.notify_all();
            self.to_watch.notify_one();
        }
    }

    /// The watch's thread.
    fn watch(&self, mut probe: impl FnMut() -> bool) {
        let mut state = self.state.lock();
        let mut told = false;
        while !state.stop {
            let now = Instant::now();
            match state.breaker.state(now) {
                BreakerState::Closed => self.wait_for_stall(&mut state, now),
                _ if !told => {
                    told = true;
                    log::warn!("{} fails: not asked until it answers again", self.name);
                    let acts = state.on_open.clone();
                    MutexGuard::unlocked(&mut state, || acts.iter().for_each(|act| act()));
                }
                BreakerState::Isolated { until } => {
                    self.to_watch.wait_until(&mut state, until);
                }
                BreakerState::HalfOpen => {
                    let answered = MutexGuard::unlocked(&mut state, || {
                        catch_unwind(AssertUnwindSafe(&mut probe)).unwrap_or(false)
                    });
                    let now = Instant::now();
                    match answered {
                        true => state.breaker.probe_answered(now),
                        false => drop(state.breaker.probe_failed(now)),
                    }
                    if state.breaker.state(now) == BreakerState::Closed {
                        told = false;
                        self.open.store(false, Ordering::Release);
                        log::info!("{} answers again", self.name);
                    }
                }
            }
        }
    }

    /// Counts what has taken too long, then waits until something else might have.
    fn wait_for_stall(&self, state: &mut MutexGuard<'_, State>, now: Instant) {
        let mut stalled = Vec::new();
        for work in state.at_work.values_mut() {
            if work.stalls_at <= now {
                work.stalls_at = now + self.options.stalled_after;
                work.stalled = true;
                stalled.push(work.began);
            }
        }
        for began in stalled {
            self.count(state, Outcome::TimedOut, began);
        }
        if self.open.load(Ordering::Acquire) {
            return;
        }
        let next = state.at_work.values().map(|work| work.stalls_at).min();
        match next {
            Some(next) => {
                self.to_watch.wait_until(state, next);
            }
            None => {
                state.watch_sleeps = true;
                self.to_watch.wait(state);
                state.watch_sleeps = false;
            }
        }
    }
}

#[cfg(test)]
mod tests;
