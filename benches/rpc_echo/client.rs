//! The `client` command: makes calls for a while and says how they went.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use nexus_benches::rpc::{self, Slow};
use nexus_benches::{BoxError, cpu};
use nexus_net::LoopOptions;
use serde::{Deserialize, Serialize};

use crate::bare::BareLoad;
use crate::nexus::{BlockingLoad, NexusLoad};
use crate::open_loop;
use crate::record::Recorder;
use crate::tonic::TonicLoad;

/// A client's command line.
#[derive(Debug, Clone, Args)]
pub(crate) struct ClientArgs {
    /// The server
    #[arg(long, default_value = "127.0.0.1:7008")]
    pub(crate) addr: SocketAddr,
    /// Threads of the client's loops or workers
    #[arg(long, default_value_t = 1)]
    pub(crate) loops: usize,
    #[command(flatten)]
    pub(crate) look_around: LookAround,
    /// Calls in flight, over all connections; with --rate it has no meaning
    #[arg(long, default_value_t = 1, value_parser = at_least_one)]
    pub(crate) callers: usize,
    /// Connections, each with its share of the callers
    #[arg(long, default_value_t = 1, value_parser = at_least_one)]
    pub(crate) connections: usize,
    /// Bytes of a message
    #[arg(long, default_value_t = 16)]
    pub(crate) size: usize,
    /// How long to measure
    #[arg(long, default_value_t = 5.0)]
    pub(crate) seconds: f64,
    /// How long to run before measuring
    #[arg(long, default_value_t = 0.5)]
    pub(crate) warm_up_seconds: f64,
    /// Calls per second, made when they are due whether or not earlier ones have been answered;
    /// latency then counts from when a call was due
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// With --rate: every so many calls one begins with a tilde, which the server may hold up, and which is
    /// left out of the latencies
    #[arg(long)]
    pub(crate) slow_every: Option<u64>,
    /// What makes the calls
    #[arg(long, value_enum, default_value = "nexus")]
    pub(crate) runtime: ClientKind,
}

/// How the loops of nexus-net work, on either side.
#[derive(Debug, Clone, Args)]
pub(crate) struct LookAround {
    /// How long loops of nexus-net look around for work before they sleep, in µs; 0: not at all
    #[arg(long, default_value_t = 0)]
    pub(crate) look_around_us: u64,
}

impl LookAround {
    pub(crate) fn options(&self) -> LoopOptions {
        LoopOptions {
            look_around_max: Duration::from_micros(self.look_around_us),
        }
    }
}

/// What makes the calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ClientKind {
    /// nexus-rpc; each answer's callback makes the caller's next call
    Nexus,
    /// nexus-rpc; each caller is a thread that waits
    NexusBlocking,
    /// tonic; each caller is a task
    Tonic,
    /// Prepared frames of baidu_std over nexus-net, and answers that are only counted
    Bare,
}

impl ClientKind {
    /// As on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nexus => "nexus",
            Self::NexusBlocking => "nexus-blocking",
            Self::Tonic => "tonic",
            Self::Bare => "bare",
        }
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(error.to_string()),
    }
}

/// What a client prints.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ClientReport {
    pub(crate) runtime: String,
    pub(crate) callers: usize,
    pub(crate) connections: usize,
    pub(crate) size: usize,
    pub(crate) seconds: f64,
    pub(crate) calls_per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    /// Of this process, while it measured.
    pub(crate) cpu_seconds: f64,
    pub(crate) cpu_seconds_per_million: f64,
    /// Calls that were meant to be slow.
    pub(crate) slow: u64,
    pub(crate) errors: u64,
}

/// One kind of client, connected.
pub(crate) trait Load {
    /// Has callers make one call after the other until the process ends, `callers` in all.
    fn start(&self, callers: usize) -> Result<(), BoxError>;

    /// Makes one call on one of the connections, as `number` falls; its latency counts from `due`.
    /// Must not wait for the answer.
    fn call(&self, number: u64, slow: Slow, due: Instant) -> Result<(), BoxError>;
}

/// The two messages a client sends.
pub(crate) struct Messages {
    pub(crate) fast: String,
    pub(crate) slow: String,
}

impl Messages {
    pub(crate) fn new(size: usize) -> Self {
        Self {
            fast: rpc::message(size, Slow::No),
            slow: rpc::message(size, Slow::Yes),
        }
    }

    pub(crate) fn of(&self, slow: Slow) -> &str {
        match slow {
            Slow::No => &self.fast,
            Slow::Yes => &self.slow,
        }
    }
}

/// Loads the server and prints a [`ClientReport`].
pub(crate) fn run(args: &ClientArgs) -> Result<(), BoxError> {
    let recorder = Arc::new(Recorder::new(args.loops)?);
    let load = connect(args, &recorder)?;
    match args.rate {
        Some(rate) => open_loop::start(load, rate, args.slow_every, Arc::clone(&recorder))?,
        None => load.start(args.callers)?,
    }
    // Time is what is measured.
    std::thread::sleep(Duration::from_secs_f64(args.warm_up_seconds));
    recorder.take()?;
    let started = Instant::now();
    let cpu_before = cpu::process_seconds();
    std::thread::sleep(Duration::from_secs_f64(args.seconds));
    let stats = recorder.take()?;
    let seconds = started.elapsed().as_secs_f64();
    let cpu_seconds = cpu::process_seconds() - cpu_before;
    let report = ClientReport {
        runtime: args.runtime.name().to_owned(),
        callers: args.callers,
        connections: args.connections,
        size: args.size,
        seconds,
        calls_per_second: stats.calls() as f64 / seconds,
        p50_us: stats.quantile_us(0.5),
        p99_us: stats.quantile_us(0.99),
        p999_us: stats.quantile_us(0.999),
        cpu_seconds,
        cpu_seconds_per_million: 1e6 * cpu_seconds / stats.calls().max(1) as f64,
        slow: stats.slow,
        errors: stats.errors,
    };
    println!("{}", serde_json::to_string(&report)?);
    // The callers are in the midst of calls, which nobody is interested in any more.
    std::process::exit(0);
}

fn connect(args: &ClientArgs, recorder: &Arc<Recorder>) -> Result<Box<dyn Load + Send>, BoxError> {
    let recorder = Arc::clone(recorder);
    Ok(match args.runtime {
        ClientKind::Nexus => Box::new(NexusLoad::connect(args, recorder)?),
        ClientKind::NexusBlocking => Box::new(BlockingLoad::connect(args, recorder)?),
        ClientKind::Tonic => Box::new(TonicLoad::connect(args, recorder)?),
        ClientKind::Bare => Box::new(BareLoad::connect(args, recorder)?),
    })
}
