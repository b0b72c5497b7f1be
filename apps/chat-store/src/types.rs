//! What goes into a store and what comes out of it.

use std::{fmt, num::NonZeroU64, sync::Arc};

use crate::{ConversationId, GroupId, UserId, terms::Terms};

/// The longest name of a user or a group, in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 255;
/// The longest description of a group, in bytes of UTF-8.
pub const DESCRIPTION_BYTES_MAX: usize = 1024;
/// The longest text of a message, in bytes of UTF-8.
pub const CONTENT_BYTES_MAX: usize = 64 * 1024;
/// The longest time text that a client sends along, in bytes of UTF-8.
pub const CLIENT_TIME_BYTES_MAX: usize = 64;
/// The longest password hash, in bytes.
pub const PASSWORD_HASH_BYTES_MAX: usize = 255;

/// A registered user.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// Given out at registration.
    pub id: UserId,
    /// Unique, compared byte by byte.
    pub name: String,
    /// As it was given to `create_user`.
    pub password_hash: String,
    /// When the user was last online; UTC, milliseconds since 1970.
    pub last_offline_at_ms: Option<i64>,
    /// The number of the last login; each has a higher one than those before. 0: there was none.
    pub last_login: u64,
}

/// Leaves the password hash out, so that no log can have it.
impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("last_offline_at_ms", &self.last_offline_at_ms)
            .field("last_login", &self.last_login)
            .finish_non_exhaustive()
    }
}

/// One of a user's friends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Friend {
    /// Who it is.
    pub id: UserId,
    /// The friend's name.
    pub name: String,
}

impl Friend {
    /// What a friend takes in a list: the name, and no more than this for the rest in whatever form a client gets it.
    pub fn bytes(&self) -> usize {
        24 + self.name.len()
    }
}

/// A group with its members, or some of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// Given out when it was created.
    pub id: GroupId,
    /// Need not be unique.
    pub name: String,
    /// May be empty.
    pub description: String,
    /// By id.
    pub members: Vec<Member>,
    /// There are members after these.
    pub more_members: bool,
}

impl Group {
    /// What a group takes in a list without its members, as [`Friend::bytes`].
    pub fn bytes(&self) -> usize {
        32 + self.name.len() + self.description.len()
    }
}

/// One member of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Who it is.
    pub id: UserId,
    /// The member's name.
    pub name: String,
    /// What the member may do.
    pub role: Role,
}

impl Member {
    /// The least that a member takes.
    pub(crate) const BYTES_MIN: usize = 32;

    /// What a member takes in a list, as [`Friend::bytes`].
    pub fn bytes(&self) -> usize {
        Self::BYTES_MIN + self.name.len()
    }
}

/// One page of a list, in the order of its ids.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page<T> {
    /// What the page holds.
    pub items: Vec<T>,
    /// There is more after the last one.
    pub more: bool,
}

impl<T> Default for Page<T> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            more: false,
        }
    }
}

/// What a member of a group may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Talk and leave.
    Member,
    /// Also delete the group. Each group has exactly one.
    Admin,
}

/// What a message tells; the numbers are those of `MessageType` in the client protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MessageKind {
    /// Text from one friend to the other.
    FriendChat,
    /// Text to a group.
    GroupChat,
    /// The sender made the other one a friend.
    AddFriend,
    /// The sender ended the friendship.
    DeleteFriend,
    /// The sender joined the group.
    JoinGroup,
    /// The sender left the group.
    LeaveGroup,
    /// The sender deleted the group; the content is the name it had.
    DeleteGroup,
}

impl MessageKind {
    const ALL: [Self; 7] = [
        Self::FriendChat,
        Self::GroupChat,
        Self::AddFriend,
        Self::DeleteFriend,
        Self::JoinGroup,
        Self::LeaveGroup,
        Self::DeleteGroup,
    ];

    /// Its number in the client protocol and in the database.
    pub const fn number(self) -> i32 {
        match self {
            Self::FriendChat => 1,
            Self::GroupChat => 2,
            Self::AddFriend => 3,
            Self::DeleteFriend => 4,
            Self::JoinGroup => 5,
            Self::LeaveGroup => 6,
            Self::DeleteGroup => 7,
        }
    }

