//! The relay among the examples: what it passes on, and what it survives.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use nexus_net::{ConnectionOptions, LoopGroup, TcpServer};

use crate::support::*;

#[allow(dead_code)] // `main`
#[path = "../../examples/relay/main.rs"]
mod example;

const GRANTED: [u8; 8] = [0, 90, 0, 0, 0, 0, 0, 0];
const REFUSED: [u8; 8] = [0, 91, 0, 0, 0, 0, 0, 0];

/// More than all socket buffers on the way hold.
const LARGE: usize = 32 << 20;

struct Relay {
    server: TcpServer,
    loops: LoopGroup,
}

fn start(idle: Duration) -> Relay {
    let loops = LoopGroup::start("relay", 1).unwrap();
    let server = example::start(&loops, local(), idle).unwrap();
    Relay { server, loops }
}

fn request(target: SocketAddr) -> Vec<u8> {
    let SocketAddr::V4(target) = target else {
        unreachable!("SOCKS4 knows IPv4 only");
    };
    let mut request = vec![4, 1];
    request.extend(target.port().to_be_bytes());
    request.extend(target.ip().octets());
    request.extend(b"somebody\0");
    request
}

impl Relay {
    fn ask(&self, request: &[u8]) -> (TcpStream, [u8; 8]) {
        let mut stream = connect(address(&self.server));
        stream.write_all(request).unwrap();
        let mut answer = [0; 8];
        stream.read_exact(&mut answer).unwrap();
        (stream, answer)
    }

    fn connect(&self, target: SocketAddr) -> TcpStream {
        let (stream, answer) = self.ask(&request(target));
        assert_eq!(answer, GRANTED);
        stream
    }

    /// Both ends of one relayed connection.
    fn pair(&self) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(local()).unwrap();
        let client = self.connect(listener.local_addr().unwrap());
        let target = listener.accept().unwrap().0;
        target.set_read_timeout(Some(DEADLINE)).unwrap();
        target.set_write_timeout(Some(DEADLINE)).unwrap();
        (client, target)
    }

    fn wait_until_empty(&self) {
        let metrics = self.loops.handles()[0].metrics();
        wait_for("no connections", || metrics.connections() == 0);
        wait_for("no timers", || metrics.timers() == 0);
    }
}

#[test]
fn bytes_and_half_closes_pass_both_ways() {
    let relay = start(DEADLINE);
    let (mut client, mut target) = relay.pair();
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&target), b"question");
    target.write_all(b"answer").unwrap();
    drop(target);
    assert_eq!(read_to_end(&client), b"answer");
    drop(client);
    relay.wait_until_empty();
}

#[test]
fn a_request_in_single_bytes_and_data_glued_to_it_are_both_understood() {
    let relay = start(DEADLINE);
    let served = serve(ConnectionOptions::default(), echo);
    let request = request(address(&served.server));
    let mut slow = connect(address(&relay.server));
    for byte in &request {
        slow.write_all(&[*byte]).unwrap();
    }
    slow.read_exact(&mut [0; 8]).unwrap();
    assert_echoes(&mut slow, b"slow");

    let (mut hasty, answer) = relay.ask(&[&request[..], b"hasty"].concat());
    assert_eq!(answer, GRANTED);
    let mut echo = [0; 5];
    hasty.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"hasty");
}

#[test]
fn what_cannot_be_served_is_refused_in_an_orderly_way() {
    let relay = start(DEADLINE);
    // Bound and not listened on: nobody else can listen there meanwhile.
    let nobody = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    nobody.bind(&local().into()).unwrap();
    let closed_port = nobody.local_addr().unwrap().as_socket().unwrap();
    let name = [4, 1, 0, 80, 0, 0, 0, 1, 0, b'x', 0];
    let socks5 = [5, 1, 0];
    let bind = [4, 2, 0, 80, 127, 0, 0, 1, 0];
    let endless = [&[4, 1, 0, 80, 127, 0, 0, 1][..], &[b'u'; 256]].concat();
    for bad in [&request(closed_port)[..], &name, &socks5, &bind, &endless] {
        let (stream, answer) = relay.ask(bad);
        assert_eq!(answer, REFUSED, "{bad:?}");
        assert!(read_to_end(&stream).is_empty());
    }
    relay.wait_until_empty();
}

#[test]
fn a_side_that_does_not_read_slows_the_other_down_and_loses_nothing() {
    let relay = start(DEADLINE);
    for upwards in [true, false] {
        let (client, target) = relay.pair();
        let (from, to) = if upwards {
            (&client, &target)
        } else {
            (&target, &client)
        };
        let metrics = relay.loops.handles()[0].metrics();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (&*from).write_all(&pattern(0, LARGE)).unwrap();
                from.shutdown(Shutdown::Write).unwrap();
            });
            let mut piece = vec![0; 1 << 20];
            for at in (0..LARGE).step_by(piece.len()) {
                // In this order: what is written meanwhile only helps.
                let read = metrics.bytes_read();
                assert!(read <= metrics.bytes_written() + (1 << 20));
                (&*to).read_exact(&mut piece).unwrap();
                assert!(piece == pattern(at, piece.len()), "the piece at {at}");
            }
            assert_eq!((&*to).read(&mut piece).unwrap(), 0);
        });
    }
}

#[test]
fn the_directions_do_not_wait_for_each_other() {
    // The target takes more only when its answers, twice as long, have been taken.
    const STEP: usize = 64 << 10;
    let relay = start(DEADLINE);
    let (client, target) = relay.pair();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut piece = vec![0; STEP];
            for _ in 0..LARGE / STEP {
                (&target).read_exact(&mut piece).unwrap();
                (&target).write_all(&piece).unwrap();
                (&target).write_all(&piece).unwrap();
            }
        });
        scope.spawn(|| (&client).write_all(&vec![b'x'; LARGE]).unwrap());
        let mut piece = vec![0; 2 * STEP];
        for _ in 0..LARGE / STEP {
            (&client).read_exact(&mut piece).unwrap();
        }
    });
}

#[test]
fn an_end_or_a_reset_of_one_side_ends_the_other() {
    let relay = start(DEADLINE);
    for (by_target, queued) in [
        (true, "nothing"),
        (true, "from it"),
        (true, "to it"),
        (false, "nothing"),
        (false, "from it"),
        (false, "to it"),
    ] {
        let (client, target) = relay.pair();
        let (mut goes, mut stays) = if by_target {
            (target, client)
        } else {
            (client, target)
        };
        // Never read: it fills every buffer between the two and waits in the relay.
        match queued {
            "from it" => fill(&mut goes),
            "to it" => fill(&mut stays),
            _ => {}
        }
        reset(goes);
        wait_until_gone(&stays);
        drop(stays);
        relay.wait_until_empty();
    }
}

/// Writes until neither the kernel nor the relay takes more at the moment.
fn fill(stream: &mut TcpStream) {
    stream.set_nonblocking(true).unwrap();
    let block = vec![b'x'; 256 << 10];
    while stream.write(&block).is_ok() {}
    stream.set_nonblocking(false).unwrap();
}

#[test]
fn a_pair_that_has_gone_silent_is_cut_off() {
    let relay = start(Duration::from_millis(500));
    // One that said nothing at all, one that was relayed, and one whose target never reads.
    let mute = connect(address(&relay.server));
    let (client, target) = relay.pair();
    let (mut flooding, stuck) = relay.pair();
    fill(&mut flooding);
    wait_until_gone(&mute);
    wait_until_gone(&client);
    wait_until_gone(&target);
    relay.wait_until_empty();
    drop(stuck);
}
