//! `UserServiceRpc`: register, log in and out, what is pending, history.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use chat_bus::{
    Attempt, BusError, Claim, ClaimOrder, LoginNumber, LoginPolicy, NO_NUMBER, SessionRef,
    over_fact,
};
use chat_proto::ids::code;
use chat_proto::messages::{
    AcknowledgeRequest, AcknowledgeResponse, FetchHistoryRequest, FetchHistoryResponse,
    FetchPendingRequest, FetchPendingResponse, FindUserRequest, FindUserResponse, LoginReply,
    LoginRequest, LoginResponse, LogoutRequest, LogoutResponse, OfflineMessageList,
    RegisterRequest, RegisterResponse, ResumeRequest, User, UserServiceRpc,
};
use chat_store::{
    Ack, ConversationId, Mark, Overview, PageLimit, PendingPage, PendingScope, SessionToken,
    TokenHash, UserId,
};
use nexus_rpc::{CallContext, RpcError};

use crate::caller::Caller;
use crate::clocks::Asked;
use crate::convert::{self, Online};
use crate::publisher::End;
use crate::token::Token;
use crate::{
    Services, caller,
    failure::{self, Failure},
    pages,
};

/// Expired tokens that one login clears away. Each login adds one at most, so they do not pile up.
const EXPIRED_PER_LOGIN: usize = 16;

impl UserServiceRpc for Services {
    fn register(
        &self,
        call: &CallContext,
        request: RegisterRequest,
    ) -> Result<RegisterResponse, RpcError> {
        let asked = self.clocks.asked(call)?;
        let registered = self.try_register(caller::address(call)?, asked, &request);
        Ok(match registered {
            Ok(user) => RegisterResponse {
                error_code: code::SUCCESS,
                user_id: user.get(),
                ..Default::default()
            },
            Err(failure) => {
                let reason = failure.reason();
                let (error_code, error_text) = failure.into_parts("register");
                RegisterResponse {
                    error_code,
                    error_text,
                    reason,
                    ..Default::default()
                }
            }
        })
    }

    fn find_user(
        &self,
        _call: &CallContext,
        request: FindUserRequest,
    ) -> Result<FindUserResponse, RpcError> {
        Ok(match self.user_named(&request.user_name) {
            Ok(user) => FindUserResponse {
                error_code: code::SUCCESS,
                user_id: user.map_or(0, UserId::get),
                ..Default::default()
            },
            Err(failure) => {
                let (error_code, error_text) = failure.into_parts("find user");
                FindUserResponse {
                    error_code,
                    error_text,
                    ..Default::default()
                }
            }
        })
    }

    fn login(&self, call: &CallContext, request: LoginRequest) -> Result<LoginReply, RpcError> {
        let asked = self.clocks.asked(call)?;
        let (session, address) = (caller::session(call)?, caller::address(call)?);
        let user = match self.authenticate(address, &request) {
            Ok(user) => user,
            Err(failure) => return Ok(not_begun(failure, "login")),
        };
        let reply = self.try_login(session, asked, &user, &request);
        Ok(reply.unwrap_or_else(|failure| not_logged_in(failure, "login")))
    }

    fn resume(&self, call: &CallContext, request: ResumeRequest) -> Result<LoginReply, RpcError> {
        let asked = self.clocks.asked(call)?;
        let (session, address) = (caller::session(call)?, caller::address(call)?);
        let (owner, token) = match self.recognise(address, &request) {
            Ok(holder) => holder,
            Err(failure) => return Ok(not_begun(failure, "resume")),
        };
        let reply = self.try_resume(session, asked, &owner.user, &token, &request);
        Ok(reply.unwrap_or_else(|failure| not_logged_in(failure, "resume")))
    }

    fn logout(
        &self,
        call: &CallContext,
        request: LogoutRequest,
    ) -> Result<LogoutResponse, RpcError> {
        let user = caller::user(call)?;
        let session = caller::session(call)?;
        Ok(
            match self.try_logout(user, session, &request.session_token) {
                Ok(()) => LogoutResponse {
                    error_code: code::SUCCESS,
                    ..Default::default()
                },
                Err(failure) => {
                    let (error_code, error_text) = failure.into_parts("logout");
                    LogoutResponse {
                        error_code,
                        error_text,
                    }
                }
            },
        )
    }

