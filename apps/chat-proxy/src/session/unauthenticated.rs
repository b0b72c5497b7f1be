//! The part of a session that bounds what a connection holds on which nobody has logged in.
//!
//! Whoever reaches the port can have such connections, as many as there are addresses. So their frames are short, and
//! all of them share one budget for what is not dealt with at once: beginnings of frames, resumes that are long
//! and being answered, and answers that are not taken. A login that comes whole, as they do, needs none of it: whoever
//! uses the budget up keeps out those whose frames come in pieces.

use chat_proto::ids::{MessageId, code};
use nexus_net::Connection;

use super::{Refusal, Session, State};

pub(super) const TOO_MANY_UNAUTHENTICATED: Refusal = (
    code::UNAVAILABLE,
    "too many clients are logging in at the moment, try again later",
);

/// Bytes of a frame's length.
const HEADER_BYTES: usize = 4;
/// How a RequestFrame of a resume begins: field 1, a varint, and the message id.
const RESUME_BEGIN: [u8; 2] = [0x08, MessageId::RESUME.0 as u8];
/// Answers that such a client has not taken; beyond that it is closed. They are short, and the kernel has taken many by
/// then.
const OUTPUT_BYTES_MAX: usize = 64 << 10;

impl Session {
    /// The longest frame that is taken now, of which `input` has the beginning.
    pub(super) fn frame_length_max(&self, input: &[u8]) -> usize {
        let options = &self.shared.options;
        let frame_bytes_max = options.frame_bytes_max;
        if !matches!(self.state, State::Anonymous) || may_be_resume(input) {
            return frame_bytes_max;
        }
        frame_bytes_max.min(options.unauthenticated_frame_bytes_max)
    }

    /// After each read, of which `input_bytes` are left.
    pub(super) fn hold(&mut self, conn: &mut Connection<'_>, input_bytes: usize) {
        self.guard.held.input_bytes = input_bytes;
        if matches!(self.state, State::LoggingIn(_))
            && input_bytes > self.shared.options.unauthenticated_frame_bytes_max
        {
            // A frame sent ahead, which may be taken once the login is answered.
            self.guard.held.waits_for_login = true;
            conn.pause_reading();
        }
        self.hold_output(conn);
    }

    /// The output has grown, or was taken.
    pub(super) fn hold_output(&mut self, conn: &mut Connection<'_>) {
        if !conn.is_open() || self.finishing {
            return;
        }
        if !matches!(self.state, State::LoggingIn(_)) {
            self.release_login(conn);
        }
        let output_bytes = conn.output_bytes();
        if !self.is_unauthenticated() {
            let _ = self.guard.held.charge.resize(0);
        } else if output_bytes > OUTPUT_BYTES_MAX {
            log::debug!("{}: does not take its answers; closed", conn.peer_addr());
            self.leave();
            conn.abort();
        } else if !self.charge(output_bytes) {
            log::info!(
                "{}: {}; closed",
                conn.peer_addr(),
                TOO_MANY_UNAUTHENTICATED.1
            );
            self.turn_away(conn, TOO_MANY_UNAUTHENTICATED);
        } else if output_bytes > 0 && self.guard.held.charge.bytes() > 0 {
            conn.notify_drained();
        }
    }

    /// A login is to be answered that takes so much memory until then. `false`: it cannot be.
    pub(super) fn hold_login(&mut self, conn: &Connection<'_>, bytes: usize) -> bool {
        if bytes <= self.shared.options.unauthenticated_frame_bytes_max {
            return true;
        }
        self.guard.held.login_bytes = bytes;
        let held = self.charge(conn.output_bytes());
        if !held {
            self.guard.held.login_bytes = 0;
        }
        held
    }

    /// No login is being answered (any more).
    fn release_login(&mut self, conn: &mut Connection<'_>) {
        let held = &mut self.guard.held;
        held.login_bytes = 0;
        if std::mem::take(&mut held.waits_for_login) {
            conn.resume_reading();
        }
    }

    fn is_unauthenticated(&self) -> bool {
        matches!(self.state, State::Anonymous | State::LoggingIn(_))
    }

    /// Whether the budget has room for what is held now.
    fn charge(&mut self, output_bytes: usize) -> bool {
        let options = &self.shared.options;
        let frame_bytes_max = options.unauthenticated_frame_bytes_max;
        let held = &mut self.guard.held;
        let mut bytes = held.input_bytes.saturating_add(held.login_bytes);
        // The next flush takes what is less, as a rule.
        if output_bytes > frame_bytes_max {
            bytes = bytes.saturating_add(output_bytes);
        }
        let bytes_max = match bytes <= frame_bytes_max + HEADER_BYTES {
            true => options.unauthenticated_bytes_max,
            false => options.unauthenticated_bytes_max / 2,
        };
        held.charge.resize_within(bytes, bytes_max)
    }
}

/// Whether a frame is one that resumes, or too little of it has come to tell.
fn may_be_resume(input: &[u8]) -> bool {
    let begin = input.get(HEADER_BYTES..).unwrap_or(&[]);
    let begin = begin.get(..RESUME_BEGIN.len()).unwrap_or(begin);
    RESUME_BEGIN.starts_with(begin)
}
