//! One connection to a provider at a time, and the calls in flight on it.
//!
//! The first link of an endpoint connects when the endpoint's machine says so; further ones keep
//! themselves connected. A connection that is given up finishes its calls while the next is already there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Instant;

use arc_swap::ArcSwapOption;
use bytes::{Bytes, BytesMut};
use nexus_net::{
    ClientOptions, CloseReason, ConnHandle, Connection, ConnectionOptions, Handler, LoopContext,
    LoopHandle, Mailbox, TcpClient, TimerId,
};

use super::endpoint::Shared as Provider;
use super::exchange::Exchange;
use super::flight::{Attempt, Fate};
use super::interceptor::Credentials;
use super::options::ChannelOptions;
use crate::bounds::with_room_to_call;
use crate::policy::breaker::Outcome;
use crate::policy::machine::ConnectionId;
use crate::wire::{Frame, Limits, RpcMeta, decode, encode_payload};
use crate::{ErrorCode, RpcError};

/// What is handed to a connection's handler.
enum Message {
    Call(Attempt, InFlight),
    /// Find out whether the provider answers.
    Probe(i64),
    /// No more calls come: close once none is in flight. With what would make the connection anew.
    Retire(Option<TcpClient>),
}

/// What a probe asks for. Nobody serves it, and being told so is an answer.
const PROBE_SERVICE: &[u8] = b"nexus.Probe";
const PROBE_METHOD: &[u8] = b"Probe";

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

/// A place for one connection. Dropped, it lets the calls in flight finish and closes then.
pub(crate) struct Link {
    shared: Arc<Shared>,
    handle: LoopHandle,
    /// Keeps a further link connected; `None` for the machine's.
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
    credentials: Option<Arc<dyn Credentials>>,
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
    /// The link whose connections the provider's machine asks for.
    pub(crate) fn of_machine(
        handle: &LoopHandle,
        provider: &Arc<Provider>,
        options: &ChannelOptions,
    ) -> Self {
        Self {
            shared: Shared::new(provider, options),
            handle: handle.clone(),
            client: None,
        }
    }

    /// A further link, which keeps itself connected.
    ///
    /// # Errors
    /// Those of [`TcpClient::start`].
    pub(crate) fn further(
        handle: &LoopHandle,
        provider: &Arc<Provider>,
        options: &ChannelOptions,
    ) -> Result<Self, nexus_net::Error> {
        let shared = Shared::new(provider, options);
        #[allow(unused_mut, reason = "changed with the feature `tls`")]
        let mut client_options = ClientOptions {
            connection: with_room_to_call(options.connection.clone(), &options.limits),
            backoff: options.backoff.clone(),
            ..ClientOptions::default()
        };
        #[cfg(feature = "tls")]
        client_options.tls.clone_from(&options.tls);
        let for_handlers = Arc::clone(&shared);
        let client = TcpClient::start(handle, provider.address, client_options, move |conn| {
            for_handlers.handler(conn, None)
        })?;
        Ok(Self {
            shared,
            handle: handle.clone(),
            client: Some(client),
        })
    }

    /// Begins the attempt that the machine has named. How it ends the machine is told, also when it could not
    /// begin.
    pub(crate) fn connect(&self, id: ConnectionId, options: Arc<ConnectOptions>) {
        let shared = Arc::clone(&self.shared);
        let posted = self.handle.post(move |context| {
            let provider = Arc::clone(&shared.provider);
            if let Err(error) = options.connect(context, &shared, id) {
                log::warn!("{}: cannot start to connect: {error}", provider.address);
                provider.connection_lost(id);
            }
        });
        if posted.is_err() {
            self.shared.set_state(LinkState::Down);
        }
    }

    /// Sends a request that nobody serves, to see whether it is answered.
    pub(crate) fn probe(&self, correlation_id: i64) {
        if let Some(mailbox) = &*self.shared.mailbox.load() {
            // Given back, the connection has ended, and the machine knows.
            let _ = mailbox.send(Message::Probe(correlation_id));
        }
    }

    /// Gives the present connection or attempt up.
    pub(crate) fn close(&self) {
        let shared = Arc::clone(&self.shared);
        // Behind the beginning of the attempt, which is a task, too.
        let _ = self.handle.post(move |_| shared.retire(None));
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
        let client = self.client.take();
        // Behind the first attempt, and behind the calls that wait for it as tasks.
        let shared = Arc::clone(&self.shared);
        let _ = self.handle.post(move |_| shared.retire(client));
    }
}

