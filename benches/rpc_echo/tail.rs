//! The tail under trouble: a few calls are held up, and what the others have of it.

use clap::Args;
use nexus_benches::rpc::{Framework, Mode};
use nexus_benches::{BoxError, median, process};

use crate::client::ClientReport;
use crate::compare::start_server;
use crate::server::ServerReport;

/// The command line of the comparison of tails.
#[derive(Debug, Clone, Args)]
pub(crate) struct TailArgs {
    /// How long to measure in each round
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Rounds of each line, of which the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Calls per second
    #[arg(long, value_delimiter = ',', default_value = "2000")]
    rates: Vec<f64>,
    /// One call of so many is slow; 0: none
    #[arg(long, value_delimiter = ',', default_value = "0,100")]
    slow_every: Vec<u64>,
    /// How long a slow call is held up
    #[arg(long, default_value_t = 5)]
    slow_ms: u64,
    /// Where the handlers run; a slow one does not hold an inline handler up
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "pooled,responder"
    )]
    modes: Vec<Mode>,
    /// Connections
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Loops or workers of the server, and of the client
    #[arg(long, default_value_t = 1)]
    loops: usize,
    /// Bytes of a message
    #[arg(long, default_value_t = 16)]
    size: usize,
}

#[derive(Clone, Copy)]
struct Line {
    mode: Mode,
    rate: f64,
    slow_every: u64,
}

/// Measures and prints the table, a line as soon as it is known.
pub(crate) fn run(args: &TailArgs) -> Result<(), BoxError> {
    println!(
        "| mode | calls/s | slow | nexus p50 µs | p99 | p999 | tonic p50 µs | p99 | p999 \
         | tonic / nexus p99 |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    for &mode in &args.modes {
        for &rate in &args.rates {
            for &slow_every in &args.slow_every {
                let line = Line {
                    mode,
                    rate,
                    slow_every,
                };
                print_line(args, line)?;
            }
        }
    }
    Ok(())
}

fn print_line(args: &TailArgs, line: Line) -> Result<(), BoxError> {
    let mut measured = [Vec::new(), Vec::new()];
    for round in 0..args.rounds as usize {
        for turn in 0..Framework::ALL.len() {
            let side = (turn + round) % Framework::ALL.len();
            measured[side].push(measure(args, line, Framework::ALL[side])?);
        }
    }
    let [nexus, tonic] = measured.map(|rounds| {
        let of = |value: fn(&ClientReport) -> f64| median(rounds.iter().map(value).collect());
        [
            of(|round| round.p50_us),
            of(|round| round.p99_us),
            of(|round| round.p999_us),
        ]
    });
    let slow = match line.slow_every {
        0 => "none".to_owned(),
        every => format!("1 of {every}, {} ms", args.slow_ms),
    };
    println!(
        "| {} | {:.0} | {slow} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.2} |",
        line.mode.name(),
        line.rate,
        nexus[0],
        nexus[1],
        nexus[2],
        tonic[0],
        tonic[1],
        tonic[2],
        tonic[1] / nexus[1],
    );
    Ok(())
}

fn measure(args: &TailArgs, line: Line, framework: Framework) -> Result<ClientReport, BoxError> {
    let server = start_server(framework, line.mode, args.loops, 0, args.slow_ms)?;
    let mut client = vec![
        "client".to_owned(),
        format!("--addr={}", server.address()),
        format!("--runtime={}", framework.name()),
        format!("--loops={}", args.loops),
        format!("--connections={}", args.connections),
        format!("--size={}", args.size),
        format!("--seconds={}", args.seconds),
        format!("--rate={}", line.rate),
    ];
    if line.slow_every > 0 {
        client.push(format!("--slow-every={}", line.slow_every));
    }
    let report = process::run(&client)?;
    let client: ClientReport = serde_json::from_str(&report)?;
    if client.errors > 0 {
        return Err(format!("{} calls failed: {report}", client.errors).into());
    }
    let _: ServerReport = server.stop()?;
    Ok(client)
}
