//! The part of a session that logs out because the client asks for it.

use std::sync::Arc;

use chat_proto::ids::{MessageId, code};
use chat_proto::messages::{LogoutRequest, LogoutResponse, RequestFrame};
use nexus_net::Connection;
use prost::Message as _;

use super::state::{Logout, State};
use super::{NOT_LOGGED_IN, NOT_YOURSELF, Refusal, Session, ToSession, UNREADABLE};
use crate::directory::SessionId;
use crate::requests::answer_frame;

impl Session {
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
                return self.send_logout(conn);
            }
        };
        self.state = State::LoggedIn(active);
        refuse_logout(conn, request_id, refused);
    }

    /// Calls the service, once the requests made before the logout were answered and the client has taken the answers: one
    /// who has not logged in may not let as much wait.
    pub(super) fn send_logout(&mut self, conn: &mut Connection<'_>) {
        let State::LoggingOut(active, logout) = &mut self.state else {
            return;
        };
        if self.in_flight > 0 || logout.sent {
            return;
        }
        if conn.output_bytes() > 0 {
            return conn.notify_drained();
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
                    log::debug!("session {}: LogoutRequest: {error}", session.0);
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
