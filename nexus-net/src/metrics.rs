//! Counters of a loop, readable from any thread.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// What a loop has done since it started. Only the loop writes; anyone may read, at no cost to it.
#[derive(Debug)]
pub struct LoopMetrics {
    started: Instant,
    turns: AtomicU64,
    events: AtomicU64,
    tasks: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
    connections: AtomicUsize,
    connections_total: AtomicU64,
    handshakes_failed: AtomicU64,
    timers: AtomicUsize,
    busy_ns: AtomicU64,
    /// When the turn that runs began, in nanoseconds since `started`; 0 between turns.
    turn_began_ns: AtomicU64,
    lags: [AtomicU64; LAG_BUCKETS],
}

/// Buckets of [`LoopMetrics::lags`].
pub const LAG_BUCKETS: usize = 20;

impl LoopMetrics {
    pub(crate) fn new(started: Instant) -> Self {
        Self {
            started,
            turns: AtomicU64::default(),
            events: AtomicU64::default(),
            tasks: AtomicU64::default(),
            bytes_read: AtomicU64::default(),
            bytes_written: AtomicU64::default(),
            connections: AtomicUsize::default(),
            connections_total: AtomicU64::default(),
            handshakes_failed: AtomicU64::default(),
            timers: AtomicUsize::default(),
            busy_ns: AtomicU64::default(),
            turn_began_ns: AtomicU64::default(),
            lags: Default::default(),
        }
    }

    /// Turns of the loop.
    pub fn turns(&self) -> u64 {
        self.turns.load(Relaxed)
    }

    /// Readiness events that epoll delivered.
    pub fn events(&self) -> u64 {
        self.events.load(Relaxed)
    }

    /// Tasks posted from outside that were run.
    pub fn tasks(&self) -> u64 {
        self.tasks.load(Relaxed)
    }

    /// Bytes read from sockets; under TLS, of the encrypted stream.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Relaxed)
    }

    /// Bytes of handlers written to sockets; under TLS, before encryption.
    pub fn bytes_written(&self) -> u64 {
        self.bytes_written.load(Relaxed)
    }

    /// Connections that belong to the loop now, those on their way to it included.
    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// Connections that have ever belonged to the loop.
    pub fn connections_total(&self) -> u64 {
        self.connections_total.load(Relaxed)
    }

    /// Connections that ended before they were opened: no header of the PROXY protocol where one was
    /// expected, a handshake of TLS that failed, or either not in time.
    pub fn handshakes_failed(&self) -> u64 {
        self.handshakes_failed.load(Relaxed)
    }

    /// Timers that were live at the end of the last turn: those of handlers and tasks, and the
    /// loop's own (idle, opening, closing).
    pub fn timers(&self) -> usize {
        self.timers.load(Relaxed)
    }

    /// Time spent in turns, not asleep. Its growth over a while, divided by the while, is the loop's
    /// utilisation.
    pub fn busy(&self) -> Duration {
        Duration::from_nanos(self.busy_ns.load(Relaxed))
    }

    /// How long the present turn has been running; `None` while the loop sleeps. Events that arrive
    /// now wait for its end, so a watchdog that finds this large has found a handler that blocks.
    pub fn present_turn(&self) -> Option<Duration> {
        let began_ns = self.turn_began_ns.load(Relaxed);
        let now_ns = nanos(self.started.elapsed());
        (began_ns > 0).then(|| Duration::from_nanos(now_ns.saturating_sub(began_ns)))
    }

    /// Turns by their lag: how long they ran, and so how long an event that arrived at their
    /// beginning may have waited. Bucket `i` counts the turns that took less than
    /// [`lag_bound(i)`](Self::lag_bound) and belong to no bucket before it; the last one counts all
    /// others.
    pub fn lags(&self) -> [u64; LAG_BUCKETS] {
        std::array::from_fn(|bucket| self.lags[bucket].load(Relaxed))
    }

    /// The upper bound of a bucket of [`lags`](Self::lags): 2, 4, 8, … µs. The last bucket has none.
    pub fn lag_bound(bucket: usize) -> Option<Duration> {
        (bucket + 1 < LAG_BUCKETS).then(|| Duration::from_micros(2 << bucket))
    }

    pub(crate) fn handshake_failed(&self) {
        add(&self.handshakes_failed, 1);
    }

    pub(crate) fn set_timers(&self, count: usize) {
        self.timers.store(count, Relaxed);
    }

    pub(crate) fn turn_begins(&self, events: usize) {
        add(&self.turns, 1);
        add(&self.events, events as u64);
        let now_ns = nanos(self.started.elapsed());
        self.turn_began_ns.store(now_ns.max(1), Relaxed);
    }

    pub(crate) fn turn_ends(&self) {
        let now_ns = nanos(self.started.elapsed());
        let took_ns = now_ns.saturating_sub(self.turn_began_ns.load(Relaxed));
        self.turn_began_ns.store(0, Relaxed);
        add(&self.busy_ns, took_ns);
        add(&self.lags[lag_bucket(took_ns)], 1);
    }

    pub(crate) fn ran_tasks(&self, count: usize) {
        add(&self.tasks, count as u64);
    }

    pub(crate) fn read(&self, bytes: usize) {
        add(&self.bytes_read, bytes as u64);
    }

    pub(crate) fn wrote(&self, bytes: usize) {
        add(&self.bytes_written, bytes as u64);
    }

    /// Counted by whoever hands the connection over, so from any loop's thread.
    pub(crate) fn connection_added(&self) {
        self.connections.fetch_add(1, Relaxed);
        self.connections_total.fetch_add(1, Relaxed);
    }

    pub(crate) fn connection_removed(&self) {
        self.connections.fetch_sub(1, Relaxed);
    }
}

fn lag_bucket(took_ns: u64) -> usize {
    let micros = took_ns / 1000;
    let bits = u64::BITS - micros.leading_zeros();
    (bits.saturating_sub(1) as usize).min(LAG_BUCKETS - 1)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// A load and a store: there is one writer, and a locked add would cost it more.
fn add(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(by), Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lag_is_below_its_bucket_s_bound_and_not_below_the_one_before() {
        for took_ns in [0, 999, 1_999, 2_000, 3_999, 4_000, 1_000_000, u64::MAX] {
            let took = Duration::from_nanos(took_ns);
            let bucket = lag_bucket(took_ns);
            assert!(
                LoopMetrics::lag_bound(bucket).is_none_or(|bound| took < bound),
                "{took:?}"
            );
            let below = bucket.checked_sub(1).and_then(LoopMetrics::lag_bound);
            assert!(below.is_none_or(|bound| took >= bound), "{took:?}");
        }
    }
}
