//! Both frameworks in each cell of a table, in turn, each under its own client.

use clap::Args;
use nexus_benches::process::{self, ServerProcess};
use nexus_benches::rpc::{Framework, Mode};
use nexus_benches::{BoxError, median};

use crate::client::{ClientKind, ClientReport, LookAround};
use crate::server::ServerReport;

/// A comparison's command line. Each of the lists narrows the table down to the cells one wants.
#[derive(Debug, Clone, Args)]
pub(crate) struct CompareArgs {
    /// How long to measure in each round
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Rounds of each cell, of which the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Bytes of a message
    #[arg(long, value_delimiter = ',', default_value = "16,1024,65536")]
    sizes: Vec<usize>,
    /// Calls in flight, over all connections
    #[arg(long, value_delimiter = ',', default_value = "1,8,64,256")]
    callers: Vec<usize>,
    /// Connections; cells with more of them than callers are left out
    #[arg(long, value_delimiter = ',', default_value = "1,8")]
    connections: Vec<usize>,
    /// Calls in flight on each connection, in place of --callers
    #[arg(long, conflicts_with = "callers")]
    in_flight: Option<usize>,
    /// Where the handlers run
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "inline,pooled"
    )]
    modes: Vec<Mode>,
    /// Loops or workers of the server, and of the client
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    loops: Vec<usize>,
    #[command(flatten)]
    look_around: LookAround,
    /// What is measured: servers with their own clients, and the nexus-rpc server under two others
    #[arg(long, value_enum, value_delimiter = ',', default_value = "nexus,tonic")]
    clients: Vec<ClientKind>,
}

#[derive(Clone, Copy)]
struct Cell {
    size: usize,
    mode: Mode,
    loops: usize,
    connections: usize,
    callers: usize,
}

/// One round of one side; in the table, the medians of several.
#[derive(Clone, Copy)]
struct Measured {
    calls_per_second: f64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    server_cpu_us: f64,
    client_cpu_us: f64,
}

/// Measures and prints the table, a line as soon as it is known. A cell has a line for each client; its ratio is to
/// tonic's rate in the same cell.
pub(crate) fn run(args: &CompareArgs) -> Result<(), BoxError> {
    println!(
        "| size | mode | loops | connections | callers | client | calls/s | to tonic \
         | p50 µs | p99 µs | p999 µs | server CPU µs/call | client CPU µs/call |"
    );
    println!("|--:|---|--:|--:|--:|---|--:|--:|--:|--:|--:|--:|--:|");
    for cell in cells(args) {
        let measured = compare(args, cell)?;
        let tonic = measured
            .iter()
            .find(|(client, _)| *client == ClientKind::Tonic)
            .map(|(_, measured)| measured.calls_per_second);
        for (client, measured) in measured {
            print_row(cell, client, measured, tonic);
        }
    }
    Ok(())
}

fn cells(args: &CompareArgs) -> Vec<Cell> {
    let mut cells = Vec::new();
    for &size in &args.sizes {
        for &mode in &args.modes {
            for &loops in &args.loops {
                for &connections in &args.connections {
                    let callers = match args.in_flight {
                        Some(in_flight) => vec![in_flight * connections],
                        None => args.callers.clone(),
                    };
                    let enough = callers
                        .into_iter()
                        .filter(|&callers| callers >= connections);
                    cells.extend(enough.map(|callers| Cell {
                        size,
                        mode,
                        loops,
                        connections,
                        callers,
                    }));
                }
            }
        }
    }
    cells
}

fn compare(args: &CompareArgs, cell: Cell) -> Result<Vec<(ClientKind, Measured)>, BoxError> {
    let sides = args.clients.len();
    let mut measured = vec![Vec::new(); sides];
    for round in 0..args.rounds as usize {
        for turn in 0..sides {
            // Who goes first alternates, so that a drift of the machine favours nobody.
            let side = (turn + round) % sides;
            measured[side].push(measure(args, cell, args.clients[side])?);
        }
    }
    let medians = measured.iter().map(|rounds| {
        let of = |value: fn(&Measured) -> f64| median(rounds.iter().map(value).collect());
        Measured {
            calls_per_second: of(|round| round.calls_per_second),
            p50_us: of(|round| round.p50_us),
            p99_us: of(|round| round.p99_us),
            p999_us: of(|round| round.p999_us),
            server_cpu_us: of(|round| round.server_cpu_us),
            client_cpu_us: of(|round| round.client_cpu_us),
        }
    });
    Ok(args.clients.iter().copied().zip(medians).collect())
}

fn measure(args: &CompareArgs, cell: Cell, client: ClientKind) -> Result<Measured, BoxError> {
    let framework = match client {
        ClientKind::Tonic => Framework::Tonic,
        ClientKind::Nexus | ClientKind::NexusBlocking | ClientKind::Bare => Framework::Nexus,
    };
    let look_around_us = args.look_around.look_around_us;
    let server = start_server(framework, cell.mode, cell.loops, look_around_us, 0)?;
    let line = process::run(&[
        "client".to_owned(),
        format!("--addr={}", server.address()),
        format!("--runtime={}", client.name()),
        format!("--loops={}", cell.loops),
        format!("--look-around-us={look_around_us}"),
        format!("--callers={}", cell.callers),
        format!("--connections={}", cell.connections),
        format!("--size={}", cell.size),
        format!("--seconds={}", args.seconds),
    ])?;
    let client: ClientReport = serde_json::from_str(&line)?;
    if client.errors > 0 {
        return Err(format!("{} calls failed: {line}", client.errors).into());
    }
    let server: ServerReport = server.stop()?;
    Ok(Measured {
        calls_per_second: client.calls_per_second,
        p50_us: client.p50_us,
        p99_us: client.p99_us,
        p999_us: client.p999_us,
        // Seconds for each million are microseconds for each.
        server_cpu_us: server.cpu_seconds_per_million,
        client_cpu_us: client.cpu_seconds_per_million,
    })
}

/// A server in a process of its own.
pub(crate) fn start_server(
    framework: Framework,
    mode: Mode,
    loops: usize,
    look_around_us: u64,
    slow_ms: u64,
) -> Result<ServerProcess, BoxError> {
    ServerProcess::start(&[
        format!("--runtime={}", framework.name()),
        format!("--{}", mode.name()),
        format!("--loops={loops}"),
        format!("--look-around-us={look_around_us}"),
        format!("--slow-ms={slow_ms}"),
    ])
}

fn print_row(cell: Cell, client: ClientKind, measured: Measured, tonic: Option<f64>) {
    let ratio = tonic.map_or(String::new(), |tonic| {
        format!("{:.2}", measured.calls_per_second / tonic)
    });
    println!(
        "| {} | {} | {} | {} | {} | {} | {:.0} | {ratio} | {:.0} | {:.0} | {:.0} | {:.2} | {:.2} |",
        cell.size,
        cell.mode.name(),
        cell.loops,
        cell.connections,
        cell.callers,
        client.name(),
        measured.calls_per_second,
        measured.p50_us,
        measured.p99_us,
        measured.p999_us,
        measured.server_cpu_us,
        measured.client_cpu_us,
    );
}
