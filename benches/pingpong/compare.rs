//! Both servers in each cell of a table, in turn, under the same client.

use clap::Args;
use nexus_benches::process::{self, ServerProcess};
use nexus_benches::serve::{ServerArgs, ServerReport};
use nexus_benches::tls::Certificate;
use nexus_benches::{BoxError, Runtime, median};

use crate::client::ClientReport;

/// From this size on the table speaks of bytes rather than of messages.
const LARGE_BYTES: u32 = 4096;

/// A comparison's command line.
#[derive(Debug, Clone, Args)]
pub(crate) struct CompareArgs {
    /// How long to measure in each round
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Rounds of each cell, of which the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Bytes of a message
    #[arg(long, value_delimiter = ',', default_value = "64,16384")]
    sizes: Vec<u32>,
    /// Connections at a time
    #[arg(long, value_delimiter = ',', default_value = "1,100,1000")]
    connections: Vec<usize>,
    /// Threads of the server, and of the client
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    loops: Vec<usize>,
    /// Both under TLS
    #[arg(long)]
    tls: bool,
}

#[derive(Clone, Copy)]
struct Cell {
    loops: usize,
    connections: usize,
    size: u32,
}

/// One round of one server; in the table, the medians of several.
#[derive(Clone, Copy)]
struct Measured {
    /// Messages per second.
    rate: f64,
    p99_us: f64,
    /// CPU of the server per message.
    cpu_us: f64,
}

/// Measures and prints the table, a line as soon as it is known.
pub(crate) fn run(args: &CompareArgs) -> Result<(), BoxError> {
    let certificate = args.tls.then(Certificate::make).transpose()?;
    println!(
        "| size | loops | connections | nexus | tokio | ratio \
         | nexus p99 µs | tokio p99 µs | nexus CPU µs/message | tokio CPU µs/message | ratio |"
    );
    println!("|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    for &size in &args.sizes {
        for &loops in &args.loops {
            for &connections in &args.connections {
                let cell = Cell {
                    loops,
                    connections,
                    size,
                };
                print_row(cell, compare(args, cell, certificate.as_ref())?);
            }
        }
    }
    Ok(())
}

fn compare(
    args: &CompareArgs,
    cell: Cell,
    certificate: Option<&Certificate>,
) -> Result<[Measured; 2], BoxError> {
    let mut measured = [Vec::new(), Vec::new()];
    for round in 0..args.rounds as usize {
        for turn in 0..Runtime::ALL.len() {
            // Who goes first alternates, so that a drift of the machine favours neither.
            let side = (turn + round) % Runtime::ALL.len();
            measured[side].push(measure(args, cell, Runtime::ALL[side], certificate)?);
        }
    }
    Ok(measured.map(|rounds| Measured {
        rate: median(rounds.iter().map(|round| round.rate).collect()),
        p99_us: median(rounds.iter().map(|round| round.p99_us).collect()),
        cpu_us: median(rounds.iter().map(|round| round.cpu_us).collect()),
    }))
}

fn measure(
    args: &CompareArgs,
    cell: Cell,
    runtime: Runtime,
    certificate: Option<&Certificate>,
) -> Result<Measured, BoxError> {
    let server = ServerProcess::start(&ServerArgs::of(runtime, cell.loops, certificate))?;
    let mut client = vec![
        "client".to_owned(),
        format!("--addr={}", server.address()),
        format!("--loops={}", cell.loops),
        format!("--connections={}", cell.connections),
        format!("--size={}", cell.size),
        format!("--seconds={}", args.seconds),
    ];
    if let Some(certificate) = certificate {
        client.push("--tls".to_owned());
        client.push(format!("--cert={}", certificate.cert().display()));
    }
    let line = process::run(&client)?;
    let client: ClientReport = serde_json::from_str(&line)?;
    if client.errors > 0 {
        return Err(format!("{} connections were lost: {line}", client.errors).into());
    }
    let server: ServerReport = server.stop()?;
    let messages = server.bytes as f64 / f64::from(cell.size);
    Ok(Measured {
        rate: client.messages_per_second,
        p99_us: client.p99_us,
        cpu_us: 1e6 * server.cpu_seconds / messages,
    })
}

fn print_row(cell: Cell, [nexus, tokio]: [Measured; 2]) {
    let throughput = |measured: Measured| {
        if cell.size < LARGE_BYTES {
            format!("{:.0} msg/s", measured.rate)
        } else {
            let mib = measured.rate * f64::from(cell.size) / f64::from(1 << 20);
            format!("{mib:.0} MiB/s")
        }
    };
    println!(
        "| {} B | {} | {} | {} | {} | {:.2} | {:.0} | {:.0} | {:.2} | {:.2} | {:.2} |",
        cell.size,
        cell.loops,
        cell.connections,
        throughput(nexus),
        throughput(tokio),
        nexus.rate / tokio.rate,
        nexus.p99_us,
        tokio.p99_us,
        nexus.cpu_us,
        tokio.cpu_us,
        nexus.cpu_us / tokio.cpu_us,
    );
}
