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
