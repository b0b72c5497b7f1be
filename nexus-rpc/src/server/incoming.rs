//! The call as it comes in, as a handler sees it, and as it is answered.
//!
//! ```text
//!   frame ─► IncomingCall ─┬─ unary:     deadline? ► before ► decode ► deadline? ► handler ─► answer
//!                          └─ responder: deadline? ► before ► decode ► deadline? ► handler
//!                                                                  └─ later, any thread ─► answer
//! ```
//!
//! Every call is answered exactly once: an [`IncomingCall`] or a [`Responder`] that is dropped
//! without an answer answers by being dropped.

use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nexus_net::{Address, Charge};
use parking_lot::Mutex;
use prost::Message;

use super::AuthContext;
use super::answer::{Answer, AnswerExtras, ConnectionCalls, Way};
use super::interceptor::enter_all;
use super::serving::MethodId;
use super::web::WebReply;
use crate::service::MethodDescriptor;
use crate::wire::{Frame, Sealed, Side};
use crate::{CallScope, Entered, ErrorCode, Metadata, MetadataKey, RpcError, TraceContext};

/// What a handler can know of the call it serves. Clones are of the same call.
#[derive(Debug, Clone)]
pub struct CallContext {
    method: &'static MethodDescriptor,
    calls: Arc<ConnectionCalls>,
    auth: Option<Arc<AuthContext>>,
    deadline: Option<Instant>,
    trace: Option<TraceContext>,
    metadata: Metadata,
    log_id: i64,
    attachment: Bytes,
    /// Made when the first is set: most answers have none.
    extras: OnceLock<Arc<Mutex<AnswerExtras>>>,
}

