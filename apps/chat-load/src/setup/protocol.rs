//! Users made over the protocol, as any client would be: for a chat whose store is not at hand.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use chat_proto::frame;
use chat_proto::ids::{MessageId, code};
use chat_proto::messages::*;

use super::{PASSWORD, SetupError, empty_roster, fresh_prefix, in_parallel};
use crate::roster::{Dealt, Participants, Roster, Shape};

const PATIENCE: Duration = Duration::from_secs(30);
/// The pause before what was refused for the moment is tried again.
const PAUSE: Duration = Duration::from_millis(100);

/// Registers users at these addresses, in turn, and has them become friends and found groups.
///
/// # Errors
/// See [`SetupError`].
pub fn register(addresses: &[SocketAddr], shape: Shape) -> Result<Roster, SetupError> {
    let prefix = fresh_prefix();
    let users = in_parallel(shape.users(), |index| {
        let mut client = Client::connect(addresses, index)?;
        let request = RegisterRequest {
            user_name: format!("{prefix} {index}").into(),
            user_password: Bytes::from_static(PASSWORD.as_bytes()),
        };
        let answer: RegisterResponse = client.ask("registering", MessageId::REGISTER, &request)?;
        Ok(answer.user_id)
    })?;
    let Dealt {
        pairs,
        groups,
        idle,
    } = shape.deal(users);
    let mut roster = empty_roster();
    roster.idle = idle;
    // One connection for each user: a second login would end the first.
    let by_user: Vec<_> = pairs.chunk_by(|one, next| one.0 == next.0).collect();
    let made = in_parallel(by_user.len(), |index| {
        befriend(addresses, index, by_user[index])
    })?;
    roster.conversations.extend(made.into_iter().flatten());
    let made = in_parallel(groups.len(), |index| {
        found_group(addresses, &prefix, &groups[index])
    })?;
    roster.conversations.extend(made);
    Ok(roster)
}

/// Has one user, the first of each pair, add the others.
fn befriend(
    addresses: &[SocketAddr],
    index: usize,
    pairs: &[(i32, i32)],
) -> Result<Vec<Participants>, SetupError> {
    let Some(&(user_id, _)) = pairs.first() else {
        return Ok(Vec::new());
    };
    let mut client = Client::log_in(addresses, index, user_id)?;
    let mut add = |&(_, friend_id): &(i32, i32)| {
        let request = AddFriendRequest {
            user_id,
            friend_id,
            ..Default::default()
        };
        let answer: AddFriendResponse =
            client.ask("adding a friend", MessageId::ADD_FRIEND, &request)?;
        Ok(Participants {
            group: None,
            members: vec![user_id, friend_id],
            last_sequence: answer.sequence,
        })
    };
    pairs.iter().map(&mut add).collect()
}

fn found_group(
    addresses: &[SocketAddr],
    prefix: &str,
    members: &[i32],
) -> Result<Participants, SetupError> {
    let mut group_id = 0;
    let mut last_sequence = 0;
    for (index, &user_id) in members.iter().enumerate() {
        let mut client = Client::log_in(addresses, index, user_id)?;
        if index == 0 {
            let request = CreateGroupRequest {
                user_id,
                group_name: prefix.to_owned().into(),
                group_description: Bytes::new(),
            };
            let answer: CreateGroupResponse =
                client.ask("creating a group", MessageId::CREATE_GROUP, &request)?;
            group_id = answer.group.map_or(0, |group| group.group_id);
        } else {
            let request = AddGroupRequest {
                user_id,
                group_id,
                ..Default::default()
            };
            let answer: AddGroupResponse =
                client.ask("joining a group", MessageId::ADD_GROUP, &request)?;
            last_sequence = answer.sequence;
        }
    }
    Ok(Participants {
        group: Some(group_id),
        members: members.to_vec(),
        last_sequence,
    })
}

/// A connection that asks and waits.
struct Client {
    stream: TcpStream,
    input: BytesMut,
}

/// An answer with a code.
trait Answer: prost::Message + Default {
    fn code(&self) -> (i32, &str);
}

macro_rules! answers {
    ($($answer:ident)*) => {$(
        impl Answer for $answer {
            fn code(&self) -> (i32, &str) {
                (self.error_code, &self.error_text)
            }
        }
    )*};
}

answers! { RegisterResponse LoginResponse AddFriendResponse CreateGroupResponse AddGroupResponse }

impl Client {
    fn connect(addresses: &[SocketAddr], index: usize) -> Result<Self, SetupError> {
        let address = addresses.get(index % addresses.len().max(1));
        let stream = TcpStream::connect(address.ok_or_else(no_address)?)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            input: BytesMut::new(),
        })
    }

    fn log_in(addresses: &[SocketAddr], index: usize, user_id: i32) -> Result<Self, SetupError> {
        let mut client = Self::connect(addresses, index)?;
        let request = LoginRequest {
            user_id,
            user_password: Bytes::from_static(PASSWORD.as_bytes()),
            ..Default::default()
        };
        let _: LoginResponse = client.ask("logging in", MessageId::LOGIN, &request)?;
        Ok(client)
    }

    /// Asks until there is an answer that is no "try again".
    fn ask<A: Answer>(
        &mut self,
        what: &'static str,
        id: MessageId,
        request: &impl prost::Message,
    ) -> Result<A, SetupError> {
        let until = Instant::now() + PATIENCE;
        loop {
            let answer: A = self.ask_once(id, request)?;
            match answer.code() {
                (code::SUCCESS, _) => return Ok(answer),
                (code::UNAVAILABLE | code::RATE_LIMITED, _) if Instant::now() < until => {
                    std::thread::sleep(PAUSE);
                }
                (code, text) => {
                    return Err(SetupError::Refused {
                        what,
                        answer: format!("{code}: {text}"),
                    });
                }
            }
        }
    }

    fn ask_once<A: Answer>(
        &mut self,
        id: MessageId,
        request: &impl prost::Message,
    ) -> io::Result<A> {
        let frame = frame::to_bytes(&RequestFrame {
            message_id: id.0,
            content: request.encode_to_vec().into(),
            request_id: 1,
        });
        self.stream.write_all(&frame)?;
        loop {
            let frame = frame::decode::<ResponseFrame>(&mut self.input, 64 << 20);
            match frame.map_err(io::Error::other)? {
                Some(frame) if frame.request_id != 0 => {
                    return A::decode(frame.content).map_err(io::Error::other);
                }
                // A push.
                Some(_) => {}
                None => {
                    let mut buffer = [0; 16 * 1024];
                    let count = self.stream.read(&mut buffer)?;
                    if count == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    self.input.extend_from_slice(&buffer[..count]);
                }
            }
        }
    }
}

fn no_address() -> io::Error {
    io::ErrorKind::AddrNotAvailable.into()
}
