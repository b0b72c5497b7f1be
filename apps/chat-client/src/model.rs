//! What an application sees of the chat: people, groups, messages and events.

use std::fmt;

use bytes::Bytes;
use chat_proto::conversation::{GroupId, UserId};
use chat_proto::messages as proto;

use crate::{ChatError, Operation, SessionToken};

/// A user, as people name users: by the id, which registering gave, or by the name, which is unique.
///
/// Names are compared byte by byte once they are in Unicode's form NFC and without space around.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Who {
    /// The user with this id.
    Id(UserId),
    /// The user of this name. A server from before there were logins by name refuses it as a bad id.
    Name(String),
}

impl Who {
    /// The two fields that name a user in a request: the id, and the name where there is no id.
    pub(crate) fn to_proto(&self) -> (i32, Bytes) {
        match self {
            Self::Id(id) => (id.get(), Bytes::new()),
            Self::Name(name) => (0, name.clone().into()),
        }
    }
}

impl From<UserId> for Who {
    fn from(id: UserId) -> Self {
        Self::Id(id)
    }
}

impl From<&str> for Who {
    fn from(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

impl From<String> for Who {
    fn from(name: String) -> Self {
        Self::Name(name)
    }
}

/// What a message belongs to, as the signed-in user sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Conversation {
    /// The one with this friend.
    Friend(UserId),
    /// That of this group.
    Group(GroupId),
}

impl Conversation {
    pub(crate) fn to_proto(self) -> proto::Conversation {
        let (friend_id, group_id) = match self {
            Self::Friend(friend) => (friend.get(), 0),
            Self::Group(group) => (0, group.get()),
        };
        proto::Conversation {
            friend_id,
            group_id,
        }
    }
}

impl fmt::Display for Conversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Friend(friend) => write!(f, "friend {friend}"),
            Self::Group(group) => write!(f, "group {group}"),
        }
    }
}

/// Whether somebody is online, as of the answer that said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Signed in.
    Online,
    /// Not signed in.
    Offline,
}

impl Presence {
    fn from_wire(state: &[u8]) -> Self {
        if state == b"online" {
            Self::Online
        } else {
            Self::Offline
        }
    }
}

/// A friend of the signed-in user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Friend {
    /// The friend's user id.
    pub user: UserId,
    /// The friend's name.
    pub name: String,
    /// Whether the friend is online.
    pub presence: Presence,
}

impl Friend {
    /// `None` for what is no user.
    pub(crate) fn from_proto(friend: &proto::FriendUser) -> Option<Self> {
        Some(Self {
            user: UserId::new(friend.friend_id)?,
            name: text(&friend.friend_name),
            presence: Presence::from_wire(&friend.friend_state),
        })
    }

    pub(crate) fn list(list: Option<proto::FriendList>) -> Vec<Self> {
        let friends = list.unwrap_or_default().friend_users;
        friends.iter().filter_map(Self::from_proto).collect()
    }
}

/// What a member is in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Made the group and may delete it.
    Admin,
    /// Everybody else.
    Member,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The member's user id.
    pub user: UserId,
    /// The member's name.
    pub name: String,
    /// Whether the member is online.
    pub presence: Presence,
    /// What the member is in the group.
    pub role: Role,
}

/// A group of the signed-in user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The group's id.
    pub group: GroupId,
    /// The group's name.
    pub name: String,
    /// What the group says of itself.
    pub description: String,
    /// The members by id, the signed-in user among them.
    pub members: Vec<Member>,
    /// There are more, which could not be fetched before the answer was handed over: the connection was lost, or
    /// [`ClientOptions::list_entries_max`](crate::ClientOptions::list_entries_max) was reached.
    pub more_members: bool,
}

impl Member {
    fn from_proto(member: &proto::GroupUser) -> Option<Self> {
        Some(Self {
            user: UserId::new(member.user_id)?,
            name: text(&member.user_name),
            presence: Presence::from_wire(&member.user_state),
            role: if member.user_role == b"admin"[..] {
                Role::Admin
            } else {
                Role::Member
            },
        })
    }

    pub(crate) fn list(list: Option<proto::GroupUserList>) -> Vec<Self> {
        let members = list.unwrap_or_default().group_users;
        members.iter().filter_map(Self::from_proto).collect()
    }
}

impl Group {
    /// `None` for what is no group.
    pub(crate) fn from_proto(group: proto::Group) -> Option<Self> {
        Some(Self {
            group: GroupId::new(group.group_id)?,
            name: text(&group.group_name),
            description: text(&group.group_description),
            members: Member::list(group.group_user_list),
            more_members: group.more_members,
        })
    }

    pub(crate) fn list(list: Option<proto::GroupList>) -> Vec<Self> {
        let groups = list.unwrap_or_default().groups;
        groups.into_iter().filter_map(Self::from_proto).collect()
    }
}

/// Where the server put a message that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Its place in the conversation, from 1.
    pub sequence: u64,
    /// When it was stored: UTC, milliseconds since 1970.
    pub server_time_ms: i64,
}

/// What a login brings along. The messages that waited for the user come as
/// [`Event::Message`], like all others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginSnapshot {
    /// Who signed in.
    pub user: UserId,
    /// Under which name.
    pub name: String,
    /// The user's friends.
    pub friends: Vec<Friend>,
    /// There are more friends, which could not be fetched: see [`Group::more_members`].
    pub more_friends: bool,
    /// The user's groups.
    pub groups: Vec<Group>,
    /// There are more groups, as well.
    pub more_groups: bool,
    /// How many messages waited.
    pub waiting: usize,
    /// What the session can be resumed with; `None` from a server that knows no tokens.
    pub token: Option<SessionToken>,
}

