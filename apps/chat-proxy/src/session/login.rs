//! The part of a session that logs in: with the password, or, to go on after a lost connection, with the
//! token that the login's answer carried.
//!
//! The service makes the user online for the session before it answers. So a login whose answer finds
//! nobody, or whose fate is not known, is followed by a logout: a [`SessionId`] is used for one login
//! only, so that logout can never meet a later one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chat_proto::conversation::UserId;
use chat_proto::ids::{MessageId, code};
use chat_proto::messages::{
    ConversationAck, LoginReply, LoginRequest, LoginResponse, RequestFrame, ResumeRequest,
};
use nexus_net::Connection;
use nexus_rpc::{Call, CallOptions, RpcError};
use prost::Message;

use super::fetching::{self, Fetching};
use super::large::LargeAnswers;
use super::state::{Active, LoggingIn, State};
use super::unauthenticated::TOO_MANY_UNAUTHENTICATED;
use super::{Refusal, Session, Shared, TOO_LATE, TOO_MANY, ToSession, UNREADABLE};
use crate::delivery::Delivery;
use crate::directory::SessionId;
use crate::lease::ToLease;
use crate::requests::{answer_frame, of_message};
use crate::services::{Services, may_have_run};

const TWICE: Refusal = (
    code::ALREADY_LOGGED_IN,
    "this connection has logged in already",
);

/// A request that opens a session: with the password, or with the token of an earlier login.
pub(super) trait Opening: Message + Default {
    /// The message id of the answer.
    const ANSWER_ID: MessageId;

    /// Whose session it is to be.
    fn user_id(&self) -> i32;

    /// This login, if it names its user by name.
    ///
    /// # Errors
    /// This request: it has the user's id.
    fn by_name(self) -> Result<LoginRequest, Self> {
        Err(self)
    }

    /// Whether the client acknowledges what it receives.
    fn acknowledges(&self) -> bool;

    /// What the client has from before, and resumes with: the token, and messages.
    fn before(&self) -> (Bytes, Vec<ConversationAck>);

    /// Calls the service.
    fn call(&self, services: &Services, options: CallOptions) -> Call<LoginReply>;
}

impl Opening for LoginRequest {
    const ANSWER_ID: MessageId = MessageId::LOGIN_ANSWER;

    fn user_id(&self) -> i32 {
        self.user_id
    }

    fn by_name(self) -> Result<LoginRequest, Self> {
        match self.user_id == 0 && !self.user_name.is_empty() {
            true => Ok(self),
            false => Err(self),
        }
    }

    fn acknowledges(&self) -> bool {
        self.acknowledges
    }

    fn before(&self) -> (Bytes, Vec<ConversationAck>) {
        Default::default()
    }

    fn call(&self, services: &Services, options: CallOptions) -> Call<LoginReply> {
        services.user.login_with(self, options)
    }
}

impl Opening for ResumeRequest {
    const ANSWER_ID: MessageId = MessageId::RESUME_ANSWER;

    fn user_id(&self) -> i32 {
        self.user_id
    }

    fn acknowledges(&self) -> bool {
        self.acknowledges
    }

    fn before(&self) -> (Bytes, Vec<ConversationAck>) {
        // A copy: the field is a piece of the buffer that was read.
        let token = Bytes::copy_from_slice(&self.session_token);
        (token, self.received.clone())
    }

    fn call(&self, services: &Services, options: CallOptions) -> Call<LoginReply> {
        services.user.resume_with(self, options)
    }
}

/// What came of a login.
#[derive(Debug)]
pub(crate) struct Answer {
    user: Option<UserId>,
    session: SessionId,
    called: Instant,
    request_id: u64,
    id: MessageId,
    result: Result<LoginReply, RpcError>,
}

impl Answer {
    /// The code of an answer; `None` if there is none.
    fn code(&self) -> Option<i32> {
        let response = self.result.as_ref().ok()?.response.as_ref()?;
        Some(response.error_code)
    }

    fn succeeded(&self) -> bool {
        self.code() == Some(code::SUCCESS)
    }

