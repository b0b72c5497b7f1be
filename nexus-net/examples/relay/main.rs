//! A SOCKS4 relay: `cargo run -p nexus-net --example relay -- 127.0.0.1:7013`, then
//! `curl --proxy socks4://127.0.0.1:7013 http://1.1.1.1/`.
//!
//! `socks` knows what a request looks like, `side` how two connections become a pair, `relaying`
//! what happens to their bytes.

mod relaying;
mod side;
mod socks;

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus_net::{ConnectionOptions, Error, LoopGroup, ServerOptions, TcpServer};

use side::Side;

/// Starts the relay. A pair of connections on which nothing moves for `idle` is cut off.
pub(crate) fn start(
    loops: &LoopGroup,
    address: SocketAddr,
    idle: Duration,
) -> Result<TcpServer, Error> {
    let connection = ConnectionOptions {
        // When one side has ended the other has as long for its rest.
        close_timeout: idle,
        ..ConnectionOptions::default()
    };
    let options = ServerOptions {
        connection: connection.clone(),
        ..ServerOptions::default()
    };
    let shared = Arc::new(connection);
    TcpServer::start(loops, address, options, move |_| {
        Box::new(Side {
            other: None,
            early: None,
            moved: Rc::new(Cell::new(Instant::now())),
            options: Arc::clone(&shared),
        })
    })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:7013".to_owned());
    let loops = LoopGroup::start("relay", 2)?;
    let server = start(&loops, address.parse()?, Duration::from_secs(300))?;
    println!("relay listens on {}", server.local_addr());
    loop {
        std::thread::park();
    }
}
