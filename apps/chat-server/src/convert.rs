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

/// The most users whose presence is looked up at a time.
const LOOK_UP_MAX: usize = 8192;

/// Which of some users are online.
pub(crate) struct Online(HashSet<i32>);

impl Online {
    /// Looks them up. While the bus is away nobody counts as online: whatever the states are asked for, is no
    /// reason to do without it.
    pub(crate) fn of(bus: &dyn Bus, users: impl IntoIterator<Item = UserId>) -> Self {
        let users: BTreeSet<i32> = users.into_iter().map(UserId::get).collect();
        let users: Vec<i32> = users.into_iter().collect();
        let mut online = HashSet::new();
        for some in users.chunks(LOOK_UP_MAX) {
            match bus.locate(some) {
                Ok(places) => {
                    let found = some.iter().zip(places);
                    online.extend(found.filter_map(|(&user, place)| place.map(|_| user)));
                }
                Err(error) => {
                    failure::note_bus(&error);
                    break;
                }
            }
        }
        Self(online)
    }

    pub(crate) fn state(&self, user: UserId) -> Bytes {
        Bytes::from_static(if self.0.contains(&user.get()) {
            b"online"
        } else {
            b"offline"
        })
    }
}

pub(crate) fn friend_user(friend: chat_store::Friend, online: &Online) -> FriendUser {
    FriendUser {
        friend_id: friend.id.get(),
        friend_name: friend.name.into(),
        friend_state: online.state(friend.id),
    }
}

pub(crate) fn friend_list(friends: Vec<chat_store::Friend>, online: &Online) -> FriendList {
    FriendList {
        friend_users: friends
            .into_iter()
            .map(|friend| friend_user(friend, online))
            .collect(),
    }
}

pub(crate) fn member_list(members: Vec<chat_store::Member>, online: &Online) -> GroupUserList {
    let member = |member: chat_store::Member| GroupUser {
        user_id: member.id.get(),
        user_name: member.name.into(),
        user_state: online.state(member.id),
        user_role: Bytes::from_static(match member.role {
            Role::Admin => b"admin",
            Role::Member => b"member",
        }),
    };
    GroupUserList {
        group_users: members.into_iter().map(member).collect(),
    }
}

pub(crate) fn group(group: chat_store::Group, online: &Online) -> Group {
    Group {
        group_id: group.id.get(),
        group_name: group.name.into(),
        group_description: group.description.into(),
        group_user_list: Some(member_list(group.members, online)),
        more_members: group.more_members,
    }
}

pub(crate) fn group_list(groups: Vec<chat_store::Group>, online: &Online) -> GroupList {
    let groups = groups.into_iter();
    GroupList {
        groups: groups.map(|one| group(one, online)).collect(),
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
pub(crate) fn message(stored: StoredMessage) -> Message {
    Message {
        message_type: stored.kind.number(),
        sender: Some(sender(&stored)),
        receiver: Some(receiver(&stored)),
        time: stored.client_time,
        content: stored.content,
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

#[cfg(test)]
mod tests {
    use chat_bus::{Bus, LocalBus, ProxyId, SessionRef};

    use super::*;

    /// Everything as large as can be.
    fn largest() -> (chat_store::Friend, chat_store::Group, StoredMessage) {
        let (user, group) = (
            UserId::new(i32::MAX).unwrap(),
            GroupId::new(i32::MAX).unwrap(),
        );
        let text = |length| "x".repeat(length);
        let friend = chat_store::Friend {
            id: user,
            name: text(255),
        };
        let member = |role| chat_store::Member {
            id: user,
            name: text(255),
            role,
        };
        let group = chat_store::Group {
            id: group,
            name: text(255),
            description: text(1024),
            members: vec![[Role::Admin, Role::Member].map(member); 20].concat(),
            more_members: true,
        };
        let message = StoredMessage {
            conversation: ConversationId::group(group.id),
            sequence: u64::MAX,
            sender: user,
            sender_name: text(255),
            kind: MessageKind::GroupChat,
            client_message_id: None,
            content: text(64 << 10),
            client_time: text(64),
            created_at_ms: i64::MIN,
        };
        (friend, group, message)
    }

    #[test]
    fn no_entry_takes_more_in_an_answer_than_the_store_counts() {
        let bus = LocalBus::new();
        let online = Online::of(&bus, []);
        let (friend, group, message) = largest();

        let counted = friend.bytes();
        let list = friend_list(vec![friend; 3], &online);
        assert!(list.encoded_len() <= 3 * counted);

        let members = group.members.iter().map(chat_store::Member::bytes);
        let counted = group.bytes() + members.sum::<usize>();
        let list = group_list(vec![group; 3], &online);
        assert!(list.encoded_len() <= 3 * counted);

        let counted = message.bytes();
        let pushes = vec![push(&message, vec![i32::MAX]); 3];
        let pending = chat_proto::messages::FetchPendingResponse {
            pushes,
            ..Default::default()
        };
        assert!(pending.encoded_len() <= 3 * counted);
        let list = chat_proto::messages::OfflineMessageList {
            messages: vec![self::message(message); 3],
        };
        assert!(list.encoded_len() <= 3 * counted);
    }

    #[test]
    fn the_presence_of_many_is_looked_up_in_pieces_and_none_is_missed() {
        let bus = LocalBus::new();
        let proxy = ProxyId::from_u64(7);
        bus.renew_lease(proxy, std::time::Duration::from_secs(60))
            .unwrap();
        let session = |session| SessionRef { proxy, session };
        let last = UserId::new(LOOK_UP_MAX as i32 + 1).unwrap();
        let policy = chat_bus::LoginPolicy::NewerWins;
        bus.claim(1, session(1), 1.into(), policy).unwrap();
        bus.claim(last.get(), session(2), 1.into(), policy).unwrap();
        let online = Online::of(&bus, (1..=last.get()).filter_map(UserId::new));
        assert_eq!(online.0, HashSet::from([1, last.get()]));
    }
}
