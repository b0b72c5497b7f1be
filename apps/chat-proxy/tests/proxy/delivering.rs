//! What reaches a client that did not ask, in which order, and when it counts as received.

use std::time::Duration;

use chat_proto::ids::{MessageId, code};
use chat_proto::messages::*;

use super::{Setting, wait_until};
use crate::client::{Client, chat, login_request};
use crate::fake::pair;

#[test]
fn a_message_reaches_its_receiver() {
    let setting = Setting::new();
    let (mut ann, mut bob) = (setting.logged_in(1), setting.logged_in(2));
    let (id, answer_id) = (MessageId::FRIEND_CHAT, MessageId::FRIEND_CHAT_ANSWER);
    let answer: FriendChatResponse = ann.ask(id, &chat(1, 2, "hello"), answer_id);
    assert_eq!(answer.sequence, 1);
    assert_eq!(bob.expect_push(), 1);
    let answer: FriendChatResponse = bob.ask(id, &chat(2, 1, "hello"), answer_id);
    assert_eq!(answer.sequence, 2);
    assert_eq!(ann.expect_push(), 2);
}

#[test]
fn pushes_in_any_order_and_number_are_shown_once_and_in_order() {
    let setting = Setting::new();
    setting.fake.commit(1, 2);
    let mut bob = setting.logged_in(2);
    for _ in 2..=5 {
        setting.fake.commit(1, 2);
    }
    for sequence in [4, 1, 2, 2, 5, 4, 3] {
        setting.fake.push(1, 2, sequence);
    }
    for sequence in 2..=5 {
        assert_eq!(bob.expect_push(), sequence);
    }
    bob.expect_silence();
}

#[test]
fn a_push_that_was_lost_is_fetched() {
    let setting = Setting::new();
    setting.fake.commit(1, 2);
    let mut bob = setting.logged_in(2);
    for from in [1, 2, 1, 1] {
        setting.fake.commit(from, 2 + 1 - from);
    }
    // 2 is lost, 3 is bob's own, from another of his machines, say.
    setting.fake.push(1, 2, 5);
    for sequence in [2, 4, 5] {
        assert_eq!(bob.expect_push(), sequence);
    }
    assert_eq!(setting.fake.count("fetch_pending"), 1);
    bob.expect_silence();
}

#[test]
fn a_message_of_a_conversation_that_is_not_known_yet_is_shown() {
    let setting = Setting::new();
    let mut bob = setting.logged_in(2);
    setting.fake.commit(1, 2);
    setting.fake.push(1, 2, 1);
    assert_eq!(bob.expect_push(), 1);
}

#[test]
fn what_is_pushed_during_a_login_comes_after_its_answer() {
    let setting = Setting::new();
    setting.fake.commit(1, 2);
    setting.fake.script(|state| state.hold_logins = true);
    let mut bob = setting.connect();
    bob.send(MessageId::LOGIN, 1, &login_request(2, false));
    // Claimed: from here on the services push to this session.
    wait_until("the login has begun", || setting.is_online(2));
    for _ in 0..2 {
        setting.fake.commit(1, 2);
    }
    setting.fake.push(1, 2, 3);
    setting.fake.push(1, 2, 2);
    bob.expect_silence();
    setting.fake.script(|state| state.hold_logins = false);
    let answer: LoginResponse = bob.expect(MessageId::LOGIN_ANSWER);
    assert_eq!(answer.error_code, code::SUCCESS);
    assert_eq!((bob.expect_push(), bob.expect_push()), (2, 3));
}

#[test]
fn what_an_old_client_was_sent_is_acknowledged_once_it_is_written() {
    let setting = Setting::new();
    setting.fake.commit(1, 2);
    setting.fake.script(|state| {
        state.commit(3, 2);
        state.offline.push(pending(3, 1));
    });
    let mut bob = setting.logged_in(2);
    setting.fake.wait("the login's messages", |state| {
        state.acks.get(&(2, pair(2, 3))) == Some(&1)
    });
    setting.fake.commit(1, 2);
    setting.fake.push(1, 2, 2);
    assert_eq!(bob.expect_push(), 2);
    setting.fake.wait("the push", |state| {
        state.acks.get(&(2, pair(1, 2))) == Some(&2)
    });
}

