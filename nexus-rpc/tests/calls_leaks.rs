//! Channels and providers leave nothing behind. Alone in its process, whose descriptors and threads
//! it counts.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus_net::LoopGroup;
use nexus_rpc::registry::{InProcessRegistry, Registry};
use nexus_rpc::{CallContext, ChannelOptions, ProviderOptions, RpcChannel, RpcError, RpcProvider};

#[allow(missing_docs, unreachable_pub, clippy::all)]
mod example {
    include!(concat!(env!("OUT_DIR"), "/example.rs"));
}
use example::{EchoRequest, EchoResponse, EchoService, EchoServiceClient, EchoServiceServer};

struct Echo;

impl EchoService for Echo {
    fn echo(&self, _call: &CallContext, request: EchoRequest) -> Result<EchoResponse, RpcError> {
        let message = request.message;
        Ok(EchoResponse { message })
    }
}

fn open_now() -> (usize, usize) {
    let count = |path| fs::read_dir(path).unwrap().count();
    (count("/proc/self/fd"), count("/proc/self/task"))
}

#[test]
fn two_hundred_channels_and_providers_come_and_go_without_a_trace() {
    let loops = Arc::new(LoopGroup::start("test", 2).unwrap());
    let before = open_now();
    for _ in 0..200 {
        let registry: Arc<dyn Registry> = Arc::new(InProcessRegistry::new());
        let provider = RpcProvider::builder()
            .service(EchoServiceServer::new(Echo))
            .registry(Arc::clone(&registry))
            .loops(Arc::clone(&loops))
            .options(ProviderOptions {
                worker_threads: 2,
                ..Default::default()
            })
            .start("127.0.0.1:0".parse().unwrap())
            .unwrap();
        let channel = RpcChannel::new(registry, Arc::clone(&loops), ChannelOptions::default());
        let client = EchoServiceClient::new(channel.clone());
        let message = "hello".to_owned();
        client.echo(&EchoRequest { message }).wait().unwrap();
        assert_eq!(channel.in_flight(EchoServiceClient::SERVICE), 0);
        assert_eq!(provider.in_flight(), 0);
    }
    let started = Instant::now();
    while open_now() != before {
        let waited = started.elapsed();
        assert!(
            waited < Duration::from_secs(20),
            "{before:?} {:?}",
            open_now()
        );
        std::thread::yield_now();
    }
}
