//! Each line goes to everybody: `cargo run -p nexus-net --example broadcast -- 127.0.0.1:7010`.
//!
//! The members are on several loops; their handles may be kept anywhere, and sending through one
//! posts to its loop. A member that reads too slowly is cut off by its output limit.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use nexus_net::{
    Address, CloseReason, ConnHandle, Connection, ConnectionOptions, Error, Handler, LoopContext,
    LoopGroup, ServerOptions, TcpServer,
};

const LINE_BYTES_MAX: usize = 4096;

#[derive(Default)]
struct Room {
    next: AtomicU64,
    members: Mutex<HashMap<u64, ConnHandle>>,
}

impl Room {
    fn members<R>(&self, act: impl FnOnce(&mut HashMap<u64, ConnHandle>) -> R) -> R {
        act(&mut self.members.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn say(&self, line: &Bytes) {
        self.members(|members| {
            for conn in members.values() {
                // A member that has just gone is a harmless miss.
                let _ = conn.send(line.clone());
            }
        });
    }
}

struct Member {
    id: u64,
    room: Arc<Room>,
}

impl Handler for Member {
    fn opened(&mut self, conn: &mut Connection<'_>) {
        let handle = conn.handle();
        self.room.members(|members| members.insert(self.id, handle));
        conn.write(format!("you are {}\n", self.id).as_bytes());
    }

    fn data(&mut self, _conn: &mut Connection<'_>, input: &mut BytesMut) {
        while let Some(end) = input.iter().position(|&byte| byte == b'\n') {
            let mut line = BytesMut::from(format!("{}: ", self.id).as_bytes());
            line.extend_from_slice(&input.split_to(end + 1));
            self.room.say(&line.freeze());
        }
    }

    fn closed(&mut self, _context: &mut LoopContext<'_>, _reason: CloseReason) {
        self.room.members(|members| members.remove(&self.id));
    }
}

/// Starts the server.
pub(crate) fn start(loops: &LoopGroup, address: impl Into<Address>) -> Result<TcpServer, Error> {
    let room = Arc::new(Room::default());
    let options = ServerOptions {
        connection: ConnectionOptions {
            input_bytes_max: LINE_BYTES_MAX,
            ..ConnectionOptions::default()
        },
        ..ServerOptions::default()
    };
    TcpServer::start(loops, address, options, move |_| {
        Box::new(Member {
            id: room.next.fetch_add(1, Ordering::Relaxed),
            room: Arc::clone(&room),
        })
    })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:7010".to_owned());
    let loops = LoopGroup::start("broadcast", 2)?;
    let server = start(&loops, address.parse::<Address>()?)?;
    println!("broadcast listens on {}", server.local_addr());
    loop {
        std::thread::park();
    }
}
