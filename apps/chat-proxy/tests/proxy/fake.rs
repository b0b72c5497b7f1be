//! The chat services, in memory: enough of them to see what a proxy does, and to script what it gets.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use chat_bus::{Bus, Claim, LoginPolicy, ProxyId, SessionRef};
use chat_proto::call_time::CallTime;
use chat_proto::client_address::ClientAddress;
use chat_proto::conversation::{ConversationId, UserId};
use chat_proto::ids::{MessageId, code, metadata};
use chat_proto::messages::*;
use nexus_rpc::{CallContext, Responder, RpcError};
use parking_lot::{Condvar, Mutex};
use prost::Message as _;

use crate::client::{PATIENCE, chat};

/// The services. Everybody's password is "secret", and everybody is everybody's friend.
pub(crate) struct Fake {
    bus: Arc<dyn Bus>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
pub(crate) struct State {
    /// Names and metadata of the calls, as they came.
    pub(crate) calls: Vec<Call>,
    pub(crate) acks: BTreeMap<(i32, ConversationId), u64>,
    /// The senders of each conversation's messages.
    pub(crate) log: BTreeMap<ConversationId, Vec<i32>>,
    /// What the next logins find pending, and where the conversations stand after it.
    pub(crate) offline: Vec<Message>,
    /// Logins that have made their user online.
    pub(crate) claims: usize,
    /// Logins of everybody: the number of the last one.
    pub(crate) last_login: u64,
    /// Logins succeed as if the bus were away for the service.
    pub(crate) unclaimed_logins: bool,
    /// As if the bus had made the user online, and its answer had been lost.
    pub(crate) lost_claims: bool,
    /// Logins and resumes are refused before anything is done for them.
    pub(crate) refuse_logins: bool,
    /// Logins fail after they have made their user online.
    pub(crate) fail_logins: bool,
    /// Logins wait while this is set.
    pub(crate) hold_logins: bool,
    /// Names are looked for while this is set.
    pub(crate) hold_names: bool,
    /// The friend whom the next additions add, and the place of that in the conversation.
    pub(crate) added: (i32, u64),
    /// Chats are kept here, unanswered, while this is set.
    pub(crate) hold_chats: bool,
    pub(crate) held: Vec<(FriendChatRequest, Responder<FriendChatResponse>)>,
    /// Chats are answered with a failure of the service.
    pub(crate) fail_chats: bool,
    /// Chats are answered so, if it is a number, and what is pending as well.
    pub(crate) refuse_with: Option<i32>,
    /// Chats of this epoch come too late.
    pub(crate) late_epoch: Option<u32>,
    /// How large the answers are that have members or history.
    pub(crate) answer_bytes: usize,
    /// Messages of one page of what is pending.
    pub(crate) page: usize,
    /// What the last resume said that the client has.
    pub(crate) received: Vec<ConversationAck>,
    /// Tokens that logouts have ended.
    pub(crate) ended_tokens: Vec<Bytes>,
}

/// To what a session loses its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    NewerLogin,
    Resumed,
}

/// What a user's sessions are resumed with.
pub(crate) fn token(user: i32) -> Bytes {
    format!("the token of {user}").into()
}

fn login_answer(error_code: i32) -> LoginResponse {
    LoginResponse {
        error_code,
        ..Default::default()
    }
}

fn not_begun() -> LoginReply {
    LoginReply {
        response: Some(login_answer(code::UNAVAILABLE)),
        not_begun: true,
        ..Default::default()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) name: &'static str,
    pub(crate) user: Option<i32>,
    pub(crate) proxy: Option<u64>,
    pub(crate) session: Option<u64>,
    pub(crate) address: Option<ClientAddress>,
    pub(crate) login: Option<u64>,
    pub(crate) time: Option<CallTime>,
}

impl Fake {
    pub(crate) fn new(bus: Arc<dyn Bus>) -> Arc<Self> {
        let state = State {
            page: 100,
            ..State::default()
        };
        Arc::new(Self {
            bus,
            state: Mutex::new(state),
            changed: Condvar::new(),
        })
    }

