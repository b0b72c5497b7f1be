//! Closes who says nothing for 10 seconds and echoes the others, and says every 5 seconds how many
//! are open: `cargo run -p nexus-net --example idle_connections -- 127.0.0.1:7011`.
//!
//! Watching for idleness is an option of the server; the handler knows nothing of it. The report
//! is a timer of a loop: one that starts itself again.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use nexus_net::{
    CloseReason, Connection, ConnectionOptions, Error, Handler, LoopContext, LoopGroup, LoopHandle,
    ServerOptions, TcpServer,
};

struct Echo;

impl Handler for Echo {
    fn data(&mut self, conn: &mut Connection<'_>, input: &mut BytesMut) {
        conn.send(input.split().freeze());
    }

    fn closed(&mut self, _context: &mut LoopContext<'_>, reason: CloseReason) {
        println!("one less: {reason}");
    }
}

/// Starts the server.
pub(crate) fn start(
    loops: &LoopGroup,
    address: SocketAddr,
    idle: Duration,
) -> Result<TcpServer, Error> {
    let options = ServerOptions {
        connection: ConnectionOptions {
            idle_timeout: Some(idle),
            ..ConnectionOptions::default()
        },
        ..ServerOptions::default()
    };
    TcpServer::start(loops, address, options, |_| Box::new(Echo))
}

/// Tells `say`, now and then, how many connections the loops have, until the loops stop.
pub(crate) fn report(
    loops: &LoopGroup,
    every: Duration,
    say: impl FnMut(usize) + Send + 'static,
) -> Result<(), Error> {
    let counted = loops.handles().to_vec();
    loops
        .next()
        .post(move |context| report_again(context, counted, every, say))
        .map_err(|_| Error::LoopGone)
}

fn report_again(
    context: &mut LoopContext<'_>,
    counted: Vec<LoopHandle>,
    every: Duration,
    mut say: impl FnMut(usize) + 'static,
) {
    // Any thread may read a loop's counters, so the loops need not be asked.
    say(counted.iter().map(|one| one.metrics().connections()).sum());
    context.after(every, move |context| {
        report_again(context, counted, every, say)
    });
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:7011".to_owned());
    let loops = LoopGroup::start("idle", 2)?;
    let server = start(&loops, address.parse()?, Duration::from_secs(10))?;
    report(&loops, Duration::from_secs(5), |open| {
        println!("{open} open")
    })?;
    println!("idle_connections listens on {}", server.local_addr());
    loop {
        std::thread::park();
    }
}
