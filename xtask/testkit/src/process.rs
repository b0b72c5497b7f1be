//! A child process: started, waited for, and ended by its process id.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, test_kill_process_group,
    waitid,
};

use crate::wait::holds_within;
use crate::{Error, guardian, limits};

/// How long a process may take from its start until it is ready.
pub const READY_DEADLINE: Duration = Duration::from_secs(60);

/// How long [`Process::stop`] waits after SIGTERM before it sends SIGKILL.
pub const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// How much of a log [`Process::log_tail`] shows.
const LOG_TAIL_BYTES: u64 = 8 * 1024;

/// A running, paused or ended child process, which can be started again.
///
/// All methods may be called from any thread. Those that wait (`kill`, `stop`, `restart`) hold
/// the others up meanwhile. Dropping it kills the process and waits for its end.
pub struct Process {
    launch: Launch,
    state: Mutex<State>,
}

/// What is started, and how to see that it is ready.
pub struct Launch {
    /// What messages call the process.
    pub name: String,
    /// The program's path.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Where both of its outputs are appended.
    pub log: PathBuf,
    /// Whether the process does its work; asked every few milliseconds until it says so.
    pub ready: ReadyProbe,
}

/// Says whether a process is ready, from what it has printed since it was last started or by
/// trying. See [`Launch::ready`].
pub type ReadyProbe = Box<dyn Fn(&Output<'_>) -> bool + Send + Sync>;

/// What a process has printed since some moment.
#[derive(Debug)]
pub struct Output<'a> {
    log: &'a Path,
    from_bytes: u64,
}

struct State {
    child: Child,
    /// How the process ended, once nothing is left of it or of what it forked.
    ended: Option<ExitStatus>,
    /// The length of the log when `child` was started.
    log_from_bytes: u64,
}

impl Process {
    /// Starts the process and waits until it is ready.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when it cannot be started, [`Error::Exited`] when it ends and
    /// [`Error::NotReady`] when it is silent instead of being ready. The process is gone then.
    pub fn start(launch: Launch) -> Result<Self, Error> {
        let process = Self::spawn(launch)?;
        process.wait_ready()?;
        Ok(process)
    }

    /// Starts the process and does not wait. [`Self::wait_ready`] does.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when it cannot be started.
    pub fn spawn(launch: Launch) -> Result<Self, Error> {
        let state = Mutex::new(launch.spawn()?);
        Ok(Self { launch, state })
    }

    /// Waits until the process is ready, [`READY_DEADLINE`] at most.
    ///
    /// # Errors
    ///
    /// [`Error::Exited`] and [`Error::NotReady`].
    pub fn wait_ready(&self) -> Result<(), Error> {
        let output = Output {
            log: &self.launch.log,
            from_bytes: self.state().log_from_bytes,
        };
        let start = Instant::now();
        let mut ended = None;
        let settled = holds_within(READY_DEADLINE, || {
            ended = self.exit_status();
            ended.is_some() || (self.launch.ready)(&output)
        });
        let name = self.launch.name.clone();
        match (settled, ended) {
            (true, None) => Ok(()),
            (_, Some(status)) => Err(Error::Exited {
                name,
                status,
                log_tail: self.log_tail(),
            }),
            (false, None) => {
                let waited = start.elapsed();
                Err(Error::NotReady {
                    name,
                    waited,
                    log_tail: self.log_tail(),
                })
            }
        }
    }

    /// What messages call the process.
    pub fn name(&self) -> &str {
        &self.launch.name
    }

    /// The process id; of the last process when it has ended. A restart changes it.
    pub fn pid(&self) -> u32 {
        self.state().child.id()
    }

    /// Whether the process has not ended. A paused process is running.
    pub fn is_running(&self) -> bool {
        self.exit_status().is_none()
    }

    /// How the process ended; `None` while it runs.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.state().exit_status()
    }

    /// Ends the process, and all it has forked, with SIGKILL and waits for the end. Returns how it
    /// ended, which is its own doing when it had ended before.
    pub fn kill(&self) -> ExitStatus {
        self.state().kill()
    }

    /// Asks the process to end with SIGTERM and waits for its end; after [`STOP_DEADLINE`] it is
    /// killed, which the returned status shows. A paused process is resumed to hear of it.
    pub fn stop(&self) -> ExitStatus {
        self.state().stop()
    }

    /// Starts the process again, with the same arguments, ports and data, and waits until it is
    /// ready. Stops it first when it runs.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn restart(&self) -> Result<(), Error> {
        self.respawn()?;
        self.wait_ready()
    }

    /// [`Self::restart`] without waiting until it is ready.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when it cannot be started.
    pub fn respawn(&self) -> Result<(), Error> {
        let mut state = self.state();
        state.stop();
        *state = self.launch.spawn()?;
        Ok(())
    }

    /// Suspends the process, and all it has forked, with SIGSTOP; returns when it stands still.
    /// Its connections stay open.
    ///
    /// # Panics
    ///
    /// When the process has ended.
    #[track_caller]
    pub fn pause(&self) {
        let mut state = self.state();
        let paused = state.signal_group(Signal::STOP);
        assert!(
            paused,
            "{} has ended: it cannot be paused",
            self.launch.name
        );
        // `NOWAIT` leaves the end of the process, if that comes first, to be seen by `Child`.
        let changes = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        // Refused only when there is no such child, and then nothing runs either.
        let _ = waitid(WaitId::Pid(state.process_id()), changes);
    }

    /// Lets a paused process go on, with SIGCONT.
    ///
    /// # Panics
    ///
    /// When the process has ended.
    #[track_caller]
    pub fn resume(&self) {
        let resumed = self.state().signal_group(Signal::CONT);
        assert!(
            resumed,
            "{} has ended: it cannot be resumed",
            self.launch.name
        );
    }

    /// Tells the process to read its configuration again, with SIGHUP. What it prints from then
    /// on is returned; `None` when it has ended.
    pub fn hang_up(&self) -> Option<Output<'_>> {
        let output = Output {
            log: &self.launch.log,
            from_bytes: self.log_length_bytes(),
        };
        self.state().signal(Signal::HUP).then_some(output)
    }

    /// The file both of the process's outputs go to. A restart appends to it.
    pub fn log_path(&self) -> &Path {
        &self.launch.log
    }

    /// The last lines of the log, over restarts; what prevents reading it when it cannot be read.
    pub fn log_tail(&self) -> String {
        let log = &self.launch.log;
        let from_bytes = self.log_length_bytes().saturating_sub(LOG_TAIL_BYTES);
        Output { log, from_bytes }
            .read()
            .unwrap_or_else(|error| format!("({}: {error})", log.display()))
    }

    fn log_length_bytes(&self) -> u64 {
        fs::metadata(&self.launch.log).map_or(0, |metadata| metadata.len())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process")
            .field("name", &self.name())
            .field("pid", &self.pid())
            .finish()
    }
}

