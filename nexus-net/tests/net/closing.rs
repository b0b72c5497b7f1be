//! How connections end: in order, cut off, by time, and exactly once.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nexus_net::{Address, CloseReason, ConnectionOptions};

use crate::support::*;

/// More than the socket buffers on both sides hold.
const LARGE: usize = 16 << 20;

/// However slow the machine, closing is not cut short.
fn patient() -> ConnectionOptions {
    ConnectionOptions {
        close_timeout: DEADLINE,
        ..ConnectionOptions::default()
    }
}

#[test]
fn a_peer_that_shut_down_its_side_still_gets_the_rest_of_the_answer() {
    let served = serve(patient(), |conn, call| match call {
        Call::Eof => {
            conn.send(Bytes::from(pattern(0, LARGE)));
            conn.close();
        }
        other => otherwise(conn, other),
    });
    let mut stream = served.connect();
    stream.write_all(b"request").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert!(read_to_end(&stream) == pattern(0, LARGE));
    assert!(matches!(served.events.closed(), CloseReason::Peer));
}

#[test]
fn shutdown_write_takes_effect_after_the_output_and_reading_goes_on() {
    let served = serve(patient(), |conn, call| match call {
        Call::Opened => {
            conn.send(Bytes::from(pattern(0, LARGE)));
            conn.shutdown_write();
            assert!(!conn.is_open());
            conn.write(b"dropped");
        }
        // Does nothing at the end: with both sides shut the connection closes by itself.
        Call::Eof => {}
        other => otherwise(conn, other),
    });
    let mut stream = served.connect();
    assert!(read_to_end(&stream) == pattern(0, LARGE));
    stream.write_all(b"still heard").unwrap();
    let mut heard = Vec::new();
    while heard != b"still heard" {
        heard.extend(served.events.find(|event| match event {
            Event::Data(bytes) => Some(bytes),
            _ => None,
        }));
    }
    stream.shutdown(Shutdown::Write).unwrap();
    assert!(matches!(served.events.next(), Event::Eof));
    assert!(matches!(
        served.events.next(),
        Event::Closed(CloseReason::Peer)
    ));
}

#[test]
fn shutdown_write_after_the_peers_end_closes() {
    let served = serve(ConnectionOptions::default(), |conn, call| match call {
        Call::Eof => {}
        Call::Woken => {
            conn.write(b"late answer");
            conn.shutdown_write();
        }
        other => otherwise(conn, other),
    });
    let stream = served.connect();
    stream.shutdown(Shutdown::Write).unwrap();
    let conn = served.events.opened();
    assert!(matches!(served.events.next(), Event::Eof));
    conn.wake().unwrap();
    assert_eq!(read_to_end(&stream), b"late answer");
    assert!(matches!(served.events.closed(), CloseReason::Peer));
}

#[test]
fn close_delivers_all_output_even_when_unread_input_waits() {
    let served = serve(patient(), |conn, call| match call {
        Call::Opened => conn.pause_reading(),
        Call::Woken => {
            conn.send(Bytes::from(pattern(0, LARGE)));
            conn.close();
        }
        other => otherwise(conn, other),
    });
    let mut stream = served.connect();
    let conn = served.events.opened();
    stream.write_all(&pattern(0, 64 << 10)).unwrap();
    conn.wake().unwrap();
    // A reset would end this in an error.
    assert!(read_to_end(&stream) == pattern(0, LARGE));
    drop(stream);
    assert!(matches!(served.events.closed(), CloseReason::Local));
}

#[test]
fn close_delivers_all_output_to_a_peer_that_first_finishes_writing() {
    let served = serve(patient(), |conn, call| match call {
        Call::Data(input) => {
            input.clear();
            conn.send(Bytes::from(pattern(0, LARGE)));
            conn.close();
        }
        other => otherwise(conn, other),
    });
    let mut stream = served.connect();
    stream.write_all(&vec![0; LARGE]).unwrap();
    assert!(read_to_end(&stream) == pattern(0, LARGE));
    drop(stream);
    assert!(matches!(served.events.closed(), CloseReason::Local));
}

#[test]
fn close_delivers_all_output_to_a_peer_that_writes_after_it() {
    // Taken by the kernel at once, but more than a peer that does not read has room for.
    const LEN: usize = 1 << 20;
    let served = serve(patient(), |conn, call| match call {
        Call::Opened => {
            conn.send(Bytes::from(pattern(0, LEN)));
            conn.close();
        }
        other => otherwise(conn, other),
    });
    let mut stream = served.connect();
    let metrics = served.loop_handle().metrics();
    wait_for("the kernel to take the output", || {
        metrics.bytes_written() == LEN as u64
    });
    on_loop(served.loop_handle(), |_| ());
    // Had the server closed its socket with the last write, this would be answered by a reset, and
    // the kernel would throw away what has not arrived yet.
    stream.write_all(b"too late").unwrap();
    assert!(read_to_end(&stream) == pattern(0, LEN));
    drop(stream);
    assert!(matches!(served.events.closed(), CloseReason::Local));
}

