//! TLS under the same handlers, against rustls on a blocking socket and against itself.

mod certificates;
mod closing;
mod handshake;
pub(crate) mod support;

use std::io::{Read, Write};

use bytes::Bytes;
use nexus_net::ConnectionOptions;

use self::support::*;
use crate::support::*;

#[allow(dead_code)] // `main`
#[path = "../../../examples/tls_echo.rs"]
mod tls_echo;

#[test]
fn the_example_echoes() {
    let ca = Ca::new();
    let loops = nexus_net::LoopGroup::start("tls-echo", 1).unwrap();
    let server = tls_echo::start(&loops, local(), &ca.server(&[])).unwrap();
    let mut stream = ca.client().connect(server.local_addr().as_tcp().unwrap());
    stream.write_all(b"hello").unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello");
}

#[test]
fn an_echo_carries_every_byte_both_ways() {
    let ca = Ca::new();
    let served = serve_tls(ca.server(&[]), ConnectionOptions::default(), echo);
    let mut stream = ca.client().connect(served.address());
    let sent = pattern(0, 3_000_000);
    let mut received = Vec::new();
    for piece in sent.chunks(100_000) {
        stream.write_all(piece).unwrap();
        let from = received.len();
        received.resize(from + piece.len(), 0);
        stream.read_exact(&mut received[from..]).unwrap();
    }
    assert!(received == sent);
}

#[test]
fn what_comes_with_the_end_of_the_handshake_is_delivered() {
    let ca = Ca::new();
    let served = serve_tls(ca.server(&[]), ConnectionOptions::default(), echo);
    let mut stream = ca.client().stream(served.address());
    // Queued before the handshake, so it leaves in one write with the client's last flight.
    stream.conn.writer().write_all(b"early").unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"early");
}

#[test]
fn a_broken_record_behind_good_ones_ends_its_own_connection_only() {
    let ca = Ca::new();
    let served = serve_tls(ca.server(&[]), ConnectionOptions::default(), echo);
    let mut other = ca.client().connect(served.address());
    let mut broken = ca.client().connect(served.address());
    let mut records = Vec::new();
    for _ in 0..8 {
        broken.conn.writer().write_all(&pattern(0, 2000)).unwrap();
        while broken.conn.wants_write() {
            broken.conn.write_tls(&mut records).unwrap();
        }
    }
    *records.last_mut().unwrap() ^= 1;
    // One read takes all of it, and the good records are decrypted before the broken one is met.
    broken.sock.write_all(&records).unwrap();
    let mut rest = Vec::new();
    let _ = broken.sock.read_to_end(&mut rest);

    other.write_all(b"mine").unwrap();
    let mut answer = [0; 4];
    other.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"mine");
}

#[test]
fn early_input_waits_for_a_handler_that_paused() {
    let ca = Ca::new();
    let served = serve_tls(
        ca.server(&[]),
        ConnectionOptions::default(),
        |conn, call| match call {
            Call::Opened => conn.pause_reading(),
            Call::Woken => conn.resume_reading(),
            other => echo(conn, other),
        },
    );
    let mut stream = ca.client().stream(served.address());
    stream.conn.writer().write_all(b"early").unwrap();
    stream.conn.complete_io(&mut stream.sock).unwrap();
    let conn = served.events.opened();
    conn.wake().unwrap();
    assert!(matches!(served.events.next(), Event::Woken));
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"early");
}

#[test]
fn records_cut_into_single_bytes_arrive_whole() {
    let ca = Ca::new();
    let served = serve_tls(ca.server(&[]), ConnectionOptions::default(), echo);
    let mut stream = ca.client().stream(served.address());
    stream.conn.complete_io(&mut stream.sock).unwrap();
    stream.conn.writer().write_all(&pattern(0, 600)).unwrap();
    let mut record = Vec::new();
    stream.conn.write_tls(&mut record).unwrap();
    for byte in record {
        stream.sock.write_all(&[byte]).unwrap();
    }
    let mut answer = vec![0; 600];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, pattern(0, 600));
}

#[test]
fn a_reader_that_lags_behind_gets_all_of_a_large_output() {
    const BYTES: usize = 20_000_000;
    let ca = Ca::new();
    let served = serve_tls(
        ca.server(&[]),
        ConnectionOptions::default(),
        |conn, call| {
            if let Call::Data(input) = call {
                input.clear();
                conn.send(Bytes::from(pattern(0, BYTES)));
            } else {
                otherwise(conn, call);
            }
        },
    );
    let mut stream = ca.client().connect(served.address());
    stream.write_all(b"go").unwrap();
    let mut all = Vec::new();
    let mut buffer = [0; 1500];
    while all.len() < BYTES {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "ended after {} bytes", all.len());
        all.extend_from_slice(&buffer[..count]);
    }
    assert!(all == pattern(0, BYTES));
}

#[test]
fn both_ends_of_the_library_agree_on_a_protocol_and_a_name() {
    let ca = Ca::new();
    let server = ca.server(&["nexus/2", "nexus/1"]);
    let (sender, names) = std::sync::mpsc::channel();
    let served = serve_tls(server, ConnectionOptions::default(), move |conn, call| {
        if let Call::Opened = call {
            let tls = conn.tls().expect("TLS");
            let alpn = tls.alpn().map(<[u8]>::to_vec);
            let name = tls.server_name().map(str::to_owned);
            let _ = sender.send((alpn, name, tls.version(), tls.peer_certificates().is_some()));
        }
        echo(conn, call);
    });
    let tls = ca.client().alpn(&["nexus/1"]).tls("localhost");
    let client = start_client(served.address(), Some(tls), |conn, call| match call {
        Call::Opened => {
            let tls = conn.tls().expect("TLS");
            assert_eq!(tls.alpn(), Some(&b"nexus/1"[..]));
            assert_eq!(tls.server_name(), None);
            assert!(tls.peer_certificates().is_some());
            conn.write(&pattern(0, 100_000));
        }
        other => otherwise(conn, other),
    });
    let seen = names.recv_timeout(DEADLINE).unwrap();
    let expected = (
        Some(b"nexus/1".to_vec()),
        Some("localhost".to_owned()),
        Some(nexus_net::rustls::ProtocolVersion::TLSv1_3),
        false,
    );
    assert_eq!(seen, expected);
    let mut received = Vec::new();
    while received.len() < 100_000 {
        received.extend_from_slice(&client.events.find(|event| match event {
            Event::Data(bytes) => Some(bytes),
            Event::Closed(reason) => panic!("closed: {reason}"),
            _ => None,
        }));
    }
    assert_eq!(received, pattern(0, 100_000));
}
