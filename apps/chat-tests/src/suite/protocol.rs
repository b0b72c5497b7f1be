//! Frames, well and ill formed, and clients that know less.

use chat_proto::ids::{MessageId, code};
use chat_proto::messages::*;
use prost::Message as _;

use super::{eventually, friends, login, offline};
use crate::wire::request_frame;
use crate::{System, WireClient};

pub(super) fn frames_split_glued_and_broken(system: &System) {
    let (mut left, mut right) = friends(system);
    let (a, b) = (left.user_id, right.user_id);
    // Split into single bytes.
    let frame = request_frame(
        MessageId::FRIEND_CHAT,
        &left.chat_request(b, "split", 0),
        1000,
    );
    for byte in frame {
        left.send_bytes(&[byte]);
    }
    let answer: FriendChatResponse = left.answer(1000, MessageId::FRIEND_CHAT_ANSWER);
    assert_eq!(answer.error_code, code::SUCCESS);
    // Glued: twenty in one write.
    let mut glued = Vec::new();
    for i in 0..20u64 {
        let request = left.chat_request(b, &format!("glued {i}"), 0);
        glued.extend_from_slice(&request_frame(MessageId::FRIEND_CHAT, &request, 2000 + i));
    }
    left.send_bytes(&glued);
    let mut answered: Vec<u64> = (0..20).map(|_| left.any_answer().request_id).collect();
    answered.sort_unstable();
    assert_eq!(answered, (2000..2020).collect::<Vec<_>>());
    let push: FriendChatRequest = right.push(MessageId::RECV_FRIEND);
    assert_eq!(push.content, "split");
    for i in 0..20 {
        let push: FriendChatRequest = right.push(MessageId::RECV_FRIEND);
        assert_eq!(push.content, format!("glued {i}"));
    }
    // An unknown message id, and content that is no message: told, and the connection goes on.
    let request_id = left.send(MessageId(9999), &Heartbeat { token: 1 });
    let notice: ErrorNotice = left.answer(request_id, MessageId::ERROR);
    assert_eq!(notice.error_code, code::UNKNOWN_MESSAGE);
    let garbage = RequestFrame {
        message_id: MessageId::FRIEND_CHAT.0,
        content: bytes::Bytes::from_static(b"\xff\xff\xff"),
        request_id: 3000,
    };
    left.send_bytes(&chat_proto::frame::to_bytes(&garbage));
    let answer: FriendChatResponse = left.answer(3000, MessageId::FRIEND_CHAT_ANSWER);
    assert_eq!(answer.error_code, code::INVALID);
    // What cannot be framed ends its connection, and no other.
    for broken in [
        &b"\x00\x00\x00\x04\xff\xff\xff\xff"[..],
        b"\x7f\xff\xff\xff",
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        let mut client = WireClient::connect(system.left);
        client.send_bytes(broken);
        let told = client.closed();
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].message_id, MessageId::ERROR.0);
    }
    assert_eq!(left.chat(b, "still here").error_code, code::SUCCESS);
    assert_eq!(right.chat(a, "here too").error_code, code::SUCCESS);
}

pub(super) fn an_old_client_is_served_in_full(system: &System) {
    let (mut left, right) = friends(system);
    let b = right.user_id;
    drop(right);
    assert_eq!(left.chat(b, "while away").error_code, code::SUCCESS);
    // An old client knows no request ids and no acknowledgements.
    let mut old = WireClient::connect(system.right);
    login(&mut old, b, false);
    assert_eq!(left.chat(b, "while here").error_code, code::SUCCESS);
    let push: FriendChatRequest = old.push(MessageId::RECV_FRIEND);
    assert_eq!(push.content, "while here");
    // What was written to its socket counts as received.
    eventually("nothing is pending any more", || {
        old.logout();
        offline(&login(&mut old, b, true)).is_empty()
    });
    let frame = RequestFrame {
        message_id: MessageId::FETCH_FRIENDS.0,
        content: FetchFriendsRequest {
            user_id: b,
            ..Default::default()
        }
        .encode_to_vec()
        .into(),
        request_id: 0,
    };
    old.send_bytes(&chat_proto::frame::to_bytes(&frame));
    let answer: FetchFriendsResponse = old.push(MessageId::FETCH_FRIENDS_ANSWER);
    assert_eq!(answer.error_code, code::SUCCESS);
}
