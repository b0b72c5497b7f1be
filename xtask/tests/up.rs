//! `cargo xtask up` from its start to Ctrl-C, with stand-ins for the chat's nodes and for the
//! cargo that builds them.

use std::fs::{self, File};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nexus_testkit::{free_port, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(120);

/// Says where the programs are, as cargo does when it has built them.
const CARGO: &str = r#"#!/bin/sh
echo "{\"target\":{\"kind\":[\"bin\"]},\"executable\":\"$(dirname "$0")/chat-server\"}"
"#;

/// A Redis on the address of the node.
const NODE: &str = r#"#!/bin/sh
port=$(sed -n 's/^listen = "127\.0\.0\.1:\([0-9]*\)"$/\1/p' "$2")
echo "ready on $port"
exec redis-server --port "$port" --bind 127.0.0.1 --save '' --loglevel warning
"#;

/// A running `xtask up`, and its folder.
struct Up {
    task: Child,
    folder: TempDir,
    port: u16,
}

impl Up {
    fn start() -> Self {
        Self::start_with(&[])
    }

    fn start_with(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, script) in [
            ("cargo", CARGO),
            ("chat-server", NODE),
            ("chat-proxy", NODE),
        ] {
            let path = folder.path().join(name);
            fs::write(&path, script).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let port = free_port();
        let task = Command::new(env!("CARGO_BIN_EXE_xtask"))
            .args(["up", "--port", &port.to_string(), "--data"])
            .arg(folder.path().join("data"))
            .args(options)
            .env("CARGO", folder.path().join("cargo"))
            .stdin(Stdio::null())
            .stdout(File::create(folder.path().join("out")).unwrap())
            .stderr(File::create(folder.path().join("err")).unwrap())
            .spawn()
            .unwrap();
        let mut up = Self { task, folder, port };
        wait_until("the cluster is up or xtask has ended", DEADLINE, || {
            up.read("out").contains("Ctrl-C takes all of it down.")
                || up.task.try_wait().unwrap().is_some()
        });
        assert!(up.task.try_wait().unwrap().is_none(), "{}", up.read("err"));
        up
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// The process ids the welcome lists, with the names.
    fn processes(&self) -> Vec<(String, i32)> {
        self.read("out")
            .lines()
            .filter_map(|line| {
                let (name, rest) = line.split_once(" pid ")?;
                let pid = rest.split_whitespace().next()?.parse().unwrap();
                Some((name.trim().to_owned(), pid))
            })
            .collect()
    }

    fn wait(&mut self) -> ExitStatus {
        wait_until("xtask has ended", DEADLINE, || {
            self.task.try_wait().unwrap().is_some()
        });
        self.task.wait().unwrap()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // Its servers die with it.
        let _ = self.task.kill().and_then(|()| self.task.wait());
    }
}

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

fn exists(pid: i32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

#[test]
fn a_signal_takes_the_cluster_down_in_order() {
    let mut up = Up::start();
    assert!(TcpStream::connect(("127.0.0.1", up.port)).is_ok());
    let out = up.read("out");
    let join = format!(
        "cargo run --release -p chat-client -- 127.0.0.1 {}",
        up.port
    );
    assert!(out.contains(&join), "{out}");
    assert!(
        up.path("data/chat-proxy-1/chat-proxy-1.log").exists(),
        "{out}"
    );
    let processes = up.processes();
    assert_eq!(processes.len(), 8, "{out}");
    assert!(processes.iter().all(|(_, pid)| exists(*pid)));

    signal(up.task.id().cast_signed(), Signal::INT);
    assert!(up.wait().success(), "{}", up.read("err"));
    assert!(!processes.iter().any(|(_, pid)| exists(*pid)));
    let out = up.read("out");
    let stopped: Vec<&str> = out
        .lines()
        .filter_map(|line| line.strip_prefix("Stopping ")?.strip_suffix(" ..."))
        .collect();
    let expected = "nginx chat-proxy-2 chat-proxy-1 chat-server-2 chat-server-1 zookeeper redis \
                    mariadb";
    assert_eq!(stopped.join(" "), expected);
    assert!(out.ends_with("All of it is down.\n"), "{out}");
}

#[test]
fn a_part_that_dies_is_named_and_the_rest_is_taken_down() {
    let mut up = Up::start();
    let processes = up.processes();
    let (_, redis) = processes.iter().find(|(name, _)| name == "redis").unwrap();
    signal(*redis, Signal::KILL);
    assert!(!up.wait().success());
    let err = up.read("err");
    assert!(
        err.starts_with("redis ended unexpectedly (signal: 9"),
        "{err}"
    );
    assert!(
        err.contains("Ready to accept connections"),
        "the log's end is shown: {err}"
    );
    assert!(!processes.iter().any(|(_, pid)| exists(*pid)));
}

#[test]
fn with_tls_it_says_whom_to_trust() {
    let mut up = Up::start_with(&["--tls"]);
    let out = up.read("out");
    let ca = up.path("data/tls/ca.pem").canonicalize().unwrap();
    let join = format!(
        "chat-client -- 127.0.0.1 {} --tls --ca {} --server-name chat-proxy",
        up.port,
        ca.display()
    );
    assert!(out.contains(&join), "{out}");
    let config = up.read("data/chat-server-1/config.toml");
    for part in ["[cluster]", "secret_file", "rediss://", "mysql://nexus@"] {
        assert!(config.contains(part), "{part}: {config}");
    }
    signal(up.task.id().cast_signed(), Signal::INT);
    assert!(up.wait().success(), "{}", up.read("err"));
}
