//! The example programs do what they say.

use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;

use nexus_net::LoopGroup;

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
