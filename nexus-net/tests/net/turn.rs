//! When output leaves, within a turn.

use std::io::Write;
use std::sync::mpsc;

use bytes::{Bytes, BytesMut};
use nexus_net::{Connection, ConnectionOptions};

use crate::support::*;

/// From here on an answer leaves before the turn's end.
const LARGE: usize = 8 << 10;

/// Answers with as many bytes as the input asks for.
fn answer(conn: &mut Connection<'_>, input: &mut BytesMut) {
    let digits = input.split();
    let bytes = std::str::from_utf8(&digits).expect("digits");
    let bytes = bytes.trim().parse().expect("a number");
    conn.send(Bytes::from(pattern(0, bytes)));
}

#[test]
fn small_answers_leave_at_the_end_of_their_turn_and_large_ones_at_once() {
    let (sender, waiting) = mpsc::channel();
    let served = serve(ConnectionOptions::default(), move |conn, call| match call {
        Call::Data(input) => {
            answer(conn, input);
            // Comes in this very turn, among the tasks, which run behind all reading.
            conn.handle().wake().expect("the loop runs");
        }
        Call::Woken => {
            let before = conn.output_bytes();
            conn.write(b"!");
            let _ = sender.send((before, conn.output_bytes()));
        }
        other => otherwise(conn, other),
    });
    let mut stream = served.connect();
    for (bytes, waits) in [(64, 64), (LARGE - 1, LARGE - 1), (LARGE, 0), (4 * LARGE, 0)] {
        write!(stream, "{bytes}").unwrap();
        let seen = waiting.recv_timeout(DEADLINE).unwrap();
        assert_eq!(seen, (waits, waits + 1), "an answer of {bytes} bytes");
        let mut answer = vec![0; bytes + 1];
        std::io::Read::read_exact(&mut stream, &mut answer).unwrap();
        assert!(answer.starts_with(&pattern(0, bytes)) && answer.ends_with(b"!"));
    }
}

#[test]
fn a_large_answer_has_left_before_the_next_connection_is_served() {
    let (sender, written) = mpsc::channel();
    let served = serve(ConnectionOptions::default(), move |conn, call| match call {
        Call::Data(input) => {
            let bytes_written = conn.handle().loop_handle().metrics().bytes_written();
            let _ = sender.send(bytes_written);
            answer(conn, input);
        }
        other => otherwise(conn, other),
    });
    let mut streams = [served.connect(), served.connect()];
    let blocked = block(served.loop_handle());
    for stream in &mut streams {
        write!(stream, "{LARGE}").unwrap();
    }
    // Both are ready in the next turn.
    blocked.release();
    let seen = [(); 2].map(|()| written.recv_timeout(DEADLINE).unwrap());
    assert_eq!(seen, [0, LARGE as u64]);
}
