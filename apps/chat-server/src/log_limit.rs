//! Keeps what happens at every request of an outage from filling the log.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

const INTERVAL: Duration = Duration::from_secs(1);

/// Lets one line through per second. For a `static` beside what it limits.
pub(crate) struct LogLimit {
    last: Mutex<Option<Instant>>,
}

impl LogLimit {
    pub(crate) const fn new() -> Self {
        Self {
            last: Mutex::new(None),
        }
    }

    /// Whether a line may be written now.
    pub(crate) fn allows(&self) -> bool {
        let mut last = self.last.lock();
        let allowed = last.is_none_or(|last| last.elapsed() >= INTERVAL);
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
