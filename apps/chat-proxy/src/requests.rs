//! The table of requests: which service call each becomes, whose it is, and how its answer says no.
//!
//! A request that is not here (login, logout, heartbeat, acknowledgement) changes the session itself
//! and is dealt with there.

use bytes::Bytes;
use chat_proto::conversation::{ConversationId, GroupId, UserId};
use chat_proto::frame;
use chat_proto::ids::MessageId;
use chat_proto::messages::*;
use nexus_rpc::{Call, CallOptions};
use prost::Message;

use crate::delivery::OwnMessage;
use crate::services::Services;

/// A request that the proxy forwards as one call.
pub(crate) trait Request: Message + Default + 'static {
    /// What answers it.
    type Answer: Message + Default;
    /// The message id of the answer.
    const ANSWER_ID: MessageId;
    /// Its name, for the log.
    const NAME: &'static str;

    /// Calls the service.
    fn call(&self, services: &Services, options: CallOptions) -> Call<Self::Answer>;

    /// The code of an answer.
    fn error_code(answer: &Self::Answer) -> i32;

    /// The operation's own answer that it was not carried out.
    fn refusal(code: i32, text: &str) -> Self::Answer;
}

/// A request that only a user who is logged in may make.
pub(crate) trait UserRequest: Request {
    /// What becoming a message of its conversation does to it.
    const MESSAGE: OwnMessage = OwnMessage::Continues;
    /// Whether its answer grows with what is stored.
    const IS_LARGE: bool = false;
    /// Whether it changes nothing.
    const READS: bool = false;

    /// Who makes the request, as it says itself.
    fn user_id(&self) -> i32;

    /// The conversation that it adds a message to. Requests for the same one are sent one after the
    /// other.
    fn conversation(&self, me: UserId) -> Option<ConversationId> {
        let _ = me;
        None
    }

    /// The conversation that it has added a message to, where only the answer tells.
    fn opened(me: UserId, answer: &Self::Answer) -> Option<ConversationId> {
        let _ = (me, answer);
        None
    }

    /// Whether the services recognise it when they get it twice: it carries a client message id.
    fn is_repeatable(&self) -> bool {
        false
    }

    /// The place of the message in the conversation, 0 if there is none.
    fn sequence(answer: &Self::Answer) -> u64 {
        let _ = answer;
        0
    }
}

/// A frame that answers a request, ready to be written.
pub(crate) fn answer_frame(id: MessageId, request_id: u64, content: &impl Message) -> Bytes {
    frame::to_bytes(&ResponseFrame {
        message_id: id.0,
        content: content.encode_to_vec().into(),
        request_id,
    })
}

macro_rules! requests {
    ($($request:ident => $answer:ident, $answer_id:ident: $service:ident.$call:ident;)*) => {$(
        impl Request for $request {
            type Answer = $answer;
            const ANSWER_ID: MessageId = MessageId::$answer_id;
            const NAME: &'static str = stringify!($request);

            fn call(&self, services: &Services, options: CallOptions) -> Call<$answer> {
                services.$service.$call(self, options)
            }

            fn error_code(answer: &$answer) -> i32 {
                answer.error_code
            }

            fn refusal(code: i32, text: &str) -> $answer {
                $answer {
                    error_code: code,
                    error_text: text.to_owned(),
                    ..Default::default()
                }
            }
        }
    )*};
}

requests! {
    RegisterRequest => RegisterResponse, REGISTER_ANSWER: user.register_with;
    FetchHistoryRequest => FetchHistoryResponse, FETCH_HISTORY_ANSWER: user.fetch_history_with;
    AddFriendRequest => AddFriendResponse, ADD_FRIEND_ANSWER: friend.add_friend_with;
    DeleteFriendRequest => DeleteFriendResponse, DELETE_FRIEND_ANSWER: friend.delete_friend_with;
    FetchFriendsRequest => FetchFriendsResponse, FETCH_FRIENDS_ANSWER: friend.fetch_friends_with;
    FriendChatRequest => FriendChatResponse, FRIEND_CHAT_ANSWER: one_chat.friend_chat_with;
    CreateGroupRequest => CreateGroupResponse, CREATE_GROUP_ANSWER: group.create_group_with;
    AddGroupRequest => AddGroupResponse, ADD_GROUP_ANSWER: group.add_group_with;
    QuitGroupRequest => QuitGroupResponse, QUIT_GROUP_ANSWER: group.quit_group_with;
    DeleteGroupRequest => DeleteGroupResponse, DELETE_GROUP_ANSWER: group.delete_group_with;
    FetchGroupsRequest => FetchGroupsResponse, FETCH_GROUPS_ANSWER: group.fetch_groups_with;
    FetchGroupMembersRequest => FetchGroupMembersResponse, FETCH_GROUP_MEMBERS_ANSWER:
        group.fetch_group_members_with;
    GroupChatRequest => GroupChatResponse, GROUP_CHAT_ANSWER: group_chat.group_chat_with;
}

/// Requests that say whose they are in a field `user_id` and add no message, and whether they read what is stored.
macro_rules! plain {
    ($($request:ident: $reads:literal;)*) => {$(
        impl UserRequest for $request {
            const READS: bool = $reads;
            const IS_LARGE: bool = $reads;

            fn user_id(&self) -> i32 {
                self.user_id
            }
        }
    )*};
}

