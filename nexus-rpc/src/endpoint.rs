//! One provider as a channel sees it: its connection, and the calls in flight on it.
//!
//! ```text
//!   start ──► Connecting ─opened─► Ready ─STOPPING answered─► Stopping
//!                 ▲    └─failed─┐      └─lost─┐                     │
//!                 └──backoff── Down ◄─────────┴────────lost─────────┘
//! ```

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use nexus_net::{
    ClientOptions, CloseReason, Connection, Handler, LoopContext, LoopHandle, Mailbox, TcpClient,
    TimerId,
};
use parking_lot::Mutex;

use crate::bounds::with_room_for_frames;
use crate::call::Completion;
use crate::channel::{Changed, ChannelOptions, Route};
use crate::wire::{Limits, decode};
use crate::{ErrorCode, RpcError};

/// What is handed to a connection's handler.
enum Message {
    Call(Outgoing, InFlight),
    /// No more calls come: let go of the client, which closes the connection, once none is in flight.
    Retire(TcpClient),
}

/// A call that is on its way to a provider.
pub(crate) struct Outgoing {
    pub(crate) correlation_id: i64,
    pub(crate) frame: Bytes,
    pub(crate) deadline: Instant,
    pub(crate) completion: Completion,
    /// Where another provider is found when this one does not take the call.
    pub(crate) route: Weak<Route>,
    /// The providers that have not taken it; empty, as a rule, and then without memory.
    pub(crate) refused_by: Vec<SocketAddr>,
}

impl Outgoing {
    /// Not sent to `by`, or refused there before it ran: goes to another provider, or fails with
    /// `error`.
    fn elsewhere(mut self, by: SocketAddr, error: RpcError) {
        self.refused_by.push(by);
        match self.route.upgrade() {
            Some(route) => route.send_again(self, error),
            None => self.completion.complete(Err(error)),
        }
    }
}

/// Where an endpoint's connection stands, the best to send to first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum EndpointState {
    /// Connected.
    Ready = 0,
    /// The first attempt, or the next one, is being made; calls sent now wait for the outcome.
    Connecting = 1,
    /// Connected, and the provider has answered that it is stopping: only for who has no other.
    Stopping = 2,
    /// The last attempt failed, or the connection was lost; the next attempt comes by itself.
    Down = 3,
}

/// A provider's address, and the connection to it. Dropped, it lets the calls in flight finish and
/// closes the connection then.
pub(crate) struct Endpoint {
    shared: Arc<Shared>,
    handle: LoopHandle,
    /// `None` only while it is being dropped.
    client: Option<TcpClient>,
}

struct Shared {
    address: SocketAddr,
    state: AtomicU8,
    in_flight: AtomicUsize,
    in_flight_max: usize,
    limits: Limits,
    output_bytes_max: usize,
    /// Of the present connection or attempt; `None` before the first.
    mailbox: Mutex<Option<Arc<Mailbox<Message>>>>,
    changed: Mutex<Vec<Weak<Changed>>>,
}

/// One call in flight, counted for as long as this lives.
struct InFlight(Arc<Shared>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Endpoint {
    pub(crate) fn start(
        handle: &LoopHandle,
        address: SocketAddr,
        options: &ChannelOptions,
    ) -> Result<Arc<Self>, nexus_net::Error> {
        let connection = with_room_for_frames(options.connection.clone(), &options.limits);
        let shared = Arc::new(Shared {
            address,
            state: AtomicU8::new(EndpointState::Connecting as u8),
            in_flight: AtomicUsize::new(0),
            in_flight_max: options.in_flight_max,
            limits: options.limits,
            output_bytes_max: connection.output_bytes_max,
            mailbox: Mutex::new(None),
            changed: Mutex::new(Vec::new()),
        });
        let client_options = ClientOptions {
            connection,
            backoff: options.backoff.clone(),
            ..ClientOptions::default()
        };
        let for_handlers = Arc::clone(&shared);
        let client = TcpClient::start(handle, address, client_options, move |conn| {
            let mailbox = Arc::new(Mailbox::new(conn.clone()));
            *for_handlers.mailbox.lock() = Some(Arc::clone(&mailbox));
            for_handlers.set_state(EndpointState::Connecting);
            Box::new(EndpointConnection {
                shared: Arc::clone(&for_handlers),
                mailbox,
                open: false,
                arrived: Vec::new(),
                retired: None,
                waiting: Vec::new(),
                pending: HashMap::new(),
            })
        })?;
        Ok(Arc::new(Self {
            shared,
            handle: handle.clone(),
            client: Some(client),
        }))
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.shared.address
    }

    pub(crate) fn state(&self) -> EndpointState {
        self.shared.state()
    }

    /// Calls that were handed to the connection and are not completed.
    pub(crate) fn in_flight(&self) -> usize {
        self.shared.in_flight.load(Ordering::Acquire)
    }

    /// Has `changed` signalled at every change of state.
    pub(crate) fn notify(&self, changed: &Arc<Changed>) {
        let mut all = self.shared.changed.lock();
        all.retain(|known| known.strong_count() > 0);
        let changed = Arc::downgrade(changed);
        if !all.iter().any(|known| known.ptr_eq(&changed)) {
            all.push(changed);
        }
    }

    /// Hands a call to the connection. Given back, it was not sent.
    #[allow(
        clippy::result_large_err,
        reason = "gives the call back by move, which a box would only make slower"
    )]
    pub(crate) fn send(&self, outgoing: Outgoing) -> Result<(), (Outgoing, RpcError)> {
        let Some(counted) = self.shared.count() else {
            let what = "too many calls are in flight";
            let error = self.shared.error(ErrorCode::SEND_QUEUE_FULL, what);
            return Err((outgoing, error));
        };
        if self.shared.mailbox.lock().is_some() {
            return self.shared.hand_over(outgoing, counted);
        }
        // The loop has not begun the first attempt. It does so before it gets to this task.
        let shared = Arc::clone(&self.shared);
        let posted = self.handle.post(move |_| {
            if let Err((outgoing, error)) = shared.hand_over(outgoing, counted) {
                // It could not even begin, so nobody else is going to say so.
                if shared.mailbox.lock().is_none() {
                    shared.set_state(EndpointState::Down);
                }
                outgoing.elsewhere(shared.address, error);
            }
        });
        if posted.is_err() {
            // The task was dropped, and the call failed thereby.
            self.shared.set_state(EndpointState::Down);
        }
        Ok(())
    }
}

