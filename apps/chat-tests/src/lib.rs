//! Tests of the whole chat. `tests/embedded.rs` and `tests/cluster.rs` run the same [`suite`], on
//! the chat in one process and on real servers.
//!
//! The suite speaks the protocol as it is written down, over plain sockets, and not through the client
//! library: what it checks is what any client may rely on.

pub mod suite;
mod wire;

pub use wire::WireClient;

use std::net::SocketAddr;

/// A running chat.
#[derive(Debug, Clone)]
pub struct System {
    /// Where one half of the users connect.
    pub left: SocketAddr,
    /// Where the other half connect: another proxy, where there is one.
    pub right: SocketAddr,
}
