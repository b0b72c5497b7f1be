//! A call from the caller's side: wait for it, await it, or leave a callback.

use std::collections::BTreeMap;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use nexus_net::on_loop_thread;
use parking_lot::{Condvar, Mutex};
use prost::Message;

use crate::wire::{CompressType, Frame, Limits, Side};
use crate::{ErrorCode, RpcError};

/// What a call may differ in from the channel's defaults.
#[derive(Debug, Clone, Default)]
pub struct CallOptions {
    /// How long the caller waits. Default: the channel's, whose bounds hold here too.
    pub timeout: Option<Duration>,
    /// Bytes to go out beside the request.
    pub attachment: Bytes,
    /// Metadata of the call.
    pub user_fields: BTreeMap<String, String>,
    /// A number for the provider's log.
    pub log_id: Option<i64>,
    /// How the request is compressed. The provider chooses for its answer.
    pub compression: CompressType,
}

impl CallOptions {
    /// Options with this timeout.
    pub fn timeout(timeout: Duration) -> Self {
        Self {
            timeout: Some(timeout),
            ..Self::default()
        }
    }

    /// Adds a field to the metadata.
    #[must_use]
    pub fn user_field(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.user_fields.insert(name.into(), value.into());
        self
    }
}

/// A successful answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply<A> {
    /// The response message.
    pub message: A,
    /// The bytes that came beside it; empty when there were none.
    pub attachment: Bytes,
    /// Metadata of the answer.
    pub user_fields: BTreeMap<String, String>,
}

/// A call on its way. It is completed exactly once: by its answer, its deadline, or the loss of its
/// connection, whichever comes first.
///
/// Use it in one of three ways: [`wait`](Self::wait) blocks, [`on_complete`](Self::on_complete) leaves a
/// callback, and as a [`Future`] it can be awaited under any executor. Dropping it abandons the call: the
/// provider may still run it.
#[must_use = "a call that is dropped is abandoned: wait for it, await it, or leave a callback"]
pub struct Call<A> {
    state: Arc<CallState>,
    limits: Limits,
    answer: PhantomData<fn() -> A>,
}

impl<A: Message + Default> Call<A> {
    pub(crate) fn new(limits: Limits) -> (Self, Completion) {
        let state = Arc::new(CallState::default());
        let call = Self {
            state: Arc::clone(&state),
            limits,
            answer: PhantomData,
        };
        (call, Completion { state: Some(state) })
    }

    /// Blocks until the call is completed.
    ///
    /// # Errors
    /// What the call failed with. On an event loop's thread, which must not block and might be the
    /// very one that has to read the answer: [`ErrorCode::INTERNAL`], at once.
    pub fn wait(self) -> Result<Reply<A>, RpcError> {
        if on_loop_thread() {
            return Err(RpcError::internal(
                "Call::wait blocks and was called on an event loop's thread: use on_complete",
            ));
        }
        let mut slot = self.state.slot.lock();
        loop {
            match std::mem::replace(&mut *slot, Slot::Waiting(Waiter::Thread)) {
                Slot::Done(result) => {
                    *slot = Slot::Taken;
                    drop(slot);
                    return open(result, &self.limits);
                }
                Slot::Taken => return Err(already_taken()),
                Slot::Waiting(_) => self.state.done.wait(&mut slot),
            }
        }
    }

    /// Calls `callback` with the result: on the thread of the channel's loop, where it must not
    /// block, or inside this call when the result is there already. A panic in it is caught and
    /// logged on the loop's thread; inside this call it is the caller's.
    pub fn on_complete(self, callback: impl FnOnce(Result<Reply<A>, RpcError>) + Send + 'static) {
        let limits = self.limits;
        let mut slot = self.state.slot.lock();
        match std::mem::replace(&mut *slot, Slot::Taken) {
            Slot::Done(result) => {
                drop(slot);
                callback(open(result, &limits));
            }
            Slot::Waiting(_) => {
                let callback = Box::new(move |result| callback(open(result, &limits)));
                *slot = Slot::Waiting(Waiter::Callback(callback));
            }
            Slot::Taken => {
                drop(slot);
                callback(Err(already_taken()));
            }
        }
    }
}

impl<A: Message + Default> Future for Call<A> {
    type Output = Result<Reply<A>, RpcError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = self.state.slot.lock();
        match std::mem::replace(&mut *slot, Slot::Taken) {
            Slot::Done(result) => {
                drop(slot);
                Poll::Ready(open(result, &self.limits))
            }
            Slot::Waiting(waiter) => {
                let waker = match waiter {
                    Waiter::Task(waker) if waker.will_wake(context.waker()) => waker,
                    _ => context.waker().clone(),
                };
                *slot = Slot::Waiting(Waiter::Task(waker));
                Poll::Pending
            }
            Slot::Taken => Poll::Ready(Err(already_taken())),
        }
    }
}

