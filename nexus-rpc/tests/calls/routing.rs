//! Which provider gets a call, and where it goes when that one does not take it.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::AtomicBool;

use bytes::BytesMut;
use nexus_rpc::wire::{Limits, RpcMeta, decode, encode_payload};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::*;

#[test]
fn the_first_call_needs_no_waiting_for_the_connection() {
    let registry: Arc<dyn Registry> = Arc::new(InProcessRegistry::new());
    let loops = loops();
    let (_provider, _) = provide(&registry, &loops, ProviderOptions::default());
    let channel = RpcChannel::new(registry, loops, ChannelOptions::default());
    // From many threads: nobody finds a route that has not heard of its providers.
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let client = ModesClient::new(channel.clone());
            scope.spawn(move || client.inline(&text("a")).wait().unwrap());
        }
    });
}

#[test]
fn calls_are_spread_evenly() {
    let registry: Arc<dyn Registry> = Arc::new(InProcessRegistry::new());
    let loops = loops();
    let providers: Vec<_> = (0..3)
        .map(|_| provide(&registry, &loops, ProviderOptions::default()))
        .collect();
    let client = ModesClient::new(RpcChannel::new(registry, loops, ChannelOptions::default()));
    // Until all are connected the others get more.
    until("each has had one", || {
        client.inline(&text("a")).wait().unwrap();
        providers.iter().all(|(_, seen)| seen.calls() > 0)
    });
    let before: Vec<usize> = providers.iter().map(|(_, seen)| seen.calls()).collect();
    for _ in 0..300 {
        client.inline(&text("a")).wait().unwrap();
    }
    for ((_, seen), before) in providers.iter().zip(before) {
        assert_eq!(seen.calls() - before, 100);
    }
}

#[test]
fn a_refused_call_goes_to_another_provider_and_runs_once() {
    for code in [ErrorCode::STOPPING, ErrorCode::OVERLOADED] {
        let refusing = refusing_server(code);
        let seen = Arc::new(Seen::default());
        let provider = RpcProvider::builder()
            .service(ModesServer::new(Service(Arc::clone(&seen))))
            .start("127.0.0.1:0".parse().unwrap())
            .unwrap();
        let client = ModesClient::new(channel_to([refusing, provider.local_addr()]));
        for _ in 0..100 {
            client.inline(&text("a")).wait().unwrap();
        }
        assert_eq!(seen.calls(), 100);
    }
}

#[test]
fn a_call_that_all_refuse_fails_with_the_refusal() {
    for code in [ErrorCode::STOPPING, ErrorCode::OVERLOADED] {
        let client = ModesClient::new(channel_to((0..5).map(|_| refusing_server(code))));
        for _ in 0..10 {
            let error = client.inline(&text("a")).wait().unwrap_err();
            assert_eq!((error.code(), error.text()), (code, "no"));
        }
    }
}

#[test]
fn draining_one_of_two_providers_fails_no_call() {
    // A static list: nobody hears of the drain but from the provider itself.
    let start = || {
        RpcProvider::builder()
            .service(ModesServer::new(Service::default()))
            .start("127.0.0.1:0".parse().unwrap())
            .unwrap()
    };
    let (mut first, second) = (start(), start());
    let channel = channel_to([first.local_addr(), second.local_addr()]);
    let ended = AtomicBool::new(false);
    let made = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let client = ModesClient::new(channel.clone());
            let (ended, made) = (&ended, &made);
            scope.spawn(move || {
                while !ended.load(Ordering::SeqCst) {
                    for call in [client.inline(&text("a")), client.pooled(&text("b"))] {
                        call.wait().unwrap();
                    }
                    made.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        until("calls run", || made.load(Ordering::SeqCst) > 100);
        let report = first.drain(LONG);
        ended.store(true, Ordering::SeqCst);
        assert_eq!(report.aborted, 0);
    });
    assert_eq!(first.in_flight(), 0);
}

#[test]
fn changes_of_the_list_lose_no_call() {
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let registry: Arc<dyn Registry> = Arc::new(InProcessRegistry::new());
    let loops = loops();
    let providers: Vec<_> = (0..4)
        .map(|_| {
            RpcProvider::builder()
                .service(ModesServer::new(Service::default()))
                .loops(Arc::clone(&loops))
                .start("127.0.0.1:0".parse().unwrap())
                .unwrap()
        })
        .collect();
    let register = |i: usize| {
        let provider = Provider::new(providers[i].local_addr());
        registry.register(ModesClient::SERVICE, &[], &provider)
    };
    let options = ChannelOptions {
        timeout: LONG,
        ..Default::default()
    };
    let client = ModesClient::new(RpcChannel::new(Arc::clone(&registry), loops, options));
    let mut current = register(0);
    let mut calls = Vec::new();
    for _ in 0..200 {
        for i in 0..random.random_range(0..20) {
            calls.push(match i % 3 {
                0 => client.pooled(&text("a")),
                1 => client.inline(&text("b")),
                _ => client.later(&text("c")),
            });
        }
        // The new one first, as a rolling restart does it. Registering an address again hands it over.
        current = {
            let next = register(random.random_range(0..providers.len()));
            drop(current);
            next
        };
    }
    for call in calls {
        call.wait().unwrap();
    }
    drop(current);
    until("nothing is in work", || {
        providers.iter().all(|provider| provider.in_flight() == 0)
    });
}

/// Answers every request with this code.
fn refusing_server(code: ErrorCode) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let Ok((mut stream, _)) = listener.accept() else {
            return;
        };
        let (mut input, mut piece) = (BytesMut::new(), [0; 4096]);
        while let Ok(count @ 1..) = stream.read(&mut piece) {
            input.extend_from_slice(&piece[..count]);
            while let Ok(Some(frame)) = decode(&mut input, &Limits::default()) {
                let error = RpcError::new(code, "no");
                let mut meta = RpcMeta::for_failure(frame.meta.correlation_id(), &error);
                let mut out = BytesMut::new();
                encode_payload(&mut meta, &[], &[], &Limits::default(), &mut out).unwrap();
                let _ = stream.write_all(&out);
            }
        }
    });
    address
}
