//! How TLS streams end.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;

use nexus_net::{CloseReason, ConnectionOptions};

use super::support::*;
use crate::support::*;

/// Answers the peer's end with how much it had sent.
fn count(conn: &mut nexus_net::Connection<'_>, call: Call<'_>) {
    match call {
        Call::Data(input) => {
            let count = input.len();
            input.clear();
            conn.write(format!("{count} ").as_bytes());
        }
        Call::Eof => {
            conn.write(b"bytes");
            conn.close();
        }
        other => otherwise(conn, other),
    }
}

#[test]
fn a_half_closed_peer_still_gets_its_answer() {
    let ca = Ca::new();
    let served = serve_tls(ca.server(&[]), ConnectionOptions::default(), count);
    let mut stream = ca.client().connect(served.address());
    stream.write_all(b"1234").unwrap();
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    // The stream ended by close_notify, or this would be an error.
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "4 bytes");
}

#[test]
fn an_end_without_close_notify_is_an_error_and_not_the_end_of_the_stream() {
    let ca = Ca::new();
    let served = serve_tls(ca.server(&[]), ConnectionOptions::default(), count);
    let mut stream = ca.client().connect(served.address());
    stream.write_all(b"1234").unwrap();
    stream.read_exact(&mut [0; 2]).unwrap();
    stream.sock.shutdown(Shutdown::Write).unwrap();
    let reason = served.events.find(|event| match event {
        Event::Eof => panic!("a cut taken for the end"),
        Event::Closed(reason) => Some(reason),
        _ => None,
    });
    assert!(
        matches!(&reason, CloseReason::Io(error) if error.kind() == ErrorKind::UnexpectedEof),
        "{reason}"
    );
}

#[test]
fn a_close_after_a_large_write_loses_nothing() {
    const BYTES: usize = 5_000_000;
    let ca = Ca::new();
    let served = serve_tls(
        ca.server(&[]),
        ConnectionOptions::default(),
        |conn, call| {
            if let Call::Opened = call {
                conn.write(&pattern(0, BYTES));
                conn.close();
            } else {
                otherwise(conn, call);
            }
        },
    );
    let mut stream = ca.client().connect(served.address());
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    assert!(all == pattern(0, BYTES));
    drop(stream);
    assert!(matches!(served.events.closed(), CloseReason::Local));
}

#[test]
fn shutting_down_one_side_ends_the_stream_and_goes_on_reading() {
    let ca = Ca::new();
    let served = serve_tls(
        ca.server(&[]),
        ConnectionOptions::default(),
        |conn, call| {
            match call {
                Call::Opened => {
                    conn.write(b"bye");
                    conn.shutdown_write();
                }
                Call::Data(input) => input.clear(),
                // The library's own end follows.
                Call::Eof => {}
                other => otherwise(conn, other),
            }
        },
    );
    let mut stream = ca.client().connect(served.address());
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"bye");
    stream.write_all(b"still here").unwrap();
    let data = served.events.find(|event| match event {
        Event::Data(bytes) => Some(bytes),
        _ => None,
    });
    assert_eq!(&data[..], b"still here");
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    assert!(matches!(served.events.closed(), CloseReason::Peer));
}

#[test]
fn a_record_that_was_tampered_with_ends_the_connection_with_an_alert() {
    let ca = Ca::new();
    let served = serve_tls(ca.server(&[]), ConnectionOptions::default(), count);
    let mut stream = ca.client().connect(served.address());
    // Opened: else the server would see the record together with the end of the handshake.
    stream.write_all(b"1234").unwrap();
    stream.read_exact(&mut [0; 2]).unwrap();
    stream.conn.writer().write_all(b"forged").unwrap();
    let mut record = Vec::new();
    stream.conn.write_tls(&mut record).unwrap();
    *record.last_mut().unwrap() ^= 1;
    stream.sock.write_all(&record).unwrap();
    let told = stream.read(&mut [0; 1]).unwrap_err();
    assert!(told.to_string().contains("BadRecordMac"), "{told}");
    drop(stream);
    let reason = served.events.find(|event| match event {
        Event::Data(bytes) => {
            assert_eq!(&bytes[..], b"1234", "a forged record was delivered");
            None
        }
        Event::Closed(reason) => Some(reason),
        _ => None,
    });
    assert!(
        matches!(&reason, CloseReason::Io(error) if error.kind() == ErrorKind::InvalidData),
        "{reason}"
    );
}
