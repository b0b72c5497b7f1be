//! Answers that grow with what is stored.

use chat_proto::frame::{RESPONSE_CONTENT_BYTES_MAX, RESPONSE_FRAME_BYTES_MIN};
use chat_proto::ids::MessageId;
use chat_proto::messages::*;
use prost::Message as _;

use super::Setting;
use crate::client::request;

const ASKED: u64 = 60;

/// Requests for history and members, by turns.
fn requests() -> Vec<u8> {
    let ask = |id: u64| match id % 2 {
        0 => request(
            MessageId::FETCH_HISTORY,
            id,
            &FetchHistoryRequest {
                user_id: 1,
                ..Default::default()
            },
        ),
        _ => request(
            MessageId::FETCH_GROUP_MEMBERS,
            id,
            &FetchGroupMembersRequest {
                user_id: 1,
                ..Default::default()
            },
        ),
    };
    (1..=ASKED).flat_map(ask).collect()
}

#[test]
fn however_many_large_answers_are_asked_for_none_closes_the_connection() {
    let setting = Setting::with(|options| {
        options.output_bytes_max = options.output_high_bytes + RESPONSE_FRAME_BYTES_MIN;
    });
    // As large as an answer can be, with what stands around a text.
    let bytes = RESPONSE_CONTENT_BYTES_MAX - 32;
    setting.fake.script(|state| state.answer_bytes = bytes);
    let mut client = setting.logged_in(1);
    client.send_raw(&requests());
    // Nothing is read until more is asked for than the kernel takes.
    setting.fake.wait("an answer", |state| {
        state
            .calls
            .iter()
            .any(|call| call.name.starts_with("fetch_"))
    });
    for id in 1..=ASKED {
        let frame = client.receive();
        assert_eq!(frame.request_id, id);
        assert!(frame.content.len() > bytes);
    }
    client.expect_silence();
}

#[test]
fn messages_do_not_wait_for_large_answers() {
    let setting = Setting::new();
    setting
        .fake
        .script(|state| state.answer_bytes = RESPONSE_CONTENT_BYTES_MAX / 2);
    let mut client = setting.logged_in(1);
    let mut bytes = requests();
    let chat = crate::client::chat(1, 2, "hello");
    bytes.extend(request(MessageId::FRIEND_CHAT, 1000, &chat));
    client.send_raw(&bytes);
    // The client takes nothing, so the others stand behind the first ones.
    setting.fake.wait("the chat", |state| {
        state.calls.iter().any(|call| call.name == "friend_chat")
    });
    assert!(
        setting.fake.count("fetch_history") + setting.fake.count("fetch_group_members")
            < ASKED as usize
    );
    let mut answered = 0;
    while answered <= ASKED {
        let frame = client.receive();
        if frame.message_id == MessageId::FRIEND_CHAT_ANSWER.0 {
            FriendChatResponse::decode(frame.content).expect("an answer");
        }
        answered += 1;
    }
    client.expect_silence();
}

#[test]
fn a_logout_waits_for_the_large_answers_before_it() {
    let setting = Setting::new();
    setting.fake.script(|state| state.answer_bytes = 1 << 20);
    let mut client = setting.logged_in(1);
    let mut bytes = requests();
    bytes.extend(request(
        MessageId::LOGOUT,
        1000,
        &crate::client::logout_request(1),
    ));
    client.send_raw(&bytes);
    for id in 1..=ASKED {
        assert_eq!(client.receive().request_id, id);
    }
    assert_eq!(client.receive().message_id, MessageId::LOGOUT_ANSWER.0);
}
