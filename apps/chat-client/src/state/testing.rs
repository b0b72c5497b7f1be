//! A state with a clock of its own, and both of its ends in hand.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chat_proto::conversation::{GroupId, UserId};
use chat_proto::ids::{MessageId, code};
use chat_proto::messages as proto;
use parking_lot::Mutex;
use prost::Message as _;

use super::{Output, Password, Request, State};
use crate::model::Answer;
use crate::{Body, ChatError, ClientOptions, Conversation, Event, Message};

pub(super) const ME: i32 = 1;
pub(super) const FRIEND: i32 = 2;
pub(super) const TOKEN: &[u8] = b"the session's token";
/// Who counts attempts to resume.
pub(super) const RUN: u64 = 99;

pub(super) fn user(id: i32) -> UserId {
    UserId::new(id).unwrap()
}

pub(super) fn group(id: i32) -> GroupId {
    GroupId::new(id).unwrap()
}

/// A message of [`FRIEND`].
pub(super) fn text_message(sequence: u64) -> Message {
    Message {
        conversation: Conversation::Friend(user(FRIEND)),
        sequence,
        sender: user(FRIEND),
        sender_name: String::new(),
        body: Body::Text(format!("text {sequence}")),
        sender_time: String::new(),
        server_time_ms: 0,
    }
}

/// The same as it is stored, from either side.
pub(super) fn stored(sender: i32, sequence: u64) -> proto::Message {
    proto::Message {
        message_type: proto::MessageType::FriendChat.into(),
        sender: Some(proto::Sender {
            user_id: sender,
            ..Default::default()
        }),
        content: format!("text {sequence}"),
        sequence,
        ..Default::default()
    }
}

/// The same as it is pushed.
pub(super) fn pushed(sequence: u64) -> proto::FriendChatRequest {
    proto::FriendChatRequest {
        sender: stored(FRIEND, sequence).sender,
        content: format!("text {sequence}"),
        sequence,
        ..Default::default()
    }
}

pub(super) fn login_of(id: i32) -> Request {
    Request::Login {
        user: user(id).into(),
        password: Password("secret".to_owned()),
    }
}

pub(super) fn login() -> Request {
    login_of(ME)
}

pub(super) fn send(client_message_id: u64) -> Request {
    Request::Send {
        to: Conversation::Friend(user(FRIEND)),
        text: "hello".to_owned(),
        client_message_id,
        time: String::new(),
    }
}

/// With a token; a resume's answer has none.
pub(super) fn login_answer(list: Vec<proto::Message>) -> proto::LoginResponse {
    proto::LoginResponse {
        session_token: TOKEN.into(),
        ..resume_answer(list)
    }
}

pub(super) fn resume_answer(list: Vec<proto::Message>) -> proto::LoginResponse {
    proto::LoginResponse {
        error_code: code::SUCCESS,
        offline_message_list: Some(proto::OfflineMessageList { messages: list }),
        ..Default::default()
    }
}

pub(super) fn sent_answer(sequence: u64) -> proto::FriendChatResponse {
    proto::FriendChatResponse {
        error_code: code::SUCCESS,
        sequence,
        ..Default::default()
    }
}

fn read_acks(acks: Vec<proto::ConversationAck>) -> Vec<(proto::Conversation, u64)> {
    acks.into_iter()
        .map(|ack| (ack.conversation.unwrap(), ack.sequence))
        .collect()
}

/// The results that a request got; exactly one in the end.
#[derive(Clone, Default)]
pub(super) struct Results(Arc<Mutex<Vec<Result<Answer, ChatError>>>>);

impl Results {
    pub(super) fn all(&self) -> Vec<Result<Answer, ChatError>> {
        self.0.lock().clone()
    }
}

pub(super) struct Rig {
    pub(super) state: State,
    pub(super) now: Instant,
    pub(super) written: VecDeque<proto::RequestFrame>,
    pub(super) events: Vec<Event>,
    pub(super) is_open: bool,
}

