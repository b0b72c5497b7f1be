//! One connection to a provider, or attempt to connect: it owns the calls in flight on it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use nexus_net::{CloseReason, Connection, Handler, LoopContext, Mailbox, TimerId};

use super::endpoint::PROBE_CORRELATION_ID;
use super::exchange::{Exchange, Received};
use super::flight::{Attempt, Fate};
use super::link::{InFlight, LinkState, Shared};
use crate::policy::breaker::Outcome;
use crate::policy::machine::ConnectionId;
use crate::wire::{Limits, RpcMeta, decode, encode_payload};
use crate::{ErrorCode, RpcError};

/// What is handed to a connection's handler.
pub(super) enum Message {
    Call(Attempt, InFlight),
    /// Find out whether the provider answers.
    Probe(i64),
    /// No more calls come: close once none is in flight.
    Retire,
}

/// What a probe asks for. Nobody serves it, and being told so is an answer.
const PROBE_SERVICE: &[u8] = b"nexus.Probe";
const PROBE_METHOD: &[u8] = b"Probe";

/// The handler.
pub(super) struct LinkConnection {
    shared: Arc<Shared>,
    mailbox: Arc<Mailbox<Message>>,
    /// The machine's name for it.
    id: ConnectionId,
    open: bool,
    /// Open, and not to be probed first.
    takes_calls: bool,
    arrived: Vec<Message>,
    /// It is to close once no call is in flight.
    retiring: bool,
    /// The calls to be sent once it takes calls, in their order.
    waiting: Vec<i64>,
    exchange: Exchange<Pending>,
    /// One timer for all calls, set for when the first may be late. A call that is answered leaves it as it
    /// is: when it fires it is set anew.
    alarm: Option<(Instant, TimerId)>,
    /// To go out with the first request.
    authentication: Option<Bytes>,
}

/// What waits for an answer on this connection.
enum Pending {
    Call(Attempt, InFlight),
    Probe,
    Introduction,
}

/// Why a call was not sent.
enum Unsent {
    /// It has ended meanwhile: canceled, or abandoned.
    Over,
    Refused(RpcError),
}

impl Unsent {
    fn end(self, attempt: Attempt) {
        match self {
            // There is nothing to be ended, and the attempt sees that when it is dropped.
            Self::Over => {}
            Self::Refused(error) => attempt.failed(error, Fate::NotSent),
        }
    }
}

/// Requests up to this length are copied to the connection's output, which is cheaper than to share them.
const COPIED_BYTES_MAX: usize = 1024;

/// How long a connection may be without a call until it shows the credentials by itself. A provider closes one that does
/// not; a call within that time carries them, and hears at once when they are refused.
const INTRODUCE_AFTER: Duration = Duration::from_secs(5);
/// Calls count from 1, and the probe has 0.
const INTRODUCTION_CORRELATION_ID: i64 = -1;

/// The timers of a connection.
const ALARM: u64 = 0;
const INTRODUCE: u64 = 1;

impl LinkConnection {
    /// Calls come through `mailbox`; `id` is the machine's name for the attempt.
    pub(super) fn new(
        shared: Arc<Shared>,
        mailbox: Arc<Mailbox<Message>>,
        id: ConnectionId,
        authentication: Option<Bytes>,
    ) -> Self {
        Self {
            exchange: Exchange::new(shared.limits),
            shared,
            mailbox,
            id,
            open: false,
            takes_calls: false,
            arrived: Vec::new(),
            retiring: false,
            waiting: Vec::new(),
            alarm: None,
            authentication,
        }
    }

    fn take_arrived(&mut self, conn: &mut Connection<'_>) {
        self.mailbox.take(&mut self.arrived);
        let now = Instant::now();
        let mut arrived = std::mem::take(&mut self.arrived);
        for message in arrived.drain(..) {
            match message {
                Message::Call(attempt, counted) => self.begin(conn, attempt, counted, now),
                Message::Probe(correlation_id) => self.probe(conn, correlation_id),
                Message::Retire => {
                    // Nobody waits for a probe any more, and it has no deadline.
                    self.exchange.take(PROBE_CORRELATION_ID);
                    self.retiring = true;
                }
            }
        }
        self.arrived = arrived;
        self.set_alarm(conn, now);
        self.close_if_done(conn);
    }

