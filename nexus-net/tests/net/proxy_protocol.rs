//! The client's address survives the proxy in front.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use nexus_net::{Address, ConnectionOptions, ProxyProtocol, ServerOptions};
use nexus_testkit::{Nginx, NginxConfig};
use proxy_header::{ProxiedAddress, ProxyHeader};

use crate::support::*;

const CLIENT: &str = "192.0.2.7:4711";

/// A connection from an address of its own.
fn connect_from(from: &str, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let from = SocketAddr::new(from.parse().unwrap(), 0);
    socket.bind(&from.into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

fn options(connection: ConnectionOptions) -> ServerOptions {
    ServerOptions {
        connection,
        proxy_protocol: ProxyProtocol::Required,
        ..ServerOptions::default()
    }
}

/// Says who the client is, then echoes.
fn greet(conn: &mut nexus_net::Connection<'_>, call: Call<'_>) {
    if let Call::Opened = call {
        let greeting = format!("{} ", conn.peer_addr());
        conn.write(greeting.as_bytes());
    }
    echo(conn, call);
}

fn serve_behind_a_proxy() -> Served {
    serve_with(1, options(ConnectionOptions::default()), greet)
}

fn v1() -> Vec<u8> {
    b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\n".to_vec()
}

fn v2() -> Vec<u8> {
    let addresses =
        ProxiedAddress::stream(CLIENT.parse().unwrap(), "192.0.2.1:80".parse().unwrap());
    let mut header = Vec::new();
    ProxyHeader::with_address(addresses)
        .encode_v2(&mut header)
        .unwrap();
    header
}

fn assert_reads(stream: &mut TcpStream, expected: &str) {
    let mut answer = vec![0; expected.len()];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), expected);
}

#[test]
fn the_named_client_is_the_peer_and_what_follows_is_its_first_input() {
    let served = serve_behind_a_proxy();
    for mut header in [v1(), v2()] {
        header.extend_from_slice(b"hello");
        let mut stream = served.connect();
        stream.write_all(&header).unwrap();
        assert_reads(&mut stream, &format!("{CLIENT} hello"));
        assert_echoes(&mut stream, b"and on");
    }
}

#[test]
fn a_header_in_single_bytes_is_put_together() {
    let served = serve_behind_a_proxy();
    for header in [v1(), v2()] {
        let mut stream = served.connect();
        for byte in header {
            stream.write_all(&[byte]).unwrap();
        }
        assert_reads(&mut stream, &format!("{CLIENT} "));
        assert_echoes(&mut stream, b"hello");
    }
}

#[test]
fn only_a_named_proxy_speaks_for_others() {
    let networks = vec!["127.0.0.77/32".parse().unwrap()];
    let served = serve_with(
        1,
        ServerOptions {
            proxy_protocol: ProxyProtocol::RequiredFrom(networks),
            ..ServerOptions::default()
        },
        greet,
    );
    let mut proxy = connect_from("127.0.0.77", served.address());
    proxy.write_all(&v1()).unwrap();
    assert_reads(&mut proxy, &format!("{CLIENT} "));
    assert_echoes(&mut proxy, b"hello");

    // From elsewhere it is input like any other, and nobody waits for one.
    let mut stream = served.connect();
    let own = stream.local_addr().unwrap();
    assert_reads(&mut stream, &format!("{own} "));
    assert_echoes(&mut stream, &v1());
}

#[test]
fn a_proxy_that_speaks_for_itself_is_the_peer() {
    let served = serve_behind_a_proxy();
    let mut stream = served.connect();
    let own = stream.local_addr().unwrap();
    stream.write_all(b"PROXY UNKNOWN\r\n").unwrap();
    assert_reads(&mut stream, &format!("{own} "));
}

#[test]
fn a_peer_without_a_header_is_closed_and_no_handler_made() {
    let served = serve_behind_a_proxy();
    let mut stream = served.connect();
    stream.write_all(b"hello\n").unwrap();
    wait_until_gone(&stream);
    served.wait_until_empty();
    assert_eq!(served.loop_handle().metrics().handshakes_failed(), 1);
    assert!(served.events.rest().is_empty());
}

