//! The program as a newcomer starts it.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_chat-standalone");

fn start(listen: &str, data: &Path) -> Child {
    Command::new(PROGRAM)
        .args(["--listen", listen, "--data"])
        .arg(data)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Reads until the program has said how to join; returns where it listens.
fn listens(program: &mut Child) -> SocketAddr {
    let mut address = None;
    for line in BufReader::new(program.stdout.as_mut().unwrap()).lines() {
        let line = line.unwrap();
        if let Some(rest) = line.strip_prefix("The chat listens on ") {
            address = rest.split(' ').next().and_then(|word| word.parse().ok());
        }
        if line.contains("cargo run --release -p chat-client -- 127.0.0.1 ") {
            break;
        }
    }
    address.expect("the program says where it listens")
}

#[test]
fn it_says_where_it_listens_serves_and_stops_when_asked() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().join("made if it is missing");
    let mut program = start("127.0.0.1:0", &folder);
    let address = listens(&mut program);
    TcpStream::connect(address).unwrap();
    assert!(folder.is_dir());
    let pid = program.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    assert!(program.wait().unwrap().success());
}

#[test]
fn what_cannot_be_used_is_named_with_the_remedy() {
    let data = tempfile::tempdir().unwrap();
    let mut first = start("127.0.0.1:0", &data.path().join("first"));
    let address = listens(&mut first).to_string();
    let second = start(&address, &data.path().join("second"))
        .wait_with_output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(
        said.contains(&address) && said.contains("--listen"),
        "{said}"
    );
    first.kill().unwrap();
    first.wait().unwrap();

    let file = data.path().join("a file");
    std::fs::write(&file, "").unwrap();
    let third = start("127.0.0.1:0", &file).wait_with_output().unwrap();
    assert_eq!(third.status.code(), Some(1));
    let said = String::from_utf8_lossy(&third.stderr);
    assert!(said.contains("a file") && said.contains("--data"), "{said}");
}