    fn acknowledge(
        &self,
        _call: &CallContext,
        request: AcknowledgeRequest,
    ) -> Result<AcknowledgeResponse, RpcError> {
        let acks = request.acks.iter().filter_map(|ack| {
            Some(Ack {
                user: UserId::new(ack.user_id)?,
                conversation: ConversationId::from_raw(ack.conversation_id)?,
                sequence: ack.sequence,
            })
        });
        let error_code = match self.writer.acknowledge(acks) {
            0 => code::SUCCESS,
            _ => code::UNAVAILABLE,
        };
        Ok(AcknowledgeResponse { error_code })
    }

    fn fetch_pending(
        &self,
        call: &CallContext,
        request: FetchPendingRequest,
    ) -> Result<FetchPendingResponse, RpcError> {
        let caller = caller::caller(call, &self.clocks)?;
        let user = caller.user;
        Ok(match self.try_fetch_pending(caller, &request) {
            Ok(page) => FetchPendingResponse {
                error_code: code::SUCCESS,
                pushes: page
                    .messages
                    .iter()
                    .map(|message| convert::push(message, vec![user.get()]))
                    .collect(),
                marks: convert::marks(&page.marks),
                more: page.more,
            },
            Err(failure) => {
                let (error_code, _) = failure.into_parts("fetch pending");
                FetchPendingResponse {
                    error_code,
                    ..Default::default()
                }
            }
        })
    }

    fn fetch_history(
        &self,
        call: &CallContext,
        request: FetchHistoryRequest,
    ) -> Result<FetchHistoryResponse, RpcError> {
        let caller = caller::caller(call, &self.clocks)?;
        Ok(self
            .try_fetch_history(caller, &request)
            .unwrap_or_else(|failure| {
                let (error_code, error_text) = failure.into_parts("fetch history");
                FetchHistoryResponse {
                    error_code,
                    error_text,
                    ..Default::default()
                }
            }))
    }
}

impl Services {
    fn try_login(
        &self,
        session: SessionRef,
        asked: Asked,
        user: &chat_store::User,
        request: &LoginRequest,
    ) -> Result<LoginReply, Failure> {
        self.check_up_to_date(user.id, session, asked)?;
        // Before the claim: a resume looks at its token once more when it has claimed. So either it finds the
        // token gone, or the claim below comes after its own and ends it. But a login that may be refused
        // must not end a token.
        let (number, begun) = match self.login_policy {
            LoginPolicy::NewerWins => {
                let begun = self.begin_login(user.id, asked, request)?;
                (begun.number, Some(begun))
            }
            // A number all the same: a resume with the token of before must not come after this. But it is not drawn
            // for a login that is refused: the session that stays is then of an older one, and could do nothing more.
            LoginPolicy::OlderWins if self.is_online(user.id) => return Err(already_online()),
            LoginPolicy::OlderWins => (self.renew_login(user.id, asked, user.last_login)?, None),
        };
        let claim = Claiming {
            user: user.id,
            session,
            asked,
            attempt: Attempt::default(),
        };
        let claimed = self.claim(claim, number, self.login_policy, End::NewerLogin);
        if begun.is_none()
            && claimed
                .as_ref()
                .is_err_and(|failure| failure.is(code::LOGIN_ALREADY_ONLINE))
        {
            self.store.withdraw_login(user.id, number)?;
        }
        let claimed = claimed?;
        let begun = match begun {
            Some(begun) => Ok(begun),
            None => self.begin_login(user.id, asked, request),
        };
        let reply = begun.and_then(|begun| {
            let mut reply = self.login_answer(user, &[])?;
            reply.unclaimed = claimed.is_none();
            reply.login_number = claimed.map_or(begun.number, |number| number.max(begun.number));
            if let (Some(token), Some(response)) = (begun.token, &mut reply.response) {
                response.session_token = token.to_bytes();
            }
            Ok(reply)
        });
        self.or_release(user.id, session, reply)
    }

