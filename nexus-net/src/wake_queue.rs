//! A queue into a loop that may sleep, and the wake-up that many pushes share.
//!
//! It knows neither loops nor tasks, so that loom can run it: `tests/loom`.
//!
//! ```text
//!   any thread                             the loop
//!   ──────────                             ────────
//!   lock: push                             lock: if empty, awake := false    may_sleep
//!         was_awake := awake               sleep
//!         awake := true                    awake := true                     woke
//!   if not was_awake: wake                 lock: take all                    take
//! ```
//!
//! Why no wake-up is lost: of a push and the loop's look at the queue one holds the lock first. A
//! push that came first is seen, and the loop does not sleep. One that came second finds `awake`
//! false and wakes, or finds the true of another push that does.
//!
//! The lock alone makes that order, so the atomics need none of their own. `awake` is one for the sake
//! of [`woke`](WakeQueue::woke), which sets it without the lock: at worst a push meanwhile has
//! seen it false, and wakes a loop that is awake.

use crate::sync::{AtomicBool, Mutex, MutexGuard, Ordering};

/// Ends the sleep of a loop: the one it is in or, if it is in none, the next.
pub(crate) trait Wake {
    fn wake(&self);
}

#[derive(Debug)]
pub(crate) struct WakeQueue<T, W> {
    queue: Mutex<Queue<T>>,
    /// False only while the loop sleeps or is about to.
    awake: AtomicBool,
    /// Set under the lock, so that the loop does not sleep over it.
    stop: AtomicBool,
    waker: W,
}

#[derive(Debug)]
struct Queue<T> {
    items: Vec<T>,
    open: bool,
}

impl<T, W: Wake> WakeQueue<T, W> {
    pub(crate) fn new(waker: W) -> Self {
        Self {
            queue: Mutex::new(Queue {
                items: Vec::new(),
                open: true,
            }),
            awake: AtomicBool::new(true),
            stop: AtomicBool::new(false),
            waker,
        }
    }

    // ---- any thread ----

    /// Queues `item`; gives it back once the queue is closed.
    pub(crate) fn push(&self, item: T) -> Result<(), T> {
        let mut queue = self.queue.lock();
        if !queue.open {
            return Err(item);
        }
        queue.items.push(item);
        self.unlock_and_wake(queue);
        Ok(())
    }

    /// Asks the loop to stop.
    pub(crate) fn stop(&self) {
        let queue = self.queue.lock();
        self.stop.store(true, Ordering::Relaxed);
        self.unlock_and_wake(queue);
    }

    fn unlock_and_wake(&self, queue: MutexGuard<'_, Queue<T>>) {
        let was_awake = self.awake.load(Ordering::Relaxed);
        self.awake.store(true, Ordering::Relaxed);
        drop(queue);
        if !was_awake {
            self.waker.wake();
        }
    }

    // ---- the loop ----

    /// Whether something is queued, or the loop is to stop. For a loop that is awake: nobody wakes it.
    pub(crate) fn has_work(&self) -> bool {
        !self.queue.lock().items.is_empty() || self.stopping()
    }

    /// To be called before the loop sleeps. `false`: there is work, do not.
    pub(crate) fn may_sleep(&self) -> bool {
        let queue = self.queue.lock();
        let idle = queue.items.is_empty() && !self.stopping();
        if idle {
            self.awake.store(false, Ordering::Relaxed);
        }
        idle
    }

    /// To be called when the loop has slept; does nothing if it has not.
    pub(crate) fn woke(&self) {
        self.awake.store(true, Ordering::Relaxed);
    }

    /// Swaps what is queued with the empty `into`.
    pub(crate) fn take(&self, into: &mut Vec<T>) {
        debug_assert!(into.is_empty());
        std::mem::swap(&mut self.queue.lock().items, into);
    }

    /// Whether somebody has asked the loop to stop.
    pub(crate) fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Nothing is accepted from here on; returns what was and has not been taken.
    pub(crate) fn close(&self) -> Vec<T> {
        let mut queue = self.queue.lock();
        queue.open = false;
        std::mem::take(&mut queue.items)
    }
}
