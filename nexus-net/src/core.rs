//! What a loop owns apart from the handlers: connections, timers, listeners, and lists of what is to
//! be done this turn.
//!
//! Handlers are kept beside it, in [`EventLoop`](crate::EventLoop), so that one can be borrowed while it writes to
//! its connection here.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use mio::{Registry, Token};
use slab::Slab;

use crate::acceptor::Acceptor;
use crate::connection::{ConnState, OwnTimers, Phase, WriteShutdown};
use crate::handle::{Inbox, LocalTask};
use crate::output::{BufferPool, Output};
use crate::scratch::Scratch;
use crate::tcp_server::ServerShared;
use crate::timer_wheel::{TimerKey, TimerWheel};
use crate::transport::{Socket, Transport};
use crate::{
    Accepted, Address, CloseReason, ConnHandle, ConnId, Connection, ConnectionOptions, Handler,
    LoopHandle,
};

pub(crate) const WAKER: Token = Token(usize::MAX);
/// Tokens of listeners have this bit; a connection's token is its index.
const LISTENER_BIT: usize = 1 << (usize::BITS - 2);

pub(crate) fn listener_token(index: usize) -> Token {
    Token(index | LISTENER_BIT)
}

pub(crate) fn listener_index(token: Token) -> Option<usize> {
    (token.0 & LISTENER_BIT != 0).then_some(token.0 & !LISTENER_BIT)
}

/// Names a timer of a loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimerId(TimerKey);

pub(crate) enum Due {
    /// A handler's timer.
    Handler(ConnId, u64),
    /// Time to see whether a connection is idle.
    Idle(ConnId),
    /// Opening or closing took too long.
    Phase(ConnId),
    /// A listener that ran out of descriptors may try again.
    Accept(usize),
    Task(LocalTask),
}

/// What makes a connection.
pub(crate) struct NewConnection {
    pub(crate) transport: Transport,
    pub(crate) peer: Address,
    /// `Connecting`, `Handshaking` or `Open`.
    pub(crate) phase: Phase,
    pub(crate) options: Arc<ConnectionOptions>,
    pub(crate) server: Option<Arc<ServerShared>>,
}

/// A connection on its way in: its handler joins the others when no handler is borrowed.
pub(crate) struct Birth {
    pub(crate) index: usize,
    pub(crate) handler: Box<dyn Handler>,
}

pub(crate) struct Core {
    pub(crate) registry: Registry,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) conns: Slab<ConnState>,
    pub(crate) acceptors: Slab<Acceptor>,
    pub(crate) births: VecDeque<Birth>,
    pub(crate) timers: TimerWheel<Due>,
    /// Connections that may have something to read (or to finish connecting).
    pub(crate) ready: Vec<u32>,
    /// Connections that may have something to write.
    pub(crate) dirty: Vec<u32>,
    pub(crate) dead: Vec<u32>,
    /// Connections whose handler is to be told that the server drains.
    pub(crate) drain_requests: Vec<ConnId>,
    pub(crate) ready_listeners: Vec<usize>,
    pub(crate) scratch: Scratch,
    /// Whose incomplete frame was left in the buffer that it was read into.
    pub(crate) in_scratch: Option<ConnId>,
    pub(crate) buffers: BufferPool,
    /// The loop has stopped: no connection is taken in any more.
    pub(crate) stopping: bool,
    next_generation: u32,
}

impl Core {
    pub(crate) fn new(registry: Registry, inbox: Arc<Inbox>) -> Self {
        Self {
            registry,
            inbox,
            conns: Slab::new(),
            acceptors: Slab::new(),
            births: VecDeque::new(),
            timers: TimerWheel::new(),
            ready: Vec::new(),
            dirty: Vec::new(),
            dead: Vec::new(),
            drain_requests: Vec::new(),
            ready_listeners: Vec::new(),
            scratch: Scratch::default(),
            in_scratch: None,
            buffers: BufferPool::default(),
            stopping: false,
            next_generation: 0,
        }
    }

