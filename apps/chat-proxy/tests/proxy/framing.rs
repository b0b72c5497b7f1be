//! Bytes that come in pieces, in heaps, and wrong.

use bytes::Bytes;
use chat_proto::ids::{MessageId, code};
use chat_proto::messages::*;

use super::Setting;
use crate::client::{chat, login_request, request};

#[test]
fn frames_split_into_single_bytes_are_understood() {
    let setting = Setting::new();
    let mut client = setting.connect();
    let mut bytes = request(MessageId::LOGIN, 5, &login_request(1, false));
    bytes.extend(request(MessageId::HEARTBEAT, 6, &Heartbeat { token: 9 }));
    for byte in bytes {
        client.send_raw(&[byte]);
    }
    let mut answers = [client.receive(), client.receive()];
    answers.sort_by_key(|frame| frame.request_id);
    let ids = answers.map(|frame| (frame.message_id, frame.request_id));
    assert_eq!(ids, [(21, 5), (102, 6)]);
}

#[test]
fn twenty_glued_frames_are_all_answered() {
    let setting = Setting::new();
    let mut client = setting.logged_in(1);
    let glued: Vec<u8> = (1..=20)
        .flat_map(|id| request(MessageId::FRIEND_CHAT, id, &chat(1, 1 + id as i32, "hello")))
        .collect();
    client.send_raw(&glued);
    let mut answered: Vec<u64> = (0..20)
        .map(|_| {
            let frame = client.receive();
            assert_eq!(frame.message_id, MessageId::FRIEND_CHAT_ANSWER.0);
            frame.request_id
        })
        .collect();
    answered.sort_unstable();
    assert_eq!(answered, (1..=20).collect::<Vec<_>>());
}

#[test]
fn garbage_and_oversized_frames_end_their_connection_and_no_other() {
    let setting = Setting::with(|options| options.frame_bytes_max = 1000);
    let mut other = setting.logged_in(1);
    for (bytes, expected) in [
        (&[0, 0, 0, 2, 0xff, 0xff][..], code::INVALID),
        (&[0, 0, 3, 0xe9][..], code::TOO_LARGE),
        (&b"GET / HTTP/1.1\r\n\r\n"[..], code::TOO_LARGE),
    ] {
        let mut client = setting.logged_in(2);
        client.send_raw(bytes);
        let notice: ErrorNotice = client.expect(MessageId::ERROR);
        assert_eq!(notice.error_code, expected);
        assert!(!notice.error_text.is_empty());
        client.expect_closed();
    }
    setting.fake.wait("all three are logged out", |state| {
        state
            .calls
            .iter()
            .filter(|call| call.name == "logout")
            .count()
            == 3
    });
    other.expect_silence();
}

#[test]
fn a_frame_at_the_limit_is_taken() {
    let setting = Setting::with(|options| options.frame_bytes_max = 1000);
    let mut client = setting.connect();
    let padding = |length| RegisterRequest {
        user_name: Bytes::from(vec![b'a'; length]),
        ..Default::default()
    };
    let mut name = 1000;
    let frame = loop {
        let frame = request(MessageId::REGISTER, 1, &padding(name));
        if frame.len() == 1004 {
            break frame;
        }
        name -= 1;
    };
    client.send_raw(&frame);
    let answer: RegisterResponse = client.expect(MessageId::REGISTER_ANSWER);
    assert_eq!(answer.error_code, code::SUCCESS);
}

#[test]
fn an_unknown_message_id_is_named_and_the_connection_goes_on() {
    let setting = Setting::new();
    let mut client = setting.connect();
    for id in [0, 3, 13, 20, 104, 9999, -1] {
        client.send(MessageId(id), 42, &Heartbeat::default());
        let frame = client.receive();
        assert_eq!((frame.message_id, frame.request_id), (100, 42), "{id}");
        let notice = <ErrorNotice as prost::Message>::decode(frame.content).expect("a notice");
        assert_eq!(notice.error_code, code::UNKNOWN_MESSAGE);
    }
    client.expect_silence();
}
