//! The two processes of a test with many connections: one that serves, one that connects.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::BytesMut;
use nexus_net::{
    CloseReason, ConnHandle, Connection, ConnectionOptions, Handler, LoopContext, LoopGroup,
    LoopHandle, LoopMetrics, ServerOptions, TcpServer,
};

use crate::child::{Child, commands, limit_descriptors, say};
use crate::support::*;

/// Several, as the kernel has only so many ports for each and keeps them for a while.
const IPS: [Ipv4Addr; 4] = [
    Ipv4Addr::new(127, 0, 0, 21),
    Ipv4Addr::new(127, 0, 0, 22),
    Ipv4Addr::new(127, 0, 0, 23),
    Ipv4Addr::new(127, 0, 0, 24),
];

/// What a test plays in the child processes it has started. `false` in the test itself.
pub(crate) fn played(role: Option<String>) -> bool {
    match role.as_deref().map(|role| role.split_once(' ')) {
        None => return false,
        Some(Some(("serve", descriptors_max))) => {
            limit_descriptors(descriptors_max.parse().expect("a number"));
            serve();
        }
        Some(_) => connect_many(),
    }
    true
}

#[derive(Default)]
struct Counts {
    alive: AtomicUsize,
    opened: AtomicUsize,
    /// Connections that have got an echo.
    served: AtomicUsize,
    echoes: AtomicUsize,
    closed: AtomicUsize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Server,
    Client,
}

/// Both sides' handler: the server's echoes, the client's counts echoes.
struct Counted {
    counts: Arc<Counts>,
    side: Side,
    echoes: usize,
    closes: u32,
}

impl Counted {
    fn boxed(counts: &Arc<Counts>, side: Side) -> Box<dyn Handler> {
        counts.alive.fetch_add(1, SeqCst);
        Box::new(Self {
            counts: Arc::clone(counts),
            side,
            echoes: 0,
            closes: 0,
        })
    }
}

impl Handler for Counted {
    fn opened(&mut self, conn: &mut Connection<'_>) {
        self.counts.opened.fetch_add(1, SeqCst);
        if self.side == Side::Client {
            conn.write(b"x");
        }
    }

    fn data(&mut self, conn: &mut Connection<'_>, input: &mut BytesMut) {
        if self.side == Side::Server {
            conn.send(input.split().freeze());
            return;
        }
        if self.echoes == 0 {
            self.counts.served.fetch_add(1, SeqCst);
        }
        self.echoes += input.len();
        self.counts.echoes.fetch_add(input.len(), SeqCst);
        input.clear();
    }

    fn woken(&mut self, conn: &mut Connection<'_>) {
        conn.write(b"x");
    }

    fn closed(&mut self, _: &mut LoopContext<'_>, _: CloseReason) {
        self.closes += 1;
        self.counts.closed.fetch_add(1, SeqCst);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if self.closes != 1 {
            say(&format!("a handler heard `closed` {} times", self.closes));
        }
        self.counts.alive.fetch_sub(1, SeqCst);
    }
}

pub(crate) fn descriptors() -> usize {
    let all = std::fs::read_dir("/proc/self/fd").expect("procfs");
    all.count()
}

/// What a serving child has.
struct Serving {
    counts: Arc<Counts>,
    servers: Vec<TcpServer>,
    handles: Vec<LoopHandle>,
    loops: Option<LoopGroup>,
    descriptors_before: usize,
}

fn serve() {
    let mut serving = Serving::start();
    for command in commands() {
        match command.as_str() {
            "addresses" => say(&serving.addresses()),
            "state" => say(&serving.state()),
            // Not a part of the state: at the limit there is none left to look with.
            "descriptors" => say(&descriptors().to_string()),
            "turns" => say(&serving.turns().to_string()),
            "drain" => {
                for server in &serving.servers {
                    assert_eq!(server.drain(DEADLINE).aborted, 0);
                }
                say("drained");
            }
            "stop" => say(&serving.stop()),
            other => panic!("unknown command {other}"),
        }
    }
}

impl Serving {
    fn start() -> Self {
        let descriptors_before = descriptors();
        let counts = Arc::new(Counts::default());
        let loops = LoopGroup::start("server", 2).expect("loops");
        let options = ServerOptions {
            connection: ConnectionOptions {
                idle_timeout: Some(2 * DEADLINE),
                ..ConnectionOptions::default()
            },
            backlog: 4096,
            ..ServerOptions::default()
        };
        let start = |ip: Ipv4Addr| {
            let counts = Arc::clone(&counts);
            TcpServer::start(&loops, (ip, 0), options.clone(), move |_| {
                Counted::boxed(&counts, Side::Server)
            })
            .expect("a server")
        };
        let servers = IPS.map(start).into();
        let handles = loops.handles().to_vec();
        // The listeners have been taken in, and what that takes has been counted.
        on_loop(&handles[0], |_| ());
        Self {
            counts,
            servers,
            handles,
            loops: Some(loops),
            descriptors_before,
        }
    }

    fn addresses(&self) -> String {
        let all: Vec<String> = self
            .servers
            .iter()
            .map(|one| address(one).to_string())
            .collect();
        all.join(" ")
    }

