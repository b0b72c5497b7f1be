//! Requests as frames' contents, and back: answers and pushes.

use std::fmt;

use bytes::Bytes;
use chat_proto::conversation::{GroupId, UserId};
use chat_proto::ids::{MessageId, code};
use chat_proto::messages as proto;
use prost::{DecodeError, Message as _};

use crate::model::{Answer, incomplete, text};
use crate::{
    ChatError, Conversation, Friend, Group, HistoryPage, LoginSnapshot, Member, Message, Operation,
    Sent, SessionToken, Who,
};

/// What the application, or the state itself, asks of the server.
#[derive(Debug, Clone)]
pub(crate) enum Request {
    Register {
        name: String,
        password: Password,
    },
    Login {
        user: Who,
        password: Password,
    },
    /// After a lost connection: the session goes on.
    Resume {
        token: SessionToken,
        /// What the application has been handed.
        received: Vec<(Conversation, u64)>,
        /// Which one of this client it is; the state counts them.
        attempt: u64,
    },
    Logout,
    AddFriend(Who),
    DeleteFriend(UserId),
    CreateGroup {
        name: String,
        description: String,
    },
    JoinGroup(GroupId),
    LeaveGroup(GroupId),
    DeleteGroup(GroupId),
    Send {
        to: Conversation,
        text: String,
        client_message_id: u64,
        /// The sender's local time.
        time: String,
    },
    Friends,
    /// Those after this one.
    MoreFriends(UserId),
    Groups,
    /// Those after this one.
    MoreGroups(GroupId),
    /// The members after this one.
    Members {
        group: GroupId,
        after: Option<UserId>,
    },
    History {
        conversation: Conversation,
        first: u64,
        count_max: u32,
    },
}

