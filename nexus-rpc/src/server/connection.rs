//! One caller's connection: frames are cut out, calls are let in or refused, and started where they run.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use nexus_net::{Accepted, CloseReason, Connection, Handler, LoopContext};

use super::AuthContext;
use super::answer::{ConnectionCalls, with_direct_output};
use super::incoming::IncomingCall;
use super::receiving::{Receiving, Step};
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
pub(super) const CHECK_HTTP: u64 = 1;
const AUTHENTICATE: u64 = 2;
const FRAME: u64 = 3;

/// The handler of one caller's connection.
pub(super) struct ProviderConnection {
    protocol: Protocol,
    offer: Offer,
    /// Its number in the list of connections.
    number: u64,
    serving: Arc<Serving>,
    calls: Arc<ConnectionCalls>,
    caller: Caller,
    receiving: Receiving,
    /// Whether the timer [`FRAME`] runs.
    frame_timer: bool,
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
            receiving: Receiving::default(),
            frame_timer: false,
            draining: false,
        }
    }

    fn frames(&mut self, conn: &mut Connection<'_>, input: &mut BytesMut) {
        let received = Instant::now();
        self.receiving.skip(input);
        while conn.is_open() {
            // Where it was decoded, it stays: a frame is half a kilobyte.
            match &mut decode(input, &self.serving.limits) {
                Ok(None) => return self.incomplete(conn, input, received),
                Ok(Some(frame)) => self.frame(conn, frame, received),
                Err(error) => {
                    log::warn!("{}: {error}; the connection is closed", conn.peer_addr());
                    // Calls that came before are answered as far as they are ready.
                    conn.close();
                }
            }
        }
    }

    /// `input` is left, no whole frame.
    fn incomplete(&mut self, conn: &mut Connection<'_>, input: &mut BytesMut, now: Instant) {
        while conn.is_open() && !input.is_empty() {
            let is_known =
                self.serving.authenticator.is_none() || matches!(self.caller, Caller::Known(_));
            let (limits, budget) = (&self.serving.limits, &self.serving.receiving.budget);
            let (meta, refusal) = match self.receiving.step(input, limits, is_known, budget) {
                Ok(Step::Wait) => break,
                Ok(Step::Verify(meta)) => match self.verify(&meta) {
                    Ok(_) => continue,
                    Err(error) => (meta, error),
                },
                Ok(Step::Refuse(meta)) => {
                    let what = "too many bytes of requests are being received";
                    (meta, RpcError::new(ErrorCode::OVERLOADED, what))
                }
                Err(error) => {
                    log::warn!("{}: {error}; the connection is closed", conn.peer_addr());
                    return conn.close();
                }
            };
            self.refuse(conn, meta.correlation_id(), &refusal);
            if refusal.code() == ErrorCode::UNAUTHENTICATED {
                conn.close();
            }
        }
        self.receiving.begin(input, now);
        self.watch_frame(conn, self.serving.receiving.frame_timeout);
    }

    /// Has the connection looked at when the incomplete frame, if there is one, has had its time.
    fn watch_frame(&mut self, conn: &mut Connection<'_>, timeout: Duration) {
        if let Some(left) = self.receiving.left(timeout)
            && !self.frame_timer
        {
            self.frame_timer = true;
            conn.set_timer(left, FRAME);
        }
    }

    fn frame_timer(&mut self, conn: &mut Connection<'_>) {
        self.frame_timer = false;
        let timeout = match self.protocol {
            Protocol::Unknown => self.serving.http.head_timeout,
            Protocol::BaiduStd => self.serving.receiving.frame_timeout,
            Protocol::Http(_) => return,
        };
        if self.receiving.left(timeout) == Some(Duration::ZERO) {
            log::info!("{}: half a frame; closed", conn.peer_addr());
            return conn.close();
        }
        self.watch_frame(conn, timeout);
    }

    fn frame(&mut self, conn: &mut Connection<'_>, frame: &mut Frame, received: Instant) {
        let held = self.receiving.complete();
        let correlation_id = frame.meta.correlation_id();
        let refusal = match self.let_in(frame) {
            Ok((method, auth)) => {
                let calls = Arc::clone(&self.calls);
                let call = IncomingCall::new(method, frame, auth, received, calls, held);
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
            Caller::Unknown => self.verify(&frame.meta)?,
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

    /// Finds out who the caller is, by the meta of its first call.
    fn verify(&mut self, meta: &RpcMeta) -> Result<Option<Arc<AuthContext>>, RpcError> {
        let shown = meta.authentication_data.as_deref().unwrap_or(&[]);
        let auth = self.serving.verify(shown, self.calls.peer())?;
        self.caller = Caller::Known(auth.clone());
        Ok(auth)
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
    fn opened(&mut self, conn: &mut Connection<'_>) {
        if self.offer.frames && self.serving.authenticator.is_some() {
            conn.set_timer(self.serving.receiving.authentication_timeout, AUTHENTICATE);
        }
    }

    fn data(&mut self, conn: &mut Connection<'_>, input: &mut BytesMut) {
        if matches!(self.protocol, Protocol::Unknown) {
            match speaks_http(input) {
                None => {
                    self.receiving.begin(input, Instant::now());
                    return self.watch_frame(conn, self.serving.http.head_timeout);
                }
                Some(false) if self.offer.frames => self.protocol = Protocol::BaiduStd,
                Some(false) => {
                    conn.close();
                    return;
                }
                Some(true) => {
                    self.calls.set_http();
                    let web = WebConnection::new(Arc::clone(&self.calls), self.offer);
                    self.protocol = Protocol::Http(Box::new(web));
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
        match (token, &mut self.protocol) {
            (FRAME, _) => self.frame_timer(conn),
            (AUTHENTICATE, Protocol::BaiduStd | Protocol::Unknown) => {
                if matches!(self.caller, Caller::Unknown) {
                    log::info!("{}: not authenticated in time; closed", conn.peer_addr());
                    conn.close();
                }
            }
            (CHECK_HTTP, Protocol::Http(web)) => web.check_time(conn),
            (CLOSE_WHEN_IDLE, Protocol::Http(web)) => web.end_soon(conn),
            (CLOSE_WHEN_IDLE, _) => self.calls.close_when_idle(),
            _ => {}
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
