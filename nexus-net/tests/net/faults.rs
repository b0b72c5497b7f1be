//! Panics in the user's code lose one connection and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nexus_net::{
    ClientOptions, CloseReason, ConnectionOptions, LoopGroup, ServerOptions, TcpClient, TcpServer,
};

use crate::support::*;

/// A server that echoes, except that a connection that sends "!" panics in the named call.
fn serve_panics(in_call: &'static str) -> Served {
    serve(ConnectionOptions::default(), move |conn, call| {
        let panics = |name| assert!(name != in_call, "a handler's panic, on purpose");
        match call {
            Call::Data(input) if input.starts_with(b"!") => {
                input.clear();
                panics("data");
                match in_call {
                    "timer" => {
                        conn.set_timer(Duration::ZERO, 0);
                    }
                    "woken" => conn.handle().wake().unwrap(),
                    "drained" => conn.notify_drained(),
                    _ => {}
                }
            }
            Call::Timer(_) => panics("timer"),
            Call::Woken => panics("woken"),
            Call::Drained => panics("drained"),
            Call::Eof => {
                panics("eof");
                conn.close();
            }
            other => echo(conn, other),
        }
    })
}

#[test]
fn a_panicking_handler_loses_its_connection_only() {
    for call in ["data", "timer", "woken", "drained", "eof"] {
        let served = serve_panics(call);
        let mut neighbour = served.connect();
        assert_echoes(&mut neighbour, b"before");
        let stream = served.connect();
        std::io::Write::write_all(&mut &stream, b"!").unwrap();
        if call == "eof" {
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        }
        let reason = served.events.closed();
        assert!(
            matches!(reason, CloseReason::HandlerPanicked),
            "{call}: {reason}"
        );
        wait_until_gone(&stream);
        assert_echoes(&mut neighbour, b"after");
        assert_echoes(&mut served.connect(), b"new");
    }
}

#[test]
fn a_panic_in_opened_closes_what_was_just_accepted() {
    let first = AtomicBool::new(true);
    let served = serve(ConnectionOptions::default(), move |conn, call| match call {
        Call::Opened if first.swap(false, Ordering::Relaxed) => panic!("in opened, on purpose"),
        other => echo(conn, other),
    });
    wait_until_gone(&served.connect());
    assert!(matches!(
        served.events.closed(),
        CloseReason::HandlerPanicked
    ));
    assert_echoes(&mut served.connect(), b"hello");
}

#[test]
fn a_panic_after_close_is_the_reason() {
    let served = serve(ConnectionOptions::default(), |conn, call| match call {
        Call::Opened => {
            conn.close();
            panic!("after close, on purpose");
        }
        other => otherwise(conn, other),
    });
    wait_until_gone(&served.connect());
    assert!(matches!(
        served.events.closed(),
        CloseReason::HandlerPanicked
    ));
}

#[test]
fn a_panic_in_closed_or_in_the_handlers_drop_frees_the_connection() {
    struct Bomb {
        in_drop: bool,
    }
    impl nexus_net::Handler for Bomb {
        fn data(&mut self, _: &mut nexus_net::Connection<'_>, _: &mut bytes::BytesMut) {}
        fn closed(&mut self, _: &mut nexus_net::LoopContext<'_>, _: CloseReason) {
            assert!(self.in_drop, "in closed, on purpose");
        }
    }
    impl Drop for Bomb {
        fn drop(&mut self) {
            assert!(!self.in_drop, "in drop, on purpose");
        }
    }
    let loops = LoopGroup::start("bombs", 1).unwrap();
    for in_drop in [false, true] {
        let server = TcpServer::start(&loops, local(), ServerOptions::default(), move |_| {
            Box::new(Bomb { in_drop })
        })
        .unwrap();
        for _ in 0..3 {
            drop(connect(server.local_addr()));
        }
        assert_eq!(server.drain(DEADLINE).aborted, 0);
    }
    assert_eq!(loops.handles()[0].metrics().connections(), 0);
}

#[test]
fn a_panic_where_handlers_are_made_turns_the_connection_away() {
    for loop_count in [1, 2] {
        let loops = LoopGroup::start("makers", loop_count).unwrap();
        let healthy = Arc::new(AtomicBool::new(false));
        let (sender, _events) = Events::channel();
        let echo = script(echo);
        let server = TcpServer::start(&loops, local(), ServerOptions::default(), {
            let healthy = Arc::clone(&healthy);
            move |_| {
                assert!(healthy.load(Ordering::SeqCst), "no handler, on purpose");
                Scripted::boxed(&echo, &sender)
            }
        })
        .unwrap();
        for _ in 0..4 {
            wait_until_gone(&connect(server.local_addr()));
        }
        wait_for("the count to fall", || server.connections() == 0);
        for handle in loops.handles() {
            assert_eq!(handle.metrics().connections(), 0);
        }
        healthy.store(true, Ordering::SeqCst);
        for _ in 0..4 {
            assert_echoes(&mut connect(server.local_addr()), b"hello");
        }
    }
}

#[test]
fn a_client_whose_handler_cannot_be_made_tries_again() {
    let served = serve(ConnectionOptions::default(), echo);
    let (sender, events) = Events::channel();
    let otherwise = script(otherwise);
    let mut attempts = 0;
    let options = ClientOptions::default();
    let address = served.address();
    let _client = TcpClient::start(served.loop_handle(), address, options, move |_| {
        attempts += 1;
        assert!(attempts > 2, "no handler, on purpose");
        Scripted::boxed(&otherwise, &sender)
    })
    .unwrap();
    events.opened();
}

#[test]
fn a_panicking_task_or_timer_stops_nothing() {
    let served = serve(ConnectionOptions::default(), echo);
    let mut stream = served.connect();
    assert_echoes(&mut stream, b"before");
    let handle = served.loop_handle();
    handle
        .post(|_| panic!("a task's panic, on purpose"))
        .unwrap();
    handle
        .post_after(Duration::ZERO, |_| panic!("a timer's panic, on purpose"))
        .unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    handle
        .post_after(Duration::from_millis(5), move |_| sender.send(()).unwrap())
        .unwrap();
    receiver.recv_timeout(DEADLINE).unwrap();
    assert_echoes(&mut stream, b"after");
}
