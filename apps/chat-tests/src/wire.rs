//! A client of the protocol on a blocking socket.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use chat_proto::frame;
use chat_proto::ids::{MessageId, code};
use chat_proto::messages::*;
use socket2::{Domain, SockRef, Socket, Type};

use crate::Entrance;
use crate::entrance::Stream;

/// How long anything may take. Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);
const FRAME_BYTES_MAX: usize = 16 << 20;

/// One connection to a proxy. Every method panics when the chat does not do what it should in time.
#[derive(Debug)]
pub struct WireClient {
    stream: Stream,
    input: BytesMut,
    pushes: VecDeque<ResponseFrame>,
    next_request_id: u64,
    /// Set by [`login`](Self::login).
    pub user_id: i32,
}

impl WireClient {
    /// Connects.
    pub fn connect(to: impl Into<Entrance>) -> Self {
        Self::new(to.into().connect())
    }

    /// Connects from an address of this machine.
    pub fn connect_from(own: IpAddr, address: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(own, 0).into()).unwrap();
        socket
            .connect(&address.into())
            .expect("the chat accepts connections");
        socket.set_tcp_nodelay(true).unwrap();
        Self::new(Stream::Plain(socket.into()))
    }

    fn new(stream: Stream) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
            pushes: VecDeque::new(),
            next_request_id: 1,
            user_id: 0,
        }
    }

    /// Sends raw bytes.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the chat reads");
        self.stream.flush().expect("the chat reads");
    }

    /// Sends raw bytes, as far as the chat takes them, and shuts the sending side down.
    pub fn send_all_it_takes(&mut self, bytes: &[u8]) {
        // A chat that has had enough closes.
        let _ = self.stream.write_all(bytes);
        let _ = self.stream.socket().shutdown(Shutdown::Write);
    }

    /// Forgets what was pushed so far.
    pub fn forget_pushes(&mut self) {
        self.pushes.clear();
    }

    /// Shuts the sending side down.
    pub fn finish(&mut self) {
        self.stream.finish();
    }

    /// Ends the connection with a reset.
    pub fn abort(self) {
        let linger = Some(Duration::ZERO);
        SockRef::from(self.stream.socket())
            .set_linger(linger)
            .unwrap();
    }

    /// The certificate that the chat has shown, once it has answered something under TLS.
    pub fn server_certificate(&self) -> Option<Vec<u8>> {
        self.stream.server_certificate()
    }

    /// Sends a request and returns its request id.
    pub fn send(&mut self, id: MessageId, content: &impl prost::Message) -> u64 {
        let request_id = self.next_request_id;
        self.next_request_id += 1;
        self.send_bytes(&request_frame(id, content, request_id));
        request_id
    }

    /// Sends a request and waits for its answer, which must have this id. Pushes that come before it are
    /// kept.
    pub fn request<A: prost::Message + Default>(
        &mut self,
        id: MessageId,
        content: &impl prost::Message,
        answer: MessageId,
    ) -> A {
        let request_id = self.send(id, content);
        self.answer(request_id, answer)
    }

    /// Waits for the answer of a request.
    pub fn answer<A: prost::Message + Default>(&mut self, request_id: u64, id: MessageId) -> A {
        loop {
            let frame = self.read_frame(PATIENCE).expect("an answer");
            if frame.request_id == 0 {
                self.pushes.push_back(frame);
                continue;
            }
            assert_eq!(frame.request_id, request_id, "answers come to who asked");
            assert_eq!(frame.message_id, id.0);
            return A::decode(frame.content).expect("a readable answer");
        }
    }

    /// The next answer, whichever request it belongs to.
    pub fn any_answer(&mut self) -> ResponseFrame {
        loop {
            let frame = self.read_frame(PATIENCE).expect("an answer");
            if frame.request_id != 0 {
                return frame;
            }
            self.pushes.push_back(frame);
        }
    }

    /// The next push, which must have this id.
    pub fn push<M: prost::Message + Default>(&mut self, id: MessageId) -> M {
        let frame = self.any_push();
        assert_eq!(frame.message_id, id.0);
        M::decode(frame.content).expect("a readable push")
    }

    /// The next push, of whatever kind.
    pub fn any_push(&mut self) -> ResponseFrame {
        let frame = match self.pushes.pop_front() {
            Some(frame) => frame,
            None => self.read_frame(PATIENCE).expect("a push"),
        };
        assert_eq!(frame.request_id, 0, "a push and no answer");
        frame
    }

    /// Asserts that nothing has been pushed, as of an answer that was asked for just now.
    pub fn assert_no_push(&mut self) {
        let token = 77;
        let answer: Heartbeat = self.request(
            MessageId::HEARTBEAT,
            &Heartbeat { token },
            MessageId::HEARTBEAT_ANSWER,
        );
        assert_eq!(answer.token, token);
        assert!(self.pushes.is_empty(), "{:?}", self.pushes);
    }

    /// Waits until the chat closes the connection; returns what was pushed before.
    pub fn closed(mut self) -> Vec<ResponseFrame> {
        while let Some(frame) = self.read_frame(PATIENCE) {
            self.pushes.push_back(frame);
        }
        self.pushes.into()
    }

    /// Reads a frame; `None` when the connection is closed.
    fn read_frame(&mut self, patience: Duration) -> Option<ResponseFrame> {
        let until = Instant::now() + patience;
        loop {
            if let Some(frame) =
                frame::decode::<ResponseFrame>(&mut self.input, FRAME_BYTES_MAX).expect("a frame")
            {
                return Some(frame);
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "nothing came within {patience:?}");
            self.stream.set_read_timeout(left);
            let mut buffer = [0; 16 * 1024];
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => self.input.extend_from_slice(&buffer[..count]),
                Err(error)
                    if matches!(
                        error.kind(),
                        // The last: a fuzzer has a timer.
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) => {}
                // Under TLS also the end of a connection that was cut off.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof
                    ) =>
                {
                    return None;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    // ---- operations ----

    /// Registers and returns the answer.
    pub fn register(&mut self, name: &str, password: &str) -> RegisterResponse {
        let request = RegisterRequest {
            user_name: Bytes::copy_from_slice(name.as_bytes()),
            user_password: Bytes::copy_from_slice(password.as_bytes()),
        };
        self.request(MessageId::REGISTER, &request, MessageId::REGISTER_ANSWER)
    }

    /// Logs in and returns the answer. `acknowledges` as in [`LoginRequest`].
    pub fn login(&mut self, user_id: i32, password: &str, acknowledges: bool) -> LoginResponse {
        let request = LoginRequest {
            user_id,
            user_password: Bytes::copy_from_slice(password.as_bytes()),
            acknowledges,
            wants_session_token: acknowledges,
            ..Default::default()
        };
        let answer: LoginResponse =
            self.request(MessageId::LOGIN, &request, MessageId::LOGIN_ANSWER);
        if answer.error_code == code::SUCCESS {
            self.user_id = user_id;
        }
        answer
    }

    /// Logs in by the name and returns the answer.
    pub fn login_by_name(&mut self, name: &str, password: &str) -> LoginResponse {
        let request = LoginRequest {
            user_name: Bytes::copy_from_slice(name.as_bytes()),
            user_password: Bytes::copy_from_slice(password.as_bytes()),
            acknowledges: true,
            ..Default::default()
        };
        let answer: LoginResponse =
            self.request(MessageId::LOGIN, &request, MessageId::LOGIN_ANSWER);
        if let Some(user) = &answer.user {
            self.user_id = user.user_id;
        }
        answer
    }

    /// Goes on with a session and returns the answer. `received`: what this client has of friends'
    /// conversations.
    pub fn resume(
        &mut self,
        user_id: i32,
        token: &Bytes,
        received: &[(i32, u64)],
    ) -> LoginResponse {
        let received = received
            .iter()
            .map(|&(friend_id, sequence)| ConversationAck {
                conversation: Some(Conversation {
                    friend_id,
                    group_id: 0,
                }),
                sequence,
            });
        let request = ResumeRequest {
            user_id,
            session_token: token.clone(),
            acknowledges: true,
            received: received.collect(),
            ..Default::default()
        };
        let answer: LoginResponse =
            self.request(MessageId::RESUME, &request, MessageId::RESUME_ANSWER);
        if answer.error_code == code::SUCCESS {
            self.user_id = user_id;
        }
        answer
    }

    /// Sends to a friend and returns the answer.
    pub fn chat(&mut self, friend: i32, content: &str) -> FriendChatResponse {
        let request = self.chat_request(friend, content, 0);
        self.request(
            MessageId::FRIEND_CHAT,
            &request,
            MessageId::FRIEND_CHAT_ANSWER,
        )
    }

    /// A message to a friend.
    pub fn chat_request(&self, friend: i32, content: &str, id: u64) -> FriendChatRequest {
        FriendChatRequest {
            sender: Some(Sender {
                user_id: self.user_id,
                ..Default::default()
            }),
            receiver: Some(Receiver {
                user_id: friend,
                ..Default::default()
            }),
            content: content.to_owned(),
            time: "2026-01-02 03:04:05".to_owned(),
            client_message_id: id,
            ..Default::default()
        }
    }

    /// Sends to a group and returns the answer.
    pub fn group_chat(&mut self, group: i32, content: &str) -> GroupChatResponse {
        let request = GroupChatRequest {
            sender: Some(Sender {
                user_id: self.user_id,
                ..Default::default()
            }),
            receiver: Some(Receiver {
                group_id: group,
                ..Default::default()
            }),
            content: content.to_owned(),
            time: "2026-01-02 03:04:05".to_owned(),
            ..Default::default()
        };
        self.request(
            MessageId::GROUP_CHAT,
            &request,
            MessageId::GROUP_CHAT_ANSWER,
        )
    }

    /// Adds a friend and returns the answer.
    pub fn add_friend(&mut self, friend_id: i32) -> AddFriendResponse {
        let request = AddFriendRequest {
            user_id: self.user_id,
            friend_id,
            ..Default::default()
        };
        self.request(
            MessageId::ADD_FRIEND,
            &request,
            MessageId::ADD_FRIEND_ANSWER,
        )
    }

    /// Adds a friend by the name and returns the answer.
    pub fn add_friend_by_name(&mut self, name: &str) -> AddFriendResponse {
        let request = AddFriendRequest {
            user_id: self.user_id,
            friend_name: Bytes::copy_from_slice(name.as_bytes()),
            ..Default::default()
        };
        self.request(
            MessageId::ADD_FRIEND,
            &request,
            MessageId::ADD_FRIEND_ANSWER,
        )
    }

    /// Deletes a friend and returns the answer.
    pub fn delete_friend(&mut self, friend_id: i32) -> DeleteFriendResponse {
        let request = DeleteFriendRequest {
            user_id: self.user_id,
            friend_id,
            ..Default::default()
        };
        self.request(
            MessageId::DELETE_FRIEND,
            &request,
            MessageId::DELETE_FRIEND_ANSWER,
        )
    }

    /// Creates a group and returns the answer.
    pub fn create_group(&mut self, name: &str) -> CreateGroupResponse {
        let request = CreateGroupRequest {
            user_id: self.user_id,
            group_name: Bytes::copy_from_slice(name.as_bytes()),
            group_description: Bytes::from_static(b"a test"),
        };
        self.request(
            MessageId::CREATE_GROUP,
            &request,
            MessageId::CREATE_GROUP_ANSWER,
        )
    }

    /// Joins a group and returns the answer.
    pub fn join_group(&mut self, group_id: i32) -> AddGroupResponse {
        let request = AddGroupRequest {
            user_id: self.user_id,
            group_id,
            ..Default::default()
        };
        self.request(MessageId::ADD_GROUP, &request, MessageId::ADD_GROUP_ANSWER)
    }

    /// Leaves a group and returns the answer.
    pub fn quit_group(&mut self, group_id: i32) -> QuitGroupResponse {
        let request = QuitGroupRequest {
            user_id: self.user_id,
            group_id,
            ..Default::default()
        };
        self.request(
            MessageId::QUIT_GROUP,
            &request,
            MessageId::QUIT_GROUP_ANSWER,
        )
    }

    /// Deletes a group and returns the answer.
    pub fn delete_group(&mut self, group_id: i32) -> DeleteGroupResponse {
        let request = DeleteGroupRequest {
            user_id: self.user_id,
            group_id,
            ..Default::default()
        };
        self.request(
            MessageId::DELETE_GROUP,
            &request,
            MessageId::DELETE_GROUP_ANSWER,
        )
    }

    /// Fetches the friends.
    pub fn friends(&mut self) -> Vec<FriendUser> {
        let request = FetchFriendsRequest {
            user_id: self.user_id,
            ..Default::default()
        };
        let answer: FetchFriendsResponse = self.request(
            MessageId::FETCH_FRIENDS,
            &request,
            MessageId::FETCH_FRIENDS_ANSWER,
        );
        assert_eq!(answer.error_code, code::SUCCESS, "{}", answer.error_text);
        answer.friend_list.unwrap_or_default().friend_users
    }

    /// Fetches the friends, unless the chat says that it cannot right now.
    pub fn friends_if_available(&mut self) -> Option<Vec<FriendUser>> {
        let request = FetchFriendsRequest {
            user_id: self.user_id,
            ..Default::default()
        };
        let answer: FetchFriendsResponse = self.request(
            MessageId::FETCH_FRIENDS,
            &request,
            MessageId::FETCH_FRIENDS_ANSWER,
        );
        match answer.error_code {
            code::SUCCESS => Some(answer.friend_list.unwrap_or_default().friend_users),
            code::UNAVAILABLE => None,
            other => panic!("{other}: {}", answer.error_text),
        }
    }

    /// Acknowledges a friend's messages.
    pub fn acknowledge_friend(&mut self, friend_id: i32, sequence: u64) {
        let conversation = Some(Conversation {
            friend_id,
            group_id: 0,
        });
        let acks = vec![ConversationAck {
            conversation,
            sequence,
        }];
        self.send(MessageId::DELIVERY_ACK, &DeliveryAck { acks });
    }

    /// Logs out and returns the answer.
    pub fn logout(&mut self) -> LogoutResponse {
        let request = LogoutRequest {
            user_id: self.user_id,
            ..Default::default()
        };
        self.request(MessageId::LOGOUT, &request, MessageId::LOGOUT_ANSWER)
    }
}

/// A request as it goes over the wire.
pub(crate) fn request_frame(
    id: MessageId,
    content: &impl prost::Message,
    request_id: u64,
) -> Bytes {
    let content = content.encode_to_vec().into();
    frame::to_bytes(&RequestFrame {
        message_id: id.0,
        content,
        request_id,
    })
}
