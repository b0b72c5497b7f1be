//! The part of a session that asks for answers that grow with what is stored: lists and history. It asks for one at a
//! time, and for none while the client has much to take: so an answer never makes more wait than the output limit
//! allows, however many are asked for at once.

use std::collections::VecDeque;

use nexus_net::Connection;

use super::state::{Active, QueuedCall};
use super::{Session, State};

/// The large answers of a session.
#[derive(Default)]
pub(super) struct LargeAnswers {
    in_flight: bool,
    waiting: VecDeque<QueuedCall>,
}

impl Session {
    /// The client has taken what was written, or most of it.
    pub(super) fn call_waiting(&mut self, conn: &mut Connection<'_>) {
        if let State::LoggedIn(active) | State::LoggingOut(active, _) = &mut self.state {
            active.call_next_large(conn, self.shared.options.output_low_bytes);
        }
    }
}

impl Active {
    /// Makes a call whose turn has come in its conversation, now or when there is room for its answer.
    pub(super) fn make(&mut self, conn: &mut Connection<'_>, call: QueuedCall, room_at: usize) {
        if call.is_large {
            self.large.waiting.push_back(call);
            self.call_next_large(conn, room_at);
        } else {
            (call.call)();
        }
    }

    /// A large answer has come, and was written.
    pub(super) fn large_answered(&mut self, conn: &mut Connection<'_>, room_at: usize) {
        self.large.in_flight = false;
        self.call_next_large(conn, room_at);
    }

    /// Makes the next call, if none is in flight and not more than `room_at` bytes wait to be written.
    fn call_next_large(&mut self, conn: &mut Connection<'_>, room_at: usize) {
        if self.large.in_flight || self.large.waiting.is_empty() {
            return;
        }
        if conn.output_bytes() > room_at {
            return conn.notify_drained();
        }
        if let Some(next) = self.large.waiting.pop_front() {
            self.large.in_flight = true;
            (next.call)();
        }
    }
}
