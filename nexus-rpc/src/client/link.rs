//! One connection to a provider, made again whenever it is lost, and the calls in flight on it.
//!
//! ```text
//!   start ──► Connecting ─opened─► Ready ─STOPPING answered─► Stopping
//!                 ▲    └─failed─┐      └─lost─┐                     │
//!                 └──backoff── Down ◄─────────┴────────lost─────────┘
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Instant;

use arc_swap::ArcSwapOption;
use bytes::{Bytes, BytesMut};
use nexus_net::{
    ClientOptions, CloseReason, Connection, Handler, LoopContext, LoopHandle, Mailbox, TcpClient,
    TimerId,
};

use super::endpoint::Shared as Provider;
use super::exchange::Exchange;
use super::flight::{Attempt, Fate};
use super::options::ChannelOptions;
use crate::bounds::with_room_for_frames;
use crate::wire::{Frame, Limits, decode, encode_payload};
use crate::{ErrorCode, RpcError};

/// What is handed to a connection's handler.
enum Message {
    Call(Attempt, InFlight),
    /// No more calls come: let go of the client, which closes the connection, once none is in flight.
    Retire(TcpClient),
}

/// Where a connection stands, the best to send to first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum LinkState {
    /// Connected.
    Ready = 0,
    /// The first attempt, or the next one, is being made; calls sent now wait for the outcome.
    Connecting = 1,
    /// Connected, and the provider has answered that it is stopping: only for who has no other.
    Stopping = 2,
    /// The last attempt failed, or the connection was lost; the next attempt comes by itself.
    Down = 3,
}

/// A connection. Dropped, it lets the calls in flight finish and closes then.
pub(crate) struct Link {
    shared: Arc<Shared>,
    handle: LoopHandle,
    /// `None` only while it is being dropped.
    client: Option<TcpClient>,
}

struct Shared {
    provider: Arc<Provider>,
    state: AtomicU8,
    in_flight: AtomicUsize,
    /// Of the present connection or attempt; `None` before the first.
    mailbox: ArcSwapOption<Mailbox<Message>>,
    limits: Limits,
    output_bytes_max: usize,
}

/// One call in flight, counted for as long as this lives.
pub(crate) struct InFlight(Arc<Shared>);

impl InFlight {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.in_flight.fetch_add(1, Ordering::AcqRel);
        shared.provider.in_flight.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(shared))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
        self.0.provider.call_over();
    }
}

impl Link {
    pub(crate) fn start(
        handle: &LoopHandle,
        provider: &Arc<Provider>,
        options: &ChannelOptions,
    ) -> Result<Self, nexus_net::Error> {
        let connection = with_room_for_frames(options.connection.clone(), &options.limits);
        let shared = Arc::new(Shared {
            provider: Arc::clone(provider),
            state: AtomicU8::new(LinkState::Connecting as u8),
            in_flight: AtomicUsize::new(0),
            mailbox: ArcSwapOption::empty(),
            limits: options.limits,
            output_bytes_max: connection.output_bytes_max,
        });
        #[allow(unused_mut, reason = "changed with the feature `tls`")]
        let mut client_options = ClientOptions {
            connection,
            backoff: options.backoff.clone(),
            ..ClientOptions::default()
        };
        #[cfg(feature = "tls")]
        client_options.tls.clone_from(&options.tls);
        let for_handlers = Arc::clone(&shared);
        let credentials = options.credentials.clone();
        let client = TcpClient::start(handle, provider.address, client_options, move |conn| {
            let mailbox = Arc::new(Mailbox::new(conn.clone()));
            for_handlers.mailbox.store(Some(Arc::clone(&mailbox)));
            for_handlers.set_state(LinkState::Connecting);
            Box::new(LinkConnection {
                authentication: credentials.as_ref().map(|c| c.authentication_data()),
                shared: Arc::clone(&for_handlers),
                mailbox,
                open: false,
                arrived: Vec::new(),
                retired: None,
                waiting: Vec::new(),
                exchange: Exchange::new(for_handlers.limits),
            })
        })?;
        Ok(Self {
            shared,
            handle: handle.clone(),
            client: Some(client),
        })
    }

    pub(crate) fn state(&self) -> LinkState {
        self.shared.state()
    }

    /// Calls that were handed to the connection and are not over there.
    pub(crate) fn in_flight(&self) -> usize {
        self.shared.in_flight.load(Ordering::Acquire)
    }

    /// Counts a call in, if the connection has none in flight.
    pub(crate) fn claim_idle(&self) -> Option<InFlight> {
        let shared = &self.shared;
        shared
            .in_flight
            .compare_exchange(0, 1, Ordering::AcqRel, Ordering::Acquire)
            .ok()?;
        shared.provider.in_flight.fetch_add(1, Ordering::AcqRel);
        Some(InFlight(Arc::clone(shared)))
    }

    pub(crate) fn claim(&self) -> InFlight {
        InFlight::new(&self.shared)
    }

