//! ZooKeeper really runs, alone and as an ensemble, and leaves nothing behind.

use std::process::Command;
use std::time::Duration;

use crate::{assert_standard_verbs, process_exists};
use nexus_testkit::{ZooKeeper, ZooKeeperEnsemble, wait_until};

const DEADLINE: Duration = Duration::from_secs(60);

/// Runs one command of ZooKeeper's own command-line client; everything it prints.
fn zk_cli(addresses: &str, command: &[&str]) -> String {
    let output = Command::new("java")
        .args(["-cp", "/usr/share/java/zookeeper.jar"])
        .args(["org.apache.zookeeper.ZooKeeperMain", "-server", addresses])
        .args(command)
        .output()
        .unwrap();
    [output.stdout, output.stderr]
        .map(|bytes| String::from_utf8(bytes).unwrap())
        .concat()
}

#[test]
fn a_single_server_keeps_its_nodes_over_kill_and_restart() {
    let server = ZooKeeper::start().unwrap();
    assert_eq!(server.mode().as_deref(), Some("standalone"));
    assert_eq!(server.address(), format!("127.0.0.1:{}", server.port()));
    let created = zk_cli(&server.address(), &["create", "/kept", "forty-two"]);
    assert!(created.contains("Created /kept"), "{created}");
    server.kill();
    assert_eq!(server.mode(), None);
    server.restart().unwrap();
    let kept = zk_cli(&server.address(), &["get", "/kept"]);
    assert!(kept.contains("forty-two"), "{kept}");
}

#[test]
fn verbs_do_what_they_say() {
    let server = ZooKeeper::start().unwrap();
    assert_standard_verbs(&server);
}

#[test]
fn dropping_leaves_neither_process_nor_files() {
    let server = ZooKeeper::start().unwrap();
    let (pid, home) = (
        server.pid(),
        server.log_path().parent().unwrap().to_path_buf(),
    );
    assert!(process_exists(pid) && home.exists());
    drop(server);
    assert!(!process_exists(pid) && !home.exists());
}

#[test]
fn an_ensemble_survives_its_leader_and_comes_back_after_all_were_killed() {
    let ensemble = ZooKeeperEnsemble::start(3).unwrap();
    assert_eq!(ensemble.addresses().split(',').count(), 3);
    let created = zk_cli(&ensemble.addresses(), &["create", "/kept", "forty-two"]);
    assert!(created.contains("Created /kept"), "{created}");

    let leader = ensemble.leader().unwrap();
    leader.kill();
    wait_until("a new leader", DEADLINE, || ensemble.leader().is_some());
    leader.restart().unwrap();
    assert_eq!(leader.mode().as_deref(), Some("follower"));

    ensemble.kill();
    assert!(ensemble.nodes().iter().all(|node| !node.is_running()));
    ensemble.restart().unwrap();
    let kept = zk_cli(&ensemble.node(0).address(), &["get", "/kept"]);
    assert!(kept.contains("forty-two"), "{kept}");
}