/// How the machine's link connects.
pub(crate) struct ConnectOptions {
    connection: Arc<ConnectionOptions>,
    #[cfg(feature = "tls")]
    tls: Option<nexus_net::ClientTls>,
}

impl ConnectOptions {
    pub(crate) fn new(options: &ChannelOptions) -> Self {
        let connection = with_room_to_call(options.connection.clone(), &options.limits);
        Self {
            connection: Arc::new(connection),
            #[cfg(feature = "tls")]
            tls: options.tls.clone(),
        }
    }

    fn connect(
        &self,
        context: &mut LoopContext<'_>,
        shared: &Arc<Shared>,
        id: ConnectionId,
    ) -> std::io::Result<()> {
        let address = shared.provider.address;
        let options = Arc::clone(&self.connection);
        let make_handler = |conn: &ConnHandle| shared.handler(conn, Some(id));
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return context
                .connect_tls(address, tls, options, make_handler)
                .map(drop);
        }
        context.connect(address, options, make_handler).map(drop)
    }
}

impl Shared {
    fn new(provider: &Arc<Provider>, options: &ChannelOptions) -> Arc<Self> {
        let connection = with_room_to_call(options.connection.clone(), &options.limits);
        Arc::new(Self {
            provider: Arc::clone(provider),
            state: AtomicU8::new(LinkState::Connecting as u8),
            in_flight: AtomicUsize::new(0),
            mailbox: ArcSwapOption::empty(),
            limits: options.limits,
            output_bytes_max: connection.output_bytes_max,
            credentials: options.credentials.clone(),
        })
    }

    /// The handler of a new attempt, which takes the calls from here on.
    fn handler(self: &Arc<Self>, conn: &ConnHandle, id: Option<ConnectionId>) -> Box<dyn Handler> {
        let mailbox = Arc::new(Mailbox::new(conn.clone()));
        self.mailbox.store(Some(Arc::clone(&mailbox)));
        self.set_state(LinkState::Connecting);
        Box::new(LinkConnection {
            authentication: self.credentials.as_ref().map(|c| c.authentication_data()),
            shared: Arc::clone(self),
            mailbox,
            id,
            open: false,
            retiring: None,
            arrived: Vec::new(),
            waiting: Vec::new(),
            exchange: Exchange::new(self.limits),
        })
    }

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