#[test]
fn a_client_that_acknowledges_does_it_alone_and_not_beyond_what_it_got() {
    let setting = Setting::new();
    setting.fake.commit(1, 2);
    let mut bob = setting.connect();
    bob.log_in(2, true);
    let mut old = setting.logged_in(4);
    for _ in 0..2 {
        setting.fake.commit(1, 2);
    }
    setting.fake.push(1, 2, 2);
    setting.fake.push(1, 2, 3);
    assert_eq!((bob.expect_push(), bob.expect_push()), (2, 3));
    // Acknowledgements leave in order of their coming: after these bob's would have been there.
    setting.fake.commit(3, 4);
    setting.fake.push(3, 4, 1);
    assert_eq!(old.expect_push(), 1);
    setting.fake.wait("the other's", |state| {
        state.acks.contains_key(&(4, pair(3, 4)))
    });
    assert_eq!(setting.fake.script(|state| state.acks.len()), 1);

    acknowledge(&mut bob, 1, 2);
    setting.fake.wait("bob's", |state| {
        state.acks.get(&(2, pair(1, 2))) == Some(&2)
    });
    acknowledge(&mut bob, 7, 5);
    acknowledge(&mut bob, 1, 999);
    setting.fake.wait("bob's", |state| {
        state.acks.get(&(2, pair(1, 2))) == Some(&3)
    });
    assert!(
        setting
            .fake
            .script(|state| !state.acks.contains_key(&(2, pair(2, 7))))
    );
    bob.expect_silence();
}

#[test]
fn what_did_not_fit_into_the_logins_answer_follows() {
    let setting = Setting::new();
    // The answer's mark is where its own messages end.
    setting.fake.script(|state| {
        state.commit(1, 2);
        state.offline.push(pending(1, 1));
        state.page = 3;
        state.hold_logins = true;
    });
    let mut bob = setting.connect();
    bob.send(MessageId::LOGIN, 1, &login_request(2, false));
    setting
        .fake
        .wait("the login has read", |state| state.offline.is_empty());
    setting.fake.script(|state| {
        for _ in 0..10 {
            state.commit(1, 2);
        }
        state.hold_logins = false;
    });
    let _: LoginResponse = bob.expect(MessageId::LOGIN_ANSWER);
    for sequence in 2..=11 {
        assert_eq!(bob.expect_push(), sequence);
    }
    bob.expect_silence();
}

#[test]
fn what_is_committed_while_the_bus_is_away_is_fetched_meanwhile() {
    let setting = Setting::new();
    let mut clients: Vec<Client> = (2..=101).map(|user| setting.logged_in(user)).collect();
    setting.bus.cut();
    for sequence in 1..=2 {
        for user in 2..=101 {
            setting.fake.commit(1, user);
            setting.fake.push(1, user, sequence);
        }
        for client in &mut clients {
            assert_eq!(client.expect_push(), sequence);
        }
    }
    for user in 2..=101 {
        setting.fake.commit(1, user);
    }
    setting.bus.mend();
    for client in &mut clients {
        assert_eq!(client.expect_push(), 3);
    }
    clients[0].expect_silence();
}

#[test]
fn what_nobody_pushed_is_found_all_the_same() {
    let interval = Duration::from_millis(200);
    let setting = Setting::with(|options| options.resync_interval = interval);
    let mut bob = setting.logged_in(2);
    // Again and again, in a conversation that is new and in one that is known.
    for sequence in 1..=3 {
        assert_eq!(setting.fake.commit(1, 2), sequence);
        assert_eq!(bob.expect_push(), sequence);
    }
    bob.expect_silence();
}

#[test]
fn a_message_that_was_stored_after_its_sender_was_told_otherwise_leaves_no_gap() {
    let setting = Setting::with(|options| options.request_timeout = Duration::from_millis(300));
    let (mut ann, mut bob) = (setting.logged_in(1), setting.logged_in(2));
    setting.fake.script(|state| state.hold_chats = true);
    let (id, answer_id) = (MessageId::FRIEND_CHAT, MessageId::FRIEND_CHAT_ANSWER);
    let answer: FriendChatResponse = ann.ask(id, &chat(1, 2, "hello"), answer_id);
    assert_eq!(answer.error_code, code::UNCERTAIN);
    setting.fake.release_chats();
    assert_eq!(bob.expect_push(), 1);
    let answer: FriendChatResponse = bob.ask(id, &chat(2, 1, "hello"), answer_id);
    assert_eq!(answer.sequence, 2);
    assert_eq!(ann.expect_push(), 2);
}

fn pending(from: i32, sequence: u64) -> Message {
    Message {
        message_type: MessageType::FriendChat.into(),
        sender: Some(Sender {
            user_id: from,
            ..Default::default()
        }),
        sequence,
        ..Default::default()
    }
}

fn acknowledge(client: &mut Client, friend_id: i32, sequence: u64) {
    let conversation = Conversation {
        friend_id,
        ..Default::default()
    };
    let ack = ConversationAck {
        conversation: Some(conversation),
        sequence,
    };
    client.send(MessageId::DELIVERY_ACK, 0, &DeliveryAck { acks: vec![ack] });
}
