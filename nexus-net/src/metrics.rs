//! Counters of a loop, readable from any thread.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// What a loop has done since it started. Only the loop writes; anyone may read, at no cost to it.
#[derive(Debug, Default)]
pub struct LoopMetrics {
    turns: AtomicU64,
    events: AtomicU64,
    tasks: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
    connections: AtomicUsize,
    timers: AtomicUsize,
}

impl LoopMetrics {
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

    /// Bytes read from sockets.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Relaxed)
    }

    /// Bytes written to sockets.
    pub fn bytes_written(&self) -> u64 {
        self.bytes_written.load(Relaxed)
    }

    /// Connections that belong to the loop now, those on their way to it included.
    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// Timers that were live at the end of the last turn: those of handlers and tasks, and the
    /// loop's own (idle, connecting, closing).
    pub fn timers(&self) -> usize {
        self.timers.load(Relaxed)
    }

    pub(crate) fn set_timers(&self, count: usize) {
        self.timers.store(count, Relaxed);
    }

    pub(crate) fn turn(&self, events: usize) {
        add(&self.turns, 1);
        add(&self.events, events as u64);
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

    pub(crate) fn connection_added(&self) {
        self.connections.fetch_add(1, Relaxed);
    }

    pub(crate) fn connection_removed(&self) {
        self.connections.fetch_sub(1, Relaxed);
    }
}

/// A load and a store: there is one writer, and a locked add would cost it more.
fn add(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(by), Relaxed);
}