#[test]
fn after_close_no_data_reaches_the_handler() {
    let served = serve(ConnectionOptions::default(), |conn, call| match call {
        Call::Data(_) => conn.close(),
        other => otherwise(conn, other),
    });
    let mut stream = served.connect();
    stream.write_all(b"first").unwrap();
    assert!(read_to_end(&stream).is_empty());
    stream.write_all(b"second").unwrap();
    drop(stream);
    assert!(matches!(served.events.closed(), CloseReason::Local));
    let data = served.events.rest();
    assert!(data.is_empty(), "{data:?}");
}

#[test]
fn a_peer_that_never_reads_is_cut_off_at_the_close_timeout() {
    let timeout = Duration::from_millis(100);
    let options = ConnectionOptions {
        close_timeout: timeout,
        ..ConnectionOptions::default()
    };
    let served = serve(options, |conn, call| match call {
        Call::Opened => {
            conn.send(Bytes::from(vec![0; LARGE]));
            conn.close();
        }
        other => otherwise(conn, other),
    });
    let _stream = served.connect();
    served.events.opened();
    assert!(matches!(served.events.closed(), CloseReason::CloseTimeout));
    served.wait_until_empty();
}

#[test]
fn a_peer_that_never_closes_is_let_go_at_the_close_timeout() {
    let options = ConnectionOptions {
        close_timeout: Duration::from_millis(500),
        ..ConnectionOptions::default()
    };
    let served = serve(options, |conn, call| match call {
        Call::Opened => {
            conn.write(b"all of it");
            conn.close();
        }
        other => otherwise(conn, other),
    });
    let stream = served.connect();
    assert_eq!(read_to_end(&stream), b"all of it");
    assert!(matches!(served.events.closed(), CloseReason::Local));
}

#[test]
fn an_idle_connection_is_closed_and_not_before_its_time() {
    let timeout = Duration::from_secs(3);
    let options = ConnectionOptions {
        idle_timeout: Some(timeout),
        ..ConnectionOptions::default()
    };
    let last_read = Arc::new(Mutex::new(None));
    let written = Arc::clone(&last_read);
    let served = serve(options, move |conn, call| {
        if matches!(call, Call::Data(_)) {
            *written.lock().unwrap() = Some(Instant::now());
            // The next ping falls within the time-out, and so prolongs it.
            conn.set_timer(Duration::from_millis(800), 0);
        }
        match call {
            Call::Timer(_) => conn.write(b"ping"),
            other => otherwise(conn, other),
        }
    });
    let mut stream = served.connect();
    let mut ping = [0; 4];
    for _ in 0..5 {
        stream.write_all(b"pong").unwrap();
        stream.read_exact(&mut ping).unwrap();
    }
    // No answer to the last one.
    assert!(read_to_end(&stream).is_empty());
    let idle = last_read.lock().unwrap().unwrap().elapsed();
    assert!(idle >= timeout - Duration::from_millis(2), "{idle:?}");
    drop(stream);
    assert!(matches!(served.events.closed(), CloseReason::Idle));
}

/// The calls in which a handler may do something to itself or to others.
const CALLS: [&str; 7] = [
    "opened", "data", "eof", "woken", "timer", "drained", "draining",
];

