//! Clients that send whatever they like, and what must hold all the same.
//!
//! Bytes of no meaning, from a fuzzer or a generator, become [`Piece`]s of a connection: frames, some of
//! them good requests, and bytes that are none. [`endure`] sends them and checks the answers.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use chat_proto::frame;
use chat_proto::ids::MessageId;
use chat_proto::messages::*;
use prost::Message as _;

use crate::WireClient;

/// The longest frame that a proxy takes by default.
const FRAME_BYTES_MAX: usize = 256 << 10;
/// Pieces of one connection: a few more than a proxy answers at a time.
const PIECES_MAX: usize = 80;

/// A part of what a client sends.
#[derive(Debug, Clone)]
pub enum Piece {
    /// A frame.
    Frame(RequestFrame),
    /// Bytes, as they are.
    Raw(Vec<u8>),
}

/// Whom a hostile client knows.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// Who it can log in as.
    pub own_user: i32,
    /// With this password.
    pub password: &'static str,
    /// Others.
    pub others: [i32; 2],
}

/// Reads any bytes as what a client sends. Each piece is a byte that says what it is, one that says how
/// long, and that many bytes of content.
pub fn pieces(mut input: &[u8], known: &Known) -> Vec<Piece> {
    let mut pieces = Vec::new();
    while let [kind, length, rest @ ..] = input
        && pieces.len() < PIECES_MAX
    {
        let (content, after) = rest.split_at(usize::from(*length).min(rest.len()));
        input = after;
        let request_id = pieces.len() as u64 + 1;
        pieces.push(piece(*kind, content, request_id, known));
    }
    pieces
}