    /// Whether the service failed at a point that may lie after it made the user online.
    fn is_doubtful(&self) -> bool {
        match &self.result {
            Ok(reply) if reply.not_begun => false,
            // SESSION_ENDED: perhaps the second look at the token, after the claim.
            Ok(_) => matches!(
                self.code(),
                None | Some(code::UNAVAILABLE | code::INTERNAL | code::SESSION_ENDED)
            ),
            Err(error) => may_have_run(error.code()),
        }
    }
}

/// A message that finds its session gone: what it left behind is cleared away.
pub(super) fn abandon(shared: &Shared, message: ToSession) {
    if let ToSession::LoginAnswered(answer) = message {
        undo(shared, &answer);
    }
}

/// Ends the presence that a login has, or may have, begun.
fn undo(shared: &Shared, answer: &Answer) {
    let Some(user) = answer.user else {
        return;
    };
    if answer.succeeded() {
        shared.logouts.add(user, answer.session);
    } else if answer.is_doubtful() {
        // Without an answer it may be carried out yet; not later than its deadline.
        let delay = match answer.result {
            Ok(_) => Duration::ZERO,
            Err(_) => shared.options.request_timeout,
        };
        shared.logouts.add_doubtful(delay, user, answer.session);
    }
}

impl Session {
    pub(super) fn log_in<R: Opening>(&mut self, conn: &mut Connection<'_>, frame: RequestFrame) {
        let (request_id, id) = (frame.request_id, R::ANSWER_ID);
        if !matches!(self.state, State::Anonymous) {
            let refusal = match self.takes_one_more() {
                true => TWICE,
                false => TOO_MANY,
            };
            return refuse_login(conn, id, request_id, refusal);
        }
        if let Err(refusal) = self.take_login() {
            return refuse_login(conn, id, request_id, refusal);
        }
        let content_bytes = frame.content.len();
        let Ok(request) = R::decode(frame.content) else {
            return refuse_login(conn, id, request_id, UNREADABLE);
        };
        let (token, received) = request.before();
        let decoded_bytes = received.len().saturating_mul(size_of::<ConversationAck>());
        // Once here, and once in the request.
        let login_bytes = decoded_bytes
            .saturating_mul(2)
            .saturating_add(content_bytes);
        if !self.hold_login(conn, login_bytes) {
            return refuse_login(conn, id, request_id, TOO_MANY_UNAUTHENTICATED);
        }
        self.in_flight += 1;
        let session = self.shared.next_session();
        self.state = State::LoggingIn(Box::new(LoggingIn {
            user: None,
            session,
            asked: self.asked,
            acknowledges: request.acknowledges(),
            token,
            received,
            delivery: Delivery::new(self.shared.options.held()),
            signed_out: None,
        }));
        match request.by_name() {
            Ok(login) => self.find_user(login, session, request_id),
            Err(request) => self.call_login(conn, &request, session, request_id),
        }
    }

    /// Calls the service for the login that is under way.
    pub(super) fn call_login<R: Opening>(
        &mut self,
        conn: &mut Connection<'_>,
        request: &R,
        session: SessionId,
        request_id: u64,
    ) {
        let (user, id) = (UserId::new(request.user_id()), R::ANSWER_ID);
        let State::LoggingIn(pending) = &mut self.state else {
            return;
        };
        let services = Arc::clone(&self.shared.services);
        let options = services.login(session, self.guard.address());
        let Some(options) = services.in_time(options, pending.asked) else {
            self.request_ended();
            self.state = State::Anonymous;
            refuse_login(conn, id, request_id, TOO_LATE);
            return self.when_idle(conn);
        };
        if let Some(user) = user {
            pending.user = Some(user);
            // Before the call: a message may be pushed as soon as the service has looked.
            self.shared
                .directory
                .insert(user.get(), session, &self.mailbox);
        }
        let (shared, mailbox) = (Arc::clone(&self.shared), Arc::clone(&self.mailbox));
        let called = Instant::now();
        let call = request.call(&services, options);
        call.on_complete(move |result| {
            let result = result.map(|reply| reply.message);
            let answer = Answer {
                user,
                session,
                called,
                request_id,
                id,
                result,
            };
            let message = ToSession::LoginAnswered(Box::new(answer));
            if let Err(message) = mailbox.send(message) {
                abandon(&shared, message);
            }
        });
    }

