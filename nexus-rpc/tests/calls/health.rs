//! Providers that fail are left alone, and found well again by themselves.

use std::sync::atomic::AtomicBool;

use nexus_net::Backoff;
use nexus_rpc::{BreakerOptions, EndpointState};

use crate::fakes::{Asked, Fake};
use crate::*;

fn quick() -> ChannelOptions {
    ChannelOptions {
        timeout: Duration::from_millis(100),
        breaker: BreakerOptions {
            isolation: Backoff {
                initial: Duration::from_millis(50),
                max: Duration::from_millis(200),
            },
            ..BreakerOptions::default()
        },
        ..ChannelOptions::default()
    }
}

fn state_of(channel: &RpcChannel, address: SocketAddr) -> EndpointState {
    let endpoints = channel.endpoints(ModesClient::SERVICE);
    let found = endpoints
        .iter()
        .find(|endpoint| endpoint.address == address);
    found.expect("it is listed").state
}

#[test]
fn a_provider_that_swallows_everything_is_isolated_within_two_deadlines() {
    let black_hole = Fake::start(|_| Asked::Nothing);
    let seen = Arc::new(Seen::default());
    let provider = RpcProvider::builder()
        .service(ModesServer::new(Service(Arc::clone(&seen))))
        .start("127.0.0.1:0".parse().unwrap())
        .unwrap();
    let options = ChannelOptions {
        breaker: BreakerOptions::default(),
        ..quick()
    };
    let channel = channel_with([black_hole.address(), provider.local_addr()], options);
    let client = ModesClient::new(channel.clone());
    until("both are connected", || {
        let endpoints = channel.endpoints(ModesClient::SERVICE);
        endpoints
            .iter()
            .all(|one| one.state == EndpointState::Ready)
    });
    // One call after the other, as a quiet client makes them: every second one is swallowed.
    let mut swallowed = 0;
    while state_of(&channel, black_hole.address()) == EndpointState::Ready {
        if client.inline(&text("a")).wait().is_err() {
            swallowed += 1;
        }
        assert!(swallowed <= 2, "still in use");
    }
    assert_eq!(swallowed, 2);
    let asked = black_hole.requests_for(ModesClient::SERVICE);
    for _ in 0..50 {
        client.inline(&text("a")).wait().unwrap();
    }
    assert_eq!(black_hole.requests_for(ModesClient::SERVICE), asked);
}

#[test]
fn an_isolated_provider_is_probed_and_used_again_without_a_call_of_a_user() {
    let well = Arc::new(AtomicBool::new(false));
    let is_well = Arc::clone(&well);
    let sick = Fake::start(move |_| match is_well.load(Ordering::SeqCst) {
        true => Asked::Echo,
        false => Asked::Nothing,
    });
    let other = Fake::start(|_| Asked::Echo);
    let channel = channel_with([sick.address(), other.address()], quick());
    let client = ModesClient::new(channel.clone());
    until("it is isolated", || {
        let _ = client.inline(&text("a")).wait();
        state_of(&channel, sick.address()) == EndpointState::Isolated
    });
    let asked = sick.requests_for(ModesClient::SERVICE);
    until("a probe was swallowed", || sick.requests() > asked);
    until("it is isolated again", || {
        state_of(&channel, sick.address()) == EndpointState::Isolated
    });
    well.store(true, Ordering::SeqCst);
    until("it is well", || {
        state_of(&channel, sick.address()) == EndpointState::Ready
    });
    // Only probes have come meanwhile.
    assert_eq!(sick.requests_for(ModesClient::SERVICE), asked);
    until("it gets calls", || {
        client.inline(&text("a")).wait().unwrap();
        sick.requests_for(ModesClient::SERVICE) > asked
    });
}

#[test]
fn the_only_provider_is_never_isolated() {
    let silent = Fake::start(|nth| match nth {
        0..10 => Asked::Nothing,
        _ => Asked::Echo,
    });
    let options = ChannelOptions {
        timeout: Duration::from_millis(10),
        ..quick()
    };
    let channel = channel_with([silent.address()], options);
    let client = ModesClient::new(channel.clone());
    until("it answers", || {
        assert_ne!(
            state_of(&channel, silent.address()),
            EndpointState::Isolated
        );
        let waiting = CallOptions::default().wait_for_ready();
        client.inline_with(&text("a"), waiting).wait().is_ok()
    });
}

#[test]
fn a_provider_that_answers_with_errors_of_its_own_is_not_at_fault() {
    let failing = Fake::start(|_| Asked::Answer(ErrorCode::new(12345)));
    let other = Fake::start(|_| Asked::Echo);
    let channel = channel_with([failing.address(), other.address()], quick());
    let client = ModesClient::new(channel.clone());
    assert!(channel.wait_ready(ModesClient::SERVICE, LONG));
    for _ in 0..200 {
        let _ = client.inline(&text("a")).wait();
    }
    assert_eq!(state_of(&channel, failing.address()), EndpointState::Ready);
}
