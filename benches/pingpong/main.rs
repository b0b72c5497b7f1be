//! Ping-pong over TCP: an echo server on nexus-net or tokio, a client that keeps one message per
//! connection in flight, and a comparison of the two servers under that client.
//!
//! ```sh
//! cargo run --release -p nexus-benches --bin pingpong -- compare
//! ```

mod client;
mod compare;

use clap::{Parser, Subcommand};
use nexus_benches::BoxError;
use nexus_benches::serve::{self, ServerArgs};

/// Ping-pong over TCP.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send back what comes; prints its address first and one line of JSON at its end
    Server(ServerArgs),
    /// Drive an echo server; prints one line of JSON
    Client(client::ClientArgs),
    /// Run both servers in turn under the client; prints a table
    Compare(compare::CompareArgs),
}

fn main() -> Result<(), BoxError> {
    match Cli::parse().command {
        Command::Server(args) => serve::run(&args),
        Command::Client(args) => client::run(&args),
        Command::Compare(args) => compare::run(&args),
    }
}
