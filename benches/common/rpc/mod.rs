//! The RPC servers that are compared: `example.EchoService` on nexus-rpc and on tonic.
//!
//! Both answer with the message that came; the one on nexus-rpc with the attachment too, so that any
//! client of baidu_std can drive it. Both can hold up what [`is_slow`] for a while, as a handler would that
//! waits for something.

mod nexus;
mod tonic;

use std::net::SocketAddr;
use std::time::Duration;

use clap::ValueEnum;
use nexus_net::LoopOptions;

pub use self::tonic::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES};

use crate::BoxError;

/// What `nexus-rpc-build` makes of the service, by where its handler runs. The clients are the same.
#[allow(missing_docs, unreachable_pub)]
pub mod generated {
    pub mod pooled {
        include!(concat!(env!("OUT_DIR"), "/pooled/example.rs"));
    }
    pub mod inline {
        include!(concat!(env!("OUT_DIR"), "/inline/example.rs"));
    }
    pub mod responder {
        include!(concat!(env!("OUT_DIR"), "/responder/example.rs"));
    }
    #[allow(clippy::all)]
    pub mod tonic {
        include!(concat!(env!("OUT_DIR"), "/tonic/example.rs"));
    }
}

/// What an RPC server or client is built on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Framework {
    /// nexus-rpc, that is baidu_std.
    Nexus,
    /// tonic, that is gRPC over HTTP/2, on tokio's `multi_thread` runtime.
    Tonic,
}

impl Framework {
    /// Both, in the order of the tables.
    pub const ALL: [Self; 2] = [Self::Nexus, Self::Tonic];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nexus => "nexus",
            Self::Tonic => "tonic",
        }
    }
}

/// Where the handler runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// On the thread that reads the connection: an inline method of nexus-rpc, an `async fn` of tonic.
    Inline,
    /// Where it may block: nexus-rpc's worker pool, tokio's `spawn_blocking`.
    Pooled,
    /// As inline, and completed later by a timer where the call is slow: a responder of nexus-rpc, an
    /// `async fn` of tonic.
    Responder,
}

impl Mode {
    /// As on the command line, behind two dashes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inline => "inline",
            Self::Pooled => "pooled",
            Self::Responder => "responder",
        }
    }
}

/// How an RPC server serves.
#[derive(Debug, Clone)]
pub struct RpcServerOptions {
    /// What it is built on.
    pub framework: Framework,
    /// Where to listen; port 0 takes any free one.
    pub address: SocketAddr,
    /// Loops of nexus-rpc, workers of tokio.
    pub threads: usize,
    /// How nexus-rpc's loops work.
    pub loops: LoopOptions,
    /// Where handlers run.
    pub mode: Mode,
    /// How long a slow call takes; at zero none is slow.
    pub slow: Duration,
}

/// A running server of either kind. Dropping it ends it.
pub struct RpcServer {
    address: SocketAddr,
    kind: Kind,
}

enum Kind {
    Nexus(nexus::NexusServer),
    Tonic(tonic::TonicServer),
}

impl RpcServer {
    /// Listens and serves.
    ///
    /// # Errors
    /// When the address cannot be had or the system refuses a thread.
    pub fn start(options: &RpcServerOptions) -> Result<Self, BoxError> {
        let (address, kind) = match options.framework {
            Framework::Nexus => {
                let server = nexus::NexusServer::start(options)?;
                (server.address(), Kind::Nexus(server))
            }
            Framework::Tonic => {
                let server = tonic::TonicServer::start(options)?;
                (server.address(), Kind::Tonic(server))
            }
        };
        Ok(Self { address, kind })
    }

    /// The address it listens on, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Calls that its handlers have seen.
    pub fn calls(&self) -> u64 {
        match &self.kind {
            Kind::Nexus(server) => server.calls(),
            Kind::Tonic(server) => server.calls(),
        }
    }
}

const SLOW: char = '~';

/// Whether the message asks the handler to take its time.
fn is_slow(message: &str) -> bool {
    message.starts_with(SLOW)
}

/// A message of this many bytes.
pub fn message(bytes: usize, slow: Slow) -> String {
    let mut text = "x".repeat(bytes);
    if slow == Slow::Yes && bytes > 0 {
        text.replace_range(..1, &SLOW.to_string());
    }
    text
}

/// Whether a call asks the handler to take its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slow {
    /// It is answered at once.
    No,
    /// It is held up, if the server was started so.
    Yes,
}