    /// Changes the script.
    pub(crate) fn script<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let result = change(&mut self.state.lock());
        self.changed.notify_all();
        result
    }

    /// Waits until something holds.
    #[track_caller]
    pub(crate) fn wait(&self, what: &str, mut condition: impl FnMut(&State) -> bool) {
        let mut state = self.state.lock();
        let result = self
            .changed
            .wait_while_for(&mut state, |state| !condition(state), PATIENCE);
        assert!(
            !result.timed_out(),
            "never: {what}; calls: {:?}",
            state.calls
        );
    }

    pub(crate) fn count(&self, name: &str) -> usize {
        let state = self.state.lock();
        state.calls.iter().filter(|call| call.name == name).count()
    }

    /// Commits a message and says its sequence.
    pub(crate) fn commit(&self, from: i32, to: i32) -> u64 {
        self.script(|state| state.commit(from, to))
    }

    /// Pushes a message to a user, wherever the bus says that the user is.
    pub(crate) fn push(&self, from: i32, to: i32, sequence: u64) {
        let place = self.bus.locate(&[to]).expect("located")[0];
        if let Some(place) = place {
            self.push_by(place.proxy, from, to, sequence);
        }
    }

    /// Pushes a message through a proxy.
    pub(crate) fn push_by(&self, proxy: ProxyId, from: i32, to: i32, sequence: u64) {
        self.publish(
            proxy,
            BusMessage {
                pushes: vec![push(from, to, sequence)],
                end_sessions: vec![],
            },
        );
    }

    fn publish(&self, proxy: ProxyId, message: BusMessage) {
        let bytes = Bytes::from(message.encode_to_vec());
        self.bus.publish(&[(proxy, bytes)]).expect("published");
    }

    pub(crate) fn note(&self, name: &'static str, call: &CallContext) {
        let metadata = call.metadata();
        let call = Call {
            name,
            user: metadata.get(metadata::USER).expect("an id"),
            proxy: metadata.get(metadata::PROXY).expect("an id"),
            session: metadata.get(metadata::SESSION).expect("an id"),
            address: metadata.get(metadata::ADDRESS).expect("an address"),
            login: metadata.get(metadata::LOGIN).expect("a number"),
            time: metadata.get(metadata::TIME).expect("a time"),
        };
        self.script(|state| state.calls.push(call));
    }

    /// A login, of either kind, whose credentials were good.
    fn open_session(&self, call: &CallContext, user: i32, end: End, token: Bytes) -> LoginReply {
        let policy = LoginPolicy::NewerWins;
        let (mut unclaimed, lost, login_number) = self.script(|state| {
            state.last_login += 1;
            let lost = state.lost_claims;
            (state.unclaimed_logins, lost, state.last_login)
        });
        let claim = || {
            self.bus
                .claim(user, session(call), login_number.into(), policy)
        };
        let replaced = match (!unclaimed).then(claim) {
            Some(Ok(Claim::Granted { replaced })) if !lost => replaced,
            _ => Vec::new(),
        };
        unclaimed |= lost;
        for old in replaced {
            let end = EndSession {
                user_id: user,
                session_id: old.session,
                resumed: end == End::Resumed,
            };
            self.publish(
                old.proxy,
                BusMessage {
                    pushes: vec![],
                    end_sessions: vec![end],
                },
            );
        }
        let (marks, messages) = self.script(|state| {
            state.claims += 1;
            (state.marks(user), std::mem::take(&mut state.offline))
        });
        self.wait("logins are not held", |state| !state.hold_logins);
        if self.state.lock().fail_logins {
            return LoginReply {
                response: Some(login_answer(code::UNAVAILABLE)),
                ..Default::default()
            };
        }
        LoginReply {
            response: Some(LoginResponse {
                offline_message_list: Some(OfflineMessageList { messages }),
                session_token: token,
                ..login_answer(code::SUCCESS)
            }),
            marks,
            unclaimed,
            login_number,
            ..Default::default()
        }
    }

    /// Commits a held or a new chat, pushes and answers it.
    fn answer(&self, request: &FriendChatRequest, responder: Responder<FriendChatResponse>) {
        let (from, to) = parties(request);
        if self.state.lock().fail_chats {
            return responder.complete(Err(RpcError::internal("as scripted")));
        }
        if let Some(error_code) = self.script(|state| state.refuse_with) {
            return responder.complete(Ok(FriendChatResponse {
                error_code,
                ..Default::default()
            }));
        }
        let sequence = self.commit(from, to);
        responder.complete(Ok(FriendChatResponse {
            error_code: code::SUCCESS,
            sequence,
            ..Default::default()
        }));
        self.push(from, to, sequence);
    }

    /// Answers the chats that were held.
    pub(crate) fn release_chats(&self) {
        let held = self.script(|state| {
            state.hold_chats = false;
            std::mem::take(&mut state.held)
        });
        for (request, responder) in held {
            self.answer(&request, responder);
        }
    }
}