    fn retire(&self, client: Option<TcpClient>) {
        if let Some(mailbox) = &*self.mailbox.load() {
            // Given back, there is no connection, and dropping the client ends its attempts.
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
    /// The machine's name for it.
    id: Option<ConnectionId>,
    open: bool,
    arrived: Vec<Message>,
    /// It is to close once no call is in flight; holds what would make it anew until then.
    retiring: Option<Option<TcpClient>>,
    /// The calls to be sent once connected, in their order.
    waiting: Vec<i64>,
    exchange: Exchange<Pending>,
    /// To go out with the first request.
    authentication: Option<Bytes>,
}

/// What waits for an answer on this connection.
enum Pending {
    Call {
        attempt: Attempt,
        timer: TimerId,
        counted: InFlight,
    },
    Probe,
}

impl LinkConnection {
    fn take_arrived(&mut self, conn: &mut Connection<'_>) {
        self.mailbox.take(&mut self.arrived);
        let now = Instant::now();
        let mut arrived = std::mem::take(&mut self.arrived);
        for message in arrived.drain(..) {
            match message {
                Message::Call(attempt, counted) => self.begin(conn, attempt, counted, now),
                Message::Probe(correlation_id) => self.probe(conn, correlation_id),
                Message::Retire(client) => self.retiring = Some(client),
            }
        }
        self.arrived = arrived;
        self.close_if_done(conn);
    }

    fn close_if_done(&mut self, conn: &mut Connection<'_>) {
        if self.retiring.is_none() {
            return;
        }
        if !self.open {
            // An attempt that was given up; those who wait for it go elsewhere.
            conn.abort();
        } else if self.exchange.is_empty() {
            self.retiring = Some(None);
            conn.close();
        }
    }

    fn probe(&mut self, conn: &mut Connection<'_>, correlation_id: i64) {
        let mut meta = RpcMeta::for_request(PROBE_SERVICE, PROBE_METHOD, correlation_id);
        meta.authentication_data = self.authentication.take();
        let limits = &self.shared.limits;
        let written = conn.write_with(|out| encode_payload(&mut meta, &[], &[], limits, out));
        if written.is_ok() {
            self.exchange.begin(correlation_id, Pending::Probe);
        }
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
        let pending = Pending::Call {
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

    fn answered(&mut self, attempt: Attempt, frame: Frame, now: Instant) {
        let provider = &self.shared.provider;
        let latency = now.saturating_duration_since(attempt.sent);
        let Some(error) = frame.meta.failure() else {
            provider.outcome(now, Outcome::Success, latency);
            attempt.answered(frame);
            return;
        };
        match error.code() {
            ErrorCode::STOPPING => {
                match self.id {
                    Some(id) => provider.stopping(id),
                    None => self.set_state(LinkState::Stopping),
                }
                attempt.failed(error, Fate::Refused);
            }
            ErrorCode::OVERLOADED => attempt.failed(error, Fate::Refused),
            _ => {
                // The provider works: what its handlers answer is the application's affair.
                provider.outcome(now, Outcome::Success, latency);
                attempt.failed(error, Fate::Answered);
            }
        }
    }

    /// Of the connection that takes the calls now: a retired one has no say.
    fn set_state(&self, state: LinkState) {
        if self.retiring.is_none() {
            self.shared.set_state(state);
        }
    }

    /// Sends what has waited for the connection.
    fn send_waiting(&mut self, conn: &mut Connection<'_>, id: i64, pending: Pending) {
        let Pending::Call {
            mut attempt,
            timer,
            counted,
        } = pending
        else {
            return;
        };
        match self.send(conn, &mut attempt) {
            Ok(()) => {
                let pending = Pending::Call {
                    attempt,
                    timer,
                    counted,
                };
                self.exchange.begin(id, pending);
            }
            Err(error) => {
                drop(counted);
                conn.cancel_timer(timer);
                attempt.failed(error, Fate::NotSent);
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
            let Some(pending) = self.exchange.take(id) else {
                continue;
            };
            self.send_waiting(conn, id, pending);
        }
        self.take_arrived(conn);
        self.set_state(LinkState::Ready);
        log::info!("{}: connected", self.shared.provider.address);
        if let Some(id) = self.id {
            self.shared.provider.connected(id);
        }
    }

    fn data(&mut self, conn: &mut Connection<'_>, input: &mut BytesMut) {
        let now = Instant::now();
        loop {
            match self.exchange.receive(input) {
                Ok(None) => break,
                Ok(Some((Pending::Probe, _))) => {
                    if let Some(id) = self.id {
                        self.shared.provider.probe_answered(id);
                    }
                }
                Ok(Some((
                    Pending::Call {
                        attempt,
                        timer,
                        counted,
                    },
                    frame,
                ))) => {
                    // First, so that whoever has the answer sees the count without it.
                    drop(counted);
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
        let Some(pending) = self.exchange.take(token.cast_signed()) else {
            return;
        };
        if let Pending::Call {
            attempt, counted, ..
        } = pending
        {
            drop(counted);
            let now = Instant::now();
            let what = match self.open {
                true => "no answer in time",
                false => "not connected in time",
            };
            if self.open {
                let latency = now.saturating_duration_since(attempt.sent);
                let provider = &self.shared.provider;
                provider.outcome(now, Outcome::TimedOut, latency);
            }
            attempt.timed_out(self.error(ErrorCode::DEADLINE_EXCEEDED, what));
        }
        self.close_if_done(conn);
    }

    fn closed(&mut self, context: &mut LoopContext<'_>, reason: CloseReason) {
        self.set_state(LinkState::Down);
        if self.open {
            log::info!("{}: {reason}", self.shared.provider.address);
        }
        // Before the calls, which look for another connection.
        if let Some(id) = self.id {
            self.shared.provider.connection_lost(id);
        }
        let now = Instant::now();
        for pending in self.exchange.take_all() {
            let Pending::Call {
                attempt,
                timer,
                counted,
            } = pending
            else {
                continue;
            };
            drop(counted);
            context.cancel_timer(timer);
            if self.open {
                // Sent, and whether it ran is not known.
                let latency = now.saturating_duration_since(attempt.sent);
                self.shared.provider.outcome(now, Outcome::Failure, latency);
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
