//! The `server` command: an RPC server until a signal.

use std::net::SocketAddr;
use std::time::Duration;

use crate::client::LookAround;
use clap::Args;
use nexus_benches::rpc::{Framework, Mode, RpcServer, RpcServerOptions};
use nexus_benches::serve::{end_signal, serve_until};
use nexus_benches::{BoxError, cpu};
use serde::{Deserialize, Serialize};

/// A server's command line.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServerArgs {
    /// Address to listen on; port 0 takes any free one
    #[arg(long, default_value = "127.0.0.1:7008")]
    addr: SocketAddr,
    /// Loops of nexus-rpc, workers of tokio
    #[arg(long, default_value_t = 1)]
    loops: usize,
    #[command(flatten)]
    look_around: LookAround,
    /// Run the handler on the thread that reads (the default)
    #[arg(long, group = "mode")]
    inline: bool,
    /// Run the handler where it may block
    #[arg(long, group = "mode")]
    pooled: bool,
    /// Begin the handler on the thread that reads, and have a timer complete slow calls
    #[arg(long, group = "mode")]
    responder: bool,
    /// What it is built on
    #[arg(long, value_enum, default_value = "nexus")]
    runtime: Framework,
    /// How long a call takes whose message begins with a tilde; 0: as long as any
    #[arg(long, default_value_t = 0)]
    slow_ms: u64,
    /// End after this long; without it, at SIGINT or SIGTERM
    #[arg(long)]
    seconds: Option<u64>,
}

impl ServerArgs {
    fn mode(&self) -> Mode {
        match (self.pooled, self.responder) {
            (true, _) => Mode::Pooled,
            (_, true) => Mode::Responder,
            _ => Mode::Inline,
        }
    }
}

/// What a server prints at its end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ServerReport {
    pub(crate) runtime: String,
    pub(crate) mode: String,
    pub(crate) loops: usize,
    /// Calls that the handlers have seen.
    pub(crate) calls: u64,
    /// CPU seconds of the process, user and system.
    pub(crate) cpu_seconds: f64,
    /// The same for each million calls, the figure that is quoted elsewhere.
    pub(crate) cpu_seconds_per_million: f64,
}

/// Serves until told to end.
pub(crate) fn run(args: &ServerArgs) -> Result<(), BoxError> {
    let end = end_signal()?;
    let server = RpcServer::start(&RpcServerOptions {
        framework: args.runtime,
        address: args.addr,
        threads: args.loops,
        loops: args.look_around.options(),
        mode: args.mode(),
        slow: Duration::from_millis(args.slow_ms),
    })?;
    serve_until(&end, server.address(), args.seconds)?;
    let calls = server.calls();
    let cpu_seconds = cpu::process_seconds();
    let report = ServerReport {
        runtime: args.runtime.name().to_owned(),
        mode: args.mode().name().to_owned(),
        loops: args.loops,
        calls,
        cpu_seconds,
        cpu_seconds_per_million: 1e6 * cpu_seconds / calls.max(1) as f64,
    };
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}