    /// Hands a call to the connection. Given back, it was not sent.
    #[allow(
        clippy::result_large_err,
        reason = "gives the call back by move, which a box would only make slower"
    )]
    pub(crate) fn send(
        &self,
        attempt: Attempt,
        counted: InFlight,
    ) -> Result<(), (Attempt, RpcError)> {
        if self.shared.mailbox.load().is_some() {
            return self.shared.hand_over(attempt, counted);
        }
        // The loop has not begun the first attempt. It does so before it gets to this task.
        let shared = Arc::clone(&self.shared);
        let posted = self.handle.post(move |_| {
            if let Err((attempt, error)) = shared.hand_over(attempt, counted) {
                // It could not even begin, so nobody else is going to say so.
                if shared.mailbox.load().is_none() {
                    shared.set_state(LinkState::Down);
                }
                attempt.failed(error, Fate::NotSent);
            }
        });
        if posted.is_err() {
            // The task was dropped, and the call failed thereby.
            self.shared.set_state(LinkState::Down);
        }
        Ok(())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let Some(client) = self.client.take() else {
            return;
        };
        // Behind the first attempt, and behind the calls that wait for it as tasks.
        let shared = Arc::clone(&self.shared);
        let _ = self.handle.post(move |_| shared.retire(client));
    }
}

impl Shared {
    #[allow(
        clippy::result_large_err,
        reason = "gives the call back by move, which a box would only make slower"
    )]
    fn hand_over(&self, attempt: Attempt, counted: InFlight) -> Result<(), (Attempt, RpcError)> {
        let returned = match &*self.mailbox.load() {
            Some(mailbox) => match mailbox.send(Message::Call(attempt, counted)) {
                Err(Message::Call(attempt, _)) => attempt,
                _ => return Ok(()),
            },
            None => attempt,
        };
        let error = self
            .provider
            .error(ErrorCode::CONNECTION_FAILED, "not connected");
        Err((returned, error))
    }

    fn retire(&self, client: TcpClient) {
        if let Some(mailbox) = &*self.mailbox.load() {
            // Given back, there is no connection, and dropping it ends the attempts.
            let _ = mailbox.send(Message::Retire(client));
        }
    }

    fn state(&self) -> LinkState {
        match self.state.load(Ordering::Acquire) {
            0 => LinkState::Ready,
            1 => LinkState::Connecting,
            2 => LinkState::Stopping,
            _ => LinkState::Down,
        }
    }

    fn set_state(&self, state: LinkState) {
        self.state.store(state as u8, Ordering::Release);
        self.provider.link_changed();
    }
}

/// The handler of one connection, or attempt to connect: it owns the calls in flight.
struct LinkConnection {
    shared: Arc<Shared>,
    mailbox: Arc<Mailbox<Message>>,
    open: bool,
    arrived: Vec<Message>,
    /// Held while calls are in flight after the link was dropped.
    retired: Option<TcpClient>,
    /// The calls to be sent once connected, in their order.
    waiting: Vec<i64>,
    exchange: Exchange<Pending>,
    /// To go out with the first request.
    authentication: Option<Bytes>,
}

/// A call that is not over on this connection.
struct Pending {
    attempt: Attempt,
    timer: TimerId,
    counted: InFlight,
}

impl LinkConnection {
    fn take_arrived(&mut self, conn: &mut Connection<'_>) {
        self.mailbox.take(&mut self.arrived);
        let now = Instant::now();
        let mut arrived = std::mem::take(&mut self.arrived);
        for message in arrived.drain(..) {
            match message {
                Message::Call(attempt, counted) => self.begin(conn, attempt, counted, now),
                Message::Retire(client) => self.retired = Some(client),
            }
        }
        self.arrived = arrived;
        self.let_go_if_done();
    }

    fn begin(
        &mut self,
        conn: &mut Connection<'_>,
        mut attempt: Attempt,
        counted: InFlight,
        now: Instant,
    ) {
        if attempt.flight().is_over() {
            // Canceled or abandoned on its way here.
            return;
        }
        let left = attempt.deadline().saturating_duration_since(now);
        if left.is_zero() {
            drop(counted);
            let what = "the deadline had passed before the call was sent";
            attempt.timed_out(self.error(ErrorCode::DEADLINE_EXCEEDED, what));
            return;
        }
        attempt.sent = now;
        let id = attempt.correlation_id;
        if !self.open {
            self.waiting.push(id);
        } else if let Err(error) = self.send(conn, &mut attempt) {
            drop(counted);
            attempt.failed(error, Fate::NotSent);
            return;
        }
        // The bits of the id; `timer` turns them back.
        let timer = conn.set_timer(left, id.cast_unsigned());
        let pending = Pending {
            attempt,
            timer,
            counted,
        };
        self.exchange.begin(id, pending);
    }

    /// Queues the call's frame. Refused, nothing of it was or will be sent.
    fn send(&mut self, conn: &mut Connection<'_>, attempt: &mut Attempt) -> Result<(), RpcError> {
        if !conn.is_open() {
            let what = "the connection is closing";
            return Err(self.error(ErrorCode::CONNECTION_FAILED, what));
        }
        let mut frame = std::mem::take(&mut attempt.frame);
        if let Some(data) = self.authentication.take() {
            frame = authenticated(frame, data, &self.shared.limits)?;
        }
        let bytes = conn.output_bytes().saturating_add(frame.len());
        if bytes > self.shared.output_bytes_max {
            let what = "too many bytes wait to be sent";
            return Err(self.error(ErrorCode::SEND_QUEUE_FULL, what));
        }
        conn.send(frame);
        Ok(())
    }

