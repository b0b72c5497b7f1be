//! The whole chat with TLS and certificates between all parts, and a secret between proxies and servers.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chat_client::{Body, ChatClient, ClientOptions, Event};
use chat_proto::ids::{MessageId, code};
use chat_proto::messages::*;
use chat_tests::{Entrance, System, WireClient, suite};
use crossbeam_channel::Receiver;
use nexus_net::{ClientPemFiles, ClientTls, LoopGroup};
use nexus_rpc::registry::{Registry, StaticRegistry};
use nexus_rpc::{CallOptions, ChannelOptions, Credentials, ErrorCode, RpcChannel, RpcError};
use nexus_testkit::{
    Cluster, ClusterFiles, ClusterOptions, Identity, Profile, build_binaries, wait_until,
};

const PATIENCE: Duration = Duration::from_secs(30);
const NAME: &str = ClusterFiles::SERVER_NAME;

fn cluster() -> (Cluster, System) {
    let cluster = Cluster::start(ClusterOptions {
        tls: true,
        ..ClusterOptions::new(build_binaries(Profile::Dev).unwrap())
    })
    .unwrap();
    let entrance = |address| {
        let config = trusting_clients(&cluster).client_config().unwrap();
        Entrance::with_tls(address, config, NAME)
    };
    let system = System {
        left: entrance(cluster.proxy(0).address()),
        right: entrance(cluster.proxy(1).address()),
    };
    for way_in in [system.left, system.right] {
        wait_until("the proxy serves", PATIENCE, || suite::serves(way_in));
    }
    (cluster, system)
}

fn files(cluster: &Cluster) -> &ClusterFiles {
    cluster.files().expect("a cluster with TLS")
}

fn trusting_clients(cluster: &Cluster) -> ClientPemFiles {
    ClientPemFiles {
        roots: files(cluster).ca.certificate(),
        ..ClientPemFiles::default()
    }
}

#[test]
fn the_cluster_with_tls_passes_the_suite() {
    let (cluster, system) = cluster();
    suite::run(&system);
    // Through nginx, which passes TLS on and says whose connection it is.
    let front = system.left.at(cluster.address());
    suite::run(&System {
        left: front,
        right: front,
    });
}

/// What a plain client gets to read.
fn answer_in_clear(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("a plain client is left waiting: {error}"),
    }
    answer
}

#[test]
fn plain_clients_are_refused() {
    let (cluster, _) = cluster();
    let register = RegisterRequest {
        user_name: Bytes::from_static(b"plain"),
        user_password: Bytes::from_static(b"secret"),
    };
    let request = chat_proto::frame::to_bytes(&RequestFrame {
        message_id: MessageId::REGISTER.0,
        content: prost::Message::encode_to_vec(&register).into(),
        request_id: 1,
    });
    for address in [cluster.proxy(0).address(), cluster.address()] {
        let answer = answer_in_clear(address, &request);
        // At most an alert of TLS: content type 21.
        assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
    }
}

#[test]
fn a_client_s_address_is_known_behind_nginx_and_believed_from_nobody_else() {
    let (cluster, _) = cluster();
    let broken = b"\x7f\xff\xff\xff";
    let seen = |address: SocketAddr| {
        let line = format!("{address}: ");
        wait_until("the proxy names the client's address", PATIENCE, || {
            cluster.proxies().iter().any(|proxy| {
                let log = std::fs::read_to_string(proxy.log_path()).unwrap();
                log.lines()
                    .any(|log| log.contains(&line) && log.contains("closed"))
            })
        });
    };
    let config = trusting_clients(&cluster).client_config().unwrap();
    let mut client = tls_stream(cluster.address(), &config);
    let own = client.sock.local_addr().unwrap();
    client.write_all(broken).unwrap();
    client.flush().unwrap();
    seen(own);

    // Not from who is no load balancer of the configuration: it is no beginning of TLS.
    let header = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\n";
    let answer = answer_in_clear(cluster.proxy(0).address(), header);
    assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
}

