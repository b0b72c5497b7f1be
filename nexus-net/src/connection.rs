//! One connection: its state on the loop, and what a handler may do with it.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::core::{Core, Due, LoopContext, TimerId};
use crate::output::Output;
use crate::timer_wheel::{TimerKey, TimerWheel};
use crate::transport::Transport;
use crate::{Address, CloseReason, ConnHandle};

/// Names a connection on its loop. An id of a connection that has ended never names another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// Limits and time-outs of a connection.
#[derive(Debug, Clone)]
pub struct ConnectionOptions {
    /// Bytes that a handler may leave unconsumed. More closes the connection
    /// ([`CloseReason::InputLimit`]). Default 64 MiB + 64 KiB: the handler's protocol has its own,
    /// sharper limit.
    pub input_bytes_max: usize,
    /// Bytes read of one connection in one turn before the others get theirs. Default 256 KiB.
    pub read_bytes_per_turn: usize,
    /// Above this many unwritten bytes the connection is not read. Default 1 MiB.
    pub output_high_bytes: usize,
    /// Below this many unwritten bytes reading goes on. Default 256 KiB.
    pub output_low_bytes: usize,
    /// More unwritten bytes than this close the connection ([`CloseReason::OutputLimit`]).
    /// Default 64 MiB.
    pub output_bytes_max: usize,
    /// Close when nothing was read for this long ([`CloseReason::Idle`]). Default: never.
    pub idle_timeout: Option<Duration>,
    /// How long a closing connection may take to write its rest and to see the peer close.
    /// Default 5 s.
    pub close_timeout: Duration,
    /// How long a connection may take until it is opened: to be established, to send the PROXY
    /// protocol's header where one is expected, to shake hands under TLS. Default 5 s.
    pub connect_timeout: Duration,
}

impl Default for ConnectionOptions {
    fn default() -> Self {
        Self {
            input_bytes_max: (64 << 20) + (64 << 10),
            read_bytes_per_turn: 256 << 10,
            output_high_bytes: 1 << 20,
            output_low_bytes: 256 << 10,
            output_bytes_max: 64 << 20,
            idle_timeout: None,
            close_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(5),
        }
    }
}

impl ConnectionOptions {
    /// Whether a connection can be made with them.
    ///
    /// # Errors
    /// What is out of range.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.output_low_bytes > self.output_high_bytes {
            return Err("output_low_bytes is above output_high_bytes");
        }
        if self.read_bytes_per_turn == 0 {
            return Err("read_bytes_per_turn is 0");
        }
        Ok(())
    }
}

/// Where a connection stands. Reading and writing are possible in `Open` only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Connecting,
    /// Established, but something stands before the first byte for the handler: the PROXY
    /// protocol's header, or the handshake of TLS.
    Handshaking,
    Open,
    /// Close was asked for: the output is written, then the write side is shut down. Input is
    /// discarded: the peer may have to finish writing before it reads.
    Closing,
    /// The write side is shut down; input is discarded until the peer closes. Dropping a socket with
    /// unread input would reset the connection and could destroy output still on its way.
    Lingering,
    /// Over; freed at the end of the turn.
    Dead,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteShutdown {
    No,
    /// To be done once the output is written.
    Asked,
    Done,
}

