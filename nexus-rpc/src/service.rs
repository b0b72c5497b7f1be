//! What a provider serves: descriptors, the call as it comes in, and the answer that goes out.
//!
//! Generated code implements [`Service`]; handlers see [`CallContext`] and [`Responder`].
//!
//! ```text
//!   frame ─► IncomingCall ─┬─ unary:     decode ► deadline? ► handler(&ctx, request) ─► answer
//!                          └─ responder: decode ► deadline? ► handler(ctx, request, responder)
//!                                                                        └─ later, any thread ─► answer
//! ```
//!
//! Every call is answered exactly once: an [`IncomingCall`] or a [`Responder`] that is dropped
//! without an answer answers by being dropped.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use nexus_net::Address;
use parking_lot::Mutex;
use prost::Message;

use crate::provider::ConnectionCalls;
use crate::wire::{Frame, Limits, RpcMeta, Side, encode_frame, encode_payload};
use crate::{CallScope, Entered, ErrorCode, RpcError, TraceContext};

/// A service as its `.proto` defines it.
#[derive(Debug)]
pub struct ServiceDescriptor {
    /// The full name, `package.Service`.
    pub name: &'static str,
    /// The methods, in the order of the file.
    pub methods: &'static [MethodDescriptor],
}

/// A method as its `.proto` defines it.
#[derive(Debug)]
pub struct MethodDescriptor {
    /// The service's full name, `package.Service`.
    pub service: &'static str,
    /// The method's name.
    pub name: &'static str,
    /// The full name of the request message.
    pub request_type: &'static str,
    /// The full name of the response message.
    pub response_type: &'static str,
    /// Where and how the handler runs.
    pub execution: Execution,
    /// Running it twice does no more than running it once
    /// (`option idempotency_level` of the `.proto`).
    pub idempotent: bool,
}

/// Where and how a handler runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Execution {
    /// On the provider's worker pool; may block.
    Pooled,
    /// On the connection's loop; must not block.
    Inline,
    /// Started on the connection's loop, where it must not block, and completed through a
    /// [`Responder`] from any thread.
    Responder,
}

/// A service that a provider can serve. Implemented by generated code.
pub trait Service: Send + Sync + 'static {
    /// What it is.
    fn descriptor(&self) -> &'static ServiceDescriptor;

    /// Runs the method at this index of the descriptor. On the thread that the method's
    /// [`Execution`] names.
    fn call(&self, method: usize, call: IncomingCall);
}

/// What a handler can know of the call it serves.
#[derive(Debug)]
pub struct CallContext {
    method: &'static MethodDescriptor,
    peer: Address,
    deadline: Option<Instant>,
    trace: Option<TraceContext>,
    meta: RpcMeta,
    attachment: Bytes,
    extras: Arc<Mutex<AnswerExtras>>,
}

/// What goes out beside the response message.
#[derive(Debug, Default)]
struct AnswerExtras {
    attachment: Bytes,
    user_fields: BTreeMap<String, String>,
}

impl CallContext {
    /// The method that was called.
    pub fn method(&self) -> &'static MethodDescriptor {
        self.method
    }

    /// Who called.
    pub fn peer(&self) -> &Address {
        &self.peer
    }

    /// When the caller stops waiting; `None` when it did not say.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// What is left until the deadline, for the handler's own calls.
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline
            .map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// The trace that the call belongs to, with the caller's span; `None` when the call names none, or
    /// not in the form that it has to have. Calls made by the handler carry children of it.
    pub fn trace(&self) -> Option<&TraceContext> {
        self.trace.as_ref()
    }

    /// What the handler's own calls inherit, to be taken to other threads: on the handler's thread
    /// they inherit it anyway.
    pub fn scope(&self) -> CallScope {
        CallScope::new(self.deadline, self.trace.clone())
    }

    /// Has calls made on this thread inherit this call's deadline and trace, until the returned value is
    /// dropped. Short for entering its [`scope`](Self::scope).
    pub fn enter(&self) -> Entered {
        self.scope().enter()
    }

    /// A field of the call's metadata.
    pub fn user_field(&self, name: &str) -> Option<&str> {
        self.meta.user_fields.get(name).map(String::as_str)
    }

    /// The bytes that came beside the request; empty when there were none.
    pub fn attachment(&self) -> &Bytes {
        &self.attachment
    }

    /// The caller's number for its log, 0 when it gave none.
    pub fn log_id(&self) -> i64 {
        self.meta
            .request
            .as_ref()
            .map_or(0, |request| request.log_id())
    }

    /// Bytes to go out beside the response. Not sent with an error.
    pub fn set_response_attachment(&self, attachment: Bytes) {
        self.extras.lock().attachment = attachment;
    }

    /// Metadata to go out with the response. Not sent with an error.
    pub fn set_response_user_field(&self, name: impl Into<String>, value: impl Into<String>) {
        self.extras
            .lock()
            .user_fields
            .insert(name.into(), value.into());
    }
}

/// A call that has arrived and has not run yet.
///
/// Dropping it refuses the call with [`ErrorCode::OVERLOADED`]: nothing has run.
pub struct IncomingCall {
    parts: Option<Parts>,
}

struct Parts {
    context: CallContext,
    frame: Frame,
    limits: Limits,
    answer: Answer,
}