impl Drop for Endpoint {
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
    fn count(self: &Arc<Self>) -> Option<InFlight> {
        let before = self.in_flight.fetch_add(1, Ordering::AcqRel);
        let counted = InFlight(Arc::clone(self));
        (before < self.in_flight_max).then_some(counted)
    }

    #[allow(
        clippy::result_large_err,
        reason = "gives the call back by move, which a box would only make slower"
    )]
    fn hand_over(&self, outgoing: Outgoing, counted: InFlight) -> Result<(), (Outgoing, RpcError)> {
        let mailbox = self.mailbox.lock().clone();
        let returned = match mailbox {
            Some(mailbox) => match mailbox.send(Message::Call(outgoing, counted)) {
                Err(Message::Call(outgoing, _)) => outgoing,
                _ => return Ok(()),
            },
            None => outgoing,
        };
        let error = self.error(ErrorCode::CONNECTION_FAILED, "not connected");
        Err((returned, error))
    }

    fn retire(&self, client: TcpClient) {
        let mailbox = self.mailbox.lock().clone();
        if let Some(mailbox) = mailbox {
            // Given back, there is no connection, and dropping it ends the attempts.
            let _ = mailbox.send(Message::Retire(client));
        }
    }

    fn state(&self) -> EndpointState {
        match self.state.load(Ordering::Acquire) {
            0 => EndpointState::Ready,
            1 => EndpointState::Connecting,
            2 => EndpointState::Stopping,
            _ => EndpointState::Down,
        }
    }

    fn set_state(&self, state: EndpointState) {
        self.state.store(state as u8, Ordering::Release);
        let changed = self.changed.lock().clone();
        for changed in changed.iter().filter_map(Weak::upgrade) {
            changed.signal();
        }
    }

    fn error(&self, code: ErrorCode, what: impl std::fmt::Display) -> RpcError {
        RpcError::new(code, format!("{}: {what}", self.address))
    }
}

/// The handler of one connection, or attempt: it owns the calls in flight.
struct EndpointConnection {
    shared: Arc<Shared>,
    mailbox: Arc<Mailbox<Message>>,
    open: bool,
    arrived: Vec<Message>,
    /// Held while calls are in flight after the endpoint was dropped.
    retired: Option<TcpClient>,
    /// The calls to be sent once connected, in their order.
    waiting: Vec<i64>,
    pending: HashMap<i64, Pending>,
}

/// A call that is not completed. Whoever removes it from the table completes it: the answer, the
/// deadline, or the end of the connection.
struct Pending {
    outgoing: Outgoing,
    timer: TimerId,
    counted: InFlight,
}

impl EndpointConnection {
    fn take_arrived(&mut self, conn: &mut Connection<'_>) {
        self.mailbox.take(&mut self.arrived);
        let mut arrived = std::mem::take(&mut self.arrived);
        for message in arrived.drain(..) {
            match message {
                Message::Call(outgoing, counted) => self.begin(conn, outgoing, counted),
                Message::Retire(client) => self.retired = Some(client),
            }
        }
        self.arrived = arrived;
        self.let_go_if_done();
    }

    fn begin(&mut self, conn: &mut Connection<'_>, outgoing: Outgoing, counted: InFlight) {
        let left = outgoing.deadline.saturating_duration_since(Instant::now());
        if left == Duration::ZERO {
            drop(counted);
            let error = self.shared.error(
                ErrorCode::DEADLINE_EXCEEDED,
                "the deadline had passed before the call was sent",
            );
            outgoing.completion.complete(Err(error));
            return;
        }
        if self.open
            && let Err(error) = self.send(conn, &outgoing)
        {
            drop(counted);
            outgoing.elsewhere(self.shared.address, error);
            return;
        }
        let id = outgoing.correlation_id;
        if !self.open {
            self.waiting.push(id);
        }
        // The bits of the id; `timer` turns them back.
        let timer = conn.set_timer(left, id.cast_unsigned());
        let pending = Pending {
            outgoing,
            timer,
            counted,
        };
        self.pending.insert(id, pending);
    }

