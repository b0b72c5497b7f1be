//! One value that says whether the program runs, drains or has stopped.
//!
//! ```text
//! Running ── trigger: a signal, a test ──> Draining{deadline} ── stopped ──> Stopped
//! ```
//!
//! Draining means: take nothing new, finish what is under way, and be done by the deadline.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::reload::Reload;

/// The exit code after a second signal: 128 + SIGINT, as shells have it.
const EXIT_INTERRUPTED: i32 = 130;

/// The state of a program's shutdown; clones share it, and any thread may use it.
#[derive(Debug, Clone)]
pub struct Drain {
    shared: Arc<Shared>,
}

/// How far the shutdown is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// No shutdown yet.
    Running,
    /// Take nothing new and finish what is under way.
    Draining {
        /// When to give up what is still under way.
        deadline: Instant,
    },
    /// All is done.
    Stopped,
}

#[derive(Debug)]
struct Shared {
    grace: Duration,
    phase: Mutex<Phase>,
    changed: Condvar,
}

impl Drain {
    /// A program that runs, and that will have `grace` (at most a day) from the trigger to the
    /// deadline.
    pub fn new(grace: Duration) -> Self {
        let grace = grace.min(Duration::from_secs(24 * 60 * 60));
        let (phase, changed) = (Mutex::new(Phase::Running), Condvar::new());
        Self {
            shared: Arc::new(Shared {
                grace,
                phase,
                changed,
            }),
        }
    }

    /// As [`new`](Self::new), triggered by SIGTERM or SIGINT. A second one ends the process at
    /// once, with exit code 130. SIGHUP ends nothing; it has `reload` read again what it can. To be
    /// called once per process.
    ///
    /// # Errors
    /// If the system refuses the signal handlers or the thread that waits for signals.
    pub fn on_signals(grace: Duration, reload: Reload) -> io::Result<Self> {
        let drain = Self::new(grace);
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        let triggered = drain.clone();
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                let mut first = true;
                for signal in signals.forever() {
                    if signal == SIGHUP {
                        reload.run();
                        continue;
                    }
                    let name = signal_hook::low_level::signal_name(signal).unwrap_or("signal");
                    if !first {
                        log::error!("{name} again: ending at once");
                        std::process::exit(EXIT_INTERRUPTED);
                    }
                    first = false;
                    log::info!("{name}: draining, for at most {:?}", triggered.shared.grace);
                    triggered.trigger();
                }
            })?;
        Ok(drain)
    }

    /// Starts draining, if the program still runs.
    pub fn trigger(&self) {
        let mut phase = self.shared.phase.lock();
        if *phase == Phase::Running {
            *phase = Phase::Draining {
                deadline: Instant::now() + self.shared.grace,
            };
            self.shared.changed.notify_all();
        }
    }

    /// Says that all is done.
    pub fn stopped(&self) {
        *self.shared.phase.lock() = Phase::Stopped;
        self.shared.changed.notify_all();
    }

    /// How far the shutdown is.
    pub fn phase(&self) -> Phase {
        *self.shared.phase.lock()
    }

    /// Blocks until draining starts and returns the deadline; now, if all is done already.
    pub fn wait(&self) -> Instant {
        let mut phase = self.shared.phase.lock();
        loop {
            match *phase {
                Phase::Running => self.shared.changed.wait(&mut phase),
                Phase::Draining { deadline } => return deadline,
                Phase::Stopped => return Instant::now(),
            }
        }
    }

    /// As [`wait`](Self::wait), but for at most `patience`; `None` when nothing happened in it.
    pub fn wait_for(&self, patience: Duration) -> Option<Instant> {
        let until = Instant::now() + patience;
        let mut phase = self.shared.phase.lock();
        loop {
            match *phase {
                Phase::Running => {
                    if self
                        .shared
                        .changed
                        .wait_until(&mut phase, until)
                        .timed_out()
                    {
                        return None;
                    }
                }
                Phase::Draining { deadline } => return Some(deadline),
                Phase::Stopped => return Some(Instant::now()),
            }
        }
    }

    /// Blocks until all is done or `deadline` has come, and says whether all is done.
    pub fn wait_stopped(&self, deadline: Instant) -> bool {
        let mut phase = self.shared.phase.lock();
        while *phase != Phase::Stopped {
            if self
                .shared
                .changed
                .wait_until(&mut phase, deadline)
                .timed_out()
            {
                return *phase == Phase::Stopped;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(60);

    #[test]
    fn a_trigger_wakes_all_who_wait_and_sets_one_deadline() {
        let drain = Drain::new(GRACE);
        assert_eq!(drain.phase(), Phase::Running);
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let drain = drain.clone();
                thread::spawn(move || drain.wait())
            })
            .collect();
        let before = Instant::now();
        drain.trigger();
        let deadline = drain.wait();
        drain.trigger();
        assert_eq!(drain.phase(), Phase::Draining { deadline });
        assert!((before + GRACE..=Instant::now() + GRACE).contains(&deadline));
        for thread in waiting {
            assert_eq!(thread.join().expect("no panic"), deadline);
        }
    }

    #[test]
    fn what_has_stopped_stays_stopped() {
        let drain = Drain::new(GRACE);
        drain.trigger();
        assert!(!drain.wait_stopped(Instant::now()));
        let stopping = drain.clone();
        let thread = thread::spawn(move || stopping.stopped());
        assert!(drain.wait_stopped(Instant::now() + GRACE));
        thread.join().expect("no panic");
        drain.trigger();
        assert_eq!(drain.phase(), Phase::Stopped);
        assert!(drain.wait() <= Instant::now());
    }

    #[test]
    fn the_longest_grace_is_no_overflow() {
        let drain = Drain::new(Duration::MAX);
        drain.trigger();
        assert!(drain.wait() > Instant::now());
    }
}
