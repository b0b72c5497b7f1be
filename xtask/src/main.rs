//! The project's own tasks: `cargo xtask up` runs the whole cluster on this machine,
//! `cargo xtask test` runs all tests, `cargo xtask fuzz` looks for inputs that break the codecs,
//! `cargo xtask chaos` hurts a cluster under load.

#![forbid(unsafe_code)]

mod chaos;
mod fuzz;
mod packages;
mod suite;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own tasks
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask")]
struct Options {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Run the whole cluster on this machine, until Ctrl-C
    Up(up::Options),
    /// Set up whatever is missing and run all tests
    Test,
    /// Feed the codecs with inputs made up by libFuzzer, for a bounded time
    Fuzz(fuzz::Options),
    /// Kill, stop and cut off the parts of a cluster under load, and check that nothing is lost
    Chaos(chaos::Options),
}

fn main() -> ExitCode {
    let done = match Options::parse().task {
        Task::Up(options) => up::run(options).map_err(|error| error.to_string()),
        Task::Test => suite::run().map_err(|error| error.to_string()),
        Task::Fuzz(options) => fuzz::run(&options).map_err(|error| error.to_string()),
        Task::Chaos(options) => chaos::run(&options)
            .map(|never| match never {})
            .map_err(|error| error.to_string()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
    }

    #[test]
    fn up_has_the_defaults_the_readme_names() {
        let options = Options::try_parse_from(["xtask", "up"]).unwrap();
        let Task::Up(up) = options.task else {
            panic!("not up: {options:?}")
        };
        assert_eq!((up.servers, up.proxies, up.zk, up.port), (2, 2, 1, 8000));
        assert!(up.data.is_none() && !up.debug);
    }

    #[test]
    fn a_cluster_without_proxies_is_refused() {
        assert!(Options::try_parse_from(["xtask", "up", "--proxies", "0"]).is_err());
    }
}