    /// Queues the call's frame. Refused, nothing of it was or will be sent.
    fn send(&self, conn: &mut Connection<'_>, outgoing: &Outgoing) -> Result<(), RpcError> {
        if !conn.is_open() {
            let what = "the connection is closing";
            return Err(self.shared.error(ErrorCode::CONNECTION_FAILED, what));
        }
        let bytes = conn.output_bytes().saturating_add(outgoing.frame.len());
        if bytes > self.shared.output_bytes_max {
            let what = "too many bytes wait to be sent";
            return Err(self.shared.error(ErrorCode::SEND_QUEUE_FULL, what));
        }
        conn.send(outgoing.frame.clone());
        Ok(())
    }

    /// Takes a call out of the table, to be completed.
    fn take(&mut self, correlation_id: i64) -> Option<(Outgoing, TimerId)> {
        let Pending {
            outgoing,
            timer,
            counted,
        } = self.pending.remove(&correlation_id)?;
        // First, so that whoever has the answer sees the count without it.
        drop(counted);
        self.let_go_if_done();
        Some((outgoing, timer))
    }

    fn let_go_if_done(&mut self) {
        if self.pending.is_empty() {
            drop(self.retired.take());
        }
    }
}

impl Handler for EndpointConnection {
    fn opened(&mut self, conn: &mut Connection<'_>) {
        self.open = true;
        for id in std::mem::take(&mut self.waiting) {
            // Its deadline may have passed while it waited.
            let Some(waiting) = self.pending.get(&id) else {
                continue;
            };
            if let Err(error) = self.send(conn, &waiting.outgoing)
                && let Some((outgoing, timer)) = self.take(id)
            {
                conn.cancel_timer(timer);
                outgoing.elsewhere(self.shared.address, error);
            }
        }
        self.take_arrived(conn);
        self.shared.set_state(EndpointState::Ready);
        log::info!("{}: connected", self.shared.address);
    }

    fn data(&mut self, conn: &mut Connection<'_>, input: &mut BytesMut) {
        loop {
            match decode(input, &self.shared.limits) {
                Ok(None) => return,
                Ok(Some(frame)) => {
                    // An unknown id is an answer that came after its call's deadline.
                    let Some((outgoing, timer)) = self.take(frame.meta.correlation_id()) else {
                        continue;
                    };
                    conn.cancel_timer(timer);
                    match frame.meta.failure() {
                        Some(error) if error.code() == ErrorCode::STOPPING => {
                            self.shared.set_state(EndpointState::Stopping);
                            outgoing.elsewhere(self.shared.address, error);
                        }
                        Some(error) if error.code() == ErrorCode::OVERLOADED => {
                            outgoing.elsewhere(self.shared.address, error);
                        }
                        _ => outgoing.completion.complete(Ok(frame)),
                    }
                }
                Err(error) => {
                    log::warn!("{}: {error}; the connection is closed", self.shared.address);
                    conn.abort();
                    return;
                }
            }
        }
    }

    fn eof(&mut self, conn: &mut Connection<'_>) {
        // No more calls: what is sent now would not be answered.
        self.shared.set_state(EndpointState::Down);
        conn.close();
    }

    fn woken(&mut self, conn: &mut Connection<'_>) {
        self.take_arrived(conn);
    }

    fn timer(&mut self, _conn: &mut Connection<'_>, token: u64) {
        if let Some((outgoing, _)) = self.take(token.cast_signed()) {
            let what = "no answer in time";
            let error = self.shared.error(ErrorCode::DEADLINE_EXCEEDED, what);
            outgoing.completion.complete(Err(error));
        }
    }

    fn closed(&mut self, context: &mut LoopContext<'_>, reason: CloseReason) {
        self.shared.set_state(EndpointState::Down);
        if self.open {
            log::info!("{}: {reason}", self.shared.address);
        }
        let failed = || self.shared.error(ErrorCode::CONNECTION_FAILED, &reason);
        for (_, pending) in std::mem::take(&mut self.pending) {
            let Pending {
                outgoing,
                timer,
                counted,
            } = pending;
            drop(counted);
            context.cancel_timer(timer);
            if self.open {
                // Sent, and whether it ran is not known.
                let error = self.shared.error(ErrorCode::CONNECTION_CLOSED, &reason);
                outgoing.completion.complete(Err(error));
            } else {
                outgoing.elsewhere(self.shared.address, failed());
            }
        }
        for message in self.mailbox.close() {
            if let Message::Call(outgoing, counted) = message {
                drop(counted);
                outgoing.elsewhere(self.shared.address, failed());
            }
        }
    }
}
