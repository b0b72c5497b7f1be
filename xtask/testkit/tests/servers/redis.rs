//! Redis really runs, survives what the verbs do to it, and leaves nothing behind.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use crate::{assert_standard_verbs, process_exists};
use nexus_testkit::{Redis, RedisOptions, free_port};

/// Sends one inline command and returns the first line of the answer.
fn ask(server: &Redis, command: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    write!(stream, "{command}\r\n").unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

#[test]
fn a_server_answers_on_the_port_it_was_given() {
    let port = free_port();
    let server = Redis::start_with(RedisOptions {
        port: Some(port),
        data_dir: None,
        ..Default::default()
    })
    .unwrap();
    assert_eq!(server.url(), format!("redis://127.0.0.1:{port}"));
    assert_eq!(ask(&server, "SET a 1"), "+OK");
}

#[test]
fn a_restart_brings_it_back_empty() {
    let server = Redis::start().unwrap();
    assert_eq!(ask(&server, "SET a 1"), "+OK");
    server.restart().unwrap();
    assert_eq!(ask(&server, "EXISTS a"), ":0");
}

#[test]
fn verbs_do_what_they_say() {
    let server = Redis::start().unwrap();
    assert_standard_verbs(&server);
    assert_eq!(server.stop().code(), Some(0), "{}", server.log_tail());
    assert!(
        server.log_tail().contains("ready to exit"),
        "{}",
        server.log_tail()
    );
}

#[test]
fn dropping_leaves_neither_process_nor_files() {
    let server = Redis::start().unwrap();
    let (pid, home) = (
        server.pid(),
        server.log_path().parent().unwrap().to_path_buf(),
    );
    assert!(process_exists(pid) && home.exists());
    drop(server);
    assert!(!process_exists(pid) && !home.exists());
}

#[test]
#[should_panic(expected = "has ended")]
fn pausing_an_ended_server_is_refused() {
    let server = Redis::start().unwrap();
    server.kill();
    server.pause();
}
