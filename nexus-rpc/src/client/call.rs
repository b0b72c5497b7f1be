//! A call from the caller's side: wait for it, await it, or leave a callback.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use nexus_net::on_loop_thread;
use prost::Message;

use super::flight::{Answered, Flight, RawResult};
use super::options::RawMessage;
use crate::wire::{Body, BodyError, Limits, Side};
use crate::{ErrorCode, Metadata, RpcError};

/// A successful answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply<A> {
    /// The response message.
    pub message: A,
    /// The bytes that came beside it; empty when there were none.
    pub attachment: Bytes,
    /// What came beside it as metadata; empty when there was none.
    pub metadata: Metadata,
    /// The call failed with this, and the message is what its fallback gave instead. `None`: the answer
    /// is the provider's.
    pub degraded: Option<RpcError>,
}

/// What an answer can be read as: every protobuf message, and [`RawMessage`].
pub trait Answer: Sized {
    #[doc(hidden)]
    fn from_body(body: &Body) -> Result<Self, BodyError>;
}

impl<M: Message + Default> Answer for M {
    fn from_body(body: &Body) -> Result<Self, BodyError> {
        body.decode()
    }
}

impl Answer for RawMessage {
    fn from_body(body: &Body) -> Result<Self, BodyError> {
        Ok(Self(body.message.clone()))
    }
}

/// A call on its way. It is completed exactly once: by its answer, its deadline, or the loss of its
/// connection, whichever comes first.
///
/// Use it in one of three ways: [`wait`](Self::wait) blocks, [`on_complete`](Self::on_complete) leaves a
/// callback, and as a [`Future`] it can be awaited under any executor, on any thread. It is on its way
/// already, whether it is polled or not, and may outlive its channel. Dropping it abandons the call: no further
/// attempt is made, [interceptors](crate::ClientInterceptor::after) do not hear of its end, and the provider
/// may still run it.
#[must_use = "a call that is dropped is abandoned: wait for it, await it, or leave a callback"]
pub struct Call<A> {
    /// `None` once the result is somebody else's business: a callback's, or taken.
    flight: Option<Arc<Flight>>,
    answer: PhantomData<fn() -> A>,
}

impl<A: Answer> Call<A> {
    pub(crate) fn new(flight: Arc<Flight>) -> Self {
        Self {
            flight: Some(flight),
            answer: PhantomData,
        }
    }

    /// Blocks until the call is completed.
    ///
    /// # Errors
    /// What the call failed with. On an event loop's thread, which must not block and might be the
    /// very one that has to read the answer: [`ErrorCode::INTERNAL`], at once.
    pub fn wait(mut self) -> Result<Reply<A>, RpcError> {
        if on_loop_thread() {
            return Err(RpcError::internal(
                "Call::wait blocks and was called on an event loop's thread: use on_complete",
            ));
        }
        let flight = self.flight.take().ok_or_else(already_taken)?;
        let result = flight.wait().ok_or_else(already_taken)?;
        open(result, &flight.plan.limits)
    }

    /// Calls `callback` with the result: on the thread of the channel's loop, where it must not
    /// block, or inside this call when the result is there already. A panic in it is caught and
    /// logged on the loop's thread; inside this call it is the caller's.
    pub fn on_complete(
        mut self,
        callback: impl FnOnce(Result<Reply<A>, RpcError>) + Send + 'static,
    ) {
        let Some(flight) = self.flight.take() else {
            callback(Err(already_taken()));
            return;
        };
        let limits = flight.plan.limits;
        let callback = Box::new(move |result| callback(open(result, &limits)));
        if let Some((callback, result)) = flight.leave(callback) {
            callback(result);
        }
    }

    /// Ends the call with [`ErrorCode::CANCELED`], unless it has ended: no further attempt is made. The
    /// protocol cannot call a request back, so what was sent runs at its provider. From any thread.
    pub fn cancel(&self) {
        if let Some(flight) = &self.flight {
            let what = "the caller canceled the call";
            flight.finish(Err(RpcError::new(ErrorCode::CANCELED, what)));
        }
    }
}

impl<A: Answer> Future for Call<A> {
    type Output = Result<Reply<A>, RpcError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(flight) = &self.flight else {
            return Poll::Ready(Err(already_taken()));
        };
        match flight.poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(result) => {
                let opened = open(result, &flight.plan.limits);
                self.flight = None;
                Poll::Ready(opened)
            }
        }
    }
}

impl<A> Drop for Call<A> {
    fn drop(&mut self) {
        if let Some(flight) = self.flight.take() {
            flight.abandon();
        }
    }
}

impl<A> std::fmt::Debug for Call<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call").finish_non_exhaustive()
    }
}

fn open<A: Answer>(result: RawResult, limits: &Limits) -> Result<Reply<A>, RpcError> {
    let Answered {
        sealed,
        metadata,
        degraded,
    } = result?;
    let body = sealed
        .open(limits)
        .map_err(|error| error.into_rpc_error(Side::Client))?;
    let message = A::from_body(&body).map_err(|error| error.into_rpc_error(Side::Client))?;
    Ok(Reply {
        message,
        attachment: body.attachment,
        metadata,
        degraded,
    })
}

fn already_taken() -> RpcError {
    RpcError::internal("the call's result was already taken")
}
