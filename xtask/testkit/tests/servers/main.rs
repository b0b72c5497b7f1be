//! Each server really runs, does what it is told, and leaves nothing behind. Here is what their
//! tests share.

mod guardian;
mod mariadb;
mod nginx;
mod redis;
mod zookeeper;

use std::fs;

use nexus_testkit::Process;

/// Whether there is a process of this id; one that ended and was not waited for counts.
pub(crate) fn process_exists(pid: u32) -> bool {
    fs::exists(format!("/proc/{pid}")).unwrap()
}

/// The state letter of a process: `T` is stopped, `S` sleeping, `R` running, `Z` ended and not
/// waited for; `X` when there is no such process.
pub(crate) fn process_state(pid: u32) -> char {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before it is in parentheses and may hold anything.
    stat.rsplit_once(") ")
        .and_then(|(_, fields)| fields.chars().next())
        .unwrap_or('X')
}

/// What every server can be told, whatever it is. It runs when this returns.
pub(crate) fn assert_standard_verbs(server: &Process) {
    let first = server.pid();
    assert!(server.is_running());

    server.pause();
    assert_eq!(process_state(first), 'T');
    assert!(server.is_running());
    server.resume();
    assert_ne!(process_state(first), 'T');

    let status = server.kill();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(9)
    );
    assert!(!server.is_running() && !process_exists(first));
    assert_eq!(server.kill(), status, "a second kill is harmless");

    server.restart().unwrap();
    let second = server.pid();
    assert!(server.is_running() && process_exists(second));

    // A paused process cannot hear SIGTERM unless it is resumed.
    server.pause();
    server.stop();
    assert!(!server.is_running() && !process_exists(second));

    server.restart().unwrap();
    let third = server.pid();
    server.restart().unwrap();
    assert!(!process_exists(third), "restart ends the process that runs");
}
