//! Who is let in, and whose word counts.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chat_bus::{Bus, LocalBus, ProxyId};
use chat_node::secret::ClusterSecret;
use chat_proto::ids::{code, metadata};
use chat_proto::messages::*;
use chat_server::{ChatServer, PasswordCost, ServerOptions};
use chat_store::{ConversationId, SqliteStore, Store, UserId};
use nexus_net::LoopGroup;
use nexus_rpc::registry::{InProcessRegistry, Registry};
use nexus_rpc::{
    CallOptions, ChannelOptions, Credentials, ErrorCode, MetadataKey, Pages, RpcChannel, RpcError,
};

const PATIENCE: Duration = Duration::from_secs(10);
const SECRET: &str = "0123456789abcdef0123456789abcdef";
const PROXY: ProxyId = ProxyId::from_u64(77);

struct Setting {
    server: ChatServer,
    store: Arc<SqliteStore>,
    registry: Arc<dyn Registry>,
    loops: Arc<LoopGroup>,
}

fn setting(adjust: impl FnOnce(&mut ServerOptions)) -> Setting {
    let mut options = ServerOptions::new("127.0.0.1:0".parse().unwrap());
    options.password_cost = PasswordCost::MINIMAL;
    options.provider.discovery_delay = Duration::ZERO;
    adjust(&mut options);
    let bus = LocalBus::new();
    bus.renew_lease(PROXY, Duration::from_secs(600)).unwrap();
    let store = Arc::new(SqliteStore::in_memory().unwrap());
    let registry: Arc<dyn Registry> = Arc::new(InProcessRegistry::new());
    let loops = Arc::new(LoopGroup::start("test", 1).unwrap());
    let server = ChatServer::start(
        options,
        Arc::clone(&store) as Arc<dyn Store>,
        Arc::new(bus),
        Arc::clone(&registry),
        Arc::clone(&loops),
    )
    .unwrap();
    Setting {
        server,
        store,
        registry,
        loops,
    }
}