    pub(super) fn login_answered(&mut self, conn: &mut Connection<'_>, answer: Answer) {
        self.request_ended();
        let pending = match std::mem::replace(&mut self.state, State::Anonymous) {
            State::LoggingIn(pending) if pending.session == answer.session => pending,
            other => {
                self.state = other;
                return undo(&self.shared, &answer);
            }
        };
        match pending.user {
            Some(user) if answer.succeeded() && conn.is_open() => {
                if let Ok(reply) = answer.result {
                    self.begin(conn, *pending, user, reply, (answer.id, answer.request_id));
                }
            }
            _ => {
                undo(&self.shared, &answer);
                if let Some(user) = pending.user {
                    self.shared.directory.remove(user.get(), pending.session);
                }
                let (id, request_id) = (answer.id, answer.request_id);
                let refused = refused(&self.shared.services, answer);
                conn.send(answer_frame(id, request_id, &refused));
            }
        }
        self.when_idle(conn);
    }

    /// The login succeeded: answers it, then shows what was pushed meanwhile.
    fn begin(
        &mut self,
        conn: &mut Connection<'_>,
        pending: LoggingIn,
        user: UserId,
        reply: LoginReply,
        (id, request_id): (MessageId, u64),
    ) {
        let LoggingIn {
            session,
            acknowledges,
            token,
            received,
            delivery,
            signed_out,
            ..
        } = pending;
        let response = reply.response.unwrap_or_default();
        conn.send(answer_frame(id, request_id, &response));
        let login = reply.login_number;
        self.shared.directory.confirm(user.get(), session, login);
        let (number, peer) = (session.0, conn.peer_addr());
        log::debug!("session {number}: user {user} has logged in from {peer}");
        if reply.unclaimed {
            // Refused once the keeper has ended.
            let unclaimed = ToLease::Unclaimed {
                user: user.get(),
                session,
            };
            let _ = self.shared.lease.send(unclaimed);
        }
        let mut active = Box::new(Active {
            user,
            session,
            options: self.shared.services.session(user.get(), session, login),
            acknowledges,
            token: match token.is_empty() {
                true => Bytes::copy_from_slice(&response.session_token),
                false => token,
            },
            delivery,
            unacknowledged: BTreeMap::new(),
            queues: HashMap::new(),
            fetching: Fetching::default(),
            large: LargeAnswers::default(),
            messages: self.shared.paces.take(user),
        });
        self.stop_expecting_login(conn);
        let pending = response.offline_message_list.unwrap_or_default().messages;
        for message in &pending {
            if let Some(conversation) = of_message(user, message) {
                active.acknowledge_when_written(conversation, message.sequence);
            }
        }
        if !pending.is_empty() {
            // There may be more than the answer had room for.
            active.delivery.resync();
            active.fetching.go_on_when_written(conn);
        }
        let interval = self.shared.options.resync_interval;
        active.resync_after(conn, fetching::first_resync(session, interval));
        self.state = State::LoggedIn(active);
        if acknowledges {
            self.expect_heartbeats(conn);
        }
        self.deliver(conn, session, |delivery, out| {
            delivery.handle_login(&reply.marks, out)
        });
        // What the client has, and whose acknowledgement may have been lost.
        self.acknowledge(&received);
        if let Some(reason) = signed_out {
            self.sign_out(conn, session, reason);
        }
    }
}

/// The answer to a login that failed.
fn refused(services: &Services, answer: Answer) -> LoginResponse {
    let failed = |code, text: &str| LoginResponse {
        error_code: code,
        error_text: text.to_owned(),
        ..Default::default()
    };
    match answer.result {
        Ok(LoginReply {
            response: Some(response),
            ..
        }) if response.error_code != code::SUCCESS => response,
        Ok(_) => {
            log::error!(
                "session {}: the login was answered with nothing",
                answer.session.0
            );
            failed(code::INTERNAL, "the service failed")
        }
        Err(error) => {
            let session = Some(answer.session);
            let failure = services.failure(&error, "LoginRequest", session, answer.called);
            failed(failure.code, failure.text)
        }
    }
}

fn refuse_login(conn: &mut Connection<'_>, id: MessageId, request_id: u64, (code, text): Refusal) {
    let response = LoginResponse {
        error_code: code,
        error_text: text.to_owned(),
        ..Default::default()
    };
    conn.send(answer_frame(id, request_id, &response));
}
