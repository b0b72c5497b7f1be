//! One provider as a channel sees it: its connection, and the calls in flight on it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use nexus_net::{
    ClientOptions, CloseReason, Connection, Handler, LoopContext, LoopHandle, Mailbox, TcpClient,
    TimerId,
};
use parking_lot::Mutex;

use crate::call::Completion;
use crate::channel::{Changed, ChannelOptions};
use crate::wire::{Limits, decode};
use crate::{ErrorCode, RpcError};

/// What is handed to a connection's handler.
enum Message {
    Call(Outgoing),
    /// No more calls come: let go of the client, which closes the connection, once none is in flight.
    Retire(TcpClient),
}

/// A call on its way to a connection.
pub(crate) struct Outgoing {
    pub(crate) correlation_id: i64,
    pub(crate) frame: Bytes,
    pub(crate) deadline: Instant,
    pub(crate) completion: Completion,
}

/// Where an endpoint's connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum EndpointState {
    /// Attempting; calls sent now wait for the outcome.
    Connecting = 0,
    /// Connected.
    Ready = 1,
    /// The last attempt failed, or the connection was lost; the next attempt comes by itself.
    Down = 2,
}

/// A provider's address, and the connection to it. Dropped, it lets the calls in flight finish and
/// closes the connection then.
pub(crate) struct Endpoint {
    shared: Arc<Shared>,
    /// `None` only while it is being dropped.
    client: Option<TcpClient>,
}

struct Shared {
    address: SocketAddr,
    state: AtomicU8,
    in_flight: AtomicUsize,
    in_flight_max: usize,
    limits: Limits,
    /// Of the present connection or attempt.
    mailbox: Mutex<Option<Arc<Mailbox<Message>>>>,
    changed: Mutex<Vec<Changed>>,
}

impl Endpoint {
    pub(crate) fn start(
        handle: &LoopHandle,
        address: SocketAddr,
        options: &ChannelOptions,
    ) -> Result<Arc<Self>, nexus_net::Error> {
        let shared = Arc::new(Shared {
            address,
            state: AtomicU8::new(EndpointState::Down as u8),
            in_flight: AtomicUsize::new(0),
            in_flight_max: options.in_flight_max,
            limits: options.limits,
            mailbox: Mutex::new(None),
            changed: Mutex::new(Vec::new()),
        });
        let client_options = ClientOptions {
            connection: options.connection.clone(),
            backoff: options.backoff.clone(),
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
            client: Some(client),
        }))
    }

    pub(crate) fn state(&self) -> EndpointState {
        self.shared.state()
    }

    /// Has `changed` signalled at every change of state.
    pub(crate) fn notify(&self, changed: Changed) {
        let mut all = self.shared.changed.lock();
        if !all.iter().any(|known| Arc::ptr_eq(known, &changed)) {
            all.push(changed);
        }
    }

    /// Hands a call to the connection. Given back, it was not sent.
    pub(crate) fn send(&self, outgoing: Outgoing) -> Result<(), (Outgoing, RpcError)> {
        let shared = &self.shared;
        if shared.in_flight.fetch_add(1, Ordering::AcqRel) >= shared.in_flight_max {
            shared.in_flight.fetch_sub(1, Ordering::AcqRel);
            let what = format!("{}: too many calls are in flight", shared.address);
            return Err((outgoing, RpcError::new(ErrorCode::SEND_QUEUE_FULL, what)));
        }
        let mailbox = shared.mailbox.lock().clone();
        let result = match mailbox {
            Some(mailbox) => match mailbox.send(Message::Call(outgoing)) {
                Err(Message::Call(outgoing)) => Err(outgoing),
                _ => Ok(()),
            },
            None => Err(outgoing),
        };
        result.map_err(|outgoing| {
            shared.in_flight.fetch_sub(1, Ordering::AcqRel);
            (
                outgoing,
                shared.error(ErrorCode::CONNECTION_FAILED, "not connected"),
            )
        })
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        let mailbox = self.shared.mailbox.lock().clone();
        if let (Some(client), Some(mailbox)) = (self.client.take(), mailbox) {
            // Given back, there is no connection, and dropping it ends the attempts.
            let _ = mailbox.send(Message::Retire(client));
        }
    }
}

