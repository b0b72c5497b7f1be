//! The example programs do what they say.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;

use nexus_net::{LoopGroup, WorkerPool};

use crate::support::*;

#[allow(dead_code)] // `main`
#[path = "../../examples/broadcast.rs"]
mod broadcast;
#[allow(dead_code)] // `main`
#[path = "../../examples/discard.rs"]
mod discard;
#[allow(dead_code)] // `main`
#[path = "../../examples/echo.rs"]
mod echo;
#[allow(dead_code)] // `main`
#[path = "../../examples/file_transfer.rs"]
mod file_transfer;
#[allow(dead_code)] // `main`
#[path = "../../examples/idle_connections.rs"]
mod idle_connections;
#[allow(dead_code)] // `main`
#[path = "../../examples/ping_pong.rs"]
mod ping_pong;

#[test]
fn echo_echoes() {
    let loops = LoopGroup::start("echo", 1).unwrap();
    let server = echo::start(&loops, local()).unwrap();
    assert_echoes(&mut connect(server.local_addr()), b"hello");
}

#[test]
fn discard_counts_and_answers_a_half_closed_peer() {
    let loops = LoopGroup::start("discard", 1).unwrap();
    let server = discard::start(&loops, local()).unwrap();
    let mut stream = connect(server.local_addr());
    stream.write_all(&pattern(0, 100_000)).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&stream), b"100000 bytes\n");
}

#[test]
fn broadcast_sends_each_line_to_everybody() {
    let loops = LoopGroup::start("broadcast", 2).unwrap();
    let server = broadcast::start(&loops, local()).unwrap();
    let mut members: Vec<_> = (0..3)
        .map(|id| {
            let mut member = BufReader::new(connect(server.local_addr()));
            let mut line = String::new();
            member.read_line(&mut line).unwrap();
            assert_eq!(line, format!("you are {id}\n"));
            member
        })
        .collect();
    members[1].get_mut().write_all(b"good ").unwrap();
    members[1].get_mut().write_all(b"morning\n").unwrap();
    for member in &mut members {
        let mut line = String::new();
        member.read_line(&mut line).unwrap();
        assert_eq!(line, "1: good morning\n");
    }
}

#[test]
fn ping_pong_keeps_every_block_bouncing() {
    const BLOCK_BYTES: usize = 20_000;
    let servers = LoopGroup::start("server", 1).unwrap();
    let clients = LoopGroup::start("client", 1).unwrap();
    let (server, bytes) = ping_pong::start(&servers, &clients, 3, BLOCK_BYTES).unwrap();
    wait_for("the sessions", || server.connections() == 3);
    let enough = 300 * BLOCK_BYTES as u64;
    wait_for("the blocks", || bytes.load(Ordering::Relaxed) > enough);
}

#[test]
fn idle_connections_closes_the_silent_and_reports_the_rest() {
    let loops = LoopGroup::start("idle", 2).unwrap();
    let server = idle_connections::start(&loops, local(), Duration::from_secs(1)).unwrap();
    let (sender, reports) = mpsc::channel();
    let say = move |open| {
        let _ = sender.send(open);
    };
    idle_connections::report(&loops, Duration::from_millis(20), say).unwrap();
    let wait_for_report = |wanted| while reports.recv_timeout(DEADLINE).unwrap() != wanted {};
    wait_for_report(0);
    let silent: Vec<_> = (0..3).map(|_| connect(address(&server))).collect();
    wait_for_report(3);
    for stream in silent {
        assert!(read_to_end(&stream).is_empty());
    }
    wait_for_report(0);
}

fn transfer(file: std::fs::File) -> (LoopGroup, Arc<WorkerPool>, nexus_net::TcpServer) {
    let pool = Arc::new(WorkerPool::start("reader", 2, 2).unwrap());
    let loops = LoopGroup::start("transfer", 1).unwrap();
    let server = file_transfer::start(&loops, local(), Arc::new(file), pool.clone()).unwrap();
    (loops, pool, server)
}

#[test]
fn file_transfer_sends_all_of_the_file_to_everybody() {
    // Neither a whole number of pieces nor, for so many peers, of places in the pool's queue.
    let content = pattern(0, 10 * file_transfer::PIECE_BYTES + 1);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&content).unwrap();
    let (_loops, _pool, server) = transfer(file);
    let peers: Vec<_> = (0..8).map(|_| connect(address(&server))).collect();
    peers[0].shutdown(Shutdown::Write).unwrap();
    for peer in peers {
        assert!(read_to_end(&peer) == content);
    }
}

#[test]
fn file_transfer_reads_no_further_ahead_than_a_piece() {
    const TOTAL: u64 = 64 << 20;
    let file = tempfile::tempfile().unwrap();
    file.set_len(TOTAL).unwrap();
    let (loops, pool, server) = transfer(file);
    let mut peer = connect(address(&server));
    let piece = file_transfer::PIECE_BYTES as u64;
    let written = || loops.handles()[0].metrics().bytes_written();
    let assert_bounded = || {
        // In this order: what is written meanwhile only helps.
        let read = pool.metrics().completed() * piece;
        assert!(read <= written() + piece, "{read} read");
    };
    for _ in 0..TOTAL / piece {
        peer.read_exact(&mut vec![0; piece as usize]).unwrap();
        assert_bounded();
    }
    assert_eq!(peer.read(&mut [0]).unwrap(), 0);
    assert_eq!(written(), TOTAL);
}