impl CallContext {
    /// The method that was called.
    pub fn method(&self) -> &'static MethodDescriptor {
        self.method
    }

    /// Where the call came from.
    pub fn peer(&self) -> &Address {
        self.calls.peer()
    }

    /// Who called, as the provider's [`Authenticator`](crate::Authenticator) has found; `None` when it
    /// has none.
    pub fn auth(&self) -> Option<&AuthContext> {
        self.auth.as_deref()
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

    /// What came beside the request: of `call.metadata().require(TENANT)?` a handler may return the error.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The bytes that came beside the request; empty when there were none.
    pub fn attachment(&self) -> &Bytes {
        &self.attachment
    }

    /// The caller's number for its log, 0 when it gave none.
    pub fn log_id(&self) -> i64 {
        self.log_id
    }

    /// Bytes to go out beside the response. Sent neither with an error nor over HTTP.
    pub fn set_response_attachment(&self, attachment: Bytes) {
        self.extras().lock().attachment = attachment;
    }

    /// Metadata to go out with the response. Not sent with an error.
    pub fn set_response_metadata<T: fmt::Display>(&self, key: MetadataKey<T>, value: T) {
        self.extras().lock().metadata.set(key, value);
    }

    fn extras(&self) -> &Arc<Mutex<AnswerExtras>> {
        self.extras.get_or_init(Arc::default)
    }

    fn take_extras(&self) -> AnswerExtras {
        match self.extras.get() {
            Some(extras) => std::mem::take(&mut *extras.lock()),
            None => AnswerExtras::default(),
        }
    }

    fn is_too_late(&self) -> bool {
        self.remaining() == Some(Duration::ZERO)
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
    request: Sealed,
    answer: Answer,
}

impl IncomingCall {
    /// A call that was let in.
    pub(super) fn new(
        method: MethodId,
        frame: &mut Frame,
        auth: Option<Arc<AuthContext>>,
        received: Instant,
        calls: Arc<ConnectionCalls>,
        held: Option<Charge>,
    ) -> Self {
        let way = Way::Frame(frame.meta.correlation_id());
        Self::answered_by(way, method, frame, auth, received, calls, held)
    }

    /// A call that was let in, has come over HTTP, and whose end is left in `reply`.
    pub(super) fn over_http(
        method: MethodId,
        frame: &mut Frame,
        auth: Option<Arc<AuthContext>>,
        calls: Arc<ConnectionCalls>,
        reply: Arc<WebReply>,
        held: Option<Charge>,
    ) -> Self {
        let way = Way::Http(reply);
        Self::answered_by(way, method, frame, auth, Instant::now(), calls, held)
    }

    fn answered_by(
        way: Way,
        method: MethodId,
        frame: &mut Frame,
        auth: Option<Arc<AuthContext>>,
        received: Instant,
        calls: Arc<ConnectionCalls>,
        held: Option<Charge>,
    ) -> Self {
        let metadata = Metadata::from_fields(std::mem::take(&mut frame.meta.user_fields));
        let (timeout_ms, log_id) = match &frame.meta.request {
            Some(request) => (request.timeout_ms(), request.log_id()),
            None => (0, 0),
        };
        let deadline = u64::try_from(timeout_ms)
            .ok()
            .filter(|&timeout_ms| timeout_ms > 0)
            .map(|timeout_ms| received + Duration::from_millis(timeout_ms));
        let request = frame.take_sealed();
        let request_bytes = request.payload.len() + request.attachment.len();
        let answer = Answer::new(
            Arc::clone(&calls),
            method,
            way,
            received,
            request_bytes,
            held,
        );
        let context = CallContext {
            method: calls.serving().method(method).descriptor,
            calls,
            auth,
            deadline,
            trace: TraceContext::from_metadata(&metadata),
            metadata,
            log_id,
            attachment: request.attachment.clone(),
            extras: OnceLock::new(),
        };
        Self {
            parts: Some(Parts {
                context,
                request,
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
        let result = catch_unwind(AssertUnwindSafe(|| handler(&context, request)));
        drop(entered);
        match result {
            Ok(Ok(response)) => answer.success(&response, context.take_extras()),
            Ok(Err(error)) => answer.failure(&error),
            Err(panic) => {
                answer.failure(&RpcError::internal("the handler panicked"));
                resume_unwind(panic);
            }
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
            extras: Arc::clone(context.extras()),
            response: PhantomData,
        };
        let _entered = context.enter();
        handler(context, request, responder);
    }

    /// Asks the interceptors and opens the body; a call that cannot or should not run any more is answered
    /// here.
    fn start<Q: Message + Default>(mut self) -> Option<(CallContext, Q, Answer)> {
        let Parts {
            context,
            request,
            mut answer,
        } = self.parts.take()?;
        match prepare(&context, request, &mut answer) {
            Ok(request) => Some((context, request, answer)),
            Err(error) => {
                answer.failure(&error);
                None
            }
        }
    }
}

/// What comes before a handler. The deadline is looked at twice: before the work of decoding, and after
/// everything that may have taken its time.
fn prepare<Q: Message + Default>(
    context: &CallContext,
    mut sealed: Sealed,
    answer: &mut Answer,
) -> Result<Q, RpcError> {
    let too_late = || {
        let what = "the deadline had passed before the call was run";
        Err(RpcError::new(ErrorCode::DEADLINE_EXCEEDED, what))
    };
    if context.is_too_late() {
        return too_late();
    }
    let serving = context.calls.serving();
    if !serving.interceptors.is_empty() {
        // Shared with the interceptors' copy of the context from the beginning.
        context.extras();
        let _entered = context.enter();
        enter_all(&serving.interceptors, context, &mut answer.entered)?;
    }
    if let Some(mapping) = answer.json() {
        sealed.payload = mapping.read_request(&sealed.payload)?;
    }
    let request = sealed
        .open(&serving.limits)
        .and_then(|body| body.decode::<Q>())
        .map_err(|error| error.into_rpc_error(Side::Server))?;
    if context.is_too_late() {
        return too_late();
    }
    Ok(request)
}

impl Drop for IncomingCall {
    fn drop(&mut self) {
        if let Some(parts) = self.parts.take() {
            parts.answer.turn_away(&RpcError::new(
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
            Ok(response) => {
                let extras = std::mem::take(&mut *self.extras.lock());
                answer.success(&response, extras);
            }
            Err(error) => answer.failure(&error),
        }
    }
}

impl<A> fmt::Debug for Responder<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder").finish_non_exhaustive()
    }
}
