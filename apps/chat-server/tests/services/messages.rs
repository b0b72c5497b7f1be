//! Messages: stored, pushed and answered.

use std::collections::BTreeMap;
use std::sync::mpsc::channel;

use chat_proto::ids::{MessageId, code};
use chat_proto::messages::*;
use prost::Message as _;

use super::{PATIENCE, of, setting};

#[test]
fn a_repeated_send_is_answered_alike_and_pushed_again_as_it_is_stored() {
    let setting = setting(|_| {});
    let (a, b) = (setting.register("a"), setting.register("b"));
    setting.befriend(a, b);
    setting.login(b, 2);
    let first = setting.chat(a, b, "as it is stored", 5);
    assert_eq!(first, setting.chat(a, b, "as it is stored", 5));
    for _ in 0..2 {
        let push = setting.push();
        assert_eq!(push.message_id, MessageId::RECV_FRIEND.0);
        assert_eq!(push.sequence, first.sequence);
        assert_eq!(push.user_ids, [b]);
        let chat = FriendChatRequest::decode(push.content).unwrap();
        assert_eq!(chat.content, "as it is stored");
        assert_eq!(&chat.sender.unwrap().user_name[..], b"a");
    }
}

#[test]
fn another_message_under_a_used_id_is_refused_and_not_pushed() {
    let setting = setting(|_| {});
    let (a, b) = (setting.register("a"), setting.register("b"));
    setting.befriend(a, b);
    setting.login(b, 2);
    let first = setting.chat(a, b, "first", 5);
    let refused = setting.chat(a, b, "another", 5);
    assert_eq!(refused.error_code, code::INVALID, "{}", refused.error_text);
    assert!(
        refused.error_text.contains("new id"),
        "{}",
        refused.error_text
    );
    let under_new_id = setting.chat(a, b, "another", 6);
    assert_eq!(under_new_id.sequence, first.sequence + 1);
    for sequence in [first.sequence, under_new_id.sequence] {
        assert_eq!(setting.push().sequence, sequence);
    }
}

#[test]
fn draining_stores_and_publishes_what_was_taken() {
    let mut setting = setting(|_| {});
    let (a, b) = (setting.register("a"), setting.register("b"));
    setting.befriend(a, b);
    setting.login(b, 2);
    let chats = OneChatServiceRpcClient::new(setting.node.channel.clone());
    let (sender, answers) = channel();
    for i in 0..500 {
        let request = FriendChatRequest {
            receiver: Some(Receiver {
                user_id: b,
                ..Default::default()
            }),
            content: i.to_string(),
            ..Default::default()
        };
        let sender = sender.clone();
        chats
            .friend_chat_with(&request, of(a, 1))
            .on_complete(move |result| {
                let _ = sender.send(result);
            });
    }
    drop(sender);
    setting.node.server.drain(PATIENCE);
    let mut acknowledged = Vec::new();
    let mut refused = BTreeMap::new();
    for answer in answers {
        // What came after the drain began is refused, and nothing else is.
        match answer {
            Ok(reply) => acknowledged.push(reply.message.sequence),
            Err(error) => {
                assert!(error.code().is_retryable(), "{error}");
                *refused.entry(error.to_string()).or_insert(0) += 1;
            }
        }
    }
    let mut pushed = Vec::new();
    while pushed.len() < acknowledged.len() {
        pushed.extend(setting.chats(PATIENCE).iter().map(|push| push.sequence));
    }
    acknowledged.sort_unstable();
    assert_eq!(pushed, acknowledged, "the rest: {refused:?}");
}

#[test]
fn messages_are_checked_before_they_are_stored() {
    let setting = setting(|options| options.clients.message_characters_max = 10);
    let (a, b) = (setting.register("a"), setting.register("b"));
    setting.befriend(a, b);
    for (content, expected) in [
        ("张伟 😀\n\tx", code::SUCCESS),
        ("0123456789", code::SUCCESS),
        ("0123456789x", code::TOO_LARGE),
        ("\u{1b}[2J", code::INVALID),
        ("", code::SUCCESS),
    ] {
        assert_eq!(setting.chat(a, b, content, 0).error_code, expected);
    }
}
