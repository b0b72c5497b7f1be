//! How far behind the chat is, again and again: what the time to recovery is read from.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use chat_load::Load;
use parking_lot::Mutex;

/// How often it is looked.
const INTERVAL: Duration = Duration::from_millis(20);

/// What was seen at one moment. Times count from the load's epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sample {
    /// When.
    pub(crate) at: Duration,
    /// Everything that was due up to here is acknowledged and has reached everybody, in every conversation.
    pub(crate) settled: Duration,
}

/// A thread that looks at a load. Dropped, it ends.
pub(crate) struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    load: Arc<Load>,
    samples: Mutex<Vec<Sample>>,
    stop: AtomicBool,
}

impl Watch {
    pub(crate) fn start(load: Arc<Load>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            load,
            samples: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let looking = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || looking.run())?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Now, as the samples count.
    pub(crate) fn now(&self) -> Duration {
        self.shared.load.epoch().elapsed()
    }

    /// Forgets what was seen so far.
    pub(crate) fn begin(&self) {
        self.shared.samples.lock().clear();
    }

    /// What was seen since.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        self.shared.samples.lock().clone()
    }

    /// Waits until a sample shows that the chat is whole again after `moment`; `false` when that takes longer
    /// than `deadline`.
    pub(crate) fn wait_whole(&self, moment: Duration, deadline: Duration) -> bool {
        let until = Instant::now() + deadline;
        let is_whole = || {
            let samples = self.shared.samples.lock();
            samples.last().is_some_and(|last| last.settled >= moment)
        };
        while !is_whole() {
            if Instant::now() >= until {
                return false;
            }
            thread::sleep(INTERVAL);
        }
        true
    }
}

impl Shared {
    fn run(&self) {
        while !self.stop.load(Ordering::Relaxed) {
            let at = self.load.epoch().elapsed();
            let settled = self.load.settled();
            self.samples.lock().push(Sample { at, settled });
            thread::sleep(INTERVAL);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// How long after `moment` the chat was first seen to be whole again: in every conversation something that was
/// due later has reached everybody, and all that was due before it.
pub(crate) fn whole_after(samples: &[Sample], moment: Duration) -> Option<Duration> {
    let whole = samples.iter().find(|sample| sample.settled >= moment)?;
    Some(whole.at.saturating_sub(moment))
}

/// The longest that something was waited for, from when it was due until everybody had it.
pub(crate) fn longest_wait(samples: &[Sample]) -> Duration {
    let waits = samples
        .iter()
        .map(|sample| sample.at.saturating_sub(sample.settled));
    waits.max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at_ms: u64, settled_ms: u64) -> Sample {
        Sample {
            at: Duration::from_millis(at_ms),
            settled: Duration::from_millis(settled_ms),
        }
    }

    #[test]
    fn whole_is_when_the_slowest_conversation_has_something_newer() {
        let samples = [
            sample(1000, 990),
            sample(1500, 990),
            sample(2100, 1990),
            sample(2200, 2150),
        ];
        let after = |ms| whole_after(&samples, Duration::from_millis(ms));
        assert_eq!(after(1400), Some(Duration::from_millis(700)));
        assert_eq!(after(2000), Some(Duration::from_millis(200)));
        assert_eq!(after(2190), None);
        assert_eq!(longest_wait(&samples), Duration::from_millis(510));
        assert_eq!(longest_wait(&[]), Duration::ZERO);
    }
}
