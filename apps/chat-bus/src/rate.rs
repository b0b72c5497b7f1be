//! [`Rate`]: how often something may be done, and [`Bucket`]: how much of that is left.
//!
//! A rate of 20 per hour lets 20 happen at once and then one every three minutes. What was used is kept
//! as a debt, a time that shrinks by itself:
//!
//! ```text
//!   debt   0 ──────────────────────────────── period
//!          each use adds a step = period / count; a use that would pass the period is refused
//! ```
//!
//! So a bucket is one instant, in Redis the remaining life of a key, and one that is not there is full.
//! (The field calls it the generic cell rate algorithm.)

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// The longest period of a rate.
const PERIOD_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// So many in a period: all of them at once if need be, then regained evenly.
///
/// Over any stretch as long as the period at most twice as many happen. The text form is `20/1h`, with
/// a period as in `500ms` or `1m 30s`.
#[derive(Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct Rate {
    count: u32,
    period: Duration,
}

/// The text is no [`Rate`], or the rate none that can be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a count and a period, as in \"20/1h\", with at most 1000 per millisecond")]
pub struct BadRate;

impl Rate {
    /// `count` in `period`, which is a millisecond to a year.
    ///
    /// # Errors
    /// [`BadRate`]: a count of 0, a period out of its range, or more than 1,000 per millisecond.
    pub fn new(count: u32, period: Duration) -> Result<Self, BadRate> {
        let in_range = (Duration::from_millis(1)..=PERIOD_MAX).contains(&period);
        if !in_range || count == 0 || period / count < Duration::from_micros(1) {
            return Err(BadRate);
        }
        Ok(Self { count, period })
    }

    /// A rate that is a constant of the program.
    ///
    /// # Panics
    /// Where [`new`](Self::new) fails.
    pub fn literal(count: u32, period: Duration) -> Self {
        Self::new(count, period).expect("a constant that is a rate")
    }

    /// How many may happen at once.
    pub fn count(self) -> u32 {
        self.count
    }

    /// How long a bucket takes from empty to full.
    pub fn period(self) -> Duration {
        self.period
    }

    /// How long it takes to regain one.
    pub fn step(self) -> Duration {
        self.period / self.count
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}",
            self.count,
            humantime::format_duration(self.period)
        )
    }
}

impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Rate {
    type Err = BadRate;

    fn from_str(text: &str) -> Result<Self, BadRate> {
        let (count, period) = text.split_once('/').ok_or(BadRate)?;
        let count = count.trim().parse().map_err(|_| BadRate)?;
        let period = humantime::parse_duration(period.trim()).map_err(|_| BadRate)?;
        Self::new(count, period)
    }
}

impl TryFrom<String> for Rate {
    type Error = BadRate;

    fn try_from(text: String) -> Result<Self, BadRate> {
        text.parse()
    }
}

/// What was used of a [`Rate`]. The clock is an argument; it must not run backwards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bucket {
    /// When nothing will be owed any more; `None`: nothing was ever used.
    debt_until: Option<Instant>,
}

impl Bucket {
    /// Uses one.
    ///
    /// # Errors
    /// It is used up; the time until there is one again.
    pub fn spend(&mut self, rate: Rate, now: Instant) -> Result<(), Duration> {
        let wait = self.wait(rate, now);
        if !wait.is_zero() {
            return Err(wait);
        }
        self.debt_until = Some(now + self.debt(now) + rate.step());
        Ok(())
    }

    /// How long until one can be used; zero: now.
    pub fn wait(&self, rate: Rate, now: Instant) -> Duration {
        (self.debt(now) + rate.step()).saturating_sub(rate.period())
    }

    /// Gives one back.
    pub fn refund(&mut self, rate: Rate, now: Instant) {
        self.debt_until = Some(now + self.debt(now).saturating_sub(rate.step()));
    }

    /// Whether it is as good as new.
    pub fn is_full(&self, now: Instant) -> bool {
        self.debt(now).is_zero()
    }

    /// How long until it is full.
    pub(crate) fn debt(&self, now: Instant) -> Duration {
        self.debt_until
            .map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn all_at_once_and_then_one_by_one() {
        let rate = Rate::literal(5, 10 * SECOND);
        let (mut bucket, start) = (Bucket::default(), Instant::now());
        for _ in 0..5 {
            assert_eq!(bucket.spend(rate, start), Ok(()));
        }
        assert_eq!(bucket.spend(rate, start), Err(2 * SECOND));
        assert_eq!(bucket.spend(rate, start + SECOND), Err(SECOND));
        assert_eq!(bucket.spend(rate, start + 2 * SECOND), Ok(()));
        assert_eq!(bucket.spend(rate, start + 2 * SECOND), Err(2 * SECOND));
        // Refused uses cost nothing, and after the period it is full again, not more than full.
        let later = start + 100 * SECOND;
        assert!(bucket.is_full(later));
        let granted = (0..9).filter(|_| bucket.spend(rate, later).is_ok()).count();
        assert_eq!(granted, 5);
    }

    #[test]
    fn what_is_given_back_can_be_used_again_and_no_more() {
        let rate = Rate::literal(1, SECOND);
        let (mut bucket, now) = (Bucket::default(), Instant::now());
        bucket.refund(rate, now);
        assert_eq!(bucket.spend(rate, now), Ok(()));
        assert_eq!(bucket.spend(rate, now), Err(SECOND));
        bucket.refund(rate, now);
        assert_eq!(bucket.spend(rate, now), Ok(()));
        assert_eq!(bucket.spend(rate, now), Err(SECOND));
    }

    #[test]
    fn the_text_form_is_read_and_written() {
        for (text, count, period) in [
            ("20/1h", 20, 3600 * SECOND),
            ("1 / 1m 30s", 1, 90 * SECOND),
            ("1000/1ms", 1000, SECOND / 1000),
        ] {
            let rate: Rate = text.parse().expect(text);
            assert_eq!(rate, Rate::literal(count, period));
            assert_eq!(rate.to_string().parse(), Ok(rate));
        }
        for text in [
            "",
            "20",
            "/1h",
            "20/",
            "0/1h",
            "-1/1h",
            "1/0s",
            "1/1us",
            "1001/1ms",
            "20/h",
            "1/400days",
        ] {
            assert_eq!(text.parse::<Rate>(), Err(BadRate), "{text}");
        }
    }
}