plain! {
    CreateGroupRequest: false;
    FetchFriendsRequest: true;
    FetchGroupsRequest: true;
    FetchGroupMembersRequest: true;
    FetchHistoryRequest: true;
}

/// Requests that become a message of their conversation.
macro_rules! messages {
    ($(
        $request:ident, $message:ident: $user_id:expr, $conversation:expr
        $(, opened: $opened:expr)? $(, repeatable: $repeatable:expr)? $(, large: $large:literal)?;
    )*) => {$(
        impl UserRequest for $request {
            const MESSAGE: OwnMessage = OwnMessage::$message;
            $(const IS_LARGE: bool = $large;)?

            fn user_id(&self) -> i32 {
                let user_id: fn(&Self) -> i32 = $user_id;
                user_id(self)
            }

            fn conversation(&self, me: UserId) -> Option<ConversationId> {
                let conversation: fn(&Self, UserId) -> Option<ConversationId> = $conversation;
                conversation(self, me)
            }

            $(fn opened(me: UserId, answer: &Self::Answer) -> Option<ConversationId> {
                let opened: fn(UserId, &Self::Answer) -> Option<ConversationId> = $opened;
                opened(me, answer)
            })?

            $(fn is_repeatable(&self) -> bool {
                let repeatable: fn(&Self) -> bool = $repeatable;
                repeatable(self)
            })?

            fn sequence(answer: &Self::Answer) -> u64 {
                answer.sequence
            }
        }
    )*};
}

messages! {
    AddFriendRequest, Opens: |r| r.user_id, |r, me| pair(me, r.friend_id),
        opened: |me, answer| pair(me, answer.friend_user.as_ref()?.friend_id);
    DeleteFriendRequest, Continues: |r| r.user_id, |r, me| pair(me, r.friend_id);
    AddGroupRequest, Opens: |r| r.user_id, |r, _| group(r.group_id), large: true;
    QuitGroupRequest, Continues: |r| r.user_id, |r, _| group(r.group_id);
    DeleteGroupRequest, Continues: |r| r.user_id, |r, _| group(r.group_id);
    FriendChatRequest, Continues:
        |r| sender(&r.sender), |r, me| pair(me, r.receiver.as_ref()?.user_id),
        repeatable: |r| r.client_message_id != 0;
    GroupChatRequest, Continues:
        |r| sender(&r.sender), |r, _| group(r.receiver.as_ref()?.group_id),
        repeatable: |r| r.client_message_id != 0;
}

/// The conversation of `me` with another user, if there can be one.
pub(crate) fn pair(me: UserId, other: i32) -> Option<ConversationId> {
    ConversationId::pair(me, UserId::new(other)?)
}

/// The conversation of a group, if there can be one.
pub(crate) fn group(group: i32) -> Option<ConversationId> {
    Some(ConversationId::group(GroupId::new(group)?))
}

/// The conversation that a client names.
pub(crate) fn named(me: UserId, conversation: &Conversation) -> Option<ConversationId> {
    match conversation.group_id {
        0 => pair(me, conversation.friend_id),
        id => group(id),
    }
}

/// The conversation of a message in a list of what was pending.
pub(crate) fn of_message(
    me: UserId,
    message: &chat_proto::messages::Message,
) -> Option<ConversationId> {
    let (sender, receiver) = (message.sender.as_ref(), message.receiver.as_ref());
    match receiver.map_or(0, |receiver| receiver.group_id) {
        0 => pair(me, sender?.user_id),
        id => group(id),
    }
}

/// A sender that is missing is nobody, and so not oneself.
fn sender(sender: &Option<Sender>) -> i32 {
    sender.as_ref().map_or(0, |sender| sender.user_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: i32) -> UserId {
        UserId::new(id).expect("positive")
    }

    #[test]
    fn a_chat_without_a_sender_is_nobodys() {
        assert_eq!(FriendChatRequest::default().user_id(), 0);
        assert_eq!(GroupChatRequest::default().user_id(), 0);
    }

    #[test]
    fn conversations_are_those_of_the_parties() {
        let to = |user_id, group_id| {
            Some(Receiver {
                user_id,
                group_id,
                ..Default::default()
            })
        };
        let chat = |receiver| FriendChatRequest {
            receiver,
            ..Default::default()
        };
        assert_eq!(
            chat(to(2, 0)).conversation(user(1)),
            ConversationId::pair(user(1), user(2))
        );
        for receiver in [None, to(0, 0), to(1, 0), to(-1, 0)] {
            assert_eq!(chat(receiver).conversation(user(1)), None);
        }
        let group_chat = GroupChatRequest {
            receiver: to(0, 9),
            ..Default::default()
        };
        assert_eq!(group_chat.conversation(user(1)), group(9));
    }

    #[test]
    fn a_pending_message_is_of_the_group_it_went_to_or_of_its_sender() {
        let mut message = chat_proto::messages::Message {
            sender: Some(Sender {
                user_id: 2,
                ..Default::default()
            }),
            ..Default::default()
        };
        assert_eq!(of_message(user(1), &message), pair(user(1), 2));
        message.receiver = Some(Receiver {
            group_id: 5,
            ..Default::default()
        });
        assert_eq!(of_message(user(1), &message), group(5));
    }
}
