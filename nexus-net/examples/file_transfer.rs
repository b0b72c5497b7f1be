//! Sends a file to whoever connects: `cargo run -p nexus-net --example file_transfer -- FILE`,
//! then `nc 127.0.0.1 7012`. Reading a file may block, so workers do it, and a piece comes back
//! through the connection's mailbox. The next is read when the kernel has taken the last: a peer
//! costs one piece of memory, however large the file is and however slowly the peer reads.

use std::{fs::File, io, net::SocketAddr, os::unix::fs::FileExt, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use nexus_net::{Connection, Handler, LoopGroup, Mailbox, ServerOptions, TcpServer, WorkerPool};

pub(crate) const PIECE_BYTES: usize = 256 << 10;

struct Transfer {
    file: Arc<File>,
    offset: u64,
    pool: Arc<WorkerPool>,
    pieces: Arc<Mailbox<io::Result<Bytes>>>,
}

impl Transfer {
    /// Tries again later when the pool is busy with other peers' pieces.
    fn read_next(&self, conn: &mut Connection<'_>) {
        let (file, offset, pieces) = (self.file.clone(), self.offset, self.pieces.clone());
        let queued = self.pool.execute(move || {
            let mut piece = vec![0; PIECE_BYTES];
            let read = file.read_at(&mut piece, offset);
            let _ = pieces.send(read.map(|count| Bytes::from(piece).slice(..count)));
        });
        if queued.is_err() {
            conn.set_timer(Duration::from_millis(10), 0);
        }
    }
}

impl Handler for Transfer {
    fn opened(&mut self, conn: &mut Connection<'_>) {
        self.read_next(conn);
    }

    fn data(&mut self, _conn: &mut Connection<'_>, input: &mut BytesMut) {
        input.clear();
    }

    /// A peer that has nothing to say still wants its file.
    fn eof(&mut self, _conn: &mut Connection<'_>) {}

    fn woken(&mut self, conn: &mut Connection<'_>) {
        let mut pieces = Vec::new();
        self.pieces.take(&mut pieces);
        for piece in pieces {
            match piece {
                Ok(piece) if piece.is_empty() => conn.close(),
                Ok(piece) => {
                    self.offset += piece.len() as u64;
                    conn.send(piece);
                    conn.notify_drained();
                }
                Err(_) => conn.abort(), // `close` would look like the end of the file.
            }
        }
    }

    fn drained(&mut self, conn: &mut Connection<'_>) {
        self.read_next(conn);
    }

    fn timer(&mut self, conn: &mut Connection<'_>, _token: u64) {
        self.read_next(conn);
    }
}

/// Starts the server. All transfers read through the one descriptor, each at its own place.
pub(crate) fn start(
    loops: &LoopGroup,
    address: SocketAddr,
    file: Arc<File>,
    pool: Arc<WorkerPool>,
) -> Result<TcpServer, nexus_net::Error> {
    TcpServer::start(loops, address, ServerOptions::default(), move |accepted| {
        Box::new(Transfer {
            file: file.clone(),
            offset: 0,
            pool: pool.clone(),
            pieces: Arc::new(Mailbox::new(accepted.conn)),
        })
    })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("which file?")?;
    let file = Arc::new(File::open(path)?);
    let pool = Arc::new(WorkerPool::start("reader", 2, 1024)?);
    let loops = LoopGroup::start("transfer", 2)?;
    let server = start(&loops, "127.0.0.1:7012".parse()?, file, pool)?;
    println!("file_transfer listens on {}", server.local_addr());
    loop {
        std::thread::park();
    }
}
