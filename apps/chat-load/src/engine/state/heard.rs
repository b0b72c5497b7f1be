//! What connections tell: frames, and their own beginning and end.

use std::time::Duration;

use chat_proto::conversation::{ConversationId, GroupId, UserId};
use chat_proto::ids::{MessageId, code};
use chat_proto::messages::*;
use nexus_net::{Backoff, Connection};
use prost::{DecodeError, Message as _};

use super::{Phase, State};
use crate::checker::Arrival;
use crate::engine::user::{HISTORY_REQUEST, Link};
use crate::options::Pace;

/// The pause before a message that was refused for the moment is sent again.
const AGAIN_US: u64 = 200_000;
const BACKOFF: Backoff = Backoff {
    initial: Duration::from_millis(100),
    max: Duration::from_secs(2),
};

impl State {
    pub(in crate::engine) fn log_in(
        &mut self,
        user: usize,
        conn: &mut Connection<'_>,
        now_us: u64,
    ) {
        let user = &mut self.users[user];
        user.heard_us = now_us;
        user.log_in(conn, &self.way_in);
    }

    pub(in crate::engine) fn lost_connection(&mut self, index: usize, now_us: u64) {
        let user = &mut self.users[index];
        match user.link {
            Link::Entering => self.entering -= 1,
            Link::Up => self.tally.reconnects += 1,
            Link::Down { .. } => return,
        }
        user.failures += 1;
        let pause = BACKOFF.delay(user.failures, rand::random());
        user.link = Link::Down {
            until_us: now_us + pause.as_micros() as u64,
        };
        user.conn = None;
        user.asked = false;
        // What was not acknowledged comes again.
        user.to_acknowledge.clear();
        self.queue.push_back(index);
    }

    pub(in crate::engine) fn unreadable(&mut self, user: usize, error: &str) {
        let id = self.users[user].id;
        self.complain(format!("user {id}: {error}"));
    }

    fn complain(&mut self, what: String) {
        if self.complaints.len() < 10 {
            self.complaints.push(what);
        }
    }

    pub(in crate::engine) fn on_frame(
        &mut self,
        user: usize,
        conn: &mut Connection<'_>,
        frame: ResponseFrame,
        now_us: u64,
    ) {
        let read = match MessageId(frame.message_id) {
            MessageId::RECV_FRIEND => FriendChatRequest::decode(frame.content).map(|push| {
                let me = self.users[user].id;
                let sender = push.sender.and_then(|sender| UserId::new(sender.user_id));
                let id = sender.and_then(|sender| ConversationId::pair(me, sender));
                self.received(user, id, push.sequence, Some(&push.content), now_us);
            }),
            MessageId::RECV_GROUP => GroupChatRequest::decode(frame.content).map(|push| {
                let group = push.receiver.and_then(|to| GroupId::new(to.group_id));
                let id = group.map(ConversationId::group);
                self.received(user, id, push.sequence, Some(&push.content), now_us);
            }),
            MessageId::FRIEND_CHAT_ANSWER | MessageId::GROUP_CHAT_ANSWER => {
                let number = frame.request_id;
                place(frame).map(|(code, sequence)| {
                    self.answered(user, conn, number, code, sequence, now_us);
                })
            }
            MessageId::LOGIN_ANSWER | MessageId::RESUME_ANSWER => {
                LoginResponse::decode(frame.content)
                    .map(|answer| self.logged_in(user, conn, answer, now_us))
            }
            MessageId::FETCH_HISTORY_ANSWER => {
                FetchHistoryResponse::decode(frame.content).map(|answer| {
                    debug_assert_eq!(frame.request_id, HISTORY_REQUEST);
                    self.users[user].asked = false;
                    for message in &answer.messages {
                        if self.listed(user, message, now_us) {
                            self.tally.fetched += 1;
                        }
                    }
                })
            }
            MessageId::HEARTBEAT_ANSWER => {
                self.users[user].asked = false;
                Ok(())
            }
            MessageId::SIGNED_OUT => SignedOut::decode(frame.content).map(|notice| {
                self.signed_out(user, &notice.reason);
                conn.close();
            }),
            MessageId::ERROR => ErrorNotice::decode(frame.content).map(|notice| {
                let id = self.users[user].id;
                self.complain(format!(
                    "user {id}: {}: {}",
                    notice.error_code, notice.error_text
                ));
            }),
            // Notices of what was done to get ready.
            _ => Ok(()),
        };
        if let Err(error) = read {
            self.unreadable(user, &error.to_string());
            conn.abort();
        }
    }

