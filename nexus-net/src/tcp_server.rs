//! A server: one listener, connections spread over the loops of a group.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::acceptor::Acceptor;
use crate::connection::Phase;
use crate::core::listener_token;
use crate::listener::{Listener, Sharing};
use crate::transport::{Socket, Transport};
use crate::{
    Address, CloseReason, ConnHandle, ConnectionOptions, Error, Handler, LoopContext, LoopGroup,
    LoopHandle, ProxyProtocol, on_loop_thread,
};

/// How long a drain waits for the loops to cut off what remained. They do so in their next turn,
/// unless a handler blocks its loop.
const ABORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Which loop gets a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Placement {
    /// One after the other.
    #[default]
    RoundRobin,
    /// The loop that has the fewest.
    LeastConnections,
    /// The loop that accepted it: each loop has a listener of its own on the same port
    /// (SO_REUSEPORT), and the kernel spreads connections over them by a hash of the addresses. No
    /// connection changes threads, so this accepts fastest, but spreads least evenly; and
    /// connections that a closing listener has not accepted yet are reset. TCP only.
    PerLoop,
}

/// How a [`TcpServer`] listens and what its connections may use.
///
/// Build it with `..ServerOptions::default()`, also where you name every field: features add some.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Limits of each connection.
    pub connection: ConnectionOptions,
    /// Connections at a time; more are closed as soon as they are accepted. Default 1,000,000:
    /// the process's limit of descriptors comes first.
    pub connections_max: usize,
    /// Which loop gets a connection. Default round robin.
    pub placement: Placement,
    /// Connections that the kernel keeps until they are accepted. Default 1024; the kernel cuts it
    /// to net.core.somaxconn.
    pub backlog: i32,
    /// Whether a proxy in front names the clients' addresses. Default: no.
    pub proxy_protocol: ProxyProtocol,
    /// TLS for all connections. Default: none.
    #[cfg(feature = "tls")]
    pub tls: Option<crate::ServerTls>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            connection: ConnectionOptions::default(),
            connections_max: 1_000_000,
            placement: Placement::default(),
            backlog: 1024,
            proxy_protocol: ProxyProtocol::default(),
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}

/// A connection that a server has just accepted, as its handler is being made: after the PROXY
/// protocol's header and the handshake of TLS, where there are any.
#[derive(Debug)]
pub struct Accepted {
    /// The address at the other end; the one that a proxy has named, if it has.
    pub peer: Address,
    /// A way to the connection from other threads.
    pub conn: ConnHandle,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainReport {
    /// Connections that were open when the drain began.
    pub open_at_start: usize,
    /// How many of them were cut off at the deadline.
    pub aborted: usize,
    /// How long it took.
    pub took: Duration,
}

/// How far a server has come on its way to its end. Only ever moves on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Stage {
    Accepting,
    /// No new connections.
    Closed,
    /// The handlers have been told to finish; a connection that was on its way to its loop is told
    /// when it gets there.
    Draining,
    /// Connections are cut off, those on their way included.
    Ended,
}

type MakeHandler = dyn Fn(Accepted) -> Box<dyn Handler> + Send + Sync;

/// Why a connection was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The limit of connections is reached.
    Full,
    /// The server is ending.
    NotAccepting,
}

/// What the server's handle, its acceptor and its connections share.
pub(crate) struct ServerShared {
    address: Address,
    options: Arc<ConnectionOptions>,
    connections_max: usize,
    placement: Placement,
    proxy_protocol: ProxyProtocol,
    #[cfg(feature = "tls")]
    tls: Option<crate::ServerTls>,
    loops: Vec<LoopHandle>,
    next_loop: AtomicUsize,
    make_handler: Box<MakeHandler>,
    /// A [`Stage`].
    stage: AtomicU8,
    connections: AtomicUsize,
    /// Listeners that are open.
    listeners: AtomicUsize,
    /// Signalled when the last connection ends and when a listener is closed.
    idle: (Mutex<()>, Condvar),
}

impl ServerShared {
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Whether a connection from this address begins with a header of the PROXY protocol.
    pub(crate) fn expects_header(&self, peer: &Address) -> bool {
        self.proxy_protocol.is_expected_from(peer)
    }

    /// Where a connection accepted from this address begins.
    pub(crate) fn first_phase(&self, peer: &Address) -> Phase {
        #[cfg(feature = "tls")]
        if self.tls.is_some() {
            return Phase::Handshaking;
        }
        if self.expects_header(peer) {
            Phase::Handshaking
        } else {
            Phase::Open
        }
    }

