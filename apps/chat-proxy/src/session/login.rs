//! The part of a session that logs in and out: with the password, or, to go on after a lost connection,
//! with the token that the login's answer carried.
//!
//! The service makes the user online for the session before it answers. So a login whose answer finds
//! nobody, or whose fate is not known, is followed by a logout: a [`SessionId`] is used for one login
//! only, so that logout can never meet a later one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chat_proto::conversation::UserId;
use chat_proto::ids::{MessageId, code};
use chat_proto::messages::{
    ConversationAck, LoginReply, LoginRequest, LoginResponse, LogoutRequest, LogoutResponse,
    RequestFrame, ResumeRequest,
};
use nexus_net::Connection;
use nexus_rpc::{Call, CallOptions, RpcError};
use prost::Message as _;

use super::{
    Active, Fetching, LoggingIn, Logout, NOT_LOGGED_IN, NOT_YOURSELF, Refusal, Session, Shared,
    State, TOO_MANY, ToSession, UNREADABLE, fetching,
};
use crate::delivery::Delivery;
use crate::directory::SessionId;
use crate::lease::ToLease;
use crate::requests::{answer_frame, of_message};
use crate::services::{Failure, Services, may_have_run};

const TWICE: Refusal = (
    code::ALREADY_LOGGED_IN,
    "this connection has logged in already",
);

/// A login, or a resume, as the client asked for it.
struct Attempt {
    request_id: u64,
    answer_id: MessageId,
    user: Option<UserId>,
    acknowledges: bool,
    /// Of a resume.
    token: Bytes,
    received: Vec<ConversationAck>,
}

/// What came of a login.
#[derive(Debug)]
pub(crate) struct Answer {
    user: Option<UserId>,
    session: SessionId,
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
            Ok(_) => matches!(self.code(), None | Some(code::UNAVAILABLE | code::INTERNAL)),
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
    pub(super) fn log_in(&mut self, conn: &mut Connection<'_>, frame: RequestFrame) {
        let (id, answer_id) = (frame.request_id, MessageId::LOGIN_ANSWER);
        let Ok(request) = LoginRequest::decode(frame.content) else {
            return refuse_login(conn, answer_id, id, UNREADABLE);
        };
        let attempt = Attempt {
            request_id: id,
            answer_id,
            user: UserId::new(request.user_id),
            acknowledges: request.acknowledges,
            token: Bytes::new(),
            received: Vec::new(),
        };
        self.attempt(conn, attempt, |services, options| {
            services.user.login_with(&request, options)
        });
    }

    pub(super) fn resume(&mut self, conn: &mut Connection<'_>, frame: RequestFrame) {
        let (id, answer_id) = (frame.request_id, MessageId::RESUME_ANSWER);
        let Ok(request) = ResumeRequest::decode(frame.content) else {
            return refuse_login(conn, answer_id, id, UNREADABLE);
        };
        let attempt = Attempt {
            request_id: id,
            answer_id,
            user: UserId::new(request.user_id),
            acknowledges: request.acknowledges,
            // A copy: the field is a piece of the buffer that was read.
            token: Bytes::copy_from_slice(&request.session_token),
            received: request.received.clone(),
        };
        self.attempt(conn, attempt, |services, options| {
            services.user.resume_with(&request, options)
        });
    }

