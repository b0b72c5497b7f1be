//! The obligation to answer a call, and the way back to its caller.
//!
//! An answer that is made on its connection's loop, inside the handler's run, is encoded into the
//! connection's own output: no buffer of its own, no way through the loop's queue, and all answers of a turn
//! leave with one write. From other threads, and later, it goes through the queue.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use nexus_net::{Address, Charge, ConnHandle, ConnId};
use prost::Message;

use super::interceptor::{Entered, ServerOutcome, leave_all};
use super::json::JsonMapping;
use super::serving::{MethodId, Serving};
use super::stats::Sample;
use super::web::{Content, WebAnswer, WebReply};
use crate::wire::{EncodeError, RpcMeta, encode_frame, encode_payload};
use crate::{ErrorCode, Metadata, RpcError};

/// What a connection and the calls that came on it share: the way back, and how many are in work.
pub(crate) struct ConnectionCalls {
    conn: ConnHandle,
    peer: Address,
    serving: Arc<Serving>,
    in_flight: AtomicUsize,
    /// Close once nothing is in work.
    closing: AtomicBool,
    opened: Instant,
    total: AtomicU64,
    is_http: AtomicBool,
}

impl ConnectionCalls {
    pub(super) fn new(conn: ConnHandle, peer: Address, serving: Arc<Serving>) -> Self {
        Self {
            conn,
            peer,
            serving,
            in_flight: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
            opened: Instant::now(),
            total: AtomicU64::new(0),
            is_http: AtomicBool::new(false),
        }
    }

    pub(super) fn peer(&self) -> &Address {
        &self.peer
    }

    pub(super) fn serving(&self) -> &Arc<Serving> {
        &self.serving
    }

    pub(super) fn opened(&self) -> Instant {
        self.opened
    }

    /// Calls that were let in.
    pub(super) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn protocol(&self) -> &'static str {
        match self.is_http.load(Ordering::Relaxed) {
            true => "http",
            false => "baidu_std",
        }
    }

    pub(super) fn set_http(&self) {
        self.is_http.store(true, Ordering::Relaxed);
    }

    /// Counts a call that was let in.
    pub(super) fn begin(&self) {
        self.total.fetch_add(1, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::AcqRel);
    }

    /// The answer of one call is on its way; the last one of a closing connection closes it.
    fn end(&self) {
        // SeqCst with `close_when_idle` below: one of the two sees the other's write.
        if self.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 && self.closing.load(Ordering::SeqCst)
        {
            let _ = self.conn.close();
        }
    }

    /// Closes the connection once nothing is in work.
    pub(super) fn close_when_idle(&self) {
        self.closing.store(true, Ordering::SeqCst);
        if self.in_flight.load(Ordering::SeqCst) == 0 {
            // Through the loop's queue, behind the answers that other threads have put there.
            let _ = self.conn.close();
        }
    }
}

impl std::fmt::Debug for ConnectionCalls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectionCalls")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// What goes out beside the response message.
#[derive(Debug, Default)]
pub(super) struct AnswerExtras {
    pub(super) attachment: Bytes,
    pub(super) metadata: Metadata,
}

/// How an answer goes back.
pub(super) enum Way {
    /// As a frame with this correlation id.
    Frame(i64),
    /// To the connection that has asked over HTTP.
    Http(Arc<WebReply>),
}

/// The output of the connection whose handler this thread, its loop's, is running.
struct Direct {
    /// Of this thread's loop.
    conn: ConnId,
    out: BytesMut,
}

thread_local! {
    static DIRECT: RefCell<Option<Direct>> = const { RefCell::new(None) };
}

/// Runs `handler`, whose answers to calls of this connection are appended to `out`. It must not
/// unwind.
pub(super) fn with_direct_output(
    calls: &ConnectionCalls,
    out: &mut BytesMut,
    handler: impl FnOnce(),
) {
    let direct = Direct {
        conn: calls.conn.id(),
        out: std::mem::take(out),
    };
    DIRECT.set(Some(direct));
    handler();
    if let Some(direct) = DIRECT.take() {
        *out = direct.out;
    }
}

/// The obligation to answer one call. Dropped, it answers that the handler failed.
pub(super) struct Answer {
    /// `None` once answered.
    calls: Option<Arc<ConnectionCalls>>,
    method: MethodId,
    way: Way,
    received: Instant,
    request_bytes: usize,
    /// Interceptors to be left with the answer.
    pub(super) entered: Option<Box<Entered>>,
    /// What the request takes of the provider's budget until it is answered.
    _held: Option<Charge>,
}

impl Answer {
    /// For a call that was let in.
    pub(super) fn new(
        calls: Arc<ConnectionCalls>,
        method: MethodId,
        way: Way,
        received: Instant,
        request_bytes: usize,
        held: Option<Charge>,
    ) -> Self {
        Self {
            _held: held,
            calls: Some(calls),
            method,
            way,
            received,
            request_bytes,
            entered: None,
        }
    }

    /// The mapping to read the request with; `None` for one that is not written in JSON.
    pub(super) fn json(&self) -> Option<&JsonMapping> {
        match &self.way {
            Way::Http(reply) if reply.content == Content::Json => {
                let calls = self.calls.as_ref()?;
                calls.serving.method(self.method).json.as_ref()
            }
            _ => None,
        }
    }