struct Shows(&'static str);

impl Credentials for Shows {
    fn authentication_data(&self) -> Bytes {
        Bytes::from_static(self.0.as_bytes())
    }
}

impl Setting {
    fn channel(&self, shows: Option<&'static str>) -> RpcChannel {
        let options = ChannelOptions {
            credentials: shows.map(|data| Arc::new(Shows(data)) as Arc<dyn Credentials>),
            ..ChannelOptions::default()
        };
        let channel = RpcChannel::new(Arc::clone(&self.registry), Arc::clone(&self.loops), options);
        assert!(channel.wait_ready(UserServiceRpcClient::SERVICE, PATIENCE));
        channel
    }
}

fn register(channel: RpcChannel, name: &str) -> Result<RegisterResponse, RpcError> {
    let request = RegisterRequest {
        user_name: Bytes::copy_from_slice(name.as_bytes()),
        user_password: Bytes::from_static(b"secret"),
    };
    let users = UserServiceRpcClient::new(channel);
    let options = CallOptions::timeout(PATIENCE);
    Ok(users.register_with(&request, options).wait()?.message)
}

#[test]
fn only_who_shows_the_secret_is_served() {
    let setting = setting(|options| {
        options.gate.secret = Some(ClusterSecret::parse(SECRET).unwrap());
    });
    for shows in [
        None,
        Some("fedcba9876543210fedcba9876543210"),
        Some(&SECRET[..31]),
    ] {
        let error = register(setting.channel(shows), "stranger").unwrap_err();
        assert_eq!(error.code(), ErrorCode::UNAUTHENTICATED, "{shows:?}");
        assert!(!error.text().contains(SECRET), "{error}");
    }
    let answer = register(setting.channel(Some(SECRET)), "member").unwrap();
    assert_eq!(answer.error_code, code::SUCCESS);
    // The strangers' calls have done nothing.
    assert_eq!(answer.user_id, 1);
}

fn http(address: std::net::SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        stream,
        "{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    // What is no frame ends the connection, perhaps with a reset.
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn over_http_nobody_is_served_and_pages_are_shown_on_their_own_port_only() {
    let closed = setting(|_| {});
    assert!(closed.server.pages_addr().is_none());
    for request in [
        "POST /nexus.chat.UserServiceRpc/Logout",
        "GET /status",
        "GET /health",
    ] {
        assert_eq!(http(closed.server.local_addr(), request), "", "{request}");
    }

    let inner = setting(|options| {
        options.provider.http.pages = Pages::InnerPort("127.0.0.1:0".parse().unwrap());
    });
    let pages = inner.server.pages_addr().unwrap();
    assert!(http(pages, "GET /health").starts_with("HTTP/1.1 200"));
    assert!(http(pages, "GET /status").contains("UserServiceRpc"));
    let call = http(pages, "POST /nexus.chat.UserServiceRpc/Logout");
    assert!(call.starts_with("HTTP/1.1 405"), "{call}");
    assert_eq!(http(inner.server.local_addr(), "GET /status"), "");
}

/// What a proxy sends along with a user's call.
fn of(user: i32) -> CallOptions {
    CallOptions::timeout(PATIENCE)
        .with_metadata(metadata::USER, user)
        .with_metadata(metadata::PROXY, PROXY.as_u64())
        .with_metadata(metadata::SESSION, 1)
}

#[test]
fn a_body_that_names_another_user_counts_for_nothing() {
    let setting = setting(|_| {});
    let channel = setting.channel(None);
    let user = |name| register(channel.clone(), name).unwrap().user_id;
    let (me, victim, friend) = (user("me"), user("victim"), user("friend"));
    let friends = FriendServiceRpcClient::new(channel.clone());
    let groups = GroupServiceRpcClient::new(channel.clone());
    let chats = OneChatServiceRpcClient::new(channel.clone());
    let group_chats = GroupChatServiceRpcClient::new(channel.clone());
    let users = UserServiceRpcClient::new(channel.clone());

    // Everything in the victim's name, on my connection: it is done for me.
    let request = AddFriendRequest {
        user_id: victim,
        friend_id: friend,
        ..Default::default()
    };
    let answer = friends
        .add_friend_with(&request, of(me))
        .wait()
        .unwrap()
        .message;
    assert_eq!(answer.error_code, code::SUCCESS, "{}", answer.error_text);
    let friends_of = |id| {
        let found = setting.store.friends(UserId::new(id).unwrap()).unwrap();
        found
            .iter()
            .map(|friend| friend.id.get())
            .collect::<Vec<_>>()
    };
    assert_eq!((friends_of(me), friends_of(victim)), (vec![friend], vec![]));

    let sender = || {
        Some(Sender {
            user_id: victim,
            ..Default::default()
        })
    };
    let request = FriendChatRequest {
        sender: sender(),
        receiver: Some(Receiver {
            user_id: friend,
            ..Default::default()
        }),
        content: "forged".to_owned(),
        ..Default::default()
    };
    let answer = chats
        .friend_chat_with(&request, of(me))
        .wait()
        .unwrap()
        .message;
    assert_eq!(answer.error_code, code::SUCCESS, "{}", answer.error_text);
    let id = |id| UserId::new(id).unwrap();
    let conversation = ConversationId::pair(id(me), id(friend)).unwrap();
    let history = setting.store.history(conversation, 1, 10).unwrap();
    let last = history.last().unwrap();
    assert_eq!((last.content.as_str(), last.sender.get()), ("forged", me));

    let request = CreateGroupRequest {
        user_id: victim,
        group_name: Bytes::from_static(b"club"),
        ..Default::default()
    };
    let created = groups
        .create_group_with(&request, of(me))
        .wait()
        .unwrap()
        .message;
    assert_eq!(created.error_code, code::SUCCESS, "{}", created.error_text);
    let groups_of = |user| setting.store.groups(id(user)).unwrap().len();
    assert_eq!((groups_of(me), groups_of(victim)), (1, 0));
    let group_id = created.group.unwrap_or_default().group_id;

    let request = GroupChatRequest {
        sender: sender(),
        receiver: Some(Receiver {
            group_id,
            ..Default::default()
        }),
        content: "forged".to_owned(),
        ..Default::default()
    };
    // The victim is no member, and does not become one by being named.
    let answer = group_chats
        .group_chat_with(&request, of(victim))
        .wait()
        .unwrap()
        .message;
    assert_eq!(answer.error_code, code::GROUP_CHAT_NOT_MEMBER);
    let answer = group_chats
        .group_chat_with(&request, of(me))
        .wait()
        .unwrap()
        .message;
    assert_eq!(answer.error_code, code::SUCCESS, "{}", answer.error_text);

    // Nor does anybody see, leave or end what is another's.
    let request = DeleteGroupRequest {
        user_id: me,
        group_id,
        ..Default::default()
    };
    let answer = groups
        .delete_group_with(&request, of(victim))
        .wait()
        .unwrap()
        .message;
    assert_ne!(answer.error_code, code::SUCCESS);
    let request = FetchGroupsRequest {
        user_id: me,
        ..Default::default()
    };
    let answer = groups
        .fetch_groups_with(&request, of(victim))
        .wait()
        .unwrap()
        .message;
    assert_eq!(answer.group_list.unwrap_or_default().groups.len(), 0);
    let request = FetchFriendsRequest {
        user_id: me,
        ..Default::default()
    };
    let answer = friends
        .fetch_friends_with(&request, of(victim))
        .wait()
        .unwrap()
        .message;
    assert_eq!(answer.friend_list.unwrap_or_default().friend_users.len(), 0);
    let request = DeleteFriendRequest {
        user_id: me,
        friend_id: friend,
        ..Default::default()
    };
    let answer = friends
        .delete_friend_with(&request, of(victim))
        .wait()
        .unwrap()
        .message;
    assert_ne!(answer.error_code, code::SUCCESS);
    assert_eq!(friends_of(me), [friend]);
    let request = FetchHistoryRequest {
        conversation: Some(Conversation {
            friend_id: 0,
            group_id,
        }),
        ..Default::default()
    };
    let answer = users
        .fetch_history_with(&request, of(victim))
        .wait()
        .unwrap()
        .message;
    assert_eq!(answer.error_code, code::NOT_YOURSELF);
    let request = FetchPendingRequest {
        after: vec![ConversationMark {
            conversation_id: conversation.raw(),
            sequence: 0,
        }],
        all_conversations: false,
    };
    let answer = users
        .fetch_pending_with(&request, of(victim))
        .wait()
        .unwrap()
        .message;
    assert!(answer.pushes.is_empty(), "{:?}", answer.pushes);
}

#[test]
fn a_call_that_names_no_user_in_its_metadata_is_refused() {
    let setting = setting(|_| {});
    let channel = setting.channel(None);
    let me = register(channel.clone(), "me").unwrap().user_id;
    let friends = FriendServiceRpcClient::new(channel);
    let text = MetadataKey::<String>::new(metadata::USER.name());
    for bare in [
        CallOptions::timeout(PATIENCE),
        CallOptions::timeout(PATIENCE).with_metadata(metadata::USER, 0),
        CallOptions::timeout(PATIENCE).with_metadata(text, "1 or 2".to_owned()),
    ] {
        let request = FetchFriendsRequest {
            user_id: me,
            ..Default::default()
        };
        let error = friends
            .fetch_friends_with(&request, bare)
            .wait()
            .unwrap_err();
        assert_eq!(error.code(), ErrorCode::UNAUTHENTICATED);
    }
}
