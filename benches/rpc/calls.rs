//! Calls through loopback: one at a time, and 256 together.

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use criterion::{Criterion, Throughput};
use nexus_benches::rpc::generated::inline::{EchoRequest, EchoServiceClient};
use nexus_benches::rpc::generated::tonic as generated;
use nexus_benches::rpc::{Framework, Mode, RpcServer, RpcServerOptions, Slow, message};
use nexus_net::{LoopGroup, LoopOptions};
use nexus_rpc::registry::{Provider, StaticRegistry};
use nexus_rpc::{ChannelOptions, RpcChannel};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

const BYTES: usize = 16;
const TOGETHER: usize = 256;

type TonicClient = generated::echo_service_client::EchoServiceClient<Channel>;

fn start(framework: Framework) -> RpcServer {
    RpcServer::start(&RpcServerOptions {
        framework,
        address: SocketAddr::from(([127, 0, 0, 1], 0)),
        threads: 1,
        loops: LoopOptions::default(),
        mode: Mode::Inline,
        slow: Duration::ZERO,
    })
    .expect("a server")
}

fn nexus_client(address: SocketAddr) -> EchoServiceClient {
    let registry = Arc::new(StaticRegistry::new([Provider::new(address)]));
    let loops = Arc::new(LoopGroup::start("client", 1).expect("a loop"));
    let channel = RpcChannel::new(registry, loops, ChannelOptions::default());
    let deadline = Duration::from_secs(30);
    assert!(channel.wait_ready(EchoServiceClient::SERVICE, deadline));
    EchoServiceClient::new(channel)
}

fn tonic_client(address: SocketAddr) -> (Runtime, TonicClient) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let channel = runtime.block_on(endpoint.connect()).expect("connected");
    (runtime, TonicClient::new(channel))
}

/// A thread that calls and waits.
pub(crate) fn one_by_one(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a call and its answer");
    let server = start(Framework::Nexus);
    let client = nexus_client(server.address());
    let request = EchoRequest {
        message: message(BYTES, Slow::No),
    };
    group.bench_function("nexus", |bencher| {
        bencher.iter(|| client.echo(&request).wait().expect("an answer"));
    });
    let server = start(Framework::Tonic);
    let (runtime, mut client) = tonic_client(server.address());
    group.bench_function("tonic", |bencher| {
        bencher.iter(|| {
            let message = message(BYTES, Slow::No);
            let call = client.echo(generated::EchoRequest { message });
            runtime.block_on(call).expect("an answer")
        });
    });
    group.finish();
}

/// One iteration makes 256 calls on one connection, all in flight at the same time, and waits for all.
pub(crate) fn many_at_a_time(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("256 calls together");
    group.throughput(Throughput::Elements(TOGETHER as u64));
    let server = start(Framework::Nexus);
    let client = nexus_client(server.address());
    let request = EchoRequest {
        message: message(BYTES, Slow::No),
    };
    group.bench_function("nexus", |bencher| {
        bencher.iter(|| {
            let (done, all_done) = mpsc::channel();
            for _ in 0..TOGETHER {
                let done = done.clone();
                client.echo(&request).on_complete(move |result| {
                    let _ = done.send(result.is_ok());
                });
            }
            drop(done);
            assert_eq!(all_done.iter().filter(|&ok| ok).count(), TOGETHER);
        });
    });
    let server = start(Framework::Tonic);
    let (runtime, client) = tonic_client(server.address());
    group.bench_function("tonic", |bencher| {
        bencher.iter(|| {
            runtime.block_on(async {
                let mut calls = JoinSet::new();
                for _ in 0..TOGETHER {
                    let mut client = client.clone();
                    let message = message(BYTES, Slow::No);
                    calls.spawn(async move {
                        client
                            .echo(generated::EchoRequest { message })
                            .await
                            .is_ok()
                    });
                }
                let answered = calls.join_all().await.into_iter().filter(|&ok| ok).count();
                assert_eq!(answered, TOGETHER);
            });
        });
    });
    group.finish();
}
