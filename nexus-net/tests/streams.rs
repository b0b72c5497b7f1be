//! A stream arrives intact, however it is cut into writes and whatever a handler leaves for later.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use bytes::BytesMut;
use nexus_net::{Connection, ConnectionOptions, Handler, LoopGroup, ServerOptions, TcpServer};
use proptest::prelude::*;

/// Reached only by a failing test.
const DEADLINE: Duration = Duration::from_secs(60);

/// Sends back what it consumes, and of each input leaves as much as comes next in `leaves`. At the
/// peer's end it sends the rest.
struct Echo {
    leaves: std::iter::Cycle<std::vec::IntoIter<usize>>,
    left: Vec<u8>,
}

impl Handler for Echo {
    fn data(&mut self, conn: &mut Connection<'_>, input: &mut BytesMut) {
        let leave = self.leaves.next().unwrap_or(0).min(input.len());
        let consumed = input.split_to(input.len() - leave);
        self.left.clear();
        self.left.extend_from_slice(input);
        if consumed.len().is_multiple_of(2) {
            conn.write(&consumed);
        } else {
            conn.send(consumed.freeze());
        }
    }

    fn eof(&mut self, conn: &mut Connection<'_>) {
        conn.write(&self.left);
        conn.close();
    }
}

fn serve(loops: &LoopGroup, options: &ConnectionOptions, leaves: Vec<usize>) -> TcpServer {
    let address: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    let options = ServerOptions {
        connection: options.clone(),
        ..ServerOptions::default()
    };
    TcpServer::start(loops, address, options, move |_| {
        Box::new(Echo {
            leaves: leaves.clone().into_iter().cycle(),
            left: Vec::new(),
        })
    })
    .expect("a server")
}

fn connect(server: &TcpServer) -> TcpStream {
    let stream =
        TcpStream::connect(server.local_addr().as_tcp().expect("TCP")).expect("a connection");
    stream.set_nodelay(true).expect("nodelay");
    stream.set_read_timeout(Some(DEADLINE)).expect("a time-out");
    stream
        .set_write_timeout(Some(DEADLINE))
        .expect("a time-out");
    stream
}

/// Writes the pieces one after the other, reads everything that comes back.
fn exchange(stream: &TcpStream, pieces: &[Vec<u8>]) -> Vec<u8> {
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut stream = stream;
            for piece in pieces {
                stream.write_all(piece).expect("written");
            }
            stream.shutdown(Shutdown::Write).expect("an end");
        });
        let (mut stream, mut all) = (stream, Vec::new());
        stream.read_to_end(&mut all).expect("an orderly end");
        all
    })
}

/// Mostly small, so that many reads see a part of one, and some that fill socket buffers.
fn size() -> impl Strategy<Value = usize> {
    prop_oneof![8 => 1..50_usize, 4 => 1000..1050_usize, 1 => 1..200_000_usize]
}

/// Nothing, the begin of a frame, or one that is gathered from many reads.
fn rest() -> impl Strategy<Value = usize> {
    prop_oneof![Just(0), 1..3000_usize, 1..300_000_usize]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn any_cut_and_any_rest_arrive_intact_and_in_order(
        sizes in proptest::collection::vec(size(), 1..40),
        leaves in proptest::collection::vec(rest(), 1..8),
        read_bytes_per_turn in 1..100_000_usize,
        output_high_bytes in 1..100_000_usize,
    ) {
        let options = ConnectionOptions {
            read_bytes_per_turn,
            output_high_bytes,
            output_low_bytes: output_high_bytes / 2,
            ..ConnectionOptions::default()
        };
        let mut place = 0;
        let pieces: Vec<Vec<u8>> = sizes
            .into_iter()
            .map(|count| {
                let begin = place;
                place += count;
                (begin..place).map(|place| (place % 251) as u8).collect()
            })
            .collect();
        let loops = LoopGroup::start("streams", 1).expect("a loop");
        let server = serve(&loops, &options, leaves);
        // Three at a time: their reads share the loop's buffer.
        let streams: Vec<TcpStream> = (0..3).map(|_| connect(&server)).collect();
        let arrived: Vec<Vec<u8>> = std::thread::scope(|scope| {
            let exchanges: Vec<_> = streams
                .iter()
                .map(|stream| scope.spawn(|| exchange(stream, &pieces)))
                .collect();
            let all = exchanges.into_iter().map(|one| one.join().expect("an exchange"));
            all.collect()
        });
        let sent = pieces.concat();
        for all in arrived {
            prop_assert_eq!(all.len(), sent.len());
            prop_assert!(all == sent);
        }
    }
}
