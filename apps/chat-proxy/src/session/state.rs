//! What a connection is at, and what belongs to its login.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use chat_bus::Bucket;
use chat_proto::conversation::{ConversationId, UserId};
use chat_proto::messages::ConversationAck;
use nexus_net::Connection;
use nexus_rpc::CallOptions;

use super::SignOut;
use super::fetching::Fetching;
use super::large::LargeAnswers;
use crate::delivery::{Arrival, Delivery};
use crate::directory::SessionId;

/// Boxed: most connections of a big proxy are idle, and many of those not logged in.
pub(super) enum State {
    Anonymous,
    LoggingIn(Box<LoggingIn>),
    LoggedIn(Box<Active>),
    /// Waits for what is in flight, then logs out.
    LoggingOut(Box<Active>, Logout),
    Closed,
}

pub(super) struct LoggingIn {
    pub(super) user: Option<UserId>,
    pub(super) session: SessionId,
    /// When the client sent it, at the earliest.
    pub(super) asked: Instant,
    pub(super) acknowledges: bool,
    /// Of a resume: the token, and what the client has.
    pub(super) token: Bytes,
    pub(super) received: Vec<ConversationAck>,
    pub(super) delivery: Delivery,
    /// A still newer login was quicker; this one ends as soon as it has begun.
    pub(super) signed_out: Option<SignOut>,
}

/// A logout that was asked for.
pub(super) struct Logout {
    pub(super) request_id: u64,
    pub(super) sent: bool,
}

/// What a login has.
pub(super) struct Active {
    pub(super) user: UserId,
    pub(super) session: SessionId,
    /// The metadata of its calls.
    pub(super) options: CallOptions,
    /// The client acknowledges; else a message counts as received once it was written.
    pub(super) acknowledges: bool,
    /// What the client may resume the session with, until it logs out. Empty: it has none.
    pub(super) token: Bytes,
    pub(super) delivery: Delivery,
    /// Written, or about to be, and to be acknowledged once it was.
    pub(super) unacknowledged: BTreeMap<ConversationId, u64>,
    /// Requests that wait for an earlier one of the same conversation. The key is there while one is
    /// in flight.
    pub(super) queues: HashMap<ConversationId, VecDeque<QueuedCall>>,
    pub(super) fetching: Fetching,
    pub(super) large: LargeAnswers,
    /// What the user may send.
    pub(super) messages: Bucket,
}

/// A call to be made when its turn has come.
pub(super) struct QueuedCall {
    /// Its answer grows with what is stored.
    pub(super) is_large: bool,
    pub(super) call: Box<dyn FnOnce()>,
}

impl Active {
    /// Writes messages to the client.
    pub(super) fn show(&mut self, conn: &mut Connection<'_>, arrivals: Vec<Arrival>) {
        if arrivals.is_empty() {
            return;
        }
        for arrival in arrivals {
            self.acknowledge_when_written(arrival.conversation, arrival.sequence);
            conn.send(arrival.frame);
        }
        if !self.unacknowledged.is_empty() {
            conn.notify_drained();
        }
    }

    /// A message is written that the proxy acknowledges, unless the client does.
    pub(super) fn acknowledge_when_written(&mut self, conversation: ConversationId, sequence: u64) {
        if !self.acknowledges {
            let newest = self.unacknowledged.entry(conversation).or_default();
            *newest = sequence.max(*newest);
        }
    }
}
