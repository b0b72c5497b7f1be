//! Providers that are drained and started again on their port, and channels that are dropped with calls in
//! flight, leave nothing behind. Alone in its process, whose descriptors and threads it counts.

use std::fs;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use nexus_net::{Backoff, LoopGroup};
use nexus_rpc::registry::{Provider, Registry, StaticRegistry};
use nexus_rpc::{
    CallContext, CallOptions, ChannelOptions, ProviderOptions, Responder, RpcChannel, RpcError,
    RpcProvider,
};

#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
mod modes {
    include!(concat!(env!("OUT_DIR"), "/nexus.test.rs"));
}
use modes::{Modes, ModesClient, ModesServer, Text};

/// How long the test waits for what has to happen.
const LONG: Duration = Duration::from_secs(20);

const ROUNDS: usize = 50;

/// Passes on what is called `Later`, for the test to answer.
struct Service(mpsc::Sender<Responder<Text>>);

impl Modes for Service {
    fn pooled(&self, _call: &CallContext, request: Text) -> Result<Text, RpcError> {
        Ok(request)
    }

    fn inline(&self, _call: &CallContext, request: Text) -> Result<Text, RpcError> {
        Ok(request)
    }

    fn later(&self, _call: CallContext, _request: Text, responder: Responder<Text>) {
        self.0.send(responder).unwrap();
    }
}

#[test]
fn providers_and_channels_come_and_go_without_a_trace() {
    let loops = Arc::new(LoopGroup::start("test", 2).unwrap());
    let (provider, arrived) = provide(&loops, ([127, 0, 0, 1], 0).into());
    let address = provider.local_addr();
    let channel = channel_to(&loops, address);
    let client = ModesClient::new(channel.clone());
    client
        .pooled_with(&text("first"), waiting())
        .wait()
        .unwrap();
    let before = open_now();

    let (mut provider, mut arrived) = (provider, arrived);
    for round in 0..ROUNDS {
        // One call is in work when the drain begins, and is answered while it lasts.
        let held = client.later_with(&text("held"), waiting());
        let responder = arrived.recv_timeout(LONG).unwrap();
        let draining = std::thread::spawn(move || provider.drain(LONG));
        responder.complete(Ok(text("answered")));
        assert_eq!(held.wait().unwrap().message.text, "answered");
        assert_eq!(draining.join().unwrap().aborted, 0, "round {round}");
        (provider, arrived) = provide(&loops, address);
        let again = client.pooled_with(&text("again"), waiting());
        assert_eq!(again.wait().unwrap().message.text, "again");
        assert_eq!(channel.in_flight(ModesClient::SERVICE), 0);
        assert_eq!(provider.in_flight(), 0);
    }
    until(before);

    for _ in 0..ROUNDS {
        let client = ModesClient::new(channel_to(&loops, address));
        let call = client.later_with(&text("abandoned"), waiting());
        let responder = arrived.recv_timeout(LONG).unwrap();
        drop((client, call));
        // Nobody waits for the answer but the connection, which ends with it.
        drop(responder);
    }
    until(before);
    assert_eq!(provider.in_flight(), 0);
}

fn provide(
    loops: &Arc<LoopGroup>,
    address: SocketAddr,
) -> (RpcProvider, mpsc::Receiver<Responder<Text>>) {
    let (sender, arrived) = mpsc::channel();
    let provider = RpcProvider::builder()
        .service(ModesServer::new(Service(sender)))
        .loops(Arc::clone(loops))
        .options(ProviderOptions {
            worker_threads: 2,
            ..ProviderOptions::default()
        })
        .start(address)
        .unwrap();
    (provider, arrived)
}

fn channel_to(loops: &Arc<LoopGroup>, address: SocketAddr) -> RpcChannel {
    let registry: Arc<dyn Registry> = Arc::new(StaticRegistry::new([Provider::new(address)]));
    let options = ChannelOptions {
        timeout: LONG,
        backoff: Backoff {
            initial: Duration::from_millis(1),
            max: Duration::from_millis(10),
        },
        ..ChannelOptions::default()
    };
    RpcChannel::new(registry, Arc::clone(loops), options)
}

fn waiting() -> CallOptions {
    CallOptions::default().wait_for_ready()
}

fn text(text: &str) -> Text {
    Text {
        text: text.to_owned(),
    }
}

/// Descriptors and threads of the process.
fn open_now() -> (usize, usize) {
    let count = |path| fs::read_dir(path).unwrap().count();
    (count("/proc/self/fd"), count("/proc/self/task"))
}

/// Waits until as many are open as before.
#[track_caller]
fn until(before: (usize, usize)) {
    let started = Instant::now();
    while open_now() != before {
        let now = open_now();
        assert!(started.elapsed() < LONG, "{before:?} before, {now:?} now");
        std::thread::yield_now();
    }
}
