//! One user: a connection that comes back, what is to be sent, and what is to be acknowledged.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use chat_proto::conversation::{ConversationId, Parties, UserId};
use chat_proto::frame;
use chat_proto::ids::MessageId;
use chat_proto::messages::*;
use nexus_net::{ConnId, Connection};
use prost::Message;

use crate::envelope::Envelope;

/// Request ids that are no message's number.
pub(super) const LOGIN_REQUEST: u64 = u64::MAX;
pub(super) const HEARTBEAT_REQUEST: u64 = u64::MAX - 1;
pub(super) const HISTORY_REQUEST: u64 = u64::MAX - 2;

/// How far a user's way into the chat is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    /// Not connected, and in the queue or waiting until then (microseconds since the epoch).
    Down { until_us: u64 },
    /// Connecting or logging in.
    Entering,
    /// Logged in.
    Up,
}

/// A message that was sent or is to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Letter {
    pub(super) conversation: ConversationId,
    pub(super) due_us: u64,
    /// Refused for the moment: to be sent again then.
    pub(super) again_us: Option<u64>,
}

#[derive(Debug)]
pub(super) struct User {
    pub(super) id: UserId,
    pub(super) link: Link,
    pub(super) conn: Option<ConnId>,
    /// Counts connections, so that a late word of an earlier one is known for that.
    pub(super) generation: u32,
    pub(super) failures: u32,
    pub(super) last_number: u64,
    /// Due, in the order of their numbers, and not yet sent.
    pub(super) waiting: VecDeque<(u64, Letter)>,
    /// Sent and not acknowledged, by number.
    pub(super) in_flight: BTreeMap<u64, Letter>,
    /// Of `in_flight`, those with a time to be sent again.
    pub(super) again: usize,
    /// Received and not yet acknowledged.
    pub(super) to_acknowledge: Vec<(ConversationId, u64)>,
    pub(super) heard_us: u64,
    /// A heartbeat or a fetch has no answer yet.
    pub(super) asked: bool,
    /// What the session can be resumed with; empty without one.
    pub(super) token: Bytes,
    /// Counts attempts to resume.
    attempts: u64,
}

impl User {
    pub(super) fn new(id: UserId) -> Self {
        Self {
            id,
            link: Link::Down { until_us: 0 },
            conn: None,
            generation: 0,
            failures: 0,
            last_number: 0,
            waiting: VecDeque::new(),
            in_flight: BTreeMap::new(),
            again: 0,
            to_acknowledge: Vec::new(),
            heard_us: 0,
            asked: false,
            token: Bytes::new(),
            attempts: 0,
        }
    }

    /// Asks to be let in: with the token of the last session, or without one with the password.
    pub(super) fn log_in(&mut self, conn: &mut Connection<'_>, way: &WayIn) {
        if self.token.is_empty() {
            let request = LoginRequest {
                user_id: self.id.get(),
                user_password: way.password.clone(),
                acknowledges: true,
                wants_session_token: way.resumes,
                ..Default::default()
            };
            return send(conn, MessageId::LOGIN, LOGIN_REQUEST, &request);
        }
        self.attempts += 1;
        let request = ResumeRequest {
            user_id: self.id.get(),
            session_token: self.token.clone(),
            acknowledges: true,
            // What was acknowledged is known; the rest comes again.
            received: Vec::new(),
            attempt: self.attempts,
            client_run: way.client_run,
        };
        send(conn, MessageId::RESUME, LOGIN_REQUEST, &request);
    }

    /// A message is due.
    pub(super) fn post(&mut self, conversation: ConversationId, due_us: u64) {
        self.last_number += 1;
        let letter = Letter {
            conversation,
            due_us,
            again_us: None,
        };
        self.waiting.push_back((self.last_number, letter));
    }

    /// Sends what waits, as far as the window allows.
    pub(super) fn flush(&mut self, conn: &mut Connection<'_>, texts: Texts, window: usize) {
        while self.link == Link::Up
            && self.in_flight.len() < window
            && let Some((number, letter)) = self.waiting.pop_front()
        {
            self.send_letter(conn, texts, number, letter);
            self.in_flight.insert(number, letter);
        }
    }

    /// Sends everything without an answer once more, after a new login. Returns how much it was.
    pub(super) fn send_all_again(&mut self, conn: &mut Connection<'_>, texts: Texts) -> u64 {
        for letter in self.in_flight.values_mut() {
            letter.again_us = None;
        }
        self.again = 0;
        for (&number, &letter) in &self.in_flight {
            self.send_letter(conn, texts, number, letter);
        }
        self.in_flight.len() as u64
    }

