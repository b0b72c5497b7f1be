//! The only parts of a loop that other threads may hold: ways to queue work for it.

use std::cell::Cell;
use std::sync::Arc;
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use bytes::Bytes;

#[cfg(doc)]
use crate::Handler;
use crate::wake_queue::{Wake, WakeQueue};
use crate::{ConnId, LoopContext, LoopMetrics};

thread_local! {
    static ON_LOOP: Cell<bool> = const { Cell::new(false) };
    /// Asked for often, and the standard library counts references each time.
    static THREAD: ThreadId = std::thread::current().id();
}

/// Whether the calling thread runs an event loop, and so must not block.
pub fn on_loop_thread() -> bool {
    ON_LOOP.get()
}

pub(crate) fn mark_loop_thread(on: bool) {
    ON_LOOP.set(on);
}

/// The loop has stopped; what was to be posted was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the event loop has stopped")]
pub struct LoopGone;

pub(crate) type LocalTask = Box<dyn FnOnce(&mut LoopContext<'_>)>;
pub(crate) type RemoteTask = Box<dyn FnOnce(&mut LoopContext<'_>) + Send>;

pub(crate) enum Task {
    Run(RemoteTask),
    Send(ConnId, Bytes),
    Wake(ConnId),
    Close(ConnId),
    Abort(ConnId),
}

/// What the handles of a loop share with it: the queue into it, and what can be asked about it.
pub(crate) struct Inbox {
    queue: WakeQueue<Task, mio::Waker>,
    thread: ThreadId,
    pub(crate) started: Instant,
    pub(crate) metrics: LoopMetrics,
}

impl Inbox {
    pub(crate) fn new(waker: mio::Waker) -> Self {
        let started = Instant::now();
        Self {
            queue: WakeQueue::new(waker),
            thread: std::thread::current().id(),
            started,
            metrics: LoopMetrics::new(started),
        }
    }

    pub(crate) fn push(&self, task: Task) -> Result<(), LoopGone> {
        self.queue.push(task).map_err(|_| LoopGone)
    }

    pub(crate) fn has_work(&self) -> bool {
        self.queue.has_work()
    }

    pub(crate) fn may_sleep(&self) -> bool {
        self.queue.may_sleep()
    }

    pub(crate) fn woke(&self) {
        self.queue.woke();
    }

    pub(crate) fn take(&self, into: &mut Vec<Task>) {
        self.queue.take(into);
    }

    pub(crate) fn stopping(&self) -> bool {
        self.queue.stopping()
    }

    pub(crate) fn close(&self) -> Vec<Task> {
        self.queue.close()
    }
}

impl Wake for mio::Waker {
    fn wake(&self) {
        // The inherent method, an eventfd write.
        if let Err(error) = mio::Waker::wake(self) {
            log::error!("cannot wake an event loop: {error}");
        }
    }
}

/// A way into a loop from any thread. Cheap to clone.
///
/// What is posted is queued and runs on the loop's thread in the order of posting, in a turn's task
/// phase: never inside the call, not even on the loop's own thread.
#[derive(Clone)]
pub struct LoopHandle {
    pub(crate) inbox: Arc<Inbox>,
}

impl LoopHandle {
    /// Runs `task` on the loop.
    ///
    /// # Errors
    /// [`LoopGone`] when the loop has stopped. A task that was accepted runs, at the latest while the
    /// loop stops.
    pub fn post(
        &self,
        task: impl FnOnce(&mut LoopContext<'_>) + Send + 'static,
    ) -> Result<(), LoopGone> {
        self.inbox.push(Task::Run(Box::new(task)))
    }

    /// Runs `task` on the loop once `delay` has passed, counted from now; not if the loop stops before.
    ///
    /// # Errors
    /// [`LoopGone`] as for [`post`](Self::post).
    pub fn post_after(
        &self,
        delay: Duration,
        task: impl FnOnce(&mut LoopContext<'_>) + Send + 'static,
    ) -> Result<(), LoopGone> {
        let posted = Instant::now();
        self.post(move |context| {
            context.after(delay.saturating_sub(posted.elapsed()), task);
        })
    }

    /// Asks the loop to stop: its connections get `closed` with
    /// [`CloseReason::LoopStopped`](crate::CloseReason::LoopStopped), unwritten output is lost. For
    /// an orderly end drain the servers first.
    pub fn stop(&self) {
        self.inbox.queue.stop();
    }

    /// Whether the calling thread is the loop's.
    pub fn is_current(&self) -> bool {
        THREAD.with(|&thread| self.inbox.thread == thread)
    }

    /// The loop's counters.
    pub fn metrics(&self) -> &LoopMetrics {
        &self.inbox.metrics
    }
}

impl std::fmt::Debug for LoopHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoopHandle")
            .field("thread", &self.inbox.thread)
            .finish_non_exhaustive()
    }
}

/// A way to one connection from any thread. Cheap to clone.
///
/// Once the connection has ended every call is a harmless miss; so is [`send`](Self::send) before
/// it is established. `Err` only says that the whole loop is gone.
#[derive(Clone, Debug)]
pub struct ConnHandle {
    pub(crate) handle: LoopHandle,
    pub(crate) id: ConnId,
}

impl ConnHandle {
    /// The connection's name on its loop.
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// The loop it lives on.
    pub fn loop_handle(&self) -> &LoopHandle {
        &self.handle
    }

    /// Queues bytes to be written, in the order of the calls.
    ///
    /// # Errors
    /// [`LoopGone`].
    pub fn send(&self, bytes: Bytes) -> Result<(), LoopGone> {
        self.handle.inbox.push(Task::Send(self.id, bytes))
    }

    /// Has the loop call [`Handler::woken`], on an outgoing connection possibly before
    /// [`Handler::opened`].
    ///
    /// # Errors
    /// [`LoopGone`].
    pub fn wake(&self) -> Result<(), LoopGone> {
        self.handle.inbox.push(Task::Wake(self.id))
    }

    /// Closes after what was queued before has been written.
    ///
    /// # Errors
    /// [`LoopGone`].
    pub fn close(&self) -> Result<(), LoopGone> {
        self.handle.inbox.push(Task::Close(self.id))
    }

    /// Cuts the connection off; unwritten output is lost.
    ///
    /// # Errors
    /// [`LoopGone`].
    pub fn abort(&self) -> Result<(), LoopGone> {
        self.handle.inbox.push(Task::Abort(self.id))
    }
}
