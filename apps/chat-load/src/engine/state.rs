//! What is known of all users, and what is decided: whose turn it is to send, to connect, to ask.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use chat_proto::conversation::{ConversationId, GroupId, UserId};
use chat_proto::ids::{MessageId, code};
use chat_proto::messages::*;
use nexus_net::{Backoff, Connection};
use prost::Message as _;

use super::Progress;
use super::user::{HISTORY_REQUEST, LOGIN_REQUEST, Link, Texts, User, send};
use crate::checker::{Arrival, Checker, OpenSend, Verdict};
use crate::options::{LoadOptions, Pace, Senders};
use crate::report::Report;
use crate::roster::Roster;
use crate::tally::Tally;

/// How often each user is looked after.
const ROUND_US: u64 = 50_000;
/// The pause before a message that was refused for the moment is sent again.
const AGAIN_US: u64 = 200_000;
/// Fetches that are begun in one round.
const FETCHES_MAX: usize = 256;
const BACKOFF: Backoff = Backoff {
    initial: Duration::from_millis(100),
    max: Duration::from_secs(2),
};

/// What a load does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Entering,
    Sending,
    Draining { since_us: u64 },
    Over,
}

/// One look at all users.
#[derive(Debug, Clone, Copy)]
pub(super) struct Round {
    now_us: u64,
    /// What was received is acknowledged.
    acknowledges: bool,
}

#[derive(Debug)]
pub(super) struct State {
    options: LoadOptions,
    password: bytes::Bytes,
    texts: Texts,
    pub(super) phase: Phase,
    pub(super) users: Vec<User>,
    streams: Vec<Stream>,
    /// Users who are to be connected, the next first.
    queue: VecDeque<usize>,
    entering: usize,
    /// Users for whom something is due.
    touched: Vec<usize>,
    waiting: usize,
    checker: Checker,
    pub(super) tally: Tally,
    next_round_us: u64,
    next_acks_us: u64,
    measured_s: f64,
    complaints: Vec<String>,
}

/// Conversations that share one rate.
#[derive(Debug)]
struct Stream {
    talks: Vec<Talk>,
    per_s: f64,
    begun_us: u64,
    issued: u64,
}

#[derive(Debug)]
struct Talk {
    id: ConversationId,
    senders: Vec<usize>,
}

impl State {
    pub(super) fn new(options: LoadOptions, roster: &Roster) -> Self {
        let mut users = Vec::new();
        let mut indices = HashMap::new();
        let members = roster.conversations.iter().flat_map(|one| &one.members);
        for id in members
            .chain(&roster.idle)
            .filter_map(|&id| UserId::new(id))
        {
            indices.entry(id).or_insert_with(|| {
                users.push(User::new(id));
                users.len() - 1
            });
        }
        let (pairs_per_s, groups_per_s) = match options.pace {
            Pace::Open {
                pairs_per_s,
                groups_per_s,
            } => (pairs_per_s, groups_per_s),
            Pace::FlatOut { .. } => (0.0, 0.0),
        };
        let stream = |of_groups: bool, per_s: f64| {
            let of_kind = roster
                .conversations
                .iter()
                .filter(|one| one.group.is_some() == of_groups);
            let talk = |one: &crate::roster::Participants| {
                let count = match options.senders {
                    Senders::First => 1,
                    Senders::All => one.members.len(),
                };
                let senders = one.members.iter().take(count);
                let index = |&id: &i32| indices.get(&UserId::new(id)?).copied();
                Some(Talk {
                    id: one.conversation()?,
                    senders: senders.filter_map(index).collect(),
                })
            };
            Stream {
                talks: of_kind.filter_map(talk).collect(),
                per_s,
                begun_us: 0,
                issued: 0,
            }
        };
        let run = rand::random();
        Self {
            password: roster.password.clone().into(),
            texts: Texts {
                run,
                size_bytes: options.size_bytes,
            },
            phase: Phase::Entering,
            streams: vec![stream(false, pairs_per_s), stream(true, groups_per_s)],
            queue: (0..users.len()).collect(),
            users,
            entering: 0,
            touched: Vec::new(),
            waiting: 0,
            checker: Checker::new(run, &roster.conversations),
            tally: Tally::new(),
            next_round_us: 0,
            next_acks_us: 0,
            measured_s: 0.0,
            complaints: Vec::new(),
            options,
        }
    }

    // ---- what the handle asks ----

    pub(super) fn begin(&mut self, now_us: u64, measured_from_us: u64) {
        self.phase = Phase::Sending;
        self.tally.measured_us = measured_from_us..u64::MAX;
        for stream in &mut self.streams {
            stream.begun_us = now_us;
            if let Pace::FlatOut { in_flight } = self.options.pace {
                for talk in &stream.talks {
                    for &user in &talk.senders {
                        for _ in 0..in_flight {
                            self.users[user].post(talk.id, now_us);
                            self.waiting += 1;
                        }
                        self.touched.push(user);
                    }
                }
            }
        }
    }