type TlsStream = nexus_net::rustls::StreamOwned<nexus_net::rustls::ClientConnection, TcpStream>;

fn tls_stream(address: SocketAddr, config: &Arc<nexus_net::rustls::ClientConfig>) -> TlsStream {
    let name = NAME.to_owned().try_into().unwrap();
    let session = nexus_net::rustls::ClientConnection::new(Arc::clone(config), name).unwrap();
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    nexus_net::rustls::StreamOwned::new(session, stream)
}

struct Shows(Bytes);

impl Credentials for Shows {
    fn authentication_data(&self) -> Bytes {
        self.0.clone()
    }
}

/// Registers a user as a proxy would, with this certificate and secret.
fn call(
    cluster: &Cluster,
    identity: Option<Option<&Identity>>,
    secret: Option<&str>,
) -> Result<RegisterResponse, RpcError> {
    let address = cluster.server(0).address();
    let registry: Arc<dyn Registry> =
        Arc::new(StaticRegistry::parse(&address.to_string()).unwrap());
    let tls = identity.map(|identity| {
        let files = ClientPemFiles {
            roots: files(cluster).inner_ca.certificate(),
            identity: identity.map(|own| (own.certificate.clone(), own.key.clone())),
            ..ClientPemFiles::default()
        };
        ClientTls::from_pem(&files, "chat-server").unwrap()
    });
    let shown = secret.map(|secret| Shows(Bytes::copy_from_slice(secret.as_bytes())));
    let channel = RpcChannel::new(
        registry,
        Arc::new(LoopGroup::start("test", 1).unwrap()),
        ChannelOptions {
            tls,
            credentials: shown.map(|shown| Arc::new(shown) as Arc<dyn Credentials>),
            ..ChannelOptions::default()
        },
    );
    let request = RegisterRequest {
        user_name: Bytes::from_static(b"by rpc"),
        user_password: Bytes::from_static(b"secret"),
    };
    let options = CallOptions::timeout(Duration::from_secs(5)).wait_for_ready();
    let users = UserServiceRpcClient::new(channel);
    Ok(users.register_with(&request, options).wait()?.message)
}

#[test]
fn who_is_no_proxy_calls_no_service() {
    let (cluster, _) = cluster();
    let files = files(&cluster);
    let secret = std::fs::read_to_string(files.secret()).unwrap();
    let secret = secret.trim();
    let other = "0123456789abcdef0123456789abcdef";
    let stranger = files.ca.issue("stranger", "chat-proxy").unwrap();
    let node = Some(Some(&files.node));

    // The certificate alone, and with another secret: refused by the server, in words.
    for shown in [None, Some(other)] {
        let error = call(&cluster, node, shown).unwrap_err();
        assert_eq!(error.code(), ErrorCode::UNAUTHENTICATED, "{error}");
    }
    // The secret alone: without TLS, without a certificate, with one of another authority.
    for identity in [None, Some(None), Some(Some(&stranger))] {
        let error = call(&cluster, identity, Some(secret)).unwrap_err();
        assert_ne!(error.code(), ErrorCode::UNAUTHENTICATED, "{error}");
    }
    let answer = call(&cluster, node, Some(secret)).unwrap();
    assert_eq!(
        answer.error_code,
        code::SUCCESS,
        "nothing was done before: {answer:?}"
    );
    for node in cluster.servers().iter().chain(cluster.proxies()) {
        let log = std::fs::read_to_string(node.log_path()).unwrap();
        assert!(
            !log.contains(secret) && !log.contains(other),
            "{}",
            node.name()
        );
    }
}

/// The certificate that a new connection is shown.
fn shown(way_in: Entrance) -> Vec<u8> {
    let mut client = WireClient::connect(way_in);
    client.assert_no_push();
    client.server_certificate().expect("one is shown")
}

