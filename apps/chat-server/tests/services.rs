//! The services, called by RPC as a proxy calls them, on an in-memory store and an in-process bus.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{self, channel};
use std::time::Duration;

use bytes::Bytes;
use chat_bus::{Bus, BusEvent, LocalBus, LoginPolicy, ProxyId, Rate, Subscription};
use chat_proto::ids::{MessageId, code, metadata};
use chat_proto::messages::*;
use chat_server::{ChatServer, PasswordCost, ServerOptions};
use chat_store::{SqliteStore, Store, TokenHash, UserId};
use nexus_net::LoopGroup;
use nexus_rpc::registry::{InProcessRegistry, Registry};
use nexus_rpc::{CallOptions, ChannelOptions, ErrorCode, RpcChannel};
use prost::Message as _;
use sha2::{Digest, Sha256};

const PATIENCE: Duration = Duration::from_secs(10);
const PROXY: ProxyId = ProxyId::from_u64(77);

struct Setting {
    server: ChatServer,
    channel: RpcChannel,
    store: Arc<dyn Store>,
    bus: LocalBus,
    published: mpsc::Receiver<BusMessage>,
    pushes: RefCell<Vec<Push>>,
    _subscription: Subscription,
}

fn setting(adjust: impl FnOnce(&mut ServerOptions)) -> Setting {
    let mut options = ServerOptions::new("127.0.0.1:0".parse().unwrap());
    options.password_cost = PasswordCost::MINIMAL;
    options.provider.discovery_delay = Duration::ZERO;
    adjust(&mut options);
    let bus = LocalBus::new();
    bus.renew_lease(PROXY, Duration::from_secs(600)).unwrap();
    let (sender, published) = channel();
    let subscription = bus.subscribe(
        PROXY,
        Box::new(move |event| {
            if let BusEvent::Message(bytes) = event {
                let _ = sender.send(BusMessage::decode(bytes).unwrap());
            }
        }),
    );
    let registry: Arc<dyn Registry> = Arc::new(InProcessRegistry::new());
    let loops = Arc::new(LoopGroup::start("test", 1).unwrap());
    let store: Arc<dyn Store> = Arc::new(SqliteStore::in_memory().unwrap());
    let server = ChatServer::start(
        options,
        Arc::clone(&store),
        Arc::new(bus.clone()),
        Arc::clone(&registry),
        Arc::clone(&loops),
    )
    .unwrap();
    let channel = RpcChannel::new(registry, loops, ChannelOptions::default());
    assert!(channel.wait_ready(UserServiceRpcClient::SERVICE, PATIENCE));
    assert!(channel.wait_ready(FriendServiceRpcClient::SERVICE, PATIENCE));
    assert!(channel.wait_ready(OneChatServiceRpcClient::SERVICE, PATIENCE));
    assert!(channel.wait_ready(GroupServiceRpcClient::SERVICE, PATIENCE));
    Setting {
        server,
        channel,
        store,
        bus,
        published,
        pushes: RefCell::default(),
        _subscription: subscription,
    }
}

impl Setting {
    fn users(&self) -> UserServiceRpcClient {
        UserServiceRpcClient::new(self.channel.clone())
    }

    fn register(&self, name: &str) -> i32 {
        let request = RegisterRequest {
            user_name: Bytes::copy_from_slice(name.as_bytes()),
            user_password: Bytes::from_static(b"secret"),
        };
        let answer = self.users().register(&request).wait().unwrap().message;
        assert_eq!(answer.error_code, code::SUCCESS, "{}", answer.error_text);
        answer.user_id
    }

    fn login(&self, user_id: i32, session: u64) -> LoginResponse {
        let request = LoginRequest {
            user_id,
            user_password: Bytes::from_static(b"secret"),
            acknowledges: true,
            wants_session_token: true,
        };
        let call = self.users().login_with(&request, of(user_id, session));
        call.wait().unwrap().message.response.unwrap()
    }

    fn resume(&self, user_id: i32, token: &Bytes, session: u64) -> LoginResponse {
        self.resume_with(user_id, token, session, Vec::new())
    }

    fn resume_with(
        &self,
        user_id: i32,
        token: &Bytes,
        session: u64,
        received: Vec<ConversationAck>,
    ) -> LoginResponse {
        let request = ResumeRequest {
            user_id,
            session_token: token.clone(),
            acknowledges: true,
            received,
        };
        let call = self.users().resume_with(&request, of(user_id, session));
        call.wait().unwrap().message.response.unwrap()
    }

