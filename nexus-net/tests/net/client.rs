//! The client that connects again.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nexus_net::{
    Backoff, ClientOptions, CloseReason, Connection, ConnectionOptions, LoopGroup, ServerOptions,
    TcpClient, TcpServer,
};

use crate::support::*;

fn quick() -> ClientOptions {
    ClientOptions {
        backoff: Backoff {
            initial: Duration::from_millis(5),
            max: Duration::from_millis(50),
        },
        ..ClientOptions::default()
    }
}

struct Reconnecting {
    client: TcpClient,
    events: Events,
    attempts: Arc<AtomicUsize>,
    loops: LoopGroup,
}

fn start(
    address: SocketAddr,
    options: ClientOptions,
    on: impl Fn(&mut Connection<'_>, Call<'_>) + Send + Sync + 'static,
) -> Reconnecting {
    let loops = LoopGroup::start("client", 1).unwrap();
    let (sender, events) = Events::channel();
    let on = script(on);
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&attempts);
    let client = TcpClient::start(&loops.handles()[0], address, options, move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        Scripted::boxed(&on, &sender)
    })
    .unwrap();
    Reconnecting {
        client,
        events,
        attempts,
        loops,
    }
}

/// An address nobody listens on. Not on 127.0.0.1, where outgoing connections of other tests could
/// take the port in between.
fn nobodys(host: &str) -> SocketAddr {
    let listener = std::net::TcpListener::bind((host, 0)).unwrap();
    listener.local_addr().unwrap()
}

fn serve_echo_at(loops: &LoopGroup, address: SocketAddr) -> TcpServer {
    let (sender, _) = Events::channel();
    let echo = script(echo);
    TcpServer::start(loops, address, ServerOptions::default(), move |_| {
        Scripted::boxed(&echo, &sender)
    })
    .unwrap()
}

#[test]
fn a_client_comes_back_after_its_server_was_restarted() {
    let loops = LoopGroup::start("server", 1).unwrap();
    let address = nobodys("127.0.0.2");
    let mut server = serve_echo_at(&loops, address);
    let running = start(address, quick(), |conn, call| match call {
        Call::Opened => conn.write(b"hello"),
        other => otherwise(conn, other),
    });
    for _ in 0..3 {
        running.events.opened();
        assert!(matches!(running.events.next(), Event::Data(bytes) if &bytes[..] == b"hello"));
        drop(server);
        let lost = running.events.closed();
        assert!(
            matches!(lost, CloseReason::Peer | CloseReason::Io(_)),
            "{lost}"
        );
        // While it is away the attempts go on.
        let refused = running.events.closed();
        assert!(
            matches!(refused, CloseReason::ConnectFailed(_)),
            "{refused}"
        );
        server = serve_echo_at(&loops, address);
    }
    running.events.opened();
}

#[test]
fn a_refused_client_hears_why_and_tries_until_somebody_listens() {
    let address = nobodys("127.0.0.3");
    let running = start(address, quick(), otherwise);
    for _ in 0..3 {
        // Only `closed`, no `opened`.
        match running.events.next() {
            Event::Closed(CloseReason::ConnectFailed(error)) => {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
            }
            other => panic!("{other:?}"),
        }
    }
    let loops = LoopGroup::start("server", 1).unwrap();
    let _server = serve_echo_at(&loops, address);
    running.events.opened();
}

#[test]
fn a_client_with_several_addresses_goes_round_until_somebody_listens() {
    let loops = LoopGroup::start("server", 1).unwrap();
    let nobody = ["127.0.0.4", "127.0.0.5"].map(nobodys);
    let first = serve_echo_at(&loops, local());
    let options = ClientOptions {
        fallbacks: vec![nobody[1].into(), first.local_addr()],
        ..quick()
    };
    let running = start(nobody[0], options, otherwise);
    for _ in nobody {
        let refused = running.events.closed();
        assert!(
            matches!(refused, CloseReason::ConnectFailed(_)),
            "{refused}"
        );
    }
    running.events.opened();
    assert_eq!(running.attempts.load(Ordering::SeqCst), 3);
    // When that one goes, from the last to the first, and on.
    drop(first);
    let _second = serve_echo_at(&loops, nobody[1]);
    while !matches!(running.events.next(), Event::Opened(_)) {}
    assert!(running.attempts.load(Ordering::SeqCst) >= 5);
}

/// A listener whose queue is full: further connections hang.
struct FullListener {
    listener: socket2::Socket,
    _queued: Vec<socket2::Socket>,
}

