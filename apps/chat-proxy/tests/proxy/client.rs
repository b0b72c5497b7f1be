//! A client: a plain socket that speaks the frames.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use bytes::BytesMut;
use chat_proto::frame;
use chat_proto::ids::{MessageId, code};
use chat_proto::messages::*;
use prost::Message;

/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Client {
    stream: TcpStream,
    input: BytesMut,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        stream.set_write_timeout(Some(PATIENCE)).expect("set");
        stream.set_nodelay(true).expect("set");
        Self {
            stream,
            input: BytesMut::new(),
        }
    }

    /// Connected and logged in, as a client that knows nothing of acknowledgements.
    pub(crate) fn logged_in(address: SocketAddr, user_id: i32) -> Self {
        let mut client = Self::connect(address);
        assert_eq!(client.log_in(user_id, false).error_code, code::SUCCESS);
        client
    }

    pub(crate) fn log_in(&mut self, user_id: i32, acknowledges: bool) -> LoginResponse {
        let request = login_request(user_id, acknowledges);
        self.ask(MessageId::LOGIN, &request, MessageId::LOGIN_ANSWER)
    }

    pub(crate) fn send(&mut self, id: MessageId, request_id: u64, content: &impl Message) {
        self.send_raw(&request(id, request_id, content));
    }

    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("sent");
    }

    /// Whether the proxy still takes what is sent.
    pub(crate) fn try_send_raw(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// One request and its answer.
    pub(crate) fn ask<A: Message + Default>(
        &mut self,
        id: MessageId,
        content: &impl Message,
        answer_id: MessageId,
    ) -> A {
        self.send(id, 77, content);
        let frame = self.receive();
        assert_eq!(frame.message_id, answer_id.0, "{frame:?}");
        assert_eq!(frame.request_id, 77);
        A::decode(frame.content).expect("an answer")
    }

    pub(crate) fn receive(&mut self) -> ResponseFrame {
        self.try_receive().expect("a frame, not the end")
    }

    /// The next frame; `None`: the proxy has closed.
    pub(crate) fn try_receive(&mut self) -> Option<ResponseFrame> {
        loop {
            let frame = frame::decode(&mut self.input, 1 << 24).expect("a good frame");
            if frame.is_some() {
                return frame;
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(count) => self.input.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("nothing received: {error}"),
            }
        }
    }

    /// The next frame, which is of this kind.
    pub(crate) fn expect<A: Message + Default>(&mut self, id: MessageId) -> A {
        let frame = self.receive();
        assert_eq!(frame.message_id, id.0, "{frame:?}");
        A::decode(frame.content).expect("the content")
    }

    /// The next frame, a chat message; its sequence.
    pub(crate) fn expect_push(&mut self) -> u64 {
        self.expect::<FriendChatRequest>(MessageId::RECV_FRIEND)
            .sequence
    }

    /// Nothing but this answer comes: what was sent before has been dealt with, and was not answered.
    pub(crate) fn expect_silence(&mut self) {
        let beat = Heartbeat { token: 4711 };
        let echo: Heartbeat = self.ask(MessageId::HEARTBEAT, &beat, MessageId::HEARTBEAT_ANSWER);
        assert_eq!(echo, beat);
    }

    pub(crate) fn shutdown(&mut self, how: Shutdown) {
        self.stream.shutdown(how).expect("shut down");
    }

    /// Closes; there is nothing that could still arrive.
    pub(crate) fn abort(self) {
        drop(self.stream);
    }

    pub(crate) fn expect_closed(&mut self) {
        assert_eq!(self.try_receive(), None);
    }

    pub(crate) fn chat(&mut self, request_id: u64, from: i32, to: i32, content: &str) {
        self.send(MessageId::FRIEND_CHAT, request_id, &chat(from, to, content));
    }
}

pub(crate) fn request(id: MessageId, request_id: u64, content: &impl Message) -> Vec<u8> {
    let frame = RequestFrame {
        message_id: id.0,
        content: content.encode_to_vec().into(),
        request_id,
    };
    frame::to_bytes(&frame).to_vec()
}

pub(crate) fn login_request(user_id: i32, acknowledges: bool) -> LoginRequest {
    LoginRequest {
        user_id,
        user_password: "secret".into(),
        acknowledges,
        ..Default::default()
    }
}

pub(crate) fn logout_request(user_id: i32) -> LogoutRequest {
    LogoutRequest {
        user_id,
        ..Default::default()
    }
}

pub(crate) fn chat(from: i32, to: i32, content: &str) -> FriendChatRequest {
    FriendChatRequest {
        sender: Some(Sender {
            user_id: from,
            ..Default::default()
        }),
        receiver: Some(Receiver {
            user_id: to,
            ..Default::default()
        }),
        content: content.to_owned(),
        ..Default::default()
    }
}
