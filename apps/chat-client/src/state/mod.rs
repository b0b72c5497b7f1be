//! The client without its socket: requests, answers and pushes in; frames, results and events out.
//! The clock is an argument.
//!
//! ```text
//!   request ──►┌───────┐──► poll_output: frames to write, results to hand over
//!   frames  ──►│ State │──► poll_event: what to tell the application
//!   time    ──►└───────┘──► next_timeout: when to call handle_timeout
//! ```
//!
//! # The session
//!
//! ```text
//!       Login, Resume sent       answered
//!   Out ────────────────► SigningIn ────► In ──── Logout sent ────► Leaving
//!    ▲                        │            │                           │
//!    └── refused, link lost ──┴────────────┴───────── answered ────────┘
//! ```
//!
//! While `me` is known the session is resumed after a lost link, without being asked. Requests wait
//! meanwhile; those that were under way fail, sends go out again.

mod calls;
mod lanes;
mod pages;
mod session;
mod sync;
mod window;
mod wire;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Instant;

use chat_proto::conversation::UserId;
use chat_proto::ids::MessageId;
use chat_proto::messages as proto;
use prost::Message as _;

use self::lanes::Lane;
use self::pages::Pages;
use self::session::{Me, Session};
use self::window::Window;
pub(crate) use self::wire::{Password, Request};
use crate::model::Answer;
use crate::{ChatError, ClientOptions, Conversation, Event, Status};

/// At most so many messages come with one answer, as the protocol says.
const HISTORY_MAX: u32 = 500;
/// Messages of more conversations than this are shown as they come, without being put in order.
const CONVERSATIONS_MAX: usize = 100_000;
/// A resume names at most so many conversations: its frame shall be smaller than any server's limit.
const RECEIVED_MAX: usize = 1000;

pub(crate) type Completion = Box<dyn FnOnce(Result<Answer, ChatError>) + Send>;

/// What is to be done, in this order.
pub(crate) enum Output {
    /// Write a frame.
    Frame(proto::RequestFrame),
    /// Hand a result over.
    Complete(Completion, Result<Answer, ChatError>),
    /// Cut the connection off: it is of no use any more.
    Reset,
}

