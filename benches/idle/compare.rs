//! Both servers, with connections that were never used and with such that have echoed once.

use clap::Args;
use nexus_benches::process::ServerProcess;
use nexus_benches::serve::{ServerArgs, ServerReport};
use nexus_benches::{BoxError, Runtime};

use crate::open::{self, OpenArgs};

/// A comparison's command line.
#[derive(Debug, Clone, Args)]
pub(crate) struct CompareArgs {
    /// Connections to open; a process may have 20,000 descriptors on many systems
    #[arg(long, default_value_t = 15_000)]
    connections: usize,
    /// Threads of the server
    #[arg(long, default_value_t = 1)]
    loops: usize,
}

/// Bytes echoed before, or none at all.
const USES: [(&str, usize); 3] = [
    ("never used", 0),
    ("after an echo of 64 B", 64),
    ("after an echo of 16 KiB", 16 << 10),
];

/// Measures and prints the table.
pub(crate) fn run(args: &CompareArgs) -> Result<(), BoxError> {
    println!(
        "| {} connections | nexus | tokio | ratio |",
        args.connections
    );
    println!("|---|--:|--:|--:|");
    for (name, echo) in USES {
        let nexus = per_connection(args, Runtime::Nexus, echo)?;
        let tokio = per_connection(args, Runtime::Tokio, echo)?;
        println!(
            "| {name} | {nexus:.0} B | {tokio:.0} B | {:.3} |",
            nexus / tokio
        );
    }
    Ok(())
}

fn per_connection(args: &CompareArgs, runtime: Runtime, echo: usize) -> Result<f64, BoxError> {
    let server = ServerProcess::start(&ServerArgs::of(runtime, args.loops, None))?;
    let open = OpenArgs {
        addr: server.address(),
        connections: args.connections,
        pid: Some(server.pid()),
        echo,
        hold_seconds: 0,
    };
    let (report, connections) = open::measure(&open)?;
    drop(connections);
    let _: ServerReport = server.stop()?;
    let memory = report.memory.ok_or("the server's memory is not known")?;
    Ok(memory.bytes_per_connection)
}
