//! When each call is sent.
//!
//! One thread, the caller's, sends all of them and never waits for an answer: answers are taken in on the
//! channel's loops, and free the place of their call.
//!
//! ```text
//!   this thread:  time has come, a place is free ──► send ──► … ──► answered, on a loop: tally, free the place
//!                        ▲                                                        │
//!                        └──────────────── woken if it waits for a place ◄────────┘
//! ```
//!
//! Flat out, the time has always come and the places are the callers. At a rate, each call has its time,
//! and its latency counts from then: what a provider makes later calls wait for is not left out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use nexus_net::on_loop_thread;
use nexus_rpc::{CallOptions, MethodDescriptor, RawMessage, RpcChannel, RpcError};
use parking_lot::Mutex;

use super::tally::Tally;
use crate::failure::Failure;

/// How long a signal may go unnoticed.
const SIGNAL_CHECK: Duration = Duration::from_millis(50);
/// After a call that failed before it was sent: calling on at once would only burn the processor.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_millis(1);
/// A call sent later than this after its time was sent late.
const LATE: Duration = Duration::from_millis(1);
/// What the channel's own deadlines may take beyond the timeout, at the end.
const GRACE: Duration = Duration::from_secs(1);

/// When calls are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// As soon as a caller is free.
    FlatOut,
    /// So many a second.
    Rate(u32),
}

/// A load to be put on a method.
pub(super) struct Load {
    pub(super) channel: RpcChannel,
    pub(super) method: &'static MethodDescriptor,
    pub(super) request: RawMessage,
    pub(super) options: CallOptions,
    pub(super) pace: Pace,
    /// Calls that are out at a time, at most.
    pub(super) callers: usize,
    pub(super) duration: Duration,
    pub(super) timeout: Duration,
    /// Ends it early.
    pub(super) stop: Arc<AtomicBool>,
}

/// Calls that were not sent at their time: because all callers were busy, or this machine was.
#[derive(Default)]
pub(super) struct Missed {
    pub(super) late: u64,
    pub(super) late_max: Duration,
    /// At the end all callers were busy, and these calls' time had come.
    pub(super) unsent: u64,
}

impl Load {
    /// Sends calls until the time is over or the signal comes, then waits for those that are out. Tells
    /// `progress` every second what ended in it.
    pub(super) fn run(
        &self,
        mut progress: impl FnMut(u64, &Tally) -> Result<(), Failure>,
    ) -> Result<(Tally, Missed, Duration), Failure> {
        let out = Arc::new(Out::new());
        let mut total = Tally::new();
        let mut missed = Missed::default();
        let start = Instant::now();
        let end = start + self.duration;
        let (mut sent, mut seconds): (u64, u64) = (0, 0);
        loop {
            let now = Instant::now();
            let next_second = start + Duration::from_secs(seconds + 1);
            if now >= next_second {
                seconds += 1;
                let mut second = out.take();
                progress(seconds, &second)?;
                total.absorb(&mut second);
                continue;
            }
            let due = match self.pace {
                Pace::FlatOut => now,
                Pace::Rate(per_second) => start + time_of(sent, per_second),
            };
            if now >= end || self.stop.load(Ordering::Relaxed) {
                // What has been due is sent still, unless it would have to wait even now.
                let last = now.min(end);
                if due >= last || !out.has_place(self.callers) {
                    missed.unsent = self.due_before(last - start).saturating_sub(sent);
                    break;
                }
            }
            let until = end.min(next_second).min(now + SIGNAL_CHECK);
            if due > now {
                thread::park_timeout(due.min(until) - now);
                continue;
            }
            if !out.wait_for_place(self.callers, until) {
                continue;
            }
            if self.pace != Pace::FlatOut {
                missed.note(due.elapsed());
            }
            // Flat out, the time of waiting for a place is nobody's latency.
            let counts_from = match self.pace {
                Pace::FlatOut => Instant::now(),
                Pace::Rate(_) => due,
            };
            sent += 1;
            if self.send(&out, counts_from) == Sent::Refused {
                thread::sleep(PAUSE_AFTER_REFUSAL);
            }
        }
        out.wait_for_place(1, Instant::now() + self.timeout + GRACE);
        let elapsed = start.elapsed();
        total.absorb(&mut out.take());
        Ok((total, missed, elapsed))
    }