impl State {
    pub(crate) fn commit(&mut self, from: i32, to: i32) -> u64 {
        let log = self.log.entry(pair(from, to)).or_default();
        log.push(from);
        log.len() as u64
    }

    fn marks(&self, user: i32) -> Vec<ConversationMark> {
        let own = self.log.iter().filter(|(c, _)| is_of(**c, user));
        own.map(|(c, log)| mark(*c, log.len() as u64)).collect()
    }
}

pub(crate) fn pair(a: i32, b: i32) -> ConversationId {
    let user = |id| UserId::new(id).expect("positive");
    ConversationId::pair(user(a), user(b)).expect("two users")
}

fn is_of(conversation: ConversationId, user: i32) -> bool {
    UserId::new(user).is_some_and(|user| conversation.other(user).is_some())
}

fn mark(conversation: ConversationId, sequence: u64) -> ConversationMark {
    ConversationMark {
        conversation_id: conversation.raw(),
        sequence,
    }
}

fn push(from: i32, to: i32, sequence: u64) -> Push {
    let content = FriendChatRequest {
        sequence,
        ..chat(from, to, "pushed")
    };
    Push {
        conversation_id: pair(from, to).raw(),
        sequence,
        message_id: MessageId::RECV_FRIEND.0,
        content: content.encode_to_vec().into(),
        user_ids: vec![to],
    }
}

fn parties(request: &FriendChatRequest) -> (i32, i32) {
    let sender = request.sender.as_ref().map_or(0, |sender| sender.user_id);
    let receiver = request
        .receiver
        .as_ref()
        .map_or(0, |receiver| receiver.user_id);
    (sender, receiver)
}

fn session(call: &CallContext) -> SessionRef {
    let number = |key| call.metadata().require(key).expect("sent");
    SessionRef {
        proxy: ProxyId::from_u64(number(metadata::PROXY)),
        session: number(metadata::SESSION),
    }
}

impl UserServiceRpc for Fake {
    /// Users are called "user-1" and so on.
    fn find_user(
        &self,
        call: &CallContext,
        request: FindUserRequest,
    ) -> Result<FindUserResponse, RpcError> {
        self.note("find_user", call);
        self.wait("names are not held", |state| !state.hold_names);
        let name = String::from_utf8_lossy(&request.user_name).into_owned();
        let user = name.strip_prefix("user-").and_then(|id| id.parse().ok());
        Ok(FindUserResponse {
            error_code: code::SUCCESS,
            user_id: user.unwrap_or(0),
            ..Default::default()
        })
    }

    fn register(
        &self,
        call: &CallContext,
        request: RegisterRequest,
    ) -> Result<RegisterResponse, RpcError> {
        self.note("register", call);
        Ok(match request.user_name.is_empty() {
            true => RegisterResponse {
                error_code: code::REGISTER_EMPTY,
                ..Default::default()
            },
            false => RegisterResponse {
                error_code: code::SUCCESS,
                user_id: 1000,
                ..Default::default()
            },
        })
    }

    fn login(&self, call: &CallContext, request: LoginRequest) -> Result<LoginReply, RpcError> {
        let refused = self.state.lock().refuse_logins;
        self.note("login", call);
        if refused {
            return Ok(not_begun());
        }
        if request.user_password != "secret" {
            return Ok(LoginReply {
                response: Some(login_answer(code::LOGIN_WRONG_PASSWORD)),
                ..Default::default()
            });
        }
        let token = match request.wants_session_token {
            true => token(request.user_id),
            false => Bytes::new(),
        };
        Ok(self.open_session(call, request.user_id, End::NewerLogin, token))
    }