    fn attempt(
        &mut self,
        conn: &mut Connection<'_>,
        attempt: Attempt,
        call: impl FnOnce(&Services, CallOptions) -> Call<LoginReply>,
    ) {
        let (request_id, id, user) = (attempt.request_id, attempt.answer_id, attempt.user);
        if !matches!(self.state, State::Anonymous) {
            return refuse_login(conn, id, request_id, TWICE);
        }
        if !self.takes_one_more() {
            return refuse_login(conn, id, request_id, TOO_MANY);
        }
        self.in_flight += 1;
        let session = self.shared.next_session();
        if let Some(user) = user {
            // Before the call: a message may be pushed as soon as the service has looked.
            self.shared
                .directory
                .insert(user.get(), session, &self.mailbox);
        }
        self.state = State::LoggingIn(Box::new(LoggingIn {
            user,
            session,
            acknowledges: attempt.acknowledges,
            token: attempt.token,
            received: attempt.received,
            delivery: Delivery::new(self.shared.options.held()),
            signed_out: None,
        }));
        let (shared, mailbox) = (Arc::clone(&self.shared), Arc::clone(&self.mailbox));
        let options = shared.services.login(session, self.guard.address());
        let call = call(&shared.services, options);
        call.on_complete(move |result| {
            let result = result.map(|reply| reply.message);
            let answer = Answer {
                user,
                session,
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
                conn.send(answer_frame(id, request_id, &refused(answer)));
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
        self.shared.directory.confirm(user.get(), session);
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
            options: self.shared.services.session(user.get(), session),
            acknowledges,
            token: match token.is_empty() {
                true => Bytes::copy_from_slice(&response.session_token),
                false => token,
            },
            delivery,
            unacknowledged: BTreeMap::new(),
            queues: HashMap::new(),
            fetching: Fetching::default(),
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

    pub(super) fn log_out(&mut self, conn: &mut Connection<'_>, frame: RequestFrame) {
        let request_id = frame.request_id;
        let active = match std::mem::replace(&mut self.state, State::Anonymous) {
            State::LoggedIn(active) => active,
            other => {
                self.state = other;
                return refuse_logout(conn, request_id, NOT_LOGGED_IN);
            }
        };
        let refused = match LogoutRequest::decode(frame.content) {
            Err(_) => UNREADABLE,
            Ok(request) if request.user_id != active.user.get() => NOT_YOURSELF,
            Ok(_) => {
                let logout = Logout {
                    request_id,
                    sent: false,
                };
                self.shared
                    .directory
                    .remove(active.user.get(), active.session);
                self.state = State::LoggingOut(active, logout);
                return self.send_logout();
            }
        };
        self.state = State::LoggedIn(active);
        refuse_logout(conn, request_id, refused);
    }

    /// Calls the service, once the requests made before the logout were answered.
    pub(super) fn send_logout(&mut self) {
        let State::LoggingOut(active, logout) = &mut self.state else {
            return;
        };
        if self.in_flight > 0 || logout.sent {
            return;
        }
        logout.sent = true;
        self.in_flight += 1;
        let session = active.session;
        let mailbox = Arc::clone(&self.mailbox);
        let request = LogoutRequest {
            user_id: active.user.get(),
            session_token: active.token.clone(),
        };
        let call = self
            .shared
            .services
            .user
            .logout_with(&request, active.options.clone());
        call.on_complete(move |result| {
            let released = match result {
                Ok(reply) => reply.message.error_code == code::SUCCESS,
                Err(error) => {
                    Failure::of(&error, "LogoutRequest", Some(session));
                    false
                }
            };
            // If the connection has ended it was logged out for that.
            let _ = mailbox.send(ToSession::LogoutAnswered { session, released });
        });
    }

    /// Whatever the service has said, the connection is logged out, and the client is told so; what the
    /// service could not do is done later.
    pub(super) fn logout_answered(
        &mut self,
        conn: &mut Connection<'_>,
        session: SessionId,
        released: bool,
    ) {
        self.request_ended();
        match std::mem::replace(&mut self.state, State::Anonymous) {
            State::LoggingOut(active, logout) if active.session == session => {
                self.keep_pace(&active);
                self.expect_login(conn);
                if !released {
                    let (user, token) = (active.user, active.token);
                    self.shared.logouts.add_final(user, session, token);
                }
                let answer = LogoutResponse {
                    error_code: code::SUCCESS,
                    ..Default::default()
                };
                conn.send(answer_frame(
                    MessageId::LOGOUT_ANSWER,
                    logout.request_id,
                    &answer,
                ));
            }
            other => self.state = other,
        }
        self.when_idle(conn);
    }
}

/// The answer to a login that failed.
fn refused(answer: Answer) -> LoginResponse {
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
            let failure = Failure::of(&error, "LoginRequest", Some(answer.session));
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

fn refuse_logout(conn: &mut Connection<'_>, request_id: u64, (code, text): Refusal) {
    let response = LogoutResponse {
        error_code: code,
        error_text: text.to_owned(),
    };
    conn.send(answer_frame(
        MessageId::LOGOUT_ANSWER,
        request_id,
        &response,
    ));
}
