//! Whether this process has stood still: stopped, or on a machine that was suspended.
//!
//! What lies in a socket then has waited, nobody knows how long. So a thread beats, and what is read right after beats
//! were missing counts as old as the last one before: a client that has given up its request meanwhile, and has come back
//! elsewhere, must not be harmed by it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

const BEAT: Duration = Duration::from_millis(250);
/// Beats come later than they should on a busy machine, but not by so much.
const STILL_MS: u64 = 1_000;
/// How long after the process goes on, what is read may still be from before: a connection is accepted in one turn of a
/// loop, handed to another loop, and read in a later turn.
const AFTERMATH_MS: u64 = 1_000;

/// The beats. From any thread; no locks. Times are in milliseconds since the machine started, suspension included.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    last_ms: AtomicU64,
    /// The last time that the process stood still: from, until.
    still_from_ms: AtomicU64,
    still_until_ms: AtomicU64,
}

/// Lets the thread end when dropped.
#[derive(Debug)]
pub(crate) struct Beating {
    _stop: Sender<()>,
}

impl Pulse {
    /// Starts the thread.
    pub(crate) fn start(self: &Arc<Self>) -> std::io::Result<(Beating, JoinHandle<()>)> {
        self.last_ms.store(now_ms(), Ordering::Release);
        let (stop, stopped) = channel();
        let pulse = Arc::clone(self);
        let thread = thread::Builder::new()
            .name("proxy-pulse".to_owned())
            .spawn(move || pulse.run(&stopped))?;
        Ok((Beating { _stop: stop }, thread))
    }

    /// How long what is read now can have waited; zero if the process has not stood still.
    pub(crate) fn stood_still(&self) -> Duration {
        Duration::from_millis(self.stood_still_at(now_ms()))
    }

    fn run(&self, stopped: &Receiver<()>) {
        while stopped.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
            let gap_ms = self.beat(now_ms());
            if gap_ms > STILL_MS {
                log::warn!("the process stood still for {gap_ms} ms");
            }
        }
    }

    /// Returns the time since the last beat.
    fn beat(&self, now_ms: u64) -> u64 {
        let last_ms = self.last_ms.load(Ordering::Acquire);
        let gap_ms = now_ms.saturating_sub(last_ms);
        if gap_ms > STILL_MS {
            self.still_from_ms.store(last_ms, Ordering::Release);
            self.still_until_ms.store(now_ms, Ordering::Release);
        }
        // Last: who sees this beat sees what it has found.
        self.last_ms.store(now_ms, Ordering::Release);
        gap_ms
    }

    fn stood_still_at(&self, now_ms: u64) -> u64 {
        let since_beat_ms = now_ms.saturating_sub(self.last_ms.load(Ordering::Acquire));
        if since_beat_ms > STILL_MS {
            return since_beat_ms;
        }
        let until_ms = self.still_until_ms.load(Ordering::Acquire);
        match until_ms > 0 && now_ms < until_ms + AFTERMATH_MS {
            true => now_ms.saturating_sub(self.still_from_ms.load(Ordering::Acquire)),
            false => 0,
        }
    }
}

fn now_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds * 1_000 + nanoseconds / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Has beaten once a quarter of a second, up to 100 s.
    fn beating() -> Pulse {
        let pulse = Pulse::default();
        pulse.last_ms.store(90_000, Ordering::Release);
        for now_ms in (90_250..=100_000).step_by(250) {
            assert_eq!(pulse.beat(now_ms), 250);
        }
        pulse
    }

    #[test]
    fn while_it_beats_nothing_has_waited() {
        let pulse = beating();
        for later_ms in [0, 250, 1_000] {
            assert_eq!(pulse.stood_still_at(100_000 + later_ms), 0);
        }
    }

    #[test]
    fn what_is_read_before_the_first_beat_is_as_old_as_the_last_one() {
        assert_eq!(beating().stood_still_at(107_000), 7_000);
    }

    #[test]
    fn what_is_read_soon_after_it_goes_on_is_as_old() {
        let pulse = beating();
        assert_eq!(pulse.beat(107_000), 7_000);
        assert_eq!(pulse.stood_still_at(107_001), 7_001);
        pulse.beat(107_250);
        assert_eq!(pulse.stood_still_at(107_900), 7_900);
        for now_ms in [107_500, 107_750, 108_000] {
            pulse.beat(now_ms);
        }
        assert_eq!(pulse.stood_still_at(108_000), 0);
    }

    #[test]
    fn a_process_that_runs_has_not_stood_still() {
        let pulse = Arc::new(Pulse::default());
        let (beating, thread) = pulse.start().expect("a thread");
        assert_eq!(pulse.stood_still(), Duration::ZERO);
        drop(beating);
        thread.join().expect("it ends");
    }
}