/// A piece of a conversation's history. It may have fewer messages than were asked for: an answer has at most about a
/// mebibyte of them. The next piece begins behind the last one, until `last_sequence`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryPage {
    /// Messages of all sides, ascending.
    pub messages: Vec<Message>,
    /// The newest sequence of the conversation.
    pub last_sequence: u64,
}

/// Something that somebody said or did in a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where it belongs.
    pub conversation: Conversation,
    /// Its place there, from 1; with the conversation it names the message. 0 from a server that
    /// does not number.
    pub sequence: u64,
    /// Who did it.
    pub sender: UserId,
    /// The sender's name, if it came along.
    pub sender_name: String,
    /// What was said or done.
    pub body: Body,
    /// The sender's local time, "YYYY-MM-DD HH:MM:SS", as the sender says.
    pub sender_time: String,
    /// When it was stored: UTC, milliseconds since 1970. 0 if it did not come along.
    pub server_time_ms: i64,
}

/// What a message is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Body {
    /// A text, as the sender wrote it: may hold control characters.
    Text(String),
    /// The sender made the user a friend.
    FriendAdded,
    /// The sender ended the friendship.
    FriendDeleted,
    /// The sender joined the group.
    GroupJoined,
    /// The sender left the group.
    GroupLeft,
    /// The sender deleted the group.
    GroupDeleted,
}

impl Message {
    /// A stored message; `None` when it names nobody, or is of a kind not known here.
    pub(crate) fn from_proto(message: proto::Message) -> Option<Self> {
        use proto::MessageType as Kind;
        let sender = message.sender.unwrap_or_default();
        let receiver = message.receiver.unwrap_or_default();
        let user = UserId::new(sender.user_id)?;
        let kind = Kind::try_from(message.message_type).ok()?;
        let body = match kind {
            Kind::FriendChat | Kind::GroupChat => Body::Text(message.content),
            Kind::AddFriend => Body::FriendAdded,
            Kind::DeleteFriend => Body::FriendDeleted,
            Kind::AddGroup => Body::GroupJoined,
            Kind::QuitGroup => Body::GroupLeft,
            Kind::DeleteGroup => Body::GroupDeleted,
            Kind::Unknown => return None,
        };
        let conversation = match kind {
            Kind::FriendChat | Kind::AddFriend | Kind::DeleteFriend => Conversation::Friend(user),
            _ => {
                let group = GroupId::new(receiver.group_id).or(GroupId::new(sender.group_id));
                Conversation::Group(group?)
            }
        };
        Some(Self {
            conversation,
            sequence: message.sequence,
            sender: user,
            sender_name: text(&sender.user_name),
            body,
            sender_time: message.time,
            server_time_ms: message.server_time_ms,
        })
    }
}

/// What a client tells its application without being asked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A message for the user: each once, and in order within its conversation. It is acknowledged
    /// to the server once it was handed over.
    Message(Message),
    /// A connection is made, and nobody is signed in on it. Also when the server has ended the one before because
    /// nobody signed in for long (the proxy's `clients.login_timeout`): nothing is lost then, and no other event tells.
    Connected,
    /// The connection was lost. It is being made again.
    Disconnected {
        /// Why.
        reason: String,
    },
    /// An attempt to connect failed. The next one follows.
    Unreachable {
        /// Attempts in a row that failed.
        failures: u32,
        /// Why.
        reason: String,
    },
    /// The connection is there again, and the session goes on.
    Reconnected {
        /// Sends without an answer that were sent again.
        resent: usize,
    },
    /// The user is no longer signed in, and will not be by itself: logged in elsewhere, or the session
    /// has expired. To go on, log in with the password.
    SignedOut {
        /// What the server said.
        reason: String,
    },
    /// The server could not treat something, and it is no request's answer.
    Problem {
        /// Its code.
        code: i32,
        /// Its words.
        text: String,
    },
}

/// How a client stands with the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// There is no connection; one is being made.
    Connecting,
    /// Connected, and nobody is signed in.
    Connected,
    /// Connected again, and the session is being resumed.
    Resuming,
    /// Signed in.
    Live,
}

/// What the server answered to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    User(UserId),
    Login(LoginSnapshot),
    Sent(Sent),
    Friend(Friend),
    Group(Group),
    Friends(Vec<Friend>),
    Groups(Vec<Group>),
    /// Of one group.
    Members(Vec<Member>),
    History(HistoryPage),
}

/// A result that one kind of [`Answer`] holds.
pub(crate) trait FromAnswer: Sized {
    fn from_answer(answer: Answer) -> Option<Self>;
}

macro_rules! from_answer {
    ($($variant:ident($result:ty);)*) => {
        $(impl FromAnswer for $result {
            fn from_answer(answer: Answer) -> Option<Self> {
                match answer {
                    Answer::$variant(result) => Some(result),
                    _ => None,
                }
            }
        })*
    };
}

from_answer! {
    User(UserId);
    Login(LoginSnapshot);
    Sent(Sent);
    Friend(Friend);
    Group(Group);
    Friends(Vec<Friend>);
    Groups(Vec<Group>);
    History(HistoryPage);
}

impl FromAnswer for () {
    fn from_answer(answer: Answer) -> Option<Self> {
        matches!(answer, Answer::Done).then_some(())
    }
}

/// Text off the wire; what is not UTF-8 is shown as such.
pub(crate) fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// An answer without the part that it should have.
pub(crate) fn incomplete(operation: Operation) -> ChatError {
    ChatError::Protocol(format!("the answer to {operation} lacks its content"))
}
