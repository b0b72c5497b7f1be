//! One caller's connection: frames are cut out, calls are let in or refused, and started where they run.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use nexus_net::{Accepted, CloseReason, Connection, Handler, LoopContext};

use super::AuthContext;
use super::answer::{ConnectionCalls, with_direct_output};
use super::incoming::IncomingCall;
use super::serving::{MethodId, Serving};
use super::web::{Offer, WebConnection, speaks_http};
use crate::service::Execution;
use crate::wire::{Frame, RpcMeta, decode, encode_payload};
use crate::{ErrorCode, RpcError};

/// How long a draining connection refuses calls before it may close: so long a caller that is just
/// calling has to hear the refusal and go elsewhere. A call that meets the close itself is lost.
const REFUSE_BEFORE_CLOSE: Duration = Duration::from_millis(100);

/// Whether the caller has shown who it is.
enum Caller {
    /// Asked with the first call.
    Unknown,
    /// `None` when the provider does not ask.
    Known(Option<Arc<AuthContext>>),
}

/// What the caller speaks.
enum Protocol {
    /// Too few bytes have come to tell.
    Unknown,
    BaiduStd,
    Http(Box<WebConnection>),
}

/// The timers of a connection.
const CLOSE_WHEN_IDLE: u64 = 0;
const CHECK_IDLE: u64 = 1;

/// The handler of one caller's connection.
pub(super) struct ProviderConnection {
    protocol: Protocol,
    offer: Offer,
    /// Its number in the list of connections.
    number: u64,
    serving: Arc<Serving>,
    calls: Arc<ConnectionCalls>,
    caller: Caller,
    /// New calls are refused.
    draining: bool,
}

impl ProviderConnection {
    /// Serves what `offer` says.
    pub(super) fn new(serving: Arc<Serving>, offer: Offer, accepted: Accepted) -> Self {
        let Accepted { conn, peer } = accepted;
        let calls = Arc::new(ConnectionCalls::new(conn, peer, Arc::clone(&serving)));
        Self {
            protocol: match offer.http() {
                true => Protocol::Unknown,
                false => Protocol::BaiduStd,
            },
            offer,
            number: serving.connections.add(&calls),
            serving,
            calls,
            caller: Caller::Unknown,
            draining: false,
        }
    }

    fn frames(&mut self, conn: &mut Connection<'_>, input: &mut BytesMut) {
        let received = Instant::now();
        while conn.is_open() {
            // Where it was decoded, it stays: a frame is half a kilobyte.
            match &mut decode(input, &self.serving.limits) {
                Ok(None) => return,
                Ok(Some(frame)) => self.frame(conn, frame, received),
                Err(error) => {
                    log::warn!("{}: {error}; the connection is closed", conn.peer_addr());
                    // Calls that came before are answered as far as they are ready.
                    conn.close();
                }
            }
        }
    }

    fn frame(&mut self, conn: &mut Connection<'_>, frame: &mut Frame, received: Instant) {
        let correlation_id = frame.meta.correlation_id();
        let refusal = match self.let_in(frame) {
            Ok((method, auth)) => {
                let calls = Arc::clone(&self.calls);
                let call = IncomingCall::new(method, frame, auth, received, calls);
                start(&self.calls, conn, method, call);
                return;
            }
            Err(error) => error,
        };
        self.refuse(conn, correlation_id, &refusal);
        if matches!(self.caller, Caller::Unknown) {
            conn.close();
        }
    }

    /// Whether a call may run; counted, if so.
    fn let_in(&mut self, frame: &Frame) -> Result<(MethodId, Option<Arc<AuthContext>>), RpcError> {
        let auth = match &self.caller {
            Caller::Known(auth) => auth.clone(),
            Caller::Unknown => {
                let shown = frame.meta.authentication_data.as_deref().unwrap_or(&[]);
                let auth = self.serving.verify(shown, self.calls.peer())?;
                self.caller = Caller::Known(auth.clone());
                auth
            }
        };
        let Some(request) = &frame.meta.request else {
            let what = "the frame names no service";
            return Err(RpcError::new(ErrorCode::NO_SERVICE, what));
        };
        let method = self
            .serving
            .find(request.service_name(), request.method_name())?;
        if self.draining {
            let what = "the provider is stopping";
            return Err(RpcError::new(ErrorCode::STOPPING, what));
        }
        self.serving.admit(method)?;
        self.calls.begin();
        Ok((method, auth))
    }

