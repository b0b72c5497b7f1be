//! Calls that a server carries out late, or for a login that is not the latest.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use chat_bus::{Bus, LoginPolicy, SessionRef};
use chat_proto::call_time::CallTime;
use chat_proto::ids::{code, metadata};
use chat_proto::messages::*;
use nexus_rpc::CallOptions;

use super::{PATIENCE, PROXY, Setting, of, setting};

/// As [`of`], for a call that its client has asked for so long ago.
fn asked_ago(user: i32, session: u64, ago: Duration) -> CallOptions {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let ms = |since: Duration| i64::try_from(since.as_millis()).unwrap();
    let time = CallTime {
        epoch: 0,
        asked_ms: ms(now - ago),
        deadline_ms: ms(now - ago + PATIENCE),
    };
    of(user, session).with_metadata(metadata::TIME, time)
}

fn login_of(setting: &Setting, user: i32) -> u64 {
    let user = chat_store::UserId::new(user).unwrap();
    setting.store.user(user).unwrap().unwrap().last_login
}

fn login(setting: &Setting, user_id: i32, options: CallOptions) -> i32 {
    let request = LoginRequest {
        user_id,
        user_password: Bytes::from_static(b"secret"),
        acknowledges: true,
        wants_session_token: true,
        ..Default::default()
    };
    let call = setting.users().login_with(&request, options);
    call.wait().unwrap().message.response.unwrap().error_code
}

fn resume(setting: &Setting, user_id: i32, token: &Bytes, options: CallOptions) -> i32 {
    let request = ResumeRequest {
        user_id,
        session_token: token.clone(),
        acknowledges: true,
        ..Default::default()
    };
    let call = setting.users().resume_with(&request, options);
    call.wait().unwrap().message.response.unwrap().error_code
}

fn chat(setting: &Setting, to: i32, options: CallOptions) -> FriendChatResponse {
    let request = FriendChatRequest {
        receiver: Some(Receiver {
            user_id: to,
            ..Default::default()
        }),
        content: "x".to_owned(),
        ..FriendChatRequest::default()
    };
    let chats = OneChatServiceRpcClient::new(setting.node.channel.clone());
    let call = chats.friend_chat_with(&request, options);
    call.wait().unwrap().message
}

#[test]
fn what_nobody_waits_for_is_not_begun() {
    let setting = setting(|_| {});
    let (a, b) = (setting.register("a"), setting.register("b"));
    setting.befriend(a, b);
    let token = setting.login(a, 1).session_token;
    let before = login_of(&setting, a);
    let late = || asked_ago(a, 9, PATIENCE);
    let users = setting.users();
    let groups = GroupServiceRpcClient::new(setting.node.channel.clone());
    let friends = FriendServiceRpcClient::new(setting.node.channel.clone());
    let chats = OneChatServiceRpcClient::new(setting.node.channel.clone());
    let register = RegisterRequest {
        user_name: Bytes::from_static(b"late"),
        user_password: Bytes::from_static(b"secret"),
    };
    let login = LoginRequest {
        user_id: a,
        user_password: Bytes::from_static(b"secret"),
        ..Default::default()
    };
    let resume = ResumeRequest {
        user_id: a,
        session_token: token.clone(),
        ..Default::default()
    };
    let group = CreateGroupRequest {
        group_name: Bytes::from_static(b"late"),
        ..Default::default()
    };
    let friend = DeleteFriendRequest {
        friend_id: b,
        ..Default::default()
    };
    let message = FriendChatRequest {
        receiver: Some(Receiver {
            user_id: b,
            ..Default::default()
        }),
        ..Default::default()
    };
    let refused = [
        users.register_with(&register, late()).wait().err(),
        users.login_with(&login, late()).wait().err(),
        users.resume_with(&resume, late()).wait().err(),
        groups.create_group_with(&group, late()).wait().err(),
        friends.delete_friend_with(&friend, late()).wait().err(),
        chats.friend_chat_with(&message, late()).wait().err(),
    ];
    for (index, error) in refused.into_iter().enumerate() {
        let error = error.map(|error| error.code());
        assert_eq!(error, Some(metadata::TOO_LATE), "{index}");
    }
    assert_eq!(login_of(&setting, a), before);
    assert_eq!(setting.session_of(a), Some(1));
    assert_eq!(chat(&setting, b, of(a, 1)).sequence, 2);
    // The name is free.
    setting.register("late");
}

