//! A listener per loop.

use std::net::TcpStream;

use nexus_net::{ConnectionOptions, Placement, ServerOptions};

use crate::support::*;

const LOOPS: usize = 2;

fn serve_per_loop(connections_max: usize) -> Served {
    let options = ServerOptions {
        placement: Placement::PerLoop,
        connection: ConnectionOptions::default(),
        connections_max,
        ..ServerOptions::default()
    };
    serve_with(LOOPS, options, echo)
}

/// Connects until each loop has a connection. The kernel places by a hash of the addresses, so how
/// many that takes is chance: a hundred on one side have a probability of 2^-99.
fn one_on_each(served: &Served) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    let all_used = || {
        let handles = served.loops.handles();
        handles
            .iter()
            .all(|handle| handle.metrics().connections() > 0)
    };
    while !all_used() {
        assert!(streams.len() < 100, "all connections are on one loop");
        let mut stream = served.connect();
        assert_echoes(&mut stream, b"hello");
        streams.push(stream);
    }
    streams
}

#[test]
fn each_loop_accepts_its_own() {
    let served = serve_per_loop(1_000);
    let mut streams = one_on_each(&served);
    for stream in &mut streams {
        assert_echoes(stream, b"again");
    }
    let on_loops: u64 = (served.loops.handles().iter())
        .map(|handle| handle.metrics().connections_total())
        .sum();
    assert_eq!(on_loops, streams.len() as u64);
}

#[test]
fn a_drain_closes_every_listener_and_frees_the_port() {
    let served = serve_per_loop(1_000);
    let streams = one_on_each(&served);
    let address = served.address();
    let report = served.server.drain(DEADLINE);
    assert_eq!(report.open_at_start, streams.len());
    assert_eq!(report.aborted, 0);
    for stream in &streams {
        wait_until_gone(stream);
    }
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn the_limit_of_connections_holds_over_all_loops() {
    let served = serve_per_loop(3);
    let mut kept: Vec<_> = (0..3)
        .map(|_| {
            let mut stream = served.connect();
            assert_echoes(&mut stream, b"in");
            stream
        })
        .collect();
    for _ in 0..20 {
        wait_until_gone(&served.connect());
    }
    assert_eq!(served.server.connections(), 3);
    for stream in &mut kept {
        assert_echoes(stream, b"still in");
    }
}