#[test]
fn renewed_certificates_are_taken_up_and_broken_ones_are_not() {
    let (cluster, system) = cluster();
    let (mut left, mut right) = suite::friends(&system);
    let first = shown(system.left);
    let chat = |left: &mut WireClient, right: &mut WireClient, text: &str| {
        assert_eq!(left.chat(right.user_id, text).error_code, code::SUCCESS);
        let push: FriendChatRequest = right.push(MessageId::RECV_FRIEND);
        assert_eq!(push.content, text);
    };
    let hang_up = |process: &nexus_testkit::Process, says: &str| {
        let output = process.hang_up().expect("it runs");
        wait_until(says, PATIENCE, || output.contains(says));
    };
    let files = files(&cluster);

    files.ca.issue("proxy", NAME).unwrap();
    hang_up(cluster.proxy(0), "[tls]: read again");
    let second = shown(system.left);
    assert_ne!(second, first);
    chat(&mut left, &mut right, "on the old connection");

    let proxy = &files.proxy.certificate;
    std::fs::write(proxy, "no certificate").unwrap();
    hang_up(cluster.proxy(0), "the old one stays in use");
    assert_eq!(shown(system.left), second);
    chat(&mut left, &mut right, "still on the old connection");

    // Between the nodes: everybody gets a new one, and comes back with it to a server that was killed.
    files.inner_ca.issue("node", "chat-server").unwrap();
    for node in cluster.servers().iter().chain(cluster.proxies()) {
        hang_up(node, "[cluster]: read again");
    }
    cluster.server(0).kill();
    cluster.server(0).restart().unwrap();
    cluster.server(1).kill();
    wait_until("the proxies have come back", PATIENCE, || {
        left.chat(right.user_id, "by the new ones").error_code == code::SUCCESS
    });
    let push: FriendChatRequest = right.push(MessageId::RECV_FRIEND);
    assert_eq!(push.content, "by the new ones");
}

/// Waits for a text.
fn next_text(events: &Receiver<Event>) -> String {
    loop {
        if let Event::Message(message) = events.recv_timeout(PATIENCE).expect("a message")
            && let Body::Text(text) = message.body
        {
            return text;
        }
    }
}

#[test]
fn the_client_library_comes_back_under_tls() {
    let (cluster, _) = cluster();
    let options = || ClientOptions {
        tls: Some(ClientTls::from_pem(&trusting_clients(&cluster), NAME).unwrap()),
        ..ClientOptions::default()
    };
    let member = |name: &str| {
        let (client, events) = ChatClient::connect(cluster.address(), options()).unwrap();
        let id = client.register(name, "secret").wait(PATIENCE).unwrap();
        client.login(id, "secret").wait(PATIENCE).unwrap();
        (client, events, id)
    };
    let (ann, from_bob, ann_id) = member("ann");
    let (bob, from_ann, bob_id) = member("bob");
    ann.add_friend(bob_id).wait(PATIENCE).unwrap();
    ann.send_to_friend(bob_id, "hello").wait(PATIENCE).unwrap();
    assert_eq!(next_text(&from_ann), "hello");

    // One after the other, so that each of the two loses its connection.
    for proxy in cluster.proxies() {
        proxy.kill();
        proxy.restart().unwrap();
        let text = format!("after {}", proxy.name());
        ann.send_to_friend(bob_id, &text).wait(PATIENCE).unwrap();
        assert_eq!(next_text(&from_ann), text);
        bob.send_to_friend(ann_id, &text).wait(PATIENCE).unwrap();
        assert_eq!(next_text(&from_bob), text);
    }

    // Nor is a server believed that another authority has signed.
    let inner = ClientPemFiles {
        roots: files(&cluster).inner_ca.certificate(),
        ..ClientPemFiles::default()
    };
    let wrong = ClientOptions {
        tls: Some(ClientTls::from_pem(&inner, NAME).unwrap()),
        ..ClientOptions::default()
    };
    let (_client, events) = ChatClient::connect(cluster.address(), wrong).unwrap();
    let first = events.recv_timeout(PATIENCE).unwrap();
    assert!(
        matches!(&first, Event::Unreachable { reason, .. } if reason.contains("certificate")),
        "{first:?}"
    );
}
