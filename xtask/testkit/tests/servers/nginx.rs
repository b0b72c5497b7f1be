//! nginx really passes connections on, changes its upstreams, and leaves nothing behind.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crate::{assert_standard_verbs, process_exists};
use nexus_testkit::{Nginx, NginxConfig, wait_until};

/// A server that greets each connection with `name` and then sends back what it gets.
fn upstream(name: u8) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                stream.write_all(&[name])?;
                io::copy(&mut stream.try_clone()?, &mut stream)
            });
        }
    });
    address
}

fn start(upstreams: Vec<SocketAddr>) -> Nginx {
    Nginx::start(NginxConfig {
        upstreams,
        ..NginxConfig::default()
    })
    .unwrap()
}

/// Connects and returns the connection and the name of the upstream it ended at.
fn connect(nginx: &Nginx) -> io::Result<(TcpStream, u8)> {
    let mut stream = TcpStream::connect(nginx.address())?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut name = [0];
    stream.read_exact(&mut name)?;
    Ok((stream, name[0]))
}

fn assert_echoes(stream: &mut TcpStream) {
    stream.write_all(b"hello").unwrap();
    let mut echo = [0; 5];
    stream.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"hello");
}

#[test]
fn connections_are_spread_over_the_upstreams() {
    let nginx = start(vec![upstream(b'a'), upstream(b'b')]);
    let mut names: Vec<u8> = (0..4)
        .map(|_| {
            let (mut stream, name) = connect(&nginx).unwrap();
            assert_echoes(&mut stream);
            name
        })
        .collect();
    names.sort_unstable();
    assert_eq!(names, b"aabb");
}

#[test]
fn an_upstream_that_refuses_is_left_out() {
    let refusing = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let nginx = start(vec![refusing, upstream(b'b')]);
    for _ in 0..4 {
        assert_eq!(connect(&nginx).unwrap().1, b'b');
    }
}

#[test]
fn a_reload_moves_new_connections_and_keeps_old_ones() {
    let nginx = start(vec![upstream(b'a')]);
    let (mut old, name) = connect(&nginx).unwrap();
    assert_eq!(name, b'a');
    let pid = nginx.pid();
    nginx.reload(vec![upstream(b'b')]).unwrap();
    let (mut new, name) = connect(&nginx).unwrap();
    assert_eq!(name, b'b');
    assert_echoes(&mut new);
    assert_echoes(&mut old);
    assert_eq!(nginx.pid(), pid);
    nginx.restart().unwrap();
    assert_eq!(
        connect(&nginx).unwrap().1,
        b'b',
        "a restart keeps the reloaded upstreams"
    );
}

#[test]
fn a_killed_nginx_closes_its_connections_and_accepts_none() {
    let nginx = start(vec![upstream(b'a')]);
    let (mut stream, _) = connect(&nginx).unwrap();
    nginx.kill();
    // Nothing of it may live on, a worker for instance, to hold the connection or the port.
    assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
    assert!(TcpStream::connect(nginx.address()).is_err());
    nginx.restart().unwrap();
    assert!(connect(&nginx).is_ok());
}

#[test]
fn a_paused_nginx_passes_nothing_until_it_is_resumed() {
    let nginx = start(vec![upstream(b'a')]);
    let (mut stream, _) = connect(&nginx).unwrap();
    nginx.pause();
    stream.write_all(b"hello").unwrap();
    stream
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    nginx.resume();
    let mut first = [0];
    wait_until("the echo", Duration::from_secs(60), || {
        stream.read(&mut first).is_ok()
    });
    assert_eq!(&first, b"h");
}

#[test]
fn verbs_do_what_they_say() {
    let nginx = start(vec![upstream(b'a')]);
    assert_standard_verbs(&nginx);
    assert_eq!(nginx.stop().code(), Some(0), "{}", nginx.log_tail());
}

#[test]
fn dropping_leaves_neither_process_nor_files() {
    let nginx = start(vec![upstream(b'a')]);
    let (pid, home) = (
        nginx.pid(),
        nginx.log_path().parent().unwrap().to_path_buf(),
    );
    drop(nginx);
    assert!(!process_exists(pid) && !home.exists());
}

#[test]
fn a_configuration_nginx_refuses_is_an_error_with_its_words() {
    let error = Nginx::start(NginxConfig::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("no servers are inside upstream"), "{error}");
}
