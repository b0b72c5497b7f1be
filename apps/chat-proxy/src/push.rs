//! From the bus to the sessions.
//!
//! Runs on the subscription's thread. The frame of a push is encoded once; all its recipients share
//! the bytes.

use bytes::Bytes;
use chat_proto::conversation::ConversationId;
use chat_proto::frame;
use chat_proto::messages::{BusMessage, Push, ResponseFrame};
use prost::Message;

use crate::delivery::Arrival;
use crate::directory::{Directory, SessionId};
use crate::session::{SignOut, ToSession};

/// Hands a message of the bus to the sessions it is for.
pub(crate) fn distribute(message: Bytes, directory: &Directory) {
    let message = match BusMessage::decode(message) {
        Ok(message) => message,
        Err(error) => {
            log::error!("a message on the bus is not readable: {error}");
            return;
        }
    };
    // First: a session that has ended gets nothing that was meant for the one after it.
    for end in message.end_sessions {
        let session = SessionId(end.session_id);
        if let Some(mailbox) = directory.session(end.user_id, session) {
            let reason = match end.resumed {
                true => SignOut::Resumed,
                false => SignOut::NewerLogin,
            };
            let _ = mailbox.send(ToSession::SignOut { session, reason });
        }
    }
    let mut found = Vec::new();
    for push in message.pushes {
        let Some(arrival) = arrival(&push) else {
            log::error!("a push names no conversation: {:#x}", push.conversation_id);
            continue;
        };
        directory.find(&push.user_ids, &mut found);
        for (session, mailbox) in found.drain(..) {
            let arrival = arrival.clone();
            // A session that has ended meanwhile leaves it pending.
            let _ = mailbox.send(ToSession::Push { session, arrival });
        }
    }
}

/// A push as its recipients get it; `None` if its conversation cannot be.
pub(crate) fn arrival(push: &Push) -> Option<Arrival> {
    Some(Arrival {
        conversation: ConversationId::from_raw(push.conversation_id)?,
        sequence: push.sequence,
        frame: frame::to_bytes(&ResponseFrame {
            message_id: push.message_id,
            content: push.content.clone(),
            request_id: 0,
        }),
    })
}
