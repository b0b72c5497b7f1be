//! Allocations of nexus-rpc per call, once it has warmed up.
//!
//! A test of its own, since it replaces the allocator. The server is counted under a client that allocates
//! nothing; the client is what is left when that is taken from a server and a client together.

use std::alloc::System;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::BytesMut;
use nexus_benches::rpc::generated::inline::{ECHO_SERVICE, EchoRequest, EchoServiceClient};
use nexus_benches::rpc::{Framework, Mode, RpcServer, RpcServerOptions, Slow, message};
use nexus_net::{LoopGroup, LoopOptions};
use nexus_rpc::registry::{Provider, StaticRegistry};
use nexus_rpc::wire::{Limits, RpcMeta, encode_frame};
use nexus_rpc::{ChannelOptions, RpcChannel};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Calls in flight at a time.
const CALLS: usize = 64;
const WARM_UP_ROUNDS: usize = 50;
const ROUNDS: usize = 200;
/// The message, and not quite nothing beside it: a table of a loop may still find its size.
const SERVER_ALLOCATIONS_MAX: f64 = 1.01;
/// What it was when this was written: the message, and four around the call's state, callback and frame.
const CLIENT_ALLOCATIONS_MAX: f64 = 5.1;

#[test]
fn a_call_allocates_its_message_on_the_server_and_little_more_on_the_client() {
    let server = RpcServer::start(&RpcServerOptions {
        framework: Framework::Nexus,
        address: "127.0.0.1:0".parse().expect("an address"),
        threads: 1,
        loops: LoopOptions::default(),
        mode: Mode::Inline,
        slow: Duration::ZERO,
    })
    .expect("a server");
    let by_server = server_allocations(&server);
    let by_both = both_allocations(&server);
    let by_client = by_both - by_server;
    println!("allocations per call: server {by_server:.3}, client {by_client:.3}");
    assert!(by_server <= SERVER_ALLOCATIONS_MAX, "server: {by_server}");
    assert!(by_client <= CLIENT_ALLOCATIONS_MAX, "client: {by_client}");
}

fn request() -> EchoRequest {
    EchoRequest {
        message: message(16, Slow::No),
    }
}

fn per_call(mut round: impl FnMut()) -> f64 {
    for _ in 0..WARM_UP_ROUNDS {
        round();
    }
    let region = Region::new(ALLOCATOR);
    for _ in 0..ROUNDS {
        round();
    }
    let counted = region.change();
    (counted.allocations + counted.reallocations) as f64 / (ROUNDS * CALLS) as f64
}

fn server_allocations(server: &RpcServer) -> f64 {
    let method = &ECHO_SERVICE.methods[0];
    let limits = Limits::default();
    let mut requests = BytesMut::new();
    let mut answers = BytesMut::new();
    for id in 0..CALLS as i64 {
        let id = (1 << 32) + id;
        let mut meta = RpcMeta::for_request(method.service, method.name, id);
        encode_frame(&mut meta, &request(), &[], &limits, &mut requests).expect("encoded");
        let mut meta = RpcMeta::for_success(id);
        encode_frame(&mut meta, &request(), &[], &limits, &mut answers).expect("encoded");
    }
    let mut stream = TcpStream::connect(server.address()).expect("a connection");
    let mut received = vec![0; answers.len()];
    let per_call = per_call(|| {
        stream.write_all(&requests).expect("write");
        stream.read_exact(&mut received).expect("answers");
    });
    assert_eq!(received, answers, "the answers are the expected ones");
    per_call
}

fn both_allocations(server: &RpcServer) -> f64 {
    let registry = Arc::new(StaticRegistry::new([Provider::new(server.address())]));
    let loops = Arc::new(LoopGroup::start("client", 1).expect("a loop"));
    let channel = RpcChannel::new(registry, loops, ChannelOptions::default());
    assert!(channel.wait_ready(EchoServiceClient::SERVICE, Duration::from_secs(30)));
    let client = EchoServiceClient::new(channel);
    let request = request();
    // With room for all, so that it does not allocate.
    let (done, all_done) = mpsc::sync_channel(CALLS);
    per_call(|| {
        for _ in 0..CALLS {
            let done = done.clone();
            client.echo(&request).on_complete(move |result| {
                let _ = done.send(result.is_ok());
            });
        }
        for _ in 0..CALLS {
            assert!(all_done.recv().expect("a result"));
        }
    })
}
