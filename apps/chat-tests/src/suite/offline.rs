//! What waits for a user who is away, and until when.

use std::collections::HashMap;

use chat_proto::ids::{MessageId, code};
use chat_proto::messages::*;
use prost::Message as _;

use super::{eventually, friends, login, member, new_user, offline};
use crate::{System, WireClient};

pub(super) fn offline_messages_wait_for_the_login(system: &System) {
    let (mut left, mut right) = friends(system);
    let (a, b) = (left.user_id, right.user_id);
    assert_eq!(right.logout().error_code, code::SUCCESS);
    for i in 0..5 {
        assert_eq!(
            left.chat(b, &format!("message {i}")).error_code,
            code::SUCCESS
        );
    }
    left.delete_friend(b);
    let answer = login(&mut right, b, true);
    let messages = offline(&answer);
    // The notice of the friendship was not acknowledged either.
    assert_eq!(messages[0].message_type(), MessageType::AddFriend);
    let chats: Vec<_> = messages
        .iter()
        .filter(|m| m.message_type() == MessageType::FriendChat)
        .collect();
    assert_eq!(chats.len(), 5);
    for (i, message) in chats.iter().enumerate() {
        assert_eq!(message.content, format!("message {i}"));
        assert_eq!(message.sender.as_ref().unwrap().user_id, a);
        assert!(!message.sender.as_ref().unwrap().user_name.is_empty());
    }
    assert_eq!(
        messages.last().unwrap().message_type(),
        MessageType::DeleteFriend
    );
}

pub(super) fn a_long_absence_is_made_up_for_once_and_in_order(system: &System) {
    // More than twice what a login's answer holds, from several friends.
    const FRIENDS: usize = 10;
    const EACH: usize = 500;
    let mut client = WireClient::connect(system.right);
    let user = new_user(&mut client);
    let senders: Vec<i32> = std::thread::scope(|scope| {
        let write = || {
            let mut sender = member(system.left);
            assert_eq!(sender.add_friend(user).error_code, code::SUCCESS);
            for from in (0..EACH).step_by(50) {
                for i in from..from + 50 {
                    let request = sender.chat_request(user, &i.to_string(), 0);
                    sender.send(MessageId::FRIEND_CHAT, &request);
                }
                for _ in 0..50 {
                    let answer = FriendChatResponse::decode(sender.any_answer().content);
                    assert_eq!(answer.unwrap().error_code, code::SUCCESS);
                }
            }
            sender.user_id
        };
        let writing: Vec<_> = (0..FRIENDS).map(|_| scope.spawn(write)).collect();
        writing.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let expected: Vec<String> = (0..EACH).map(|i| i.to_string()).collect();
    // First a client that could acknowledge and does not, then an old one, which counts as having
    // received what was written to it.
    for acknowledges in [true, false] {
        let mut client = WireClient::connect(system.right);
        let answer = login(&mut client, user, acknowledges);
        let mut texts: HashMap<i32, Vec<String>> = HashMap::new();
        let mut read = |sender: Option<Sender>, content: &str| {
            let texts = texts.entry(sender.unwrap().user_id).or_default();
            texts.push(content.to_owned());
        };
        let listed = offline(&answer).iter();
        let listed = listed.filter(|m| m.message_type == MessageType::FriendChat as i32);
        let mut count = 0;
        for message in listed {
            read(message.sender.clone(), &message.content);
            count += 1;
        }
        assert!(
            (1..FRIENDS * EACH).contains(&count),
            "{count} in the answer"
        );
        while count < FRIENDS * EACH {
            let push = client.any_push();
            if push.message_id == MessageId::RECV_FRIEND.0 {
                let chat = FriendChatRequest::decode(push.content).unwrap();
                read(chat.sender, &chat.content);
                count += 1;
            }
        }
        for sender in &senders {
            assert_eq!(texts[sender], expected, "acknowledges: {acknowledges}");
        }
        client.assert_no_push();
    }
    eventually("nothing is pending any more", || {
        let mut client = WireClient::connect(system.right);
        offline(&login(&mut client, user, true)).is_empty()
    });
}

pub(super) fn pending_until_acknowledged(system: &System) {
    let (mut left, right) = friends(system);
    let (a, b) = (left.user_id, right.user_id);
    drop(right);
    let first = left.chat(b, "first").sequence;
    let second = left.chat(b, "second").sequence;
    assert_eq!(second, first + 1);
    for _ in 0..2 {
        // Not acknowledged: it is all there again.
        let mut right = WireClient::connect(system.right);
        let answer = login(&mut right, b, true);
        assert_eq!(offline(&answer).last().unwrap().content, "second");
        right.logout();
    }
    let mut right = WireClient::connect(system.right);
    login(&mut right, b, true);
    right.acknowledge_friend(a, first);
    eventually("the acknowledgement counts", || {
        right.logout();
        let answer = login(&mut right, b, true);
        let texts: Vec<_> = offline(&answer)
            .iter()
            .map(|m| m.content.as_str())
            .collect();
        assert_eq!(*texts.last().unwrap(), "second");
        texts == ["second"]
    });
    right.acknowledge_friend(a, second);
    eventually("the acknowledgement counts", || {
        right.logout();
        offline(&login(&mut right, b, true)).is_empty()
    });
}
