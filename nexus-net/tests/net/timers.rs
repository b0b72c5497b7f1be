//! Timers of handlers and of loops.

use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use nexus_net::{CloseReason, ConnectionOptions, LoopGroup};

use crate::support::*;

const MS: Duration = Duration::from_millis(1);

fn tokens(events: &Events, count: usize) -> Vec<u64> {
    (0..count)
        .map(|_| {
            events.find(|event| match event {
                Event::Timer(token) => Some(token),
                _ => None,
            })
        })
        .collect()
}

#[test]
fn timers_fire_in_order_of_their_time_and_then_of_their_start() {
    let served = serve(ConnectionOptions::default(), |conn, call| match call {
        Call::Opened => {
            for (delay_ms, token) in [(300, 5), (100, 1), (200, 3)] {
                conn.set_timer(delay_ms * MS, token);
                conn.set_timer(delay_ms * MS, token + 1);
            }
        }
        other => otherwise(conn, other),
    });
    let _stream = served.connect();
    let fired = tokens(&served.events, 6);
    // The two of a pair are started within a moment, yet may fall into neighbouring milliseconds:
    // never in the other order.
    assert_eq!(fired, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn no_timer_is_early() {
    let loops = LoopGroup::start("timers", 1).unwrap();
    let (sender, receiver) = mpsc::channel();
    for delay_ms in [0, 1, 2, 5, 20, 63, 64, 65, 130] {
        let sender = sender.clone();
        let start = Instant::now();
        loops.handles()[0]
            .post_after(delay_ms * MS, move |_| {
                let _ = sender.send((delay_ms, start.elapsed()));
            })
            .unwrap();
    }
    drop(sender);
    let mut fired = 0;
    while let Ok((delay_ms, took)) = receiver.recv_timeout(DEADLINE) {
        assert!(took >= delay_ms * MS, "{delay_ms} ms took {took:?}");
        fired += 1;
    }
    assert_eq!(fired, 9);
}

#[test]
fn a_cancelled_timer_does_not_fire() {
    let served = serve(ConnectionOptions::default(), |conn, call| match call {
        Call::Opened => {
            let cancelled = conn.set_timer(5 * MS, 1);
            conn.set_timer(20 * MS, 2);
            conn.cancel_timer(cancelled);
            conn.cancel_timer(cancelled);
        }
        other => otherwise(conn, other),
    });
    let _stream = served.connect();
    assert_eq!(tokens(&served.events, 1), [2]);
}

#[test]
fn a_timer_that_is_due_can_be_cancelled_by_one_that_fires_before_it() {
    let served = serve(ConnectionOptions::default(), |conn, call| match call {
        Call::Opened => {
            let to_cancel = Arc::new(Mutex::new(None));
            let found = Arc::clone(&to_cancel);
            let id = conn.id();
            conn.context().after(Duration::ZERO, move |context| {
                if let Some(timer) = found.lock().unwrap().take() {
                    context.cancel_timer(timer);
                }
                context.after(5 * MS, move |context| {
                    if let Some(mut conn) = context.connection(id) {
                        conn.abort();
                    }
                });
            });
            conn.set_timer(MS, 1);
            *to_cancel.lock().unwrap() = Some(conn.set_timer(2 * MS, 2));
            // Now all three are due, and fire in one turn.
            spend(5 * MS);
        }
        other => otherwise(conn, other),
    });
    let _stream = served.connect();
    assert_eq!(tokens(&served.events, 1), [1]);
    assert!(matches!(
        served.events.next(),
        Event::Closed(CloseReason::Aborted)
    ));
}

#[test]
fn the_timers_of_a_connection_end_with_it() {
    let served = serve(ConnectionOptions::default(), |conn, call| match call {
        Call::Opened => {
            conn.set_timer(MS, 1);
            for token in 0..1000 {
                conn.set_timer(Duration::from_secs(3600), token);
            }
            spend(5 * MS);
            conn.abort();
        }
        other => otherwise(conn, other),
    });
    let _stream = served.connect();
    served.events.closed();
    wait_for("no timers", || served.loop_handle().metrics().timers() == 0);
    let rest = served.events.rest();
    assert!(rest.is_empty(), "{rest:?} after closed");
}

#[test]
fn the_longest_delay_is_no_overflow() {
    let options = ConnectionOptions {
        idle_timeout: Some(Duration::MAX),
        close_timeout: Duration::MAX,
        connect_timeout: Duration::MAX,
        ..ConnectionOptions::default()
    };
    let served = serve(options, |conn, call| match call {
        Call::Opened => {
            let timer = conn.set_timer(Duration::MAX, 1);
            conn.cancel_timer(timer);
            conn.context().after(Duration::MAX, |_| {});
            conn.set_timer(Duration::MAX, 2);
        }
        other => echo(conn, other),
    });
    served
        .loop_handle()
        .post_after(Duration::MAX, |_| {})
        .unwrap();
    assert_echoes(&mut served.connect(), b"hello");
}
