//! The program's configuration, from its command line.

use std::io::Write;
use std::process::{Command, Output};

fn check(file: &std::path::Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_chat-server"))
        .arg("-i")
        .arg(file)
        .arg("--check")
        .output()
        .unwrap()
}

fn configs() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs")
}

#[test]
fn the_shipped_files_are_good() {
    for name in ["server-1.toml", "server-2.toml"] {
        let output = check(&configs().join(name));
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn everything_that_is_wrong_is_named_at_once() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let text = "[server]\nlisten = \"127.0.0.1:0\"\nwrong_key = 1\nloops = \"two\"\n\
                [store]\nurl = \"mysql://127.0.0.1/nexus\"\nconnections = -1\n[redis]\nurl = \"redis://127.0.0.1\"\n\
                [registry]\nurl = \"zookeeper://127.0.0.1:2181\"\n";
    file.write_all(text.as_bytes()).unwrap();
    let output = check(file.path());
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&output.stderr);
    for expected in ["server.wrong_key", "server.loops", "store.connections"] {
        assert!(
            stderr.contains(expected),
            "{expected} is missing in {stderr}"
        );
    }
}

#[test]
fn urls_of_the_wrong_kind_are_named() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let text = "[server]\nlisten = \"127.0.0.1:0\"\nservices = []\n\
                [store]\nurl = \"postgres://x\"\n[redis]\nurl = \"http://x\"\n\
                [registry]\nurl = \"etcd://x\"\n";
    file.write_all(text.as_bytes()).unwrap();
    let output = check(file.path());
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&output.stderr);
    for expected in ["server.services", "store.url", "redis.url", "registry.url"] {
        assert!(
            stderr.contains(expected),
            "{expected} is missing in {stderr}"
        );
    }
}

fn checked(text: &str) -> Result<(), String> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let rest = "[store]\nurl = \"mysql://127.0.0.1/nexus\"\n[redis]\nurl = \"redis://127.0.0.1\"\n\
                [registry]\nurl = \"zookeeper://127.0.0.1:2181\"\n";
    write!(file, "{text}\n{rest}").unwrap();
    let output = check(file.path());
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[test]
fn an_address_that_others_reach_needs_a_gate_or_the_word_that_it_has_none() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "0123456789abcdef0123456789abcdef\n").unwrap();
    let gate = format!("[cluster]\nsecret_file = {:?}", secret.path());
    let wildcard = "[server]\nlisten = \"0.0.0.0:9001\"\nadvertise = \"10.0.0.5:9001\"";
    let error = checked(wildcard).unwrap_err();
    for part in ["key \"server.listen\"", "[cluster]", "accept_anyone"] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(checked(&format!("{wildcard}\n{gate}")), Ok(()));
    assert_eq!(
        checked(&format!("{wildcard}\naccept_anyone = true")),
        Ok(())
    );
    assert_eq!(checked("[server]\nlisten = \"127.0.0.1:9001\""), Ok(()));
    assert_eq!(checked("[server]\nlisten = \"[::1]:9001\""), Ok(()));
}

#[test]
fn commits_wait_a_second_for_each_other_at_most() {
    let with = |interval: &str| {
        checked(&format!(
            "[server]\nlisten = \"127.0.0.1:9001\"\n[limits]\ncommit_interval = \"{interval}\""
        ))
    };
    for interval in ["0s", "1s"] {
        assert_eq!(with(interval), Ok(()));
    }
    let error = with("1001ms").unwrap_err();
    assert!(error.contains("limits.commit_interval"), "{error}");
}

#[test]
fn a_secret_in_the_environment_counts_and_is_not_shown() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let text = "[server]\nlisten = \"0.0.0.0:9001\"\nadvertise = \"10.0.0.5:9001\"\n\
                [store]\nurl = \"mysql://127.0.0.1/nexus\"\n[redis]\nurl = \"redis://127.0.0.1\"\n\
                [registry]\nurl = \"zookeeper://127.0.0.1:2181\"\n";
    file.write_all(text.as_bytes()).unwrap();
    let check = |secret: &str| {
        Command::new(env!("CARGO_BIN_EXE_chat-server"))
            .arg("-i")
            .arg(file.path())
            .arg("--check")
            .env("NEXUS_CLUSTER_SECRET", secret)
            .output()
            .unwrap()
    };
    assert!(check("0123456789abcdef0123456789abcdef").status.success());
    let output = check("0123456789abcdef");
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("NEXUS_CLUSTER_SECRET"), "{stderr}");
    assert!(!stderr.contains("0123456789abcdef"), "{stderr}");
}