    fn close_if_done(&mut self, conn: &mut Connection<'_>) {
        if !self.retiring {
            return;
        }
        if !self.open {
            // An attempt that was given up; those who wait for it go elsewhere.
            conn.abort();
        } else if self.exchange.is_empty() {
            conn.close();
        }
    }

    fn probe(&mut self, conn: &mut Connection<'_>, correlation_id: i64) {
        if self.ask_nobody(conn, correlation_id) {
            self.exchange.begin(correlation_id, None, Pending::Probe);
        }
    }

    /// Shows the credentials, if no call has.
    fn introduce(&mut self, conn: &mut Connection<'_>) {
        let id = INTRODUCTION_CORRELATION_ID;
        if self.authentication.is_some() && self.ask_nobody(conn, id) {
            let now = Instant::now();
            let deadline = Some(now + INTRODUCE_AFTER);
            self.exchange.begin(id, deadline, Pending::Introduction);
            self.set_alarm(conn, now);
        }
    }

    /// Sends a request that nobody serves.
    fn ask_nobody(&mut self, conn: &mut Connection<'_>, correlation_id: i64) -> bool {
        let mut meta = RpcMeta::for_request(PROBE_SERVICE, PROBE_METHOD, correlation_id);
        meta.authentication_data = self.authentication.take();
        let limits = &self.shared.limits;
        let written = conn.write_with(|out| encode_payload(&mut meta, &[], &[], limits, out));
        written.is_ok()
    }

    fn begin(
        &mut self,
        conn: &mut Connection<'_>,
        mut attempt: Attempt,
        counted: InFlight,
        now: Instant,
    ) {
        let deadline = attempt.deadline();
        if deadline <= now {
            drop(counted);
            let what = "the deadline had passed before the call was sent";
            attempt.timed_out(self.error(ErrorCode::DEADLINE_EXCEEDED, what));
            return;
        }
        attempt.sent = now;
        let id = attempt.correlation_id;
        if !self.takes_calls {
            if attempt.flight().is_over() {
                return;
            }
            self.waiting.push(id);
        } else if let Err(unsent) = self.send(conn, &attempt) {
            drop(counted);
            unsent.end(attempt);
            return;
        }
        let pending = Pending::Call(attempt, counted);
        self.exchange.begin(id, Some(deadline), pending);
    }

    /// Has the connection called when the next call is late.
    fn set_alarm(&mut self, conn: &mut Connection<'_>, now: Instant) {
        let Some(at) = self.exchange.next_deadline() else {
            return;
        };
        if let Some((earlier, timer)) = self.alarm {
            if earlier <= at {
                return;
            }
            conn.cancel_timer(timer);
        }
        let timer = conn.set_timer(at.saturating_duration_since(now), ALARM);
        self.alarm = Some((at, timer));
    }

    /// Queues the call's frame. Failed, nothing of it was or will be sent.
    fn send(&mut self, conn: &mut Connection<'_>, attempt: &Attempt) -> Result<(), Unsent> {
        attempt
            .send_with(|frame| self.write(conn, frame).map_err(Unsent::Refused))
            .unwrap_or(Err(Unsent::Over))
    }

    fn write(&mut self, conn: &mut Connection<'_>, frame: &Bytes) -> Result<(), RpcError> {
        if !conn.is_open() {
            let what = "the connection is closing";
            return Err(self.error(ErrorCode::CONNECTION_FAILED, what));
        }
        let with_authentication;
        let frame = match self.authentication.take() {
            Some(data) => {
                with_authentication = authenticated(frame, data, &self.shared.limits)?;
                &with_authentication
            }
            None => frame,
        };
        let bytes = conn.output_bytes().saturating_add(frame.len());
        if bytes > self.shared.output_bytes_max {
            let what = "too many bytes wait to be sent";
            return Err(self.error(ErrorCode::SEND_QUEUE_FULL, what));
        }
        match frame.len() <= COPIED_BYTES_MAX {
            true => conn.write(frame),
            false => conn.send(frame.clone()),
        }
        Ok(())
    }

