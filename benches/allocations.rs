//! Allocations of the nexus-net echo server per message, once it has warmed up.
//!
//! A test of its own, since it replaces the allocator. The client below allocates nothing while it
//! is counted, so all that is counted is the server's.

use std::alloc::System;
use std::io::{Read, Write};
use std::net::TcpStream;

use nexus_benches::{EchoServer, Runtime};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const CONNECTIONS: usize = 100;
const WARM_UP_ROUNDS: usize = 20;
const ROUNDS: usize = 100;
/// Not quite none: a table of the loop may still find its size.
const ALLOCATIONS_PER_MESSAGE_MAX: f64 = 0.01;

#[test]
fn the_echo_path_does_not_allocate_per_message() {
    let address = "127.0.0.1:0".parse().expect("an address");
    let server = EchoServer::start(Runtime::Nexus, address, 1, None).expect("a server");
    let mut clients: Vec<TcpStream> = (0..CONNECTIONS)
        .map(|_| TcpStream::connect(server.address()).expect("a connection"))
        .collect();
    for size in [64, 16 << 10] {
        let mut buffer = vec![b'x'; size];
        for _ in 0..WARM_UP_ROUNDS {
            echo_round(&mut clients, &mut buffer);
        }
        let region = Region::new(ALLOCATOR);
        for _ in 0..ROUNDS {
            echo_round(&mut clients, &mut buffer);
        }
        let counted = region.change();
        let per_message =
            (counted.allocations + counted.reallocations) as f64 / (ROUNDS * CONNECTIONS) as f64;
        println!("{size} B: {per_message:.4} allocations per message ({counted:?})");
        assert!(
            per_message <= ALLOCATIONS_PER_MESSAGE_MAX,
            "{size} B: {per_message:.4} allocations per message"
        );
    }
}

/// One message on each connection at a time, so that the server finds many of them ready at once.
fn echo_round(clients: &mut [TcpStream], buffer: &mut [u8]) {
    for client in &mut *clients {
        client.write_all(buffer).expect("write");
    }
    for client in clients {
        client.read_exact(buffer).expect("an echo");
    }
}
