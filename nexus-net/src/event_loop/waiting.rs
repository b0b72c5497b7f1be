//! How a loop waits that has run out of work: whether it looks around for a moment before it sleeps.
//!
//! To fall asleep and be woken takes some twenty microseconds at either end of an exchange, which is longer
//! than a short turn. Where the next work comes sooner than that, looking for it gets it done sooner, and for
//! less; where it does not, looking is for nothing. What comes next nobody knows, so the loop goes by
//! what came lately: it looks only while the average of its last waits is within what it would look for.
//!
//! Between two looks it offers its processor to others. If that comes back late, others need it: then the
//! loop had better sleep, since who is woken comes before those who run. It sleeps through a number of
//! waits, twice as many each time.

use std::time::Duration;

/// A wait's share in the average is one of so many.
const SHARES: u64 = 8;

/// Waits that are slept through after the processor came back late, at first and at most.
const SLEEPS_MIN: u32 = 64;
const SLEEPS_MAX: u32 = 1 << 16;

/// How a loop works.
#[derive(Debug, Clone, Default)]
pub struct LoopOptions {
    /// How long a loop that has run out of work looks around before it sleeps. It does so only while its waits
    /// are that short on average and nobody else wants its processor. With 50 µs at both ends, a few
    /// calls in flight are answered in half the time or less, on a machine that has processors to
    /// spare; where it has not, or where CPU time is rationed or counted, looking around costs more than it
    /// brings (`benches/README.md`). 0 for never, which is the default.
    pub look_around_max: Duration,
}

/// What a loop remembers of its waits.
#[derive(Debug)]
pub(super) struct Waiting {
    look_max: Duration,
    average_ns: u64,
    /// Waits that are still to be slept through.
    sleeps: u32,
    /// As many the next time.
    sleeps_next: u32,
}

impl Waiting {
    /// Of a loop that has not waited yet: it begins by sleeping.
    pub(super) fn new(options: &LoopOptions) -> Self {
        Self {
            look_max: options.look_around_max,
            average_ns: u64::MAX / SHARES,
            sleeps: 0,
            sleeps_next: SLEEPS_MIN,
        }
    }

    /// Whether the loop ever looks around; if not, nothing of its waits need be known.
    pub(super) fn may_look(&self) -> bool {
        !self.look_max.is_zero()
    }

    /// How long to look around before sleeping; zero for not at all.
    pub(super) fn look_for(&self) -> Duration {
        match self.sleeps == 0 && self.average_ns <= nanos(self.look_max) {
            true => self.look_max,
            false => Duration::ZERO,
        }
    }

    /// While the loop looked around somebody else took its processor, and kept it.
    pub(super) fn gave_way(&mut self) {
        self.sleeps = self.sleeps_next;
        self.sleeps_next = (2 * self.sleeps_next).min(SLEEPS_MAX);
    }

    /// A wait is over, in which way ever.
    pub(super) fn waited(&mut self, time: Duration) {
        // However long it was, a few short ones after it are to be enough.
        let most_ns = nanos(self.look_max).saturating_mul(4);
        let average_ns = self.average_ns.min(most_ns);
        self.average_ns = (average_ns * (SHARES - 1) + nanos(time).min(most_ns)) / SHARES;
        match self.sleeps {
            0 => self.sleeps_next = (self.sleeps_next - 1).max(SLEEPS_MIN),
            left => self.sleeps = left - 1,
        }
    }
}

/// So much that sums of it do not overflow.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).map_or(u64::MAX / SHARES, |ns| ns.min(u64::MAX / SHARES))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(waits: &[u64]) -> Waiting {
        let look_around_max = Duration::from_micros(50);
        let mut waiting = Waiting::new(&LoopOptions { look_around_max });
        wait(&mut waiting, waits);
        waiting
    }

    fn wait(waiting: &mut Waiting, waits: &[u64]) {
        for &us in waits {
            waiting.waited(Duration::from_micros(us));
        }
    }

    fn looks(waiting: &Waiting) -> bool {
        !waiting.look_for().is_zero()
    }

    #[test]
    fn a_loop_looks_around_once_its_work_comes_soon_and_sleeps_once_it_does_not() {
        assert!(!looks(&after(&[])));
        assert!(!looks(&after(&[1, 1])));
        assert!(looks(&after(&[10; 20])));
        assert!(!looks(&after(&[[10; 20], [60; 20]].concat())));
        assert!(looks(&after(&[[60; 20], [10; 20]].concat())));
    }

    #[test]
    fn a_long_silence_is_forgotten_as_soon_as_a_short_one() {
        for silence in [200, 1_000_000, u64::MAX / 1000] {
            let waits = [[10; 20], [silence; 20], [10; 20]].concat();
            assert!(looks(&after(&waits)), "{silence}");
        }
    }

    #[test]
    fn one_late_arrival_among_many_early_ones_changes_nothing() {
        assert!(looks(&after(&[[10; 20].as_slice(), &[1_000_000]].concat())));
    }

    #[test]
    fn a_loop_whose_processor_others_need_sleeps_longer_each_time() {
        let mut waiting = after(&[10; 20]);
        for sleeps in [64, 128, 256, 512] {
            waiting.gave_way();
            wait(&mut waiting, &vec![10; sleeps - 1]);
            assert!(!looks(&waiting), "{sleeps}");
            wait(&mut waiting, &[10]);
            assert!(looks(&waiting), "{sleeps}");
        }
        // And not so long again when it was left in peace.
        wait(&mut waiting, &[10; 1024]);
        waiting.gave_way();
        wait(&mut waiting, &[10; 64]);
        assert!(looks(&waiting));
        for _ in 0..40 {
            waiting.gave_way();
        }
        assert_eq!(waiting.sleeps, SLEEPS_MAX);
    }

    #[test]
    fn a_loop_that_may_not_look_around_and_one_that_may_for_ever_do_not_overflow() {
        for look_around_max in [Duration::ZERO, Duration::MAX] {
            let mut waiting = Waiting::new(&LoopOptions { look_around_max });
            wait(&mut waiting, &[1, 0, u64::MAX / 1000, 0]);
            assert_eq!(looks(&waiting), !look_around_max.is_zero());
        }
    }
}
