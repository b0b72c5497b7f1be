//! `cargo run --release`: the whole chat in one process.

use std::fmt::Arguments;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use chat_node::{drain::Drain, logging, reload::Reload};
use chat_standalone::Standalone;
use clap::{Parser, Subcommand};
use nexus_net::{PemFiles, ServerTls};

const GRACE: Duration = Duration::from_secs(5);

/// A chat for everybody who can reach this machine, in one process, with everything it needs.
#[derive(Parser)]
#[command(name = "chat-standalone", version)]
struct Options {
    /// Where clients connect; 0.0.0.0:8000 lets other machines in
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8000")]
    listen: SocketAddr,
    /// The folder that keeps users and messages; made if it is missing
    #[arg(long, value_name = "PATH", default_value = "nexus-data", global = true)]
    data: PathBuf,
    /// Speak TLS with clients: the certificate, and those between it and the root (PEM). Read again at SIGHUP
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Subcommand)]
enum Action {
    /// Copy all users and messages to a new file, also while the chat runs
    Backup {
        /// The file; one that is there already is not overwritten
        file: PathBuf,
    },
}

/// Says something to people. Whether anybody listens does not matter: standard output may be closed, or a full file.
fn say(text: Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{text}");
}

fn main() -> ExitCode {
    let options = Options::parse();
    logging::init("warn");
    let done = match &options.action {
        None => run(&options),
        Some(Action::Backup { file }) => back_up(&options, file),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let (tls, reload) = tls(options)?;
    let (join, with_tls) = match &tls {
        Some(_) => (" --tls", " with TLS"),
        None => ("", ""),
    };
    let drain = Drain::on_signals(GRACE, reload)?;
    let chat = Standalone::start(options.listen, &options.data, |_, proxy| proxy.tls = tls)?;
    let address = chat.local_addr();
    let (host, port) = match address.ip().is_unspecified() {
        true => ("THIS-MACHINE".to_owned(), address.port()),
        false => (address.ip().to_string(), address.port()),
    };
    say(format_args!(
        "The chat listens on {address}{with_tls} and keeps its data in {}.\n\
         Join it from another terminal, as often as you like:\n\
         \n    cargo run --release -p chat-client -- {host} {port}{join}\n\n\
         Ctrl-C stops it.",
        options.data.display()
    ));
    let deadline = drain.wait();
    say(format_args!("Stopping."));
    chat.drain(deadline.saturating_duration_since(Instant::now()));
    drain.stopped();
    Ok(())
}

fn back_up(options: &Options, file: &Path) -> Result<(), Box<dyn std::error::Error>> {
    chat_standalone::back_up(&options.data, file)?;
    let (data, file) = (options.data.display(), file.display());
    say(format_args!("All of {data} is in {file}."));
    Ok(())
}

/// TLS for the clients, if it was asked for.
fn tls(options: &Options) -> Result<(Option<ServerTls>, Reload), nexus_net::Error> {
    let mut reload = Reload::default();
    let (Some(certificate), Some(key)) = (&options.tls_cert, &options.tls_key) else {
        return Ok((None, reload));
    };
    let files = PemFiles {
        certificates: certificate.clone(),
        key: key.clone(),
        ..PemFiles::default()
    };
    let tls = ServerTls::from_pem(&files)?;
    let shared = tls.clone();
    reload.add("the certificate", move || {
        shared.reload(&files).map_err(|error| error.to_string())
    });
    Ok((Some(tls), reload))
}
