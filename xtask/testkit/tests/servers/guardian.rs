//! Nothing outlives the process that started it, even one killed with SIGKILL.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::process_state;
use nexus_testkit::{Nginx, NginxConfig, Redis, wait_until};

const NAME: &str = "guardian::servers_die_with_the_process_that_started_them";
const DEADLINE: Duration = Duration::from_secs(60);

/// Set in the process that is to be killed: the file it writes its servers' process ids to.
const PIDS_FILE: &str = "NEXUS_TESTKIT_PIDS_FILE";

#[test]
fn servers_die_with_the_process_that_started_them() {
    if let Some(file) = env::var_os(PIDS_FILE) {
        start_servers_and_wait_for_death(Path::new(&file));
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pids");
    let scratch = folder.path().join("scratch");
    fs::create_dir(&scratch).unwrap();
    let files = || fs::read_dir(&scratch).unwrap().count();
    // This test again, in a process of its own.
    let mut starter = Command::new(env::current_exe().unwrap())
        .args(["--exact", NAME])
        .env(PIDS_FILE, &file)
        .env("TMPDIR", &scratch)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the servers run", DEADLINE, || file.exists());
    let pids: Vec<u32> = fs::read_to_string(&file)
        .unwrap()
        .lines()
        .map(|pid| pid.parse().unwrap())
        .collect();
    assert_eq!(pids.len(), 3);
    assert!(pids.iter().all(|pid| runs(*pid)));
    assert_eq!(files(), 1);

    starter.kill().unwrap();
    starter.wait().unwrap();
    wait_until("no server is left", DEADLINE, || {
        !pids.iter().any(|pid| runs(*pid))
    });
    wait_until("no file is left", DEADLINE, || files() == 0);
}

/// Whether there is such a process and it has not ended. Nobody may be there to wait for one whose
/// parent has died.
fn runs(pid: u32) -> bool {
    !matches!(process_state(pid), 'Z' | 'X')
}

/// One server that runs, one that is paused, and one whose work is done by what it forked.
fn start_servers_and_wait_for_death(file: &Path) -> ! {
    let redis = Redis::start().unwrap();
    let paused = Redis::start().unwrap();
    paused.pause();
    let upstreams = vec![([127, 0, 0, 1], redis.port()).into()];
    let nginx = Nginx::start(NginxConfig {
        upstreams,
        ..NginxConfig::default()
    })
    .unwrap();
    let worker = children_of(nginx.pid());
    let written = file.with_extension("new");
    fs::write(
        &written,
        format!("{}\n{}\n{worker}", redis.pid(), paused.pid()),
    )
    .unwrap();
    fs::rename(&written, file).unwrap();
    loop {
        thread::park();
    }
}

/// The process ids of the children of a process with one thread, as the kernel lists them.
fn children_of(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .unwrap()
        .trim()
        .to_owned()
}
