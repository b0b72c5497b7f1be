//! Whether a ZooKeeper server answers, asked before a session is begun with it.
//!
//! The `zookeeper` crate panics or spins when its first connect fails, and a session with a server
//! that accepts and then says nothing cannot even be closed. One line over a plain socket keeps all of
//! that from happening: the server is asked `srvr`, the one such command that ZooKeeper allows by
//! default. A server that forbids it says so, which is an answer too.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use rand::seq::SliceRandom;

const REQUEST: &[u8] = b"srvr";

/// What a server says that runs but has no quorum, and so keeps no sessions; and what one says that
/// serves readers all the same (`readonlymode.enabled`), but no session that may write.
const NOT_SERVING: [(&[u8], &str); 2] = [
    (
        b"not currently serving",
        "the server does not serve, as it has no quorum",
    ),
    (
        b"Mode: read-only",
        "the server is read-only, as it has no quorum",
    ),
];

/// Enough of an answer to know which it is.
const ANSWER_BYTES_MAX: u64 = 4096;

/// The first server that answers, asked in random order, so that clients spread over an ensemble.
/// Takes no longer than `timeout`, of which each server has its share; but a name's lookup takes
/// as long as the system lets it.
///
/// # Errors
/// What each of them failed with.
pub(super) fn find_server(servers: &[String], timeout: Duration) -> io::Result<SocketAddr> {
    let mut servers: Vec<&String> = servers.iter().collect();
    servers.shuffle(&mut rand::rng());
    let timeout = timeout / u32::try_from(servers.len()).unwrap_or(u32::MAX).max(1);
    let mut failures = Vec::new();
    for server in servers {
        match probe(server, timeout) {
            Ok(address) => return Ok(address),
            Err(error) => failures.push(format!("{server}: {error}")),
        }
    }
    failures.sort();
    Err(io::Error::other(failures.join("; ")))
}

fn probe(server: &str, timeout: Duration) -> io::Result<SocketAddr> {
    let mut last_error = io::Error::new(io::ErrorKind::NotFound, "no address");
    for address in server.to_socket_addrs()? {
        match ask(address, timeout) {
            Ok(()) => return Ok(address),
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

fn ask(address: SocketAddr, timeout: Duration) -> io::Result<()> {
    let deadline = Instant::now() + timeout;
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_write_timeout(Some(timeout))?;
    stream.write_all(REQUEST)?;
    let mut answer = Vec::new();
    let mut piece = [0; 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let count = stream.read(&mut piece)?;
        answer.extend_from_slice(piece.get(..count).unwrap_or_default());
        if count == 0 || answer.len() as u64 >= ANSWER_BYTES_MAX {
            break;
        }
    }
    if answer.is_empty() {
        return Err(io::Error::other("the server does not serve"));
    }
    for (words, why) in NOT_SERVING {
        if answer.windows(words.len()).any(|part| part == words) {
            return Err(io::Error::other(why));
        }
    }
    Ok(())
}
