//! A handler that does what a closure says and reports every call, and ways to wait.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use crossbeam_channel::{Receiver, Sender};
use nexus_net::{
    Address, CloseReason, ConnHandle, Connection, ConnectionOptions, Handler, LoopContext,
    LoopGroup, LoopHandle, ServerOptions, TcpServer,
};

/// Reached only by a failing test.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A call of a handler, as the script sees it.
pub(crate) enum Call<'a> {
    Opened,
    Data(&'a mut BytesMut),
    Eof,
    Woken,
    Timer(u64),
    Drained,
    Draining,
}

/// A call of a handler, as the test sees it.
#[derive(Debug)]
pub(crate) enum Event {
    Opened(ConnHandle),
    Data(Bytes),
    Eof,
    Woken,
    Timer(u64),
    Drained,
    Draining,
    Closed(CloseReason),
    /// A handler went without having heard `closed` exactly once.
    WrongCloses(u32),
}

pub(crate) type Script = Arc<dyn Fn(&mut Connection<'_>, Call<'_>) + Send + Sync>;

/// A script from a closure.
pub(crate) fn script(on: impl Fn(&mut Connection<'_>, Call<'_>) + Send + Sync + 'static) -> Script {
    Arc::new(on)
}

/// Takes all input, closes at the peer's end and when told to drain: what most scripts do besides.
pub(crate) fn otherwise(conn: &mut Connection<'_>, call: Call<'_>) {
    match call {
        Call::Data(input) => input.clear(),
        Call::Eof | Call::Draining => conn.close(),
        Call::Opened | Call::Woken | Call::Timer(_) | Call::Drained => {}
    }
}

/// Sends back what arrives.
pub(crate) fn echo(conn: &mut Connection<'_>, call: Call<'_>) {
    match call {
        Call::Data(input) => conn.send(input.split().freeze()),
        other => otherwise(conn, other),
    }
}

/// The scripted handler.
pub(crate) struct Scripted {
    script: Script,
    events: Sender<Event>,
    closes: u32,
}

impl Scripted {
    pub(crate) fn boxed(script: &Script, events: &Sender<Event>) -> Box<dyn Handler> {
        Box::new(Self {
            script: Arc::clone(script),
            events: events.clone(),
            closes: 0,
        })
    }

    /// Reports first, so that a script that panics was still seen to be called.
    fn call(&mut self, conn: &mut Connection<'_>, event: Event, call: Call<'_>) {
        let _ = self.events.send(event);
        (self.script)(conn, call);
    }
}

impl Handler for Scripted {
    fn opened(&mut self, conn: &mut Connection<'_>) {
        let handle = conn.handle();
        self.call(conn, Event::Opened(handle), Call::Opened);
    }

    fn data(&mut self, conn: &mut Connection<'_>, input: &mut BytesMut) {
        let bytes = Bytes::copy_from_slice(input);
        self.call(conn, Event::Data(bytes), Call::Data(input));
    }

    fn eof(&mut self, conn: &mut Connection<'_>) {
        self.call(conn, Event::Eof, Call::Eof);
    }

    fn woken(&mut self, conn: &mut Connection<'_>) {
        self.call(conn, Event::Woken, Call::Woken);
    }

    fn timer(&mut self, conn: &mut Connection<'_>, token: u64) {
        self.call(conn, Event::Timer(token), Call::Timer(token));
    }

    fn drained(&mut self, conn: &mut Connection<'_>) {
        self.call(conn, Event::Drained, Call::Drained);
    }

    fn draining(&mut self, conn: &mut Connection<'_>) {
        self.call(conn, Event::Draining, Call::Draining);
    }

    fn closed(&mut self, _context: &mut LoopContext<'_>, reason: CloseReason) {
        self.closes += 1;
        let _ = self.events.send(Event::Closed(reason));
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        if self.closes != 1 {
            let _ = self.events.send(Event::WrongCloses(self.closes));
        }
    }
}

/// What the handlers of a test report.
pub(crate) struct Events(pub(crate) Receiver<Event>);

impl Events {
    pub(crate) fn channel() -> (Sender<Event>, Self) {
        let (sender, receiver) = crossbeam_channel::unbounded();
        (sender, Self(receiver))
    }

    pub(crate) fn next(&self) -> Event {
        let event = self.0.recv_timeout(DEADLINE).expect("an event in time");
        if let Event::WrongCloses(count) = event {
            panic!("a handler heard `closed` {count} times");
        }
        event
    }

    /// The first event that `pick` wants; the others are skipped.
    pub(crate) fn find<T>(&self, mut pick: impl FnMut(Event) -> Option<T>) -> T {
        loop {
            if let Some(found) = pick(self.next()) {
                return found;
            }
        }
    }

    pub(crate) fn opened(&self) -> ConnHandle {
        self.find(|event| match event {
            Event::Opened(conn) => Some(conn),
            _ => None,
        })
    }

    pub(crate) fn closed(&self) -> CloseReason {
        self.find(|event| match event {
            Event::Closed(reason) => Some(reason),
            _ => None,
        })
    }