    /// The kind with this number.
    pub fn from_number(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }
}

/// A chat message on its way into the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewMessage {
    /// Where it goes; decides whether it is a friend's or a group's message.
    pub conversation: ConversationId,
    /// Must be a friend of the other one, or a member of the group.
    pub sender: UserId,
    /// The sender's own id of it: the same message sent again is stored once, and another message under the
    /// same id is refused. `None`: every send is stored.
    pub client_message_id: Option<NonZeroU64>,
    /// At most [`CONTENT_BYTES_MAX`].
    pub content: String,
    /// The sender's local time as text, only echoed. At most [`CLIENT_TIME_BYTES_MAX`].
    pub client_time: String,
    /// On what terms it is stored.
    pub terms: Terms,
}

/// A message of a conversation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredMessage {
    /// Where it belongs.
    pub conversation: ConversationId,
    /// Its place there, from 1, without gaps.
    pub sequence: u64,
    /// Who wrote it, or did what it tells.
    pub sender: UserId,
    /// The sender's name.
    pub sender_name: String,
    /// What it tells.
    pub kind: MessageKind,
    /// As in [`NewMessage`].
    pub client_message_id: Option<NonZeroU64>,
    /// The text; empty where the kind says it all.
    pub content: String,
    /// As in [`NewMessage`]; empty in what the chat itself wrote.
    pub client_time: String,
    /// When the store committed it: UTC, milliseconds since 1970, by the clock of the server that
    /// wrote it. Not an order; that is what `sequence` is.
    pub created_at_ms: i64,
}

impl StoredMessage {
    /// What a message takes in an answer: its texts, and no more than this for the rest in whatever form it travels.
    pub fn bytes(&self) -> usize {
        128 + self.content.len() + self.sender_name.len() + self.client_time.len()
    }
}

/// The place and time that a message got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// As in [`StoredMessage`].
    pub sequence: u64,
    /// As in [`StoredMessage`].
    pub created_at_ms: i64,
}

/// What became of one message of a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AppendOutcome {
    /// It is stored and will be delivered.
    Committed {
        /// Where and when.
        stamp: Stamp,
        /// The sender's name, for what is pushed.
        sender_name: Arc<str>,
        /// In a group: who was a member when it was committed, the sender among them, in the order they
        /// joined.
        members: Option<Arc<[UserId]>>,
    },
    /// The same message (client message id, conversation, content and client time) was stored before; here is
    /// where and when.
    Duplicate(Stamp),
    /// The sender's client message id names another message: nothing was stored.
    IdInUse,
    /// The two are not friends.
    NotFriends,
    /// The sender is not a member, or there is no such group.
    NotMember,
    /// Content or time text is longer than what is kept.
    TooLong,
    /// The deadline of its terms has passed.
    TooLate,
    /// The sender has logged in again since.
    Displaced,
}

/// A user has everything of a conversation up to and including a sequence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ack {
    /// Who has it.
    pub user: UserId,
    /// Of which conversation.
    pub conversation: ConversationId,
    /// The last sequence that was received.
    pub sequence: u64,
}

/// Where a user stands in a conversation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConversationState {
    /// Which one.
    pub conversation: ConversationId,
    /// The user has everything up to here.
    pub acked_sequence: u64,
    /// The newest message.
    pub last_sequence: u64,
}

/// SHA-256 of a session token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TokenHash(pub [u8; 32]);

impl TokenHash {
    /// 64 lower-case digits.
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }
}

/// What a user can resume a session with, as the store keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionToken {
    /// Of the token, which only the client has.
    pub hash: TokenHash,
    /// When it expires: UTC, milliseconds since 1970.
    pub expires_at_ms: i64,
}

/// Whose a valid token is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenOwner {
    /// The user.
    pub user: User,
    /// When the token expires: UTC, milliseconds since 1970.
    pub expires_at_ms: i64,
}

/// A place in a conversation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// Which conversation.
    pub conversation: ConversationId,
    /// Everything up to and including this one.
    pub sequence: u64,
}

