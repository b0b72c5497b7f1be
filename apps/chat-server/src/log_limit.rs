//! Keeps what happens at every request of an outage from filling the log.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Lets one line through per interval. For a `static` beside what it limits.
pub(crate) struct LogLimit {
    interval: Duration,
    last: Mutex<Option<Instant>>,
}

impl LogLimit {
    /// One line per second.
    pub(crate) const fn new() -> Self {
        Self::every(Duration::from_secs(1))
    }

    /// For what somebody has to mend: it lasts, and the first line says it all.
    pub(crate) const fn once_a_minute() -> Self {
        Self::every(Duration::from_secs(60))
    }

    const fn every(interval: Duration) -> Self {
        Self {
            interval,
            last: Mutex::new(None),
        }
    }

    /// Whether a line may be written now.
    pub(crate) fn allows(&self) -> bool {
        let mut last = self.last.lock();
        let allowed = last.is_none_or(|last| last.elapsed() >= self.interval);
        if allowed {
            *last = Some(Instant::now());
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_at_once_one_is_let_through() {
        let limit = LogLimit::new();
        assert_eq!((0..100).filter(|_| limit.allows()).count(), 1);
    }
}