#[test]
fn a_login_or_a_resume_that_was_overtaken_displaces_nobody() {
    let setting = setting(|_| {});
    let user = setting.register("a");
    let ago = Duration::from_secs(3);
    // Nobody came meanwhile.
    assert_eq!(
        login(&setting, user, asked_ago(user, 1, ago)),
        code::SUCCESS
    );
    let token = setting.login(user, 2).session_token;
    let before = login_of(&setting, user);
    let refused = login(&setting, user, asked_ago(user, 3, ago));
    assert_eq!(refused, code::UNAVAILABLE);
    let refused = resume(&setting, user, &token, asked_ago(user, 4, ago));
    assert_eq!(refused, code::UNAVAILABLE);
    assert_eq!(setting.session_of(user), Some(2));
    assert_eq!(login_of(&setting, user), before);
    // The token is still that of the session.
    assert_eq!(setting.resume(user, &token, 5).error_code, code::SUCCESS);
}

#[test]
fn a_login_that_is_not_the_latest_changes_nothing_and_is_told_so() {
    let setting = setting(|_| {});
    let (a, b) = (setting.register("a"), setting.register("b"));
    setting.befriend(a, b);
    setting.login(a, 1);
    let first = login_of(&setting, a);
    let by_first = || of(a, 1).with_metadata(metadata::LOGIN, first);
    assert_eq!(chat(&setting, b, by_first()).error_code, code::SUCCESS);
    setting.login(a, 2);
    let second = of(a, 2).with_metadata(metadata::LOGIN, login_of(&setting, a));
    assert_eq!(
        chat(&setting, b, by_first()).error_code,
        code::NOT_LOGGED_IN
    );
    let groups = GroupServiceRpcClient::new(setting.node.channel.clone());
    let request = CreateGroupRequest {
        user_id: a,
        group_name: Bytes::from_static(b"group"),
        ..Default::default()
    };
    let create = |options| {
        let call = groups.create_group_with(&request, options);
        call.wait().unwrap().message.error_code
    };
    assert_eq!(create(by_first()), code::NOT_LOGGED_IN);
    assert_eq!(create(second.clone()), code::SUCCESS);
    let fetch = FetchPendingRequest {
        all_conversations: true,
        ..Default::default()
    };
    let pending = |options| {
        let call = setting.users().fetch_pending_with(&fetch, options);
        call.wait().unwrap().message.error_code
    };
    assert_eq!(pending(by_first()), code::NOT_LOGGED_IN);
    assert_eq!(pending(second.clone()), code::SUCCESS);
    assert_eq!(chat(&setting, b, second).error_code, code::SUCCESS);
}

#[test]
fn where_the_older_login_wins_one_that_is_refused_takes_nothing_from_it() {
    let setting = setting(|options| options.login_policy = LoginPolicy::OlderWins);
    let (a, b) = (setting.register("a"), setting.register("b"));
    setting.befriend(a, b);
    setting.login(a, 1);
    let first = login_of(&setting, a);
    let refused = setting.login(a, 2);
    assert_eq!(refused.error_code, code::LOGIN_ALREADY_ONLINE);
    let by_first = of(a, 1).with_metadata(metadata::LOGIN, first);
    assert_eq!(chat(&setting, b, by_first).error_code, code::SUCCESS);
}

#[test]
fn a_logout_of_a_session_that_goes_on_elsewhere_leaves_that_its_token() {
    let setting = setting(|_| {});
    let user = setting.register("a");
    let token = setting.login(user, 1).session_token;
    assert_eq!(setting.resume(user, &token, 2).error_code, code::SUCCESS);
    // The first one's client has asked for it before, and has waited in vain.
    assert_eq!(setting.logout(user, &token, 1), code::SUCCESS);
    assert_eq!(setting.session_of(user), Some(2));
    assert_eq!(setting.resume(user, &token, 3).error_code, code::SUCCESS);
    // That of the session itself ends it, though its connection was logged out already.
    let place = SessionRef {
        proxy: PROXY,
        session: 3,
    };
    assert_eq!(setting.bus.release(user, place), Ok(true));
    assert_eq!(setting.logout(user, &token, 3), code::SUCCESS);
    let refused = setting.resume(user, &token, 4).error_code;
    assert_eq!(refused, code::SESSION_ENDED);
}
