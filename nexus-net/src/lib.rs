//! A multi-reactor library for TCP, Unix sockets and TLS: one event loop per thread over epoll, no
//! async runtime.
//!
//! The model is muduo's: a connection belongs to one [`EventLoop`] for life, and everything that
//! touches it runs on that loop's thread, so the hot path has no lock. What a connection *does* is a
//! [`Handler`], a plain value that lives on the loop and gets the connection lent for each call.
//! Other threads hold handles that queue work for the loop and wake it.
//!
//! ```text
//!   other threads                     a loop's thread
//!   ─────────────                     ────────────────────────────────────────────────
//!   LoopHandle::post ───┐             EventLoop
//!   ConnHandle::send ───┼─► inbox ──►   turn: poll ► io ► tasks ► timers ► flush ► reap
//!   Mailbox::send ──────┘  (eventfd)         │
//!                                            └─► Handler::{opened,data,…}(&mut Connection)
//! ```
//!
//! # Map
//!
//! | you want | look at |
//! |---|---|
//! | threads that run loops | [`LoopGroup`]; [`EventLoop`] for a thread you have |
//! | to serve | [`TcpServer`], with a [`Handler`] per connection |
//! | to connect, and stay connected | [`TcpClient`] |
//! | to connect once, from a handler | [`LoopContext::connect`] |
//! | Unix sockets | an [`Address`] with a path |
//! | TLS | feature `tls`: `ServerTls` and `ClientTls`, in the options |
//! | the client's address behind a proxy | [`ProxyProtocol`] |
//! | to write from a handler | [`Connection`] |
//! | to write, close or wake from another thread | [`ConnHandle`], [`Mailbox`] |
//! | timers | [`Connection::set_timer`], [`LoopContext::after`], [`LoopHandle::post_after`] |
//! | to run what blocks | [`WorkerPool`] |
//! | limits | [`ConnectionOptions`], [`ServerOptions`] |
//! | an orderly end | [`TcpServer::drain`] |
//! | to see how a loop is doing | [`LoopHandle::metrics`] |
//!
//! # A first server
//!
//! ```
//! use bytes::BytesMut;
//! use nexus_net::{Address, Connection, Handler, LoopGroup, ServerOptions, TcpServer};
//!
//! struct Echo;
//!
//! impl Handler for Echo {
//!     fn data(&mut self, conn: &mut Connection<'_>, input: &mut BytesMut) {
//!         conn.write(input);
//!         input.clear();
//!     }
//! }
//!
//! # fn main() -> Result<(), nexus_net::Error> {
//! let loops = LoopGroup::start("echo", 2)?;
//! let address: Address = "127.0.0.1:0".parse().unwrap();
//! let server = TcpServer::start(&loops, address, ServerOptions::default(), |_accepted| Box::new(Echo))?;
//! println!("listening on {}", server.local_addr());
//! # Ok(())
//! # }
//! ```
//!
//! The programs in `examples/` go on from here: discard, broadcast, ping-pong, idle connections,
//! file transfer, a SOCKS relay, echo under TLS.
//!
//! # Flow control
//!
//! What a handler writes is queued and leaves at the end of the turn, in one system call; a large
//! answer (8 KiB or more) as soon as its handler returns. A peer that does not take it fills the
//! queue: above [`output_high_bytes`](ConnectionOptions::output_high_bytes) its connection is not read
//! any more, so a peer that asks without reading the answers cannot fill memory;
//! [`Handler::drained`] says when there is room again. A handler that produces by itself looks at
//! [`Connection::output_bytes`] or waits for [`notify_drained`](Connection::notify_drained). Beyond
//! [`output_bytes_max`](ConnectionOptions::output_bytes_max) the connection is cut off.
//!
//! # Features
//!
//! `tls` (off by default): TLS 1.2 and 1.3 with rustls and ring.
//!
//! # Limits and faults
//!
//! Everything that can grow has a limit: bytes kept of an incomplete frame, bytes waiting to be
//! written, connections of a server, tasks per turn, jobs waiting for a pool. A handler that panics
//! loses its connection and nothing else. Nothing that a peer sends makes the library panic.

mod acceptor;
mod address;
mod byte_budget;
mod connection;
mod core;
mod error;
mod event_loop;
mod handle;
mod handler;
mod listener;
mod loop_group;
mod mailbox;
mod metrics;
mod output;
mod proxy_protocol;
mod read;
mod scratch;
mod sync;
mod tcp_client;
mod tcp_server;
mod timer_wheel;
#[cfg(feature = "tls")]
mod tls;
mod transport;
mod wake_queue;
mod worker_pool;

pub use crate::address::Address;
pub use crate::byte_budget::{ByteBudget, Charge};
pub use crate::connection::{ConnId, Connection, ConnectionOptions};
pub use crate::core::{LoopContext, TimerId};
pub use crate::error::{CloseReason, Error};
pub use crate::event_loop::{EventLoop, LoopOptions};
pub use crate::handle::{ConnHandle, LoopGone, LoopHandle, on_loop_thread};
pub use crate::handler::Handler;
pub use crate::loop_group::LoopGroup;
pub use crate::mailbox::Mailbox;
pub use crate::metrics::{LAG_BUCKETS, LoopMetrics};
pub use crate::proxy_protocol::ProxyProtocol;
pub use crate::tcp_client::{Backoff, ClientOptions, TcpClient};
pub use crate::tcp_server::{Accepted, DrainReport, Placement, ServerOptions, TcpServer};
#[cfg(feature = "tls")]
pub use crate::tls::{ClientPemFiles, ClientTls, PemFiles, ServerTls, TlsInfo};
pub use crate::worker_pool::{PoolFull, PoolMetrics, WorkerPool};
/// Networks of IP addresses, for [`ProxyProtocol::RequiredFrom`].
pub use ipnet;
/// The TLS library, for configurations of your own.
#[cfg(feature = "tls")]
pub use rustls;