    /// Everything reported so far. Only for when nobody reports any more.
    pub(crate) fn rest(&self) -> Vec<Event> {
        self.0.try_iter().collect()
    }
}

/// A scripted server.
pub(crate) struct Served {
    pub(crate) server: TcpServer,
    pub(crate) events: Events,
    // Last: the loops outlive the server.
    pub(crate) loops: LoopGroup,
}

impl Served {
    pub(crate) fn address(&self) -> SocketAddr {
        address(&self.server)
    }

    pub(crate) fn connect(&self) -> TcpStream {
        connect(self.address())
    }

    pub(crate) fn loop_handle(&self) -> &LoopHandle {
        &self.loops.handles()[0]
    }

    pub(crate) fn wait_until_empty(&self) {
        wait_for("no connections", || self.server.connections() == 0);
    }
}

/// Where a server listens.
pub(crate) fn address(server: &TcpServer) -> SocketAddr {
    server.local_addr().as_tcp().expect("a TCP address")
}

pub(crate) fn local() -> SocketAddr {
    "127.0.0.1:0".parse().expect("an address")
}

/// A scripted server on one loop.
pub(crate) fn serve(
    connection: ConnectionOptions,
    on: impl Fn(&mut Connection<'_>, Call<'_>) + Send + Sync + 'static,
) -> Served {
    let options = ServerOptions {
        connection,
        ..ServerOptions::default()
    };
    serve_with(1, options, on)
}

pub(crate) fn serve_with(
    loops: usize,
    options: ServerOptions,
    on: impl Fn(&mut Connection<'_>, Call<'_>) + Send + Sync + 'static,
) -> Served {
    let loops = LoopGroup::start("test", loops).expect("loops");
    let (sender, events) = Events::channel();
    let on = script(on);
    let server = TcpServer::start(&loops, local(), options, move |_| {
        Scripted::boxed(&on, &sender)
    })
    .expect("a server");
    Served {
        server,
        events,
        loops,
    }
}

/// A blocking client whose reads and writes fail at the deadline.
pub(crate) fn connect(address: impl Into<Address>) -> TcpStream {
    let address = address.into().as_tcp().expect("a TCP address");
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_nodelay(true).expect("nodelay");
    stream.set_read_timeout(Some(DEADLINE)).expect("a time-out");
    stream
        .set_write_timeout(Some(DEADLINE))
        .expect("a time-out");
    stream
}

/// Ends a connection by a reset: what either side still had on its way is lost.
pub(crate) fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .expect("a linger time");
}

/// Whether the server at the other end answers.
pub(crate) fn assert_echoes(stream: &mut TcpStream, message: &[u8]) {
    stream.write_all(message).expect("write");
    let mut answer = vec![0; message.len()];
    stream.read_exact(&mut answer).expect("an echo");
    assert_eq!(answer, message);
}

/// Everything until the peer's end.
pub(crate) fn read_to_end(mut stream: &TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream
        .read_to_end(&mut all)
        .expect("an orderly end of stream");
    all
}

/// Waits until the peer has gone, by an end or a reset.
pub(crate) fn wait_until_gone(mut stream: &TcpStream) {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
            Err(error) => panic!("the peer does not go away: {error}"),
        }
    }
}

pub(crate) fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// Runs `task` on the loop and returns its result.
pub(crate) fn on_loop<T: Send + 'static>(
    handle: &LoopHandle,
    task: impl FnOnce(&mut LoopContext<'_>) -> T + Send + 'static,
) -> T {
    let (sender, receiver) = mpsc::sync_channel(1);
    handle
        .post(move |context| {
            let _ = sender.send(task(context));
        })
        .expect("the loop runs");
    receiver.recv_timeout(DEADLINE).expect("the task in time")
}

/// Keeps a loop busy until dropped, so that what is posted meanwhile meets it in one turn.
pub(crate) struct Blocked(Option<mpsc::Sender<()>>);

pub(crate) fn block(handle: &LoopHandle) -> Blocked {
    let (release, released) = mpsc::channel::<()>();
    let (sender, receiver) = mpsc::sync_channel(1);
    handle
        .post(move |_| {
            let _ = sender.send(());
            let _ = released.recv_timeout(DEADLINE);
        })
        .expect("the loop runs");
    receiver.recv_timeout(DEADLINE).expect("the loop to block");
    Blocked(Some(release))
}

impl Blocked {
    pub(crate) fn release(mut self) {
        self.0.take();
    }
}

/// Spends time on purpose, on the calling thread: for handlers that are to be late.
pub(crate) fn spend(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// Bytes that say where they belong.
pub(crate) fn pattern(from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(|i| (i % 251) as u8).collect()
}

/// A seed, printed, for a test that uses chance.
pub(crate) fn seed() -> u64 {
    let seed = std::env::var("NEXUS_TEST_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(rand::random);
    println!("NEXUS_TEST_SEED={seed}");
    seed
}
