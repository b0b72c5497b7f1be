//! Servers: limits, draining, and ends.

use std::collections::HashSet;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nexus_net::{
    Address, ClientOptions, CloseReason, ConnectionOptions, Error, LoopGroup, ServerOptions,
    TcpClient, TcpServer,
};

use crate::support::*;

/// A connection that has sent something has work in hand until it is woken; the others are idle.
fn serve_work() -> Served {
    let busy = Mutex::new(HashSet::new());
    serve_with(2, ServerOptions::default(), move |conn, call| match call {
        Call::Data(input) => {
            input.clear();
            busy.lock().unwrap().insert(conn.peer_addr().clone());
        }
        Call::Draining if busy.lock().unwrap().contains(conn.peer_addr()) => {}
        Call::Woken => {
            conn.write(b"done");
            conn.close();
        }
        other => otherwise(conn, other),
    })
}

fn wait_for_draining(served: &Served, mut count: usize) {
    while count > 0 {
        served
            .events
            .find(|event| matches!(event, Event::Draining).then_some(()));
        count -= 1;
    }
}

#[test]
fn draining_closes_the_idle_at_once_and_lets_the_busy_finish() {
    let served = serve_work();
    let mut busy = served.connect();
    let conn = served.events.opened();
    busy.write_all(b"work").unwrap();
    assert!(matches!(served.events.next(), Event::Data(_)));
    let idle: Vec<TcpStream> = (0..10).map(|_| served.connect()).collect();
    wait_for("all connections", || served.server.connections() == 11);
    std::thread::scope(|scope| {
        let drain = scope.spawn(|| served.server.drain(DEADLINE));
        for stream in idle {
            assert!(read_to_end(&stream).is_empty());
        }
        wait_for("only the busy one", || served.server.connections() == 1);
        wait_for_draining(&served, 11);
        assert!(!drain.is_finished());
        conn.wake().unwrap();
        assert_eq!(read_to_end(&busy), b"done");
        drop(busy);
        let report = drain.join().unwrap();
        assert_eq!((report.open_at_start, report.aborted), (11, 0));
        assert!(report.took < DEADLINE);
    });
}

#[test]
fn draining_cuts_the_stubborn_off_at_the_deadline_and_says_so() {
    let served = serve_work();
    let mut stubborn = served.connect();
    served.events.opened();
    stubborn.write_all(b"work").unwrap();
    assert!(matches!(served.events.next(), Event::Data(_)));
    let idle = served.connect();
    wait_for("both connections", || served.server.connections() == 2);
    let idle = std::thread::spawn(move || read_to_end(&idle));
    let deadline = Duration::from_secs(1);
    let report = served.server.drain(deadline);
    idle.join().unwrap();
    assert_eq!((report.open_at_start, report.aborted), (2, 1));
    assert!(report.took >= deadline);
    wait_until_gone(&stubborn);
    let reasons = [served.events.closed(), served.events.closed()];
    assert!(matches!(
        reasons,
        [CloseReason::Local | CloseReason::Peer, CloseReason::Aborted]
    ));
    assert_eq!(served.server.connections(), 0);
}

#[test]
fn a_drain_under_a_storm_of_connections_forgets_none() {
    for _ in 0..3 {
        let served = serve_with(2, ServerOptions::default(), otherwise);
        let address = served.address();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut last = None;
                    while !stop.load(Ordering::Relaxed) {
                        // Refused once the listener has gone.
                        last = TcpStream::connect(address).ok();
                    }
                    drop(last);
                });
            }
            for _ in 0..20 {
                served.events.opened();
            }
            let report = served.server.drain(DEADLINE);
            assert_eq!(report.aborted, 0, "an idle one was not told");
            assert_eq!(served.server.connections(), 0);
            stop.store(true, Ordering::Relaxed);
        });
        // Whoever was opened was closed, and nobody came after the drain.
        let (mut opened, mut closed) = (20, 0);
        for event in served.events.rest() {
            match event {
                Event::Opened(_) => opened += 1,
                Event::Closed(_) => closed += 1,
                Event::WrongCloses(count) => panic!("closed {count} times"),
                _ => {}
            }
        }
        // Up to twenty ends were skipped while waiting for the first openings.
        assert!(
            opened >= closed && opened - closed <= 20,
            "{opened} {closed}"
        );
    }
}

#[test]
fn after_a_drain_the_port_is_free() {
    let loops = LoopGroup::start("server", 2).unwrap();
    // An address of its own: no other test may take the port in between.
    let mut address: Address = "127.0.0.6:0".parse().unwrap();
    for _ in 0..50 {
        let server = TcpServer::start(&loops, address.clone(), ServerOptions::default(), |_| {
            unreachable!("nobody connects")
        })
        .unwrap();
        address = server.local_addr();
        assert_eq!(server.drain(DEADLINE).open_at_start, 0);
    }
}

#[test]
fn stop_accepting_refuses_the_new_and_keeps_the_old() {
    let served = serve(ConnectionOptions::default(), echo);
    let mut old = served.connect();
    assert_echoes(&mut old, b"before");
    served.server.stop_accepting();
    let address = served.address();
    wait_for("new ones to be refused", || {
        TcpStream::connect(address).is_err()
    });
    assert_echoes(&mut old, b"after");
}