    pub(crate) fn handle(&self) -> LoopHandle {
        LoopHandle {
            inbox: Arc::clone(&self.inbox),
        }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.inbox.started.elapsed().as_millis() as u64
    }

    pub(crate) fn index_of(&self, id: ConnId) -> Option<usize> {
        let index = id.index as usize;
        let state = self.conns.get(index)?;
        (state.generation == id.generation && state.phase != Phase::Dead).then_some(index)
    }

    // ---- connections ----

    /// Takes a connection in; its handler is [given](Self::give_handler) to it afterwards. The
    /// caller counts it in the loop's metrics, which placement reads before it gets here.
    ///
    /// Fails, with nothing left behind, when the loop has stopped and when the system refuses.
    pub(crate) fn add(&mut self, new: NewConnection) -> io::Result<usize> {
        if self.stopping {
            return Err(io::Error::other("the event loop has stopped"));
        }
        let NewConnection {
            mut transport,
            peer,
            phase,
            options,
            server,
        } = new;
        let entry = self.conns.vacant_entry();
        let index = entry.key();
        transport.register(&self.registry, Token(index))?;
        self.next_generation = self.next_generation.wrapping_add(1);
        let open_timeout = options.connect_timeout;
        let expects_header =
            phase == Phase::Handshaking && server.as_ref().is_some_and(|s| s.expects_header(&peer));
        let state = entry.insert(ConnState {
            transport,
            peer,
            generation: self.next_generation,
            phase,
            options,
            partial: BytesMut::new(),
            output: Output::default(),
            // Registering makes an edge of what is already there.
            readable: false,
            writable: phase != Phase::Connecting,
            peer_closed: false,
            eof_delivered: false,
            choked: false,
            paused: false,
            notify_drained: false,
            undelivered: false,
            expects_header,
            write_shutdown: WriteShutdown::No,
            in_ready: false,
            in_dirty: false,
            drain_asked: false,
            close_reason: None,
            timers: OwnTimers::default(),
            last_read_ms: self.inbox.started.elapsed().as_millis() as u64,
            idle_timer: None,
            phase_timer: None,
            server,
        });
        if phase != Phase::Open {
            let id = state.id(index);
            let key = self.start_timer(open_timeout, Due::Phase(id));
            self.conns[index].phase_timer = Some(key);
        }
        Ok(index)
    }

    /// Gives a connection the handler that `make` returns. The handler hears of it later.
    fn give_handler(
        &mut self,
        index: usize,
        make: impl FnOnce(&ConnHandle) -> Box<dyn Handler>,
    ) -> io::Result<()> {
        let conn = ConnHandle {
            handle: self.handle(),
            id: self.conns[index].id(index),
        };
        // The user's code: it must not take the loop with it.
        let handler = catch_unwind(AssertUnwindSafe(|| make(&conn)))
            .map_err(|_| io::Error::other("making the handler panicked"))?;
        self.births.push_back(Birth { index, handler });
        Ok(())
    }

    /// Gives a connection of a server its handler, or ends it.
    pub(crate) fn make_server_handler(&mut self, index: usize) {
        let state = &self.conns[index];
        let Some(server) = state.server.clone() else {
            return;
        };
        let peer = state.peer.clone();
        let made = self.give_handler(index, |conn| {
            server.make_handler(Accepted {
                peer: peer.clone(),
                conn: conn.clone(),
            })
        });
        if let Err(error) = made {
            log::error!("cannot take in a connection from {peer}: {error}");
            self.abort(index, CloseReason::HandlerPanicked);
        }
    }

    /// Takes back a connection that has just been added.
    fn forget(&mut self, index: usize) {
        let mut state = self.conns.remove(index);
        let _ = state.transport.deregister(&self.registry);
        if let Some(timer) = state.phase_timer {
            self.timers.cancel(timer);
        }
    }

    pub(crate) fn mark_ready(&mut self, index: usize) {
        let state = &mut self.conns[index];
        if !state.in_ready {
            state.in_ready = true;
            self.ready.push(index as u32);
        }
    }