    /// Goes on with a session whose connection was lost. The token is the same as before, and lasts
    /// for the full time again.
    fn try_resume(
        &self,
        session: SessionRef,
        asked: Asked,
        user: &chat_store::User,
        token: &TokenHash,
        request: &ResumeRequest,
    ) -> Result<LoginReply, Failure> {
        let policy = LoginPolicy::NewerWins;
        let number = match user.last_login {
            // From before there were numbers. Without one the bus could not put it before or after others.
            NO_NUMBER => self.renew_login(user.id, asked, NO_NUMBER)?,
            number => number,
        };
        let claim = Claiming {
            user: user.id,
            session,
            asked,
            attempt: Attempt {
                run: request.client_run,
                number: request.attempt,
            },
        };
        // Whatever the policy: the connection that is still there is that of the same session.
        let claimed = self.claim(claim, number, policy, End::Resumed)?;
        let login_number = match claimed {
            Some(number) => number,
            // The proxy brings it to the bus later, and a connection from before as well: this is the newer one.
            None => self.renew_login(user.id, asked, number)?,
        };
        // Once more: a login with the password may have come between.
        let reply = self.token_owner(user.id, token).and_then(|owner| {
            self.extend_token(user.id, token, owner.expires_at_ms)?;
            let received = convert::received(user.id, &request.received);
            let reply = self.login_answer(&owner.user, &received)?;
            Ok(LoginReply {
                unclaimed: claimed.is_none(),
                login_number,
                ..reply
            })
        });
        self.or_release(user.id, session, reply)
    }