impl Rig {
    pub(super) fn new() -> Self {
        Self {
            state: State::new(ClientOptions::default(), RUN),
            now: Instant::now(),
            written: VecDeque::new(),
            events: Vec::new(),
            is_open: false,
        }
    }

    /// Connected and signed in; nothing is left to look at.
    pub(super) fn signed_in(list: Vec<proto::Message>) -> Self {
        let mut rig = Self::new();
        rig.open();
        let results = rig.ask(login());
        let id = rig.expect(MessageId::LOGIN).0;
        rig.answer(id, MessageId::LOGIN_ANSWER, &login_answer(list));
        assert!(matches!(results.all()[..], [Ok(Answer::Login(_))]));
        rig
    }

    pub(super) fn ask(&mut self, request: Request) -> Results {
        let results = Results::default();
        let completion = {
            let results = results.clone();
            Box::new(move |result| results.0.lock().push(result))
        };
        self.state.request(self.now, request, completion);
        self.settle();
        results
    }

    pub(super) fn open(&mut self) {
        self.is_open = true;
        self.state.handle_opened(self.now);
        self.settle();
    }

    pub(super) fn lose(&mut self) {
        self.is_open = false;
        self.written.clear();
        self.state.handle_closed("lost".to_owned());
        self.settle();
    }

    /// Time passes, and everything that falls due is done when it does.
    pub(super) fn advance(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(next) = self.state.next_timeout().filter(|&next| next <= end) {
            self.now = self.now.max(next);
            self.state.handle_timeout(self.now);
            self.settle();
        }
        self.now = end;
    }

    pub(super) fn answer(&mut self, request_id: u64, id: MessageId, content: &impl prost::Message) {
        let frame = proto::ResponseFrame {
            message_id: id.0,
            content: content.encode_to_vec().into(),
            request_id,
        };
        self.state.handle_life(self.now);
        self.state.handle_frame(self.now, frame);
        self.settle();
    }

    pub(super) fn push(&mut self, sequence: u64) {
        self.answer(0, MessageId::RECV_FRIEND, &pushed(sequence));
    }

    /// The next written frame: its request id and content.
    pub(super) fn expect(&mut self, id: MessageId) -> (u64, bytes::Bytes) {
        let frame = self.written.pop_front().expect("a frame was written");
        assert_eq!(MessageId(frame.message_id), id);
        (frame.request_id, frame.content)
    }

    /// The next frame, which resumes the session: its request id, and what it says was received.
    pub(super) fn expect_resume(&mut self) -> (u64, Vec<(proto::Conversation, u64)>) {
        let (id, content) = self.expect(MessageId::RESUME);
        let request = proto::ResumeRequest::decode(content).unwrap();
        assert_eq!(request.user_id, ME);
        assert_eq!(request.session_token, TOKEN);
        assert!(request.acknowledges);
        (id, read_acks(request.received))
    }

    /// The acknowledgements of the next frame.
    pub(super) fn expect_ack(&mut self) -> Vec<(proto::Conversation, u64)> {
        let content = self.expect(MessageId::DELIVERY_ACK).1;
        read_acks(proto::DeliveryAck::decode(content).unwrap().acks)
    }

    /// Sequences of the messages shown so far.
    pub(super) fn shown(&self) -> Vec<u64> {
        self.events
            .iter()
            .filter_map(|event| match event {
                Event::Message(message) => Some(message.sequence),
                _ => None,
            })
            .collect()
    }

    /// Does what the driver does.
    pub(super) fn settle(&mut self) {
        let mut reset = false;
        while let Some(output) = self.state.poll_output() {
            match output {
                Output::Frame(frame) => {
                    assert!(self.is_open, "written to no connection");
                    self.written.push_back(frame);
                }
                Output::Complete(completion, result) => completion(result),
                Output::Reset => reset = true,
            }
        }
        while let Some(event) = self.state.poll_event() {
            if let Event::Message(message) = &event {
                let key = (message.conversation, message.sequence);
                self.state.handle_handed(self.now, key);
            }
            self.events.push(event);
        }
        if reset {
            self.lose();
        }
    }
}
