//! From the store's types to the clients' messages.

use std::collections::{BTreeSet, HashSet};

use bytes::Bytes;
use chat_bus::Bus;
use chat_proto::ids::MessageId;
use chat_proto::messages::{
    AddFriendRequest, AddGroupRequest, Conversation, ConversationAck, ConversationMark,
    DeleteFriendRequest, DeleteGroupRequest, FriendChatRequest, FriendList, FriendUser, Group,
    GroupChatRequest, GroupList, GroupUser, GroupUserList, Message, Push, QuitGroupRequest,
    Receiver, Sender,
};
use chat_store::{
    ConversationId, GroupId, Mark, MessageKind, Parties, Role, Stamp, StoredMessage, UserId,
};
use prost::Message as _;

use crate::failure;

/// What a client says it has received.
pub(crate) fn received(me: UserId, received: &[ConversationAck]) -> Vec<Mark> {
    let mark = |ack: &ConversationAck| {
        Some(Mark {
            conversation: named(me, ack.conversation.as_ref()?)?,
            sequence: ack.sequence,
        })
    };
    received.iter().filter_map(mark).collect()
}

/// The conversation that a client names: by one friend or by one group.
pub(crate) fn named(me: UserId, conversation: &Conversation) -> Option<ConversationId> {
    let (friend, group) = (conversation.friend_id, conversation.group_id);
    match (UserId::new(friend), GroupId::new(group)) {
        (Some(friend), None) => ConversationId::pair(me, friend),
        (None, Some(group)) => Some(ConversationId::group(group)),
        _ => None,
    }
}

/// Which of some users are online.
pub(crate) struct Online(HashSet<i32>);

impl Online {
    /// Looks them up. While the bus is away nobody counts as online: whatever the states are asked for, is no
    /// reason to do without it.
    pub(crate) fn of(bus: &dyn Bus, users: impl IntoIterator<Item = UserId>) -> Self {
        let users: BTreeSet<i32> = users.into_iter().map(UserId::get).collect();
        let users: Vec<i32> = users.into_iter().collect();
        let places = bus.locate(&users).unwrap_or_else(|error| {
            failure::note_bus(&error);
            Vec::new()
        });
        let online = users
            .iter()
            .zip(places)
            .filter(|(_, place)| place.is_some());
        Self(online.map(|(&user, _)| user).collect())
    }

    pub(crate) fn state(&self, user: UserId) -> Bytes {
        Bytes::from_static(if self.0.contains(&user.get()) {
            b"online"
        } else {
            b"offline"
        })
    }
}

pub(crate) fn friend_user(friend: &chat_store::Friend, online: &Online) -> FriendUser {
    FriendUser {
        friend_id: friend.id.get(),
        friend_name: friend.name.clone().into(),
        friend_state: online.state(friend.id),
    }
}

pub(crate) fn friend_list(friends: &[chat_store::Friend], online: &Online) -> FriendList {
    FriendList {
        friend_users: friends
            .iter()
            .map(|friend| friend_user(friend, online))
            .collect(),
    }
}

pub(crate) fn group(group: &chat_store::Group, online: &Online) -> Group {
    let member = |member: &chat_store::Member| GroupUser {
        user_id: member.id.get(),
        user_name: member.name.clone().into(),
        user_state: online.state(member.id),
        user_role: Bytes::from_static(match member.role {
            Role::Admin => b"admin",
            Role::Member => b"member",
        }),
    };
    Group {
        group_id: group.id.get(),
        group_name: group.name.clone().into(),
        group_description: group.description.clone().into(),
        group_user_list: Some(GroupUserList {
            group_users: group.members.iter().map(member).collect(),
        }),
    }
}

pub(crate) fn group_list(groups: &[chat_store::Group], online: &Online) -> GroupList {
    GroupList {
        groups: groups.iter().map(|one| group(one, online)).collect(),
    }
}

pub(crate) fn marks(marks: &[Mark]) -> Vec<ConversationMark> {
    marks
        .iter()
        .map(|mark| ConversationMark {
            conversation_id: mark.conversation.raw(),
            sequence: mark.sequence,
        })
        .collect()
}

