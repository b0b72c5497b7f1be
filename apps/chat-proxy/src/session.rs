//! One client connection: frames in, calls out, answers and pushes back.
//!
//! ```text
//!           Login/ResumeRequest       answer: success          LogoutRequest
//!   Anonymous ──────────────► LoggingIn ──────────────► LoggedIn ────────────► LoggingOut
//!       ▲                         │                        │                       │
//!       └──── answer: refused ────┘                        │        answer         │
//!       ▲                                                  │                       │
//!       └──────────────────────────────────────────────────┼───────────────────────┘
//!                                                          ▼
//!            connection closed, signed out, drained:    Closed
//! ```
//!
//! The handler lives on its connection's loop. Answers of calls, pushes and orders reach it through
//! its [`SessionMailbox`]; each names the login ([`SessionId`]) that it is for, and one for an earlier login
//! is dropped.
//!
//! Requests are pipelined, except that those which add a message to the same conversation are sent
//! one after the other: there are several servers, and only a commit decides an order. Different
//! conversations of a session run side by side.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use chat_proto::conversation::ConversationId;
use chat_proto::frame::{self, FrameError};
use chat_proto::ids::{MessageId, code};
use chat_proto::messages::*;
use nexus_net::{Address, ByteBudget, CloseReason, Connection, Handler, LoopContext};

use crate::ProxyOptions;
use crate::acks::Acks;
use crate::clients::{Addresses, Paces};
use crate::delivery::{Arrival, Delivery, OwnMessage};
use crate::directory::{Directory, SessionId, SessionMailbox};
use crate::lease::ToLease;
use crate::logouts::Logouts;
use crate::pulse::Pulse;
use crate::requests::{Request, answer_frame};
use crate::resync::{Permit, Resync};
use crate::services::{Failure, Services};

mod fetching;
mod forwarding;
mod guarding;
mod heartbeats;
mod large;
mod login;
mod logout;
mod naming;
mod state;
mod timer;
mod unauthenticated;

use guarding::Guard;
use state::{Active, State};
use timer::Timer;

/// What all sessions of a proxy share.
pub(crate) struct Shared {
    pub(crate) options: ProxyOptions,
    pub(crate) services: Arc<Services>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) acks: Arc<Acks>,
    pub(crate) logouts: Arc<Logouts>,
    pub(crate) resync: Arc<Resync>,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) addresses: Arc<Addresses>,
    pub(crate) paces: Paces,
    /// What connections on which nobody has logged in hold.
    pub(crate) unauthenticated: Arc<ByteBudget>,
    pub(crate) lease: mpsc::Sender<ToLease>,
    pub(crate) last_session: AtomicU64,
}

