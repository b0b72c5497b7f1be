//! Flow control: water marks, limits, pauses, fairness.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use nexus_net::{CloseReason, ConnectionOptions};

use crate::support::*;

fn small_marks() -> ConnectionOptions {
    ConnectionOptions {
        output_high_bytes: 256 << 10,
        output_low_bytes: 64 << 10,
        output_bytes_max: 1 << 20,
        ..ConnectionOptions::default()
    }
}

#[test]
fn sixty_four_mebibytes_pass_both_ways_and_none_is_lost() {
    const TOTAL: usize = 64 << 20;
    const STEP: usize = 1 << 20;
    let loops = nexus_net::LoopGroup::start("large", 1).unwrap();
    // Not the scripted handler: it would keep all of it in its reports.
    struct Echo;
    impl nexus_net::Handler for Echo {
        fn data(&mut self, conn: &mut nexus_net::Connection<'_>, input: &mut bytes::BytesMut) {
            conn.send(input.split().freeze());
        }
    }
    let options = nexus_net::ServerOptions {
        connection: small_marks(),
        ..Default::default()
    };
    let server = nexus_net::TcpServer::start(&loops, local(), options, |_| Box::new(Echo)).unwrap();
    let stream = connect(server.local_addr());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for from in (0..TOTAL).step_by(STEP) {
                (&stream).write_all(&pattern(from, STEP)).unwrap();
            }
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut piece = vec![0; STEP];
        for from in (0..TOTAL).step_by(STEP) {
            (&stream).read_exact(&mut piece).unwrap();
            assert!(piece == pattern(from, STEP), "the piece at {from}");
        }
        assert_eq!((&stream).read(&mut piece).unwrap(), 0);
    });
}

#[test]
fn above_the_high_mark_reading_stops_and_below_the_low_one_it_goes_on() {
    // More than the socket buffers of both sides can hold together.
    const TOTAL: usize = 32 << 20;
    const READ_BYTES: usize = 64 << 10;
    let options = small_marks();
    let high = options.output_high_bytes;
    let most = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&most);
    let served = serve(options, move |conn, call| {
        echo(conn, call);
        seen.fetch_max(conn.output_bytes(), Ordering::Relaxed);
    });
    let stream = served.connect();
    std::thread::scope(|scope| {
        scope.spawn(|| (&stream).write_all(&pattern(0, TOTAL)).unwrap());
        wait_for("the server to choke", || {
            most.load(Ordering::Relaxed) > high
        });
        let mut all = vec![0; TOTAL];
        (&stream).read_exact(&mut all).unwrap();
        assert!(all == pattern(0, TOTAL));
    });
    assert!(most.load(Ordering::Relaxed) <= high + READ_BYTES);
    served
        .events
        .find(|event| matches!(event, Event::Drained).then_some(()));
}

#[test]
fn a_slow_consumer_at_its_output_limit_is_closed_and_nobody_else() {
    let served = serve(small_marks(), |conn, call| match call {
        // "Subscribe" to a flood, or be echoed.
        Call::Data(input) if input.starts_with(b"flood") => {
            input.clear();
            conn.set_timer(std::time::Duration::ZERO, 0);
        }
        Call::Timer(_) => {
            conn.send(Bytes::from(vec![b'x'; 128 << 10]));
            conn.set_timer(std::time::Duration::ZERO, 0);
        }
        other => echo(conn, other),
    });
    let mut slow = served.connect();
    let mut fast = served.connect();
    slow.write_all(b"flood").unwrap();
    assert_echoes(&mut fast, b"before");
    assert!(matches!(served.events.closed(), CloseReason::OutputLimit));
    assert_echoes(&mut fast, b"after");
    assert_eq!(served.server.connections(), 1);
}

#[test]
fn output_up_to_the_limit_is_delivered() {
    let options = small_marks();
    let limit = options.output_bytes_max;
    let served = serve(options, move |conn, call| match call {
        Call::Opened => {
            conn.send(Bytes::from(pattern(0, limit)));
            conn.close();
        }
        other => otherwise(conn, other),
    });
    let stream = served.connect();
    assert!(read_to_end(&stream) == pattern(0, limit));
}

