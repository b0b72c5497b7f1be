//! Reading: from the socket to the handler, fairly, and without losing an edge.
//!
//! `readable` remembers epoll's edge until a read has emptied the socket. Whatever stops the reading
//! before that (the byte budget, a pause, the high water mark) leaves it set, and whoever ends the
//! stop puts the connection on the ready list again.

use std::io;

use bytes::BytesMut;

use super::EventLoop;
use crate::CloseReason;
use crate::connection::{ConnState, Phase};
use crate::core::Core;
use crate::read::read_some;
use crate::scratch::READ_BYTES;

/// From this size on an answer is written as soon as its handler returns. Small ones wait for the end of
/// the turn, to leave together; a large one costs its copying, and that is cheaper while the bytes are
/// in the cache than after a thousand other connections were served.
const EARLY_FLUSH_BYTES: usize = 8 << 10;

/// From this size on the beginning of a frame is not copied to get the next read behind it.
const LARGE_REST_BYTES: usize = 16 << 10;

/// Room behind a small beginning of a frame that is kept and not given back.
const SLACK_BYTES: usize = 512;

/// What one read brought, with what was left over before it.
struct Input {
    bytes: BytesMut,
    count: usize,
    origin: Origin,
}

/// Where input lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// In the buffer that sockets are read into, at its end.
    Scratch,
    /// In memory of the connection.
    Partial,
}

impl EventLoop {
    /// Reads an open connection until its socket is empty, its budget is used up or it may not be
    /// read, and hands everything to its handler.
    pub(super) fn read_open(&mut self, index: usize) {
        self.deliver_early_input(index);
        let mut budget = self.core.conns[index].options.read_bytes_per_turn;
        loop {
            let state = &self.core.conns[index];
            if !state.readable || state.phase != Phase::Open || !state.may_read() {
                break;
            }
            if budget == 0 {
                self.core.mark_ready(index);
                return;
            }
            match read_once(&mut self.core, index, budget) {
                Ok(None) => break,
                Ok(Some(mut input)) => {
                    budget = budget.saturating_sub(input.count);
                    if input.bytes.is_empty() {
                        // A part of a record of TLS.
                        continue;
                    }
                    let offered = input.bytes.len();
                    self.call(index, |handler, conn| handler.data(conn, &mut input.bytes));
                    self.keep_rest(index, input, offered);
                    if self.core.conns[index].output.len() >= EARLY_FLUSH_BYTES {
                        self.flush(index);
                    }
                }
                Err(error) => {
                    self.core.fail(index, CloseReason::Io(error));
                    return;
                }
            }
        }
        self.deliver_eof(index);
    }

    /// Hands over what came together with the end of the handshake.
    fn deliver_early_input(&mut self, index: usize) {
        let state = &mut self.core.conns[index];
        if !state.undelivered || !state.may_read() {
            return;
        }
        state.undelivered = false;
        let mut input = Input {
            bytes: std::mem::take(&mut state.partial),
            count: 0,
            origin: Origin::Partial,
        };
        let offered = input.bytes.len();
        self.call(index, |handler, conn| handler.data(conn, &mut input.bytes));
        self.keep_rest(index, input, offered);
    }

    /// End of stream is delivered once everything before it was. A pause holds it back like data: the
    /// edge that told of it leaves `readable` set, and only a read of 0 clears that.
    fn deliver_eof(&mut self, index: usize) {
        let state = &mut self.core.conns[index];
        if state.phase != Phase::Open
            || !state.peer_closed
            || state.readable
            || state.undelivered
            || state.eof_delivered
        {
            return;
        }
        state.eof_delivered = true;
        self.call(index, |handler, conn| handler.eof(conn));
        self.core.close_if_both_ways_shut(index);
    }

    /// Keeps what the handler left for its next call.
    fn keep_rest(&mut self, index: usize, input: Input, offered: usize) {
        let state = &mut self.core.conns[index];
        let rest = input.bytes;
        if rest.is_empty() || state.phase != Phase::Open {
            return;
        }
        if rest.len() > state.options.input_bytes_max {
            self.core.abort(index, CloseReason::InputLimit);
            return;
        }
        let untouched = rest.len() == offered;
        let large = rest.len() >= LARGE_REST_BYTES && !state.transport.is_encrypted();
        let goes_on = state.readable;
        let partial = match input.origin {
            Origin::Partial if untouched && (goes_on || fits_well(&rest)) => rest,
            Origin::Scratch if large => {
                self.core.leave_in_scratch(index);
                rest
            }
            // The shared buffer must not be pinned by a few bytes.
            Origin::Scratch | Origin::Partial if goes_on => with_room_to_read(&rest),
            Origin::Scratch | Origin::Partial => BytesMut::from(&rest[..]),
        };
        self.core.conns[index].partial = partial;
    }

