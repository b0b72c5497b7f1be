//! The descriptor that a listener keeps in reserve, to turn peers away with.

use std::fs::File;
use std::net::TcpStream;
use std::os::fd::AsRawFd;

use nexus_net::ConnectionOptions;

use crate::child::{alone, limit_descriptors};
use crate::support::*;

const PEERS: usize = 10;

#[test]
fn a_lost_reserve_is_taken_back_before_a_connection_gets_its_descriptor() {
    let test = "reserve::a_lost_reserve_is_taken_back_before_a_connection_gets_its_descriptor";
    alone(test, || {
        let served = serve(ConnectionOptions::default(), echo);
        let blocked = block(served.loop_handle());
        let peers: Vec<TcpStream> = (0..PEERS).map(|_| served.connect()).collect();
        let fillers = fill_gaps();
        let in_use = fillers.last().expect("one at least").as_raw_fd() as u64 + 1;

        // No accept succeeds, and what the listener gives up in order to turn a peer away is lost.
        limit_descriptors(1);
        blocked.release();
        let metrics = served.loop_handle().metrics();
        wait_for("the listener to be without its reserve", || {
            metrics.timers() == 1
        });

        // One is free: as a connection's it would leave all other peers hanging.
        limit_descriptors(in_use);
        peers.iter().for_each(wait_until_gone);
        assert!(served.events.rest().is_empty(), "a peer was served");

        limit_descriptors(in_use + 100);
        assert_echoes(&mut served.connect(), b"room");
    });
}

/// Takes descriptors until none is free below the last one taken.
fn fill_gaps() -> Vec<File> {
    let entries = std::fs::read_dir("/proc/self/fd").expect("procfs");
    let numbers = entries.map(|entry| entry.expect("an entry").file_name());
    let highest: i32 = numbers
        .map(|name| name.to_string_lossy().parse().expect("a number"))
        .max()
        .expect("some descriptors");
    let mut fillers = Vec::new();
    // The system gives out the lowest that is free.
    while fillers
        .last()
        .is_none_or(|last: &File| last.as_raw_fd() <= highest)
    {
        fillers.push(File::open("/dev/null").expect("a descriptor"));
    }
    fillers
}