    pub(crate) fn transport(&self, socket: Socket) -> io::Result<Transport> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            let session = tls.session().map_err(io::Error::other)?;
            return Ok(Transport::tls(socket, session));
        }
        Ok(Transport::plain(socket))
    }

    /// The loops that have a listener.
    fn acceptor_loops(&self) -> &[LoopHandle] {
        match self.placement {
            Placement::PerLoop => &self.loops,
            Placement::RoundRobin | Placement::LeastConnections => &self.loops[..1],
        }
    }

    pub(crate) fn has_reached(&self, stage: Stage) -> bool {
        self.stage.load(Ordering::SeqCst) >= stage as u8
    }

    fn advance(&self, stage: Stage) {
        self.stage.fetch_max(stage as u8, Ordering::SeqCst);
    }

    pub(crate) fn connection_options(&self) -> Arc<ConnectionOptions> {
        Arc::clone(&self.options)
    }

    pub(crate) fn make_handler(&self, accepted: Accepted) -> Box<dyn Handler> {
        (self.make_handler)(accepted)
    }

    /// Counts a connection in, unless the server no longer accepts or the limit is reached.
    ///
    /// It adds before it looks at the stage, and a drain moves the stage before it looks at the
    /// count: one of the two sees the other, and no connection slips in behind a drain's back.
    pub(crate) fn admit(&self) -> Result<(), Refused> {
        let before = self.connections.fetch_add(1, Ordering::SeqCst);
        if before >= self.connections_max {
            self.connection_ended();
            return Err(Refused::Full);
        }
        if self.has_reached(Stage::Closed) {
            self.connection_ended();
            return Err(Refused::NotAccepting);
        }
        Ok(())
    }

    pub(crate) fn connection_ended(&self) {
        if self.connections.fetch_sub(1, Ordering::SeqCst) == 1 {
            let _guard = self.idle.0.lock();
            self.idle.1.notify_all();
        }
    }

    pub(crate) fn listener_closed(&self) {
        self.listeners.fetch_sub(1, Ordering::SeqCst);
        let _guard = self.idle.0.lock();
        self.idle.1.notify_all();
    }

    /// Neither a connection nor a listener is left.
    fn has_ended(&self) -> bool {
        self.connections.load(Ordering::SeqCst) == 0 && self.listeners.load(Ordering::SeqCst) == 0
    }

    /// The loop for a new connection; `None`: the one that accepted it.
    pub(crate) fn place(&self) -> Option<&LoopHandle> {
        match self.placement {
            Placement::RoundRobin => {
                let next = self.next_loop.fetch_add(1, Ordering::Relaxed);
                Some(&self.loops[next % self.loops.len()])
            }
            Placement::LeastConnections => self
                .loops
                .iter()
                .min_by_key(|handle| handle.metrics().connections()),
            Placement::PerLoop => None,
        }
    }
}

/// A listening server, on TCP or a Unix socket. Dropping it stops listening and cuts its connections
/// off; for an orderly end call [`drain`](Self::drain) first.
pub struct TcpServer {
    shared: Arc<ServerShared>,
}

impl TcpServer {
    /// Listens on `address` (port 0: any free port) and serves on the loops of `group`. The first of
    /// them accepts, or each does ([`Placement::PerLoop`]).
    ///
    /// The file of a Unix socket is made, replaced when no process listens on it any more, and
    /// removed with the listener.
    ///
    /// `make_handler` is called on the connection's loop for each accepted connection, before
    /// [`Handler::opened`].
    ///
    /// # Errors
    /// [`Error::Listen`] when the address cannot be had, [`Error::Options`] for options out of
    /// range, [`Error::LoopGone`] when the group has stopped.
    pub fn start(
        group: &LoopGroup,
        address: impl Into<Address>,
        options: ServerOptions,
        make_handler: impl Fn(Accepted) -> Box<dyn Handler> + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let address = address.into();
        check(&options, &address)?;
        let listeners_wanted = match options.placement {
            Placement::PerLoop => group.handles().len(),
            Placement::RoundRobin | Placement::LeastConnections => 1,
        };
        let (bound, listeners) = listen(&address, options.backlog, listeners_wanted)
            .map_err(|source| Error::Listen { address, source })?;
        let shared = Arc::new(ServerShared {
            address: bound,
            options: Arc::new(options.connection),
            connections_max: options.connections_max,
            placement: options.placement,
            proxy_protocol: options.proxy_protocol,
            #[cfg(feature = "tls")]
            tls: options.tls,
            loops: group.handles().to_vec(),
            next_loop: AtomicUsize::new(0),
            make_handler: Box::new(make_handler),
            stage: AtomicU8::new(Stage::Accepting as u8),
            connections: AtomicUsize::new(0),
            listeners: AtomicUsize::new(listeners.len()),
            idle: (Mutex::new(()), Condvar::new()),
        });
        let server = Self { shared };
        for (handle, listener) in server.shared.acceptor_loops().iter().zip(listeners) {
            let shared = Arc::clone(&server.shared);
            handle
                .post(move |context| add_acceptor(context, listener, shared))
                .map_err(|_| Error::LoopGone)?;
        }
        Ok(server)
    }