impl Shared {
    fn next_session(&self) -> SessionId {
        SessionId(self.last_session.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// What reaches a session from other threads.
#[derive(Debug)]
pub(crate) enum ToSession {
    /// A request was answered.
    Answered(Answered),
    /// The user whom a login names was looked for.
    UserFound(Box<naming::Found>),
    /// The login was answered, or failed for this reason.
    LoginAnswered(Box<login::Answer>),
    /// The logout was answered; `released`: by a service that has done it.
    LogoutAnswered { session: SessionId, released: bool },
    /// A fetch was answered; `None`: it failed.
    Fetched {
        session: SessionId,
        answer: Option<FetchPendingResponse>,
    },
    /// A message for the user.
    Push {
        session: SessionId,
        arrival: Arrival,
    },
    /// Something may have been missed.
    Resync { session: SessionId, permit: Permit },
    /// The session is over.
    SignOut { session: SessionId, reason: SignOut },
}

/// A request's answer.
#[derive(Debug)]
pub(crate) struct Answered {
    frame: Bytes,
    /// The login that the request belongs to; `None` for one that needs none.
    session: Option<SessionId>,
    /// The conversation in whose queue the request stood.
    conversation: Option<ConversationId>,
    /// The message that the request became.
    own: Option<Own>,
    /// The service knows a newer login of the user.
    displaced: bool,
    /// It is one that grows with what is stored.
    is_large: bool,
}

/// A message of the user's own, and its place.
#[derive(Debug)]
struct Own {
    conversation: ConversationId,
    sequence: u64,
    message: OwnMessage,
}

/// Why a session is ended by somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignOut {
    /// The user has logged in somewhere else.
    NewerLogin,
    /// The session goes on elsewhere, on another connection.
    Resumed,
}

/// The handler of one client connection.
pub(crate) struct Session {
    shared: Arc<Shared>,
    mailbox: SessionMailbox,
    state: State,
    /// Requests whose answer has not been written.
    in_flight: usize,
    /// Nothing more is read; when nothing is in flight the connection closes.
    finishing: bool,
    /// When the client last sent something.
    heard_at: Instant,
    /// When what is being read was sent, at the earliest.
    asked: Instant,
    /// What is being read may have lain in the socket while the process stood still.
    stood_still: bool,
    /// The client is one that sends heartbeats, and [`Timer::Silence`] runs.
    heartbeats: bool,
    guard: Guard,
}

impl Session {
    pub(crate) fn new(shared: Arc<Shared>, mailbox: SessionMailbox, peer: &Address) -> Self {
        Self {
            guard: Guard::new(&shared, peer),
            shared,
            mailbox,
            state: State::Anonymous,
            in_flight: 0,
            finishing: false,
            heard_at: Instant::now(),
            asked: Instant::now(),
            stood_still: false,
            heartbeats: false,
        }
    }

    fn receive(&mut self, conn: &mut Connection<'_>, frame: RequestFrame) {
        match MessageId(frame.message_id) {
            MessageId::REGISTER => self.register(conn, frame),
            MessageId::LOGIN => self.log_in::<LoginRequest>(conn, frame),
            MessageId::RESUME => self.log_in::<ResumeRequest>(conn, frame),
            MessageId::LOGOUT => self.log_out(conn, frame),
            MessageId::HEARTBEAT => self.heartbeat(conn, frame),
            MessageId::DELIVERY_ACK => self.delivery_ack(conn, frame),
            MessageId::ADD_FRIEND => self.forward::<AddFriendRequest>(conn, frame),
            MessageId::DELETE_FRIEND => self.forward::<DeleteFriendRequest>(conn, frame),
            MessageId::CREATE_GROUP => self.forward::<CreateGroupRequest>(conn, frame),
            MessageId::DELETE_GROUP => self.forward::<DeleteGroupRequest>(conn, frame),
            MessageId::ADD_GROUP => self.forward::<AddGroupRequest>(conn, frame),
            MessageId::QUIT_GROUP => self.forward::<QuitGroupRequest>(conn, frame),
            MessageId::FRIEND_CHAT => self.forward_message::<FriendChatRequest>(conn, frame),
            MessageId::GROUP_CHAT => self.forward_message::<GroupChatRequest>(conn, frame),
            MessageId::FETCH_FRIENDS => self.forward::<FetchFriendsRequest>(conn, frame),
            MessageId::FETCH_GROUPS => self.forward::<FetchGroupsRequest>(conn, frame),
            MessageId::FETCH_GROUP_MEMBERS => {
                self.forward::<FetchGroupMembersRequest>(conn, frame);
            }
            MessageId::FETCH_HISTORY => self.forward::<FetchHistoryRequest>(conn, frame),
            MessageId(id) => {
                let text = format!("message id {id} is not a request");
                notice(conn, frame.request_id, code::UNKNOWN_MESSAGE, &text);
            }
        }
    }

    fn handle(&mut self, conn: &mut Connection<'_>, message: ToSession) {
        match message {
            ToSession::Answered(answered) => self.answered(conn, answered),
            ToSession::UserFound(found) => self.user_found(conn, *found),
            ToSession::LoginAnswered(answer) => self.login_answered(conn, *answer),
            ToSession::LogoutAnswered { session, released } => {
                self.logout_answered(conn, session, released);
            }
            ToSession::Push { session, arrival } => {
                if let State::LoggingIn(pending) = &mut self.state
                    && pending.session == session
                {
                    // Held until the login's answer: nothing comes out.
                    pending.delivery.handle_push(arrival, &mut Vec::new());
                } else {
                    self.deliver(conn, session, |delivery, out| {
                        delivery.handle_push(arrival, out)
                    });
                }
            }
            ToSession::Fetched { session, answer } => self.fetched(conn, session, answer),
            ToSession::Resync { session, permit } => self.resync(conn, session, permit),
            ToSession::SignOut { session, reason } => self.sign_out(conn, session, reason),
        }
    }

    fn answered(&mut self, conn: &mut Connection<'_>, answered: Answered) {
        conn.send(answered.frame);
        self.request_ended();
        if let Some(session) = answered.session {
            if let Some(own) = answered.own {
                self.deliver(conn, session, |delivery, out| {
                    delivery.handle_own(own.conversation, own.sequence, own.message, out);
                });
            }
            let room_at = self.shared.options.output_low_bytes;
            if let Some(active) = self.active(session) {
                if answered.is_large {
                    active.large_answered(conn, room_at);
                }
                if let Some(conversation) = answered.conversation {
                    active.call_next(conn, conversation, room_at);
                }
            }
        }
        if let (Some(session), true) = (answered.session, answered.displaced) {
            self.sign_out(conn, session, SignOut::NewerLogin);
        }
        self.when_idle(conn);
    }

    fn request_ended(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// What was put off until nothing is in flight.
    fn when_idle(&mut self, conn: &mut Connection<'_>) {
        if self.in_flight == 0 && self.finishing {
            self.leave();
            conn.close();
        } else {
            self.send_logout(conn);
        }
    }

    /// Changes what may be shown, and shows it.
    fn deliver(
        &mut self,
        conn: &mut Connection<'_>,
        session: SessionId,
        change: impl FnOnce(&mut Delivery, &mut Vec<Arrival>),
    ) {
        let gap_timeout = self.shared.options.gap_timeout;
        if let Some(active) = self.active(session) {
            let mut arrivals = Vec::new();
            change(&mut active.delivery, &mut arrivals);
            active.show(conn, arrivals);
            active.watch_gaps(conn, gap_timeout);
        }
    }

    /// The login of this id, if it is the present one.
    fn active(&mut self, session: SessionId) -> Option<&mut Active> {
        match &mut self.state {
            State::LoggedIn(active) | State::LoggingOut(active, _) if active.session == session => {
                Some(active)
            }
            _ => None,
        }
    }

    fn sign_out(&mut self, conn: &mut Connection<'_>, session: SessionId, reason: SignOut) {
        if let State::LoggingIn(pending) = &mut self.state
            && pending.session == session
        {
            pending.signed_out = Some(reason);
        }
        let Some(user) = self.active(session).map(|active| active.user) else {
            return;
        };
        // After a resume nobody reads it, as a rule: the client has given this connection up. But
        // two clients that share a token would sign each other out for ever without a word.
        let resumed = reason == SignOut::Resumed;
        let reason = match reason {
            SignOut::NewerLogin => "you have logged in somewhere else",
            SignOut::Resumed => "your session continues on another connection",
        };
        log::info!("session {}: user {user}: {reason}", session.0);
        let reason = reason.to_owned();
        conn.send(answer_frame(
            MessageId::SIGNED_OUT,
            0,
            &SignedOut { reason, resumed },
        ));
        self.leave();
        conn.close();
    }

    /// Finishes what is in flight, reads nothing more, and closes.
    fn finish(&mut self, conn: &mut Connection<'_>) {
        self.finishing = true;
        conn.pause_reading();
        self.when_idle(conn);
    }

    /// The connection is over: the user, if there is one, is logged out.
    fn leave(&mut self) {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Anonymous | State::Closed => {}
            // What becomes of the login is seen to when its answer comes.
            State::LoggingIn(pending) => {
                if let Some(user) = pending.user {
                    self.shared.directory.remove(user.get(), pending.session);
                }
            }
            State::LoggedIn(active) => {
                self.part_from(&active);
                self.shared.logouts.add(active.user, active.session);
            }
            // The client has asked for it: its token ends, too, whether or not the service has heard of it.
            State::LoggingOut(active, _) => {
                self.part_from(&active);
                let Active {
                    user,
                    session,
                    token,
                    ..
                } = *active;
                self.shared.logouts.add_final(user, session, token);
            }
        }
    }

    /// Nothing more is delivered to it.
    fn part_from(&mut self, active: &Active) {
        self.keep_pace(active);
        self.shared
            .directory
            .remove(active.user.get(), active.session);
    }
}

impl Handler for Session {
    fn opened(&mut self, conn: &mut Connection<'_>) {
        self.let_in(conn);
    }

    fn data(&mut self, conn: &mut Connection<'_>, input: &mut BytesMut) {
        self.heard_at = Instant::now();
        let waited = self.shared.pulse.stood_still();
        self.stood_still = !waited.is_zero();
        self.asked = self.heard_at.checked_sub(waited).unwrap_or(self.heard_at);
        let mut frames = 0;
        while conn.is_open() && !self.finishing {
            match frame::decode(input, self.frame_length_max(input)) {
                Ok(None) => {
                    self.watch_frame(conn, input.len(), frames > 0);
                    return self.hold(conn, input.len());
                }
                Ok(Some(frame)) => {
                    frames += 1;
                    self.receive(conn, frame);
                }
                Err(error) => {
                    log::info!("{}: {error}; closed", conn.peer_addr());
                    let code = match error {
                        FrameError::TooLarge { .. } => code::TOO_LARGE,
                        _ => code::INVALID,
                    };
                    notice(conn, 0, code, &error.to_string());
                    self.leave();
                    conn.close();
                }
            }
        }
        input.clear();
    }

    /// The client has nothing more to say; what it asked is still answered.
    fn eof(&mut self, conn: &mut Connection<'_>) {
        self.finish(conn);
    }

    fn draining(&mut self, conn: &mut Connection<'_>) {
        self.finish(conn);
    }

    fn woken(&mut self, conn: &mut Connection<'_>) {
        let mut messages = Vec::new();
        self.mailbox.take(&mut messages);
        for message in messages {
            self.handle(conn, message);
        }
        self.hold_output(conn);
    }

    fn timer(&mut self, conn: &mut Connection<'_>, token: u64) {
        match Timer::of(token) {
            Timer::Silence => self.silence_timer(conn),
            Timer::LogIn => self.login_timer(conn),
            Timer::Frame => self.frame_timer(conn),
            Timer::Gap(session) => self.fetch_timer(conn, session),
            Timer::Resync(session) => self.resync_timer(session),
        }
    }

    fn drained(&mut self, conn: &mut Connection<'_>) {
        // Also called when the output has merely fallen below the low mark.
        if conn.output_bytes() == 0 {
            self.written();
        }
        self.call_waiting(conn);
        self.send_logout(conn);
        self.hold_output(conn);
    }

    fn closed(&mut self, _context: &mut LoopContext<'_>, reason: CloseReason) {
        match reason {
            CloseReason::Peer | CloseReason::Local | CloseReason::LoopStopped => {}
            reason => log::debug!("a client's connection ended: {reason}"),
        }
        self.leave();
        for message in self.mailbox.close() {
            login::abandon(&self.shared, message);
        }
    }
}

type Refusal = (i32, &'static str);

const NOT_LOGGED_IN: Refusal = (code::NOT_LOGGED_IN, "log in first");
const NOT_YOURSELF: Refusal = (code::NOT_YOURSELF, "the request is for another user");
const UNREADABLE: Refusal = (code::INVALID, "the request is not readable");
/// The client has given it up, or has come back by another way: it must not harm what has begun since.
const TOO_LATE: Refusal = (Failure::TOO_LATE.code, Failure::TOO_LATE.text);
const TOO_MANY: Refusal = (code::RATE_LIMITED, "too many requests, slow down");

fn refuse<R: Request>(conn: &mut Connection<'_>, request_id: u64, code: i32, text: &str) {
    conn.send(answer_frame(
        R::ANSWER_ID,
        request_id,
        &R::refusal(code, text),
    ));
}

fn notice(conn: &mut Connection<'_>, request_id: u64, code: i32, text: &str) {
    let notice = ErrorNotice {
        error_code: code,
        error_text: text.to_owned(),
    };
    conn.send(answer_frame(MessageId::ERROR, request_id, &notice));
}
