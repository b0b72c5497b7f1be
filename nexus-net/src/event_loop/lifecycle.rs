//! A connection's life on the loop: born, opened, written, closed, freed.
//!
//! ```text
//!   accepted ──[Handshaking]──► Open ──close──► Closing ──written──► Lingering ──peer closed──► Dead
//!   Connecting ──connected──┘    │                 │                     │                       │
//!       └──── failed ────────────┴── abort ────────┴── time-out ─────────┴───────────────────────┴─► freed
//! ```
//!
//! Ending a connection only marks it dead; the end of the turn frees it. So an index names one
//! connection throughout a turn.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::BytesMut;

use super::EventLoop;
use crate::connection::{ConnState, Phase, WriteShutdown};
use crate::core::{Core, Due, LoopContext};
use crate::{Address, CloseReason, ConnId, Connection, Handler};

/// Bytes written of one connection in one turn before the others get theirs.
const WRITE_BYTES_PER_TURN: usize = 1 << 20;

impl EventLoop {
    /// Calls the handler of a connection, then gives handlers of connections made in the call their
    /// place.
    pub(super) fn call(
        &mut self,
        index: usize,
        method: impl FnOnce(&mut dyn Handler, &mut Connection<'_>),
    ) {
        self.invoke(index, method);
        self.adopt_births();
    }

    /// Calls the handler of a connection with the connection. A panic ends the connection.
    fn invoke(&mut self, index: usize, method: impl FnOnce(&mut dyn Handler, &mut Connection<'_>)) {
        let Some(mut handler) = self.handlers.get_mut(index).and_then(Option::take) else {
            return;
        };
        let mut conn = Connection {
            core: &mut self.core,
            index,
        };
        let result = catch_unwind(AssertUnwindSafe(|| method(&mut *handler, &mut conn)));
        self.handlers[index] = Some(handler);
        if result.is_err() {
            log::error!("a handler panicked; its connection is closed");
            self.core.abort(index, CloseReason::HandlerPanicked);
        }
    }

    /// Gives new connections' handlers their place, in the order they were made, opens those that
    /// need no connecting, and tells handlers that their server drains.
    pub(super) fn adopt_births(&mut self) {
        // One loop and no recursion: what a handler does in here joins the end of the line.
        loop {
            if let Some(birth) = self.core.births.pop_front() {
                let index = birth.index;
                if self.handlers.len() <= index {
                    self.handlers.resize_with(index + 1, || None);
                }
                debug_assert!(self.handlers[index].is_none());
                self.handlers[index] = Some(birth.handler);
                if self.core.conns[index].phase == Phase::Open {
                    self.opened(index);
                }
            } else if let Some(id) = self.core.drain_requests.pop() {
                if let Some(index) = self.core.index_of(id) {
                    self.invoke(index, |handler, conn| handler.draining(conn));
                }
            } else {
                return;
            }
        }
    }

    pub(super) fn opened(&mut self, index: usize) {
        let state = &self.core.conns[index];
        if let Some(timeout) = state.options.idle_timeout {
            let id = state.id(index);
            let key = self.core.start_timer(timeout, Due::Idle(id));
            self.core.conns[index].idle_timer = Some(key);
        }
        if self.core.conns[index].readable || self.core.conns[index].undelivered {
            self.core.mark_ready(index);
        }
        self.invoke(index, |handler, conn| handler.opened(conn));
    }

    pub(super) fn finish_connecting(&mut self, index: usize) {
        let state = &mut self.core.conns[index];
        match state.transport.socket.connected() {
            Ok(false) => {}
            Ok(true) if is_own_peer(state) => {
                // TCP's simultaneous open with itself: happens when nobody listens on the port and
                // the kernel picks that very port for this end.
                let error = io::Error::from(io::ErrorKind::ConnectionRefused);
                self.core.abort(index, CloseReason::ConnectFailed(error));
            }
            Ok(true) => {
                state.writable = true;
                if state.transport.is_established() {
                    self.established(index);
                } else {
                    state.phase = Phase::Handshaking;
                    self.core.mark_dirty(index);
                }
            }
            Err(error) => self.core.abort(index, CloseReason::ConnectFailed(error)),
        }
    }

    /// Writes what is queued, as far as the socket takes it, and does what waited for that.
    pub(super) fn flush(&mut self, index: usize) {
        let core = &mut self.core;
        if matches!(
            core.conns[index].phase,
            Phase::Connecting | Phase::Lingering | Phase::Dead
        ) {
            return;
        }
        let mut budget = WRITE_BYTES_PER_TURN;
        if let Err(error) = write_out(core, index, &mut budget) {
            core.abort(index, CloseReason::Io(error));
            return;
        }
        let state = &mut core.conns[index];
        if state.phase == Phase::Handshaking {
            return;
        }
        let empty = !state.has_output();
        let out_of_budget = state.writable && !empty;
        let mut drained = empty && std::mem::take(&mut state.notify_drained);
        if state.choked && state.output.len() <= state.options.output_low_bytes {
            state.choked = false;
            drained = true;
            core.mark_ready(index);
        }
        if out_of_budget {
            core.mark_dirty(index);
        }
        if empty {
            self.output_empty(index);
        }
        if drained && self.core.conns[index].phase == Phase::Open {
            self.call(index, |handler, conn| handler.drained(conn));
        }
    }

    /// Does what waited for the output to be written.
    fn output_empty(&mut self, index: usize) {
        let state = &mut self.core.conns[index];
        let closing = state.phase == Phase::Closing;
        if closing && state.peer_closed && !state.readable {
            // Nothing can come any more, so there is nothing to linger for.
            self.core.finish(index);
            return;
        }
        if state.write_shutdown == WriteShutdown::Asked
            || (closing && state.write_shutdown == WriteShutdown::No)
        {
            state.write_shutdown = WriteShutdown::Done;
            let _ = state.transport.shutdown_write();
        }
        if closing {
            state.phase = Phase::Lingering;
            if state.readable {
                self.core.mark_ready(index);
            }
        } else {
            self.core.close_if_both_ways_shut(index);
        }
    }

    pub(super) fn check_idle(&mut self, id: ConnId) {
        let Some(index) = self.core.index_of(id) else {
            return;
        };
        let now_ms = self.core.now_ms();
        let state = &mut self.core.conns[index];
        state.idle_timer = None;
        let Some(timeout) = state.options.idle_timeout else {
            return;
        };
        if state.phase != Phase::Open {
            return;
        }
        let idle = Duration::from_millis(now_ms.saturating_sub(state.last_read_ms));
        if idle >= timeout {
            self.core.close(index, CloseReason::Idle);
            return;
        }
        let key = self.core.start_timer(timeout - idle, Due::Idle(id));
        self.core.conns[index].idle_timer = Some(key);
    }

    pub(super) fn phase_timed_out(&mut self, index: usize) {
        let state = &mut self.core.conns[index];
        state.phase_timer = None;
        match state.phase {
            Phase::Handshaking => {
                self.handshake_failed(index, io::ErrorKind::TimedOut.into());
            }
            Phase::Connecting => {
                let error = io::Error::from(io::ErrorKind::TimedOut);
                self.core.abort(index, CloseReason::ConnectFailed(error));
            }
            // The rest of the output is lost, and that is what the reason should say.
            Phase::Closing => self.core.abort(index, CloseReason::CloseTimeout),
            Phase::Lingering => self.core.finish(index),
            Phase::Open | Phase::Dead => {}
        }
    }

    /// Tells the handler that its connection has ended, and frees both.
    pub(super) fn reap(&mut self, index: usize) {
        self.adopt_births();
        let Some(state) = self.core.conns.get_mut(index) else {
            return;
        };
        debug_assert_eq!(state.phase, Phase::Dead);
        let reason = state.close_reason.take().unwrap_or(CloseReason::Aborted);
        state.partial = BytesMut::new();
        if let Some(mut handler) = self.handlers.get_mut(index).and_then(Option::take) {
            let context = &mut LoopContext {
                core: &mut self.core,
            };
            // Dropped in here as well: a handler's Drop is the user's code too.
            let result = catch_unwind(AssertUnwindSafe(move || handler.closed(context, reason)));
            if result.is_err() {
                log::error!("a handler panicked in `closed`");
            }
        }
        let ConnState {
            mut transport,
            server,
            timers,
            idle_timer,
            phase_timer,
            ..
        } = self.core.conns.remove(index);
        let ours = [idle_timer, phase_timer];
        for timer in timers.into_iter().chain(ours.into_iter().flatten()) {
            self.core.timers.cancel(timer);
        }
        let _ = transport.deregister(&self.core.registry);
        // The descriptor is free before anyone hears that the connection is gone.
        drop(transport);
        self.core.inbox.metrics.connection_removed();
        if let Some(server) = server {
            server.connection_ended();
        }
        self.adopt_births();
    }

    pub(super) fn accept(&mut self, index: usize) {
        let Some(mut acceptor) = self.core.acceptors.try_remove(index) else {
            return;
        };
        // Taken out while it works, so that it may add connections; put back under its old index,
        // which is still the first vacant one.
        let keep = acceptor.accept(&mut self.core, index);
        if keep {
            let back = self.core.acceptors.insert(acceptor);
            debug_assert_eq!(back, index);
        }
        self.adopt_births();
    }
}

/// Writes until nothing is left, the socket takes no more, or the budget is used up.
fn write_out(core: &mut Core, index: usize, budget: &mut usize) -> io::Result<()> {
    let state = &mut core.conns[index];
    while state.writable {
        let written = if !state.output.is_empty() {
            if *budget == 0 {
                return Ok(());
            }
            state
                .output
                .write_to(&mut state.transport, &mut core.buffers)
        } else {
            if state.phase == Phase::Closing || state.write_shutdown == WriteShutdown::Asked {
                state.transport.end_output();
            }
            if !state.transport.has_pending() {
                return Ok(());
            }
            state.transport.write_pending().map(|()| 0)
        };
        match written {
            Ok(count) => {
                *budget = budget.saturating_sub(count);
                core.inbox.metrics.wrote(count);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => state.writable = false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_own_peer(state: &ConnState) -> bool {
    let own = state.transport.socket.local_addr();
    matches!((own, &state.peer), (Ok(Address::Tcp(own)), Address::Tcp(peer)) if own == *peer)
}
