//! Bytes get through, in order and complete, however they are cut.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nexus_net::{ConnectionOptions, ServerOptions};
use rand::{RngExt, SeedableRng};

use crate::support::*;

#[test]
fn every_split_of_a_message_is_echoed() {
    let served = serve(ConnectionOptions::default(), echo);
    let message = pattern(0, 40);
    for split in 0..=message.len() {
        let mut stream = served.connect();
        stream.write_all(&message[..split]).unwrap();
        stream.write_all(&message[split..]).unwrap();
        let mut answer = vec![0; message.len()];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, message, "split at {split}");
    }
}

#[test]
fn many_connections_over_two_loops_each_get_their_own_bytes_back() {
    let seed = seed();
    let served = serve_with(2, ServerOptions::default(), echo);
    let address = served.address();
    let mut streams: Vec<_> = (0..200).map(|_| connect(address)).collect();
    wait_for("all connections", || served.server.connections() == 200);
    for handle in served.loops.handles() {
        assert_eq!(handle.metrics().connections(), 100, "round robin");
    }
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    for round in 0..3 {
        let messages: Vec<Vec<u8>> = (0..streams.len())
            .map(|i| pattern(i * 7 + round, random.random_range(1..10_000)))
            .collect();
        for (stream, message) in streams.iter_mut().zip(&messages) {
            let split = random.random_range(0..message.len());
            stream.write_all(&message[..split]).unwrap();
            stream.write_all(&message[split..]).unwrap();
        }
        for (stream, message) in streams.iter_mut().zip(&messages) {
            let mut answer = vec![0; message.len()];
            stream.read_exact(&mut answer).unwrap();
            assert!(&answer == message);
        }
    }
}

#[test]
fn least_connections_evens_the_loops_out() {
    let options = ServerOptions {
        placement: nexus_net::Placement::LeastConnections,
        ..ServerOptions::default()
    };
    let served = serve_with(2, options, echo);
    let mut streams: Vec<_> = (0..20).map(|_| served.connect()).collect();
    wait_for("all connections", || served.server.connections() == 20);
    // Every other one goes; whatever loop that leaves short gets the next ones.
    let mut i = 0;
    streams.retain(|_| {
        i += 1;
        i % 2 == 0
    });
    wait_for("half of them", || served.server.connections() == 10);
    streams.extend((0..10).map(|_| served.connect()));
    wait_for("all connections", || served.server.connections() == 20);
    for handle in served.loops.handles() {
        assert_eq!(handle.metrics().connections(), 10);
    }
}

/// Counts frames of one length byte and a body, and answers each with its length byte.
fn serve_frames() -> (Served, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let served = serve(ConnectionOptions::default(), move |conn, call| match call {
        Call::Data(input) => {
            counted.fetch_add(1, Ordering::Relaxed);
            while let Some(&len) = input.first() {
                if input.len() <= usize::from(len) {
                    break;
                }
                let frame = input.split_to(1 + usize::from(len));
                assert!(frame[1..].iter().all(|&byte| byte == len));
                conn.write(&[len]);
            }
        }
        other => otherwise(conn, other),
    });
    (served, calls)
}

fn frames() -> (Vec<u8>, Vec<u8>) {
    let mut bytes = Vec::new();
    let mut answers = Vec::new();
    for len in [0u8, 1, 2, 17, 100, 255, 0, 3] {
        bytes.push(len);
        bytes.extend(std::iter::repeat_n(len, usize::from(len)));
        answers.push(len);
    }
    (bytes, answers)
}

#[test]
fn frames_glued_together_are_all_there() {
    let (served, _) = serve_frames();
    let (bytes, answers) = frames();
    let mut stream = served.connect();
    for _ in 0..100 {
        stream.write_all(&bytes).unwrap();
    }
    let mut all = vec![0; answers.len() * 100];
    stream.read_exact(&mut all).unwrap();
    assert_eq!(all, answers.repeat(100));
}

#[test]
fn frames_in_single_bytes_are_put_together() {
    let (served, calls) = serve_frames();
    let (bytes, answers) = frames();
    let mut stream = served.connect();
    for (sent, byte) in bytes.iter().enumerate() {
        stream.write_all(std::slice::from_ref(byte)).unwrap();
        // Each byte is to be a read of its own.
        wait_for("the byte to be read", || {
            calls.load(Ordering::Relaxed) > sent
        });
    }
    let mut all = vec![0; answers.len()];
    stream.read_exact(&mut all).unwrap();
    assert_eq!(all, answers);
}

#[test]
fn a_large_frame_is_gathered_from_many_reads() {
    const LEN: usize = 3 << 20;
    let served = serve(ConnectionOptions::default(), |conn, call| match call {
        Call::Data(input) if input.len() < LEN => {}
        Call::Data(input) => {
            conn.send(input.split_to(LEN).freeze());
        }
        other => otherwise(conn, other),
    });
    let mut stream = served.connect();
    // One and a half frames, then the rest of the second.
    let bytes = pattern(0, 2 * LEN);
    let mut answer = vec![0; LEN];
    stream.write_all(&bytes[..LEN + LEN / 2]).unwrap();
    stream.read_exact(&mut answer).unwrap();
    assert!(answer == bytes[..LEN]);
    stream.write_all(&bytes[LEN + LEN / 2..]).unwrap();
    stream.read_exact(&mut answer).unwrap();
    assert!(answer == bytes[LEN..]);
}
