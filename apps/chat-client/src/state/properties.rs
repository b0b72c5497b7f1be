//! A server that keeps a conversation, and a network that mixes up, repeats, loses and breaks off:
//! whatever happens, each message is shown once and in order, and each request completes once.

use std::time::Duration;

use chat_proto::ids::{MessageId as Id, code};
use chat_proto::messages as proto;
use proptest::prelude::*;
use prost::Message as _;

use super::Request;
use super::testing::*;
use crate::model::Answer;

/// What happens next. Numbers choose among what is under way.
#[derive(Debug, Clone)]
enum Step {
    FriendSays,
    Send,
    AskFriends,
    ServerWorks,
    Answer(u8),
    Push(u8),
    PushTwice(u8),
    PushIsLost(u8),
    Lose,
    Connect,
    TimePasses(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::FriendSays),
        3 => Just(Step::Send),
        1 => Just(Step::AskFriends),
        6 => Just(Step::ServerWorks),
        5 => any::<u8>().prop_map(Step::Answer),
        5 => any::<u8>().prop_map(Step::Push),
        1 => any::<u8>().prop_map(Step::PushTwice),
        1 => any::<u8>().prop_map(Step::PushIsLost),
        1 => Just(Step::Lose),
        2 => Just(Step::Connect),
        2 => (0_u16..400).prop_map(Step::TimePasses),
    ]
}

/// A frame on its way to the client.
type Underway = (u64, Id, Vec<u8>);

/// The server's side: the conversation and what travels.
#[derive(Default)]
struct Server {
    /// Who wrote the message of each sequence; own ones have a client message id.
    log: Vec<(i32, u64)>,
    acknowledged: u64,
    /// The session of this connection has begun.
    session: bool,
    /// Its login answer has arrived; pushes follow it.
    told: bool,
    answers: Vec<Underway>,
    pushes: Vec<u64>,
}

impl Server {
    fn friend_says(&mut self) {
        self.log.push((FRIEND, 0));
        if self.session {
            self.pushes.push(self.log.len() as u64);
        }
    }

    fn stored(&self, from: u64, to: u64) -> impl Iterator<Item = proto::Message> {
        let messages = (1..).zip(&self.log);
        messages
            .filter(move |&(sequence, _)| (from..=to).contains(&sequence))
            .map(|(sequence, &(sender, _))| stored(sender, sequence))
    }

    fn work(&mut self, frame: proto::RequestFrame) {
        let content = frame.content;
        let (id, answer) = match Id(frame.message_id) {
            Id::LOGIN => {
                self.session = true;
                let waiting = self.stored(self.acknowledged + 1, u64::MAX);
                let waiting = waiting.filter(|m| m.sender.as_ref().unwrap().user_id == FRIEND);
                let answer = login_answer(waiting.collect());
                (Id::LOGIN_ANSWER, answer.encode_to_vec())
            }
            Id::RESUME => {
                self.session = true;
                let received = proto::ResumeRequest::decode(content).unwrap().received;
                for ack in received {
                    self.acknowledged = self.acknowledged.max(ack.sequence);
                }
                let waiting = self.stored(self.acknowledged + 1, u64::MAX);
                let waiting = waiting.filter(|m| m.sender.as_ref().unwrap().user_id == FRIEND);
                let answer = resume_answer(waiting.collect());
                (Id::RESUME_ANSWER, answer.encode_to_vec())
            }
            Id::FRIEND_CHAT => {
                let request = proto::FriendChatRequest::decode(content).unwrap();
                let entry = (ME, request.client_message_id);
                let known = self.log.iter().position(|&e| e == entry);
                let index = known.unwrap_or_else(|| {
                    self.log.push(entry);
                    self.log.len() - 1
                });
                let answer = sent_answer(index as u64 + 1);
                (Id::FRIEND_CHAT_ANSWER, answer.encode_to_vec())
            }
            Id::FETCH_HISTORY => {
                let request = proto::FetchHistoryRequest::decode(content).unwrap();
                let first = request.first_sequence;
                let last = first + u64::from(request.count_max) - 1;
                let answer = proto::FetchHistoryResponse {
                    error_code: code::SUCCESS,
                    messages: self.stored(first, last).collect(),
                    last_sequence: self.log.len() as u64,
                    ..Default::default()
                };
                (Id::FETCH_HISTORY_ANSWER, answer.encode_to_vec())
            }
            Id::FETCH_FRIENDS => {
                let answer = proto::FetchFriendsResponse {
                    error_code: code::SUCCESS,
                    ..Default::default()
                };
                (Id::FETCH_FRIENDS_ANSWER, answer.encode_to_vec())
            }
            Id::DELIVERY_ACK => {
                for ack in proto::DeliveryAck::decode(content).unwrap().acks {
                    self.acknowledged = self.acknowledged.max(ack.sequence);
                }
                return;
            }
            Id::HEARTBEAT => (Id::HEARTBEAT_ANSWER, Vec::new()),
            other => panic!("the client wrote {other:?}"),
        };
        self.answers.push((frame.request_id, id, answer));
    }

