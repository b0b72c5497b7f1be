//! The program itself, with nothing around it that works.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
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

fn start(config: &std::path::Path) -> (Running, BufReader<ChildStderr>) {
    let program = Command::new(PROGRAM)
        .arg("-i")
        .arg(config)
        .env_remove("RUST_LOG")
        .stderr(Stdio::piped())
        .spawn();
    let mut program = Running(program.expect("started"));
    let log = BufReader::new(program.0.stderr.take().expect("piped"));
    (program, log)
}

/// The address at the end of a line.
fn address(line: &str) -> SocketAddr {
    let last = line.split_whitespace().last();
    last.and_then(|word| word.parse().ok())
        .expect("the line names the address")
}

fn signal(program: &Running, signal: &str) {
    let pid = program.0.id().to_string();
    let sent = Command::new("kill").args([signal, &pid]).status();
    assert!(sent.expect("run").success());
}

fn page(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connected");
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn pages_are_shown_on_a_port_of_their_own_and_a_hangup_ends_nothing() {
    let file = config(&format!("{CONFIG}\n[admin]\nlisten = \"127.0.0.1:0\"\n"));
    let (mut program, mut log) = start(file.path());
    let pages = address(&line_with(&mut log, "pages on"));
    let clients = address(&line_with(&mut log, "listens on"));
    assert!(page(pages, "/health").starts_with("HTTP/1.1 200"));
    let _client = Client::connect(clients);
    let metrics = page(pages, "/metrics");
    assert!(metrics.contains("nexus_net_connections"), "{metrics}");
    signal(&program, "-HUP");
    line_with(&mut log, "nothing to read again");
    assert!(page(pages, "/health").starts_with("HTTP/1.1 200"));
    signal(&program, "-TERM");
    line_with(&mut log, "drained");
    assert!(program.0.wait().expect("ended").success());
}

#[test]
fn without_redis_and_zookeeper_it_starts_answers_unavailable_and_drains() {
    let file = config(CONFIG);
    let (mut program, mut log) = start(file.path());
    let mut client = Client::connect(address(&line_with(&mut log, "listens on")));
    assert_eq!(client.log_in(1, false).error_code, code::UNAVAILABLE);
    client.expect_silence();
    signal(&program, "-TERM");
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
