//! Signals, in a process of their own: this test program, started again.

use std::process::{Command, Output};
use std::time::Duration;

use chat_node::drain::{Drain, Phase};
use chat_node::logging;
use chat_node::reload::Reload;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::raise;

const ROLE: &str = "CHAT_NODE_TEST_SIGNALS";

/// Runs `test` alone in a new process, where `ROLE` is set.
fn run_again(test: &str) -> Output {
    Command::new(std::env::current_exe().expect("this program"))
        .args([test, "--exact", "--nocapture"])
        .env(ROLE, "child")
        .env_remove("RUST_LOG")
        .output()
        .expect("it runs")
}

fn is_child() -> bool {
    std::env::var_os(ROLE).is_some()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_signal_starts_the_drain() {
    if !is_child() {
        let output = run_again("a_signal_starts_the_drain");
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        return;
    }
    let drain = Drain::on_signals(Duration::from_secs(60), Reload::default()).expect("handlers");
    raise(SIGTERM).expect("raised");
    drain.wait();
    drain.stopped();
}

#[test]
fn a_second_signal_ends_the_process_with_code_130_and_says_so() {
    if !is_child() {
        let output = run_again("a_second_signal_ends_the_process_with_code_130_and_says_so");
        assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
        let stderr = stderr(&output);
        let lines: Vec<&str> = stderr
            .lines()
            .filter(|line| line.contains(" signals "))
            .collect();
        assert_eq!(lines.len(), 2, "{stderr}");
        assert!(
            lines[0].ends_with("SIGINT: draining, for at most 60s"),
            "{stderr}"
        );
        assert!(
            lines[1].ends_with("SIGTERM again: ending at once"),
            "{stderr}"
        );
        // 2026-02-03T04:05:06.789Z
        let shape: String = lines[0]
            .chars()
            .take(25)
            .map(|c| if c.is_ascii_digit() { '0' } else { c })
            .collect();
        assert_eq!(shape, "0000-00-00T00:00:00.000Z ");
        return;
    }
    logging::init("info");
    let drain = Drain::on_signals(Duration::from_secs(60), Reload::default()).expect("handlers");
    raise(SIGINT).expect("raised");
    drain.wait();
    raise(SIGTERM).expect("raised");
    loop {
        std::thread::park();
    }
}

#[test]
fn a_hangup_reads_again_and_ends_nothing() {
    if !is_child() {
        let output = run_again("a_hangup_reads_again_and_ends_nothing");
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        return;
    }
    let (read, was_read) = std::sync::mpsc::channel();
    let mut reload = Reload::default();
    reload.add("a test", move || {
        read.send(()).map_err(|error| error.to_string())
    });
    let drain = Drain::on_signals(Duration::from_secs(60), reload).expect("handlers");
    for _ in 0..2 {
        raise(SIGHUP).expect("raised");
        was_read
            .recv_timeout(Duration::from_secs(30))
            .expect("read again");
    }
    assert_eq!(drain.phase(), Phase::Running);
    // It has not counted as the first of two.
    raise(SIGTERM).expect("raised");
    drain.wait();
    drain.stopped();
}