    fn logout(&self, user_id: i32, token: &Bytes, session: u64) -> i32 {
        let request = LogoutRequest {
            user_id,
            session_token: token.clone(),
        };
        let call = self.users().logout_with(&request, of(user_id, session));
        call.wait().unwrap().message.error_code
    }

    fn session_of(&self, user: i32) -> Option<u64> {
        let place = self.bus.locate(&[user]).unwrap()[0];
        place.map(|place| place.session)
    }

    fn befriend(&self, user_id: i32, friend_id: i32) {
        let friends = FriendServiceRpcClient::new(self.channel.clone());
        let request = AddFriendRequest {
            user_id,
            friend_id,
            ..Default::default()
        };
        let answer = friends
            .add_friend_with(&request, of(user_id, 1))
            .wait()
            .unwrap()
            .message;
        assert_eq!(answer.error_code, code::SUCCESS, "{}", answer.error_text);
    }

    fn chat(&self, from: i32, to: i32, content: &str, id: u64) -> FriendChatResponse {
        let request = FriendChatRequest {
            sender: Some(Sender {
                user_id: from,
                ..Default::default()
            }),
            receiver: Some(Receiver {
                user_id: to,
                ..Default::default()
            }),
            content: content.to_owned(),
            client_message_id: id,
            ..Default::default()
        };
        let chats = OneChatServiceRpcClient::new(self.channel.clone());
        chats
            .friend_chat_with(&request, of(from, 1))
            .wait()
            .unwrap()
            .message
    }

    /// The next push on the proxy's channel.
    fn push(&self) -> Push {
        let mut pushes = self.pushes.borrow_mut();
        while pushes.is_empty() {
            pushes.extend(self.chats(PATIENCE));
        }
        pushes.remove(0)
    }

    /// The chats of the next message on the proxy's channel. What tells of the friendship, which
    /// may come before or after the login, is left out.
    fn chats(&self, patience: Duration) -> Vec<Push> {
        let mut message = self.published.recv_timeout(patience).unwrap();
        message
            .pushes
            .retain(|push| push.message_id == MessageId::RECV_FRIEND.0);
        message.pushes
    }
}

/// What a proxy sends along with a user's call.
fn of(user: i32, session: u64) -> CallOptions {
    CallOptions::timeout(PATIENCE)
        .with_metadata(metadata::USER, user)
        .with_metadata(metadata::PROXY, PROXY.as_u64())
        .with_metadata(metadata::SESSION, session)
}

#[test]
fn a_caller_that_names_no_user_is_refused() {
    let setting = setting(|_| {});
    let groups = GroupServiceRpcClient::new(setting.channel.clone());
    let error = groups
        .fetch_groups(&FetchGroupsRequest { user_id: 1 })
        .wait()
        .unwrap_err();
    assert_eq!(error.code(), ErrorCode::UNAUTHENTICATED);
}

#[test]
fn the_user_of_the_call_counts_and_not_the_one_in_the_body() {
    let setting = setting(|_| {});
    let (a, b) = (setting.register("a"), setting.register("b"));
    setting.befriend(a, b);
    setting.login(b, 2);
    let request = FriendChatRequest {
        sender: Some(Sender {
            user_id: b,
            user_name: "forged".into(),
            ..Default::default()
        }),
        receiver: Some(Receiver {
            user_id: b,
            ..Default::default()
        }),
        content: "hi".into(),
        ..Default::default()
    };
    let chats = OneChatServiceRpcClient::new(setting.channel.clone());
    let answer = chats
        .friend_chat_with(&request, of(a, 1))
        .wait()
        .unwrap()
        .message;
    assert_eq!(answer.error_code, code::SUCCESS);
    let chat = FriendChatRequest::decode(setting.push().content).unwrap();
    let sender = chat.sender.unwrap();
    assert_eq!((sender.user_id, &sender.user_name[..]), (a, &b"a"[..]));
}

#[test]
fn the_older_login_wins_where_the_policy_says_so() {
    let setting = setting(|options| options.login_policy = LoginPolicy::OlderWins);
    let user = setting.register("a");
    assert_eq!(setting.login(user, 1).error_code, code::SUCCESS);
    assert_eq!(
        setting.login(user, 2).error_code,
        code::LOGIN_ALREADY_ONLINE
    );
    assert_eq!(setting.logout(user, &Bytes::new(), 1), code::SUCCESS);
    assert_eq!(setting.login(user, 2).error_code, code::SUCCESS);
}

