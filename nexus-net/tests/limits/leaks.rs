//! What is left of connections that have ended, however they ended: nothing.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use nexus_net::{
    ClientOptions, Connection, ConnectionOptions, Handler, LoopGroup, ServerOptions, TcpClient,
    TcpServer,
};

use crate::child::alone;
use crate::roles::descriptors;
use crate::support::*;

/// More than the socket buffers on both sides hold.
const LARGE: usize = 16 << 20;
const PEERS: usize = 100;

/// What there is at a time.
#[derive(Debug, PartialEq, Eq)]
struct Inventory {
    descriptors: usize,
    connections: usize,
    timers: usize,
    /// Each handler holds the script.
    handlers: usize,
}

/// A server that is counted.
struct Watched {
    script: Script,
    served: Served,
}

impl Watched {
    fn new(
        connection: ConnectionOptions,
        on: impl Fn(&mut Connection<'_>, Call<'_>) + Send + Sync + 'static,
    ) -> Self {
        let script = script(on);
        let loops = LoopGroup::start("test", 2).unwrap();
        let (sender, events) = Events::channel();
        let options = ServerOptions {
            connection,
            ..ServerOptions::default()
        };
        let server = TcpServer::start(&loops, local(), options, {
            let script = Arc::clone(&script);
            move |_| Scripted::boxed(&script, &sender)
        })
        .unwrap();
        let served = Served {
            server,
            events,
            loops,
        };
        Self { script, served }
    }

    fn inventory(&self) -> Inventory {
        let metrics = || self.served.loops.handles().iter().map(|one| one.metrics());
        Inventory {
            descriptors: descriptors(),
            connections: metrics().map(|one| one.connections()).sum(),
            timers: metrics().map(|one| one.timers()).sum(),
            handlers: Arc::strong_count(&self.script),
        }
    }

    /// Has peers come and go, and counts before and after.
    fn leaves_nothing(&self, what: &str, visit: impl Fn(&Self, usize)) {
        // Once before counting: whatever is made at first use is there then.
        visit(self, 2);
        self.served.wait_until_empty();
        let is_empty = |now: Inventory| now.connections == 0 && now.timers == 0;
        wait_for(what, || is_empty(self.inventory()));
        let before = self.inventory();
        visit(self, PEERS);
        self.served.wait_until_empty();
        wait_for(what, || self.inventory() == before);
        for event in self.served.events.rest() {
            assert!(!matches!(event, Event::WrongCloses(_)), "{what}");
        }
    }

    fn connect(&self, count: usize) -> Vec<TcpStream> {
        (0..count).map(|_| self.served.connect()).collect()
    }
}

/// Every connection has a timer of its own and the library's for idleness.
fn with_timers(conn: &mut Connection<'_>, call: Call<'_>) {
    match call {
        Call::Opened => {
            conn.set_timer(DEADLINE, 1);
        }
        other => otherwise(conn, other),
    }
}

fn options() -> ConnectionOptions {
    ConnectionOptions {
        idle_timeout: Some(DEADLINE),
        ..ConnectionOptions::default()
    }
}

#[test]
fn nothing_is_left_of_peers_that_break_off() {
    alone("leaks::nothing_is_left_of_peers_that_break_off", || {
        // Leaves every frame incomplete.
        let watched = Watched::new(options(), |conn, call| match call {
            Call::Data(_) => conn.write(b"."),
            other => with_timers(conn, other),
        });
        watched.leaves_nothing("closes in the middle", |watched, count| {
            for mut stream in watched.connect(count) {
                stream.write_all(b"part of a frame").unwrap();
                // Not gone before it was there.
                stream.read_exact(&mut [0]).unwrap();
            }
        });
        let watched = Watched::new(options(), |conn, call| match call {
            Call::Opened => {
                conn.send(Bytes::from(vec![0; LARGE / 16]));
                conn.send(Bytes::from(vec![0; LARGE / 16]));
                conn.set_timer(DEADLINE, 1);
            }
            other => with_timers(conn, other),
        });
        watched.leaves_nothing("resets with output queued", |watched, count| {
            for mut stream in watched.connect(count) {
                stream.read_exact(&mut [0]).unwrap();
                reset(stream);
            }
        });
    });
}

#[test]
fn nothing_is_left_of_peers_that_meet_a_limit() {
    alone("leaks::nothing_is_left_of_peers_that_meet_a_limit", || {
        let mut connection = options();
        connection.idle_timeout = Some(Duration::from_millis(100));
        connection.close_timeout = Duration::from_millis(100);
        let silent = Watched::new(connection, with_timers);
        silent.leaves_nothing("says nothing", |watched, count| {
            let streams = watched.connect(count);
            streams.iter().for_each(wait_until_gone);
        });

        let mut connection = options();
        connection.input_bytes_max = 100;
        let endless = Watched::new(connection, |conn, call| match call {
            Call::Data(_) => {}
            other => with_timers(conn, other),
        });
        endless.leaves_nothing("never ends its frame", |watched, count| {
            for mut stream in watched.connect(count) {
                stream.write_all(&[b'x'; 101]).unwrap();
                wait_until_gone(&stream);
            }
        });

        let mut connection = options();
        connection.output_bytes_max = 1 << 20;
        let flooded = Watched::new(connection, |conn, call| match call {
            Call::Data(_) => conn.send(Bytes::from(vec![0; LARGE])),
            other => with_timers(conn, other),
        });
        flooded.leaves_nothing("is sent too much", |watched, count| {
            for mut stream in watched.connect(count) {
                stream.write_all(b"flood").unwrap();
                wait_until_gone(&stream);
            }
        });
    });
}