/// A client's state. See [the module](self).
pub(crate) struct State {
    options: ClientOptions,
    link: Link,
    session: Session,
    /// Who is signed in, or whose session is to be resumed.
    me: Option<Me>,
    /// Resuming after a refusal: how many there were, and when it is due.
    resume_failures: u32,
    resume_at: Option<Instant>,
    /// Attempts to resume that this client has made, and who counts them: random.
    attempts: u64,
    run: u64,
    /// When the session last went on on another connection.
    displaced_at: Option<Instant>,
    /// Whose `windows` are.
    windows_of: Option<UserId>,
    windows: HashMap<Conversation, Window>,
    fills: BTreeSet<(Instant, Conversation)>,
    acks: BTreeMap<Conversation, u64>,
    ack_at: Option<Instant>,
    /// Requests without an answer by their ids, which count up.
    calls: BTreeMap<u64, Call>,
    deadlines: BTreeSet<(Instant, u64)>,
    /// Calls not written yet, oldest first. Some wait in a lane further on.
    unsent: VecDeque<u64>,
    lanes: HashMap<Conversation, Lane>,
    /// When which lane tries again.
    retries: BTreeSet<(Instant, Conversation)>,
    /// Pages of lists that are asked for again, and when.
    waiting_pages: Vec<(Instant, Pages)>,
    next_id: u64,
    outputs: VecDeque<Output>,
    events: VecDeque<Event>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Down {
        failures: u32,
    },
    Up {
        heard: Instant,
        written: Instant,
        /// Why it is being cut off, or that the end is expected.
        ending: Option<Ending>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// The application knows that it ends, and why.
    Expected,
    /// This side cuts it off.
    Reset(&'static str),
}

struct Call {
    id: u64,
    request: Request,
    origin: Origin,
    deadline: Instant,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Unsent,
    Sent,
    /// Written to a connection that was lost; to be written again.
    Resend,
}

/// Who wants a call's answer.
enum Origin {
    Application(Completion),
    /// The state itself, which resumes the session.
    Resumption,
    /// A gap in a conversation, asked for from here on, so many.
    Fill(Conversation, (u64, u32)),
    /// The application wants all of a list, and has to wait for this page of it.
    Page(Box<Pages>),
}

impl State {
    /// `run` is another one for each client of a user, ever.
    pub(crate) fn new(options: ClientOptions, run: u64) -> Self {
        Self {
            options,
            link: Link::Down { failures: 0 },
            session: Session::Out,
            me: None,
            resume_failures: 0,
            resume_at: None,
            attempts: 0,
            run,
            displaced_at: None,
            windows_of: None,
            windows: HashMap::new(),
            fills: BTreeSet::new(),
            acks: BTreeMap::new(),
            ack_at: None,
            calls: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            unsent: VecDeque::new(),
            lanes: HashMap::new(),
            retries: BTreeSet::new(),
            waiting_pages: Vec::new(),
            next_id: 1,
            outputs: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Who is signed in, or whose session is being resumed.
    pub(crate) fn user(&self) -> Option<UserId> {
        self.me.as_ref().map(|me| me.user)
    }

    pub(crate) fn status(&self) -> Status {
        match (self.link, self.session) {
            (Link::Down { .. }, _) => Status::Connecting,
            (_, Session::In | Session::Leaving) => Status::Live,
            _ if self.me.is_some() => Status::Resuming,
            _ => Status::Connected,
        }
    }

    /// The application asks for something. `completion` comes out exactly once, unless the state is
    /// dropped before.
    pub(crate) fn request(&mut self, now: Instant, request: Request, completion: Completion) {
        if self.calls.len() >= self.options.calls_max {
            self.complete(completion, Err(ChatError::Busy));
        } else if matches!(request, Request::Logout) && self.is_between_sessions() {
            self.end_session(&signed_out(String::new()));
            self.complete(completion, Ok(Answer::Done));
        } else {
            self.call(now, request, Origin::Application(completion));
            self.flush(now);
        }
    }

    /// The connection is there.
    pub(crate) fn handle_opened(&mut self, now: Instant) {
        self.link = Link::Up {
            heard: now,
            written: now,
            ending: None,
        };
        if self.me.is_some() {
            self.resume(now);
        } else {
            self.events.push_back(Event::Connected);
        }
        self.flush(now);
    }

    /// The connection was lost, or could not be made.
    pub(crate) fn handle_closed(&mut self, reason: String) {
        match self.link {
            Link::Down { failures } => {
                let failures = failures.saturating_add(1);
                self.link = Link::Down { failures };
                self.events
                    .push_back(Event::Unreachable { failures, reason });
            }
            Link::Up { ending, .. } => {
                self.link = Link::Down { failures: 0 };
                self.lose_session();
                let reason = match ending {
                    Some(Ending::Expected) => return,
                    Some(Ending::Reset(reason)) => reason.to_owned(),
                    None => reason,
                };
                self.events.push_back(Event::Disconnected { reason });
            }
        }
    }

    /// Bytes arrived, or could have but were not read.
    pub(crate) fn handle_life(&mut self, now: Instant) {
        if let Link::Up { heard, .. } = &mut self.link {
            *heard = now;
        }
    }

    pub(crate) fn handle_frame(&mut self, now: Instant, frame: proto::ResponseFrame) {
        match MessageId(frame.message_id) {
            MessageId::HEARTBEAT_ANSWER => {}
            MessageId::ERROR => self.handle_error(now, frame),
            MessageId::SIGNED_OUT => {
                let notice = proto::SignedOut::decode(frame.content).unwrap_or_default();
                match notice.resumed {
                    true => self.displaced(now, notice.reason),
                    false => self.ended_by_server(notice.reason),
                }
            }
            id if (MessageId::RECV_FRIEND.0..=MessageId::RECV_DELETE_GROUP.0).contains(&id.0) => {
                match wire::pushed(id, frame.content) {
                    Ok(Some(message)) => self.receive(now, message),
                    Ok(None) => log::debug!("a push {} names nobody", id.0),
                    Err(error) => log::warn!("a push {} is not readable: {error}", id.0),
                }
            }
            id => match self.take(frame.request_id) {
                Some(call) if call.request.message_ids().1 == id => {
                    let result = call.request.decode(frame.content);
                    self.finish(now, call, result);
                }
                Some(call) => {
                    let error = format!(
                        "{} answered with message {}",
                        call.request.operation(),
                        id.0
                    );
                    self.finish(now, call, Err(ChatError::Protocol(error)));
                }
                // Its deadline has passed, for example.
                None => log::debug!("nobody waits for message {}", id.0),
            },
        }
        self.flush(now);
    }

    /// What arrived is not the protocol.
    pub(crate) fn handle_garbage(&mut self) {
        self.reset("what the server sends is not readable");
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let link = match self.link {
            Link::Up {
                heard,
                written,
                ending: None,
            } => {
                let silence = heard + self.options.silence_max;
                Some(silence.min(written + self.options.heartbeat_interval))
            }
            _ => None,
        };
        [
            link,
            self.deadlines.first().map(|&(at, _)| at),
            self.fills.first().map(|&(at, _)| at),
            self.ack_at,
            self.resume_at,
            self.retries.first().map(|&(at, _)| at),
            self.waiting_pages.iter().map(|&(at, _)| at).min(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(at, id)) = self.deadlines.first()
            && at <= now
        {
            if let Some(call) = self.take(id) {
                self.finish(now, call, Err(ChatError::Timeout));
            }
        }
        if self.ack_at.is_some_and(|at| at <= now) {
            self.acknowledge(now);
        }
        if self.resume_at.is_some_and(|at| at <= now) {
            self.resume(now);
        }
        self.retry(now);
        self.retry_pages(now);
        while let Some(&(at, conversation)) = self.fills.first()
            && at <= now
        {
            self.fills.pop_first();
            self.fill(now, conversation);
        }
        if let Link::Up {
            heard,
            written,
            ending: None,
        } = self.link
        {
            if heard + self.options.silence_max <= now {
                self.reset("the server is silent");
            } else if written + self.options.heartbeat_interval <= now {
                let content = proto::Heartbeat::default().encode_to_vec();
                self.write(now, MessageId::HEARTBEAT, content.into(), 0);
            }
        }
        self.flush(now);
    }

    /// The application closes: acknowledges what it has, and fails what has no answer.
    pub(crate) fn handle_close(&mut self, now: Instant) {
        self.acknowledge(now);
        self.expect_end();
        self.me = None;
        self.deadlines.clear();
        self.unsent.clear();
        self.clear_lanes();
        for (_, call) in std::mem::take(&mut self.calls) {
            self.give_up(call.origin, Err(ChatError::Disconnected));
        }
        self.end_waiting_pages(&ChatError::Disconnected);
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The next event. When it is a message, say [`handle_handed`](Self::handle_handed) once the
    /// application has it.
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn write(&mut self, now: Instant, id: MessageId, content: bytes::Bytes, request_id: u64) {
        if let Link::Up { written, .. } = &mut self.link {
            *written = now;
            self.outputs.push_back(Output::Frame(proto::RequestFrame {
                message_id: id.0,
                content,
                request_id,
            }));
        }
    }

    fn expect_end(&mut self) {
        if let Link::Up { ending, .. } = &mut self.link {
            *ending = Some(Ending::Expected);
        }
    }

    fn reset(&mut self, reason: &'static str) {
        if let Link::Up { ending, .. } = &mut self.link
            && ending.is_none()
        {
            *ending = Some(Ending::Reset(reason));
            self.outputs.push_back(Output::Reset);
        }
    }
}

fn signed_out(reason: String) -> ChatError {
    ChatError::SignedOut { reason }
}
