//! How many retries, or backup requests, the calls pay for.
//!
//! Retries help while a few calls fail and harm when all do: a provider that is overloaded gets its
//! load doubled. So they are paid from a bucket of tokens. Every call puts in a share of a token, time
//! puts in a few per second so that a quiet client can retry too, and every retry takes one out. When
//! all calls fail, the load grows by that share and no more.
//!
//! ```text
//!   each call: + share ──┐
//!   each second: + rate ─┴─► [ tokens, at most `burst` ] ──► each retry: - 1, or refused
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Millionths of a token: what the bucket counts in.
const TOKEN: u64 = 1_000_000;

/// How much may be sent beyond the calls themselves.
#[derive(Debug, Clone, PartialEq)]
pub struct BudgetOptions {
    /// What each call adds: 0.2 allows one retry for five calls.
    pub share: f64,
    /// What each second adds, however few calls there are.
    pub per_second: f64,
    /// The most that is saved up, and what there is at the beginning. It should cover the calls that
    /// are in flight to one provider when that provider dies.
    pub burst: u32,
}

impl BudgetOptions {
    /// For retries: one for five calls, 10 per second, 500 saved up.
    pub const fn retries() -> Self {
        Self {
            share: 0.2,
            per_second: 10.0,
            burst: 500,
        }
    }

    /// For backup requests: one for twenty calls, 1 per second, 50 saved up. They are sent while
    /// nothing has failed, so a slow provider must not draw many of them.
    pub const fn backups() -> Self {
        Self {
            share: 0.05,
            per_second: 1.0,
            burst: 50,
        }
    }

    /// Nothing beyond the calls.
    pub const fn none() -> Self {
        Self {
            share: 0.0,
            per_second: 0.0,
            burst: 0,
        }
    }
}

/// A bucket of tokens; from any thread, without a lock.
///
/// It is full while all is well, and a call then only reads it.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Per call.
    deposit: u64,
    /// How long time takes to earn a token's millionth; `None`: it earns nothing.
    ns_per_millionth: Option<f64>,
    full: u64,
    tokens: AtomicU64,
    origin: Instant,
    /// Up to when time has paid, in ns since `origin`.
    paid_ns: AtomicU64,
}

impl Budget {
    /// A full bucket. Negative numbers and those that are none count as 0.
    pub(crate) fn new(options: &BudgetOptions, now: Instant) -> Self {
        let full = u64::from(options.burst) * TOKEN;
        let per_ns = options.per_second.max(0.0) * TOKEN as f64 / 1e9;
        Self {
            deposit: (options.share.clamp(0.0, 1e6) * TOKEN as f64).round() as u64,
            ns_per_millionth: (per_ns > 0.0).then_some(1.0 / per_ns),
            full,
            tokens: AtomicU64::new(full),
            origin: now,
            paid_ns: AtomicU64::new(0),
        }
    }

    /// A call has begun.
    pub(crate) fn deposit(&self) {
        self.add(self.deposit);
    }

