//! What stands before the first byte for the handler: the PROXY protocol's header, then TLS.
//!
//! ```text
//!   accepted ──► [ header ──► peer ] ──► [ TLS ] ──► handler made ──► opened
//!   connected ─────────────────────────► [ TLS ] ──────────────────► opened
//! ```
//!
//! A server's handler is made afterwards: it sees the peer's own address, and a peer that never
//! gets through costs no handler.

use std::io;

use bytes::BytesMut;

use super::EventLoop;
use super::reading::read_socket;
use crate::CloseReason;
use crate::connection::Phase;
use crate::core::Core;
use crate::proxy_protocol;
use crate::scratch::READ_BYTES;

enum Step {
    Established,
    /// More has to come from the peer, or to be written to it.
    Waits,
}

impl EventLoop {
    /// Goes on with what stands before the first byte for the handler.
    pub(super) fn shake_hands(&mut self, index: usize) {
        match step(&mut self.core, index) {
            Ok(Step::Waits) => {}
            Ok(Step::Established) => self.established(index),
            Err(error) => self.handshake_failed(index, error),
        }
        if self.core.conns[index].transport.has_pending() {
            self.core.mark_dirty(index);
        }
    }

    pub(super) fn handshake_failed(&mut self, index: usize, error: io::Error) {
        let peer = &self.core.conns[index].peer;
        log::debug!("{peer}: the handshake failed: {error}");
        self.core.inbox.metrics.handshake_failed();
        self.core.fail(index, CloseReason::ConnectFailed(error));
    }

    /// Opens a connection that has come through.
    pub(super) fn established(&mut self, index: usize) {
        let state = &mut self.core.conns[index];
        state.phase = Phase::Open;
        state.undelivered = !state.partial.is_empty();
        if let Some(timer) = state.phase_timer.take() {
            self.core.timers.cancel(timer);
        }
        // The time it took is not idleness.
        state.last_read_ms = self.core.inbox.started.elapsed().as_millis() as u64;
        if state.server.is_some() {
            // Opened once the handler is in its place.
            self.core.make_server_handler(index);
        } else {
            self.opened(index);
        }
        self.adopt_births();
    }
}

fn step(core: &mut Core, index: usize) -> io::Result<Step> {
    while core.conns[index].readable {
        let state = &mut core.conns[index];
        let scratch = core.scratch.buffer();
        if read_socket(state, scratch, READ_BYTES)?.is_none() {
            break;
        }
        if state.expects_header {
            state.partial.extend_from_slice(scratch);
            scratch.clear();
            let header = proxy_protocol::parse(&state.partial)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            let Some(header) = header else { continue };
            state.expects_header = false;
            if let Some(peer) = header.peer {
                state.peer = peer.into();
            }
            // What follows is the next layer's.
            scratch.extend_from_slice(&state.partial[header.len..]);
            state.partial = BytesMut::new();
        }
        state.peer_closed |= state.transport.decrypt(scratch)?;
        state.partial.extend_from_slice(scratch);
        scratch.clear();
        if state.transport.is_established() {
            return Ok(Step::Established);
        }
    }
    let state = &core.conns[index];
    if state.peer_closed && !state.readable {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Step::Waits)
}
