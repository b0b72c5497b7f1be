//! Peers that mean ill, or have lost their network: each ends by itself, and costs nobody else.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use nexus_net::{CloseReason, ConnectionOptions};

use crate::support::*;

/// More than the socket buffers on both sides hold.
const LARGE: usize = 16 << 20;

fn idle_after(timeout: Duration) -> ConnectionOptions {
    ConnectionOptions {
        idle_timeout: Some(timeout),
        close_timeout: Duration::from_millis(500),
        ..ConnectionOptions::default()
    }
}

/// Consumes frames of four bytes and leaves what is incomplete.
fn frames(conn: &mut nexus_net::Connection<'_>, call: Call<'_>) {
    match call {
        Call::Data(input) => {
            while input.len() >= 4 {
                conn.send(input.split_to(4).freeze());
            }
        }
        other => otherwise(conn, other),
    }
}

#[test]
fn peers_that_say_nothing_are_closed_and_one_that_talks_stays() {
    let served = serve(idle_after(Duration::from_secs(2)), echo);
    let mut talking = served.connect();
    let silent: Vec<TcpStream> = (0..50).map(|_| served.connect()).collect();
    wait_for("all connections", || served.server.connections() == 51);
    // They do not even close when they are closed.
    while served.server.connections() > 1 {
        assert_echoes(&mut talking, b"still here");
    }
    for stream in &silent {
        assert!(read_to_end(stream).is_empty());
        assert!(matches!(served.events.closed(), CloseReason::Idle));
    }
    assert_echoes(&mut talking, b"and still");
}

#[test]
fn a_peer_that_does_not_read_its_echo_is_closed_as_idle_and_the_others_go_on() {
    let served = serve(idle_after(Duration::from_secs(2)), echo);
    let mut stuck = served.connect();
    let mut other = served.connect();
    wait_for("both connections", || served.server.connections() == 2);
    stuck.set_nonblocking(true).unwrap();
    // Above its high water mark it is no longer read, so from then on nothing is.
    let block = vec![b'x'; 256 << 10];
    while served.server.connections() == 2 {
        let _ = stuck.write(&block);
        assert_echoes(&mut other, b"hello");
    }
    // It was closed for that, and lost its rest.
    assert!(matches!(served.events.closed(), CloseReason::CloseTimeout));
    assert_echoes(&mut other, b"hello");
}

#[test]
fn single_bytes_reach_the_input_limit_as_well() {
    let options = ConnectionOptions {
        input_bytes_max: 100,
        ..ConnectionOptions::default()
    };
    let served = serve(options, |conn, call| match call {
        Call::Data(_) => conn.write(b"."),
        other => otherwise(conn, other),
    });
    let mut stream = served.connect();
    for _ in 0..100 {
        stream.write_all(b"x").unwrap();
        // Seen one by one.
        stream.read_exact(&mut [0]).unwrap();
    }
    stream.write_all(b"x").unwrap();
    assert!(matches!(served.events.closed(), CloseReason::InputLimit));
    wait_until_gone(&stream);
}

#[test]
fn a_frame_that_never_ends_is_not_idle_and_a_timer_of_the_handler_ends_it() {
    let served = serve(idle_after(DEADLINE), |conn, call| match call {
        Call::Opened => {
            conn.set_timer(Duration::from_millis(200), 0);
        }
        Call::Data(_) => conn.write(b"."),
        Call::Timer(_) => conn.abort(),
        other => otherwise(conn, other),
    });
    let mut stream = served.connect();
    let mut dot = [0];
    // A byte whenever the last has been seen.
    while stream.write_all(b"x").is_ok() && matches!(stream.read(&mut dot), Ok(1)) {}
    assert!(matches!(served.events.closed(), CloseReason::Aborted));
}

#[test]
fn a_close_in_the_middle_of_a_frame_is_the_peers_end() {
    let served = serve(ConnectionOptions::default(), frames);
    for rest in 1..4 {
        let mut stream = served.connect();
        assert_echoes(&mut stream, b"full");
        stream.write_all(&b"part"[..rest]).unwrap();
        drop(stream);
        assert!(matches!(served.events.closed(), CloseReason::Peer));
    }
    served.wait_until_empty();
}

#[test]
fn a_reset_in_the_middle_of_a_frame_is_an_error() {
    let served = serve(ConnectionOptions::default(), frames);
    for rest in 0..4 {
        let mut stream = served.connect();
        assert_echoes(&mut stream, b"full");
        stream.write_all(&b"part"[..rest]).unwrap();
        reset(stream);
        assert!(matches!(served.events.closed(), CloseReason::Io(_)));
    }
    served.wait_until_empty();
}

#[test]
fn a_reset_while_output_is_queued_is_noticed_in_every_state() {
    for state in ["reading", "paused", "half closed", "closing"] {
        let options = ConnectionOptions {
            output_high_bytes: 1 << 20,
            close_timeout: DEADLINE,
            ..ConnectionOptions::default()
        };
        let served = serve(options, move |conn, call| match call {
            Call::Data(input) => {
                input.clear();
                conn.send(Bytes::from(vec![b'x'; LARGE]));
                match state {
                    "paused" => conn.pause_reading(),
                    "half closed" => conn.shutdown_write(),
                    "closing" => conn.close(),
                    _ => {}
                }
            }
            other => echo(conn, other),
        });
        let mut stream = served.connect();
        let mut neighbour = served.connect();
        stream.write_all(b"flood").unwrap();
        // The first of it has come, the rest has no room.
        stream.read_exact(&mut [0]).unwrap();
        reset(stream);
        let reason = served.events.closed();
        assert!(matches!(reason, CloseReason::Io(_)), "{state}: {reason}");
        wait_for("the neighbour alone", || served.server.connections() == 1);
        neighbour.write_all(b"me too").unwrap();
        neighbour.read_exact(&mut [0; 1000]).unwrap();
    }
}

#[test]
fn a_reset_that_a_pause_hides_is_found_by_the_idle_limit() {
    let served = serve(idle_after(Duration::from_millis(300)), |conn, call| {
        conn.pause_reading();
        otherwise(conn, call);
    });
    let stream = served.connect();
    served.events.opened();
    reset(stream);
    assert!(matches!(served.events.closed(), CloseReason::Idle));
    served.wait_until_empty();
}

#[test]
fn a_panic_while_draining_loses_that_connection_and_the_others_end_in_order() {
    let first = AtomicBool::new(true);
    let served = serve(ConnectionOptions::default(), move |conn, call| match call {
        Call::Draining if first.swap(false, Ordering::Relaxed) => {
            panic!("in draining, on purpose");
        }
        other => otherwise(conn, other),
    });
    let streams: Vec<TcpStream> = (0..20).map(|_| served.connect()).collect();
    wait_for("all connections", || served.server.connections() == 20);
    std::thread::scope(|scope| {
        let drain = scope.spawn(|| served.server.drain(DEADLINE));
        for stream in &streams {
            wait_until_gone(stream);
        }
        drop(streams);
        assert_eq!(drain.join().unwrap().aborted, 0);
    });
    let reasons: Vec<CloseReason> = (0..20).map(|_| served.events.closed()).collect();
    let is_panic = |reason: &&CloseReason| matches!(reason, CloseReason::HandlerPanicked);
    assert_eq!(reasons.iter().filter(is_panic).count(), 1);
}
