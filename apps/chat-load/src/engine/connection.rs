//! The handler of one connection, and the tick that makes connections and sends what is due.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use chat_proto::frame;
use chat_proto::messages::ResponseFrame;
use nexus_net::{CloseReason, Connection, ConnectionOptions, Handler, LoopContext};

use super::Shared;
use super::state::Phase;
use super::user::Link;

const FRAME_BYTES_MAX: usize = 64 << 20;
const TICK: Duration = Duration::from_millis(1);

/// One connection of one user.
struct UserConnection {
    shared: Arc<Shared>,
    user: usize,
    generation: u32,
}

impl Handler for UserConnection {
    fn opened(&mut self, conn: &mut Connection<'_>) {
        let mut state = self.shared.state.lock();
        state.log_in(self.user, conn, self.shared.now_us());
    }

    fn data(&mut self, conn: &mut Connection<'_>, input: &mut BytesMut) {
        let now_us = self.shared.now_us();
        let mut state = self.shared.state.lock();
        if state.users[self.user].generation != self.generation {
            input.clear();
            return conn.abort();
        }
        state.users[self.user].heard_us = now_us;
        while conn.is_open() {
            match frame::decode::<ResponseFrame>(input, FRAME_BYTES_MAX) {
                Ok(Some(frame)) => state.on_frame(self.user, conn, frame, now_us),
                Ok(None) => return,
                Err(error) => {
                    state.unreadable(self.user, &error.to_string());
                    conn.abort();
                }
            }
        }
        input.clear();
    }

    fn closed(&mut self, _context: &mut LoopContext<'_>, _reason: CloseReason) {
        let now_us = self.shared.now_us();
        let mut state = self.shared.state.lock();
        if state.users[self.user].generation == self.generation {
            state.lost_connection(self.user, now_us);
        }
    }
}

/// Does what is due, and comes back in a millisecond.
pub(super) fn tick(shared: Arc<Shared>, context: &mut LoopContext<'_>) {
    let now_us = shared.now_us();
    let mut state = shared.state.lock();
    if state.phase == Phase::Over {
        return;
    }
    state.schedule(now_us);
    let connect = state.users_to_connect(now_us);
    for user in state.take_touched() {
        let Some(id) = state.users[user].conn else {
            continue;
        };
        if state.users[user].link == Link::Up
            && let Some(mut conn) = context.connection(id)
        {
            state.flush(user, &mut conn);
        }
    }
    if let Some(round) = state.begin_round(now_us) {
        for user in 0..state.users.len() {
            if let Some(mut conn) = state.users[user].conn.and_then(|id| context.connection(id)) {
                state.look_after(user, &mut conn, round);
            }
        }
        for (user, conversation, sequence) in state.to_fetch(now_us) {
            if let Some(mut conn) = state.users[user].conn.and_then(|id| context.connection(id)) {
                state.users[user].fetch(&mut conn, conversation, sequence);
            }
        }
    }
    drop(state);
    for (user, generation, address) in connect {
        let handler = Box::new(UserConnection {
            shared: Arc::clone(&shared),
            user,
            generation,
        });
        let options = Arc::new(ConnectionOptions::default());
        let connected = match &shared.tls {
            Some(tls) => context.connect_tls(address, tls, options, |_| handler),
            None => context.connect(address, options, |_| handler),
        };
        let mut state = shared.state.lock();
        match connected {
            Ok(id) => state.users[user].conn = Some(id),
            Err(_) => state.lost_connection(user, now_us),
        }
    }
    context.after(TICK, move |context| tick(shared, context));
}