    fn logged_in(
        &mut self,
        index: usize,
        conn: &mut Connection<'_>,
        answer: LoginResponse,
        now_us: u64,
    ) {
        if answer.error_code == code::SESSION_ENDED {
            self.session_ended(index, "its token is refused");
            self.users[index].token.clear();
            return conn.close();
        }
        if answer.error_code != code::SUCCESS {
            let is_passing = matches!(
                answer.error_code,
                code::UNAVAILABLE | code::RATE_LIMITED | code::INTERNAL | code::UNCERTAIN
            );
            if !is_passing {
                let (id, text) = (self.users[index].id, answer.error_text);
                self.complain(format!("user {id}: login: {}: {text}", answer.error_code));
            }
            return conn.close();
        }
        self.entering -= 1;
        let user = &mut self.users[index];
        user.link = Link::Up;
        user.failures = 0;
        if !answer.session_token.is_empty() {
            user.token = answer.session_token;
        }
        self.tally.sent_again += user.send_all_again(conn, self.texts);
        for message in answer.offline_message_list.unwrap_or_default().messages {
            self.listed(index, &message, now_us);
        }
        self.flush(index, conn);
    }

    /// The server says that the session is over or goes on elsewhere. This is the newest connection of the user, and
    /// nobody else logs in as this user: somebody's late work has ended the session.
    fn signed_out(&mut self, index: usize, reason: &str) {
        if self.users[index].link == Link::Up {
            self.session_ended(index, reason);
        }
    }

    fn session_ended(&mut self, index: usize, why: &str) {
        self.tally.sessions_ended += 1;
        let id = self.users[index].id;
        self.complain(format!("user {id}: session ended: {why}"));
    }

    /// A message in a list; says whether it is new.
    fn listed(&mut self, user: usize, message: &Message, now_us: u64) -> bool {
        let me = self.users[user].id;
        let sender = message.sender.as_ref().and_then(|s| UserId::new(s.user_id));
        if sender == Some(me) {
            return false;
        }
        let group = message.receiver.as_ref().map_or(0, |to| to.group_id);
        let id = match group {
            0 => sender.and_then(|sender| ConversationId::pair(me, sender)),
            group => GroupId::new(group).map(ConversationId::group),
        };
        let is_chat = matches!(
            message.message_type(),
            MessageType::FriendChat | MessageType::GroupChat
        );
        let text = is_chat.then_some(message.content.as_str());
        self.received(user, id, message.sequence, text, now_us)
    }

    /// A message has reached a user, a notice if it has no text; says whether it is new.
    fn received(
        &mut self,
        user: usize,
        id: Option<ConversationId>,
        sequence: u64,
        text: Option<&str>,
        now_us: u64,
    ) -> bool {
        let me = self.users[user].id;
        let Some(id) = id else {
            self.complain(format!("user {me}: a message of no conversation"));
            return false;
        };
        self.users[user].has_received(id, sequence);
        let Some(text) = text else {
            return false;
        };
        match self.checker.received(id, me, sequence, text) {
            Arrival::New(envelope) => {
                self.tally.delivered(envelope.due_us, now_us);
                true
            }
            Arrival::Repeated | Arrival::Wrong => false,
        }
    }

    /// A send was answered.
    fn answered(
        &mut self,
        index: usize,
        conn: &mut Connection<'_>,
        number: u64,
        code: i32,
        sequence: u64,
        now_us: u64,
    ) {
        let user = &mut self.users[index];
        let Some(letter) = user.in_flight.get_mut(&number) else {
            return;
        };
        match code {
            code::SUCCESS => {
                let letter = *letter;
                user.in_flight.remove(&number);
                user.again -= usize::from(letter.again_us.is_some());
                let (id, sender) = (letter.conversation, user.id);
                self.checker.acknowledged(id, sender, number, sequence);
                self.tally.acknowledged(letter.due_us, now_us);
                if self.phase == Phase::Sending && matches!(self.options.pace, Pace::FlatOut { .. })
                {
                    user.post(id, now_us);
                    self.waiting += 1;
                }
            }
            code::UNAVAILABLE | code::RATE_LIMITED | code::INTERNAL | code::UNCERTAIN => {
                if letter.again_us.is_none() {
                    user.again += 1;
                }
                letter.again_us = Some(now_us + AGAIN_US);
            }
            code::NOT_LOGGED_IN => return conn.close(),
            other => {
                user.in_flight.remove(&number);
                self.tally.refused += 1;
                let id = self.users[index].id;
                self.complain(format!("user {id}: message {number}: refused with {other}"));
            }
        }
        self.flush(index, conn);
    }
}

/// The code and the sequence that the answer to a send has, whatever it was sent to.
fn place(frame: ResponseFrame) -> Result<(i32, u64), DecodeError> {
    if frame.message_id == MessageId::GROUP_CHAT_ANSWER.0 {
        let answer = GroupChatResponse::decode(frame.content)?;
        return Ok((answer.error_code, answer.sequence));
    }
    let answer = FriendChatResponse::decode(frame.content)?;
    Ok((answer.error_code, answer.sequence))
}