impl IncomingCall {
    pub(crate) fn new(
        method: &'static MethodDescriptor,
        mut frame: Frame,
        limits: Limits,
        received: Instant,
        calls: Arc<ConnectionCalls>,
    ) -> Self {
        let meta = RpcMeta {
            request: frame.meta.request.take(),
            user_fields: std::mem::take(&mut frame.meta.user_fields),
            ..Default::default()
        };
        let timeout_ms = meta
            .request
            .as_ref()
            .map_or(0, |request| request.timeout_ms());
        let deadline = u64::try_from(timeout_ms)
            .ok()
            .filter(|&timeout_ms| timeout_ms > 0)
            .map(|timeout_ms| received + Duration::from_millis(timeout_ms));
        let context = CallContext {
            method,
            peer: calls.peer().clone(),
            deadline,
            trace: TraceContext::from_fields(&meta.user_fields),
            meta,
            attachment: frame.attachment.clone(),
            extras: Arc::default(),
        };
        let answer = Answer {
            correlation_id: frame.meta.correlation_id(),
            limits,
            calls: Some(calls),
        };
        Self {
            parts: Some(Parts {
                context,
                frame,
                limits,
                answer,
            }),
        }
    }

    /// Runs a handler that returns its result.
    pub fn unary<Q, A>(self, handler: impl FnOnce(&CallContext, Q) -> Result<A, RpcError>)
    where
        Q: Message + Default,
        A: Message,
    {
        let Some((context, request, answer)) = self.start::<Q>() else {
            return;
        };
        let entered = context.enter();
        let result = handler(&context, request);
        drop(entered);
        match result {
            Ok(response) => answer.success(&response, &context.extras),
            Err(error) => answer.failure(&error),
        }
    }

    /// Starts a handler that answers later.
    pub fn responder<Q, A>(self, handler: impl FnOnce(CallContext, Q, Responder<A>))
    where
        Q: Message + Default,
        A: Message,
    {
        let Some((context, request, answer)) = self.start::<Q>() else {
            return;
        };
        let responder = Responder {
            answer: Some(answer),
            extras: Arc::clone(&context.extras),
            response: PhantomData,
        };
        let _entered = context.enter();
        handler(context, request, responder);
    }

    /// Opens the body; a call that cannot or should not run any more is answered here.
    fn start<Q: Message + Default>(mut self) -> Option<(CallContext, Q, Answer)> {
        let Parts {
            context,
            frame,
            limits,
            answer,
        } = self.parts.take()?;
        if context.remaining() == Some(Duration::ZERO) {
            answer.failure(&RpcError::new(
                ErrorCode::DEADLINE_EXCEEDED,
                "the deadline had passed before the call was run",
            ));
            return None;
        }
        match frame.open(&limits).and_then(|body| body.decode::<Q>()) {
            Ok(request) => Some((context, request, answer)),
            Err(error) => {
                answer.failure(&error.into_rpc_error(Side::Server));
                None
            }
        }
    }
}

impl Drop for IncomingCall {
    fn drop(&mut self) {
        if let Some(parts) = self.parts.take() {
            parts.answer.failure(&RpcError::new(
                ErrorCode::OVERLOADED,
                "the provider's queue of calls is full",
            ));
        }
    }
}

/// Completes a call later, from any thread.
///
/// Dropped without an answer, it fails the call with [`ErrorCode::INTERNAL`].
pub struct Responder<A> {
    answer: Option<Answer>,
    extras: Arc<Mutex<AnswerExtras>>,
    response: PhantomData<fn(A)>,
}

impl<A: Message> Responder<A> {
    /// Answers the call. From any thread.
    pub fn complete(mut self, result: Result<A, RpcError>) {
        let Some(answer) = self.answer.take() else {
            return;
        };
        match result {
            Ok(response) => answer.success(&response, &self.extras),
            Err(error) => answer.failure(&error),
        }
    }
}

impl<A> std::fmt::Debug for Responder<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Responder").finish_non_exhaustive()
    }
}

/// The obligation to answer one call. Dropped, it answers that the handler failed; that is what a
/// panicking handler comes to.
struct Answer {
    correlation_id: i64,
    limits: Limits,
    /// `None` once answered.
    calls: Option<Arc<ConnectionCalls>>,
}

impl Answer {
    fn success(mut self, response: &impl Message, extras: &Mutex<AnswerExtras>) {
        let mut meta = RpcMeta::for_success(self.correlation_id);
        let extras = std::mem::take(&mut *extras.lock());
        meta.user_fields = extras.user_fields;
        let mut out = BytesMut::new();
        match encode_frame(
            &mut meta,
            response,
            &extras.attachment,
            &self.limits,
            &mut out,
        ) {
            Ok(()) => self.send(out),
            Err(error) => {
                let error = RpcError::new(ErrorCode::BAD_RESPONSE, error.to_string());
                self.send_failure(&error);
            }
        }
    }

    fn failure(mut self, error: &RpcError) {
        self.send_failure(error);
    }

    fn send_failure(&mut self, error: &RpcError) {
        let mut meta = RpcMeta::for_failure(self.correlation_id, error);
        let mut out = BytesMut::new();
        if let Err(error) = encode_payload(&mut meta, &[], &[], &self.limits, &mut out) {
            // Only a frame limit below an error text gets here; the caller runs into its deadline.
            log::error!("an error answer cannot be written: {error}");
        }
        self.send(out);
    }

    fn send(&mut self, frame: BytesMut) {
        if let Some(calls) = self.calls.take() {
            calls.answered(frame.freeze());
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if self.calls.is_some() {
            self.send_failure(&RpcError::internal("the handler ended without an answer"));
        }
    }
}
