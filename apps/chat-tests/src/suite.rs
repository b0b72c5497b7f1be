//! What every chat must do, as functions of a running [`System`]. Each makes users of its own, so
//! all of them may run on one system at once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chat_proto::ids::{MessageId, code};
use chat_proto::messages::*;
use prost::Message as _;

use crate::wire::request_frame;
use crate::{System, WireClient};

const PASSWORD: &str = "correct horse 密码";

/// A case by name.
pub type Case = (&'static str, fn(&System));

/// All cases.
pub const CASES: &[Case] = &[
    (
        "register_and_login_answer_with_their_codes",
        register_and_login_answer_with_their_codes,
    ),
    (
        "friends_are_added_and_deleted_and_told",
        friends_are_added_and_deleted_and_told,
    ),
    (
        "messages_arrive_in_order_and_intact",
        messages_arrive_in_order_and_intact,
    ),
    ("only_friends_can_write", only_friends_can_write),
    (
        "offline_messages_wait_for_the_login",
        offline_messages_wait_for_the_login,
    ),
    (
        "a_long_absence_is_made_up_for_once_and_in_order",
        a_long_absence_is_made_up_for_once_and_in_order,
    ),
    ("pending_until_acknowledged", pending_until_acknowledged),
    (
        "a_send_repeated_is_stored_once",
        a_send_repeated_is_stored_once,
    ),
    ("groups_live_and_die", groups_live_and_die),
    (
        "group_messages_reach_every_other_member",
        group_messages_reach_every_other_member,
    ),
    ("the_newer_login_wins", the_newer_login_wins),
    (
        "nothing_is_done_before_login_or_for_others",
        nothing_is_done_before_login_or_for_others,
    ),
    ("a_closed_connection_logs_out", a_closed_connection_logs_out),
    (
        "history_has_both_sides_without_gaps",
        history_has_both_sides_without_gaps,
    ),
    (
        "frames_split_glued_and_broken",
        frames_split_glued_and_broken,
    ),
    (
        "an_old_client_is_served_in_full",
        an_old_client_is_served_in_full,
    ),
];

/// A user who is not there yet; names are unique among all runs on one store.
fn new_user(client: &mut WireClient) -> i32 {
    let answer = client.register(&unique_name("user"), PASSWORD);
    assert_eq!(answer.error_code, code::SUCCESS, "{}", answer.error_text);
    answer.user_id
}

fn unique_name(what: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_nanos();
    format!("{what} {now} {}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A new user who has logged in, as a client that acknowledges.
fn member(address: std::net::SocketAddr) -> WireClient {
    let mut client = WireClient::connect(address);
    let user = new_user(&mut client);
    login(&mut client, user, true);
    client
}

/// Logs a user of the suite in.
pub fn login(client: &mut WireClient, user: i32, acknowledges: bool) -> LoginResponse {
    let answer = client.login(user, PASSWORD, acknowledges);
    assert_eq!(answer.error_code, code::SUCCESS, "{}", answer.error_text);
    answer
}

/// Two friends, one on each proxy, with the notice of their friendship taken.
pub fn friends(system: &System) -> (WireClient, WireClient) {
    let mut left = member(system.left);
    let mut right = member(system.right);
    let answer = left.add_friend(right.user_id);
    assert_eq!(answer.error_code, code::SUCCESS, "{}", answer.error_text);
    let notice: AddFriendRequest = right.push(MessageId::RECV_ADD_FRIEND);
    assert_eq!(
        (notice.user_id, notice.friend_id),
        (left.user_id, right.user_id)
    );
    (left, right)
}

/// Whether a proxy has found all services: each answers, if only to refuse.
pub fn serves(address: std::net::SocketAddr) -> bool {
    let mut client = WireClient::connect(address);
    let name = unique_name("probe");
    let user = client.register(&name, PASSWORD);
    if user.error_code != code::SUCCESS
        || client.login(user.user_id, PASSWORD, true).error_code != code::SUCCESS
    {
        return false;
    }
    client.chat(i32::MAX, "").error_code == code::FRIEND_CHAT_NOT_FRIENDS
        && client.group_chat(i32::MAX, "").error_code == code::GROUP_CHAT_NOT_MEMBER
        && client.add_friend(i32::MAX).error_code == code::ADD_FRIEND_NO_USER
        && client.join_group(i32::MAX).error_code == code::JOIN_NO_GROUP
}

fn offline(answer: &LoginResponse) -> &[Message] {
    answer
        .offline_message_list
        .as_ref()
        .map_or(&[], |list| &list.messages)
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < until, "{what}");
        std::thread::yield_now();
    }
}

fn register_and_login_answer_with_their_codes(system: &System) {
    let mut client = WireClient::connect(system.left);
    let name = unique_name("张伟 😀 ");
    let first = client.register(&name, PASSWORD);
    assert_eq!(first.error_code, code::SUCCESS);
    assert!(first.user_id > 0);
    assert_eq!(
        client.register(&name, "other").error_code,
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

fn friends_are_added_and_deleted_and_told(system: &System) {
    let (mut left, mut right) = friends(system);
    let (a, b) = (left.user_id, right.user_id);
    assert_eq!(left.add_friend(b).error_code, code::ADD_FRIEND_ALREADY);
    assert_eq!(right.add_friend(a).error_code, code::ADD_FRIEND_ALREADY);
    assert_eq!(left.add_friend(a).error_code, code::ADD_FRIEND_BAD_ID);
    assert_eq!(left.add_friend(-1).error_code, code::ADD_FRIEND_BAD_ID);
    assert_eq!(
        left.add_friend(i32::MAX).error_code,
        code::ADD_FRIEND_NO_USER
    );
    let seen = right.friends();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].friend_id, a);
    assert_eq!(&seen[0].friend_state[..], b"online");

    let answer = right.delete_friend(a);
    assert_eq!((answer.error_code, answer.friend_id), (code::SUCCESS, a));
    let notice: DeleteFriendRequest = left.push(MessageId::RECV_DELETE_FRIEND);
    assert_eq!((notice.user_id, notice.friend_id), (b, a));
    assert_eq!(
        right.delete_friend(a).error_code,
        code::DELETE_FRIEND_NOT_FRIENDS
    );
    assert_eq!(left.delete_friend(0).error_code, code::DELETE_FRIEND_BAD_ID);
    assert_eq!(
        left.delete_friend(i32::MAX).error_code,
        code::DELETE_FRIEND_NO_USER
    );
    assert!(left.friends().is_empty());
}

fn messages_arrive_in_order_and_intact(system: &System) {
    let (mut left, mut right) = friends(system);
    let (a, b) = (left.user_id, right.user_id);
    let texts = [
        "hi",
        "it's \"quoted\"; -- DROP",
        "你好，世界 👋",
        "",
        "same",
        "same",
        "\n\ttabs\u{0}",
    ];
    for text in texts {
        let answer = left.chat(b, text);
        assert_eq!(answer.error_code, code::SUCCESS, "{}", answer.error_text);
    }
    let mut last = 0;
    for text in texts {
        let push: FriendChatRequest = right.push(MessageId::RECV_FRIEND);
        assert_eq!(push.content, text);
        assert_eq!(push.time, "2026-01-02 03:04:05");
        assert_eq!(push.sender.unwrap().user_id, a);
        assert_eq!(push.receiver.unwrap().user_id, b);
        assert!(push.sequence > last);
        assert!(push.server_time_ms > 0);
        last = push.sequence;
    }
    // Pipelined, both ways at once.
    let mut asked = Vec::new();
    for i in 0..200 {
        let request = left.chat_request(b, &format!("left {i}"), 0);
        asked.push(left.send(MessageId::FRIEND_CHAT, &request));
        let answer = right.chat(a, &format!("right {i}"));
        assert_eq!(answer.error_code, code::SUCCESS, "{}", answer.error_text);
        if asked.len() == 20 {
            for _ in asked.drain(..) {
                let frame = left.any_answer();
                let answer = FriendChatResponse::decode(frame.content).unwrap();
                assert_eq!(answer.error_code, code::SUCCESS, "{}", answer.error_text);
            }
        }
    }
    for i in 0..200 {
        let push: FriendChatRequest = right.push(MessageId::RECV_FRIEND);
        assert_eq!(push.content, format!("left {i}"));
        let push: FriendChatRequest = left.push(MessageId::RECV_FRIEND);
        assert_eq!(push.content, format!("right {i}"));
    }
    left.assert_no_push();
    right.assert_no_push();
}

fn only_friends_can_write(system: &System) {
    let (mut left, mut right) = friends(system);
    let mut stranger = member(system.right);
    assert_eq!(
        stranger.chat(left.user_id, "x").error_code,
        code::FRIEND_CHAT_NOT_FRIENDS
    );
    assert_eq!(
        left.chat(left.user_id, "x").error_code,
        code::FRIEND_CHAT_NOT_FRIENDS
    );
    assert_eq!(
        left.chat(i32::MAX, "x").error_code,
        code::FRIEND_CHAT_NOT_FRIENDS
    );
    right.delete_friend(left.user_id);
    assert_eq!(
        left.chat(right.user_id, "x").error_code,
        code::FRIEND_CHAT_NOT_FRIENDS
    );
    right.assert_no_push();
    let large = "x".repeat(100_000);
    left.add_friend(right.user_id);
    assert_eq!(left.chat(right.user_id, &large).error_code, code::TOO_LARGE);
}

fn offline_messages_wait_for_the_login(system: &System) {
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

fn a_long_absence_is_made_up_for_once_and_in_order(system: &System) {
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

fn pending_until_acknowledged(system: &System) {
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

fn a_send_repeated_is_stored_once(system: &System) {
    let (mut left, mut right) = friends(system);
    let b = right.user_id;
    let request = left.chat_request(b, "once", 4711);
    let ask = |client: &mut WireClient| -> FriendChatResponse {
        client.request(
            MessageId::FRIEND_CHAT,
            &request,
            MessageId::FRIEND_CHAT_ANSWER,
        )
    };
    let first = ask(&mut left);
    let again = ask(&mut left);
    assert_eq!(first.error_code, code::SUCCESS);
    assert_eq!(first, again);
    // Also over another proxy, after the connection was lost.
    let user = left.user_id;
    drop(left);
    let mut left = WireClient::connect(system.right);
    login(&mut left, user, true);
    assert_eq!(ask(&mut left), first);
    assert_eq!(left.chat(b, "next").sequence, first.sequence + 1);
    let push: FriendChatRequest = right.push(MessageId::RECV_FRIEND);
    assert_eq!(push.content, "once");
    let push: FriendChatRequest = right.push(MessageId::RECV_FRIEND);
    assert_eq!(push.content, "next");
    right.assert_no_push();
}

fn groups_live_and_die(system: &System) {
    let mut admin = member(system.left);
    let mut other = member(system.right);
    assert_eq!(admin.create_group("").error_code, code::CREATE_GROUP_EMPTY);
    let group = admin.create_group("读书会").group.unwrap();
    let id = group.group_id;
    assert_eq!(group.group_name, "读书会".as_bytes());
    let members = group.group_user_list.unwrap().group_users;
    assert_eq!(members.len(), 1);
    assert_eq!(&members[0].user_role[..], b"admin");
    assert_eq!(&members[0].user_state[..], b"online");

    assert_eq!(other.join_group(0).error_code, code::JOIN_BAD_ID);
    assert_eq!(other.join_group(i32::MAX).error_code, code::JOIN_NO_GROUP);
    let joined = other.join_group(id);
    assert_eq!(joined.error_code, code::SUCCESS, "{}", joined.error_text);
    assert_eq!(
        joined
            .group
            .unwrap()
            .group_user_list
            .unwrap()
            .group_users
            .len(),
        2
    );
    let notice: AddGroupRequest = admin.push(MessageId::RECV_ADD_GROUP);
    assert_eq!((notice.user_id, notice.group_id), (other.user_id, id));
    assert_eq!(other.join_group(id).error_code, code::JOIN_ALREADY);

    assert_eq!(
        other.delete_group(id).error_code,
        code::DELETE_GROUP_NOT_ADMIN
    );
    assert_eq!(other.quit_group(0).error_code, code::LEAVE_BAD_ID);
    let left = other.quit_group(id);
    assert_eq!((left.error_code, left.group_id), (code::SUCCESS, id));
    let notice: QuitGroupRequest = admin.push(MessageId::RECV_QUIT_GROUP);
    assert_eq!(notice.user_id, other.user_id);
    assert_eq!(other.quit_group(id).error_code, code::LEAVE_NOT_MEMBER);
    assert_eq!(
        other.delete_group(id).error_code,
        code::DELETE_GROUP_NOT_MEMBER
    );
    assert_eq!(other.delete_group(-5).error_code, code::DELETE_GROUP_BAD_ID);

    other.join_group(id);
    let _: AddGroupRequest = admin.push(MessageId::RECV_ADD_GROUP);
    let deleted = admin.delete_group(id);
    assert_eq!((deleted.error_code, deleted.group_id), (code::SUCCESS, id));
    let notice: DeleteGroupRequest = other.push(MessageId::RECV_DELETE_GROUP);
    assert_eq!((notice.user_id, notice.group_id), (admin.user_id, id));
    let request = FetchGroupsRequest {
        user_id: other.user_id,
    };
    let answer: FetchGroupsResponse = other.request(
        MessageId::FETCH_GROUPS,
        &request,
        MessageId::FETCH_GROUPS_ANSWER,
    );
    assert_eq!(answer.error_code, code::SUCCESS);
    assert!(answer.group_list.unwrap_or_default().groups.is_empty());
}

fn group_messages_reach_every_other_member(system: &System) {
    let mut sender = member(system.left);
    let mut near = member(system.left);
    let mut far = member(system.right);
    let mut away = member(system.right);
    let id = sender.create_group("g").group.unwrap().group_id;
    for client in [&mut near, &mut far, &mut away] {
        assert_eq!(client.join_group(id).error_code, code::SUCCESS);
        let _: AddGroupRequest = sender.push(MessageId::RECV_ADD_GROUP);
    }
    for _ in 0..2 {
        let _: AddGroupRequest = near.push(MessageId::RECV_ADD_GROUP);
    }
    let _: AddGroupRequest = far.push(MessageId::RECV_ADD_GROUP);
    let away_id = away.user_id;
    away.logout();
    for i in 0..10 {
        let answer = sender.group_chat(id, &format!("to all {i}"));
        assert_eq!(answer.error_code, code::SUCCESS, "{}", answer.error_text);
    }
    for client in [&mut near, &mut far] {
        for i in 0..10 {
            let push: GroupChatRequest = client.push(MessageId::RECV_GROUP);
            assert_eq!(push.content, format!("to all {i}"));
            assert_eq!(push.sender.unwrap().user_id, sender.user_id);
            assert_eq!(push.receiver.unwrap().group_id, id);
        }
    }
    sender.assert_no_push();
    let answer = login(&mut away, away_id, true);
    let texts: Vec<_> = offline(&answer).iter().map(|m| m.content.clone()).collect();
    assert_eq!(
        texts,
        (0..10).map(|i| format!("to all {i}")).collect::<Vec<_>>()
    );
    assert!(
        offline(&answer)
            .iter()
            .all(|m| m.receiver.as_ref().unwrap().group_id == id)
    );
    let mut stranger = member(system.left);
    assert_eq!(
        stranger.group_chat(id, "x").error_code,
        code::GROUP_CHAT_NOT_MEMBER
    );
    assert_eq!(
        stranger.group_chat(i32::MAX, "x").error_code,
        code::GROUP_CHAT_NOT_MEMBER
    );
}

fn the_newer_login_wins(system: &System) {
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

fn nothing_is_done_before_login_or_for_others(system: &System) {
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

fn a_closed_connection_logs_out(system: &System) {
    let (mut left, right) = friends(system);
    assert_eq!(&left.friends()[0].friend_state[..], b"online");
    drop(right);
    eventually("the friend is offline", || {
        &left.friends()[0].friend_state[..] == b"offline"
    });
}

fn history_has_both_sides_without_gaps(system: &System) {
    let (mut left, mut right) = friends(system);
    let (a, b) = (left.user_id, right.user_id);
    for i in 0..10 {
        assert_eq!(left.chat(b, &format!("l{i}")).error_code, code::SUCCESS);
        assert_eq!(right.chat(a, &format!("r{i}")).error_code, code::SUCCESS);
    }
    let request = FetchHistoryRequest {
        user_id: a,
        conversation: Some(Conversation {
            friend_id: b,
            group_id: 0,
        }),
        first_sequence: 1,
        count_max: 0,
    };
    let answer: FetchHistoryResponse = left.request(
        MessageId::FETCH_HISTORY,
        &request,
        MessageId::FETCH_HISTORY_ANSWER,
    );
    assert_eq!(answer.error_code, code::SUCCESS, "{}", answer.error_text);
    let sequences: Vec<u64> = answer.messages.iter().map(|m| m.sequence).collect();
    assert_eq!(sequences, (1..=21).collect::<Vec<_>>());
    assert_eq!(answer.last_sequence, 21);
    let mut stranger = member(system.right);
    let request = FetchHistoryRequest {
        user_id: stranger.user_id,
        conversation: Some(Conversation {
            friend_id: a,
            group_id: 0,
        }),
        ..Default::default()
    };
    let answer: FetchHistoryResponse = stranger.request(
        MessageId::FETCH_HISTORY,
        &request,
        MessageId::FETCH_HISTORY_ANSWER,
    );
    assert_ne!(answer.error_code, code::SUCCESS);
    assert!(answer.messages.is_empty());
}

fn frames_split_glued_and_broken(system: &System) {
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

fn an_old_client_is_served_in_full(system: &System) {
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
        content: FetchFriendsRequest { user_id: b }.encode_to_vec().into(),
        request_id: 0,
    };
    old.send_bytes(&chat_proto::frame::to_bytes(&frame));
    let answer: FetchFriendsResponse = old.push(MessageId::FETCH_FRIENDS_ANSWER);
    assert_eq!(answer.error_code, code::SUCCESS);
}

/// Runs all cases, four at a time, and panics with the names of those that failed.
pub fn run(system: &System) {
    let next = AtomicU64::new(0);
    let failed = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((name, case)) = usize::try_from(next.fetch_add(1, Ordering::Relaxed))
                    .ok()
                    .and_then(|index| CASES.get(index))
                {
                    let result =
                        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(system)));
                    println!("{name}: {}", if result.is_ok() { "ok" } else { "FAILED" });
                    if result.is_err() {
                        failed.lock().unwrap().push(*name);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "failed: {failed:?}");
}