    /// Makes the user online in `session`. From here on pushes reach that, which holds them until it
    /// has the answer; so nothing falls between the reading of what is pending and the first push.
    ///
    /// Returns the number that the login has now. `None` while the bus is away. Who is online is not known then, and
    /// so neither whether the user is. The proxy restores the session when the bus is back, and fetches until then.
    fn claim(
        &self,
        claiming: Claiming,
        mut number: LoginNumber,
        policy: LoginPolicy,
        end: End,
    ) -> Result<Option<LoginNumber>, Failure> {
        let Claiming {
            user,
            session,
            asked,
            attempt,
        } = claiming;
        let claim = |login| {
            let order = ClaimOrder {
                login,
                attempt,
                waited: asked.waited(),
            };
            self.bus.claim(user.get(), session, order, policy)
        };
        let mut claimed = claim(number);
        if let Ok(Claim::Outdated { latest }) = claimed {
            let last = self.store.user(user)?.map_or(0, |user| user.last_login);
            if last <= number {
                // The database has lost the later logins: numbers go on where they were.
                number = self.renew_login(user, asked, latest)?;
                claimed = claim(number);
            }
        }
        match claimed {
            Ok(Claim::Granted { replaced }) => {
                for replaced in replaced {
                    self.publisher.end_session(user, replaced, end);
                }
                Ok(Some(number))
            }
            Ok(Claim::Refused) => Err(already_online()),
            Ok(Claim::Outdated { .. }) => Err(Failure::new(
                code::UNAVAILABLE,
                "a later login was quicker, try again",
            )),
            Ok(Claim::Over) => Err(given_up()),
            Err(error @ BusError::Unavailable { .. }) => {
                failure::note_bus(&error);
                match asked.waited_on_the_way.is_zero() {
                    true => Ok(None),
                    // Nobody knows whether a later one has been quicker.
                    false => Err(given_up()),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Before a login changes anything: it has not been given up, nor has the user come by another way since it was asked
    /// for. While the bus is away nobody knows; then only one that has not waited on its way goes on.
    fn check_up_to_date(
        &self,
        user: UserId,
        session: SessionRef,
        asked: Asked,
    ) -> Result<(), Failure> {
        let waited = asked.waited();
        let overtaken = match waited.is_zero() {
            true => false,
            false => self
                .bus
                .claimed_since(user.get(), waited)
                .inspect_err(failure::note_bus)
                .unwrap_or(!asked.waited_on_the_way.is_zero()),
        };
        let is_over = || self.bus.remembers(&over_fact(session)).unwrap_or(false);
        match overtaken || is_over() {
            true => Err(given_up()),
            false => Ok(()),
        }
    }

    /// While the bus is away nobody is.
    fn is_online(&self, user: UserId) -> bool {
        let places = self.bus.locate(&[user.get()]);
        places.is_ok_and(|places| places.iter().any(Option::is_some))
    }

    fn renew_login(
        &self,
        user: UserId,
        asked: Asked,
        beyond: LoginNumber,
    ) -> Result<LoginNumber, Failure> {
        Ok(self.store.on(asked.terms()).renew_login(user, beyond)?)
    }

    /// Takes the presence back when the login that it was for has failed.
    fn or_release<T>(
        &self,
        user: UserId,
        session: SessionRef,
        result: Result<T, Failure>,
    ) -> Result<T, Failure> {
        result.inspect_err(|_| {
            if let Err(error) = self.bus.release(user.get(), session) {
                log::warn!("user {user}: presence is left to expire: {error}");
            }
        })
    }

    /// A login with the password ends what was before, so also the token of that.
    fn begin_login(
        &self,
        user: UserId,
        asked: Asked,
        request: &LoginRequest,
    ) -> Result<Begun, Failure> {
        let now = now_ms();
        let token = match request.wants_session_token {
            true => Some(Token::random().map_err(Failure::internal)?),
            false => None,
        };
        let stored = token.as_ref().map(|token| SessionToken {
            hash: token.hash(),
            expires_at_ms: self.expiry_ms(now),
        });
        let store = self.store.on(asked.terms());
        let number = store.begin_login(user, stored.as_ref())?;
        if let Err(error) = self.store.delete_expired_tokens(now, EXPIRED_PER_LOGIN) {
            log::warn!("expired session tokens are left for later: {error}");
        }
        Ok(Begun { number, token })
    }

    /// Not written at every resume, but when a sixteenth of the time has passed.
    fn extend_token(
        &self,
        user: UserId,
        token: &TokenHash,
        expires_at_ms: i64,
    ) -> Result<(), Failure> {
        let now_ms = now_ms();
        let expiry_ms = self.expiry_ms(now_ms);
        let used_ms = expiry_ms.saturating_sub(expires_at_ms);
        if used_ms > expiry_ms.saturating_sub(now_ms) / 16 {
            self.store.extend_token(user, token, expiry_ms)?;
        }
        Ok(())
    }

    fn expiry_ms(&self, now_ms: i64) -> i64 {
        let ttl_ms = i64::try_from(self.session_ttl.as_millis()).unwrap_or(i64::MAX);
        now_ms.saturating_add(ttl_ms)
    }

    /// What a client needs to begin with. `received` says what it has beyond its acknowledgements.
    fn login_answer(
        &self,
        user: &chat_store::User,
        received: &[Mark],
    ) -> Result<LoginReply, Failure> {
        let Overview {
            pending: page,
            friends,
            groups,
        } = self.store.overview(
            user.id,
            received,
            self.pending_page,
            pages::login_list_bytes_max(self.pending_page),
        )?;
        let members = groups.items.iter().flat_map(|group| &group.members);
        let friends_ids = friends.items.iter().map(|friend| friend.id);
        let everybody = friends_ids.chain(members.map(|member| member.id));
        let online = Online::of(&*self.bus, everybody);
        let response = LoginResponse {
            error_code: code::SUCCESS,
            user: Some(User {
                user_id: user.id.get(),
                user_name: user.name.clone().into(),
                user_state: Bytes::from_static(b"online"),
                user_password: Bytes::new(),
                last_offline_time: user.last_offline_at_ms.map_or_else(String::new, utc_text),
            }),
            friend_list: Some(convert::friend_list(friends.items, &online)),
            group_list: Some(convert::group_list(groups.items, &online)),
            offline_message_list: Some(OfflineMessageList {
                messages: page.messages.into_iter().map(convert::message).collect(),
            }),
            more_friends: friends.more,
            more_groups: groups.more,
            ..Default::default()
        };
        Ok(LoginReply {
            response: Some(response),
            marks: convert::marks(&page.marks),
            ..Default::default()
        })
    }

    /// A connection that closed comes without a token: its session may be resumed.
    fn try_logout(&self, user: UserId, session: SessionRef, token: &Bytes) -> Result<(), Failure> {
        let token = Token::read(token);
        // A session that was replaced must not end the presence of the other, nor, when that goes on with the same
        // token, what that will come back with. While the bus is away nobody knows.
        let released = self.bus.release(user.get(), session);
        let is_replaced = matches!(released, Ok(false)) && self.is_online(user);
        if let Some(token) = token.filter(|_| !is_replaced) {
            self.store.end_token(user, &token.hash())?;
        }
        if released? {
            self.store.set_last_offline(user, now_ms())?;
        }
        Ok(())
    }

    fn try_fetch_pending(
        &self,
        Caller { user, terms }: Caller,
        request: &FetchPendingRequest,
    ) -> Result<PendingPage, Failure> {
        let after: Vec<Mark> = request
            .after
            .iter()
            .filter_map(|mark| {
                let conversation = ConversationId::from_raw(mark.conversation_id)?;
                Some(Mark {
                    conversation,
                    sequence: mark.sequence,
                })
            })
            .collect();
        let scope = match request.all_conversations {
            true => PendingScope::All,
            false => PendingScope::Named,
        };
        let store = self.store.on(terms);
        Ok(store.pending(user, &after, scope, self.pending_page)?)
    }

    fn try_fetch_history(
        &self,
        Caller { user, terms }: Caller,
        request: &FetchHistoryRequest,
    ) -> Result<FetchHistoryResponse, Failure> {
        let invalid = || Failure::new(code::INVALID, "name one friend or one group");
        let wanted = request.conversation.unwrap_or_default();
        let conversation = convert::named(user, &wanted).ok_or_else(invalid)?;
        let store = self.store.on(terms);
        let Some(place) = store.conversation(user, conversation)? else {
            return Err(Failure::new(
                code::NOT_YOURSELF,
                "this is not one of your conversations",
            ));
        };
        let messages_max = match usize::try_from(request.count_max) {
            Ok(count @ 1..) => count.min(pages::HISTORY.messages_max),
            _ => pages::HISTORY.messages_max,
        };
        let limit = PageLimit {
            messages_max,
            ..pages::HISTORY
        };
        let messages = self
            .store
            .history_page(conversation, request.first_sequence, limit)?;
        Ok(FetchHistoryResponse {
            error_code: code::SUCCESS,
            messages: messages.into_iter().map(convert::message).collect(),
            last_sequence: place.last_sequence,
            ..Default::default()
        })
    }
}

/// A login that the store knows of.
struct Begun {
    number: LoginNumber,
    token: Option<Token>,
}

/// What a login or a resume claims.
#[derive(Clone, Copy)]
struct Claiming {
    user: UserId,
    session: SessionRef,
    asked: Asked,
    attempt: Attempt,
}

fn already_online() -> Failure {
    Failure::new(code::LOGIN_ALREADY_ONLINE, "already online")
}

/// A login that its proxy waits for no more.
fn given_up() -> Failure {
    Failure::new(code::UNAVAILABLE, "it took too long, try again")
}

/// The answer to a login, or to a resume, that was refused for what it showed, or could not be judged.
fn not_begun(failure: Failure, operation: &str) -> LoginReply {
    LoginReply {
        not_begun: true,
        ..not_logged_in(failure, operation)
    }
}

/// The answer to a login, or to a resume, that failed.
fn not_logged_in(failure: Failure, operation: &str) -> LoginReply {
    let failure = failure.repeatable();
    let reason = failure.reason();
    let (error_code, error_text) = failure.into_parts(operation);
    LoginReply {
        response: Some(LoginResponse {
            error_code,
            error_text,
            reason,
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// `YYYY-MM-DD HH:MM:SS`, UTC.
fn utc_text(at_ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(at_ms) {
        Ok(at) => at.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc_text() {
        assert_eq!(utc_text(1_700_000_000_000), "2023-11-14 22:13:20");
        assert_eq!(utc_text(0), "1970-01-01 00:00:00");
    }
}
