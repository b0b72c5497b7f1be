//! Calls over real sockets.

mod around;
mod attempts;
mod basic;
mod brpc;
mod cuts;
mod discovery;
mod fakes;
mod faults;
mod guards;
mod health;
mod http;
mod http_beside;
mod limits;
mod links;
mod load;
mod overload;
mod receiving;
mod refusals;
mod routing;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nexus_net::{LoopGroup, on_loop_thread};
use nexus_rpc::registry::{InProcessRegistry, Provider, Registry, StaticRegistry};
use nexus_rpc::{
    CallContext, CallOptions, ChannelOptions, ErrorCode, MetadataKey, ProviderOptions, Responder,
    RpcChannel, RpcError, RpcProvider,
};
use parking_lot::{Condvar, Mutex};

#[allow(missing_docs, unreachable_pub, clippy::all)]
mod modes {
    include!(concat!(env!("OUT_DIR"), "/nexus.test.rs"));
}
use modes::{Modes, ModesClient, ModesServer, Text};

/// What the service sends back as it came.
const K: MetadataKey<String> = MetadataKey::new("k");

/// How long a test waits for what has to happen.
const LONG: Duration = Duration::from_secs(20);

/// What a provider of a test did, and what holds its handlers up.
#[derive(Default)]
struct Seen {
    calls: AtomicUsize,
    shut: Mutex<bool>,
    opened: Condvar,
    kept: Mutex<Vec<Responder<Text>>>,
}

impl Seen {
    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    fn shut_gate(&self) {
        *self.shut.lock() = true;
    }

    fn open_gate(&self) {
        *self.shut.lock() = false;
        self.opened.notify_all();
    }

    fn pass_gate(&self) {
        let mut shut = self.shut.lock();
        self.opened.wait_while(&mut shut, |shut| *shut);
    }
}

#[derive(Default)]
struct Service(Arc<Seen>);

impl Modes for Service {
    fn pooled(&self, call: &CallContext, request: Text) -> Result<Text, RpcError> {
        assert!(!on_loop_thread());
        self.0.calls.fetch_add(1, Ordering::SeqCst);
        match request.text.as_str() {
            "panic" => panic!("asked to"),
            "fail" => Err(RpcError::new(ErrorCode::new(12345), "asked to")),
            "fail at length" => Err(RpcError::internal("x".repeat(1 << 20))),
            "grow" => Ok(text(&"x".repeat(1 << 20))),
            "gate" => {
                self.0.pass_gate();
                Ok(request)
            }
            _ => {
                call.set_response_attachment(call.attachment().clone());
                if let Some(value) = call.metadata().get(K)? {
                    call.set_response_metadata(K, value);
                }
                Ok(request)
            }
        }
    }

    fn inline(&self, _call: &CallContext, request: Text) -> Result<Text, RpcError> {
        assert!(on_loop_thread());
        self.0.calls.fetch_add(1, Ordering::SeqCst);
        match request.text.as_str() {
            "panic" => panic!("asked to"),
            _ => Ok(request),
        }
    }

    fn later(&self, _call: CallContext, request: Text, responder: Responder<Text>) {
        self.0.calls.fetch_add(1, Ordering::SeqCst);
        match request.text.as_str() {
            "drop" => drop(responder),
            "panic" => panic!("asked to"),
            "keep" => self.0.kept.lock().push(responder),
            _ => {
                std::thread::spawn(move || responder.complete(Ok(request)));
            }
        }
    }
}

struct Setting {
    provider: RpcProvider,
    client: ModesClient,
    channel: RpcChannel,
    seen: Arc<Seen>,
}

fn setting() -> Setting {
    setting_with(ProviderOptions::default(), ChannelOptions::default())
}

fn setting_with(provider: ProviderOptions, channel: ChannelOptions) -> Setting {
    let registry: Arc<dyn Registry> = Arc::new(InProcessRegistry::new());
    let loops = loops();
    let (provider, seen) = provide(&registry, &loops, provider);
    let channel = RpcChannel::new(registry, loops, channel);
    assert!(channel.wait_ready(ModesClient::SERVICE, LONG));
    Setting {
        provider,
        client: ModesClient::new(channel.clone()),
        channel,
        seen,
    }
}

fn loops() -> Arc<LoopGroup> {
    Arc::new(LoopGroup::start("test", 2).unwrap())
}

fn provide(
    registry: &Arc<dyn Registry>,
    loops: &Arc<LoopGroup>,
    options: ProviderOptions,
) -> (RpcProvider, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let provider = RpcProvider::builder()
        .service(ModesServer::new(Service(Arc::clone(&seen))))
        .registry(Arc::clone(registry))
        .loops(Arc::clone(loops))
        .options(options)
        .start("127.0.0.1:0".parse().unwrap())
        .unwrap();
    (provider, seen)
}

/// A channel to fixed addresses.
fn channel_to(addresses: impl IntoIterator<Item = SocketAddr>) -> RpcChannel {
    channel_with(addresses, ChannelOptions::default())
}

fn channel_with(
    addresses: impl IntoIterator<Item = SocketAddr>,
    options: ChannelOptions,
) -> RpcChannel {
    let registry = StaticRegistry::new(addresses.into_iter().map(Provider::new));
    RpcChannel::new(Arc::new(registry), loops(), options)
}

/// What a call that must fail failed with.
fn code<A>(result: Result<A, RpcError>) -> ErrorCode {
    match result {
        Ok(_) => panic!("the call succeeded"),
        Err(error) => error.code(),
    }
}

fn text(text: &str) -> Text {
    Text {
        text: text.to_owned(),
    }
}

/// Does what ends the threads of a test, also when the test fails.
struct Ending<F: Fn()>(F);

impl<F: Fn()> Drop for Ending<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Waits for a condition, at most [`LONG`].
#[track_caller]
fn until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < LONG, "not in time: {what}");
        std::thread::yield_now();
    }
}
