//! `OneChatServiceRpc` and `GroupChatServiceRpc`: messages.
//!
//! Both only hand the message to the writer. Permission, sequence and commit are decided there, for
//! many messages at once; the call is answered after the commit, and no thread waits for it.

use std::num::NonZeroU64;

use chat_proto::ids::code;
use chat_proto::messages::{
    FriendChatRequest, FriendChatResponse, GroupChatRequest, GroupChatResponse,
    GroupChatServiceRpc, OneChatServiceRpc,
};
use chat_store::{
    AppendOutcome, CONTENT_BYTES_MAX, ConversationId, GroupId, MessageKind, NewMessage, QueueFull,
    Stamp, StoreError, StoredMessage, UserId,
};
use nexus_rpc::{CallContext, Responder};

use crate::publisher::Job;
use crate::{Services, caller, caller::Caller, failure::Failure, input};

impl OneChatServiceRpc for Services {
    fn friend_chat(
        &self,
        call: CallContext,
        request: FriendChatRequest,
        responder: Responder<FriendChatResponse>,
    ) {
        let Caller { user, terms } = match caller::caller(&call, &self.clocks) {
            Ok(caller) => caller,
            Err(error) => return responder.complete(Err(error)),
        };
        let friend = request
            .receiver
            .as_ref()
            .and_then(|to| UserId::new(to.user_id));
        let Some(conversation) = friend.and_then(|friend| ConversationId::pair(user, friend))
        else {
            let failure = Failure::new(code::FRIEND_CHAT_NOT_FRIENDS, "not friends");
            return responder.complete(Ok(friend_answer(Err(failure))));
        };
        let message = NewMessage {
            conversation,
            sender: user,
            client_message_id: NonZeroU64::new(request.client_message_id),
            content: request.content,
            client_time: request.time,
            terms,
        };
        self.send(message, code::FRIEND_CHAT_STORE, |result| {
            responder.complete(Ok(friend_answer(result)));
        });
    }
}

impl GroupChatServiceRpc for Services {
    fn group_chat(
        &self,
        call: CallContext,
        request: GroupChatRequest,
        responder: Responder<GroupChatResponse>,
    ) {
        let Caller { user, terms } = match caller::caller(&call, &self.clocks) {
            Ok(caller) => caller,
            Err(error) => return responder.complete(Err(error)),
        };
        let Some(group) = request
            .receiver
            .as_ref()
            .and_then(|to| GroupId::new(to.group_id))
        else {
            let failure = Failure::new(code::GROUP_CHAT_NOT_MEMBER, "no such group");
            return responder.complete(Ok(group_answer(Err(failure))));
        };
        let message = NewMessage {
            conversation: ConversationId::group(group),
            sender: user,
            client_message_id: NonZeroU64::new(request.client_message_id),
            content: request.content,
            client_time: request.time,
            terms,
        };
        self.send(message, code::GROUP_CHAT_STORE, |result| {
            responder.complete(Ok(group_answer(result)));
        });
    }
}

impl Services {
    fn send(
        &self,
        message: NewMessage,
        store_failed: i32,
        answer: impl FnOnce(Result<Stamp, Failure>) + Send + 'static,
    ) {
        let longest = self.clients.message_characters_max;
        let readable = input::message(&message.content, longest)
            .and_then(|()| input::client_time(&message.client_time));
        if let Err(failure) = readable {
            return answer(Err(failure));
        }
        if message.content.len() > CONTENT_BYTES_MAX {
            return answer(Err(Failure::new(
                code::TOO_LARGE,
                "the message is too long",
            )));
        }
        if self.store.is_away() {
            // The writer may be at a batch that hangs; nobody is to wait for that.
            let away = StoreError::Unavailable("it does not answer".into());
            return answer(Err(Failure::store(away, store_failed)));
        }
        let publisher = self.publisher.clone();
        let sent = message.clone();
        let on_done = move |result| {
            answer(outcome(result, store_failed, sent, |job| {
                publisher.hold(job);
            }));
        };
        if let Err(QueueFull(on_done)) = self.writer.submit(message, Box::new(on_done)) {
            let reason = "too many messages wait to be stored".to_owned();
            on_done(Err(StoreError::Unavailable(reason)));
        }
    }
}

/// What became of a message; one that is stored is published.
fn outcome(
    result: Result<AppendOutcome, StoreError>,
    store_failed: i32,
    sent: NewMessage,
    publish: impl FnOnce(Job),
) -> Result<Stamp, Failure> {
    let result = result.map_err(|error| Failure::store(error, store_failed));
    let outcome = match sent.client_message_id {
        Some(_) => result.map_err(Failure::repeatable)?,
        None => result?,
    };
    match outcome {
        AppendOutcome::Committed {
            stamp,
            sender_name,
            members,
        } => {
            let message = StoredMessage {
                conversation: sent.conversation,
                sequence: stamp.sequence,
                sender: sent.sender,
                sender_name: sender_name.to_string(),
                kind: match sent.conversation.as_group() {
                    Some(_) => MessageKind::GroupChat,
                    None => MessageKind::FriendChat,
                },
                client_message_id: sent.client_message_id,
                content: sent.content,
                client_time: sent.client_time,
                created_at_ms: stamp.created_at_ms,
            };
            publish(match members {
                Some(members) => Job::ToMembers(message, members),
                None => Job::Message(message),
            });
            Ok(stamp)
        }
        // Sent again because the answer was lost, and the push perhaps with it.
        AppendOutcome::Duplicate(stamp) => {
            publish(Job::Stored(sent.conversation, stamp.sequence));
            Ok(stamp)
        }
        AppendOutcome::IdInUse => Err(Failure::new(
            code::INVALID,
            "the client message id was used for another message: send this one under a new id",
        )),
        AppendOutcome::NotFriends => {
            Err(Failure::new(code::FRIEND_CHAT_NOT_FRIENDS, "not friends"))
        }
        AppendOutcome::NotMember => Err(Failure::new(
            code::GROUP_CHAT_NOT_MEMBER,
            "no such group, or not a member of it",
        )),
        AppendOutcome::TooLong => Err(Failure::new(code::TOO_LARGE, "the message is too long")),
        AppendOutcome::TooLate => Err(StoreError::TooLate.into()),
        AppendOutcome::Displaced => Err(StoreError::Displaced.into()),
    }
}

fn friend_answer(result: Result<Stamp, Failure>) -> FriendChatResponse {
    match result {
        Ok(stamp) => FriendChatResponse {
            error_code: code::SUCCESS,
            error_text: String::new(),
            sequence: stamp.sequence,
            server_time_ms: stamp.created_at_ms,
        },
        Err(failure) => {
            let (error_code, error_text) = failure.into_parts("one-to-one chat");
            FriendChatResponse {
                error_code,
                error_text,
                ..Default::default()
            }
        }
    }
}

fn group_answer(result: Result<Stamp, Failure>) -> GroupChatResponse {
    match result {
        Ok(stamp) => GroupChatResponse {
            error_code: code::SUCCESS,
            error_text: String::new(),
            sequence: stamp.sequence,
            server_time_ms: stamp.created_at_ms,
        },
        Err(failure) => {
            let (error_code, error_text) = failure.into_parts("group chat");
            GroupChatResponse {
                error_code,
                error_text,
                ..Default::default()
            }
        }
    }
}