impl Shared {
    fn state(&self) -> EndpointState {
        match self.state.load(Ordering::Acquire) {
            0 => EndpointState::Connecting,
            1 => EndpointState::Ready,
            _ => EndpointState::Down,
        }
    }

    fn set_state(&self, state: EndpointState) {
        self.state.store(state as u8, Ordering::Release);
        for changed in self.changed.lock().iter() {
            let _guard = changed.0.lock();
            changed.1.notify_all();
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
    /// Frames to be sent once connected, by call.
    waiting: Vec<(i64, Bytes)>,
    pending: HashMap<i64, Pending>,
}

/// A call that is not completed. Whoever removes it from the table completes it: the answer, the
/// deadline, or the end of the connection.
struct Pending {
    completion: Completion,
    timer: TimerId,
}

impl EndpointConnection {
    fn take_arrived(&mut self, conn: &mut Connection<'_>) {
        self.mailbox.take(&mut self.arrived);
        let now = Instant::now();
        for message in self.arrived.drain(..) {
            let outgoing = match message {
                Message::Call(outgoing) => outgoing,
                Message::Retire(client) => {
                    self.retired = Some(client);
                    continue;
                }
            };
            let Outgoing {
                correlation_id,
                frame,
                deadline,
                completion,
            } = outgoing;
            let left = deadline.saturating_duration_since(now);
            let timer = conn.set_timer(left, correlation_id as u64);
            self.pending
                .insert(correlation_id, Pending { completion, timer });
            if self.open {
                conn.send(frame);
            } else {
                self.waiting.push((correlation_id, frame));
            }
        }
        self.let_go_if_done();
    }

    fn complete(&mut self, correlation_id: i64) -> Option<Pending> {
        let pending = self.pending.remove(&correlation_id)?;
        self.shared.in_flight.fetch_sub(1, Ordering::AcqRel);
        self.let_go_if_done();
        Some(pending)
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
        self.take_arrived(conn);
        for (correlation_id, frame) in std::mem::take(&mut self.waiting) {
            // Its deadline may have passed while it waited.
            if self.pending.contains_key(&correlation_id) {
                conn.send(frame);
            }
        }
        self.shared.set_state(EndpointState::Ready);
        log::info!("{}: connected", self.shared.address);
    }

    fn data(&mut self, conn: &mut Connection<'_>, input: &mut BytesMut) {
        loop {
            match decode(input, &self.shared.limits) {
                Ok(None) => return,
                Ok(Some(frame)) => {
                    // An unknown id is an answer that came after its call's deadline.
                    if let Some(pending) = self.complete(frame.meta.correlation_id()) {
                        conn.cancel_timer(pending.timer);
                        pending.completion.complete(Ok(frame));
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

    fn woken(&mut self, conn: &mut Connection<'_>) {
        self.take_arrived(conn);
    }

    fn timer(&mut self, _conn: &mut Connection<'_>, token: u64) {
        if let Some(pending) = self.complete(token as i64) {
            let error = self
                .shared
                .error(ErrorCode::DEADLINE_EXCEEDED, "no answer in time");
            pending.completion.complete(Err(error));
        }
    }

    fn closed(&mut self, context: &mut LoopContext<'_>, reason: CloseReason) {
        self.shared.set_state(EndpointState::Down);
        if self.open {
            log::info!("{}: {reason}", self.shared.address);
        }
        let unsent = self.mailbox.close();
        for message in unsent {
            let Message::Call(outgoing) = message else {
                continue;
            };
            self.shared.in_flight.fetch_sub(1, Ordering::AcqRel);
            let error = self.shared.error(ErrorCode::CONNECTION_FAILED, &reason);
            outgoing.completion.complete(Err(error));
        }
        let code = if self.open {
            ErrorCode::CONNECTION_CLOSED
        } else {
            ErrorCode::CONNECTION_FAILED
        };
        for (_, pending) in std::mem::take(&mut self.pending) {
            self.shared.in_flight.fetch_sub(1, Ordering::AcqRel);
            context.cancel_timer(pending.timer);
            pending
                .completion
                .complete(Err(self.shared.error(code, &reason)));
        }
    }
}