    /// Takes a token, if there is a whole one. `false`: no retry now.
    pub(crate) fn withdraw(&self, now: Instant) -> bool {
        self.earn(now);
        self.tokens
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tokens| {
                tokens.checked_sub(TOKEN)
            })
            .is_ok()
    }

    /// Gives back what was taken for a retry that was not sent after all.
    pub(crate) fn refund(&self) {
        self.add(TOKEN);
    }

    fn add(&self, millionths: u64) {
        let full = self.full;
        // Refused when full: then nothing is written, and the cache line stays with all.
        let _ = self
            .tokens
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tokens| {
                (tokens < full && millionths > 0).then(|| (tokens + millionths).min(full))
            });
    }

    /// Adds what time has earned. Of several threads, the one that moves `paid_ns` on adds it.
    fn earn(&self, now: Instant) {
        let Some(ns_per_millionth) = self.ns_per_millionth else {
            return;
        };
        let now_ns = nanoseconds(now.saturating_duration_since(self.origin));
        let paid_ns = self.paid_ns.load(Ordering::Relaxed);
        let earned = (now_ns.saturating_sub(paid_ns) as f64 / ns_per_millionth) as u64;
        // Less than a token's thousandth stays unpaid, so that rounding takes nothing away.
        if earned < TOKEN / 1000 {
            return;
        }
        let paid =
            self.paid_ns
                .compare_exchange(paid_ns, now_ns, Ordering::Relaxed, Ordering::Relaxed);
        if paid.is_ok() {
            self.add(earned.min(self.full));
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use proptest::prelude::*;

    use super::*;

    fn drained(options: &BudgetOptions, now: Instant) -> Budget {
        let budget = Budget::new(options, now);
        while budget.withdraw(now) {}
        budget
    }

    #[test]
    fn a_new_budget_allows_its_burst_and_no_more() {
        let now = Instant::now();
        let budget = Budget::new(&BudgetOptions::retries(), now);
        let granted = (0..10_000).filter(|_| budget.withdraw(now)).count();
        assert_eq!(granted, 500);
    }

    #[test]
    fn when_every_call_fails_the_load_grows_by_the_share() {
        let now = Instant::now();
        let budget = drained(&BudgetOptions::retries(), now);
        let retries = (0..10_000)
            .filter(|_| {
                budget.deposit();
                budget.withdraw(now)
            })
            .count();
        assert_eq!(retries, 2_000);
    }

    #[test]
    fn a_quiet_client_can_retry_at_the_minimal_rate() {
        let start = Instant::now();
        let budget = drained(&BudgetOptions::retries(), start);
        // Asked more often than a thousandth of a token is earned, which must not lose anything.
        let asked = 1_000_000;
        let granted = (1..=asked)
            .filter(|turn| budget.withdraw(start + Duration::from_micros(10) * *turn))
            .count();
        assert!((99..=100).contains(&granted), "{granted} in 10 s at 10/s");
    }

    #[test]
    fn a_long_rest_fills_the_bucket_and_not_more() {
        let start = Instant::now();
        let budget = drained(&BudgetOptions::backups(), start);
        let later = start + Duration::from_secs(1_000_000);
        let granted = (0..1_000).filter(|_| budget.withdraw(later)).count();
        assert_eq!(granted, 50);
    }

    #[test]
    fn a_refund_can_be_taken_again() {
        let now = Instant::now();
        let budget = drained(&BudgetOptions::backups(), now);
        budget.refund();
        assert!(budget.withdraw(now));
        assert!(!budget.withdraw(now));
    }

    #[test]
    fn without_a_budget_there_is_no_retry() {
        let start = Instant::now();
        let budget = Budget::new(&BudgetOptions::none(), start);
        budget.deposit();
        assert!(!budget.withdraw(start + Duration::from_secs(1_000)));
    }

    #[test]
    fn threads_together_get_no_more_than_one_would() {
        let start = Instant::now();
        let options = BudgetOptions::retries();
        let budget = Budget::new(&options, start);
        let granted = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for turn in 0..10_000_u32 {
                        budget.deposit();
                        if budget.withdraw(start + Duration::from_micros(100) * turn) {
                            granted.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        // The burst, a fifth of 40,000 calls, and one second's worth.
        let most = 500 + 8_000 + 10;
        assert!(granted.into_inner() <= most);
    }

    proptest! {
        #[test]
        fn no_history_grants_more_than_was_paid_in(
            share in 0.0..1.0_f64,
            per_second in 0.0..100.0_f64,
            burst in 0..50_u32,
            // A call, a retry, or some milliseconds.
            steps in prop::collection::vec(0..100_u64, 1..500),
        ) {
            let start = Instant::now();
            let options = BudgetOptions { share, per_second, burst };
            let budget = Budget::new(&options, start);
            let (mut calls, mut granted, mut now) = (0, 0, start);
            for step in steps {
                match step {
                    0..40 => { budget.deposit(); calls += 1; }
                    40..80 => granted += u32::from(budget.withdraw(now)),
                    ms => now += Duration::from_millis(ms - 80),
                }
            }
            let elapsed_s = (now - start).as_secs_f64();
            let paid = f64::from(burst) + f64::from(calls) * share + elapsed_s * per_second;
            prop_assert!(f64::from(granted) <= paid + 0.01, "{granted} of {paid}");
        }

        #[test]
        fn no_option_panics(share: f64, per_second: f64, burst: u32, elapsed: Duration) {
            let start = Instant::now();
            let budget = Budget::new(&BudgetOptions { share, per_second, burst }, start);
            budget.deposit();
            if let Some(later) = start.checked_add(elapsed) {
                budget.withdraw(later);
                budget.withdraw(start);
                budget.deposit();
            }
        }
    }
}
