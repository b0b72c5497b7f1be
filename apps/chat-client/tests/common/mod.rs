//! A server on a real socket that says what a test tells it to.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bytes::BytesMut;
use chat_proto::frame;
use chat_proto::ids::{MessageId, code};
use chat_proto::messages::{self as proto, RequestFrame, ResponseFrame};
use prost::Message;

/// Nothing here takes so long unless it fails.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Of every login.
pub(crate) const TOKEN: &[u8] = b"a token";

/// A listener whose connections a test takes one by one.
pub(crate) struct FakeServer {
    address: SocketAddr,
    peers: Receiver<Peer>,
}

/// The server's side of one connection.
pub(crate) struct Peer {
    stream: TcpStream,
    input: BytesMut,
}

impl FakeServer {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, peers) = channel();
        // Ends with the process: the thread waits for a connection that never comes.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if sender.send(Peer::new(stream.unwrap())).is_err() {
                    break;
                }
            }
        });
        Self { address, peers }
    }

    /// Serves each connection on a thread of its own: `answer` is called with each request.
    pub(crate) fn serve(
        answer: impl Fn(RequestFrame, &mut Peer) + Clone + Send + 'static,
    ) -> SocketAddr {
        let server = Self::start();
        let address = server.address;
        std::thread::spawn(move || {
            for mut peer in server.peers {
                let answer = answer.clone();
                std::thread::spawn(move || {
                    while let Some(frame) = peer.next() {
                        answer(frame, &mut peer);
                    }
                });
            }
        });
        address
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn accept(&self) -> Peer {
        self.peers.recv_timeout(SOON).expect("a connection")
    }
}

impl Peer {
    fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(SOON)).unwrap();
        Self {
            stream,
            input: BytesMut::new(),
        }
    }

    /// The next frame; `None` when the client has closed.
    pub(crate) fn next(&mut self) -> Option<RequestFrame> {
        loop {
            if let Some(frame) = frame::decode(&mut self.input, 1 << 20).unwrap() {
                return Some(frame);
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(count) => self.input.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no frame: {error}"),
            }
        }
    }

    /// The next frame, which is of this kind. Acknowledgements in between are passed over.
    pub(crate) fn expect<T: Message + Default>(&mut self, id: MessageId) -> (u64, T) {
        loop {
            let frame = self.next().expect("a frame, not the end");
            if frame.message_id == id.0 {
                return (frame.request_id, T::decode(frame.content).unwrap());
            }
            assert_eq!(MessageId(frame.message_id), MessageId::DELIVERY_ACK);
        }
    }

    pub(crate) fn answer(&mut self, request_id: u64, id: MessageId, content: &impl Message) {
        self.raw(&frame::to_bytes(&ResponseFrame {
            message_id: id.0,
            content: content.encode_to_vec().into(),
            request_id,
        }));
    }

    pub(crate) fn push(&mut self, id: MessageId, content: &impl Message) {
        self.answer(0, id, content);
    }

    /// Pushes a text from user 2.
    pub(crate) fn push_text(&mut self, sequence: u64, text: &str) {
        self.push(MessageId::RECV_FRIEND, &chat(sequence, text));
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Takes the login of user 1, and answers it.
    pub(crate) fn log_in(&mut self) {
        let (id, request) = self.expect::<proto::LoginRequest>(MessageId::LOGIN);
        assert_eq!(
            (request.user_id, &request.user_password[..]),
            (1, &b"secret"[..])
        );
        self.answer(id, MessageId::LOGIN_ANSWER, &login_answer("alice"));
    }

    /// Takes the resume of user 1's session, and answers it.
    pub(crate) fn resume(&mut self) {
        let (id, request) = self.expect::<proto::ResumeRequest>(MessageId::RESUME);
        assert_eq!((request.user_id, &request.session_token[..]), (1, TOKEN));
        let answer = proto::LoginResponse {
            session_token: Default::default(),
            ..login_answer("alice")
        };
        self.answer(id, MessageId::RESUME_ANSWER, &answer);
    }
}

pub(crate) fn login_answer(name: &str) -> proto::LoginResponse {
    proto::LoginResponse {
        error_code: code::SUCCESS,
        user: Some(proto::User {
            user_id: 1,
            user_name: name.to_owned().into(),
            ..Default::default()
        }),
        friend_list: Some(friends()),
        session_token: TOKEN.into(),
        ..Default::default()
    }
}

/// User 2 is everybody's friend.
pub(crate) fn friends() -> proto::FriendList {
    proto::FriendList {
        friend_users: vec![proto::FriendUser {
            friend_id: 2,
            friend_name: "bob".into(),
            friend_state: "online".into(),
        }],
    }
}

pub(crate) fn chat(sequence: u64, text: &str) -> proto::FriendChatRequest {
    proto::FriendChatRequest {
        sender: Some(proto::Sender {
            user_id: 2,
            user_name: "bob".into(),
            ..Default::default()
        }),
        content: text.to_owned(),
        sequence,
        ..Default::default()
    }
}

pub(crate) fn sent(sequence: u64) -> proto::FriendChatResponse {
    proto::FriendChatResponse {
        error_code: code::SUCCESS,
        sequence,
        ..Default::default()
    }
}
