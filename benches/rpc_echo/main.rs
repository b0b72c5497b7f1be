//! RPC echo: `example.EchoService` on nexus-rpc or tonic, clients that load it, and comparisons.
//!
//! ```sh
//! cargo run --release -p nexus-benches --bin rpc-echo -- compare --callers 64 --connections 1
//! ```
//!
//! | module | owns |
//! |---|---|
//! | `server`, `client` | the two commands, their arguments and what they print |
//! | `nexus`, `tonic`, `bare` | the load on each of the three kinds of client |
//! | `open_loop` | calls at a fixed rate |
//! | `record` | what came of the calls |
//! | `compare`, `tail` | several servers and clients in turn, as processes of their own; tables |

mod bare;
mod client;
mod compare;
mod nexus;
mod open_loop;
mod record;
mod server;
mod tail;
mod tonic;

use clap::{Parser, Subcommand};
use nexus_benches::BoxError;

/// RPC echo.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve; prints its address first and one line of JSON at its end
    Server(server::ServerArgs),
    /// Load a server; prints one line of JSON
    Client(client::ClientArgs),
    /// Run both frameworks in turn, each with its own client; prints a table
    Compare(compare::CompareArgs),
    /// What a few slow calls do to the others; prints a table
    Tail(tail::TailArgs),
}

fn main() -> Result<(), BoxError> {
    match Cli::parse().command {
        Command::Server(args) => server::run(&args),
        Command::Client(args) => client::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Tail(args) => tail::run(&args),
    }
}