fn piece(kind: u8, content: &[u8], request_id: u64, known: &Known) -> Piece {
    let user_id = known.own_user;
    let number = content.first().copied().unwrap_or_default();
    let [one, two] = known.others;
    let user = [one, two, user_id, 0, -1, i32::MAX][usize::from(number % 6)];
    let group = i32::from(number % 4);
    let rest = content.get(1..).unwrap_or_default();
    let bytes = Bytes::copy_from_slice(rest);
    let text = String::from_utf8_lossy(rest).into_owned();
    let sender = Some(Sender {
        user_id,
        ..Default::default()
    });
    let (id, content) = match kind % 16 {
        0 => return Piece::Raw(content.to_vec()),
        1 => (
            MessageId::LOGIN,
            LoginRequest {
                user_id: if number % 4 == 0 { user } else { user_id },
                user_password: match number % 8 {
                    1 => bytes,
                    _ => Bytes::from_static(known.password.as_bytes()),
                },
                acknowledges: number % 2 == 0,
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        2 => (
            MessageId::REGISTER,
            RegisterRequest {
                user_name: bytes.clone(),
                user_password: bytes,
            }
            .encode_to_vec(),
        ),
        3 => (
            MessageId::FRIEND_CHAT,
            FriendChatRequest {
                sender,
                receiver: Some(Receiver {
                    user_id: user,
                    ..Default::default()
                }),
                content: text,
                client_message_id: u64::from(number),
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        4 => (
            MessageId::GROUP_CHAT,
            GroupChatRequest {
                sender,
                receiver: Some(Receiver {
                    group_id: group,
                    ..Default::default()
                }),
                content: text,
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        5 => (
            MessageId::ADD_FRIEND,
            AddFriendRequest {
                user_id,
                friend_id: user,
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        6 => (
            MessageId::CREATE_GROUP,
            CreateGroupRequest {
                user_id,
                group_name: bytes.clone(),
                group_description: bytes,
            }
            .encode_to_vec(),
        ),
        7 => (
            MessageId::ADD_GROUP,
            AddGroupRequest {
                user_id,
                group_id: group,
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        8 => (
            MessageId::LOGOUT,
            LogoutRequest {
                user_id,
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        // The content is what it is, and so may be the id.
        kind => {
            let id = match kind {
                9 => i32::from_be_bytes([number, 0, 0, number]),
                10..=12 => i32::from(number % 24),
                _ => 100 + i32::from(number % 24),
            };
            (MessageId(id), rest.to_vec())
        }
    };
    Piece::Frame(RequestFrame {
        message_id: id.0,
        content: content.into(),
        request_id,
    })
}

/// Sends the pieces on a connection of their own, ends it, and waits for the other side's end.
///
/// # Panics
/// If a request was not answered exactly once while the proxy could still understand the connection, if
/// what was not asked was answered, or if the connection is not closed in the end.
pub fn endure(address: SocketAddr, pieces: &[Piece]) {
    let mut sent = BytesMut::new();
    for piece in pieces {
        match piece {
            Piece::Frame(request) => frame::encode(request, &mut sent),
            Piece::Raw(bytes) => sent.extend_from_slice(bytes),
        }
    }
    let mut client = WireClient::connect(address);
    client.send_all_it_takes(&sent);
    let received = client.closed();

    let (requests, is_broken) = understood(sent);
    let mut answers: BTreeMap<u64, Vec<i32>> = BTreeMap::new();
    for frame in received.iter().filter(|frame| frame.request_id != 0) {
        let answers = answers.entry(frame.request_id).or_default();
        answers.push(frame.message_id);
    }
    for (request_id, asked) in &requests {
        let answered = answers.remove(request_id).unwrap_or_default();
        // An acknowledgement is answered only if it is refused.
        let least = asked
            .iter()
            .filter(|id| **id != MessageId::DELIVERY_ACK.0)
            .count();
        let range = if is_broken { 0 } else { least }..=asked.len();
        assert!(
            range.contains(&answered.len()),
            "request {request_id}, {asked:?}, was answered by {answered:?}"
        );
    }
    assert!(answers.is_empty(), "nobody asked: {answers:?}");
    if is_broken {
        let last = received.last().map(|frame| frame.message_id);
        assert_eq!(last, Some(MessageId::ERROR.0), "told why it is closed");
    }
}

/// The message ids of the requests that can be understood, by request id, and whether what follows
/// them cannot be.
fn understood(mut sent: BytesMut) -> (BTreeMap<u64, Vec<i32>>, bool) {
    let mut requests: BTreeMap<u64, Vec<i32>> = BTreeMap::new();
    loop {
        match frame::decode::<RequestFrame>(&mut sent, FRAME_BYTES_MAX) {
            Ok(Some(request)) if request.request_id != 0 => {
                let asked = requests.entry(request.request_id).or_default();
                asked.push(request.message_id);
            }
            Ok(Some(_)) => {}
            Ok(None) => return (requests, false),
            Err(_) => return (requests, true),
        }
    }
}

/// Two friends, whose conversation nobody else may change.
#[derive(Debug)]
pub struct Witness {
    client: WireClient,
    friend: i32,
}

impl Witness {
    /// Registers the two and makes them friends; returns who they are, too.
    pub fn new(address: SocketAddr) -> (Self, [i32; 2]) {
        let system = crate::System {
            left: address.into(),
            right: address.into(),
        };
        let (left, right) = crate::suite::friends(&system);
        let users = [left.user_id, right.user_id];
        let witness = Self {
            friend: right.user_id,
            client: left,
        };
        (witness, users)
    }

    /// Checks that the chat serves the two, and that nothing was added to what they said.
    pub fn check(&mut self) {
        self.client.forget_pushes();
        let request = FetchHistoryRequest {
            user_id: self.client.user_id,
            conversation: Some(Conversation {
                friend_id: self.friend,
                group_id: 0,
            }),
            ..Default::default()
        };
        let (id, answer_id) = (MessageId::FETCH_HISTORY, MessageId::FETCH_HISTORY_ANSWER);
        let history: FetchHistoryResponse = self.client.request(id, &request, answer_id);
        assert_eq!(
            history.error_code,
            chat_proto::ids::code::SUCCESS,
            "{}",
            history.error_text
        );
        // That they became friends.
        assert_eq!(history.last_sequence, 1, "{:?}", history.messages);
    }
}
