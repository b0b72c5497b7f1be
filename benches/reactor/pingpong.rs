//! Echo: one message at a time over a blocking socket, and many connections under a driver.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use nexus_benches::{EchoServer, Runtime};
use nexus_net::{ConnHandle, Connection, ConnectionOptions, Handler, LoopGroup};

pub(crate) fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn start(runtime: Runtime, loops: usize) -> EchoServer {
    EchoServer::start(runtime, any_port(), loops, None).expect("a server")
}

/// A round trip of 64 B, the other connections of the server being none.
pub(crate) fn latency(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("echo latency, 64 B");
    for runtime in Runtime::ALL {
        let server = start(runtime, 1);
        let mut stream = TcpStream::connect(server.address()).expect("a connection");
        stream.set_nodelay(true).expect("nodelay");
        let mut message = [b'x'; 64];
        group.bench_function(runtime.name(), |bencher| {
            bencher.iter(|| {
                stream.write_all(&message).expect("write");
                stream.read_exact(&mut message).expect("an echo");
            });
        });
    }
    group.finish();
}

/// One iteration is a round trip on each connection.
pub(crate) fn throughput(criterion: &mut Criterion) {
    for size in [64, 16 << 10] {
        for loops in [1, 2] {
            for connections in [1, 100, 1000] {
                one_cell(criterion, size, loops, connections);
            }
        }
    }
}

fn one_cell(criterion: &mut Criterion, size: usize, loops: usize, connections: usize) {
    let mut group = criterion.benchmark_group(format!("ping-pong {size} B"));
    // An iteration of 1,000 connections takes long; then few are enough.
    group.sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Elements(connections as u64));
    let cell = format!("{connections:>4} connections, {loops} loops");
    for runtime in Runtime::ALL {
        let server = start(runtime, loops);
        let driver = Driver::connect(server.address(), loops, connections, size);
        group.bench_function(BenchmarkId::new(runtime.name(), &cell), |bencher| {
            bencher.iter_custom(|rounds| driver.run(rounds));
        });
    }
    group.finish();
}

/// Connections that make a number of round trips each, and wait for the next run.
struct Driver {
    // First: the loops end before what their handlers report to.
    _group: LoopGroup,
    connections: Vec<ConnHandle>,
    run: Arc<Run>,
    done: mpsc::Receiver<()>,
}

struct Run {
    rounds: AtomicU64,
    /// Connections that have rounds left.
    busy: AtomicUsize,
}

impl Driver {
    fn connect(address: SocketAddr, loops: usize, connections: usize, size: usize) -> Self {
        let group = LoopGroup::start("driver", loops).expect("loops");
        let run = Arc::new(Run {
            rounds: AtomicU64::new(0),
            busy: AtomicUsize::new(0),
        });
        let message = Bytes::from(vec![b'x'; size]);
        let (done, all_done) = mpsc::channel();
        let (opened, all_opened) = mpsc::channel();
        let options = Arc::new(ConnectionOptions::default());
        for _ in 0..connections {
            let pinger = Pinger {
                message: message.clone(),
                received: 0,
                left: 0,
                run: Arc::clone(&run),
                done: done.clone(),
                opened: opened.clone(),
            };
            let options = Arc::clone(&options);
            let connect = group.next().post(move |context| {
                context
                    .connect(address, options, |_| Box::new(pinger))
                    .expect("to connect");
            });
            connect.expect("the loop runs");
        }
        let connections = (0..connections)
            .map(|_| {
                all_opened
                    .recv_timeout(Duration::from_secs(30))
                    .expect("a connection")
            })
            .collect();
        Self {
            _group: group,
            connections,
            run,
            done: all_done,
        }
    }

    fn run(&self, rounds: u64) -> Duration {
        self.run.rounds.store(rounds, Ordering::Relaxed);
        self.run
            .busy
            .store(self.connections.len(), Ordering::Release);
        let started = Instant::now();
        for connection in &self.connections {
            connection.wake().expect("the loop runs");
        }
        self.done.recv().expect("the driver runs");
        started.elapsed()
    }
}

struct Pinger {
    message: Bytes,
    received: usize,
    left: u64,
    run: Arc<Run>,
    done: mpsc::Sender<()>,
    opened: mpsc::Sender<ConnHandle>,
}

impl Handler for Pinger {
    fn opened(&mut self, conn: &mut Connection<'_>) {
        let _ = self.opened.send(conn.handle());
    }

    fn woken(&mut self, conn: &mut Connection<'_>) {
        self.left = self.run.rounds.load(Ordering::Relaxed);
        conn.send(self.message.clone());
    }

    fn data(&mut self, conn: &mut Connection<'_>, input: &mut BytesMut) {
        self.received += input.len();
        input.clear();
        if self.received < self.message.len() {
            return;
        }
        self.received = 0;
        self.left -= 1;
        if self.left > 0 {
            conn.send(self.message.clone());
        } else if self.run.busy.fetch_sub(1, Ordering::AcqRel) == 1 {
            let _ = self.done.send(());
        }
    }
}
