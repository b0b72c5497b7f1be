//! The `server` command of the programs: an echo server until a signal.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::tls::{Certificate, ServerTlsArgs};
use crate::{BoxError, EchoServer, Runtime, cpu};

/// An echo server's command line.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    /// Address to listen on; port 0 takes any free one
    #[arg(long, default_value = "127.0.0.1:7007")]
    pub addr: SocketAddr,
    /// Threads that serve
    #[arg(long, default_value_t = 1)]
    pub loops: usize,
    /// What it is built on
    #[arg(long, value_enum, default_value = "nexus")]
    pub runtime: Runtime,
    /// End after this long; without it, at SIGINT or SIGTERM
    #[arg(long)]
    pub seconds: Option<u64>,
    /// TLS.
    #[command(flatten)]
    pub tls: ServerTlsArgs,
}

impl ServerArgs {
    /// The arguments of a child process that serves like this, under TLS when there is a certificate.
    pub fn of(runtime: Runtime, loops: usize, certificate: Option<&Certificate>) -> Vec<String> {
        let mut args = vec![
            format!("--loops={loops}"),
            format!("--runtime={}", runtime.name()),
        ];
        if let Some(certificate) = certificate {
            args.push("--tls".to_owned());
            args.push(format!("--cert={}", certificate.cert().display()));
            args.push(format!("--key={}", certificate.key().display()));
        }
        args
    }
}

/// What a server prints at its end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServerReport {
    /// What it was built on.
    pub runtime: String,
    /// Threads that served.
    pub loops: usize,
    /// Bytes sent back.
    pub bytes: u64,
    /// CPU seconds of the process, user and system.
    pub cpu_seconds: f64,
}

/// Serves until told to end. The first line printed is the address, the last a [`ServerReport`].
///
/// # Errors
/// When the server cannot be started.
pub fn run(args: &ServerArgs) -> Result<(), BoxError> {
    let end = end_signal()?;
    // Lives as long as the server: with it goes the file that clients are to trust.
    let certificate = args.tls.certificate()?;
    let server = EchoServer::start(args.runtime, args.addr, args.loops, certificate.as_ref())?;
    serve_until(&end, server.address(), args.seconds)?;
    let bytes = server.stop();
    let report = ServerReport {
        runtime: args.runtime.name().to_owned(),
        loops: args.loops,
        bytes,
        cpu_seconds: cpu::process_seconds(),
    };
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

/// Prints where a server listens, and waits for `end`, at most so many seconds.
///
/// # Errors
/// When nobody reads what is printed, or nobody can send the end any more.
pub fn serve_until(
    end: &mpsc::Receiver<()>,
    address: SocketAddr,
    seconds: Option<u64>,
) -> Result<(), BoxError> {
    println!("{address}");
    std::io::stdout().flush()?;
    match seconds {
        Some(seconds) => {
            let _ = end.recv_timeout(Duration::from_secs(seconds));
        }
        None => end.recv()?,
    }
    Ok(())
}

/// Gets a message at each SIGINT and SIGTERM from here on, which then do not end the process.
///
/// # Errors
/// When the system refuses.
pub fn end_signal() -> Result<mpsc::Receiver<()>, BoxError> {
    let (sender, receiver) = mpsc::channel();
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for _ in &mut signals {
                let _ = sender.send(());
            }
        })?;
    Ok(receiver)
}
