//! The services, called by RPC as a proxy calls them, on an in-memory store and an in-process bus.

mod callers;
mod credentials;
mod groups;
mod late_calls;
mod messages;
mod pages;
mod sessions;
mod two_servers;

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::mpsc::{self, channel};
use std::time::Duration;

use bytes::Bytes;
use chat_bus::{Bus, BusEvent, LocalBus, ProxyId, Subscription};
use chat_proto::ids::{MessageId, code, metadata};
use chat_proto::messages::*;
use chat_server::{ChatServer, PasswordCost, ServerOptions};
use chat_store::{SqliteStore, Store};
use nexus_net::LoopGroup;
use nexus_rpc::registry::{InProcessRegistry, Registry};
use nexus_rpc::{CallOptions, ChannelOptions, RpcChannel};
use prost::Message as _;

const PATIENCE: Duration = Duration::from_secs(10);
const PROXY: ProxyId = ProxyId::from_u64(77);

/// A server, and a way to it alone.
struct Node {
    server: ChatServer,
    channel: RpcChannel,
}

struct Setting {
    node: Node,
    store: Arc<dyn Store>,
    bus: LocalBus,
    published: mpsc::Receiver<BusMessage>,
    pushes: RefCell<Vec<Push>>,
    _subscription: Subscription,
}

impl Node {
    fn start(
        store: &Arc<dyn Store>,
        bus: Arc<dyn Bus>,
        adjust: impl FnOnce(&mut ServerOptions),
    ) -> Self {
        let mut options = ServerOptions::new("127.0.0.1:0".parse().unwrap());
        options.password_cost = PasswordCost::MINIMAL;
        options.provider.discovery_delay = Duration::ZERO;
        adjust(&mut options);
        let registry: Arc<dyn Registry> = Arc::new(InProcessRegistry::new());
        let loops = Arc::new(LoopGroup::start("test", 1).unwrap());
        let server = ChatServer::start(
            options,
            Arc::clone(store),
            bus,
            Arc::clone(&registry),
            Arc::clone(&loops),
        )
        .unwrap();
        let channel = RpcChannel::new(registry, loops, ChannelOptions::default());
        assert!(channel.wait_ready(UserServiceRpcClient::SERVICE, PATIENCE));
        assert!(channel.wait_ready(FriendServiceRpcClient::SERVICE, PATIENCE));
        assert!(channel.wait_ready(OneChatServiceRpcClient::SERVICE, PATIENCE));
        assert!(channel.wait_ready(GroupServiceRpcClient::SERVICE, PATIENCE));
        Self { server, channel }
    }

    fn users(&self) -> UserServiceRpcClient {
        UserServiceRpcClient::new(self.channel.clone())
    }

    fn register(&self, name: &str, password: &str) -> RegisterResponse {
        let request = RegisterRequest {
            user_name: Bytes::copy_from_slice(name.as_bytes()),
            user_password: Bytes::copy_from_slice(password.as_bytes()),
        };
        self.users().register(&request).wait().unwrap().message
    }

    /// A login as a proxy passes it on for a client at an address.
    fn login(&self, address: &str, user_id: i32, password: &str) -> LoginReply {
        let request = LoginRequest {
            user_id,
            user_password: Bytes::copy_from_slice(password.as_bytes()),
            acknowledges: true,
            wants_session_token: true,
            ..Default::default()
        };
        let call = self.users().login_with(&request, at(address, user_id));
        call.wait().unwrap().message
    }

    /// A login by the name, as a proxy makes it.
    fn login_by_name(&self, address: &str, name: &str, password: &str) -> LoginReply {
        let user_name = Bytes::copy_from_slice(name.as_bytes());
        let request = FindUserRequest {
            user_name: user_name.clone(),
        };
        let found = self.users().find_user(&request).wait().unwrap().message;
        assert_eq!(found.error_code, code::SUCCESS, "{}", found.error_text);
        let request = LoginRequest {
            user_id: found.user_id,
            user_password: Bytes::copy_from_slice(password.as_bytes()),
            user_name,
            ..Default::default()
        };
        let call = self
            .users()
            .login_with(&request, at(address, found.user_id));
        call.wait().unwrap().message
    }

    /// A resume, as well.
    fn resume(&self, address: &str, user_id: i32, token: &Bytes) -> LoginReply {
        let request = ResumeRequest {
            user_id,
            session_token: token.clone(),
            ..Default::default()
        };
        let call = self.users().resume_with(&request, at(address, user_id));
        call.wait().unwrap().message
    }
}

fn setting(adjust: impl FnOnce(&mut ServerOptions)) -> Setting {
    setting_on(Arc::new(SqliteStore::in_memory().unwrap()), adjust)
}

fn setting_on(store: Arc<dyn Store>, adjust: impl FnOnce(&mut ServerOptions)) -> Setting {
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
    Setting {
        node: Node::start(&store, Arc::new(bus.clone()), adjust),
        store,
        bus,
        published,
        pushes: RefCell::default(),
        _subscription: subscription,
    }
}

impl Setting {
    fn users(&self) -> UserServiceRpcClient {
        self.node.users()
    }

    fn register(&self, name: &str) -> i32 {
        let answer = self.node.register(name, "secret");
        assert_eq!(answer.error_code, code::SUCCESS, "{}", answer.error_text);
        answer.user_id
    }

    fn login(&self, user_id: i32, session: u64) -> LoginResponse {
        let request = LoginRequest {
            user_id,
            user_password: Bytes::from_static(b"secret"),
            acknowledges: true,
            wants_session_token: true,
            ..Default::default()
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
            ..Default::default()
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
        let friends = FriendServiceRpcClient::new(self.node.channel.clone());
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
        let chats = OneChatServiceRpcClient::new(self.node.channel.clone());
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

/// What a proxy sends along with a login from an address.
fn at(address: &str, user: i32) -> CallOptions {
    of(user, 1).with_metadata(metadata::ADDRESS, address.parse().unwrap())
}

/// What a proxy sends along with a user's call.
fn of(user: i32, session: u64) -> CallOptions {
    CallOptions::timeout(PATIENCE)
        .with_metadata(metadata::USER, user)
        .with_metadata(metadata::PROXY, PROXY.as_u64())
        .with_metadata(metadata::SESSION, session)
}