    fn refuse(&self, conn: &mut Connection<'_>, correlation_id: i64, error: &RpcError) {
        let mut meta = RpcMeta::for_failure(correlation_id, error);
        let limits = &self.serving.limits;
        let result = conn.write_with(|out| encode_payload(&mut meta, &[], &[], limits, out));
        if let Err(error) = result {
            log::error!("an error answer cannot be written: {error}");
        }
    }
}

/// Starts a call that was let in: here, or on the worker pool.
fn start(calls: &ConnectionCalls, conn: &mut Connection<'_>, method: MethodId, call: IncomingCall) {
    let serving = calls.serving();
    let entry = serving.method(method);
    let index = entry.index;
    match entry.descriptor.execution {
        Execution::Inline | Execution::Responder => {
            let run = AssertUnwindSafe(|| entry.service.call(index, call));
            conn.write_with(|out| {
                with_direct_output(calls, out, || {
                    // The call is answered all the same; the connection's other calls go on.
                    if catch_unwind(run).is_err() {
                        let method = entry.descriptor;
                        log::error!("the handler of {}/{} panicked", method.service, method.name);
                    }
                });
            });
        }
        Execution::Pooled => {
            let service = Arc::clone(&entry.service);
            // Refused, the call is dropped and thereby answered.
            let _ = serving.pool.execute(move || service.call(index, call));
        }
    }
}

impl Handler for ProviderConnection {
    fn data(&mut self, conn: &mut Connection<'_>, input: &mut BytesMut) {
        if matches!(self.protocol, Protocol::Unknown) {
            match speaks_http(input) {
                None => return,
                Some(false) if self.offer.frames => self.protocol = Protocol::BaiduStd,
                Some(false) => {
                    conn.close();
                    return;
                }
                Some(true) => {
                    self.calls.set_http();
                    let web = WebConnection::new(Arc::clone(&self.calls), self.offer);
                    self.protocol = Protocol::Http(Box::new(web));
                    conn.set_timer(self.serving.http.idle_timeout, CHECK_IDLE);
                }
            }
        }
        match &mut self.protocol {
            Protocol::Http(web) => web.data(conn, input),
            Protocol::BaiduStd | Protocol::Unknown => self.frames(conn, input),
        }
    }

    fn woken(&mut self, conn: &mut Connection<'_>) {
        if let Protocol::Http(web) = &mut self.protocol {
            web.woken(conn);
        }
    }

    fn drained(&mut self, conn: &mut Connection<'_>) {
        if let Protocol::Http(web) = &mut self.protocol {
            web.drained(conn);
        }
    }

    fn eof(&mut self, conn: &mut Connection<'_>) {
        if let Protocol::Http(web) = &mut self.protocol {
            web.eof(conn);
            return;
        }
        // The caller may only have shut its sending side: answers in work still go out.
        self.calls.close_when_idle();
    }

    fn draining(&mut self, conn: &mut Connection<'_>) {
        self.draining = true;
        conn.set_timer(REFUSE_BEFORE_CLOSE, CLOSE_WHEN_IDLE);
    }

    fn timer(&mut self, conn: &mut Connection<'_>, token: u64) {
        match &mut self.protocol {
            Protocol::Http(web) if token == CHECK_IDLE => {
                if let Some(again) = web.check_idle(conn) {
                    conn.set_timer(again, CHECK_IDLE);
                }
            }
            Protocol::Http(web) => web.end_soon(conn),
            Protocol::BaiduStd | Protocol::Unknown => self.calls.close_when_idle(),
        }
    }

    fn closed(&mut self, _context: &mut LoopContext<'_>, reason: CloseReason) {
        self.serving.connections.remove(self.number);
        match reason {
            CloseReason::Local | CloseReason::Peer | CloseReason::LoopStopped => {}
            other => log::debug!("{}: connection ended: {other}", self.calls.peer()),
        }
    }
}
