//! One message to 10,000 connections, until the kernel has taken it for all of them.
//!
//! Both ends would need 20,000 descriptors and some, which is what a process may have on many
//! systems. So the receiving end is this program again, as a child process; it reads and drops.

use std::io::Read;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, SamplingMode, Throughput};
use nexus_benches::Runtime;
use nexus_net::{
    ConnId, Connection, ConnectionOptions, Handler, LoopContext, LoopGroup, ServerOptions,
    TcpServer,
};
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::sync::broadcast;

use crate::pingpong::any_port;

const CONNECTIONS: usize = 10_000;
/// Connections under way at a time, so that the backlog of neither server overflows.
const CONNECTING: usize = 100;
const MESSAGE: &[u8] = &[b'x'; 64];
/// Set for the child: the address to connect to.
const RECEIVER: &str = "NEXUS_BENCH_RECEIVER";

/// Whether this process is the receiving end.
pub(crate) fn is_receiver() -> bool {
    std::env::var_os(RECEIVER).is_some()
}

/// Connects and reads until the parent closes its end of the standard input.
pub(crate) fn receive() {
    let address: SocketAddr = std::env::var(RECEIVER)
        .expect("an address")
        .parse()
        .expect("an address");
    let loops = LoopGroup::start("receiver", 1).expect("loops");
    let connect = loops.handles()[0].post(move |context| {
        for _ in 0..CONNECTING {
            Discard::connect(context, address, CONNECTIONS / CONNECTING);
        }
    });
    connect.expect("the loop runs");
    let _ = std::io::stdin().read(&mut [0]);
}

/// Reads to nowhere, and once connected opens the next.
struct Discard {
    address: SocketAddr,
    left: usize,
}

impl Discard {
    fn connect(context: &mut LoopContext<'_>, address: SocketAddr, left: usize) {
        let Some(left) = left.checked_sub(1) else {
            return;
        };
        let options = Arc::new(ConnectionOptions::default());
        context
            .connect(address, options, |_| Box::new(Self { address, left }))
            .expect("to connect");
    }
}

impl Handler for Discard {
    fn opened(&mut self, conn: &mut Connection<'_>) {
        Self::connect(&mut conn.context(), self.address, self.left);
    }

    fn data(&mut self, _conn: &mut Connection<'_>, input: &mut BytesMut) {
        input.clear();
    }
}

/// The receiving process; it ends when this is dropped.
struct Receiver(Child);

impl Receiver {
    fn start(address: SocketAddr) -> Self {
        let program = std::env::current_exe().expect("this program");
        let child = Command::new(program)
            .env(RECEIVER, address.to_string())
            .stdin(Stdio::piped())
            .spawn();
        Self(child.expect("a child process"))
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// The message to every connection.
pub(crate) fn to_all(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("64 B to 10,000 connections");
    group.sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Elements(CONNECTIONS as u64));
    group.bench_function(Runtime::Nexus.name(), |bencher| {
        let fanout = NexusFanout::start();
        bencher.iter_custom(|rounds| timed(rounds, || fanout.send_to_all()));
    });
    group.bench_function(Runtime::Tokio.name(), |bencher| {
        let fanout = TokioFanout::start();
        bencher.iter_custom(|rounds| timed(rounds, || fanout.send_to_all()));
    });
    group.finish();
}

fn timed(rounds: u64, round: impl Fn()) -> Duration {
    let started = Instant::now();
    for _ in 0..rounds {
        round();
    }
    started.elapsed()
}

/// Counts the connections that are through with a message (or, at first, that are there).
struct Countdown {
    left: AtomicUsize,
    done: mpsc::Sender<()>,
}

impl Countdown {
    fn new() -> (Arc<Self>, mpsc::Receiver<()>) {
        let (done, all_done) = mpsc::channel();
        let left = AtomicUsize::new(CONNECTIONS);
        (Arc::new(Self { left, done }), all_done)
    }

    fn one_done(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.left.store(CONNECTIONS, Ordering::Release);
            let _ = self.done.send(());
        }
    }
}

fn wait(all_done: &mpsc::Receiver<()>) {
    all_done
        .recv_timeout(Duration::from_secs(30))
        .expect("all connections in time");
}

struct NexusFanout {
    // In the order of dropping: the receiver goes first, the loops last.
    _receiver: Receiver,
    _server: TcpServer,
    loops: LoopGroup,
    members: Arc<Mutex<Vec<ConnId>>>,
    all_done: mpsc::Receiver<()>,
}

struct Member {
    countdown: Arc<Countdown>,
    members: Arc<Mutex<Vec<ConnId>>>,
}

impl Handler for Member {
    fn opened(&mut self, conn: &mut Connection<'_>) {
        self.members.lock().push(conn.id());
        self.countdown.one_done();
    }

    fn data(&mut self, _conn: &mut Connection<'_>, input: &mut BytesMut) {
        input.clear();
    }

    fn drained(&mut self, _conn: &mut Connection<'_>) {
        self.countdown.one_done();
    }
}

impl NexusFanout {
    fn start() -> Self {
        let loops = LoopGroup::start("fanout", 1).expect("loops");
        let (countdown, all_done) = Countdown::new();
        let members = Arc::new(Mutex::new(Vec::new()));
        let for_handlers = Arc::clone(&members);
        let server = TcpServer::start(&loops, any_port(), ServerOptions::default(), move |_| {
            Box::new(Member {
                countdown: Arc::clone(&countdown),
                members: Arc::clone(&for_handlers),
            })
        })
        .expect("a server");
        let receiver = Receiver::start(server.local_addr().as_tcp().expect("a TCP address"));
        wait(&all_done);
        Self {
            _receiver: receiver,
            _server: server,
            loops,
            members,
            all_done,
        }
    }

    fn send_to_all(&self) {
        let members = Arc::clone(&self.members);
        let posted = self.loops.handles()[0].post(move |context| {
            let message = Bytes::from_static(MESSAGE);
            for &id in &*members.lock() {
                if let Some(mut conn) = context.connection(id) {
                    conn.send(message.clone());
                    conn.notify_drained();
                }
            }
        });
        posted.expect("the loop runs");
        wait(&self.all_done);
    }
}

struct TokioFanout {
    _receiver: Receiver,
    messages: broadcast::Sender<Bytes>,
    all_done: mpsc::Receiver<()>,
    _runtime: tokio::runtime::Runtime,
}

impl TokioFanout {
    fn start() -> Self {
        // One worker, as the other side has one loop; it runs without a thread that blocks on it.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind(any_port()))
            .expect("a listener");
        let address = listener.local_addr().expect("its address");
        let (countdown, all_done) = Countdown::new();
        let (messages, _) = broadcast::channel(16);
        let subscribe = messages.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let countdown = Arc::clone(&countdown);
                tokio::spawn(member(stream, subscribe.subscribe(), countdown));
            }
        });
        let receiver = Receiver::start(address);
        wait(&all_done);
        Self {
            _receiver: receiver,
            messages,
            all_done,
            _runtime: runtime,
        }
    }

    fn send_to_all(&self) {
        self.messages
            .send(Bytes::from_static(MESSAGE))
            .expect("receivers");
        wait(&self.all_done);
    }
}

async fn member(
    mut stream: tokio::net::TcpStream,
    mut messages: broadcast::Receiver<Bytes>,
    countdown: Arc<Countdown>,
) {
    let _ = stream.set_nodelay(true);
    countdown.one_done();
    while let Ok(message) = messages.recv().await {
        if stream.write_all(&message).await.is_err() {
            return;
        }
        countdown.one_done();
    }
}