    fn connection_lost(&mut self) {
        self.session = false;
        self.told = false;
        self.answers.clear();
        self.pushes.clear();
    }
}

struct World {
    rig: Rig,
    server: Server,
    sends: Vec<Results>,
    others: Vec<Results>,
}

impl World {
    fn new() -> Self {
        let mut rig = Rig::new();
        let others = vec![rig.ask(login())];
        let mut server = Server::default();
        server.friend_says();
        Self {
            rig,
            server,
            sends: Vec::new(),
            others,
        }
    }

    fn step(&mut self, step: &Step) {
        let pick = |n: u8, length: usize| (length > 0).then(|| usize::from(n) % length);
        match *step {
            Step::FriendSays => self.server.friend_says(),
            Step::Send => {
                let id = self.sends.len() as u64 + 1;
                self.sends.push(self.rig.ask(send(id)));
            }
            Step::AskFriends => self.others.push(self.rig.ask(Request::Friends)),
            Step::ServerWorks => {
                if let Some(frame) = self.rig.written.pop_front() {
                    self.server.work(frame);
                }
            }
            Step::Answer(n) => {
                if let Some(index) = pick(n, self.server.answers.len()) {
                    let (request_id, id, content) = self.server.answers.remove(index);
                    self.server.told |= matches!(id, Id::LOGIN_ANSWER | Id::RESUME_ANSWER);
                    self.deliver(request_id, id, content);
                }
            }
            Step::Push(n) | Step::PushTwice(n) if self.server.told => {
                if let Some(index) = pick(n, self.server.pushes.len()) {
                    let sequence = match step {
                        Step::Push(_) => self.server.pushes.remove(index),
                        _ => self.server.pushes[index],
                    };
                    self.rig.push(sequence);
                }
            }
            Step::PushIsLost(n) => {
                if let Some(index) = pick(n, self.server.pushes.len()) {
                    self.server.pushes.remove(index);
                }
            }
            Step::Lose => {
                if self.rig.is_open {
                    self.rig.lose();
                }
            }
            Step::Connect => {
                if !self.rig.is_open {
                    self.rig.open();
                }
            }
            Step::TimePasses(ms) => self.rig.advance(Duration::from_millis(ms.into())),
            Step::Push(_) | Step::PushTwice(_) => {}
        }
        if !self.rig.is_open {
            self.server.connection_lost();
        }
    }

    fn deliver(&mut self, request_id: u64, id: Id, content: Vec<u8>) {
        let frame = proto::ResponseFrame {
            message_id: id.0,
            content: content.into(),
            request_id,
        };
        self.rig.state.handle_life(self.rig.now);
        self.rig.state.handle_frame(self.rig.now, frame);
        self.rig.settle();
    }

    /// The network is well from here on.
    fn come_to_rest(&mut self) {
        let calm = [
            Step::Connect,
            Step::ServerWorks,
            Step::Answer(0),
            Step::Push(0),
            Step::TimePasses(1),
        ];
        for round in 0..3_000 {
            if round == 1_000 {
                // Shows that something is missing, if it is.
                self.server.friend_says();
            }
            for step in &calm {
                self.step(step);
            }
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_messages_are_shown_once_in_order_and_requests_complete_once(
        steps in proptest::collection::vec(step(), 0..150)
    ) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            for results in world.sends.iter().chain(&world.others) {
                prop_assert!(results.all().len() <= 1);
            }
        }
        // One whose answer is lost with its connection leaves the user signed out.
        if world.rig.state.user().is_none() {
            let results = world.rig.ask(login());
            world.others.push(results);
        }
        world.come_to_rest();

        let log = &world.server.log;
        let others = (1..).zip(log).filter(|(_, entry)| entry.0 == FRIEND);
        let expected: Vec<u64> = others.map(|(sequence, _)| sequence).collect();
        prop_assert_eq!(world.rig.shown(), &expected[..]);
        prop_assert_eq!(Some(&world.server.acknowledged), expected.last());
        for (id, results) in (1..).zip(&world.sends) {
            let results = results.all();
            prop_assert_eq!(results.len(), 1);
            let copies = log.iter().filter(|&&entry| entry == (ME, id)).count();
            match &results[0] {
                Ok(Answer::Sent(sent)) => {
                    prop_assert_eq!(log[sent.sequence as usize - 1], (ME, id));
                    prop_assert_eq!(copies, 1);
                }
                Ok(other) => prop_assert!(false, "a send answered with {:?}", other),
                Err(_) => prop_assert!(copies <= 1),
            }
        }
        for results in &world.others {
            prop_assert_eq!(results.all().len(), 1);
        }
    }
}