    fn answered(&mut self, attempt: Attempt, received: Received, now: Instant) {
        let provider = &self.shared.provider;
        let latency = now.saturating_duration_since(attempt.sent);
        let Received {
            failure,
            metadata,
            sealed,
        } = received;
        let Some(error) = failure else {
            provider.outcome(self.id, now, Outcome::Success, latency);
            attempt.answered(sealed, metadata);
            return;
        };
        match error.code() {
            ErrorCode::STOPPING => {
                self.set_state(LinkState::Stopping);
                provider.stopping(self.id);
                attempt.failed(error, Fate::Refused);
            }
            ErrorCode::OVERLOADED => attempt.failed(error, Fate::Refused),
            _ => {
                // The provider works: what its handlers answer is the application's affair.
                provider.outcome(self.id, now, Outcome::Success, latency);
                attempt.failed(error, Fate::Answered);
            }
        }
    }

    fn late(&self, pending: Pending, now: Instant) {
        let Pending::Call(attempt, counted) = pending else {
            return;
        };
        drop(counted);
        let what = match self.takes_calls {
            true => "no answer in time",
            false => "not connected in time",
        };
        if self.takes_calls {
            let latency = now.saturating_duration_since(attempt.sent);
            let provider = &self.shared.provider;
            provider.outcome(self.id, now, Outcome::TimedOut, latency);
        }
        attempt.timed_out(self.error(ErrorCode::DEADLINE_EXCEEDED, what));
    }

    /// Of the connection that takes the calls now: a retired one has no say.
    fn set_state(&self, state: LinkState) {
        if !self.retiring && self.shared.is_present(&self.mailbox) {
            self.shared.set_state(state);
        }
    }

    /// Sends what has waited for the connection, and what comes from now on.
    fn take_calls(&mut self, conn: &mut Connection<'_>) {
        self.takes_calls = true;
        for id in std::mem::take(&mut self.waiting) {
            // Its deadline may have passed while it waited.
            let Some(Pending::Call(attempt, counted)) = self.exchange.take(id) else {
                continue;
            };
            match self.send(conn, &attempt) {
                Ok(()) => {
                    let deadline = Some(attempt.deadline());
                    let pending = Pending::Call(attempt, counted);
                    self.exchange.begin(id, deadline, pending);
                }
                Err(unsent) => {
                    drop(counted);
                    unsent.end(attempt);
                }
            }
        }
        self.take_arrived(conn);
        self.set_state(LinkState::Ready);
    }

    fn error(&self, code: ErrorCode, what: impl std::fmt::Display) -> RpcError {
        self.shared.provider.error(code, what)
    }
}

/// What a request that was sent fails with when its connection ends.
fn lost(reason: &CloseReason) -> (ErrorCode, Fate) {
    match is_refused(reason) {
        // The provider has not finished the handshake, so it has read no request.
        true => (ErrorCode::TLS, Fate::NotSent),
        false => (ErrorCode::CONNECTION_CLOSED, Fate::Unknown),
    }
}

/// What a request fails with that was still to be sent.
fn not_sent(reason: &CloseReason) -> ErrorCode {
    match is_refused(reason) {
        true => ErrorCode::TLS,
        false => ErrorCode::CONNECTION_FAILED,
    }
}

/// Whether the provider does not want this side's certificate.
fn is_refused(reason: &CloseReason) -> bool {
    #[cfg(feature = "tls")]
    return reason.is_refused_by_tls();
    #[cfg(not(feature = "tls"))]
    {
        let _ = reason;
        false
    }
}

