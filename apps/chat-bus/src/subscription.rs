//! What a subscriber is told, and the handle that ends a subscription.
//!
//! A subscription is a thread. It is stopped by dropping the sending side of a channel nothing is
//! ever sent on: the thread can wait on that channel together with others, or with a timeout.

use std::convert::Infallible;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};

/// Called with each event of a subscription, on the subscription's thread. Must not panic.
pub type OnEvent = Box<dyn FnMut(BusEvent) + Send>;

/// One event of a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BusEvent {
    /// Messages published from now on arrive. Reported first of all and after every [`Lost`]:
    /// what was published in between may be lost.
    ///
    /// [`Lost`]: BusEvent::Lost
    Connected,
    /// The backend is gone, or dropped messages; [`Connected`](BusEvent::Connected) follows when
    /// the subscription stands again.
    Lost,
    /// A message, as it was published.
    Message(Bytes),
}

/// A running subscription; dropping it ends it and waits until its thread is done, so that no event
/// is reported afterwards. (Dropped by its own `on_event`, it ends after that event.)
#[must_use = "dropping the subscription ends it"]
#[derive(Debug)]
pub struct Subscription {
    stop: Option<Sender<Infallible>>,
    thread: Option<JoinHandle<()>>,
}

impl Subscription {
    /// Runs `body` on a thread of its own; it should return soon after its argument is set.
    pub(crate) fn spawn(body: impl FnOnce(StopSignal) + Send + 'static) -> Self {
        let (stop, stopped) = bounded(0);
        let thread = thread::Builder::new()
            .name("bus-subscriber".to_owned())
            .spawn(move || body(StopSignal(stopped)))
            .expect("the system can start a thread");
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        drop(self.stop.take());
        let Some(thread) = self.thread.take() else {
            return;
        };
        if thread.thread().id() != thread::current().id() && thread.join().is_err() {
            log::error!("a bus subscriber had panicked");
        }
    }
}

/// Tells the thread of a subscription that it is to end.
pub(crate) struct StopSignal(Receiver<Infallible>);

impl StopSignal {
    /// Whether the subscription is to end.
    pub(crate) fn is_set(&self) -> bool {
        matches!(self.0.try_recv(), Err(TryRecvError::Disconnected))
    }

    /// Waits for `pause`, or until the subscription is to end, and says whether it is.
    pub(crate) fn is_set_within(&self, pause: Duration) -> bool {
        matches!(
            self.0.recv_timeout(pause),
            Err(RecvTimeoutError::Disconnected)
        )
    }

    /// Ready when the subscription is to end; for a `select`.
    pub(crate) fn receiver(&self) -> &Receiver<Infallible> {
        &self.0
    }
}
