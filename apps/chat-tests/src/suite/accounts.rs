//! Registering, logging in and out, and who is online.

use chat_proto::ids::{MessageId, code};
use chat_proto::messages::*;
use prost::Message as _;

use super::{PASSWORD, eventually, friends, login, unique_name};
use crate::{System, WireClient};

pub(super) fn register_and_login_answer_with_their_codes(system: &System) {
    let mut client = WireClient::connect(system.left);
    let name = unique_name("张伟 😀 ");
    let first = client.register(&name, PASSWORD);
    assert_eq!(first.error_code, code::SUCCESS);
    assert!(first.user_id > 0);
    assert_eq!(
        client.register(&name, "another").error_code,
        code::REGISTER_NAME_TAKEN
    );
    assert_eq!(
        client.register("", PASSWORD).error_code,
        code::REGISTER_EMPTY
    );
    assert_eq!(
        client.register(&unique_name("x"), "").error_code,
        code::REGISTER_EMPTY
    );
    let request = RegisterRequest {
        user_name: bytes::Bytes::from_static(b"\xff\xfe"),
        user_password: bytes::Bytes::from_static(b"x"),
    };
    let answer: RegisterResponse =
        client.request(MessageId::REGISTER, &request, MessageId::REGISTER_ANSWER);
    assert_eq!(answer.error_code, code::INVALID);

    assert_eq!(
        client.login(0, PASSWORD, true).error_code,
        code::LOGIN_BAD_ID
    );
    assert_eq!(
        client.login(i32::MAX, PASSWORD, true).error_code,
        code::LOGIN_NO_USER
    );
    assert_eq!(
        client.login(first.user_id, "wrong", true).error_code,
        code::LOGIN_WRONG_PASSWORD
    );
    let answer = login(&mut client, first.user_id, true);
    let user = answer.user.unwrap();
    assert_eq!(user.user_id, first.user_id);
    assert_eq!(user.user_name, name.as_bytes());
    assert_eq!(&user.user_state[..], b"online");
    assert!(user.user_password.is_empty());
    assert_eq!(client.logout().error_code, code::SUCCESS);
    // Logged out, the connection may log in again, and then knows when it was last offline.
    let answer = login(&mut client, first.user_id, true);
    assert!(!answer.user.unwrap().last_offline_time.is_empty());
}

pub(super) fn a_name_does_where_an_id_does(system: &System) {
    let mut ann = WireClient::connect(system.left);
    let mut bob = WireClient::connect(system.right);
    let (of_ann, of_bob) = (unique_name("Zo\u{eb} 😀"), unique_name("bo\u{eb}"));
    for (client, name) in [(&mut ann, &of_ann), (&mut bob, &of_bob)] {
        let registered = client.register(name, PASSWORD);
        for (name, password) in [(name.to_uppercase(), PASSWORD), (name.clone(), "wrong")] {
            let wrong = client.login_by_name(&name, password);
            assert_eq!(wrong.error_code, code::LOGIN_WRONG_PASSWORD, "{name}");
        }
        // As another keyboard types it.
        let typed = format!(" {} ", name.replace('\u{eb}', "e\u{308}"));
        let answer = client.login_by_name(&typed, PASSWORD);
        assert_eq!(answer.error_code, code::SUCCESS, "{}", answer.error_text);
        assert_eq!(client.user_id, registered.user_id);
    }
    let nobody = ann.add_friend_by_name(&unique_name("nobody"));
    assert_eq!(nobody.error_code, code::ADD_FRIEND_NO_USER);
    let oneself = ann.add_friend_by_name(&of_ann);
    assert_eq!(oneself.error_code, code::ADD_FRIEND_BAD_ID);
    let added = ann.add_friend_by_name(&of_bob);
    assert_eq!(added.error_code, code::SUCCESS, "{}", added.error_text);
    let friend = added.friend_user.unwrap();
    assert_eq!(friend.friend_id, bob.user_id);
    assert_eq!(friend.friend_name, of_bob.as_bytes());
    let notice: AddFriendRequest = bob.push(MessageId::RECV_ADD_FRIEND);
    assert_eq!(notice.user_id, ann.user_id);
    assert_eq!(notice.user_name, of_ann.as_bytes());
    // The conversation has begun on both sides: the next message of it is shown at once.
    assert_eq!(bob.chat(ann.user_id, "hello").error_code, code::SUCCESS);
    let push: FriendChatRequest = ann.push(MessageId::RECV_FRIEND);
    assert_eq!((push.content.as_str(), push.sequence), ("hello", 2));
}

pub(super) fn the_newer_login_wins(system: &System) {
    for newer_address in [system.left, system.right] {
        let (mut friend, older) = friends(&System {
            left: system.right,
            right: system.left,
        });
        let user = older.user_id;
        let mut newer = WireClient::connect(newer_address);
        login(&mut newer, user, true);
        let last = older.closed().pop().expect("the older session is told");
        assert_eq!(last.message_id, MessageId::SIGNED_OUT.0);
        assert!(!SignedOut::decode(last.content).unwrap().reason.is_empty());
        assert_eq!(&friend.friends()[0].friend_state[..], b"online");
        assert_eq!(friend.chat(user, "to the newer").error_code, code::SUCCESS);
        let push: FriendChatRequest = newer.push(MessageId::RECV_FRIEND);
        assert_eq!(push.content, "to the newer");
    }
}

pub(super) fn nothing_is_done_before_login_or_for_others(system: &System) {
    let mut nobody = WireClient::connect(system.left);
    assert_eq!(nobody.chat(1, "x").error_code, code::NOT_LOGGED_IN);
    assert_eq!(nobody.group_chat(1, "x").error_code, code::NOT_LOGGED_IN);
    assert_eq!(nobody.add_friend(1).error_code, code::NOT_LOGGED_IN);
    assert_eq!(nobody.delete_friend(1).error_code, code::NOT_LOGGED_IN);
    assert_eq!(nobody.create_group("x").error_code, code::NOT_LOGGED_IN);
    assert_eq!(nobody.join_group(1).error_code, code::NOT_LOGGED_IN);
    assert_eq!(nobody.quit_group(1).error_code, code::NOT_LOGGED_IN);
    assert_eq!(nobody.delete_group(1).error_code, code::NOT_LOGGED_IN);
    assert_eq!(nobody.logout().error_code, code::NOT_LOGGED_IN);

    let (mut left, mut right) = friends(system);
    let me = left.user_id;
    left.user_id = right.user_id;
    assert_eq!(left.chat(me, "forged").error_code, code::NOT_YOURSELF);
    assert_eq!(left.add_friend(me).error_code, code::NOT_YOURSELF);
    assert_eq!(left.create_group("forged").error_code, code::NOT_YOURSELF);
    assert_eq!(left.logout().error_code, code::NOT_YOURSELF);
    assert_eq!(
        left.login(me, PASSWORD, true).error_code,
        code::ALREADY_LOGGED_IN
    );
    right.assert_no_push();
}

pub(super) fn a_closed_connection_logs_out(system: &System) {
    let (mut left, right) = friends(system);
    assert_eq!(&left.friends()[0].friend_state[..], b"online");
    drop(right);
    eventually("the friend is offline", || {
        &left.friends()[0].friend_state[..] == b"offline"
    });
}
