//! Sessions that go on after a lost connection.

use chat_proto::ids::{MessageId, code};
use chat_proto::messages::*;

use super::{eventually, friends, login, new_user, offline};
use crate::{System, WireClient};

pub(super) fn a_session_goes_on_at_another_proxy(system: &System) {
    let (mut left, mut right) = friends(system);
    let (a, b) = (left.user_id, right.user_id);
    drop(right);
    // It has taken the notice of the friendship and has not acknowledged it.
    right = WireClient::connect(system.right);
    let token = login(&mut right, b, true).session_token;
    assert_eq!(token.len(), 32);
    let first = left.chat(b, "first").sequence;
    let push: FriendChatRequest = right.push(MessageId::RECV_FRIEND);
    assert_eq!(push.sequence, first);

    // The client comes back by another way, while its old connection still stands.
    let mut again = WireClient::connect(system.left);
    let answer = again.resume(b, &token, &[(a, first)]);
    assert_eq!(answer.error_code, code::SUCCESS, "{}", answer.error_text);
    assert!(offline(&answer).is_empty(), "{answer:?}");
    assert_eq!(answer.friend_list.unwrap().friend_users.len(), 1);
    let second = left.chat(b, "second").sequence;
    let push: FriendChatRequest = again.push(MessageId::RECV_FRIEND);
    assert_eq!(push.sequence, second);
    let _: SignedOut = right.push(MessageId::SIGNED_OUT);
    drop(right);

    // Lost again, and away for a while: what came meanwhile, and no more, comes with the answer. A first
    // resume may be lost on its way.
    drop(again);
    eventually("logged out", || left.friends()[0].friend_state == "offline");
    let third = left.chat(b, "third").sequence;
    let mut again = WireClient::connect(system.right);
    let answer = again.resume(b, &token, &[(a, second)]);
    let waiting: Vec<u64> = offline(&answer).iter().map(|m| m.sequence).collect();
    assert_eq!(waiting, [third]);
    // What was said to be received is acknowledged, so a login elsewhere does not bring it again.
    eventually("acknowledged", || {
        let mut other = WireClient::connect(system.left);
        let answer = login(&mut other, b, true);
        let waiting = offline(&answer).iter().map(|m| m.sequence);
        waiting.eq([third])
    });
}

pub(super) fn a_session_ends_with_its_logout_or_a_newer_login(system: &System) {
    let mut client = WireClient::connect(system.left);
    let user = new_user(&mut client);
    let token = login(&mut client, user, true).session_token;
    assert_eq!(client.logout().error_code, code::SUCCESS);
    let refused = |token| {
        let mut client = WireClient::connect(system.right);
        client.resume(user, token, &[]).error_code
    };
    assert_eq!(refused(&token), code::SESSION_ENDED);
    let older = login(&mut client, user, true).session_token;
    let mut newer = WireClient::connect(system.right);
    let token = login(&mut newer, user, true).session_token;
    assert_eq!(refused(&older), code::SESSION_ENDED);
    newer.logout();
    assert_eq!(refused(&token), code::SESSION_ENDED);
}