#[test]
fn a_newer_login_ends_the_older_session_and_its_logout_changes_nothing() {
    let setting = setting(|_| {});
    let user = setting.register("a");
    setting.login(user, 1);
    setting.login(user, 2);
    let message = setting.published.recv_timeout(PATIENCE).unwrap();
    assert_eq!(
        message.end_sessions,
        [EndSession {
            user_id: user,
            session_id: 1,
            resumed: false,
        }]
    );
    setting.logout(user, &Bytes::new(), 1);
    assert_eq!(setting.session_of(user), Some(2));
}

#[test]
fn a_session_is_resumed_without_the_password_and_takes_the_place_of_its_old_connection() {
    // Whatever the policy: it is the same session.
    let setting = setting(|options| options.login_policy = LoginPolicy::OlderWins);
    let user = setting.register("a");
    let token = setting.login(user, 1).session_token;
    assert_eq!(token.len(), 32);
    for session in 2..4 {
        let answer = setting.resume(user, &token, session);
        assert_eq!(answer.error_code, code::SUCCESS);
        assert_eq!(answer.user.unwrap().user_name, "a");
        assert!(answer.session_token.is_empty());
        let message = setting.published.recv_timeout(PATIENCE).unwrap();
        let ended = EndSession {
            user_id: user,
            session_id: session - 1,
            resumed: true,
        };
        assert_eq!(message.end_sessions, [ended]);
        assert_eq!(setting.session_of(user), Some(session));
    }
}

#[test]
fn only_the_last_logins_token_resumes_and_only_its_users_session() {
    let setting = setting(|_| {});
    let (user, other) = (setting.register("a"), setting.register("b"));
    let first = setting.login(user, 1).session_token;
    let second = setting.login(user, 2).session_token;
    let mut changed = second.to_vec();
    changed[31] ^= 1;
    let refused = [
        (user, first),
        (user, Bytes::from(changed)),
        (user, second.slice(..31)),
        (user, Bytes::new()),
        (other, second.clone()),
        (i32::MAX, second.clone()),
        (0, second.clone()),
    ];
    for (user, token) in refused {
        let answer = setting.resume(user, &token, 3);
        assert_eq!(answer.error_code, code::SESSION_ENDED);
        assert_eq!(answer.user, None);
    }
    assert_eq!(setting.session_of(user), Some(2));
    assert_eq!(setting.resume(user, &second, 3).error_code, code::SUCCESS);
}

#[test]
fn a_logout_with_the_token_ends_it_and_one_without_does_not() {
    let setting = setting(|_| {});
    let user = setting.register("a");
    let token = setting.login(user, 1).session_token;
    assert_eq!(setting.logout(user, &Bytes::new(), 1), code::SUCCESS);
    assert_eq!(setting.resume(user, &token, 2).error_code, code::SUCCESS);
    assert_eq!(setting.logout(user, &token, 2), code::SUCCESS);
    assert_eq!(
        setting.resume(user, &token, 3).error_code,
        code::SESSION_ENDED
    );
    assert_eq!(setting.session_of(user), None);
}

#[test]
fn a_login_that_wants_no_token_leaves_none() {
    let setting = setting(|_| {});
    let user = setting.register("a");
    let token = setting.login(user, 1).session_token;
    let request = LoginRequest {
        user_id: user,
        user_password: Bytes::from_static(b"secret"),
        ..Default::default()
    };
    let call = setting.users().login_with(&request, of(user, 2));
    let answer = call.wait().unwrap().message.response.unwrap();
    assert_eq!(answer.error_code, code::SUCCESS);
    assert!(answer.session_token.is_empty());
    assert_eq!(
        setting.resume(user, &token, 3).error_code,
        code::SESSION_ENDED
    );
}

#[test]
fn a_token_that_has_expired_resumes_nothing() {
    let setting = setting(|options| options.session_ttl = Duration::ZERO);
    let user = setting.register("a");
    let token = setting.login(user, 1).session_token;
    assert_eq!(
        setting.resume(user, &token, 2).error_code,
        code::SESSION_ENDED
    );
}

#[test]
fn a_token_that_is_used_lasts_longer_and_is_not_written_each_time() {
    let setting = setting(|_| {});
    let id = setting.register("a");
    let token = setting.login(id, 1).session_token;
    let user = UserId::new(id).unwrap();
    let hash = TokenHash(Sha256::digest(&token).into());
    let expiry = || {
        let owner = setting.store.token_owner(user, &hash, 0).unwrap();
        owner.expect("the token's hash is stored").expires_at_ms
    };
    let at_login = expiry();
    // As if most of a day had passed, and then a week.
    let day_ms = 24 * 3600 * 1000;
    for (earlier_ms, is_extended) in [(day_ms, false), (7 * day_ms, true)] {
        let earlier = at_login - earlier_ms;
        setting.store.extend_token(user, &hash, earlier).unwrap();
        assert_eq!(setting.resume(id, &token, 2).error_code, code::SUCCESS);
        match is_extended {
            true => assert!(expiry() >= at_login),
            false => assert_eq!(expiry(), earlier),
        }
    }
}