/// Which conversations a request for pending messages covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PendingScope {
    /// Those that are named.
    Named,
    /// All of the user's; those not named from where they are acknowledged.
    All,
}

/// How much one answer may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageLimit {
    /// Messages at most.
    pub messages_max: usize,
    /// Bytes of messages at most, by [`StoredMessage::bytes`], but one message always fits.
    pub bytes_max: usize,
}

/// A part of what a user has not received, one consistent view of the store.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PendingPage {
    /// By conversation, then by sequence.
    pub messages: Vec<StoredMessage>,
    /// For each covered conversation: with these messages, the user has everything up to here.
    /// Acknowledging it once they are delivered also passes the user's own messages.
    pub marks: Vec<Mark>,
    /// The limit was reached; ask again after these marks.
    pub more: bool,
}

/// What a login needs, one consistent view of the store.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Overview {
    /// Everything pending, with a mark for every conversation.
    pub pending: PendingPage,
    /// The first friends.
    pub friends: Page<Friend>,
    /// The first groups.
    pub groups: Page<Group>,
}

/// What became of a registration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CreateUser {
    /// Registered.
    Created(UserId),
    /// Somebody has that name.
    NameTaken,
}

/// What became of making a friend.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AddFriend {
    /// They are friends now.
    Added {
        /// The message that tells the friend.
        stamp: Stamp,
        /// The friend's name.
        friend_name: String,
    },
    /// There is no such friend, or it is the user itself.
    NoSuchUser,
    /// They were before.
    AlreadyFriends,
    /// One of the two has as many friends as allowed.
    TooManyFriends {
        /// Which one.
        of: UserId,
    },
}

/// What became of ending a friendship.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DeleteFriend {
    /// They are friends no more; this message tells the other one.
    Deleted(Stamp),
    /// There is no such friend.
    NoSuchUser,
    /// They were not.
    NotFriends,
}

/// What became of creating a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CreateGroup {
    /// It is there.
    Created(Group),
    /// The creator is in as many groups as allowed.
    TooManyGroups,
}

/// What became of joining a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum JoinGroup {
    /// The user is a member now.
    Joined {
        /// The message that tells the others.
        stamp: Stamp,
        /// The name of the new member.
        user_name: String,
        /// The group. Of its members, the new one among them, as many as take 512 KiB.
        group: Group,
        /// All members, the new one among them.
        members: Vec<UserId>,
    },
    /// There is no such group.
    NoSuchGroup,
    /// The user was a member before.
    AlreadyMember,
    /// It has as many members as allowed.
    Full,
    /// The user is in as many groups as allowed.
    TooManyGroups,
}

/// What became of leaving a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LeaveGroup {
    /// The user is no member any more.
    Left {
        /// The message that tells the others.
        stamp: Stamp,
        /// Who is still there. Nobody: the group is deleted.
        members: Vec<UserId>,
        /// The longest-standing member, when the admin left.
        new_admin: Option<UserId>,
    },
    /// The user was none, or there is no such group.
    NotMember,
}

/// What became of deleting a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DeleteGroup {
    /// It is gone.
    Deleted {
        /// The message that tells the others.
        stamp: Stamp,
        /// Who was a member, the one who deleted it among them.
        members: Vec<UserId>,
    },
    /// There is no such group.
    NoSuchGroup,
    /// The user is not a member.
    NotMember,
    /// The user is a member, but not the admin.
    NotAdmin,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_the_numbers_one_to_seven() {
        for (number, kind) in (1..).zip(MessageKind::ALL) {
            assert_eq!(kind.number(), number);
            assert_eq!(MessageKind::from_number(number), Some(kind));
        }
        assert_eq!(MessageKind::from_number(0), None);
        assert_eq!(MessageKind::from_number(8), None);
    }

    #[test]
    fn a_printed_user_shows_no_password_hash() {
        let user = User {
            id: UserId::new(1).unwrap(),
            name: "ann".into(),
            password_hash: "$argon2id$secret".into(),
            last_offline_at_ms: None,
            last_login: 0,
        };
        assert!(!format!("{user:?}").contains("secret"));
    }
}
