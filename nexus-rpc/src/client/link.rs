//! A place for one connection to a provider: making it, and handing calls to it.
//!
//! A link connects when the endpoint's machine says so. A connection that is given up finishes its calls while
//! the next is already there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use arc_swap::ArcSwapOption;
use nexus_net::{ConnHandle, ConnectionOptions, Handler, LoopContext, LoopHandle, Mailbox};

use super::connection::{LinkConnection, Message};
use super::endpoint::Shared as Provider;
use super::flight::{Attempt, Fate};
use super::interceptor::Credentials;
use super::options::ChannelOptions;
use crate::bounds::with_room_to_call;
use crate::policy::machine::{ConnectionId, LinkId};
use crate::wire::Limits;
use crate::{ErrorCode, RpcError};

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
    /// The last attempt failed, or the connection was lost or given up; the next attempt comes by itself.
    Down = 3,
}

/// A place for one connection. Dropped, it lets the calls in flight finish and closes then.
pub(crate) struct Link {
    shared: Arc<Shared>,
    handle: LoopHandle,
    id: LinkId,
}

/// What a link shares with its connections and the calls in flight on them.
pub(super) struct Shared {
    pub(super) provider: Arc<Provider>,
    state: AtomicU8,
    in_flight: AtomicUsize,
    /// Claimed as an idle one since it was last looked.
    used: AtomicBool,
    /// Of the present connection or attempt; `None` before the first.
    mailbox: ArcSwapOption<Mailbox<Message>>,
    pub(super) limits: Limits,
    pub(super) output_bytes_max: usize,
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
    /// Not connected; the provider's machine knows it by `id`.
    pub(crate) fn new(
        handle: &LoopHandle,
        provider: &Arc<Provider>,
        id: LinkId,
        options: &ChannelOptions,
    ) -> Self {
        Self {
            shared: Shared::new(provider, options),
            handle: handle.clone(),
            id,
        }
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
            self.shared.store_state(LinkState::Down);
        }
    }

    /// Sends a request that nobody serves, to see whether it is answered.
    pub(crate) fn probe(&self, correlation_id: i64) {
        if let Some(mailbox) = &*self.shared.mailbox.load() {
            // Given back, the connection has ended, and the machine knows.
            let _ = mailbox.send(Message::Probe(correlation_id));
        }
    }

    /// Gives the present connection or attempt up. From here on no call is handed to it.
    pub(crate) fn close(&self) {
        self.shared.store_state(LinkState::Down);
        self.retire();
    }

    fn retire(&self) {
        let shared = Arc::clone(&self.shared);
        // Behind the beginning of the attempt, and behind the calls that wait for it, which are tasks, too.
        let _ = self.handle.post(move |_| {
            if let Some(mailbox) = &*shared.mailbox.load() {
                // Given back, there is no connection.
                let _ = mailbox.send(Message::Retire);
            }
        });
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
        shared.used.store(true, Ordering::Release);
        shared.provider.in_flight.fetch_add(1, Ordering::AcqRel);
        Some(InFlight(Arc::clone(shared)))
    }

    /// Whether it has a call, or was [claimed](Self::claim_idle) for one since this was last asked.
    pub(crate) fn was_used(&self) -> bool {
        let in_flight = self.in_flight() > 0;
        // One that is in flight now counts at the next look too, by when it may be over.
        self.shared.used.swap(in_flight, Ordering::AcqRel) || in_flight
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
        self.shared.provider.link_removed(self.id);
        self.retire();
    }
}

/// How links connect.
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
        let make_handler = |conn: &ConnHandle| shared.handler(conn, id);
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
            used: AtomicBool::new(true),
            mailbox: ArcSwapOption::empty(),
            limits: options.limits,
            output_bytes_max: connection.output_bytes_max,
            credentials: options.credentials.clone(),
        })
    }

    /// The handler of a new attempt, which takes the calls from here on.
    fn handler(self: &Arc<Self>, conn: &ConnHandle, id: ConnectionId) -> Box<dyn Handler> {
        let mailbox = Arc::new(Mailbox::new(conn.clone()));
        self.mailbox.store(Some(Arc::clone(&mailbox)));
        self.set_state(LinkState::Connecting);
        let authentication = self.credentials.as_ref().map(|c| c.authentication_data());
        Box::new(LinkConnection::new(
            Arc::clone(self),
            mailbox,
            id,
            authentication,
        ))
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

    fn state(&self) -> LinkState {
        match self.state.load(Ordering::Acquire) {
            0 => LinkState::Ready,
            1 => LinkState::Connecting,
            2 => LinkState::Stopping,
            _ => LinkState::Down,
        }
    }

    pub(super) fn set_state(&self, state: LinkState) {
        self.store_state(state);
        self.provider.link_changed();
    }

    /// Without telling anybody: for whoever does what the machine has decided, and tells then.
    fn store_state(&self, state: LinkState) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// Whether calls go to the connection with this mailbox, and not to a later one.
    pub(super) fn is_present(&self, mailbox: &Arc<Mailbox<Message>>) -> bool {
        let present = self.mailbox.load();
        present
            .as_ref()
            .is_some_and(|present| Arc::ptr_eq(present, mailbox))
    }
}