    /// Sends what was refused for the moment and has waited long enough. Returns how much it was.
    pub(super) fn send_due_again(
        &mut self,
        conn: &mut Connection<'_>,
        texts: Texts,
        now_us: u64,
    ) -> u64 {
        let mut due = Vec::new();
        for (&number, letter) in &mut self.in_flight {
            if letter.again_us.is_some_and(|at| at <= now_us) {
                letter.again_us = None;
                due.push((number, *letter));
            }
        }
        self.again -= due.len();
        for &(number, letter) in &due {
            self.send_letter(conn, texts, number, letter);
        }
        due.len() as u64
    }

    fn send_letter(&self, conn: &mut Connection<'_>, texts: Texts, number: u64, letter: Letter) {
        let envelope = Envelope {
            run: texts.run,
            sender: self.id.get(),
            number,
            due_us: letter.due_us,
        };
        let content = envelope.to_text(texts.size_bytes);
        let sender = Some(Sender {
            user_id: self.id.get(),
            ..Default::default()
        });
        let time = "2026-01-02 03:04:05".to_owned();
        match letter.conversation.parties() {
            Parties::Pair { .. } => {
                let friend = letter.conversation.other(self.id);
                let request = FriendChatRequest {
                    sender,
                    receiver: Some(Receiver {
                        user_id: friend.map_or(0, UserId::get),
                        ..Default::default()
                    }),
                    content,
                    time,
                    client_message_id: number,
                    ..Default::default()
                };
                send(conn, MessageId::FRIEND_CHAT, number, &request);
            }
            Parties::Group(group) => {
                let request = GroupChatRequest {
                    sender,
                    receiver: Some(Receiver {
                        group_id: group.get(),
                        ..Default::default()
                    }),
                    content,
                    time,
                    client_message_id: number,
                    ..Default::default()
                };
                send(conn, MessageId::GROUP_CHAT, number, &request);
            }
        }
    }

    /// Notes that everything up to here has been received.
    pub(super) fn has_received(&mut self, conversation: ConversationId, sequence: u64) {
        match self
            .to_acknowledge
            .iter_mut()
            .find(|(id, _)| *id == conversation)
        {
            Some((_, newest)) => *newest = sequence.max(*newest),
            None => self.to_acknowledge.push((conversation, sequence)),
        }
    }

    /// Acknowledges what was received.
    pub(super) fn acknowledge(&mut self, conn: &mut Connection<'_>) {
        let me = self.id;
        let acks = self.to_acknowledge.drain(..);
        let ack = |(id, sequence): (ConversationId, u64)| ConversationAck {
            conversation: Some(as_client_sees(me, id)),
            sequence,
        };
        let acks: Vec<_> = acks.map(ack).collect();
        if !acks.is_empty() {
            send(conn, MessageId::DELIVERY_ACK, 0, &DeliveryAck { acks });
        }
    }

    /// Asks for a conversation's messages from a sequence on.
    pub(super) fn fetch(&mut self, conn: &mut Connection<'_>, id: ConversationId, first: u64) {
        self.asked = true;
        let request = FetchHistoryRequest {
            user_id: self.id.get(),
            conversation: Some(as_client_sees(self.id, id)),
            first_sequence: first,
            count_max: 0,
        };
        send(conn, MessageId::FETCH_HISTORY, HISTORY_REQUEST, &request);
    }

    pub(super) fn heartbeat(&mut self, conn: &mut Connection<'_>) {
        self.asked = true;
        let beat = Heartbeat { token: 1 };
        send(conn, MessageId::HEARTBEAT, HEARTBEAT_REQUEST, &beat);
    }
}

/// What all users of a load log in with.
#[derive(Debug)]
pub(super) struct WayIn {
    pub(super) password: Bytes,
    /// Whether a session is resumed.
    pub(super) resumes: bool,
    /// Names this run where attempts to resume are counted.
    pub(super) client_run: u64,
}

/// What all texts of a load have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Texts {
    pub(super) run: u32,
    pub(super) size_bytes: usize,
}

fn as_client_sees(me: UserId, id: ConversationId) -> Conversation {
    Conversation {
        friend_id: id.other(me).map_or(0, UserId::get),
        group_id: id.as_group().map_or(0, |group| group.get()),
    }
}

pub(super) fn send(
    conn: &mut Connection<'_>,
    id: MessageId,
    request_id: u64,
    content: &impl Message,
) {
    let request = RequestFrame {
        message_id: id.0,
        content: content.encode_to_vec().into(),
        request_id,
    };
    conn.write_with(|out| frame::encode(&request, out));
}
