//! `cargo xtask chaos`: the fault program, built for speed.

use std::env;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};

use clap::Args;
use nexus_testkit::repository_root;

use crate::packages;

/// What may be chosen. `chat-chaos --help` explains it and has more.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How long; a fault that has begun is seen to its end
    #[arg(long, default_value_t = 10, value_name = "N")]
    minutes: u64,
    /// Do the same faults in the same order as the run that printed this
    #[arg(long)]
    seed: Option<u64>,
    /// Only this fault; can be given several times. A wrong name is answered with all names
    #[arg(long, value_name = "NAME")]
    fault: Vec<String>,
    /// Keep data and logs in this folder
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Build without optimisation
    #[arg(long)]
    debug: bool,
}

/// Why it did not end well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Something is not installed.
    #[error(transparent)]
    Packages(#[from] packages::Error),
    /// Cargo cannot be run.
    #[error("running cargo: {0}")]
    Cargo(#[from] io::Error),
    /// The program has said what is wrong.
    #[error("the fault program failed ({0})")]
    Failed(ExitStatus),
}

/// Builds the program and runs it.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    packages::install_missing()?;
    // Set by the cargo that runs this; then the same toolchain is used.
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command
        .arg("run")
        .args((!options.debug).then_some("--release"))
        .args(["--package", "chat-chaos", "--"])
        .args(["--minutes", &options.minutes.to_string()])
        .args(options.debug.then_some("--debug"));
    if let Some(seed) = options.seed {
        command.args(["--seed", &seed.to_string()]);
    }
    for fault in &options.fault {
        command.args(["--fault", fault]);
    }
    if let Some(data) = &options.data {
        // The program runs in another folder than this one perhaps does.
        command.arg("--data").arg(env::current_dir()?.join(data));
    }
    let status = command.current_dir(repository_root()).status()?;
    match status.success() {
        true => Ok(()),
        false => Err(Error::Failed(status)),
    }
}