impl<A> std::fmt::Debug for Call<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call").finish_non_exhaustive()
    }
}

type RawResult = Result<Frame, RpcError>;

#[derive(Default)]
struct CallState {
    slot: Mutex<Slot>,
    done: Condvar,
}

#[allow(
    clippy::large_enum_variant,
    reason = "one per call; a box would be one more allocation"
)]
enum Slot {
    Waiting(Waiter),
    Done(RawResult),
    Taken,
}

impl Default for Slot {
    fn default() -> Self {
        Self::Waiting(Waiter::Nobody)
    }
}

enum Waiter {
    Nobody,
    Thread,
    Task(Waker),
    Callback(Box<dyn FnOnce(RawResult) + Send>),
}

/// The obligation to complete a call. Whoever holds it decides the call's end; dropped, it fails the
/// call.
pub(crate) struct Completion {
    state: Option<Arc<CallState>>,
}

impl Completion {
    pub(crate) fn complete(mut self, result: RawResult) {
        self.finish(result);
    }

    fn finish(&mut self, result: RawResult) {
        let Some(state) = self.state.take() else {
            return;
        };
        let mut slot = state.slot.lock();
        match std::mem::replace(&mut *slot, Slot::Taken) {
            Slot::Waiting(Waiter::Callback(callback)) => {
                drop(slot);
                run_foreign(|| callback(result));
            }
            Slot::Waiting(waiter) => {
                *slot = Slot::Done(result);
                drop(slot);
                match waiter {
                    Waiter::Thread => {
                        state.done.notify_all();
                    }
                    Waiter::Task(waker) => run_foreign(|| waker.wake()),
                    Waiter::Nobody | Waiter::Callback(_) => {}
                }
            }
            Slot::Done(_) | Slot::Taken => {
                debug_assert!(false, "a call was completed twice");
            }
        }
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        self.finish(Err(RpcError::new(
            ErrorCode::CONNECTION_FAILED,
            "the channel was closed before the call was answered",
        )));
    }
}

/// Runs what a user left behind. Its panic is its own: other calls of the connection, whose loop this
/// is, go on.
fn run_foreign(run: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(run)).is_err() {
        log::error!("the callback or waker of a call panicked");
    }
}

fn open<A: Message + Default>(result: RawResult, limits: &Limits) -> Result<Reply<A>, RpcError> {
    let mut frame = result?;
    if let Some(error) = frame.meta.failure() {
        return Err(error);
    }
    let user_fields = std::mem::take(&mut frame.meta.user_fields);
    let body = frame
        .open(limits)
        .map_err(|error| error.into_rpc_error(Side::Client))?;
    let message = body
        .decode()
        .map_err(|error| error.into_rpc_error(Side::Client))?;
    Ok(Reply {
        message,
        attachment: body.attachment,
        user_fields,
    })
}

fn already_taken() -> RpcError {
    RpcError::internal("the call's result was already taken")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed() -> RawResult {
        Err(RpcError::new(ErrorCode::new(7), "seven"))
    }

    #[test]
    fn a_dropped_obligation_fails_the_call() {
        let (call, completion) = Call::<()>::new(Limits::default());
        drop(completion);
        assert_eq!(
            call.wait().unwrap_err().code(),
            ErrorCode::CONNECTION_FAILED
        );
    }

    #[test]
    fn a_result_that_is_there_already_reaches_a_late_callback() {
        let (call, completion) = Call::<()>::new(Limits::default());
        completion.complete(failed());
        let (sender, receiver) = std::sync::mpsc::channel();
        call.on_complete(move |result| sender.send(result).unwrap());
        assert_eq!(
            receiver.recv().unwrap().unwrap_err().code(),
            ErrorCode::new(7)
        );
    }

    #[test]
    fn a_waiting_thread_is_woken() {
        let (call, completion) = Call::<()>::new(Limits::default());
        let waiter = std::thread::spawn(move || call.wait());
        completion.complete(failed());
        assert_eq!(
            waiter.join().unwrap().unwrap_err().code(),
            ErrorCode::new(7)
        );
    }

    #[test]
    fn a_polled_call_wakes_its_task_and_is_ready_once() {
        let (mut call, completion) = Call::<()>::new(Limits::default());
        let mut context = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut call).poll(&mut context).is_pending());
        completion.complete(failed());
        assert!(Pin::new(&mut call).poll(&mut context).is_ready());
    }
}
