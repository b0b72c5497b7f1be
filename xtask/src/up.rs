//! `cargo xtask up`: the whole cluster on this machine, until Ctrl-C.

use std::fmt::Arguments;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use nexus_testkit::{Cluster, ClusterFiles, ClusterOptions, Process, Profile, build_binaries};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use crate::packages;

/// How often the parts are looked at.
const WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// The exit code when a second signal cuts the taking down short.
const EXIT_INTERRUPTED: i32 = 130;

/// What may be chosen about the cluster.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How many chat servers
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = count(1))]
    pub(crate) servers: usize,
    /// How many proxies
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = count(1))]
    pub(crate) proxies: usize,
    /// How many ZooKeeper servers; 3 form an ensemble that survives the loss of one
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = count(1))]
    pub(crate) zk: usize,
    /// The address nginx listens on; 0.0.0.0 lets clients on other machines in
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST), value_name = "ADDR")]
    pub(crate) host: IpAddr,
    /// The port nginx listens on
    #[arg(long, default_value_t = 8000)]
    pub(crate) port: u16,
    /// Keep data, configurations and logs in this folder, and take up what is there; by default
    /// nothing is kept
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Encrypt everything: certificates on all sides, made in the data folder
    #[arg(long)]
    pub(crate) tls: bool,
    /// Build without optimisation
    #[arg(long)]
    pub(crate) debug: bool,
}

/// Why the cluster is not, or no longer, up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Something is not installed.
    #[error(transparent)]
    Packages(#[from] packages::Error),
    /// A build or a start failed.
    #[error(transparent)]
    Start(#[from] nexus_testkit::Error),
    /// The signals cannot be caught.
    #[error("catching signals: {0}")]
    Signals(#[from] io::Error),
    /// A part ended by itself.
    #[error("{name} ended unexpectedly ({status}); its log ends:\n{log_tail}")]
    Ended {
        name: String,
        status: String,
        log_tail: String,
    },
}

/// Brings the cluster up, watches it, and takes it down at the first SIGINT, SIGTERM or SIGHUP,
/// or when a part ends.
pub(crate) fn run(options: Options) -> Result<(), Error> {
    packages::install_missing()?;
    let profile = if options.debug {
        Profile::Dev
    } else {
        Profile::Release
    };
    println!("Building ...");
    let binaries = build_binaries(profile)?;
    let interrupted = catch_signals()?;

    println!("Starting ...");
    let cluster = Cluster::start(ClusterOptions {
        servers: options.servers,
        proxies: options.proxies,
        zookeepers: options.zk,
        listen: SocketAddr::new(options.host, options.port),
        data_dir: options.data,
        tls: options.tls,
        ..ClusterOptions::new(binaries)
    })?;
    print_welcome(&cluster);
    let ended = watch(&cluster, &interrupted);
    // Before it is taken down, for then all have ended.
    let ended = ended.map(report);
    take_down(&cluster);
    ended.map_or(Ok(()), Err)
}

fn count(min: u64) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(min..=99)
}

/// A flag the first signal sets. A second one ends this process at once, and with it the cluster.
fn catch_signals() -> io::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // In this order: the flag is not set yet when the first signal looks at it.
        flag::register_conditional_shutdown(signal, EXIT_INTERRUPTED, Arc::clone(&interrupted))?;
        flag::register(signal, Arc::clone(&interrupted))?;
    }
    Ok(interrupted)
}

fn print_welcome(cluster: &Cluster) {
    println!("\nThe cluster is up:\n");
    for process in cluster.processes() {
        let (name, pid, log) = (process.name(), process.pid(), process.log_path().display());
        println!("    {name:<16} pid {pid:<8} log {log}");
    }
    let address = cluster.address();
    let host = if address.ip().is_unspecified() {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    } else {
        address.ip()
    };
    println!("\nIt listens on {address}. To join, from any terminal:\n");
    let tls = cluster.files().map(|files| {
        let ca = files.ca.certificate();
        // What it is for, should the clients know the machine by another name.
        let name = ClusterFiles::SERVER_NAME;
        format!(" --tls --ca {} --server-name {name}", ca.display())
    });
    println!(
        "    cargo run --release -p chat-client -- {host} {}{}\n",
        address.port(),
        tls.unwrap_or_default()
    );
    println!("Ctrl-C takes all of it down.");
}

/// Returns when a signal has come, with nothing, or with a process that has ended.
fn watch<'a>(cluster: &'a Cluster, interrupted: &AtomicBool) -> Option<&'a Process> {
    let processes = cluster.processes();
    while !interrupted.load(Ordering::Relaxed) {
        if let Some(ended) = processes.iter().find(|process| !process.is_running()) {
            return Some(ended);
        }
        thread::sleep(WATCH_INTERVAL);
    }
    None
}

fn report(ended: &Process) -> Error {
    let status = ended
        .exit_status()
        .map(|status| status.to_string())
        .unwrap_or_default();
    Error::Ended {
        name: ended.name().to_owned(),
        status,
        log_tail: ended.log_tail(),
    }
}

/// Those that depend on others first.
fn take_down(cluster: &Cluster) {
    for process in cluster
        .processes()
        .iter()
        .rev()
        .filter(|process| process.is_running())
    {
        say(format_args!("Stopping {} ...", process.name()));
        process.stop();
    }
    say(format_args!("All of it is down."));
}

/// Prints a line, also when nobody is there to read it: a closed terminal is one of the reasons
/// to take the cluster down, and must not prevent it.
fn say(line: Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{line}");
}
