//! The present program again, as a child process: a server or a client of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::serve::ServerReport;
use crate::tls::Certificate;
use crate::{BoxError, Runtime};

/// A child that is killed when dropped.
struct Owned(Child);

impl Drop for Owned {
    fn drop(&mut self) {
        // Fails only for a child that has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(args: &[String]) -> Result<(Owned, BufReader<ChildStdout>), BoxError> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().ok_or("a child without output")?;
    Ok((Owned(child), BufReader::new(output)))
}

fn next_line(output: &mut BufReader<ChildStdout>) -> Result<String, BoxError> {
    let mut line = String::new();
    if output.read_line(&mut line)? == 0 {
        return Err("a child process ended without a word".into());
    }
    Ok(line.trim_end().to_owned())
}

/// Runs this program with `args` to its end and returns the line it printed.
///
/// # Errors
/// When it cannot be started, fails or prints nothing.
pub fn run(args: &[String]) -> Result<String, BoxError> {
    let (mut child, mut output) = start(args)?;
    let line = next_line(&mut output)?;
    let status = child.0.wait()?;
    if !status.success() {
        return Err(format!("{args:?} failed: {status}").into());
    }
    Ok(line)
}

/// This program's `server` command in a process of its own.
pub struct ServerProcess {
    child: Owned,
    output: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl ServerProcess {
    /// Starts a server on a free port of 127.0.0.1, under TLS when there is a certificate, and waits
    /// until it listens.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(
        runtime: Runtime,
        loops: usize,
        certificate: Option<&Certificate>,
    ) -> Result<Self, BoxError> {
        let mut args = vec![
            "server".to_owned(),
            "--addr=127.0.0.1:0".to_owned(),
            format!("--loops={loops}"),
            format!("--runtime={}", runtime.name()),
        ];
        if let Some(certificate) = certificate {
            args.push("--tls".to_owned());
            args.push(format!("--cert={}", certificate.cert().display()));
            args.push(format!("--key={}", certificate.key().display()));
        }
        let (child, mut output) = start(&args)?;
        let address = next_line(&mut output)?.parse()?;
        Ok(Self {
            child,
            output,
            address,
        })
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// Ends it in order and returns what it reports.
    ///
    /// # Errors
    /// When it has ended already.
    pub fn stop(mut self) -> Result<ServerReport, BoxError> {
        kill_process(Pid::from_child(&self.child.0), Signal::TERM)?;
        Ok(serde_json::from_str(&next_line(&mut self.output)?)?)
    }
}