    fn resume(&self, call: &CallContext, request: ResumeRequest) -> Result<LoginReply, RpcError> {
        let refused = self.state.lock().refuse_logins;
        self.note("resume", call);
        if refused {
            return Ok(not_begun());
        }
        if request.session_token != token(request.user_id) {
            return Ok(LoginReply {
                response: Some(login_answer(code::SESSION_ENDED)),
                ..Default::default()
            });
        }
        self.script(|state| state.received = request.received);
        Ok(self.open_session(call, request.user_id, End::Resumed, Bytes::new()))
    }

    fn logout(
        &self,
        call: &CallContext,
        request: LogoutRequest,
    ) -> Result<LogoutResponse, RpcError> {
        let released = self.bus.release(request.user_id, session(call));
        if !request.session_token.is_empty() {
            self.script(|state| state.ended_tokens.push(request.session_token));
        }
        self.note("logout", call);
        assert!(released.is_ok());
        Ok(LogoutResponse {
            error_code: code::SUCCESS,
            ..Default::default()
        })
    }

    fn acknowledge(
        &self,
        _call: &CallContext,
        request: AcknowledgeRequest,
    ) -> Result<AcknowledgeResponse, RpcError> {
        self.script(|state| {
            for ack in request.acks {
                let conversation = ConversationId::from_raw(ack.conversation_id).expect("one");
                state.acks.insert((ack.user_id, conversation), ack.sequence);
            }
        });
        Ok(AcknowledgeResponse {
            error_code: code::SUCCESS,
        })
    }

    fn fetch_pending(
        &self,
        call: &CallContext,
        request: FetchPendingRequest,
    ) -> Result<FetchPendingResponse, RpcError> {
        self.note("fetch_pending", call);
        let user = call.metadata().require(metadata::USER).expect("sent");
        let state = self.state.lock();
        let mut answer = FetchPendingResponse {
            error_code: state.refuse_with.unwrap_or(code::SUCCESS),
            ..Default::default()
        };
        for (&conversation, log) in state.log.iter().filter(|(c, _)| is_of(**c, user)) {
            let raw = conversation.raw();
            let named = request
                .after
                .iter()
                .find(|mark| mark.conversation_id == raw);
            if named.is_none() && !request.all_conversations {
                continue;
            }
            let mut stands_at = named.map_or(0, |mark| mark.sequence);
            for (sequence, &from) in (1..).zip(log).skip(stands_at as usize) {
                if from != user {
                    if answer.pushes.len() == state.page {
                        answer.more = true;
                        break;
                    }
                    answer.pushes.push(push(from, user, sequence));
                }
                stands_at = sequence;
            }
            answer.marks.push(mark(conversation, stands_at));
        }
        Ok(answer)
    }

    fn fetch_history(
        &self,
        call: &CallContext,
        _request: FetchHistoryRequest,
    ) -> Result<FetchHistoryResponse, RpcError> {
        self.note("fetch_history", call);
        let message = Message {
            content: "x".repeat(self.script(|state| state.answer_bytes)),
            ..Default::default()
        };
        Ok(FetchHistoryResponse {
            error_code: code::SUCCESS,
            messages: vec![message],
            ..Default::default()
        })
    }
}

impl OneChatServiceRpc for Fake {
    fn friend_chat(
        &self,
        call: CallContext,
        request: FriendChatRequest,
        responder: Responder<FriendChatResponse>,
    ) {
        self.note("friend_chat", &call);
        let epoch = call.metadata().get(metadata::TIME).expect("a time");
        let late = self.script(|state| state.late_epoch);
        if late.is_some() && epoch.map(|time| time.epoch) == late {
            return responder.complete(Err(RpcError::new(metadata::TOO_LATE, "as scripted")));
        }
        let hold = self.script(|state| state.hold_chats);
        match hold {
            true => self.script(|state| state.held.push((request, responder))),
            false => self.answer(&request, responder),
        }
    }
}