#[test]
fn a_resume_brings_what_the_client_lacks_and_no_more() {
    let setting = setting(|_| {});
    let (a, b) = (setting.register("a"), setting.register("b"));
    setting.befriend(a, b);
    let token = setting.login(b, 1).session_token;
    let last = (1..=3)
        .map(|id| setting.chat(a, b, "hi", id).sequence)
        .last();
    let waiting = |sequence: u64| {
        let received = ConversationAck {
            conversation: Some(Conversation {
                friend_id: a,
                group_id: 0,
            }),
            sequence,
        };
        let answer = setting.resume_with(b, &token, 2, vec![received]);
        let list = answer.offline_message_list.unwrap().messages;
        list.iter()
            .map(|message| message.sequence)
            .collect::<Vec<_>>()
    };
    // The friendship is the first message, and three chats follow.
    assert_eq!(last, Some(4));
    assert_eq!(waiting(2), [3, 4]);
    assert_eq!(waiting(4), Vec::<u64>::new());
    assert_eq!(waiting(1000), Vec::<u64>::new());
    let all = setting.resume(b, &token, 2).offline_message_list.unwrap();
    assert_eq!(all.messages.len(), 4);
}

#[test]
fn a_repeated_send_is_answered_alike_and_pushed_again_as_it_is_stored() {
    let setting = setting(|_| {});
    let (a, b) = (setting.register("a"), setting.register("b"));
    setting.befriend(a, b);
    setting.login(b, 2);
    let first = setting.chat(a, b, "as it is stored", 5);
    assert_eq!(first, setting.chat(a, b, "something else", 5));
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
fn a_full_group_takes_nobody() {
    let setting = setting(|options| options.group_members_max = 2);
    let groups = GroupServiceRpcClient::new(setting.channel.clone());
    let users: Vec<i32> = ["a", "b", "c"].map(|name| setting.register(name)).into();
    let request = CreateGroupRequest {
        user_id: users[0],
        group_name: "g".into(),
        ..Default::default()
    };
    let group = groups
        .create_group_with(&request, of(users[0], 1))
        .wait()
        .unwrap()
        .message;
    let group_id = group.group.unwrap().group_id;
    let join = |user: i32| {
        let request = AddGroupRequest {
            user_id: user,
            group_id,
            ..Default::default()
        };
        groups
            .add_group_with(&request, of(user, 1))
            .wait()
            .unwrap()
            .message
            .error_code
    };
    assert_eq!(join(users[1]), code::SUCCESS);
    assert_eq!(join(users[2]), code::TOO_LARGE);
}

#[test]
fn draining_stores_and_publishes_what_was_taken() {
    let mut setting = setting(|_| {});
    let (a, b) = (setting.register("a"), setting.register("b"));
    setting.befriend(a, b);
    setting.login(b, 2);
    let chats = OneChatServiceRpcClient::new(setting.channel.clone());
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
    setting.server.drain(PATIENCE);
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

/// A login as a proxy passes it on for a client at an address.
fn login_from(setting: &Setting, address: &str, user_id: i32, password: &str) -> i32 {
    let request = LoginRequest {
        user_id,
        user_password: Bytes::copy_from_slice(password.as_bytes()),
        ..Default::default()
    };
    let address = address.parse().unwrap();
    let options = of(user_id, 1).with_metadata(metadata::ADDRESS, address);
    let reply = setting.users().login_with(&request, options).wait();
    reply.unwrap().message.response.unwrap().error_code
}

fn registered(setting: &Setting, name: &[u8], password: &[u8]) -> RegisterResponse {
    let request = RegisterRequest {
        user_name: Bytes::copy_from_slice(name),
        user_password: Bytes::copy_from_slice(password),
    };
    setting.users().register(&request).wait().unwrap().message
}

#[test]
fn who_guesses_passwords_is_stopped_and_locks_nobody_out() {
    let setting = setting(|options| {
        let rate = Rate::literal(3, Duration::from_secs(3600));
        options.clients.failed_logins_per_address_and_user = rate;
    });
    let user = setting.register("a");
    let (stranger, owner) = ("192.0.2.1", "198.51.100.1");
    for _ in 0..3 {
        assert_eq!(
            login_from(&setting, stranger, user, "guess"),
            code::LOGIN_WRONG_PASSWORD
        );
    }
    // Not even the right one is looked at now.
    assert_eq!(
        login_from(&setting, stranger, user, "secret"),
        code::RATE_LIMITED
    );
    for _ in 0..10 {
        assert_eq!(login_from(&setting, owner, user, "secret"), code::SUCCESS);
    }
    assert_eq!(
        login_from(&setting, stranger, user + 1, "guess"),
        code::LOGIN_NO_USER
    );
}

#[test]
fn registrations_beyond_the_limit_are_refused() {
    let setting = setting(|options| {
        let rate = Rate::literal(2, Duration::from_secs(3600));
        options.clients.registrations_per_address = rate;
    });
    // What is refused as it is costs nothing.
    let empty = registered(&setting, b"", b"secret");
    assert_eq!(empty.error_code, code::REGISTER_EMPTY);
    setting.register("a");
    setting.register("b");
    let refused = registered(&setting, b"c", b"secret");
    assert_eq!(refused.error_code, code::RATE_LIMITED);
    assert!(refused.error_text.contains("try again"), "{refused:?}");
}

#[test]
fn names_and_passwords_are_kept_in_one_form() {
    let setting = setting(|_| {});
    let user = registered(
        &setting,
        "  ame\u{301}lie ".as_bytes(),
        "se\u{301}cret".as_bytes(),
    );
    assert_eq!(user.error_code, code::SUCCESS, "{}", user.error_text);
    for taken in ["am\u{e9}lie", "ame\u{301}lie"] {
        let answer = registered(&setting, taken.as_bytes(), b"secret");
        assert_eq!(answer.error_code, code::REGISTER_NAME_TAKEN, "{taken:?}");
    }
    for typed in ["s\u{e9}cret", "se\u{301}cret"] {
        let code = login_from(&setting, "192.0.2.1", user.user_id, typed);
        assert_eq!(code, code::SUCCESS, "{typed:?}");
    }
    let long = "x".repeat(51);
    for (name, password, expected) in [
        ("a\u{202e}b", "secret", code::INVALID),
        ("a\0b", "secret", code::INVALID),
        (" \t ", "secret", code::REGISTER_EMPTY),
        (&long, "secret", code::TOO_LARGE),
        ("someone", "short", code::INVALID),
        ("someone", "with\0zero", code::INVALID),
    ] {
        let answer = registered(&setting, name.as_bytes(), password.as_bytes());
        assert_eq!(answer.error_code, expected, "{name:?} {password:?}");
    }
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

#[test]
fn friends_and_groups_are_limited() {
    let setting = setting(|options| {
        options.clients.friends_max = 1;
        options.clients.groups_max = 1;
    });
    let [a, b, c] = ["a", "b", "c"].map(|name| setting.register(name));
    setting.befriend(a, b);
    let friends = FriendServiceRpcClient::new(setting.channel.clone());
    for (user_id, friend_id) in [(a, c), (c, a)] {
        let request = AddFriendRequest {
            user_id,
            friend_id,
            ..Default::default()
        };
        let answer = friends.add_friend_with(&request, of(user_id, 1)).wait();
        assert_eq!(answer.unwrap().message.error_code, code::TOO_LARGE);
    }
    let groups = GroupServiceRpcClient::new(setting.channel.clone());
    let create = |user_id: i32, group_name: &str| {
        let request = CreateGroupRequest {
            user_id,
            group_name: Bytes::copy_from_slice(group_name.as_bytes()),
            ..Default::default()
        };
        let answer = groups.create_group_with(&request, of(user_id, 1)).wait();
        answer.unwrap().message
    };
    let group_id = create(a, "one").group.unwrap().group_id;
    assert_eq!(create(a, "two").error_code, code::TOO_LARGE);
    assert_eq!(create(b, " \t ").error_code, code::CREATE_GROUP_EMPTY);
    assert_eq!(create(b, "a\nb").error_code, code::INVALID);
    assert_eq!(create(b, "of b").error_code, code::SUCCESS);
    let request = AddGroupRequest {
        user_id: b,
        group_id,
        ..Default::default()
    };
    let answer = groups.add_group_with(&request, of(b, 1)).wait();
    assert_eq!(answer.unwrap().message.error_code, code::TOO_LARGE);
}