    /// Reads a closing connection to nowhere. Its peer may have to finish writing before it reads
    /// our rest, and unread input would make the final close a reset.
    pub(super) fn discard_input(&mut self, index: usize) {
        let mut budget = self.core.conns[index].options.read_bytes_per_turn;
        while self.core.conns[index].readable {
            if budget == 0 {
                self.core.mark_ready(index);
                return;
            }
            let state = &mut self.core.conns[index];
            let scratch = self.core.scratch.buffer();
            match read_socket(state, scratch, READ_BYTES) {
                Ok(Some(count)) => budget = budget.saturating_sub(count),
                Ok(None) => break,
                Err(error) => {
                    self.core.abort(index, CloseReason::Io(error));
                    return;
                }
            }
            scratch.clear();
        }
        let state = &self.core.conns[index];
        if state.phase == Phase::Lingering && state.peer_closed {
            self.core.finish(index);
        }
    }
}

impl Core {
    /// Leaves a connection's incomplete frame where it was read, for the next read to go on behind it. There is
    /// one such connection at a time: each of them holds the whole of a buffer.
    fn leave_in_scratch(&mut self, index: usize) {
        let id = self.conns[index].id(index);
        let before = self.in_scratch.replace(id).filter(|&before| before != id);
        if let Some(before) = before.and_then(|before| self.index_of(before)) {
            let state = &mut self.conns[before];
            state.partial = BytesMut::from(&state.partial[..]);
        }
    }
}

/// A copy, with room for the read that follows, if that goes behind it.
fn with_room_to_read(rest: &[u8]) -> BytesMut {
    if rest.len() < LARGE_REST_BYTES {
        return BytesMut::from(rest);
    }
    let mut own = BytesMut::with_capacity(rest.len() + READ_BYTES);
    own.extend_from_slice(rest);
    own
}

/// Whether the memory of a frame that may be long in coming is hardly more than what has come. A large one may have
/// twice as much: giving that back with each read would copy the frame over and over.
fn fits_well(rest: &BytesMut) -> bool {
    let slack = match rest.len() >= LARGE_REST_BYTES {
        true => rest.len(),
        false => SLACK_BYTES,
    };
    rest.capacity() - rest.len() <= slack
}

/// Reads once. `None`: nothing more now.
fn read_once(core: &mut Core, index: usize, max: usize) -> io::Result<Option<Input>> {
    let state = &mut core.conns[index];
    let room = max.min(READ_BYTES);
    let mut partial = std::mem::take(&mut state.partial);
    // Bytes of an incomplete frame are few, as a rule, and gathered exactly; only when they are
    // many does the socket get room behind them, which saves copying a large frame.
    let direct = partial.len() >= LARGE_REST_BYTES && !state.transport.is_encrypted();
    let in_scratch = direct && core.in_scratch == Some(state.id(index));
    let scratch = &mut core.scratch;
    let mut origin = match partial.is_empty() || in_scratch {
        true => Origin::Scratch,
        false => Origin::Partial,
    };
    let count = if direct {
        if !(in_scratch && scratch.join(&mut partial)) {
            origin = Origin::Partial;
            partial.reserve(READ_BYTES);
        }
        let room = room.min(partial.capacity() - partial.len());
        let count = read_socket(state, &mut partial, room);
        if origin == Origin::Scratch {
            scratch.part(&mut partial);
        }
        count
    } else {
        read_socket(state, scratch.buffer(), room)
    };
    let Some(count) = count? else {
        state.partial = partial;
        if state.peer_closed {
            state.transport.check_end()?;
        }
        return Ok(None);
    };
    core.inbox.metrics.read(count);
    state.last_read_ms = core.inbox.started.elapsed().as_millis() as u64;
    let bytes = if direct {
        partial
    } else {
        let read = scratch.just_read();
        state.peer_closed |= state.transport.decrypt(read)?;
        if partial.is_empty() {
            read.split()
        } else {
            partial.extend_from_slice(read);
            read.clear();
            partial
        }
    };
    if state.transport.has_pending() {
        core.mark_dirty(index);
    }
    Ok(Some(Input {
        bytes,
        count,
        origin,
    }))
}

/// Reads once from the socket, at most `room` bytes, and notes what that says of it. `None`: nothing
/// more now.
pub(super) fn read_socket(
    state: &mut ConnState,
    buffer: &mut BytesMut,
    room: usize,
) -> io::Result<Option<usize>> {
    let count = loop {
        match read_some(&state.transport.socket, buffer, room) {
            Ok(count) => break count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                state.readable = false;
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
    };
    if count == 0 {
        state.peer_closed = true;
        state.readable = false;
        return Ok(None);
    }
    // A short read has emptied the socket: later bytes make a new edge (epoll(7)). With the
    // peer's end already seen there will be none, so read on until 0.
    if count < room && !state.peer_closed {
        state.readable = false;
    }
    Ok(Some(count))
}
