//! `nexus-rpc`: looks at services, calls them, and puts load on them, from a shell.
//!
//! | module | owns |
//! |---|---|
//! | `args` | the command line |
//! | `directory` | who provides what: the registry, read once |
//! | `types` | the messages of a service, known only now: from a provider or from `.proto` files |
//! | `target` | a method ready to be called: its types, its channel |
//! | `tls` | TLS to providers, for their calls and their pages |
//! | `reach` | why a provider cannot be reached |
//! | `list`, `describe`, `call`, `press` | one command each |
//! | `failure` | what goes wrong, and what to do next |
//!
//! It stands on the public interface of nexus-rpc alone, as any program could.

mod args;
mod call;
mod describe;
mod directory;
mod failure;
mod list;
mod press;
mod reach;
mod target;
mod tls;
mod types;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use self::args::{Args, Command};
use self::failure::Failure;

fn main() -> ExitCode {
    log_to_stderr();
    let Args { global, command } = Args::parse();
    let done = match command {
        Command::List(args) => list::run(&global, &args),
        Command::Describe(args) => describe::run(&global, &args),
        Command::Call(args) => call::run(&global, &args),
        Command::Press(args) => press::run(&global, &args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Without a stderr nobody listens.
            let _ = writeln!(io::stderr(), "{failure}");
            ExitCode::FAILURE
        }
    }
}

/// What the framework warns of, as a line each. `RUST_LOG` shows more, or less.
fn log_to_stderr() {
    let filter = env_logger::Env::default().default_filter_or("warn");
    env_logger::Builder::from_env(filter)
        .format(|out, record| {
            let level = record.level().as_str().to_lowercase();
            writeln!(out, "{level}: {}", record.args())
        })
        .init();
}

/// Writes to stdout. That nobody reads it any more (`| head`) is no failure.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(
            format!("cannot write to stdout: {error}"),
            "see where stdout goes to",
        )),
        _ => Ok(()),
    }
}