    pub(super) fn end_sending(&mut self, now_us: u64) {
        if self.phase == Phase::Sending {
            self.phase = Phase::Draining { since_us: now_us };
            let from_us = self.tally.measured_us.start;
            self.tally.measured_us.end = now_us.max(from_us);
            self.measured_s = now_us.saturating_sub(from_us) as f64 / 1e6;
        }
    }

    pub(super) fn progress(&self, now_us: u64) -> Progress {
        let oldest = |user: &User| {
            let waiting = user.waiting.front().map(|(_, letter)| letter.due_us);
            let sent = user.in_flight.first_key_value();
            sent.map(|(_, letter)| letter.due_us)
                .into_iter()
                .chain(waiting)
                .min()
        };
        let oldest_us = self.users.iter().filter_map(oldest).min();
        let up = self.users.iter().filter(|user| user.link == Link::Up);
        Progress {
            users: self.users.len(),
            logged_in: up.count(),
            acknowledged: self.tally.acknowledged,
            delivered: self.tally.delivered,
            unacknowledged: self.waiting + self.in_flight(),
            oldest_unacknowledged: Duration::from_micros(
                oldest_us.map_or(0, |due_us| now_us.saturating_sub(due_us)),
            ),
            owed: self.checker.owed(),
            reconnects: self.tally.reconnects,
        }
    }

    fn in_flight(&self) -> usize {
        self.users.iter().map(|user| user.in_flight.len()).sum()
    }

    pub(super) fn settled_us(&self) -> u64 {
        self.checker.settled_us()
    }

    pub(super) fn verdict(&self) -> Verdict {
        let open = self.users.iter().flat_map(|user| {
            let letters = user.in_flight.values();
            letters.map(|letter| OpenSend {
                conversation: letter.conversation,
                sender: user.id,
            })
        });
        let mut verdict = self.checker.verdict(&open.collect::<Vec<_>>());
        verdict.examples.extend(self.complaints.iter().cloned());
        verdict
    }

    pub(super) fn report(&self) -> Report {
        let tally = &self.tally;
        Report {
            users: self.users.len(),
            seconds: self.measured_s,
            acknowledged: tally.acknowledged_measured,
            delivered: tally.delivered_measured,
            to_ack: (&tally.ack_us).into(),
            to_receive: (&tally.receive_us).into(),
            sent_again: tally.sent_again,
            fetched: tally.fetched,
            reconnects: tally.reconnects,
            refused: tally.refused,
            shed: tally.shed,
            verdict: self.verdict(),
        }
    }

    // ---- what the tick asks ----

    /// Has users post what has become due.
    pub(super) fn schedule(&mut self, now_us: u64) {
        if self.phase != Phase::Sending {
            return;
        }
        for stream in &mut self.streams {
            if stream.talks.is_empty() || stream.per_s <= 0.0 {
                continue;
            }
            let talks = stream.talks.len() as u64;
            loop {
                let due_us = stream.begun_us + (stream.issued as f64 * 1e6 / stream.per_s) as u64;
                if due_us > now_us {
                    break;
                }
                let talk = &stream.talks[(stream.issued % talks) as usize];
                let turn = stream.issued / talks;
                let user = talk.senders[(turn % talk.senders.len() as u64) as usize];
                stream.issued += 1;
                if self.waiting >= self.options.waiting_max {
                    self.tally.shed += 1;
                    continue;
                }
                self.waiting += 1;
                self.users[user].post(talk.id, due_us);
                self.touched.push(user);
            }
        }
    }