    pub(crate) fn mark_dirty(&mut self, index: usize) {
        let state = &mut self.conns[index];
        if !state.in_dirty {
            state.in_dirty = true;
            self.dirty.push(index as u32);
        }
    }

    pub(crate) fn output_grew(&mut self, index: usize) {
        let state = &mut self.conns[index];
        let bytes = state.output.len();
        if bytes > state.options.output_bytes_max {
            self.abort(index, CloseReason::OutputLimit);
            return;
        }
        if bytes > state.options.output_high_bytes {
            state.choked = true;
        }
        self.mark_dirty(index);
    }

    pub(crate) fn close(&mut self, index: usize, reason: CloseReason) {
        let state = &mut self.conns[index];
        match state.phase {
            Phase::Connecting | Phase::Handshaking => self.abort(index, reason),
            Phase::Open => self.start_closing(index, reason),
            Phase::Closing | Phase::Lingering | Phase::Dead => {}
        }
    }

    fn start_closing(&mut self, index: usize, reason: CloseReason) {
        let state = &mut self.conns[index];
        state.phase = Phase::Closing;
        state.close_reason = Some(reason);
        // The handler gets no more input.
        state.partial = BytesMut::new();
        if let Some(timer) = state.phase_timer.take() {
            self.timers.cancel(timer);
        }
        let id = state.id(index);
        let timeout = state.options.close_timeout;
        let key = self.start_timer(timeout, Due::Phase(id));
        self.conns[index].phase_timer = Some(key);
        self.mark_dirty(index);
        if self.conns[index].readable {
            self.mark_ready(index);
        }
    }

    /// Ends a connection that met an error. A peer that is still to be told why, by an alert of TLS,
    /// is told first.
    pub(crate) fn fail(&mut self, index: usize, reason: CloseReason) {
        let state = &mut self.conns[index];
        if state.transport.has_pending() && matches!(state.phase, Phase::Open | Phase::Handshaking)
        {
            state.output = Output::default();
            self.start_closing(index, reason);
        } else {
            self.abort(index, reason);
        }
    }

    /// Closes a connection on which both sides have shut down and said so: nothing can happen on it
    /// any more, and a handler that overrides `eof` need not notice that itself.
    pub(crate) fn close_if_both_ways_shut(&mut self, index: usize) {
        let state = &self.conns[index];
        if state.eof_delivered && state.write_shutdown == WriteShutdown::Done {
            self.close(index, CloseReason::Peer);
        }
    }

    /// Ends a connection now, whatever it still had to write.
    pub(crate) fn abort(&mut self, index: usize, reason: CloseReason) {
        let state = &mut self.conns[index];
        // In the last phase the close has kept its promise already, and its reason stands.
        if !matches!(state.phase, Phase::Lingering | Phase::Dead) {
            state.close_reason = Some(reason);
        }
        self.finish(index);
    }

    /// Ends a closing connection that has nothing left to do.
    pub(crate) fn finish(&mut self, index: usize) {
        let state = &mut self.conns[index];
        if state.phase != Phase::Dead {
            state.phase = Phase::Dead;
            self.dead.push(index as u32);
        }
    }

    /// Has the handler told, once, that its server drains.
    pub(crate) fn ask_to_drain(&mut self, index: usize) {
        let state = &mut self.conns[index];
        if state.phase == Phase::Handshaking {
            // Nobody has been promised anything yet.
            self.abort(index, CloseReason::Aborted);
        } else if !state.drain_asked {
            state.drain_asked = true;
            let id = state.id(index);
            self.drain_requests.push(id);
        }
    }

    // ---- timers ----

    pub(crate) fn start_timer(&mut self, delay: Duration, due: Due) -> TimerKey {
        // Rounded up, counted from now and not from the start of the turn: never early.
        let due_at = self.inbox.started.elapsed().saturating_add(delay);
        let due_ms = due_at
            .as_nanos()
            .div_ceil(1_000_000)
            .min(u128::from(u64::MAX)) as u64;
        self.timers.start(due_ms, due)
    }