pub(crate) struct ConnState {
    pub(crate) transport: Transport,
    pub(crate) peer: Address,
    pub(crate) generation: u32,
    pub(crate) phase: Phase,
    pub(crate) options: Arc<ConnectionOptions>,
    /// Bytes of an incomplete frame, or of an incomplete header of the PROXY protocol; empty and
    /// without memory otherwise.
    pub(crate) partial: BytesMut,
    pub(crate) output: Output,
    /// An edge said so and no read has exhausted it yet.
    pub(crate) readable: bool,
    /// False after a write would have blocked, until the next edge.
    pub(crate) writable: bool,
    /// The peer has shut down its side, as epoll or a read of 0 said.
    pub(crate) peer_closed: bool,
    pub(crate) eof_delivered: bool,
    /// Output is above the high mark and not yet below the low one.
    pub(crate) choked: bool,
    /// The handler asked for reading to pause.
    pub(crate) paused: bool,
    pub(crate) notify_drained: bool,
    /// `partial` came with the handshake, and the handler has not seen it.
    pub(crate) undelivered: bool,
    /// The PROXY protocol's header is still to come.
    pub(crate) expects_header: bool,
    pub(crate) write_shutdown: WriteShutdown,
    pub(crate) in_ready: bool,
    pub(crate) in_dirty: bool,
    /// The handler was told, or is about to be, that the server drains.
    pub(crate) drain_asked: bool,
    pub(crate) close_reason: Option<CloseReason>,
    pub(crate) last_read_ms: u64,
    /// The handler's timers.
    pub(crate) timers: OwnTimers,
    pub(crate) idle_timer: Option<TimerKey>,
    pub(crate) phase_timer: Option<TimerKey>,
    pub(crate) server: Option<Arc<crate::tcp_server::ServerShared>>,
}

impl ConnState {
    pub(crate) fn id(&self, index: usize) -> ConnId {
        ConnId {
            index: index as u32,
            generation: self.generation,
        }
    }

    /// Whether there is anything to write.
    pub(crate) fn has_output(&self) -> bool {
        !self.output.is_empty() || self.transport.has_pending()
    }

    /// Whether an open connection's input may be handed to its handler.
    pub(crate) fn may_read(&self) -> bool {
        !self.paused && !self.choked
    }
}

/// The timers that a handler has started, to be cancelled with its connection.
///
/// Those that fired or were cancelled are swept out when the list has doubled: constant time per
/// timer, and no memory for a connection that has none.
#[derive(Debug, Default)]
pub(crate) struct OwnTimers {
    keys: Vec<TimerKey>,
    sweep_at: usize,
}

impl OwnTimers {
    const SWEEP_MIN: usize = 8;

    pub(crate) fn add(&mut self, key: TimerKey, wheel: &TimerWheel<Due>) {
        if self.keys.len() >= self.sweep_at {
            self.keys.retain(|&key| wheel.is_live(key));
            self.sweep_at = (2 * self.keys.len()).max(Self::SWEEP_MIN);
        }
        self.keys.push(key);
    }
}

impl IntoIterator for OwnTimers {
    type Item = TimerKey;
    type IntoIter = std::vec::IntoIter<TimerKey>;

    fn into_iter(self) -> Self::IntoIter {
        self.keys.into_iter()
    }
}

/// A connection, lent to its handler for one call. Lives on its loop's thread.
///
/// Writing only queues. What a turn produced leaves together, at the end of the turn; except that, once
/// 8 KiB or more are queued when [`data`](crate::Handler::data) returns, they leave there and then.
pub struct Connection<'a> {
    pub(crate) core: &'a mut Core,
    pub(crate) index: usize,
}