    /// How many calls are due in this time from the start on; flat out none is.
    fn due_before(&self, elapsed: Duration) -> u64 {
        let Pace::Rate(per_second) = self.pace else {
            return 0;
        };
        let due = (elapsed.as_nanos() * u128::from(per_second)).div_ceil(1_000_000_000);
        u64::try_from(due).unwrap_or(u64::MAX)
    }

    fn send(&self, out: &Arc<Out>, counts_from: Instant) -> Sent {
        out.count.fetch_add(1, Ordering::SeqCst);
        let refused = Arc::clone(out);
        let call = self
            .channel
            .call_raw(self.method, &self.request, self.options.clone());
        call.on_complete(move |result| refused.over(counts_from, result.map(drop)));
        match out.refused.swap(false, Ordering::Relaxed) {
            true => Sent::Refused,
            false => Sent::Out,
        }
    }
}

#[derive(PartialEq, Eq)]
enum Sent {
    Out,
    /// It failed before it was sent.
    Refused,
}

/// The calls that are out, and what became of those before.
struct Out {
    count: AtomicUsize,
    /// The sender waits for a place.
    waits: AtomicBool,
    /// The last call ended on the sender's own thread, with an error.
    refused: AtomicBool,
    sender: Thread,
    tally: Mutex<Tally>,
}

impl Out {
    fn new() -> Self {
        Self {
            count: AtomicUsize::new(0),
            waits: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            sender: thread::current(),
            tally: Mutex::new(Tally::new()),
        }
    }

    fn has_place(&self, places: usize) -> bool {
        self.count.load(Ordering::SeqCst) < places
    }

    /// Waits until fewer than `places` calls are out; false when they are not by `until`. On the sender's
    /// thread.
    fn wait_for_place(&self, places: usize, until: Instant) -> bool {
        loop {
            if self.has_place(places) {
                return true;
            }
            // Told before the second look: a place that is freed in between is seen or wakes.
            self.waits.store(true, Ordering::SeqCst);
            if self.has_place(places) {
                return true;
            }
            let now = Instant::now();
            if now >= until {
                return false;
            }
            thread::park_timeout(until - now);
        }
    }

    /// A call is over. On a loop's thread, or the sender's own if it was never sent.
    fn over(&self, counts_from: Instant, result: Result<(), RpcError>) {
        let latency = counts_from.elapsed();
        match result {
            Ok(()) => self.tally.lock().succeeded(latency),
            Err(error) => {
                if !on_loop_thread() {
                    self.refused.store(true, Ordering::Relaxed);
                }
                self.tally.lock().failed(error);
            }
        }
        self.count.fetch_sub(1, Ordering::SeqCst);
        if self.waits.swap(false, Ordering::SeqCst) {
            self.sender.unpark();
        }
    }

    /// What ended since this was asked last.
    fn take(&self) -> Tally {
        std::mem::replace(&mut *self.tally.lock(), Tally::new())
    }
}

impl Missed {
    fn note(&mut self, by: Duration) {
        if by > LATE {
            self.late += 1;
            self.late_max = self.late_max.max(by);
        }
    }
}

/// When the call of this number is to be sent, from the start on.
fn time_of(number: u64, per_second: u32) -> Duration {
    let per_second = u64::from(per_second);
    let (seconds, rest) = (number / per_second, number % per_second);
    // `rest` is below 2^32: no overflow.
    Duration::new(seconds, 0) + Duration::from_nanos(rest * 1_000_000_000 / per_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_a_rate_are_spread_evenly() {
        assert_eq!(time_of(0, 3), Duration::ZERO);
        assert_eq!(time_of(1, 4), Duration::from_millis(250));
        assert_eq!(time_of(4, 4), Duration::from_secs(1));
        assert_eq!(
            time_of(u64::from(u32::MAX) * 2, u32::MAX),
            Duration::from_secs(2)
        );
    }

    #[test]
    fn a_place_that_is_freed_wakes_the_sender() {
        let out = Arc::new(Out::new());
        for _ in 0..1000 {
            out.count.store(1, Ordering::SeqCst);
            let freeing = Arc::clone(&out);
            let other = thread::spawn(move || freeing.over(Instant::now(), Ok(())));
            assert!(out.wait_for_place(1, Instant::now() + Duration::from_secs(20)));
            other.join().expect("no panic");
        }
        assert_eq!(out.take().successes(), 1000);
    }
}
