//! What is known of all users, and what is decided: whose turn it is to send, to connect, to ask.

mod heard;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use chat_proto::conversation::{ConversationId, UserId};
use nexus_net::Connection;

use super::Progress;
use super::user::{Link, Texts, User, WayIn};
use crate::checker::{Checker, OpenSend, Verdict};
use crate::options::{LoadOptions, Pace, Senders};
use crate::report::Report;
use crate::roster::Roster;
use crate::tally::Tally;

/// How often each user is looked after.
const ROUND_US: u64 = 50_000;
/// Fetches that are begun in one round.
const FETCHES_MAX: usize = 256;

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
    way_in: WayIn,
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
            way_in: WayIn {
                password: roster.password.clone().into(),
                resumes: options.resumes,
                client_run: rand::random::<u64>().max(1),
            },
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
        verdict.sessions_ended = self.tally.sessions_ended;
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
}