#[test]
fn nothing_is_left_of_handlers_that_panic() {
    alone("leaks::nothing_is_left_of_handlers_that_panic", || {
        for wanted in 0..5 {
            let watched = Watched::new(options(), move |conn, call| {
                let now = match &call {
                    Call::Opened => 0,
                    Call::Data(_) => 1,
                    Call::Drained => 2,
                    Call::Timer(_) => 3,
                    _ => 4,
                };
                assert!(now != wanted, "in call {now}, on purpose");
                if matches!(call, Call::Opened) {
                    conn.set_timer(Duration::ZERO, 0);
                    conn.set_timer(DEADLINE, 0);
                    conn.notify_drained();
                }
                otherwise(conn, call);
            });
            watched.leaves_nothing("panics", |watched, count| {
                for stream in watched.connect(count) {
                    // It may be gone already.
                    let _ = (&stream).write_all(b"data");
                    let _ = stream.shutdown(Shutdown::Write);
                    wait_until_gone(&stream);
                }
            });
        }
    });
}

#[test]
fn nothing_is_left_of_clients_that_fail() {
    alone("leaks::nothing_is_left_of_clients_that_fail", || {
        // Every other connection is turned away by a panic where its handler is made; in the end
        // there is no server at all.
        let watched = Watched::new(options(), with_timers);
        watched.leaves_nothing("clients that come and go", |watched, count| {
            let broken = AtomicBool::new(false);
            let target = TcpServer::start(
                &watched.served.loops,
                local(),
                ServerOptions::default(),
                move |_| {
                    assert!(broken.fetch_xor(true, Ordering::SeqCst), "on purpose");
                    struct Nothing;
                    impl Handler for Nothing {
                        fn data(&mut self, _: &mut Connection<'_>, _: &mut BytesMut) {}
                    }
                    Box::new(Nothing)
                },
            )
            .unwrap();
            let address = address(&target);
            let (sender, events) = Events::channel();
            let clients: Vec<TcpClient> = (0..count)
                .map(|_| {
                    let (script, sender) = (Arc::clone(&watched.script), sender.clone());
                    let handle = watched.served.loops.next();
                    TcpClient::start(handle, address, ClientOptions::default(), move |_| {
                        Scripted::boxed(&script, &sender)
                    })
                    .unwrap()
                })
                .collect();
            for _ in 0..count {
                events.opened();
            }
            // Those that are left are refused from here on.
            drop(target);
            events.closed();
            drop(clients);
        });
    });
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let kibibytes = line
        .and_then(|line| line.split_whitespace().nth(1))
        .unwrap();
    kibibytes.parse::<usize>().unwrap() << 10
}

#[test]
fn memory_does_not_grow_with_connections_that_have_gone() {
    const COUNT: usize = 20_000;
    /// 100 bytes of each would be as much.
    const GROWTH_BYTES_MAX: usize = 2_000_000;
    alone(
        "leaks::memory_does_not_grow_with_connections_that_have_gone",
        || {
            struct Echo;
            impl Handler for Echo {
                fn opened(&mut self, conn: &mut Connection<'_>) {
                    conn.set_timer(DEADLINE, 0);
                }
                fn data(&mut self, conn: &mut Connection<'_>, input: &mut BytesMut) {
                    conn.send(input.split().freeze());
                }
            }
            let loops = LoopGroup::start("server", 2).unwrap();
            let options = ServerOptions {
                connection: options(),
                ..ServerOptions::default()
            };
            // Several addresses, so that the ports do not run out.
            let servers: Vec<TcpServer> = (31..35)
                .map(|last| {
                    let ip = Ipv4Addr::new(127, 0, 0, last);
                    TcpServer::start(&loops, (ip, 0), options.clone(), |_| Box::new(Echo)).unwrap()
                })
                .collect();
            let visit = |count: usize| {
                std::thread::scope(|scope| {
                    for server in &servers {
                        scope.spawn(|| {
                            for n in 0..count / servers.len() {
                                let mut stream = connect(address(server));
                                assert_echoes(&mut stream, b"hello");
                                if n % 2 == 0 {
                                    reset(stream);
                                }
                            }
                        });
                    }
                });
                for server in &servers {
                    wait_for("the connections to end", || server.connections() == 0);
                }
            };
            visit(COUNT / 4);
            let before = resident_bytes();
            visit(COUNT);
            let growth = resident_bytes().saturating_sub(before);
            println!("{growth} bytes more after {COUNT} connections");
            assert!(growth < GROWTH_BYTES_MAX, "{growth} bytes left behind");
        },
    );
}
