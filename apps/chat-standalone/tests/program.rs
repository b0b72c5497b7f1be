//! The program as a newcomer starts it.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_chat-standalone");

fn start(listen: &str, data: &Path) -> Child {
    start_with(listen, data, &[])
}

fn start_with(listen: &str, data: &Path, options: &[&str]) -> Child {
    Command::new(PROGRAM)
        .args(["--listen", listen, "--data"])
        .arg(data)
        .args(options)
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

#[test]
fn a_certificate_that_cannot_be_used_is_named_and_one_without_its_key_refused() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("chat.pem").display().to_string();
    let said = |options: &[&str]| {
        let program = start_with("127.0.0.1:0", data.path(), options);
        let output = program.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), said)
    };
    let (code, text) = said(&["--tls-cert", &file]);
    assert_eq!(code, Some(2));
    assert!(text.contains("--tls-key"), "{text}");
    let (code, text) = said(&["--tls-cert", &file, "--tls-key", &file]);
    assert_eq!(code, Some(1));
    assert!(text.contains(&file), "{text}");
}
