//! The part of a session that finds out whom a login by name is for.
//!
//! Everything that a login begins is kept by the user's id, and has to be there before the service looks: what is
//! pushed meanwhile, and what is undone when the answer does not come. So the id is asked for first.

use std::fmt;
use std::sync::Arc;

use chat_proto::ids::{MessageId, code};
use chat_proto::messages::{FindUserRequest, FindUserResponse, LoginRequest, LoginResponse};
use nexus_net::Connection;
use nexus_rpc::RpcError;

use super::state::State;
use super::{Session, ToSession};
use crate::directory::SessionId;
use crate::requests::answer_frame;
use crate::services::Failure;

/// A login whose name was looked for.
pub(crate) struct Found {
    login: LoginRequest,
    session: SessionId,
    request_id: u64,
    result: Result<FindUserResponse, RpcError>,
}

impl Session {
    pub(super) fn find_user(&self, login: LoginRequest, session: SessionId, request_id: u64) {
        let request = FindUserRequest {
            user_name: login.user_name.clone(),
        };
        let (services, mailbox) = (&self.shared.services, Arc::clone(&self.mailbox));
        let mut options = services.own();
        options.idempotent = Some(true);
        let call = services.user.find_user_with(&request, options);
        call.on_complete(move |result| {
            let found = Found {
                login,
                session,
                request_id,
                result: result.map(|reply| reply.message),
            };
            // Refused if the connection has ended: nothing has begun yet.
            let _ = mailbox.send(ToSession::UserFound(Box::new(found)));
        });
    }

    /// Goes on with the login. One whose name nobody has is refused by the service, which counts it.
    pub(super) fn user_found(&mut self, conn: &mut Connection<'_>, found: Found) {
        let Found {
            mut login,
            session,
            request_id,
            result,
        } = found;
        match &self.state {
            State::LoggingIn(pending) if pending.session == session && conn.is_open() => {}
            _ => {
                self.request_ended();
                return self.when_idle(conn);
            }
        }
        let refused = match result {
            Ok(found) if found.error_code == code::SUCCESS => {
                login.user_id = found.user_id;
                return self.call_login(conn, &login, session, request_id);
            }
            Ok(found) => LoginResponse {
                error_code: found.error_code,
                error_text: found.error_text,
                ..Default::default()
            },
            Err(error) => {
                let failure = Failure::of(&error, "FindUserRequest", Some(session));
                LoginResponse {
                    error_code: failure.code,
                    error_text: failure.text.to_owned(),
                    ..Default::default()
                }
            }
        };
        self.request_ended();
        self.state = State::Anonymous;
        conn.send(answer_frame(MessageId::LOGIN_ANSWER, request_id, &refused));
        self.when_idle(conn);
    }
}

/// Without the password.
impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Found")
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}
