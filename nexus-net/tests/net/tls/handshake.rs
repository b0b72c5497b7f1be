//! Handshakes that fail, and what they leave behind.

use std::io::{Read, Write};
use std::time::Duration;

use nexus_net::{CloseReason, ConnectionOptions};

use super::support::*;
use crate::support::*;

/// No handler was made for what `attempt` does, and the next client is served.
fn fails_without_a_handler(served: &Served, ca: &Ca, attempt: impl FnOnce()) {
    attempt();
    served.wait_until_empty();
    wait_for("the failure to be counted", || {
        served.loop_handle().metrics().handshakes_failed() == 1
    });
    assert!(served.events.rest().is_empty());
    let mut stream = ca.client().connect(served.address());
    stream.write_all(b"hello").unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello");
}

#[test]
fn a_peer_that_speaks_no_tls_is_told_so_and_closed() {
    let ca = Ca::new();
    let served = serve_tls(ca.server(&[]), ConnectionOptions::default(), echo);
    fails_without_a_handler(&served, &ca, || {
        let mut stream = served.connect();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let answer = read_to_end(&stream);
        // An alert (RFC 8446, section 6).
        assert_eq!(answer.first(), Some(&21), "{answer:?}");
    });
}

#[test]
fn a_peer_that_says_nothing_is_closed_in_time() {
    let ca = Ca::new();
    let options = ConnectionOptions {
        connect_timeout: Duration::from_millis(50),
        ..ConnectionOptions::default()
    };
    let served = serve_tls(ca.server(&[]), options, |_, _| {
        unreachable!("nobody gets through")
    });
    let stream = served.connect();
    wait_until_gone(&stream);
    served.wait_until_empty();
    assert_eq!(served.loop_handle().metrics().handshakes_failed(), 1);
    assert!(served.events.rest().is_empty());
}

#[test]
fn a_peer_that_leaves_in_the_middle_leaves_nothing_behind() {
    let ca = Ca::new();
    let served = serve_tls(ca.server(&[]), ConnectionOptions::default(), echo);
    fails_without_a_handler(&served, &ca, || {
        let mut stream = ca.client().stream(served.address());
        let mut hello = Vec::new();
        stream.conn.write_tls(&mut hello).unwrap();
        stream.sock.write_all(&hello[..hello.len() / 2]).unwrap();
    });
    assert!(matches!(served.events.next(), Event::Opened(_)));
}

#[test]
fn a_client_refuses_a_server_of_another_name_or_authority() {
    let ca = Ca::new();
    let served = serve_tls(ca.server(&[]), ConnectionOptions::default(), echo);
    let stranger = Ca::new();
    for tls in [
        ca.client().tls("elsewhere.example"),
        stranger.client().tls("localhost"),
    ] {
        let client = start_client(served.address(), Some(tls), |_, _| {
            unreachable!("never opened")
        });
        let reason = client.events.closed();
        assert!(
            matches!(&reason, CloseReason::ConnectFailed(error) if error.to_string().contains("certificate")),
            "{reason}"
        );
    }
}

#[test]
fn a_client_of_a_server_that_never_answers_gives_up_in_time() {
    let listener = std::net::TcpListener::bind(local()).unwrap();
    let ca = Ca::new();
    let address = listener.local_addr().unwrap();
    let loops = nexus_net::LoopGroup::start("client", 1).unwrap();
    let (sender, events) = Events::channel();
    let tls = ca.client().tls("localhost");
    on_loop(&loops.handles()[0], move |context| {
        let options = ConnectionOptions {
            connect_timeout: Duration::from_millis(50),
            ..ConnectionOptions::default()
        };
        let on = script(otherwise);
        let made = |_: &_| Scripted::boxed(&on, &sender);
        context
            .connect_tls(address, &tls, options.into(), made)
            .unwrap();
    });
    let reason = events.closed();
    assert!(
        matches!(&reason, CloseReason::ConnectFailed(error) if error.kind() == std::io::ErrorKind::TimedOut),
        "{reason}"
    );
}

#[test]
fn a_drain_does_not_wait_for_handshakes() {
    let ca = Ca::new();
    let options = ConnectionOptions {
        connect_timeout: DEADLINE,
        ..ConnectionOptions::default()
    };
    let served = serve_tls(ca.server(&[]), options, echo);
    let stream = served.connect();
    wait_for("it to be accepted", || served.server.connections() == 1);
    let report = served.server.drain(DEADLINE);
    assert_eq!((report.open_at_start, report.aborted), (1, 0));
    wait_until_gone(&stream);
}
