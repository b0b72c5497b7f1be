//! What concerns the whole process, descriptors above all. These tests run in a child process of their
//! own: this binary again, with one test selected.

use std::fs::File;
use std::net::TcpStream;
use std::process::Command;

use nexus_net::{ConnectionOptions, ServerOptions};

use crate::support::*;

const CHILD: &str = "NEXUS_NET_TEST_CHILD";

/// Runs `body` in a child process that may have `descriptors_max` descriptors.
fn in_child(test: &str, descriptors_max: usize, body: impl FnOnce()) {
    if std::env::var(CHILD).as_deref() == Ok(test) {
        return body();
    }
    let status = Command::new("sh")
        .arg("-c")
        .arg(format!("ulimit -n {descriptors_max} && exec \"$@\""))
        .arg("sh")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, test)
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed in its process");
}

fn take_all_descriptors() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn accept_survives_running_out_of_descriptors_and_serves_again_afterwards() {
    let test = "system::accept_survives_running_out_of_descriptors_and_serves_again_afterwards";
    in_child(test, 128, || {
        let served = serve(ConnectionOptions::default(), echo);
        let mut first = served.connect();
        assert_echoes(&mut first, b"first");
        // The test takes the rest of the descriptors, but for one: a connection that is then made
        // has none left at the server's end.
        let mut taken = take_all_descriptors();
        for _ in 0..20 {
            taken.pop();
            let turned_away = served.connect();
            wait_until_gone(&turned_away);
            drop(turned_away);
            taken.push(File::open("/dev/null").unwrap());
        }
        assert_echoes(&mut first, b"still served");
        drop(taken);
        for _ in 0..5 {
            assert_echoes(&mut served.connect(), b"served again");
        }
    });
}

#[test]
fn a_connection_that_could_not_even_be_turned_away_is_served_later() {
    let test = "system::a_connection_that_could_not_even_be_turned_away_is_served_later";
    in_child(test, 128, || {
        // The listener gets to its loop when there is no descriptor left that it could reserve.
        let loops = nexus_net::LoopGroup::start("test", 1).unwrap();
        let blocked = block(&loops.handles()[0]);
        let (sender, _) = Events::channel();
        let echo = script(echo);
        let options = ServerOptions::default();
        let server = nexus_net::TcpServer::start(&loops, local(), options, move |_| {
            Scripted::boxed(&echo, &sender)
        })
        .unwrap();
        let mut taken = take_all_descriptors();
        blocked.release();
        on_loop(&loops.handles()[0], |_| ());
        taken.pop();
        let mut waiting = connect(server.local_addr());
        // It hangs in the kernel's queue, and no further edge will tell of it.
        on_loop(&loops.handles()[0], |_| ());
        drop(taken);
        assert_echoes(&mut waiting, b"late");
    });
}

#[test]
fn nothing_is_left_of_a_thousand_connections() {
    let test = "system::nothing_is_left_of_a_thousand_connections";
    in_child(test, 4096, || {
        let options = ServerOptions {
            connection: ConnectionOptions {
                idle_timeout: Some(DEADLINE),
                ..ConnectionOptions::default()
            },
            ..ServerOptions::default()
        };
        let served = serve_with(2, options, |conn, call| match call {
            Call::Opened => {
                conn.set_timer(DEADLINE, 1);
            }
            // Every way to end has its share.
            Call::Data(input) if input.starts_with(b"abort") => conn.abort(),
            Call::Data(input) if input.starts_with(b"close") => conn.close(),
            other => echo(conn, other),
        });
        let address = served.address();
        let round = |count: usize| {
            let mut streams: Vec<TcpStream> = (0..count).map(|_| connect(address)).collect();
            for (n, stream) in streams.iter_mut().enumerate() {
                match n % 4 {
                    0 => assert_echoes(stream, b"hello"),
                    1 => std::io::Write::write_all(stream, b"abort").unwrap(),
                    2 => std::io::Write::write_all(stream, b"close").unwrap(),
                    _ => {}
                }
            }
            drop(streams);
            served.wait_until_empty();
        };
        // Once before counting: whatever is made at first use is there then.
        round(4);
        let before = descriptors();
        round(500);
        round(500);
        for handle in served.loops.handles() {
            let metrics = handle.metrics();
            wait_for("connections to end", || metrics.connections() == 0);
            wait_for("timers to end", || metrics.timers() == 0);
        }
        assert_eq!(descriptors(), before);
        for event in served.events.rest() {
            assert!(!matches!(event, Event::WrongCloses(_)));
        }
    });
}

#[test]
fn loops_servers_and_clients_give_back_all_their_descriptors() {
    let test = "system::loops_servers_and_clients_give_back_all_their_descriptors";
    in_child(test, 4096, || {
        let before = descriptors();
        for _ in 0..20 {
            let served = serve_with(3, ServerOptions::default(), echo);
            let mut stream = served.connect();
            assert_echoes(&mut stream, b"hello");
            drop(served);
            wait_until_gone(&stream);
        }
        assert_eq!(descriptors(), before);
    });
}

#[test]
fn a_loop_that_never_ran_refuses_and_tells_its_handlers() {
    let (sender, events) = Events::channel();
    let listener = std::net::TcpListener::bind(local()).unwrap();
    let address = listener.local_addr().unwrap();
    let otherwise = script(otherwise);
    let mut event_loop = nexus_net::EventLoop::new().unwrap();
    let handle = event_loop.handle();
    event_loop
        .context()
        .connect(address, std::sync::Arc::default(), |_| {
            Scripted::boxed(&otherwise, &sender)
        })
        .unwrap();
    drop(event_loop);
    assert!(matches!(
        events.next(),
        Event::Closed(nexus_net::CloseReason::LoopStopped)
    ));
    assert!(handle.post(|_| ()).is_err());
}