    /// The address it listens on, with the real port.
    pub fn local_addr(&self) -> Address {
        self.shared.address.clone()
    }

    /// Connections now, those being closed included.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Stops accepting. Connections go on. From any thread; returns at once.
    pub fn stop_accepting(&self) {
        self.shared.advance(Stage::Closed);
        for handle in self.shared.acceptor_loops() {
            let shared = Arc::clone(&self.shared);
            let _ = handle.post(move |context| {
                for (index, acceptor) in &context.core.acceptors {
                    if acceptor.belongs_to(&shared) {
                        context.core.ready_listeners.push(index);
                    }
                }
            });
        }
    }

    /// Ends in order: stops accepting, has every handler's [`Handler::draining`] called, waits until all
    /// connections have ended, and cuts off those that remain at the deadline. Afterwards the port is
    /// free.
    ///
    /// Blocks, so it is not for loop threads.
    ///
    /// # Panics
    /// On a loop thread, which would wait for itself.
    pub fn drain(&self, deadline: Duration) -> DrainReport {
        assert!(
            !on_loop_thread(),
            "TcpServer::drain blocks and cannot be called on a loop thread"
        );
        let started = Instant::now();
        let open_at_start = self.connections();
        self.stop_accepting();
        self.shared.advance(Stage::Draining);
        self.on_each_connection(|context, index| context.core.ask_to_drain(index));
        self.wait_for_end(deadline);
        let aborted = self.connections();
        if aborted > 0 {
            self.abort_all();
            self.wait_for_end(ABORT_TIMEOUT);
        }
        DrainReport {
            open_at_start,
            aborted,
            took: started.elapsed(),
        }
    }

    fn wait_for_end(&self, timeout: Duration) {
        let (lock, ended) = &self.shared.idle;
        let mut guard = lock.lock();
        let _ = ended.wait_while_for(&mut guard, |()| !self.shared.has_ended(), timeout);
    }

    fn abort_all(&self) {
        self.shared.advance(Stage::Ended);
        self.on_each_connection(|context, index| {
            context.core.abort(index, CloseReason::Aborted);
        });
    }

    fn on_each_connection(
        &self,
        action: impl Fn(&mut LoopContext<'_>, usize) + Send + Copy + 'static,
    ) {
        for handle in &self.shared.loops {
            let shared = Arc::clone(&self.shared);
            let _ = handle.post(move |context| {
                let mine: Vec<usize> = context
                    .core
                    .conns
                    .iter()
                    .filter(|(_, state)| {
                        state.phase != Phase::Dead
                            && state
                                .server
                                .as_ref()
                                .is_some_and(|s| Arc::ptr_eq(s, &shared))
                    })
                    .map(|(index, _)| index)
                    .collect();
                for index in mine {
                    action(context, index);
                }
            });
        }
    }
}

impl Drop for TcpServer {
    fn drop(&mut self) {
        self.stop_accepting();
        self.abort_all();
    }
}

impl std::fmt::Debug for TcpServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TcpServer")
            .field("address", &self.shared.address)
            .field("connections", &self.connections())
            .finish_non_exhaustive()
    }
}

fn check(options: &ServerOptions, address: &Address) -> Result<(), Error> {
    options.connection.check().map_err(Error::Options)?;
    if options.backlog < 1 {
        return Err(Error::Options("backlog is below 1"));
    }
    if options.placement == Placement::PerLoop && address.as_tcp().is_none() {
        return Err(Error::Options(
            "a Unix socket has one listener and cannot be placed per loop",
        ));
    }
    Ok(())
}

/// Listeners on one address, and the address with its real port.
fn listen(address: &Address, backlog: i32, count: usize) -> io::Result<(Address, Vec<Listener>)> {
    let sharing = if count > 1 {
        Sharing::Shared
    } else {
        Sharing::Alone
    };
    let first = Listener::bind(address, backlog, sharing)?;
    let bound = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..count {
        listeners.push(Listener::bind(&bound, backlog, sharing)?);
    }
    Ok((bound, listeners))
}

fn add_acceptor(context: &mut LoopContext<'_>, listener: Listener, shared: Arc<ServerShared>) {
    let core = &mut *context.core;
    let address = shared.address.clone();
    let mut acceptor = Acceptor::new(listener, shared);
    let entry = core.acceptors.vacant_entry();
    match acceptor.register(&core.registry, listener_token(entry.key())) {
        Ok(()) => {
            entry.insert(acceptor);
        }
        Err(error) => log::error!("{address}: cannot register the listener: {error}"),
    }
}