    fn state(&self) -> String {
        let sum = |of: fn(&LoopMetrics) -> usize| -> usize {
            self.handles.iter().map(|one| of(one.metrics())).sum()
        };
        let connections = sum(LoopMetrics::connections);
        let timers = sum(LoopMetrics::timers);
        let alive = self.counts.alive.load(SeqCst);
        format!("{connections} {alive} {timers}")
    }

    /// The turns of the accepting loop in half a second, measured by its own timers.
    fn turns(&self) -> u64 {
        let turns = || self.handles[0].metrics().turns();
        let before = turns();
        for _ in 0..10 {
            let (sender, waited) = mpsc::channel::<()>();
            self.handles[0]
                .post_after(Duration::from_millis(50), move |_| drop(sender))
                .expect("the loop runs");
            let _ = waited.recv_timeout(DEADLINE);
        }
        turns() - before
    }

    fn stop(&mut self) -> String {
        self.loops.take();
        // Handles keep a loop's way to be woken.
        self.servers.clear();
        self.handles.clear();
        let (opened, closed) = (
            self.counts.opened.load(SeqCst),
            self.counts.closed.load(SeqCst),
        );
        let alive = self.counts.alive.load(SeqCst);
        let kept = descriptors() - self.descriptors_before;
        format!("{opened} {closed} {alive} {kept}")
    }
}

fn connect_many() {
    let counts = Arc::new(Counts::default());
    let mut loops = Some(LoopGroup::start("clients", 1).expect("a loop"));
    let handle = loops.as_ref().expect("a loop").handles()[0].clone();
    let mut conns: Vec<ConnHandle> = Vec::new();
    for command in commands() {
        let words: Vec<&str> = command.split(' ').collect();
        match words[..] {
            ["connect", count, ref to @ ..] => {
                let count = count.parse().expect("a number");
                let to = to
                    .iter()
                    .map(|one| one.parse().expect("an address"))
                    .collect();
                let for_loop = Arc::clone(&counts);
                conns = on_loop(&handle, move |context| {
                    connect_at_once(context, count, to, &for_loop)
                });
                wait_for("every connection to be served or closed", || {
                    let served = counts.served.load(SeqCst);
                    served + counts.closed.load(SeqCst) >= count
                });
                let (served, closed) = (counts.served.load(SeqCst), counts.closed.load(SeqCst));
                say(&format!("{served} {closed}"));
            }
            // Those that are still there have one more echo to come.
            ["again"] => {
                let all = counts.echoes.load(SeqCst) + counts.served.load(SeqCst);
                for conn in &conns {
                    conn.wake().expect("the loop runs");
                }
                wait_for("the echoes", || counts.echoes.load(SeqCst) >= all);
                say("echoed");
            }
            ["ended"] => {
                wait_for("all to end", || counts.closed.load(SeqCst) == conns.len());
                say("ended");
            }
            ["stop"] => {
                drop(loops.take());
                let (closed, alive) = (counts.closed.load(SeqCst), counts.alive.load(SeqCst));
                say(&format!("{closed} {alive}"));
            }
            _ => panic!("unknown command {command}"),
        }
    }
}

fn connect_at_once(
    context: &mut LoopContext<'_>,
    count: usize,
    to: Vec<SocketAddr>,
    counts: &Arc<Counts>,
) -> Vec<ConnHandle> {
    let options = Arc::new(ConnectionOptions {
        connect_timeout: DEADLINE,
        ..ConnectionOptions::default()
    });
    let mut conns = Vec::with_capacity(count);
    for address in to.into_iter().cycle().take(count) {
        let connecting = context.connect(address, Arc::clone(&options), |conn| {
            conns.push(conn.clone());
            Counted::boxed(counts, Side::Client)
        });
        connecting.expect("descriptors and ports for every client");
    }
    conns
}

/// The serving child.
pub(crate) struct Server(pub(crate) Child);

/// What a server holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) connections: usize,
    pub(crate) handlers: usize,
    pub(crate) timers: usize,
}

impl Server {
    pub(crate) fn start(test: &str, descriptors_max: usize) -> Self {
        Self(Child::start(test, &format!("serve {descriptors_max}")))
    }

    pub(crate) fn addresses(&mut self) -> String {
        self.0.ask("addresses")
    }

    pub(crate) fn state(&mut self) -> State {
        let [connections, handlers, timers] = numbers(&self.0.ask("state"));
        State {
            connections,
            handlers,
            timers,
        }
    }

    pub(crate) fn descriptors(&mut self) -> usize {
        let [count] = numbers(&self.0.ask("descriptors"));
        count
    }

    pub(crate) fn wait_for_state(&mut self, wanted: impl Fn(State) -> bool) {
        let deadline = std::time::Instant::now() + DEADLINE;
        loop {
            let state = self.state();
            if wanted(state) {
                return;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "it stays at {state:?}"
            );
        }
    }
}

/// The numbers of an answer.
pub(crate) fn numbers<const N: usize>(answer: &str) -> [usize; N] {
    let parsed: Result<Vec<usize>, _> = answer.split(' ').map(str::parse).collect();
    parsed
        .ok()
        .and_then(|numbers| numbers.try_into().ok())
        .unwrap_or_else(|| panic!("not {N} numbers: {answer}"))
}
