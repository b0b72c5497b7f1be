//! The present program again, as a child process: a server or a client of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;

use crate::BoxError;

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
    /// Starts a server on a free port of 127.0.0.1, with these further arguments, and waits until it
    /// listens.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(args: &[String]) -> Result<Self, BoxError> {
        let mut all = ["server", "--addr", "127.0.0.1:0"]
            .map(str::to_owned)
            .to_vec();
        all.extend_from_slice(args);
        let (child, mut output) = start(&all)?;
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
    pub fn stop<R: DeserializeOwned>(mut self) -> Result<R, BoxError> {
        kill_process(Pid::from_child(&self.child.0), Signal::TERM)?;
        Ok(serde_json::from_str(&next_line(&mut self.output)?)?)
    }
}
