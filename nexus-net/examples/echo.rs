//! Sends back what it gets: `cargo run -p nexus-net --example echo -- 127.0.0.1:7007`.
//!
//! A peer that does not read its echo is not read either: above the high water mark the library
//! stops reading by itself.

use bytes::BytesMut;
use nexus_net::{Address, Connection, Error, Handler, LoopGroup, ServerOptions, TcpServer};

struct Echo;

impl Handler for Echo {
    fn data(&mut self, conn: &mut Connection<'_>, input: &mut BytesMut) {
        conn.send(input.split().freeze());
    }
}

/// Starts the server.
pub(crate) fn start(loops: &LoopGroup, address: impl Into<Address>) -> Result<TcpServer, Error> {
    TcpServer::start(loops, address, ServerOptions::default(), |_| Box::new(Echo))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:7007".to_owned());
    let loops = LoopGroup::start("echo", 2)?;
    let server = start(&loops, address.parse::<Address>()?)?;
    println!("echo listens on {}", server.local_addr());
    loop {
        std::thread::park();
    }
}
