//! A server whose MariaDB or Redis hangs, as a proxy sees it: what cannot be done is refused at once, the rest is
//! done, and it is whole again by itself.

use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chat_bus::{
    Bus, BusEvent, LoginPolicy, ProxyId, RedisBus, RedisConfig, SessionRef, Subscription,
};
use chat_proto::ids::{MessageId, code, metadata};
use chat_proto::messages::*;
use chat_server::{ChatServer, PasswordCost, ServerOptions};
use chat_store::{MySqlOptions, MySqlStore, Store};
use nexus_net::LoopGroup;
use nexus_rpc::registry::{InProcessRegistry, Registry};
use nexus_rpc::{CallOptions, ChannelOptions, RpcChannel};
use nexus_testkit::{MariaDb, Redis, wait_until};
use prost::Message as _;

const PATIENCE: Duration = Duration::from_secs(30);
/// The time-outs towards MariaDB: nothing in a test may end by them.
const FAR: Duration = Duration::from_secs(20);
/// Requests at MariaDB at a time; two connections more are the messages'.
const AT_WORK_MAX: usize = 4;
const PROXY: ProxyId = ProxyId::from_u64(77);

struct Setting {
    mariadb: MariaDb,
    redis: Redis,
    store: Arc<dyn Store>,
    bus: Arc<dyn Bus>,
    channel: RpcChannel,
    published: Mutex<mpsc::Receiver<BusMessage>>,
    _server: ChatServer,
    _subscription: Subscription,
}

impl Setting {
    fn new() -> Self {
        let mariadb = MariaDb::start().unwrap();
        let redis = Redis::start().unwrap();
        let store: Arc<dyn Store> = Arc::new(
            MySqlStore::new(MySqlOptions {
                io_timeout: FAR,
                stalled_after: Duration::from_secs(1),
                connections_max: AT_WORK_MAX + 2,
                ..MySqlOptions::new(mariadb.url())
            })
            .unwrap(),
        );
        let bus: Arc<dyn Bus> = Arc::new(RedisBus::new(RedisConfig::new(redis.url())).unwrap());
        let (sender, published) = mpsc::channel();
        let on_event = move |event| {
            if let BusEvent::Message(bytes) = event {
                let _ = sender.send(BusMessage::decode(bytes).unwrap());
            }
        };
        // It does not notice that Redis hangs, so it hears all that is published in the end.
        let mut patient = RedisConfig::new(redis.url());
        patient.ping_interval = Duration::from_secs(600);
        let listener = RedisBus::new(patient).unwrap();
        let subscription = listener.subscribe(PROXY, Box::new(on_event));
        bus.renew_lease(PROXY, Duration::from_secs(600)).unwrap();
        let mut options = ServerOptions::new("127.0.0.1:0".parse().unwrap());
        options.password_cost = PasswordCost::MINIMAL;
        options.provider.discovery_delay = Duration::ZERO;
        options.provider.worker_threads = 8;
        let registry: Arc<dyn Registry> = Arc::new(InProcessRegistry::new());
        let loops = Arc::new(LoopGroup::start("test", 1).unwrap());
        let server = ChatServer::start(
            options,
            Arc::clone(&store),
            Arc::clone(&bus),
            Arc::clone(&registry),
            Arc::clone(&loops),
        )
        .unwrap();
        let channel = RpcChannel::new(registry, loops, ChannelOptions::default());
        for service in [
            UserServiceRpcClient::SERVICE,
            FriendServiceRpcClient::SERVICE,
            OneChatServiceRpcClient::SERVICE,
        ] {
            assert!(channel.wait_ready(service, PATIENCE));
        }
        Self {
            mariadb,
            redis,
            store,
            bus,
            channel,
            published: Mutex::new(published),
            _server: server,
            _subscription: subscription,
        }
    }

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

    /// Two friends.
    fn friends(&self) -> (i32, i32) {
        let (user_id, friend_id) = (self.register("ann"), self.register("bob"));
        let request = AddFriendRequest {
            user_id,
            friend_id,
            ..Default::default()
        };
        let friends = FriendServiceRpcClient::new(self.channel.clone());
        let call = friends.add_friend_with(&request, of(user_id, 1));
        assert_eq!(call.wait().unwrap().message.error_code, code::SUCCESS);
        (user_id, friend_id)
    }

    fn login(&self, user_id: i32, session: u64) -> LoginReply {
        let request = LoginRequest {
            user_id,
            user_password: Bytes::from_static(b"secret"),
            acknowledges: true,
            ..Default::default()
        };
        let call = self.users().login_with(&request, of(user_id, session));
        call.wait().unwrap().message
    }

    fn fetch_friends(&self, user_id: i32) -> FetchFriendsResponse {
        let friends = FriendServiceRpcClient::new(self.channel.clone());
        let request = FetchFriendsRequest {
            user_id,
            ..Default::default()
        };
        let call = friends.fetch_friends_with(&request, of(user_id, 1));
        call.wait().unwrap().message
    }

    /// Sends, and gives the answer to `answers` when it comes.
    fn chat(&self, from: i32, to: i32, content: &str, answers: &mpsc::Sender<Answered>) {
        let request = FriendChatRequest {
            receiver: Some(Receiver {
                user_id: to,
                ..Default::default()
            }),
            content: content.to_owned(),
            ..Default::default()
        };
        let (answers, content) = (answers.clone(), content.to_owned());
        let chats = OneChatServiceRpcClient::new(self.channel.clone());
        chats
            .friend_chat_with(&request, of(from, 1))
            .on_complete(move |result| {
                let _ = answers.send((content, result.unwrap().message.error_code));
            });
    }