    pub(super) fn take_touched(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.touched)
    }

    /// Sends what a user has waiting.
    pub(super) fn flush(&mut self, user: usize, conn: &mut Connection<'_>) {
        let user = &mut self.users[user];
        let before = user.waiting.len();
        user.flush(conn, self.texts, self.options.window);
        self.waiting -= before - user.waiting.len();
    }

    /// Users whose turn it is to connect, with the number and the place of the connection.
    pub(super) fn users_to_connect(&mut self, now_us: u64) -> Vec<(usize, u32, SocketAddr)> {
        let mut connect = Vec::new();
        for _ in 0..self.queue.len() {
            if self.entering >= self.options.entering_max {
                break;
            }
            let Some(index) = self.queue.pop_front() else {
                break;
            };
            let user = &mut self.users[index];
            match user.link {
                Link::Down { until_us } if until_us <= now_us => {
                    user.link = Link::Entering;
                    user.generation += 1;
                    user.heard_us = now_us;
                    self.entering += 1;
                    let places = self.options.connect.len();
                    let place = (index + user.failures as usize) % places;
                    connect.push((index, user.generation, self.options.connect[place]));
                }
                Link::Down { .. } => self.queue.push_back(index),
                Link::Entering | Link::Up => {}
            }
        }
        connect
    }

    /// Whether it is time to look after all users once more.
    pub(super) fn begin_round(&mut self, now_us: u64) -> Option<Round> {
        if now_us < self.next_round_us {
            return None;
        }
        self.next_round_us = now_us + ROUND_US;
        let acknowledges = now_us >= self.next_acks_us;
        if acknowledges {
            self.next_acks_us = now_us + self.options.ack_interval.as_micros() as u64;
        }
        Some(Round {
            now_us,
            acknowledges,
        })
    }

    /// Acknowledges, sends again and listens for a user.
    pub(super) fn look_after(&mut self, user: usize, conn: &mut Connection<'_>, round: Round) {
        let now_us = round.now_us;
        let user = &mut self.users[user];
        let silent_us = now_us.saturating_sub(user.heard_us);
        let expects = user.asked || user.link == Link::Entering || !user.in_flight.is_empty();
        if expects && silent_us > self.options.silence_max.as_micros() as u64 {
            return conn.abort();
        }
        if user.link != Link::Up {
            return;
        }
        if round.acknowledges {
            user.acknowledge(conn);
        }
        if user.again > 0 {
            self.tally.sent_again += user.send_due_again(conn, self.texts, now_us);
        }
        if silent_us > self.options.heartbeat_interval.as_micros() as u64 && !user.asked {
            user.heartbeat(conn);
        }
    }

    /// What is to be asked for, since it should have come by itself.
    pub(super) fn to_fetch(&self, now_us: u64) -> Vec<(usize, ConversationId, u64)> {
        let Phase::Draining { since_us } = self.phase else {
            return Vec::new();
        };
        let patience_us = self.options.fetch_after.as_micros() as u64;
        if now_us < since_us + patience_us {
            return Vec::new();
        }
        let missing = self.checker.missing(FETCHES_MAX).into_iter();
        let of_user = |(id, conversation, sequence)| {
            let index = self.users.iter().position(|user| user.id == id)?;
            let user = &self.users[index];
            let is_free = user.link == Link::Up && !user.asked;
            is_free.then_some((index, conversation, sequence))
        };
        missing.filter_map(of_user).collect()
    }

    // ---- what connections tell ----

    pub(super) fn log_in(&mut self, user: usize, conn: &mut Connection<'_>, now_us: u64) {
        let user = &mut self.users[user];
        user.heard_us = now_us;
        let request = LoginRequest {
            user_id: user.id.get(),
            user_password: self.password.clone(),
            acknowledges: true,
            ..Default::default()
        };
        send(conn, MessageId::LOGIN, LOGIN_REQUEST, &request);
    }

    pub(super) fn lost_connection(&mut self, index: usize, now_us: u64) {
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

    pub(super) fn unreadable(&mut self, user: usize, error: &str) {
        let id = self.users[user].id;
        self.complain(format!("user {id}: {error}"));
    }

    fn complain(&mut self, what: String) {
        if self.complaints.len() < 10 {
            self.complaints.push(what);
        }
    }

    pub(super) fn on_frame(
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
            MessageId::FRIEND_CHAT_ANSWER => FriendChatResponse::decode(frame.content).map(|a| {
                self.answered(
                    user,
                    conn,
                    frame.request_id,
                    a.error_code,
                    a.sequence,
                    now_us,
                );
            }),
            MessageId::GROUP_CHAT_ANSWER => GroupChatResponse::decode(frame.content).map(|a| {
                self.answered(
                    user,
                    conn,
                    frame.request_id,
                    a.error_code,
                    a.sequence,
                    now_us,
                );
            }),
            MessageId::LOGIN_ANSWER => LoginResponse::decode(frame.content)
                .map(|answer| self.logged_in(user, conn, answer, now_us)),
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
            MessageId::SIGNED_OUT => {
                conn.close();
                Ok(())
            }
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
        if answer.error_code != code::SUCCESS {
            let is_passing = matches!(
                answer.error_code,
                code::UNAVAILABLE | code::RATE_LIMITED | code::INTERNAL
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
        self.tally.sent_again += user.send_all_again(conn, self.texts);
        for message in answer.offline_message_list.unwrap_or_default().messages {
            self.listed(index, &message, now_us);
        }
        self.flush(index, conn);
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
            code::UNAVAILABLE | code::RATE_LIMITED | code::INTERNAL => {
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