    pub(super) fn success(mut self, response: &impl Message, extras: AnswerExtras) {
        let Some(calls) = self.calls.take() else {
            return;
        };
        if let Some(entered) = &mut self.entered {
            entered.metadata = extras.metadata.clone();
        }
        match &self.way {
            Way::Frame(id) => {
                let mut meta = RpcMeta::for_success(*id);
                meta.user_fields = extras.metadata.into_fields();
                let limits = calls.serving.limits;
                let attachment = extras.attachment;
                self.send_frame(&calls, *id, None, |out| {
                    encode_frame(&mut meta, response, &attachment, &limits, out)
                });
            }
            Way::Http(reply) => {
                let head_bytes_max = calls.serving.http.limits.head_bytes_max;
                let end = self
                    .http_body(&calls, reply.content, response)
                    .and_then(|body| WebAnswer::new(body, &extras, head_bytes_max));
                self.send_http(&calls, reply, end);
            }
        }
    }

    pub(super) fn failure(mut self, error: &RpcError) {
        if let Some(calls) = self.calls.take() {
            self.fail(&calls, error);
        }
    }

    /// The call was let in but cannot run.
    pub(super) fn turn_away(mut self, error: &RpcError) {
        let Some(calls) = self.calls.take() else {
            return;
        };
        calls.serving.turned_away(self.method);
        match &self.way {
            Way::Frame(id) => {
                let mut out = BytesMut::new();
                encode_failure(&calls, *id, error, &mut out);
                let _ = calls.conn.send(out.freeze());
            }
            Way::Http(reply) => {
                reply.set(Err(error.clone()));
                let _ = calls.conn.wake();
            }
        }
        calls.end();
    }

    fn fail(&self, calls: &ConnectionCalls, error: &RpcError) {
        match &self.way {
            Way::Frame(id) => self.send_frame(calls, *id, Some(error), |out| {
                encode_failure(calls, *id, error, out);
                Ok(())
            }),
            Way::Http(reply) => self.send_http(calls, reply, Err(error.clone())),
        }
    }

    /// Encodes the answer where it goes, has the interceptors and the counters see it, and lets it go.
    fn send_frame(
        &self,
        calls: &ConnectionCalls,
        correlation_id: i64,
        error: Option<&RpcError>,
        encode: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>,
    ) {
        let mut direct = take_direct(calls);
        let mut own = BytesMut::new();
        let out = direct.as_mut().map_or(&mut own, |direct| &mut direct.out);
        let before_bytes = out.len();
        let unencodable = encode(out).err().map(|error| {
            let error = RpcError::new(ErrorCode::BAD_RESPONSE, error.to_string());
            encode_failure(calls, correlation_id, &error, out);
            error
        });
        let response_bytes = out.len() - before_bytes;
        // Counted out first, so that whoever has the answer sees the counts without it.
        self.count(calls, unencodable.as_ref().or(error), response_bytes);
        match direct {
            Some(direct) => DIRECT.set(Some(direct)),
            None => {
                let _ = calls.conn.send(own.freeze());
            }
        }
        calls.end();
    }

    fn send_http(
        &self,
        calls: &ConnectionCalls,
        reply: &WebReply,
        end: Result<WebAnswer, RpcError>,
    ) {
        let response_bytes = end.as_ref().map_or(0, |answer| answer.body.len());
        self.count(calls, end.as_ref().err(), response_bytes);
        reply.set(end);
        let _ = calls.conn.wake();
        calls.end();
    }

    fn http_body(
        &self,
        calls: &ConnectionCalls,
        content: Content,
        response: &impl Message,
    ) -> Result<Bytes, RpcError> {
        let encoded = response.encode_to_vec();
        let body = match (content, &calls.serving.method(self.method).json) {
            (Content::Json, Some(mapping)) => mapping.write_response(&encoded)?,
            _ => encoded,
        };
        if body.len() > calls.serving.limits.body_bytes_max {
            let what = "the answer is larger than allowed";
            return Err(RpcError::new(ErrorCode::BAD_RESPONSE, what));
        }
        Ok(Bytes::from(body))
    }

    fn count(&self, calls: &ConnectionCalls, error: Option<&RpcError>, response_bytes: usize) {
        let now = Instant::now();
        let latency = now.saturating_duration_since(self.received);
        let request_bytes = self.request_bytes;
        if let Some(entered) = &self.entered {
            let none = Metadata::default();
            let outcome = ServerOutcome {
                error,
                metadata: error.map_or(&entered.metadata, |_| &none),
                latency,
                request_bytes,
                response_bytes,
            };
            leave_all(&calls.serving.interceptors, entered, &outcome);
        }
        let sample = Sample {
            failed: error.is_some(),
            latency,
            request_bytes,
            response_bytes,
        };
        calls.serving.finished(self.method, now, &sample);
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(calls) = self.calls.take() {
            let error = RpcError::internal("the handler ended without an answer");
            self.fail(&calls, &error);
        }
    }
}

/// The output of the call's connection, when this thread is running a handler of that connection.
fn take_direct(calls: &ConnectionCalls) -> Option<Direct> {
    // While it is being destroyed with its thread there is none.
    DIRECT
        .try_with(|direct| {
            let mut direct = direct.try_borrow_mut().ok()?;
            direct.take_if(|direct| {
                direct.conn == calls.conn.id() && calls.conn.loop_handle().is_current()
            })
        })
        .ok()
        .flatten()
}

fn encode_failure(
    calls: &ConnectionCalls,
    correlation_id: i64,
    error: &RpcError,
    out: &mut BytesMut,
) {
    let mut meta = RpcMeta::for_failure(correlation_id, error);
    if let Err(error) = encode_payload(&mut meta, &[], &[], &calls.serving.limits, out) {
        // Only a frame limit below an error text gets here; the caller runs into its deadline.
        log::error!("an error answer cannot be written: {error}");
    }
}
