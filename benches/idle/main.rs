//! Memory of idle connections: opens many, and looks at what the server's process grew by.
//!
//! ```sh
//! cargo run --release -p nexus-benches --bin idle -- compare --connections 15000
//! ```
//!
//! What is counted is the process's own anonymous memory. The kernel's part of a connection, several
//! times that, is the same for every server.

mod compare;
mod open;

use clap::{Parser, Subcommand};
use nexus_benches::BoxError;
use nexus_benches::serve::{self, ServerArgs};

/// Memory of idle connections.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    open: Option<open::OpenArgs>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve echo on nexus-net or tokio
    Server(ServerArgs),
    /// Measure both servers; prints a table
    Compare(compare::CompareArgs),
}

fn main() -> Result<(), BoxError> {
    let cli = Cli::parse();
    match (cli.command, cli.open) {
        (Some(Command::Server(args)), _) => serve::run(&args),
        (Some(Command::Compare(args)), _) => compare::run(&args),
        (None, Some(args)) => open::run(&args),
        (None, None) => Err("say which server: --addr and --connections, or `compare`".into()),
    }
}