#[test]
fn a_peer_that_never_finishes_its_header_is_closed_in_time() {
    let connection = ConnectionOptions {
        connect_timeout: Duration::from_millis(50),
        ..ConnectionOptions::default()
    };
    let served = serve_with(1, options(connection), |_, _| {
        unreachable!("nobody gets through")
    });
    let mut stream = served.connect();
    stream.write_all(&v1()[..20]).unwrap();
    wait_until_gone(&stream);
    served.wait_until_empty();
    assert!(served.events.rest().is_empty());
}

#[test]
fn a_client_that_sends_and_shuts_down_at_once_is_answered() {
    let served = serve_behind_a_proxy();
    let mut stream = served.connect();
    let mut all = v1();
    all.extend_from_slice(b"hello");
    stream.write_all(&all).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&stream), format!("{CLIENT} hello").into_bytes());
}

#[test]
fn a_client_s_address_survives_nginx() {
    let served = serve_behind_a_proxy();
    let nginx = Nginx::start(NginxConfig {
        upstreams: vec![served.address()],
        proxy_protocol: true,
        ..NginxConfig::default()
    })
    .unwrap();
    // An address of its own, which nginx's connection to the server does not have.
    let mut stream = connect_from("127.0.0.77", nginx.address());
    let client = stream.local_addr().unwrap();
    assert_reads(&mut stream, &format!("{client} "));
    assert_echoes(&mut stream, b"hello");
    assert_eq!(client.ip(), "127.0.0.77".parse::<IpAddr>().unwrap());
    assert_ne!(Address::from(client), served.server.local_addr());
}

#[test]
fn a_client_s_address_survives_nginx_behind_nginx() {
    let served = serve_behind_a_proxy();
    let nginx = Nginx::start(NginxConfig {
        upstreams: vec![served.address()],
        proxy_protocol: true,
        chained: true,
        ..NginxConfig::default()
    })
    .unwrap();
    let mut stream = connect_from("127.0.0.77", nginx.address());
    let client = stream.local_addr().unwrap();
    assert_reads(&mut stream, &format!("{client} "));
    assert_echoes(&mut stream, b"hello");
}

#[cfg(feature = "tls")]
#[test]
fn the_header_comes_before_tls() {
    use crate::tls::support::Ca;

    let ca = Ca::new();
    let served = serve_with(
        1,
        ServerOptions {
            tls: Some(ca.server(&[])),
            ..options(ConnectionOptions::default())
        },
        greet,
    );
    let mut stream = ca.client().stream(served.address());
    // In one piece with the client's first flight.
    let mut first = v2();
    stream.conn.write_tls(&mut first).unwrap();
    stream.sock.write_all(&first).unwrap();
    let expected = format!("{CLIENT} ");
    let mut greeting = vec![0; expected.len()];
    stream.read_exact(&mut greeting).unwrap();
    assert_eq!(String::from_utf8_lossy(&greeting), expected);
}

#[cfg(feature = "tls")]
#[test]
fn a_client_s_address_survives_nginx_that_ends_its_tls() {
    use crate::tls::support::Ca;

    let ca = Ca::new();
    ca.issue("nginx", "localhost");
    let served = serve_behind_a_proxy();
    let nginx = Nginx::start(NginxConfig {
        upstreams: vec![served.address()],
        proxy_protocol: true,
        tls: Some(nexus_testkit::Identity {
            certificate: ca.file("nginx.pem"),
            key: ca.file("nginx.key"),
        }),
        ..NginxConfig::default()
    })
    .unwrap();
    let mut stream = ca.client().connect(nginx.address());
    let expected = format!("{} hello", stream.sock.local_addr().unwrap());
    stream.write_all(b"hello").unwrap();
    let mut answer = vec![0; expected.len()];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), expected);
}