/// A message as a client finds it in a list.
pub(crate) fn message(stored: &StoredMessage) -> Message {
    Message {
        message_type: stored.kind.number(),
        sender: Some(sender(stored)),
        receiver: Some(receiver(stored)),
        time: stored.client_time.clone(),
        content: stored.content.clone(),
        sequence: stored.sequence,
        server_time_ms: stored.created_at_ms,
    }
}

/// A change that became a message of its conversation; such a message has no text.
pub(crate) fn notice(
    kind: MessageKind,
    conversation: ConversationId,
    (actor, name): (UserId, String),
    stamp: Stamp,
) -> StoredMessage {
    StoredMessage {
        conversation,
        sequence: stamp.sequence,
        sender: actor,
        sender_name: name,
        kind,
        client_message_id: None,
        content: String::new(),
        client_time: String::new(),
        created_at_ms: stamp.created_at_ms,
    }
}

/// A message as it is pushed to these users.
pub(crate) fn push(stored: &StoredMessage, user_ids: Vec<i32>) -> Push {
    let user_id = stored.sender.get();
    let (friend_id, group_id) = match stored.conversation.parties() {
        Parties::Pair { .. } => (receiver(stored).user_id, 0),
        Parties::Group(group) => (0, group.get()),
    };
    let (sequence, server_time_ms) = (stored.sequence, stored.created_at_ms);
    let (message_id, content) = match stored.kind {
        MessageKind::FriendChat => {
            let chat = FriendChatRequest {
                sender: Some(sender(stored)),
                receiver: Some(receiver(stored)),
                content: stored.content.clone(),
                time: stored.client_time.clone(),
                client_message_id: 0,
                sequence,
                server_time_ms,
            };
            (MessageId::RECV_FRIEND, chat.encode_to_vec())
        }
        MessageKind::GroupChat => {
            let chat = GroupChatRequest {
                sender: Some(sender(stored)),
                receiver: Some(receiver(stored)),
                content: stored.content.clone(),
                time: stored.client_time.clone(),
                client_message_id: 0,
                sequence,
                server_time_ms,
            };
            (MessageId::RECV_GROUP, chat.encode_to_vec())
        }
        MessageKind::AddFriend => {
            let notice = AddFriendRequest {
                user_id,
                friend_id,
                sequence,
                server_time_ms,
                user_name: stored.sender_name.clone().into(),
                ..Default::default()
            };
            (MessageId::RECV_ADD_FRIEND, notice.encode_to_vec())
        }
        MessageKind::DeleteFriend => {
            let notice = DeleteFriendRequest {
                user_id,
                friend_id,
                sequence,
                server_time_ms,
            };
            (MessageId::RECV_DELETE_FRIEND, notice.encode_to_vec())
        }
        MessageKind::JoinGroup => {
            let notice = AddGroupRequest {
                user_id,
                group_id,
                sequence,
                server_time_ms,
                user_name: stored.sender_name.clone().into(),
            };
            (MessageId::RECV_ADD_GROUP, notice.encode_to_vec())
        }
        MessageKind::LeaveGroup => {
            let notice = QuitGroupRequest {
                user_id,
                group_id,
                sequence,
                server_time_ms,
            };
            (MessageId::RECV_QUIT_GROUP, notice.encode_to_vec())
        }
        MessageKind::DeleteGroup => {
            let notice = DeleteGroupRequest {
                user_id,
                group_id,
                sequence,
                server_time_ms,
            };
            (MessageId::RECV_DELETE_GROUP, notice.encode_to_vec())
        }
    };
    Push {
        conversation_id: stored.conversation.raw(),
        sequence,
        message_id: message_id.0,
        content: content.into(),
        user_ids,
    }
}

fn sender(stored: &StoredMessage) -> Sender {
    Sender {
        user_id: stored.sender.get(),
        user_name: stored.sender_name.clone().into(),
        ..Default::default()
    }
}

fn receiver(stored: &StoredMessage) -> Receiver {
    match stored.conversation.parties() {
        Parties::Pair { .. } => Receiver {
            user_id: stored
                .conversation
                .other(stored.sender)
                .map_or(0, UserId::get),
            ..Default::default()
        },
        Parties::Group(group) => Receiver {
            group_id: group.get(),
            ..Default::default()
        },
    }
}
