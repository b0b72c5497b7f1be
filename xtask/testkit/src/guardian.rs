//! Sees to it that nothing outlives this process, even when it is killed with SIGKILL, which
//! no `Drop` survives.
//!
//! A shell reads, from a pipe only this process writes to, which process groups are alive. When
//! the pipe ends, however that comes, it kills the groups it was last told of and removes this
//! process's temporary files. (The kernel's `PR_SET_PDEATHSIG` would do without the shell, but
//! only for a process that neither forks nor changes its user; nginx does both.)

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::Error;

/// Each line replaces the one before. The signals that end this process are not for the shell. A
/// killed process may still be writing when its files are removed, so that is tried twice.
const SCRIPT: &str = "\
    trap '' HUP INT TERM
    groups=
    while read -r line; do groups=$line; done
    for group in $groups; do kill -s KILL -- \"-$group\"; done
    rm -rf -- \"$0\" || { sleep 1; rm -rf -- \"$0\"; }";

static GUARDIAN: Mutex<Option<Guardian>> = Mutex::new(None);

struct Guardian {
    shell: Child,
    scratch: PathBuf,
    groups: BTreeSet<u32>,
}

/// Starts the command as the leader of a process group that is killed when this process ends.
///
/// It being a group of its own also keeps Ctrl-C in a terminal, which goes to the foreground
/// group, away from it: whoever started the servers decides in which order they end.
pub(crate) fn spawn(command: &mut Command) -> Result<Child, Error> {
    let mut guardian = GUARDIAN.lock().unwrap_or_else(PoisonError::into_inner);
    let guardian = Guardian::of(&mut guardian)?;
    let mut child = command.process_group(0).spawn().map_err(Error::io(format!(
        "starting {}",
        command.get_program().display()
    )))?;
    guardian.groups.insert(child.id());
    if let Err(error) = guardian.tell() {
        guardian.groups.remove(&child.id());
        // Nobody would end it. It has just been started, so it can be killed and waited for.
        let _ = child.kill().and_then(|()| child.wait());
        return Err(error);
    }
    Ok(child)
}

/// To be called when nothing is left of a group: its number may come to mean another one.
pub(crate) fn forget(group: u32) {
    let mut guardian = GUARDIAN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(guardian) = &mut *guardian
        && guardian.groups.remove(&group)
    {
        // A shell that is gone kills nobody.
        let _ = guardian.tell();
    }
}

/// The folder of this process's temporary files, which is removed when this process ends.
pub(crate) fn scratch() -> Result<PathBuf, Error> {
    let mut guardian = GUARDIAN.lock().unwrap_or_else(PoisonError::into_inner);
    Guardian::of(&mut guardian).map(|guardian| guardian.scratch.clone())
}

impl Guardian {
    /// The guardian of this process, started when it is first needed.
    fn of(slot: &mut Option<Self>) -> Result<&mut Self, Error> {
        match slot {
            Some(guardian) => Ok(guardian),
            none => Ok(none.insert(Self::start()?)),
        }
    }

    fn start() -> Result<Self, Error> {
        let scratch = tempfile::Builder::new()
            .prefix("nexus-testkit-")
            .tempdir()
            .map_err(Error::io("creating a temporary folder"))?;
        let shell = Command::new("/bin/sh")
            .args(["-c", SCRIPT])
            .arg(scratch.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(Error::io("starting /bin/sh"))?;
        // From here on the shell removes it.
        let scratch = scratch.keep();
        Ok(Self {
            shell,
            scratch,
            groups: BTreeSet::new(),
        })
    }

    fn tell(&mut self) -> Result<(), Error> {
        let mut line: String = self
            .groups
            .iter()
            .map(|group| format!("{group} "))
            .collect();
        line.push('\n');
        let pipe = self.shell.stdin.as_mut();
        pipe.map_or(Ok(()), |pipe| pipe.write_all(line.as_bytes()))
            .map_err(Error::io("telling the guardian what is alive"))
    }
}