fn name(call: &Call<'_>) -> &'static str {
    match call {
        Call::Opened => "opened",
        Call::Data(_) => "data",
        Call::Eof => "eof",
        Call::Woken => "woken",
        Call::Timer(_) => "timer",
        Call::Drained => "drained",
        Call::Draining => "draining",
    }
}

/// A server whose connections get every call there is, and do `act` in the one that is named.
fn serve_all_calls(
    wanted: &'static str,
    act: impl Fn(&mut nexus_net::Connection<'_>) + Send + Sync + 'static,
) -> Served {
    serve(ConnectionOptions::default(), move |conn, call| {
        let now = name(&call) == wanted;
        match call {
            Call::Opened => {
                let _ = conn.handle().wake();
                conn.set_timer(Duration::from_millis(1), 0);
                conn.write(b"hello");
                conn.notify_drained();
            }
            Call::Data(input) => input.clear(),
            // Nothing else ends this connection.
            _ => {}
        }
        if now {
            act(conn);
        }
    })
}

/// Causes each call of a connection of [`serve_all_calls`], until it has ended.
fn provoke(served: &Served) -> CloseReason {
    let mut stream = served.connect();
    // It may be gone already.
    let _ = stream.write_all(b"data");
    let _ = stream.shutdown(Shutdown::Write);
    served.events.opened();
    std::thread::scope(|scope| {
        scope.spawn(|| served.server.drain(DEADLINE));
        let reason = served.events.closed();
        served.wait_until_empty();
        reason
    })
}

#[test]
fn a_handler_may_close_or_abort_itself_in_any_call() {
    for call in CALLS {
        let served = serve_all_calls(call, |conn| conn.close());
        let reason = provoke(&served);
        assert!(
            matches!(reason, CloseReason::Local | CloseReason::Peer),
            "close in {call}: {reason}"
        );
        assert_none_wrong(&served);

        let served = serve_all_calls(call, |conn| {
            conn.close();
            conn.abort();
            conn.abort();
            conn.write(b"to nobody");
            conn.shutdown_write();
            conn.resume_reading();
            conn.notify_drained();
            conn.close();
        });
        let reason = provoke(&served);
        assert!(
            matches!(reason, CloseReason::Aborted),
            "abort in {call}: {reason}"
        );
        assert_none_wrong(&served);
    }
}

#[test]
fn a_handler_may_close_or_abort_another_in_any_call() {
    for abort in [false, true] {
        for call in CALLS {
            let victim = Arc::new(Mutex::new(None));
            let found = Arc::clone(&victim);
            let served = serve_all_calls(call, move |conn| {
                if let Some(id) = *found.lock().unwrap()
                    && let Some(mut other) = conn.context().connection(id)
                {
                    if abort {
                        other.abort();
                    } else {
                        other.close();
                    }
                }
                // Itself only when the work is done.
                conn.close();
            });
            let other = serve_other_on(&served, &victim);
            let _ = provoke(&served);
            wait_until_gone(&other);
            assert_none_wrong(&served);
        }
    }
}

/// A connection on the loop of `served` whose handler does nothing; its id goes to `victim`.
fn serve_other_on(
    served: &Served,
    victim: &Arc<Mutex<Option<nexus_net::ConnId>>>,
) -> std::net::TcpStream {
    let listener = std::net::TcpListener::bind(local()).unwrap();
    let address = listener.local_addr().unwrap();
    struct Nothing;
    impl nexus_net::Handler for Nothing {
        fn data(&mut self, _: &mut nexus_net::Connection<'_>, _: &mut bytes::BytesMut) {}
    }
    let id = on_loop(served.loop_handle(), move |context| {
        context
            .connect(address, Arc::default(), |_| Box::new(Nothing))
            .unwrap()
    });
    *victim.lock().unwrap() = Some(id);
    let stream = listener.accept().unwrap().0;
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

fn assert_none_wrong(served: &Served) {
    for event in served.events.rest() {
        assert!(
            !matches!(event, Event::Closed(_) | Event::WrongCloses(_)),
            "{event:?} after the end"
        );
    }
}

#[test]
fn a_handler_may_connect_in_any_call_and_in_closed() {
    struct Child(std::sync::mpsc::Sender<&'static str>, &'static str);
    impl nexus_net::Handler for Child {
        fn opened(&mut self, conn: &mut nexus_net::Connection<'_>) {
            let _ = self.0.send(self.1);
            conn.close();
        }
        fn data(&mut self, _: &mut nexus_net::Connection<'_>, _: &mut bytes::BytesMut) {}
        fn closed(&mut self, context: &mut nexus_net::LoopContext<'_>, _: CloseReason) {
            let _ = self.0.send("closed");
            if self.1 != "grandchild" {
                let grandchild = Box::new(Child(self.0.clone(), "grandchild"));
                // Its address does not matter: it is refused, and hears that.
                let address: Address = "127.0.0.1:1".parse().unwrap();
                let _ = context.connect(address, Arc::default(), move |_| grandchild);
            }
        }
    }
    for call in CALLS {
        let listener = std::net::TcpListener::bind(local()).unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        let served = serve_all_calls(call, move |conn| {
            let child = Box::new(Child(sender.clone(), "child"));
            let id = conn
                .context()
                .connect(address, Arc::default(), |_| child)
                .unwrap();
            assert_ne!(id, conn.id());
            conn.close();
        });
        let _ = provoke(&served);
        drop(listener.accept().unwrap());
        for expected in ["child", "closed", "closed"] {
            assert_eq!(receiver.recv_timeout(DEADLINE), Ok(expected), "in {call}");
        }
        assert_none_wrong(&served);
    }
}
