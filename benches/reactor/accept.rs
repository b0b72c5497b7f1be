//! Connections accepted per second, each used for one byte: what a client of short connections sees.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use nexus_benches::{EchoServer, Runtime};
use socket2::{Domain, Socket, Type};

use crate::pingpong::any_port;

/// Opened at a time, within the backlog of both servers.
const CONNECTIONS: usize = 200;

/// Opens connections, has one byte echoed on each, closes them.
pub(crate) fn rate(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("200 connections made, used once and closed");
    group.throughput(Throughput::Elements(CONNECTIONS as u64));
    for runtime in Runtime::ALL {
        let server = EchoServer::start(runtime, any_port(), 1, None).expect("a server");
        group.bench_function(runtime.name(), |bencher| {
            bencher.iter(|| open_and_use(server.address()));
        });
    }
    group.finish();
}

fn open_and_use(address: SocketAddr) {
    let mut sockets: Vec<Socket> = (0..CONNECTIONS).map(|_| open(address)).collect();
    for socket in &mut sockets {
        socket.write_all(b"x").expect("write");
    }
    for socket in &mut sockets {
        socket.read_exact(&mut [0]).expect("an echo");
    }
}

fn open(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    // Closed by a reset: ports in TIME_WAIT would run out within the bench.
    socket.set_linger(Some(Duration::ZERO)).expect("linger");
    socket.connect(&address.into()).expect("a connection");
    socket
}
