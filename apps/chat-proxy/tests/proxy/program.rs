//! The program itself, with nothing around it that works.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Command, Stdio};

use chat_proto::ids::code;

use crate::client::Client;

const PROGRAM: &str = env!("CARGO_BIN_EXE_chat-proxy");

/// Nobody listens on port 1.
const CONFIG: &str = r#"
[proxy]
listen = "127.0.0.1:0"
[registry]
url = "zookeeper://127.0.0.1:1/nexus"
[redis]
url = "redis://127.0.0.1:1"
[shutdown]
grace = "5s"
"#;

/// Ends the program if the test fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn config(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(text.as_bytes()).expect("written");
    file
}

/// Reads the log up to a line with `wanted`.
fn line_with(log: &mut BufReader<ChildStderr>, wanted: &str) -> String {
    let mut line = String::new();
    while !line.contains(wanted) {
        line.clear();
        let bytes = log.read_line(&mut line).expect("text");
        assert!(bytes > 0, "the program ended without {wanted:?}");
    }
    line
}

#[test]
fn without_redis_and_zookeeper_it_starts_answers_unavailable_and_drains() {
    let file = config(CONFIG);
    let program = Command::new(PROGRAM)
        .arg("-i")
        .arg(file.path())
        .env_remove("RUST_LOG")
        .stderr(Stdio::piped())
        .spawn();
    let mut program = Running(program.expect("started"));
    let mut log = BufReader::new(program.0.stderr.take().expect("piped"));
    let listens = line_with(&mut log, "listens on");
    let address: SocketAddr = listens
        .split_whitespace()
        .last()
        .and_then(|word| word.parse().ok())
        .expect("the line names the address");
    let mut client = Client::connect(address);
    assert_eq!(client.log_in(1, false).error_code, code::UNAVAILABLE);
    client.expect_silence();
    let pid = program.0.id().to_string();
    let killed = Command::new("kill").args(["-TERM", &pid]).status();
    assert!(killed.expect("run").success());
    line_with(&mut log, "drained");
    client.expect_closed();
    assert!(program.0.wait().expect("ended").success());
}

#[test]
fn a_wrong_configuration_names_file_and_key() {
    let file = config("[proxy]\nlissten = \"127.0.0.1:0\"\n");
    let output = Command::new(PROGRAM).arg("-i").arg(file.path()).output();
    let output = output.expect("run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("proxy.lissten"), "{said}");
    assert!(said.contains(&*file.path().to_string_lossy()), "{said}");
}