    /// What stays of a call that was taken out: its attempt, to be ended.
    fn release(&mut self, pending: Pending) -> (Attempt, TimerId) {
        let Pending {
            attempt,
            timer,
            counted,
        } = pending;
        // First, so that whoever has the answer sees the count without it.
        drop(counted);
        self.let_go_if_done();
        (attempt, timer)
    }

    fn let_go_if_done(&mut self) {
        if self.exchange.is_empty() {
            drop(self.retired.take());
        }
    }

    fn answered(&mut self, attempt: Attempt, frame: Frame, now: Instant) {
        let provider = &self.shared.provider;
        let latency = now.saturating_duration_since(attempt.sent);
        let Some(error) = frame.meta.failure() else {
            provider.took(latency, now);
            attempt.answered(frame);
            return;
        };
        match error.code() {
            ErrorCode::STOPPING => {
                self.shared.set_state(LinkState::Stopping);
                attempt.failed(error, Fate::Refused);
            }
            ErrorCode::OVERLOADED => {
                attempt.failed(error, Fate::Refused);
            }
            _ => {
                provider.took(latency, now);
                attempt.failed(error, Fate::Answered);
            }
        }
    }

    fn error(&self, code: ErrorCode, what: impl std::fmt::Display) -> RpcError {
        self.shared.provider.error(code, what)
    }
}

/// The first request of a connection, with who its caller is.
fn authenticated(frame: Bytes, data: Bytes, limits: &Limits) -> Result<Bytes, RpcError> {
    let mut out = BytesMut::new();
    let decoded = decode(&mut BytesMut::from(frame), limits);
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
        for id in std::mem::take(&mut self.waiting) {
            // Its deadline may have passed while it waited.
            let Some(mut pending) = self.exchange.take(id) else {
                continue;
            };
            match self.send(conn, &mut pending.attempt) {
                Ok(()) => self.exchange.begin(id, pending),
                Err(error) => {
                    let (attempt, timer) = self.release(pending);
                    conn.cancel_timer(timer);
                    attempt.failed(error, Fate::NotSent);
                }
            }
        }
        self.take_arrived(conn);
        self.shared.set_state(LinkState::Ready);
        log::info!("{}: connected", self.shared.provider.address);
    }

    fn data(&mut self, conn: &mut Connection<'_>, input: &mut BytesMut) {
        let now = Instant::now();
        loop {
            match self.exchange.receive(input) {
                Ok(None) => return,
                Ok(Some((pending, frame))) => {
                    let (attempt, timer) = self.release(pending);
                    conn.cancel_timer(timer);
                    self.answered(attempt, frame, now);
                }
                Err(error) => {
                    let address = self.shared.provider.address;
                    log::warn!("{address}: {error}; the connection is closed");
                    conn.abort();
                    return;
                }
            }
        }
    }

    fn eof(&mut self, conn: &mut Connection<'_>) {
        // No more calls: what is sent now would not be answered.
        self.shared.set_state(LinkState::Down);
        conn.close();
    }

    fn woken(&mut self, conn: &mut Connection<'_>) {
        self.take_arrived(conn);
    }

    fn timer(&mut self, _conn: &mut Connection<'_>, token: u64) {
        let Some(pending) = self.exchange.take(token.cast_signed()) else {
            return;
        };
        let (attempt, _) = self.release(pending);
        let now = Instant::now();
        let latency = now.saturating_duration_since(attempt.sent);
        self.shared.provider.took(latency, now);
        let what = match self.open {
            true => "no answer in time",
            false => "not connected in time",
        };
        attempt.timed_out(self.error(ErrorCode::DEADLINE_EXCEEDED, what));
    }

    fn closed(&mut self, context: &mut LoopContext<'_>, reason: CloseReason) {
        self.shared.set_state(LinkState::Down);
        if self.open {
            log::info!("{}: {reason}", self.shared.provider.address);
        }
        for pending in self.exchange.take_all() {
            let Pending {
                attempt,
                timer,
                counted,
            } = pending;
            drop(counted);
            context.cancel_timer(timer);
            if self.open {
                // Sent, and whether it ran is not known.
                let error = self.error(ErrorCode::CONNECTION_CLOSED, &reason);
                attempt.failed(error, Fate::Unknown);
            } else {
                let error = self.error(ErrorCode::CONNECTION_FAILED, &reason);
                attempt.failed(error, Fate::NotSent);
            }
        }
        for message in self.mailbox.close() {
            if let Message::Call(attempt, counted) = message {
                drop(counted);
                let error = self.error(ErrorCode::CONNECTION_FAILED, &reason);
                attempt.failed(error, Fate::NotSent);
            }
        }
    }
}