#[test]
fn connections_over_the_maximum_are_turned_away() {
    let options = ServerOptions {
        connections_max: 2,
        ..ServerOptions::default()
    };
    let served = serve_with(2, options, echo);
    let mut first = served.connect();
    let mut second = served.connect();
    assert_echoes(&mut first, b"1");
    assert_echoes(&mut second, b"2");
    wait_until_gone(&served.connect());
    assert_eq!(served.server.connections(), 2);
    assert_echoes(&mut first, b"still there");
    drop(second);
    wait_for("room", || served.server.connections() == 1);
    assert_echoes(&mut served.connect(), b"3");
}

#[test]
fn dropping_the_server_cuts_its_connections_off_and_frees_the_port() {
    let loops = LoopGroup::start("server", 2).unwrap();
    let (sender, events) = Events::channel();
    let echo = script(echo);
    let start = |address| {
        let (echo, sender) = (echo.clone(), sender.clone());
        TcpServer::start(&loops, address, ServerOptions::default(), move |_| {
            Scripted::boxed(&echo, &sender)
        })
    };
    let server = start("127.0.0.5:0".parse().unwrap()).unwrap();
    let address = server.local_addr().as_tcp().unwrap();
    let streams: Vec<TcpStream> = (0..4).map(|_| connect(address)).collect();
    for _ in 0..4 {
        events.opened();
    }
    assert!(matches!(start(address), Err(Error::Listen { .. })));
    drop(server);
    for stream in &streams {
        wait_until_gone(stream);
        assert!(matches!(events.closed(), CloseReason::Aborted));
    }
    wait_for("the port", || start(address).is_ok());
}

#[test]
fn dropping_the_loops_closes_servers_and_clients_on_them_once_each() {
    for _ in 0..5 {
        let served = serve_with(2, ServerOptions::default(), echo);
        let (sender, events) = Events::channel();
        let on = script(otherwise);
        let clients: Vec<TcpClient> = (0..6)
            .map(|_| {
                let (on, sender) = (on.clone(), sender.clone());
                let address = served.address();
                let handle = served.loops.next();
                TcpClient::start(handle, address, ClientOptions::default(), move |_| {
                    Scripted::boxed(&on, &sender)
                })
                .unwrap()
            })
            .collect();
        drop(sender);
        drop(on);
        events.opened();
        let Served {
            server,
            events: server_events,
            loops,
        } = served;
        drop(loops);
        assert_eq!(server.connections(), 0);
        // The loops are gone, so what comes now is all there is.
        let mut closed = 0;
        for event in server_events.rest().into_iter().chain(events.rest()) {
            match event {
                Event::Closed(_) => closed += 1,
                Event::WrongCloses(count) => panic!("closed {count} times"),
                _ => {}
            }
        }
        assert!(closed > 0);
        assert_eq!(server.drain(DEADLINE).aborted, 0);
        drop(clients);
    }
}

#[test]
fn a_handler_may_own_the_last_handle_of_its_server() {
    let served = serve(ConnectionOptions::default(), echo);
    let Served {
        server,
        events,
        loops,
    } = served;
    let stream = connect(server.local_addr());
    events.opened();
    // Dropped on the loop's own thread.
    loops.handles()[0].post(move |_| drop(server)).unwrap();
    wait_until_gone(&stream);
    assert!(matches!(events.closed(), CloseReason::Aborted));
}

#[test]
fn a_group_may_be_dropped_by_a_task_on_one_of_its_loops() {
    let loops = LoopGroup::start("group", 2).unwrap();
    let handles = loops.handles().to_vec();
    handles[0].post(move |_| drop(loops)).unwrap();
    for handle in handles {
        wait_for("the loop to end", || handle.post(|_| ()).is_err());
    }
}

#[test]
fn draining_on_a_loop_thread_panics_instead_of_waiting_for_itself() {
    let Served { server, loops, .. } = serve(ConnectionOptions::default(), echo);
    let panicked = on_loop(&loops.handles()[0], move |_| {
        let drain = std::panic::AssertUnwindSafe(|| server.drain(DEADLINE));
        std::panic::catch_unwind(drain).is_err()
    });
    assert!(panicked);
}

#[test]
fn options_out_of_range_are_refused() {
    let loops = LoopGroup::start("server", 1).unwrap();
    let start = |options| TcpServer::start(&loops, local(), options, |_| unreachable!());
    let mut low_above_high = ServerOptions::default();
    low_above_high.connection.output_low_bytes = low_above_high.connection.output_high_bytes + 1;
    assert!(matches!(start(low_above_high), Err(Error::Options(_))));
    let no_backlog = ServerOptions {
        backlog: 0,
        ..ServerOptions::default()
    };
    assert!(matches!(start(no_backlog), Err(Error::Options(_))));
    assert!(matches!(
        LoopGroup::start("none", 0),
        Err(Error::Options(_))
    ));
}