/// A password: on its way to the server, never printed.
#[derive(Clone)]
pub(crate) struct Password(pub(crate) String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// What an answer means beyond its result.
#[derive(Debug)]
pub(super) enum Effect {
    None,
    /// There is more of the list.
    More,
    /// A message of the user's own has this place.
    Own(Conversation, u64),
    /// The user is a member from this place on.
    Joined(GroupId, u64),
    /// The group is no longer the user's.
    Left(GroupId),
    /// The user is signed in; these messages waited.
    SignedIn(Vec<Message>),
    SignedOut,
}

impl Request {
    pub(super) fn operation(&self) -> Operation {
        match self {
            Self::Register { .. } => Operation::Register,
            Self::Login { user, .. } => match user {
                Who::Id(_) => Operation::Login,
                Who::Name(_) => Operation::LoginByName,
            },
            Self::Resume { .. } => Operation::Resume,
            Self::Logout => Operation::Logout,
            Self::AddFriend(_) => Operation::AddFriend,
            Self::DeleteFriend(_) => Operation::DeleteFriend,
            Self::CreateGroup { .. } => Operation::CreateGroup,
            Self::JoinGroup(_) => Operation::JoinGroup,
            Self::LeaveGroup(_) => Operation::LeaveGroup,
            Self::DeleteGroup(_) => Operation::DeleteGroup,
            Self::Send { to, .. } => match to {
                Conversation::Friend(_) => Operation::FriendChat,
                Conversation::Group(_) => Operation::GroupChat,
            },
            Self::Friends | Self::MoreFriends(_) => Operation::Friends,
            Self::Groups | Self::MoreGroups(_) => Operation::Groups,
            Self::Members { .. } => Operation::Members,
            Self::History { .. } => Operation::History,
        }
    }

    /// The message id of the request, and that of its answer.
    pub(super) fn message_ids(&self) -> (MessageId, MessageId) {
        use MessageId as Id;
        match self.operation() {
            Operation::Register => (Id::REGISTER, Id::REGISTER_ANSWER),
            Operation::Login | Operation::LoginByName => (Id::LOGIN, Id::LOGIN_ANSWER),
            Operation::Resume => (Id::RESUME, Id::RESUME_ANSWER),
            Operation::Logout => (Id::LOGOUT, Id::LOGOUT_ANSWER),
            Operation::AddFriend => (Id::ADD_FRIEND, Id::ADD_FRIEND_ANSWER),
            Operation::DeleteFriend => (Id::DELETE_FRIEND, Id::DELETE_FRIEND_ANSWER),
            Operation::FriendChat => (Id::FRIEND_CHAT, Id::FRIEND_CHAT_ANSWER),
            Operation::CreateGroup => (Id::CREATE_GROUP, Id::CREATE_GROUP_ANSWER),
            Operation::JoinGroup => (Id::ADD_GROUP, Id::ADD_GROUP_ANSWER),
            Operation::LeaveGroup => (Id::QUIT_GROUP, Id::QUIT_GROUP_ANSWER),
            Operation::DeleteGroup => (Id::DELETE_GROUP, Id::DELETE_GROUP_ANSWER),
            Operation::GroupChat => (Id::GROUP_CHAT, Id::GROUP_CHAT_ANSWER),
            Operation::Friends => (Id::FETCH_FRIENDS, Id::FETCH_FRIENDS_ANSWER),
            Operation::Groups => (Id::FETCH_GROUPS, Id::FETCH_GROUPS_ANSWER),
            Operation::Members => (Id::FETCH_GROUP_MEMBERS, Id::FETCH_GROUP_MEMBERS_ANSWER),
            Operation::History => (Id::FETCH_HISTORY, Id::FETCH_HISTORY_ANSWER),
        }
    }

    /// The conversation to which it adds a message.
    pub(super) fn lane(&self) -> Option<Conversation> {
        match self {
            Self::Send { to, .. } => Some(*to),
            Self::AddFriend(Who::Id(user)) | Self::DeleteFriend(user) => {
                Some(Conversation::Friend(*user))
            }
            Self::JoinGroup(group) | Self::LeaveGroup(group) | Self::DeleteGroup(group) => {
                Some(Conversation::Group(*group))
            }
            _ => None,
        }
    }

    pub(super) fn needs_login(&self) -> bool {
        !matches!(self, Self::Register { .. }) && !self.is_login()
    }

    /// With the password or by the token.
    pub(super) fn is_login(&self) -> bool {
        matches!(self, Self::Login { .. } | Self::Resume { .. })
    }

    /// The content of the request's frame, for the user who is signed in under this name.
    /// `run`: who counts the attempts to resume.
    pub(super) fn encode(&self, user: Option<UserId>, name: &str, run: u64) -> Bytes {
        let user_id = user.map_or(0, UserId::get);
        let encoded = match self {
            Self::Register { name, password } => proto::RegisterRequest {
                user_name: name.clone().into(),
                user_password: password.0.clone().into(),
            }
            .encode_to_vec(),
            Self::Login { user, password } => {
                let (user_id, user_name) = user.to_proto();
                proto::LoginRequest {
                    user_id,
                    user_name,
                    user_password: password.0.clone().into(),
                    acknowledges: true,
                    wants_session_token: true,
                }
                .encode_to_vec()
            }
            Self::Resume {
                token,
                received,
                attempt,
            } => proto::ResumeRequest {
                user_id: token.user().get(),
                session_token: token.secret().clone(),
                acknowledges: true,
                received: acks(received.iter().copied()),
                attempt: *attempt,
                client_run: run,
            }
            .encode_to_vec(),
            Self::Logout => proto::LogoutRequest {
                user_id,
                ..Default::default()
            }
            .encode_to_vec(),
            Self::AddFriend(friend) => {
                let (friend_id, friend_name) = friend.to_proto();
                proto::AddFriendRequest {
                    user_id,
                    friend_id,
                    friend_name,
                    ..Default::default()
                }
                .encode_to_vec()
            }
            Self::DeleteFriend(friend) => proto::DeleteFriendRequest {
                user_id,
                friend_id: friend.get(),
                ..Default::default()
            }
            .encode_to_vec(),
            Self::CreateGroup { name, description } => proto::CreateGroupRequest {
                user_id,
                group_name: name.clone().into(),
                group_description: description.clone().into(),
            }
            .encode_to_vec(),
            Self::JoinGroup(group) => proto::AddGroupRequest {
                user_id,
                group_id: group.get(),
                ..Default::default()
            }
            .encode_to_vec(),
            Self::LeaveGroup(group) => proto::QuitGroupRequest {
                user_id,
                group_id: group.get(),
                ..Default::default()
            }
            .encode_to_vec(),
            Self::DeleteGroup(group) => proto::DeleteGroupRequest {
                user_id,
                group_id: group.get(),
                ..Default::default()
            }
            .encode_to_vec(),
            Self::Send {
                to,
                text,
                client_message_id,
                time,
            } => {
                let sender = Some(proto::Sender {
                    user_id,
                    user_name: name.to_owned().into(),
                    ..Default::default()
                });
                match to {
                    Conversation::Friend(friend) => proto::FriendChatRequest {
                        sender,
                        receiver: Some(proto::Receiver {
                            user_id: friend.get(),
                            ..Default::default()
                        }),
                        content: text.clone(),
                        time: time.clone(),
                        client_message_id: *client_message_id,
                        ..Default::default()
                    }
                    .encode_to_vec(),
                    Conversation::Group(group) => proto::GroupChatRequest {
                        sender,
                        receiver: Some(proto::Receiver {
                            group_id: group.get(),
                            ..Default::default()
                        }),
                        content: text.clone(),
                        time: time.clone(),
                        client_message_id: *client_message_id,
                        ..Default::default()
                    }
                    .encode_to_vec(),
                }
            }
            Self::Friends => fetch_friends(user_id, 0).encode_to_vec(),
            Self::MoreFriends(after) => fetch_friends(user_id, after.get()).encode_to_vec(),
            Self::Groups => fetch_groups(user_id, 0).encode_to_vec(),
            Self::MoreGroups(after) => fetch_groups(user_id, after.get()).encode_to_vec(),
            Self::Members { group, after } => proto::FetchGroupMembersRequest {
                user_id,
                group_id: group.get(),
                after_user_id: after.map_or(0, UserId::get),
            }
            .encode_to_vec(),
            Self::History {
                conversation,
                first,
                count_max,
            } => proto::FetchHistoryRequest {
                user_id,
                conversation: Some(conversation.to_proto()),
                first_sequence: *first,
                count_max: *count_max,
            }
            .encode_to_vec(),
        };
        encoded.into()
    }

    /// The result that an answer's content holds.
    pub(super) fn decode(&self, content: Bytes) -> Result<(Answer, Effect), ChatError> {
        let operation = self.operation();
        let check = |code: i32, text: String, reason: Option<proto::Reason>| match code {
            code::SUCCESS => Ok(()),
            code => Err(ChatError::Refused {
                operation,
                code,
                text,
                reason,
            }),
        };
        /// Decodes one type of answer and checks its code.
        macro_rules! answer {
            ($type:ident) => {{
                let answer = proto::$type::decode(content).map_err(unreadable)?;
                check(answer.error_code, answer.error_text.clone(), None)?;
                answer
            }};
            ($type:ident with a reason) => {{
                let answer = proto::$type::decode(content).map_err(unreadable)?;
                check(answer.error_code, answer.error_text.clone(), answer.reason)?;
                answer
            }};
        }
        Ok(match self {
            Self::Register { .. } => {
                let user = UserId::new(answer!(RegisterResponse with a reason).user_id);
                let user = user.ok_or_else(|| incomplete(operation))?;
                (Answer::User(user), Effect::None)
            }
            Self::Login { user, .. } => {
                let answer = answer!(LoginResponse with a reason);
                let user = match user {
                    Who::Id(user) => *user,
                    Who::Name(_) => {
                        let user = answer.user.as_ref().map_or(0, |user| user.user_id);
                        UserId::new(user).ok_or_else(|| incomplete(operation))?
                    }
                };
                let token = SessionToken::new(user, &answer.session_token);
                signed_in(user, token, answer)
            }
            Self::Resume { token, .. } => {
                let answer = answer!(LoginResponse with a reason);
                signed_in(token.user(), Some(token.clone()), answer)
            }
            Self::Logout => {
                answer!(LogoutResponse);
                (Answer::Done, Effect::SignedOut)
            }
            Self::AddFriend(_) => {
                let answer = answer!(AddFriendResponse);
                let added = answer.friend_user.as_ref().and_then(Friend::from_proto);
                let added = added.ok_or_else(|| incomplete(operation))?;
                let conversation = Conversation::Friend(added.user);
                (
                    Answer::Friend(added),
                    Effect::Own(conversation, answer.sequence),
                )
            }
            Self::DeleteFriend(friend) => {
                let answer = answer!(DeleteFriendResponse);
                let conversation = Conversation::Friend(*friend);
                (Answer::Done, Effect::Own(conversation, answer.sequence))
            }
            Self::CreateGroup { .. } => {
                let group = answer!(CreateGroupResponse with a reason).group;
                let group = group.and_then(Group::from_proto);
                let group = group.ok_or_else(|| incomplete(operation))?;
                (Answer::Group(group), Effect::None)
            }
            Self::JoinGroup(id) => {
                let answer = answer!(AddGroupResponse);
                let group = answer.group.and_then(Group::from_proto);
                let group = group.ok_or_else(|| incomplete(operation))?;
                (Answer::Group(group), Effect::Joined(*id, answer.sequence))
            }
            Self::LeaveGroup(group) => {
                answer!(QuitGroupResponse);
                (Answer::Done, Effect::Left(*group))
            }
            Self::DeleteGroup(group) => {
                answer!(DeleteGroupResponse);
                (Answer::Done, Effect::Left(*group))
            }
            Self::Send { to, .. } => {
                let sent = match to {
                    Conversation::Friend(_) => {
                        let answer = answer!(FriendChatResponse);
                        Sent {
                            sequence: answer.sequence,
                            server_time_ms: answer.server_time_ms,
                        }
                    }
                    Conversation::Group(_) => {
                        let answer = answer!(GroupChatResponse);
                        Sent {
                            sequence: answer.sequence,
                            server_time_ms: answer.server_time_ms,
                        }
                    }
                };
                (Answer::Sent(sent), Effect::Own(*to, sent.sequence))
            }
            Self::Friends | Self::MoreFriends(_) => {
                let answer = answer!(FetchFriendsResponse);
                let friends = Friend::list(answer.friend_list);
                (Answer::Friends(friends), more(answer.more))
            }
            Self::Groups | Self::MoreGroups(_) => {
                let answer = answer!(FetchGroupsResponse);
                let groups = Group::list(answer.group_list);
                (Answer::Groups(groups), more(answer.more))
            }
            Self::Members { .. } => {
                let answer = answer!(FetchGroupMembersResponse);
                let members = Member::list(answer.group_user_list);
                (Answer::Members(members), more(answer.more))
            }
            Self::History { conversation, .. } => {
                let answer = answer!(FetchHistoryResponse);
                let here = |message: proto::Message| {
                    let message = Message::from_proto(message)?;
                    // One's own are named after their receiver.
                    Some(Message {
                        conversation: *conversation,
                        ..message
                    })
                };
                let page = HistoryPage {
                    messages: answer.messages.into_iter().filter_map(here).collect(),
                    last_sequence: answer.last_sequence,
                };
                (Answer::History(page), Effect::None)
            }
        })
    }
}

fn fetch_friends(user_id: i32, after_friend_id: i32) -> proto::FetchFriendsRequest {
    proto::FetchFriendsRequest {
        user_id,
        after_friend_id,
    }
}

fn fetch_groups(user_id: i32, after_group_id: i32) -> proto::FetchGroupsRequest {
    proto::FetchGroupsRequest {
        user_id,
        after_group_id,
    }
}

fn more(more: bool) -> Effect {
    match more {
        true => Effect::More,
        false => Effect::None,
    }
}

fn signed_in(
    user: UserId,
    token: Option<SessionToken>,
    answer: proto::LoginResponse,
) -> (Answer, Effect) {
    let list = answer.offline_message_list.unwrap_or_default().messages;
    let list: Vec<Message> = list.into_iter().filter_map(Message::from_proto).collect();
    let snapshot = LoginSnapshot {
        user,
        name: text(&answer.user.unwrap_or_default().user_name),
        friends: Friend::list(answer.friend_list),
        more_friends: answer.more_friends,
        groups: Group::list(answer.group_list),
        more_groups: answer.more_groups,
        waiting: list.len(),
        token,
    };
    (Answer::Login(snapshot), Effect::SignedIn(list))
}

/// That of each conversation everything up to the sequence was received.
pub(super) fn acks(
    received: impl IntoIterator<Item = (Conversation, u64)>,
) -> Vec<proto::ConversationAck> {
    let ack = |(conversation, sequence): (Conversation, u64)| proto::ConversationAck {
        conversation: Some(conversation.to_proto()),
        sequence,
    };
    received.into_iter().map(ack).collect()
}

fn unreadable(error: DecodeError) -> ChatError {
    ChatError::Protocol(error.to_string())
}

/// The message that a pushed frame holds; `None` when it names nobody.
pub(super) fn pushed(id: MessageId, content: Bytes) -> Result<Option<Message>, DecodeError> {
    use proto::MessageType as Kind;
    macro_rules! chat {
        ($type:ident, $kind:ident) => {{
            let chat = proto::$type::decode(content)?;
            proto::Message {
                message_type: Kind::$kind.into(),
                sender: chat.sender,
                receiver: chat.receiver,
                time: chat.time,
                content: chat.content,
                sequence: chat.sequence,
                server_time_ms: chat.server_time_ms,
            }
        }};
    }
    macro_rules! notice {
        ($type:ident, $kind:ident, $receiver:ident: $field:ident $(, named by $name:ident)?) => {{
            let notice = proto::$type::decode(content)?;
            proto::Message {
                message_type: Kind::$kind.into(),
                sender: Some(proto::Sender {
                    user_id: notice.user_id,
                    $(user_name: notice.$name,)?
                    ..Default::default()
                }),
                receiver: Some(proto::Receiver {
                    $receiver: notice.$field,
                    ..Default::default()
                }),
                sequence: notice.sequence,
                server_time_ms: notice.server_time_ms,
                ..Default::default()
            }
        }};
    }
    let message = match id {
        MessageId::RECV_FRIEND => chat!(FriendChatRequest, FriendChat),
        MessageId::RECV_GROUP => chat!(GroupChatRequest, GroupChat),
        MessageId::RECV_ADD_FRIEND => {
            notice!(AddFriendRequest, AddFriend, user_id: friend_id, named by user_name)
        }
        MessageId::RECV_DELETE_FRIEND => {
            notice!(DeleteFriendRequest, DeleteFriend, user_id: friend_id)
        }
        MessageId::RECV_ADD_GROUP => {
            notice!(AddGroupRequest, AddGroup, group_id: group_id, named by user_name)
        }
        MessageId::RECV_QUIT_GROUP => notice!(QuitGroupRequest, QuitGroup, group_id: group_id),
        MessageId::RECV_DELETE_GROUP => {
            notice!(DeleteGroupRequest, DeleteGroup, group_id: group_id)
        }
        _ => return Ok(None),
    };
    Ok(Message::from_proto(message))
}
