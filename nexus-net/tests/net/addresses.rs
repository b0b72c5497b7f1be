//! Kinds of addresses.

use std::net::SocketAddr;

use nexus_net::{ClientOptions, LoopGroup, ServerOptions, TcpClient, TcpServer};

use crate::support::*;

#[test]
fn ipv6_is_served_and_both_ends_know_their_addresses() {
    let loops = LoopGroup::start("ipv6", 2).unwrap();
    let (sender, events) = Events::channel();
    // Each end's addresses travel as its first line.
    let on = script(|conn, call| match call {
        Call::Opened => {
            let local = conn.local_addr().unwrap();
            conn.write(format!("{local} {}\n", conn.peer_addr()).as_bytes());
        }
        other => echo(conn, other),
    });
    let any_port: SocketAddr = "[::1]:0".parse().unwrap();
    let server = TcpServer::start(&loops, any_port, ServerOptions::default(), {
        let on = on.clone();
        move |_| Scripted::boxed(&on, &sender)
    })
    .expect("this machine has no IPv6 loopback (::1): enable net.ipv6.conf.lo");
    let address = address(&server);
    assert!(address.is_ipv6() && address.port() != 0, "{address}");

    let mut stream = connect(address);
    let own = stream.local_addr().unwrap();
    let mut line = vec![0; format!("{address} {own}\n").len()];
    std::io::Read::read_exact(&mut stream, &mut line).unwrap();
    assert_eq!(
        String::from_utf8(line).unwrap(),
        format!("{address} {own}\n")
    );
    assert_echoes(&mut stream, b"hello");
    events.opened();

    let (sender, client_events) = Events::channel();
    let listening = script(otherwise);
    let client = TcpClient::start(loops.next(), address, ClientOptions::default(), move |_| {
        Scripted::boxed(&listening, &sender)
    })
    .unwrap();
    let greeting = client_events.find(|event| match event {
        Event::Data(bytes) => Some(String::from_utf8(bytes.to_vec()).unwrap()),
        _ => None,
    });
    assert!(
        greeting.starts_with(&format!("{address} [::1]:")),
        "{greeting}"
    );
    drop(client);
}
