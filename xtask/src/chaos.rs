//! `cargo xtask chaos`: the fault program, built for speed.

use std::convert::Infallible;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use clap::Args;
use nexus_testkit::{Profile, build_binaries_with};

use crate::packages;

/// What may be chosen. `chat-chaos --help` explains it and has more.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How long; a fault that has begun is seen to its end
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_080))]
    minutes: u64,
    /// Do the same faults in the same order as the run that printed this
    #[arg(long)]
    seed: Option<u64>,
    /// Only this fault; can be given several times. A wrong name is answered with all names
    #[arg(long, value_name = "NAME")]
    fault: Vec<String>,
    /// Encrypt everything between clients and parts, and between the parts (not the chat of `fill-disk`)
    #[arg(long)]
    tls: bool,
    /// Keep data and logs in this folder
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Build without optimisation
    #[arg(long)]
    debug: bool,
}

/// Why the program is not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Something is not installed.
    #[error(transparent)]
    Packages(#[from] packages::Error),
    /// A build failed.
    #[error(transparent)]
    Build(#[from] nexus_testkit::Error),
    /// The program cannot be run.
    #[error("running {}: {source}", program.display())]
    NotRun { program: PathBuf, source: io::Error },
}

/// Builds the program and becomes it: signals go to it and to nobody else, and how it ends is how this ends.
pub(crate) fn run(options: &Options) -> Result<Infallible, Error> {
    packages::install_missing()?;
    let profile = match options.debug {
        true => Profile::Dev,
        false => Profile::Release,
    };
    println!("Building ...");
    let programs = build_binaries_with(profile, &["chat-chaos"])?;
    let mut command = Command::new(programs.join("chat-chaos"));
    command
        .args(["--minutes", &options.minutes.to_string()])
        .arg("--programs")
        .arg(&programs)
        .args(options.tls.then_some("--tls"));
    if let Some(seed) = options.seed {
        command.args(["--seed", &seed.to_string()]);
    }
    for fault in &options.fault {
        command.args(["--fault", fault]);
    }
    if let Some(data) = &options.data {
        command.arg("--data").arg(data);
    }
    let source = command.exec();
    let program = programs.join("chat-chaos");
    Err(Error::NotRun { program, source })
}
