//! An answer that is still to come, and the promise of it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::ChatError;

type Callback<T> = Box<dyn FnOnce(Result<T, ChatError>) + Send>;

/// The result of a request that is under way: wait for it, or have a callback called.
///
/// It comes exactly once: with the answer, or with the reason why there is none. Dropping this
/// does not take the request back.
#[must_use = "the request is made anyway, but whether it succeeded stays unknown"]
pub struct Pending<T> {
    slot: Arc<Slot<T>>,
}

/// The other end. Dropped without a result it completes with [`ChatError::Disconnected`].
pub(crate) struct Promise<T> {
    slot: Option<Arc<Slot<T>>>,
}

struct Slot<T> {
    state: Mutex<SlotState<T>>,
    ready: Condvar,
}

enum SlotState<T> {
    Waiting,
    Callback(Callback<T>),
    Ready(Result<T, ChatError>),
    Over,
}

impl<T> Pending<T> {
    pub(crate) fn new() -> (Promise<T>, Self) {
        let slot = Arc::new(Slot {
            state: Mutex::new(SlotState::Waiting),
            ready: Condvar::new(),
        });
        let promise = Promise {
            slot: Some(Arc::clone(&slot)),
        };
        (promise, Self { slot })
    }

    /// Waits for the result, at most this long.
    ///
    /// # Errors
    /// As the request failed, or [`ChatError::Timeout`] when `timeout` has passed: the request goes
    /// on then, and may yet succeed.
    ///
    /// # Panics
    /// On the thread of an event loop, which would wait for itself.
    pub fn wait(self, timeout: Duration) -> Result<T, ChatError> {
        assert!(
            !nexus_net::on_loop_thread(),
            "an event loop's thread cannot wait: use on_complete"
        );
        let deadline = Instant::now().checked_add(timeout);
        let mut state = self.slot.state.lock();
        loop {
            match std::mem::replace(&mut *state, SlotState::Over) {
                SlotState::Ready(result) => return result,
                other => *state = other,
            }
            let timed_out = match deadline {
                Some(deadline) => self.slot.ready.wait_until(&mut state, deadline).timed_out(),
                None => {
                    self.slot.ready.wait(&mut state);
                    false
                }
            };
            if timed_out && !matches!(*state, SlotState::Ready(_)) {
                return Err(ChatError::Timeout);
            }
        }
    }

    /// Has `callback` called with the result: at once when it is there, else on the client's loop
    /// thread, where it must not block.
    pub fn on_complete(self, callback: impl FnOnce(Result<T, ChatError>) + Send + 'static) {
        let mut state = self.slot.state.lock();
        match std::mem::replace(&mut *state, SlotState::Over) {
            SlotState::Ready(result) => {
                drop(state);
                callback(result);
            }
            _ => *state = SlotState::Callback(Box::new(callback)),
        }
    }
}

impl<T> Promise<T> {
    pub(crate) fn complete(mut self, result: Result<T, ChatError>) {
        if let Some(slot) = self.slot.take() {
            slot.complete(result);
        }
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            slot.complete(Err(ChatError::Disconnected));
        }
    }
}

impl<T> Slot<T> {
    fn complete(&self, result: Result<T, ChatError>) {
        let mut state = self.state.lock();
        match std::mem::replace(&mut *state, SlotState::Over) {
            SlotState::Callback(callback) => {
                drop(state);
                callback(result);
            }
            _ => {
                *state = SlotState::Ready(result);
                self.ready.notify_all();
            }
        }
    }
}

impl<T> fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn a_result_reaches_who_waits_already() {
        let (promise, pending) = Pending::new();
        let thread = std::thread::spawn(move || pending.wait(SOON));
        promise.complete(Ok(7));
        assert_eq!(thread.join().unwrap(), Ok(7));
    }

    #[test]
    fn a_result_that_is_there_is_given_at_once() {
        let (promise, pending) = Pending::new();
        promise.complete(Ok(7));
        assert_eq!(pending.wait(Duration::ZERO), Ok(7));
    }

    #[test]
    fn a_callback_is_called_whether_it_comes_before_or_after_the_result() {
        let (sender, results) = std::sync::mpsc::channel();
        let (promise, pending) = Pending::new();
        let before = sender.clone();
        pending.on_complete(move |result| before.send(result).unwrap());
        promise.complete(Ok(1));
        let (promise, pending) = Pending::new();
        promise.complete(Ok(2));
        pending.on_complete(move |result| sender.send(result).unwrap());
        assert_eq!(results.into_iter().collect::<Vec<_>>(), [Ok(1), Ok(2)]);
    }

    #[test]
    fn waiting_ends_in_time() {
        let (_promise, pending) = Pending::<()>::new();
        assert_eq!(
            pending.wait(Duration::from_millis(5)),
            Err(ChatError::Timeout)
        );
    }

    #[test]
    fn a_promise_that_is_dropped_completes_as_disconnected() {
        let (promise, pending) = Pending::<()>::new();
        drop(promise);
        assert_eq!(pending.wait(SOON), Err(ChatError::Disconnected));
    }
}