impl Launch {
    fn spawn(&self) -> Result<State, Error> {
        let opening = || Error::io(format!("opening {}", self.log.display()));
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(opening())?;
        let log_from_bytes = log.metadata().map_err(opening())?.len();
        limits::raise_open_files();
        let mut command = Command::new(&self.program);
        command.args(&self.args).stdin(Stdio::null());
        command
            .stdout(log.try_clone().map_err(opening())?)
            .stderr(log);
        let child = guardian::spawn(&mut command)?;
        Ok(State {
            child,
            ended: None,
            log_from_bytes,
        })
    }
}

impl fmt::Debug for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Launch")
            .field("name", &self.name)
            .field("program", &self.program)
            .field("args", &self.args)
            .finish_non_exhaustive()
    }
}

impl Output<'_> {
    /// Whether the text occurs in the output.
    pub fn contains(&self, text: &str) -> bool {
        self.read().is_ok_and(|output| output.contains(text))
    }

    /// Whether the condition holds for a line of the output.
    pub fn any_line(&self, condition: impl FnMut(&str) -> bool) -> bool {
        self.read()
            .is_ok_and(|output| output.lines().any(condition))
    }

    fn read(&self) -> io::Result<String> {
        let mut file = File::open(self.log)?;
        file.seek(SeekFrom::Start(self.from_bytes))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl State {
    fn exit_status(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() && self.has_exited() {
            return Some(self.kill());
        }
        self.ended
    }

    /// Looks without waiting for the child in the system's sense, so that its process id, which
    /// is also its group's, stays its own until [`Self::kill`] has seen to the whole group.
    fn has_exited(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        // Fails only for a process that is not our child.
        waitid(WaitId::Pid(self.process_id()), options).is_ok_and(|change| change.is_some())
    }

    fn kill(&mut self) -> ExitStatus {
        if let Some(status) = self.ended {
            return status;
        }
        let group = self.process_id();
        // Also when the process itself has ended: what it forked may live on. Fails never, as the
        // process has not been waited for.
        let _ = kill_process_group(group, Signal::KILL);
        let status = self.child.wait().expect("our own child can be waited for");
        holds_within(STOP_DEADLINE, || !group_runs(group));
        guardian::forget(self.child.id());
        self.ended = Some(status);
        status
    }

    fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.signal_group(Signal::CONT);
        holds_within(STOP_DEADLINE, || self.exit_status().is_some());
        self.kill()
    }

    /// Sends the signal to the process unless it has ended, and says whether it was sent.
    fn signal(&mut self, signal: Signal) -> bool {
        self.exit_status().is_none() && kill_process(self.process_id(), signal).is_ok()
    }

    /// As [`Self::signal`], to the process and all it has forked.
    fn signal_group(&mut self, signal: Signal) -> bool {
        self.exit_status().is_none() && kill_process_group(self.process_id(), signal).is_ok()
    }

    fn process_id(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

/// Whether a process of the group still runs. The ended ones nobody has waited for (their parent
/// is gone, and a container's first process may not care) hold no socket and no file.
fn group_runs(group: Pid) -> bool {
    if test_kill_process_group(group).is_err() {
        return false;
    }
    let Ok(processes) = fs::read_dir("/proc") else {
        return false;
    };
    processes.flatten().any(|process| {
        fs::read_to_string(process.path().join("stat"))
            .is_ok_and(|stat| is_running_member(&stat, group.as_raw_pid()))
    })
}

/// Reads a line of `/proc/PID/stat`: `PID (NAME) STATE PARENT GROUP ...`; the name may hold
/// anything.
fn is_running_member(stat: &str, group: i32) -> bool {
    let mut fields = stat
        .rsplit_once(") ")
        .map_or("", |(_, fields)| fields)
        .split(' ');
    let state = fields.next();
    let of_group = fields.nth(1).and_then(|field| field.parse().ok()) == Some(group);
    of_group && !matches!(state, Some("Z" | "X"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_told_by_its_group_and_its_state() {
        assert!(is_running_member("12 (a) b) S 1 7 7 0", 7));
        assert!(!is_running_member("12 (a) b) Z 1 7 7 0", 7));
        assert!(!is_running_member("12 (a) b) S 7 1 7 0", 7));
        assert!(!is_running_member("", 7));
    }
}
