//! `nexus-rpc press`: load on one method, and what became of it.
//!
//! | module | owns |
//! |---|---|
//! | `load` | when each call is sent: flat out, or at a rate |
//! | `tally` | what was answered, how fast, and what failed |
//! | `report` | the progress line, the table and the JSON |

mod load;
mod report;
mod tally;

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use nexus_rpc::{CallOptions, ChannelOptions, Connections, RetryOptions};
use signal_hook::consts::{SIGINT, SIGTERM};

use self::load::{Load, Pace};
use self::report::Report;
use crate::args::{CALLERS_MAX, Global, Press};
use crate::failure::Failure;
use crate::print;
use crate::target::Target;

/// Callers when nobody says how many, flat out.
const CALLERS_DEFAULT: usize = 32;

pub(crate) fn run(global: &Global, args: &Press) -> Result<(), Failure> {
    let target = Target::find(&args.method, &args.types, global)?;
    let request = target.request(&args.request)?;
    let connections = usize::from(args.connections);
    let pace = match args.rate {
        Some(per_second) => Pace::Rate(per_second),
        None => Pace::FlatOut,
    };
    let callers = match (args.callers, pace) {
        (Some(callers), _) => callers as usize,
        (None, Pace::FlatOut) => CALLERS_DEFAULT,
        (None, Pace::Rate(_)) => CALLERS_MAX as usize,
    };
    let options = ChannelOptions {
        connections: Connections::Several(connections),
        // What is measured is one attempt: a repeated one would hide a failure and show its time.
        retry: RetryOptions {
            attempts_max: 1,
            ..RetryOptions::default()
        },
        ..ChannelOptions::default()
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let channel = target.connect(options, connections.min(cores), global)?;
    let load = Load {
        channel,
        method: target.method,
        request,
        options: CallOptions {
            metadata: args.metadata.iter().cloned().collect(),
            ..CallOptions::default()
        },
        pace,
        callers,
        duration: args.duration,
        timeout: global.timeout,
        stop: stopped_by_signal()?,
    };
    let live = !args.json && io::stdout().is_terminal();
    let (tally, missed, elapsed) = load.run(|second, tally| match live {
        true => print(&report::progress(second, tally)),
        false => Ok(()),
    })?;
    let report = Report {
        method: &target.name,
        pace,
        callers,
        connections,
        elapsed,
        tally: &tally,
        missed: &missed,
    };
    match args.json {
        true => print(&format!("{:#}\n", report.json()))?,
        false => print(&report.table())?,
    }
    match tally.only_error() {
        Some(error) => Err(target.failure(error)),
        None => Ok(()),
    }
}

/// Set by Ctrl-C, or the wish to terminate. At the second one the program ends at once.
fn stopped_by_signal() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds the flag unset and sets it.
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .map_err(|error| {
                Failure::new(
                    format!("cannot listen for signal {signal}: {error}"),
                    "run it where signals can be handled",
                )
            })?;
    }
    Ok(stop)
}
