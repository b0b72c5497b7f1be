//! Tests of the whole chat. `tests/embedded.rs` and `tests/cluster.rs` run the same [`suite`], on
//! the chat in one process and on real servers.
//!
//! The suite speaks the protocol as it is written down, over plain sockets, and not through the client
//! library: what it checks is what any client may rely on.

mod entrance;
pub mod hostile;
pub mod suite;
mod wire;

pub use entrance::Entrance;
pub use wire::WireClient;

/// A running chat.
#[derive(Debug, Clone)]
pub struct System {
    /// Where one half of the users connect.
    pub left: Entrance,
    /// Where the other half connect: another proxy, where there is one.
    pub right: Entrance,
}
