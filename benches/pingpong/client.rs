//! The load: connections that each keep one message under way.

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use clap::Args;
use hdrhistogram::Histogram;
use nexus_benches::tls::ClientTlsArgs;
use nexus_benches::{BoxError, cpu};
use nexus_net::{
    ClientTls, CloseReason, Connection, ConnectionOptions, Handler, LoopContext, LoopGroup,
    LoopHandle,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// A client's command line.
#[derive(Debug, Clone, Args)]
pub(crate) struct ClientArgs {
    /// The echo server
    #[arg(long, default_value = "127.0.0.1:7007")]
    addr: SocketAddr,
    /// Threads that send
    #[arg(long, default_value_t = 1)]
    loops: usize,
    /// Connections, spread over the threads
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Bytes of a message
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    size: u32,
    /// How long to measure
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// How long to run before measuring
    #[arg(long, default_value_t = 0.5)]
    warm_up_seconds: f64,
    #[command(flatten)]
    tls: ClientTlsArgs,
}

/// What a client prints.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ClientReport {
    pub(crate) connections: usize,
    pub(crate) size: u32,
    pub(crate) seconds: f64,
    pub(crate) messages_per_second: f64,
    pub(crate) mib_per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    /// Of this process, while it measured.
    pub(crate) cpu_seconds: f64,
    /// Connections that were lost.
    pub(crate) errors: u64,
}

const CONNECT_DEADLINE: Duration = Duration::from_secs(30);
/// A round trip longer than this counts as this long.
const ROUND_TRIP_NS_MAX: u64 = 60_000_000_000;

/// What the connections of one loop have done. The lock is free but for the moments in which the
/// main thread begins and ends the measurement.
struct Stats {
    round_trips_ns: Histogram<u64>,
    bytes: u64,
    errors: u64,
}

impl Stats {
    fn new() -> Result<Self, BoxError> {
        Ok(Self {
            round_trips_ns: Histogram::new_with_max(ROUND_TRIP_NS_MAX, 3)?,
            bytes: 0,
            errors: 0,
        })
    }
}

type LoopStats = Arc<Mutex<Stats>>;

/// Loads the server and prints a [`ClientReport`].
pub(crate) fn run(args: &ClientArgs) -> Result<(), BoxError> {
    let group = LoopGroup::start("client", args.loops)?;
    let stats = connect_all(args, &group)?;
    // Time is what is measured.
    std::thread::sleep(Duration::from_secs_f64(args.warm_up_seconds));
    for stats in &stats {
        *stats.lock() = Stats::new()?;
    }
    let started = Instant::now();
    let cpu_before = cpu::process_seconds();
    std::thread::sleep(Duration::from_secs_f64(args.seconds));
    let mut all = Stats::new()?;
    for stats in &stats {
        let one = std::mem::replace(&mut *stats.lock(), Stats::new()?);
        all.round_trips_ns.add(&one.round_trips_ns)?;
        all.bytes += one.bytes;
        all.errors += one.errors;
    }
    let seconds = started.elapsed().as_secs_f64();
    let cpu_seconds = cpu::process_seconds() - cpu_before;
    let quantile_us = |q| all.round_trips_ns.value_at_quantile(q) as f64 / 1000.0;
    let report = ClientReport {
        connections: args.connections,
        size: args.size,
        seconds,
        messages_per_second: all.round_trips_ns.len() as f64 / seconds,
        mib_per_second: all.bytes as f64 / f64::from(1 << 20) / seconds,
        p50_us: quantile_us(0.5),
        p99_us: quantile_us(0.99),
        p999_us: quantile_us(0.999),
        cpu_seconds,
        errors: all.errors,
    };
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

/// Opens the connections, which start at once, and waits until all are established.
fn connect_all(args: &ClientArgs, group: &LoopGroup) -> Result<Vec<LoopStats>, BoxError> {
    let tls = args.tls.client_tls()?;
    let (outcome, outcomes) = mpsc::channel();
    let mut all = Vec::new();
    for (n, handle) in group.handles().iter().enumerate() {
        let stats = Arc::new(Mutex::new(Stats::new()?));
        let count = (n..args.connections).step_by(args.loops).count();
        let pinger = Pinger {
            message: Bytes::from(vec![b'x'; args.size as usize]),
            received: 0,
            sent_at: Instant::now(),
            stats: Arc::clone(&stats),
            outcome: outcome.clone(),
        };
        connect(handle, args.addr, tls.clone(), count, pinger)?;
        all.push(stats);
    }
    drop(outcome);
    let deadline = Instant::now() + CONNECT_DEADLINE;
    for _ in 0..args.connections {
        outcomes.recv_timeout(deadline.saturating_duration_since(Instant::now()))??;
    }
    Ok(all)
}

/// Has the loop open `count` connections.
fn connect(
    handle: &LoopHandle,
    address: SocketAddr,
    tls: Option<ClientTls>,
    count: usize,
    pinger: Pinger,
) -> Result<(), BoxError> {
    handle.post(move |context| {
        let options = Arc::new(ConnectionOptions::default());
        for _ in 0..count {
            let handler = Box::new(pinger.clone());
            let options = Arc::clone(&options);
            let connecting = match &tls {
                None => context.connect(address, options, |_| handler),
                Some(tls) => context.connect_tls(address, tls, options, |_| handler),
            };
            if let Err(error) = connecting {
                let _ = pinger.outcome.send(Err(error.to_string()));
            }
        }
    })?;
    Ok(())
}

#[derive(Clone)]
struct Pinger {
    message: Bytes,
    /// Bytes of the present message that have come back.
    received: usize,
    sent_at: Instant,
    stats: LoopStats,
    /// Told whether the connection could be made.
    outcome: mpsc::Sender<Result<(), String>>,
}

impl Handler for Pinger {
    fn opened(&mut self, conn: &mut Connection<'_>) {
        let _ = self.outcome.send(Ok(()));
        self.sent_at = Instant::now();
        conn.send(self.message.clone());
    }

    fn data(&mut self, conn: &mut Connection<'_>, input: &mut BytesMut) {
        self.received += input.len();
        let mut stats = self.stats.lock();
        stats.bytes += input.len() as u64;
        input.clear();
        // An echo brings no more than was sent; a server that does sends garbage.
        if self.received > self.message.len() {
            conn.abort();
        } else if self.received == self.message.len() {
            self.received = 0;
            let now = Instant::now();
            let round_trip_ns = (now - self.sent_at).as_nanos() as u64;
            stats.round_trips_ns.saturating_record(round_trip_ns);
            self.sent_at = now;
            conn.send(self.message.clone());
        }
    }

    fn closed(&mut self, _context: &mut LoopContext<'_>, reason: CloseReason) {
        if let CloseReason::ConnectFailed(error) = &reason {
            let _ = self.outcome.send(Err(error.to_string()));
        }
        self.stats.lock().errors += 1;
    }
}