impl Connection<'_> {
    /// Its name on this loop.
    pub fn id(&self) -> ConnId {
        self.state().id(self.index)
    }

    /// A way to it for other threads.
    pub fn handle(&self) -> ConnHandle {
        ConnHandle {
            handle: self.core.handle(),
            id: self.id(),
        }
    }

    /// The address at the other end; the client's own where a proxy in front has named it
    /// ([`ProxyProtocol`](crate::ProxyProtocol)).
    pub fn peer_addr(&self) -> &Address {
        &self.state().peer
    }

    /// The address at this end.
    ///
    /// # Errors
    /// What the system says, when the socket is already gone.
    pub fn local_addr(&self) -> std::io::Result<Address> {
        self.state().transport.socket.local_addr()
    }

    /// What the TLS handshake agreed on; `None` on a connection without TLS.
    #[cfg(feature = "tls")]
    pub fn tls(&self) -> Option<crate::TlsInfo<'_>> {
        Some(self.state().transport.tls.as_ref()?.info())
    }

    /// Queues a copy of `bytes`. Dropped, like everything written, unless the connection
    /// [`is_open`](Self::is_open). For large or shared pieces [`send`](Self::send) saves the copy.
    pub fn write(&mut self, bytes: &[u8]) {
        self.write_with(|out| out.extend_from_slice(bytes));
    }

    /// Queues what `encode` appends to the buffer it is given; it must only append.
    pub fn write_with<R>(&mut self, encode: impl FnOnce(&mut BytesMut) -> R) -> R {
        let state = &mut self.core.conns[self.index];
        if state.phase != Phase::Open || state.write_shutdown != WriteShutdown::No {
            return encode(&mut BytesMut::new());
        }
        let result = encode(state.output.tail(&mut self.core.buffers));
        self.core.output_grew(self.index);
        result
    }

    /// Queues `bytes`. Large pieces are kept by reference until they are written.
    pub fn send(&mut self, bytes: Bytes) {
        let state = &mut self.core.conns[self.index];
        if bytes.is_empty()
            || state.phase != Phase::Open
            || state.write_shutdown != WriteShutdown::No
        {
            return;
        }
        state.output.push(bytes, &mut self.core.buffers);
        self.core.output_grew(self.index);
    }

    /// Bytes queued and not yet taken by the kernel.
    pub fn output_bytes(&self) -> usize {
        self.state().output.len()
    }

    /// Has [`Handler::drained`](crate::Handler::drained) called once everything queued so far, and whatever is
    /// queued behind it until then, was taken by the kernel.
    pub fn notify_drained(&mut self) {
        self.core.conns[self.index].notify_drained = true;
        self.core.mark_dirty(self.index);
    }

    /// Stops reading until [`resume_reading`](Self::resume_reading). Bytes then wait in the kernel,
    /// and the peer is slowed down by TCP's flow control. The end of the input waits as well, so a
    /// peer that has gone may go unnoticed until then.
    pub fn pause_reading(&mut self) {
        self.core.conns[self.index].paused = true;
    }

    /// Goes on reading.
    pub fn resume_reading(&mut self) {
        self.core.conns[self.index].paused = false;
        self.core.mark_ready(self.index);
    }

    /// Shuts down the write side once the output is written; reading goes on. Later writes are
    /// dropped. Once the peer has shut down its side too, the connection closes by itself.
    pub fn shutdown_write(&mut self) {
        let state = &mut self.core.conns[self.index];
        if state.phase == Phase::Open && state.write_shutdown == WriteShutdown::No {
            state.write_shutdown = WriteShutdown::Asked;
            self.core.mark_dirty(self.index);
        }
    }

    /// Closes once the output is written. The handler gets no more input, though timers and wakes
    /// still reach it; `closed` follows when the peer has closed too, at the latest after
    /// [`close_timeout`](ConnectionOptions::close_timeout).
    pub fn close(&mut self) {
        let reason = if self.state().peer_closed {
            CloseReason::Peer
        } else {
            CloseReason::Local
        };
        self.core.close(self.index, reason);
    }

    /// Cuts the connection off; unwritten output is lost. `closed` follows, after this call.
    pub fn abort(&mut self) {
        self.core.abort(self.index, CloseReason::Aborted);
    }

    /// Whether bytes queued now still have a chance to be written: not before
    /// [`opened`](crate::Handler::opened), and not after a close or a shutdown was asked for.
    pub fn is_open(&self) -> bool {
        let state = self.state();
        state.phase == Phase::Open && state.write_shutdown == WriteShutdown::No
    }

    /// Has [`Handler::timer`](crate::Handler::timer) called with `token` after `delay`, unless the
    /// connection ends before. Resolution: 1 ms, never early.
    pub fn set_timer(&mut self, delay: Duration, token: u64) -> TimerId {
        self.core.start_connection_timer(delay, self.index, token)
    }

    /// Cancels a timer. One that has fired or was cancelled is ignored.
    pub fn cancel_timer(&mut self, timer: TimerId) {
        self.core.cancel_timer(timer);
    }

    /// The loop, to reach other connections, to start timers or to connect.
    pub fn context(&mut self) -> LoopContext<'_> {
        LoopContext { core: self.core }
    }

    fn state(&self) -> &ConnState {
        &self.core.conns[self.index]
    }
}