    /// Starts a timer that ends with its connection.
    pub(crate) fn start_connection_timer(
        &mut self,
        delay: Duration,
        index: usize,
        token: u64,
    ) -> TimerId {
        let id = self.conns[index].id(index);
        let key = self.start_timer(delay, Due::Handler(id, token));
        self.conns[index].timers.add(key, &self.timers);
        TimerId(key)
    }

    pub(crate) fn cancel_timer(&mut self, timer: TimerId) {
        self.timers.cancel(timer.0);
    }

    /// How long the loop may sleep for the timers' sake.
    pub(crate) fn until_next_timer(&self) -> Option<Duration> {
        let next = self.inbox.started + Duration::from_millis(self.timers.next_ms()?);
        Some(next.saturating_duration_since(Instant::now()))
    }
}

/// The loop, lent for one call. Lives on its thread.
pub struct LoopContext<'a> {
    pub(crate) core: &'a mut Core,
}

impl LoopContext<'_> {
    /// A way into this loop for other threads.
    pub fn handle(&self) -> LoopHandle {
        self.core.handle()
    }

    /// Another connection of this loop; `None` once it has ended.
    pub fn connection(&mut self, id: ConnId) -> Option<Connection<'_>> {
        let index = self.core.index_of(id)?;
        Some(Connection {
            core: self.core,
            index,
        })
    }

    /// Runs `task` on this loop after `delay`. Resolution: 1 ms, never early.
    pub fn after(
        &mut self,
        delay: Duration,
        task: impl FnOnce(&mut LoopContext<'_>) + 'static,
    ) -> TimerId {
        TimerId(self.core.start_timer(delay, Due::Task(Box::new(task))))
    }

    /// Cancels a timer. One that has fired or was cancelled is ignored.
    pub fn cancel_timer(&mut self, timer: TimerId) {
        self.core.cancel_timer(timer);
    }

    /// Starts to connect to `address`. The handler hears `opened` once connected, or only `closed`
    /// with [`CloseReason::ConnectFailed`].
    ///
    /// # Errors
    /// When no attempt could be started: descriptors, no route, options out of range, a loop that
    /// has stopped, a `make_handler` that panics. Then no handler hears anything.
    pub fn connect(
        &mut self,
        address: impl Into<Address>,
        options: Arc<ConnectionOptions>,
        make_handler: impl FnOnce(&ConnHandle) -> Box<dyn Handler>,
    ) -> io::Result<ConnId> {
        self.connect_with(address.into(), Transport::plain, options, make_handler)
    }

    /// Like [`connect`](Self::connect), with TLS: `opened` comes after the handshake.
    ///
    /// # Errors
    /// As for [`connect`](Self::connect), and when rustls refuses the configuration.
    #[cfg(feature = "tls")]
    pub fn connect_tls(
        &mut self,
        address: impl Into<Address>,
        tls: &crate::ClientTls,
        options: Arc<ConnectionOptions>,
        make_handler: impl FnOnce(&ConnHandle) -> Box<dyn Handler>,
    ) -> io::Result<ConnId> {
        let session = tls.session().map_err(io::Error::other)?;
        let transport = |socket| Transport::tls(socket, session);
        self.connect_with(address.into(), transport, options, make_handler)
    }

    fn connect_with(
        &mut self,
        address: Address,
        transport: impl FnOnce(Socket) -> Transport,
        options: Arc<ConnectionOptions>,
        make_handler: impl FnOnce(&ConnHandle) -> Box<dyn Handler>,
    ) -> io::Result<ConnId> {
        options
            .check()
            .map_err(|what| io::Error::new(io::ErrorKind::InvalidInput, what))?;
        let socket = Socket::connect(&address)?;
        let index = self.core.add(NewConnection {
            transport: transport(socket),
            peer: address,
            phase: Phase::Connecting,
            options,
            server: None,
        })?;
        if let Err(error) = self.core.give_handler(index, make_handler) {
            self.core.forget(index);
            return Err(error);
        }
        self.core.inbox.metrics.connection_added();
        Ok(self.core.conns[index].id(index))
    }
}
