//! The part of a session that tells a client which is quiet from one which is gone.

use chat_proto::ids::MessageId;
use chat_proto::messages::{Heartbeat, RequestFrame};
use nexus_net::Connection;
use prost::Message as _;

use super::{Session, Timer, UNREADABLE, notice};
use crate::requests::answer_frame;

impl Session {
    pub(super) fn heartbeat(&mut self, conn: &mut Connection<'_>, frame: RequestFrame) {
        self.expect_heartbeats(conn);
        match Heartbeat::decode(frame.content) {
            Ok(beat) => conn.send(answer_frame(
                MessageId::HEARTBEAT_ANSWER,
                frame.request_id,
                &beat,
            )),
            Err(_) => notice(conn, frame.request_id, UNREADABLE.0, UNREADABLE.1),
        }
    }

    /// The client has shown that it knows heartbeats: from here on its silence means that it has gone.
    /// One that does not know them may be silent for longer.
    pub(super) fn expect_heartbeats(&mut self, conn: &mut Connection<'_>) {
        if !std::mem::replace(&mut self.heartbeats, true) {
            let timeout = self.shared.options.idle_timeout;
            conn.set_timer(timeout, Timer::Silence.token());
        }
    }

    pub(super) fn silence_timer(&mut self, conn: &mut Connection<'_>) {
        let timeout = self.shared.options.idle_timeout;
        let left = timeout.saturating_sub(self.heard_at.elapsed());
        if !left.is_zero() {
            conn.set_timer(left, Timer::Silence.token());
        } else if conn.is_open() {
            log::debug!("{}: no heartbeat; closed", conn.peer_addr());
            self.leave();
            conn.close();
        }
    }
}