    fn chat_and_wait(&self, from: i32, to: i32, content: &str) -> i32 {
        let (sender, answers) = mpsc::channel();
        self.chat(from, to, content, &sender);
        answers.recv_timeout(PATIENCE).unwrap().1
    }

    /// The next `count` chats on the proxy's channel.
    fn pushed(&self, count: usize) -> Vec<String> {
        let published = self.published.lock().unwrap();
        let mut chats = Vec::new();
        while chats.len() < count {
            let message = published.recv_timeout(PATIENCE).expect("a push");
            let pushes = message.pushes.into_iter();
            let texts = pushes.filter(|push| push.message_id == MessageId::RECV_FRIEND.0);
            chats
                .extend(texts.map(|push| FriendChatRequest::decode(push.content).unwrap().content));
        }
        chats
    }
}

/// The content of a message, and the code of its answer.
type Answered = (String, i32);

/// What a proxy sends along with a user's call.
fn of(user: i32, session: u64) -> CallOptions {
    CallOptions::timeout(PATIENCE)
        .with_metadata(metadata::USER, user)
        .with_metadata(metadata::PROXY, PROXY.as_u64())
        .with_metadata(metadata::SESSION, session)
}

#[test]
fn while_mariadb_hangs_everybody_is_told_at_once_and_nothing_is_acknowledged_falsely() {
    let setting = Setting::new();
    let (ann, bob) = setting.friends();
    assert_eq!(setting.chat_and_wait(ann, bob, "before"), code::SUCCESS);

    setting.mariadb.pause();
    let (sender, answers) = mpsc::channel();
    setting.chat(ann, bob, "in the commit that hangs", &sender);
    // More requests than workers.
    std::thread::scope(|scope| {
        let fetches: Vec<_> = (0..32)
            .map(|_| scope.spawn(|| setting.fetch_friends(ann).error_code))
            .collect();
        wait_until("it is found out", FAR / 2, || setting.store.is_away());
        let start = Instant::now();
        for _ in 0..50 {
            assert_eq!(
                setting.chat_and_wait(ann, bob, "refused"),
                code::UNAVAILABLE
            );
            assert_eq!(setting.fetch_friends(ann).error_code, code::UNAVAILABLE);
            let login = setting.login(ann, 3).response.unwrap();
            assert_eq!(login.error_code, code::UNAVAILABLE);
        }
        assert!(start.elapsed() < FAR / 2, "{:?}", start.elapsed());
        // The first ones hang until the database goes on.
        setting.mariadb.resume();
        wait_until("it is used again", PATIENCE, || !setting.store.is_away());
        assert_eq!(setting.chat_and_wait(ann, bob, "after"), code::SUCCESS);
        let codes: Vec<_> = fetches.into_iter().map(|one| one.join().unwrap()).collect();
        let (told, hung): (Vec<_>, Vec<_>) = codes
            .into_iter()
            .partition(|&code| code == code::UNAVAILABLE);
        assert!(told.len() >= 32 - AT_WORK_MAX, "{hung:?}");
        assert!(hung.iter().all(|&code| code == code::SUCCESS), "{hung:?}");
    });

    let hung = answers.recv_timeout(PATIENCE).unwrap();
    let conversation = chat_store::ConversationId::pair(
        chat_store::UserId::new(ann).unwrap(),
        chat_store::UserId::new(bob).unwrap(),
    );
    let stored = setting
        .store
        .history(conversation.unwrap(), 2, 100)
        .unwrap();
    let stored: Vec<_> = stored.iter().map(|message| &*message.content).collect();
    assert!(!stored.contains(&"refused"), "{stored:?}");
    assert!(stored.contains(&"before") && stored.contains(&"after"));
    if hung.1 == code::SUCCESS {
        assert!(stored.contains(&"in the commit that hangs"));
    }
}

#[test]
fn without_redis_logins_and_messages_go_on_and_pushes_follow_when_it_is_back() {
    let setting = Setting::new();
    let (ann, bob) = setting.friends();
    let session = SessionRef {
        proxy: PROXY,
        session: 2,
    };
    let claim = setting
        .bus
        .claim(bob, session, 1.into(), LoginPolicy::NewerWins);
    claim.unwrap();
    assert_eq!(setting.chat_and_wait(ann, bob, "before"), code::SUCCESS);
    assert_eq!(setting.pushed(1), ["before"]);

    setting.redis.pause();
    let start = Instant::now();
    for round in 0..20 {
        let content = round.to_string();
        assert_eq!(setting.chat_and_wait(ann, bob, &content), code::SUCCESS);
        let login = setting.login(ann, 10 + round);
        assert!(login.unclaimed);
        assert_eq!(login.login_number, round + 1);
        let login = login.response.unwrap();
        assert_eq!(login.error_code, code::SUCCESS, "{}", login.error_text);
        assert_eq!(login.friend_list.unwrap().friend_users.len(), 1);
        let friends = setting.fetch_friends(ann);
        assert_eq!(friends.error_code, code::SUCCESS);
        assert_eq!(friends.friend_list.unwrap().friend_users.len(), 1);
    }
    // Had each of those waited for Redis, it were a minute.
    assert!(
        start.elapsed() < Duration::from_secs(30),
        "{:?}",
        start.elapsed()
    );

    setting.redis.resume();
    let sent: Vec<_> = (0..20).map(|round| round.to_string()).collect();
    assert_eq!(setting.pushed(20), sent);
    wait_until("presence is used again", PATIENCE, || {
        !setting.login(ann, 100).unclaimed
    });
}
