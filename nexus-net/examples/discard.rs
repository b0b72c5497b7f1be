//! Reads and forgets, and says how much: `cargo run -p nexus-net --example discard -- 127.0.0.1:7009`.
//!
//! When the peer has shut down its side it is told the number of bytes, which shows half-close: the
//! answer still gets through.

use bytes::BytesMut;
use nexus_net::{
    Address, CloseReason, Connection, Error, Handler, LoopContext, LoopGroup, ServerOptions,
    TcpServer,
};

struct Discard {
    peer: Address,
    bytes: u64,
}

impl Handler for Discard {
    fn data(&mut self, _conn: &mut Connection<'_>, input: &mut BytesMut) {
        self.bytes += input.len() as u64;
        input.clear();
    }

    fn eof(&mut self, conn: &mut Connection<'_>) {
        conn.write(format!("{} bytes\n", self.bytes).as_bytes());
        conn.close();
    }

    fn closed(&mut self, _context: &mut LoopContext<'_>, reason: CloseReason) {
        println!("{}: {} bytes, {reason}", self.peer, self.bytes);
    }
}

/// Starts the server.
pub(crate) fn start(loops: &LoopGroup, address: impl Into<Address>) -> Result<TcpServer, Error> {
    TcpServer::start(loops, address, ServerOptions::default(), |accepted| {
        Box::new(Discard {
            peer: accepted.peer,
            bytes: 0,
        })
    })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:7009".to_owned());
    let loops = LoopGroup::start("discard", 2)?;
    let server = start(&loops, address.parse::<Address>()?)?;
    println!("discard listens on {}", server.local_addr());
    loop {
        std::thread::park();
    }
}