/// The first request of a connection, with who its caller is.
fn authenticated(frame: &Bytes, data: Bytes, limits: &Limits) -> Result<Bytes, RpcError> {
    let mut out = BytesMut::new();
    let decoded = decode(&mut BytesMut::from(&frame[..]), limits);
    if let Ok(Some(mut decoded)) = decoded {
        decoded.meta.authentication_data = Some(data);
        let (payload, attachment) = (&decoded.payload, &decoded.attachment);
        if encode_payload(&mut decoded.meta, payload, attachment, limits, &mut out).is_ok() {
            return Ok(out.freeze());
        }
    }
    let what = "the request does not fit a frame together with the credentials";
    Err(RpcError::bad_request(what))
}

impl Handler for LinkConnection {
    fn opened(&mut self, conn: &mut Connection<'_>) {
        self.open = true;
        if self.authentication.is_some() {
            conn.set_timer(INTRODUCE_AFTER, INTRODUCE);
        }
        log::info!("{}: connected", self.shared.provider.address);
        if self.shared.provider.connected(self.id) {
            self.take_calls(conn);
        }
    }

    fn data(&mut self, conn: &mut Connection<'_>, input: &mut BytesMut) {
        let now = Instant::now();
        loop {
            match self.exchange.receive(input) {
                Ok(None) => break,
                Ok(Some((Pending::Probe, _))) => {
                    if !self.takes_calls {
                        self.take_calls(conn);
                    }
                    self.shared.provider.probe_answered(self.id);
                }
                Ok(Some((Pending::Introduction, received))) => {
                    if let Some(error) = received.failure
                        && error.code() == ErrorCode::UNAUTHENTICATED
                    {
                        let address = self.shared.provider.address;
                        log::warn!("{address}: the credentials are refused: {error}");
                    }
                }
                Ok(Some((Pending::Call(attempt, counted), received))) => {
                    // First, so that whoever has the answer sees the count without it.
                    drop(counted);
                    self.answered(attempt, received, now);
                }
                Err(error) => {
                    let address = self.shared.provider.address;
                    log::warn!("{address}: {error}; the connection is closed");
                    conn.abort();
                    return;
                }
            }
        }
        self.close_if_done(conn);
    }

    fn eof(&mut self, conn: &mut Connection<'_>) {
        // No more calls: what is sent now would not be answered.
        self.set_state(LinkState::Down);
        conn.close();
    }

    fn woken(&mut self, conn: &mut Connection<'_>) {
        self.take_arrived(conn);
    }

    fn timer(&mut self, conn: &mut Connection<'_>, token: u64) {
        if token == INTRODUCE {
            return self.introduce(conn);
        }
        self.alarm = None;
        let now = Instant::now();
        while let Some(pending) = self.exchange.take_late(now) {
            self.late(pending, now);
        }
        self.set_alarm(conn, now);
        self.close_if_done(conn);
    }

    fn closed(&mut self, _context: &mut LoopContext<'_>, reason: CloseReason) {
        self.set_state(LinkState::Down);
        if self.open {
            log::info!("{}: {reason}", self.shared.provider.address);
        }
        if is_refused(&reason) {
            self.shared.provider.refused();
        }
        // Before the calls, which look for another connection.
        self.shared.provider.connection_lost(self.id);
        let now = Instant::now();
        let not_sent = self.error(not_sent(&reason), &reason);
        for pending in self.exchange.take_all() {
            let Pending::Call(attempt, counted) = pending else {
                continue;
            };
            drop(counted);
            if self.takes_calls {
                // Sent, and whether it ran is not known.
                let latency = now.saturating_duration_since(attempt.sent);
                let provider = &self.shared.provider;
                provider.outcome(self.id, now, Outcome::Failure, latency);
                let (code, fate) = lost(&reason);
                attempt.failed(self.error(code, &reason), fate);
            } else {
                attempt.failed(not_sent.clone(), Fate::NotSent);
            }
        }
        for message in self.mailbox.close() {
            if let Message::Call(attempt, counted) = message {
                drop(counted);
                attempt.failed(not_sent.clone(), Fate::NotSent);
            }
        }
    }
}