#[test]
fn input_one_over_its_limit_closes_and_at_the_limit_does_not() {
    const MAX: usize = 1000;
    let options = ConnectionOptions {
        input_bytes_max: MAX,
        ..ConnectionOptions::default()
    };
    // A frame that never ends.
    let served = serve(options, |conn, call| match call {
        Call::Data(input) => {
            let bytes = input.len() as u32;
            conn.write(&bytes.to_be_bytes());
        }
        other => otherwise(conn, other),
    });
    let mut stream = served.connect();
    stream.write_all(&pattern(0, MAX)).unwrap();
    let mut seen = [0; 4];
    while u32::from_be_bytes(seen) != MAX as u32 {
        stream.read_exact(&mut seen).unwrap();
    }
    assert_eq!(served.server.connections(), 1);
    stream.write_all(b"!").unwrap();
    assert!(matches!(served.events.closed(), CloseReason::InputLimit));
}

#[test]
fn paused_input_and_its_end_arrive_after_resume() {
    let served = serve(ConnectionOptions::default(), |conn, call| match call {
        Call::Opened => conn.pause_reading(),
        Call::Woken => conn.resume_reading(),
        other => otherwise(conn, other),
    });
    let mut stream = served.connect();
    let conn = served.events.opened();
    stream.write_all(b"hello").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    // The loop has polled since, and so has seen the edges, once it has taken in a newcomer.
    let _newcomer = served.connect();
    assert!(matches!(served.events.next(), Event::Opened(_)));
    conn.wake().unwrap();
    assert!(matches!(served.events.next(), Event::Woken));
    assert!(matches!(served.events.next(), Event::Data(bytes) if &bytes[..] == b"hello"));
    assert!(matches!(served.events.next(), Event::Eof));
    assert!(matches!(
        served.events.next(),
        Event::Closed(CloseReason::Peer)
    ));
}

#[test]
fn an_end_that_is_known_while_paused_waits_for_resume() {
    let served = serve(ConnectionOptions::default(), |conn, call| match call {
        // All input is there, and the end with it: only the pause holds the end back.
        Call::Data(input) => {
            conn.pause_reading();
            input.clear();
        }
        Call::Woken => conn.resume_reading(),
        other => otherwise(conn, other),
    });
    let blocked = block(served.loop_handle());
    let mut stream = served.connect();
    stream.write_all(b"hello").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    blocked.release();
    let conn = served.events.opened();
    assert!(matches!(served.events.next(), Event::Data(_)));
    on_loop(served.loop_handle(), |_| ());
    conn.wake().unwrap();
    assert!(matches!(served.events.next(), Event::Woken));
    assert!(matches!(served.events.next(), Event::Eof));
}

#[test]
fn pausing_and_resuming_within_each_call_loses_nothing() {
    const TOTAL: usize = 4 << 20;
    let options = ConnectionOptions {
        read_bytes_per_turn: 4096,
        ..ConnectionOptions::default()
    };
    let paused = AtomicBool::new(false);
    let served = serve(options, move |conn, call| match call {
        Call::Data(input) => {
            conn.send(input.split().freeze());
            conn.pause_reading();
            if paused.fetch_xor(true, Ordering::Relaxed) {
                conn.resume_reading();
            } else {
                let _ = conn.handle().wake();
            }
        }
        Call::Woken => conn.resume_reading(),
        other => otherwise(conn, other),
    });
    let stream = served.connect();
    std::thread::scope(|scope| {
        scope.spawn(|| (&stream).write_all(&pattern(0, TOTAL)).unwrap());
        let mut all = vec![0; TOTAL];
        (&stream).read_exact(&mut all).unwrap();
        assert!(all == pattern(0, TOTAL));
    });
}

#[test]
fn a_flooding_connection_does_not_starve_its_neighbour() {
    let served = serve(ConnectionOptions::default(), |conn, call| match call {
        Call::Data(input) if input.starts_with(b"ping") => echo(conn, Call::Data(input)),
        other => otherwise(conn, other),
    });
    let flooding = served.connect();
    let mut quiet = served.connect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let flood = vec![0; 256 << 10];
            while !stop.load(Ordering::Relaxed) {
                (&flooding).write_all(&flood).unwrap();
            }
        });
        for _ in 0..50 {
            assert_echoes(&mut quiet, b"ping");
        }
        stop.store(true, Ordering::Relaxed);
    });
}
