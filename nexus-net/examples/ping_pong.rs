//! Blocks that bounce: `cargo run --release -p nexus-net --example ping_pong -- 100 16384 5` has
//! 100 sessions, each with one block of 16 KiB on its way, for 5 seconds.
//!
//! Both ends send back what they get, so a session goes on until its loop stops. The clients have a
//! loop of their own: client and server share the machine here, but not a thread.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use nexus_net::{
    ConnHandle, Connection, ConnectionOptions, Error, Handler, LoopGroup, ServerOptions, TcpServer,
};

struct Server;

impl Handler for Server {
    fn data(&mut self, conn: &mut Connection<'_>, input: &mut BytesMut) {
        conn.send(input.split().freeze());
    }
}

struct Client {
    block: Bytes,
    bytes: Arc<AtomicU64>,
}

impl Handler for Client {
    fn opened(&mut self, conn: &mut Connection<'_>) {
        conn.send(self.block.clone());
    }

    fn data(&mut self, conn: &mut Connection<'_>, input: &mut BytesMut) {
        self.bytes.fetch_add(input.len() as u64, Ordering::Relaxed);
        conn.send(input.split().freeze());
    }
}

/// Starts a server and its clients. Returns the server and the count of bytes that came back.
pub(crate) fn start(
    servers: &LoopGroup,
    clients: &LoopGroup,
    sessions: usize,
    block_bytes: usize,
) -> Result<(TcpServer, Arc<AtomicU64>), Error> {
    let options = ServerOptions::default();
    let server = TcpServer::start(servers, (Ipv4Addr::LOCALHOST, 0), options, |_| {
        Box::new(Server)
    })?;
    let address = server.local_addr();
    let options = Arc::new(ConnectionOptions::default());
    let block = Bytes::from(vec![b'x'; block_bytes]);
    let bytes = Arc::new(AtomicU64::new(0));
    for _ in 0..sessions {
        let (address, options) = (address.clone(), options.clone());
        let (block, bytes) = (block.clone(), bytes.clone());
        let client =
            move |_: &ConnHandle| -> Box<dyn Handler> { Box::new(Client { block, bytes }) };
        let connect = clients.next().post(move |context| {
            if let Err(error) = context.connect(address, options, client) {
                eprintln!("cannot connect: {error}");
            }
        });
        connect.map_err(|_| Error::LoopGone)?;
    }
    Ok((server, bytes))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let argument = |n, default: usize| std::env::args().nth(n).map_or(Ok(default), |a| a.parse());
    let (sessions, block_bytes, seconds) =
        (argument(1, 100)?, argument(2, 16 << 10)?, argument(3, 5)?);
    let servers = LoopGroup::start("server", 1)?;
    let clients = LoopGroup::start("client", 1)?;
    let started = Instant::now();
    let (_server, bytes) = start(&servers, &clients, sessions, block_bytes)?;
    std::thread::sleep(Duration::from_secs(seconds as u64));
    let mebibytes = bytes.load(Ordering::Relaxed) as f64 / f64::from(1 << 20);
    let rate = mebibytes / started.elapsed().as_secs_f64();
    println!("{sessions} sessions, blocks of {block_bytes} B: {rate:.1} MiB/s");
    Ok(())
}