impl FullListener {
    fn new() -> Self {
        let socket =
            || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let listener = socket();
        listener.bind(&local().into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut queued = Vec::new();
        loop {
            let stream = socket();
            let connected = stream.connect_timeout(&address, Duration::from_millis(200));
            queued.push(stream);
            if connected.is_err() {
                break;
            }
        }
        Self {
            listener,
            _queued: queued,
        }
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap().as_socket().unwrap()
    }
}

#[test]
fn an_attempt_that_hangs_ends_at_the_connect_timeout() {
    let full = FullListener::new();
    let options = ClientOptions {
        connection: ConnectionOptions {
            connect_timeout: Duration::from_millis(50),
            ..ConnectionOptions::default()
        },
        ..quick()
    };
    let running = start(full.address(), options, otherwise);
    for _ in 0..2 {
        match running.events.next() {
            Event::Closed(CloseReason::ConnectFailed(error)) => {
                assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn wakes_and_timers_reach_a_handler_while_it_connects() {
    let full = FullListener::new();
    let loops = LoopGroup::start("client", 1).unwrap();
    let (sender, events) = Events::channel();
    let on = script(|conn, call| match call {
        Call::Woken => {
            assert!(!conn.is_open());
            conn.set_timer(Duration::from_millis(1), 7);
        }
        Call::Timer(7) => conn.close(),
        other => otherwise(conn, other),
    });
    let _client = TcpClient::start(&loops.handles()[0], full.address(), quick(), move |conn| {
        conn.wake().unwrap();
        Scripted::boxed(&on, &sender)
    })
    .unwrap();
    assert!(matches!(events.next(), Event::Woken));
    assert!(matches!(events.next(), Event::Timer(7)));
    assert!(matches!(events.next(), Event::Closed(CloseReason::Local)));
}

#[test]
fn dropping_the_client_closes_the_connection_and_ends_the_attempts() {
    let served = serve(ConnectionOptions::default(), echo);
    let running = start(served.address(), quick(), otherwise);
    running.events.opened();
    drop(running.client);
    assert!(matches!(running.events.closed(), CloseReason::Local));
    wait_for_nothing_left(&running.loops);
    assert_eq!(running.attempts.load(Ordering::SeqCst), 1);
}

#[test]
fn a_client_dropped_between_attempts_makes_no_more() {
    let address = nobodys("127.0.0.4");
    let running = start(address, quick(), otherwise);
    running.events.closed();
    drop(running.client);
    wait_for_nothing_left(&running.loops);
    let attempts = running.attempts.load(Ordering::SeqCst);
    on_loop(&running.loops.handles()[0], |_| ());
    assert_eq!(running.attempts.load(Ordering::SeqCst), attempts);
}

#[test]
fn a_client_may_be_dropped_at_any_moment() {
    let served = serve(ConnectionOptions::default(), echo);
    let loops = LoopGroup::start("client", 1).unwrap();
    for n in 0..50u32 {
        let (sender, events) = Events::channel();
        let otherwise = script(otherwise);
        let address = served.address();
        let client = TcpClient::start(&loops.handles()[0], address, quick(), move |_| {
            Scripted::boxed(&otherwise, &sender)
        })
        .unwrap();
        spend(Duration::from_micros(u64::from(4 * n)));
        drop(client);
        // Whatever was made hears exactly one end. The channel ends with the client's last part.
        for event in events.0.iter() {
            assert!(!matches!(event, Event::WrongCloses(_)));
        }
    }
    wait_for_nothing_left(&loops);
    served.wait_until_empty();
}

/// With no connection and no timer on the loop nothing can start another attempt.
fn wait_for_nothing_left(loops: &LoopGroup) {
    let metrics = loops.handles()[0].metrics();
    wait_for("connections and timers to end", || {
        metrics.connections() == 0 && metrics.timers() == 0
    });
}

#[test]
fn options_out_of_range_are_refused() {
    let loops = LoopGroup::start("client", 1).unwrap();
    let mut options = quick();
    options.connection.read_bytes_per_turn = 0;
    let result = TcpClient::start(&loops.handles()[0], local(), options, |_| unreachable!());
    assert!(matches!(result, Err(nexus_net::Error::Options(_))));
}

#[test]
fn client_and_server_talk_on_one_loop() {
    let served = serve(ConnectionOptions::default(), echo);
    let (sender, events) = Events::channel();
    let on = script(|conn, call| match call {
        Call::Opened => conn.write(b"ping"),
        other => otherwise(conn, other),
    });
    let _client = TcpClient::start(served.loop_handle(), served.address(), quick(), move |_| {
        Scripted::boxed(&on, &sender)
    })
    .unwrap();
    events.opened();
    assert!(matches!(events.next(), Event::Data(bytes) if &bytes[..] == b"ping"));
}

#[test]
fn a_connection_made_by_a_task_needs_no_client() {
    let listener = std::net::TcpListener::bind(local()).unwrap();
    let address = listener.local_addr().unwrap();
    let loops = LoopGroup::start("client", 1).unwrap();
    let (sender, events) = Events::channel();
    let on = script(|conn, call| match call {
        Call::Opened => conn.write(b"hello"),
        other => otherwise(conn, other),
    });
    on_loop(&loops.handles()[0], move |context| {
        context
            .connect(address, Arc::default(), |_| Scripted::boxed(&on, &sender))
            .unwrap();
    });
    let (mut peer, _) = listener.accept().unwrap();
    let mut hello = [0; 5];
    peer.read_exact(&mut hello).unwrap();
    assert_eq!(&hello, b"hello");
    peer.write_all(b"bye").unwrap();
    drop(peer);
    events.opened();
    assert!(matches!(events.closed(), CloseReason::Peer));
}
