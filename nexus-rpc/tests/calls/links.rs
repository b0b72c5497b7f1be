//! Providers with several connections, of which some are lost.

use std::sync::Barrier;

use nexus_net::Backoff;
use nexus_rpc::{Connections, EndpointState};

use crate::fakes::{Asked, Fake};
use crate::*;

const LINKS: usize = 4;

/// A channel with [`LINKS`] connections to the fake, all of which have carried a call.
fn connected(fake: &Fake, connections: Connections) -> (ModesClient, RpcChannel) {
    let options = ChannelOptions {
        connections,
        timeout: LONG,
        backoff: Backoff {
            initial: Duration::from_millis(20),
            max: Duration::from_millis(100),
        },
        ..ChannelOptions::default()
    };
    let channel = channel_with([fake.address()], options);
    let client = ModesClient::new(channel.clone());
    assert!(channel.wait_ready(ModesClient::SERVICE, LONG));
    until("all connections are used", || {
        // Beyond the pool's size they are refused.
        call_many(&client, 2 * LINKS);
        fake.connections_asked() == LINKS
    });
    (client, channel)
}

fn state(channel: &RpcChannel) -> EndpointState {
    channel.endpoints(ModesClient::SERVICE)[0].state
}

/// Waits until the client has tried so many times more to connect.
fn wait_tried(fake: &Fake, times: usize) {
    let before = fake.connections();
    until("it tries to connect again", || {
        fake.connections() >= before + times
    });
}

#[test]
fn a_lost_connection_leaves_the_calls_to_the_others() {
    for connections in [Connections::Several(LINKS), Connections::Pooled(LINKS)] {
        for lost in 0..LINKS {
            let fake = Fake::start(|_| Asked::Echo);
            let (client, channel) = connected(&fake, connections);
            fake.refuse(true);
            let before = fake.connections();
            fake.cut(lost);
            until("the loss is noticed", || fake.connections() > before);
            // For as long as it is tried in vain, and that is repeated, every call succeeds.
            while fake.connections() < before + 4 {
                client.inline(&text("a")).wait().unwrap();
                assert_eq!(state(&channel), EndpointState::Ready);
            }
            let asked = fake.connections_asked();
            fake.refuse(false);
            until("the connection is there again", || {
                call_many(&client, 2 * LINKS);
                fake.connections_asked() > asked
            });
        }
    }
}

#[test]
fn without_any_connection_one_is_tried_at_a_time_and_all_come_back() {
    let fake = Fake::start(|_| Asked::Echo);
    let (client, channel) = connected(&fake, Connections::Several(LINKS));
    fake.refuse(true);
    (0..LINKS).for_each(|n| fake.cut(n));
    wait_tried(&fake, 2);
    until("it is noticed", || {
        matches!(code_of(&client), Some(ErrorCode::HOST_DOWN))
    });
    assert_ne!(state(&channel), EndpointState::Ready);
    let asked = fake.connections_asked();
    fake.refuse(false);
    assert!(channel.wait_ready(ModesClient::SERVICE, LONG));
    until("all are there again", || {
        call_many(&client, 2 * LINKS);
        fake.connections_asked() >= asked + LINKS
    });
}

/// Calls and cuts race. A call that was sent on a connection that is cut may have run; any other has
/// nothing to fail from.
#[test]
fn only_calls_that_were_sent_on_a_lost_connection_fail() {
    let fake = Fake::start(|_| Asked::Echo);
    let (client, channel) = connected(&fake, Connections::Several(LINKS));
    let started = Barrier::new(3);
    let cutting = std::sync::atomic::AtomicBool::new(true);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                started.wait();
                while cutting.load(Ordering::SeqCst) {
                    let calls: Vec<_> = (0..8).map(|_| client.inline(&text("a"))).collect();
                    for call in calls {
                        if let Err(error) = call.wait() {
                            assert_eq!(error.code(), ErrorCode::CONNECTION_CLOSED, "{error}");
                        }
                    }
                }
            });
        }
        let _stop = Ending(|| cutting.store(false, Ordering::SeqCst));
        started.wait();
        for _ in 0..30 {
            let (open, used) = (fake.connections(), fake.connections_asked());
            // The newest: the others stand.
            fake.cut(open - 1);
            until("it is made again, and used", || {
                fake.connections_asked() > used
            });
            assert_eq!(state(&channel), EndpointState::Ready);
        }
    });
    assert!(client.inline(&text("a")).wait().is_ok());
}

#[test]
fn a_connection_that_swallows_calls_is_replaced_beside_the_others() {
    // Each takes the 5 s for which a young connection is left alone.
    std::thread::scope(|scope| {
        for silent in 0..2 {
            scope.spawn(move || is_replaced(silent));
        }
    });
}

fn is_replaced(silent: usize) {
    let fake = Fake::start(|_| Asked::Echo);
    let options = ChannelOptions {
        connections: Connections::Several(2),
        timeout: Duration::from_millis(100),
        ..ChannelOptions::default()
    };
    let channel = channel_with([fake.address()], options);
    let client = ModesClient::new(channel.clone());
    until("both connections are used", || {
        call_many(&client, 4);
        fake.connections_asked() == 2
    });
    fake.silence(silent);
    until("it is replaced", || {
        call_many(&client, 4);
        assert_eq!(state(&channel), EndpointState::Ready);
        fake.connections() >= 3
    });
    until("nothing is lost any more", || {
        (0..20).all(|_| client.inline(&text("a")).wait().is_ok())
    });
}

/// That many at a time, whatever becomes of them.
fn call_many(client: &ModesClient, count: usize) {
    let calls: Vec<_> = (0..count).map(|_| client.inline(&text("a"))).collect();
    calls.into_iter().for_each(|call| drop(call.wait()));
}

fn code_of(client: &ModesClient) -> Option<ErrorCode> {
    let result = client.inline(&text("a")).wait();
    result.err().map(|error| error.code())
}
