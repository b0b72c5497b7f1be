//! A proxy between sockets and scripted services: every rule that it owes its clients.

mod client;
mod cuttable_bus;
mod delivering;
mod fake;
mod fake_rest;
mod framing;
mod large;
mod late_work;
mod lifecycle;
mod limits;
mod naming;
mod program;
mod requests;
mod resuming;
mod unauthenticated;

use std::sync::Arc;
use std::time::{Duration, Instant};

use chat_bus::Bus;
use chat_proto::messages::*;
use chat_proxy::{Proxy, ProxyOptions};
use nexus_net::LoopGroup;
use nexus_rpc::RpcProvider;
use nexus_rpc::registry::{InProcessRegistry, Registry};

use client::{Client, PATIENCE};
use cuttable_bus::CuttableBus;
use fake::Fake;

/// A proxy, and all it needs.
struct Setting {
    proxy: Proxy,
    provider: RpcProvider,
    fake: Arc<Fake>,
    bus: Arc<CuttableBus>,
    registry: Arc<dyn Registry>,
    loops: Arc<LoopGroup>,
}

impl Setting {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut ProxyOptions)) -> Self {
        let bus = Arc::new(CuttableBus::default());
        let registry: Arc<dyn Registry> = Arc::new(InProcessRegistry::new());
        let loops = Arc::new(LoopGroup::start("test", 2).expect("loops"));
        let fake = Fake::new(Arc::clone(&bus) as Arc<dyn Bus>);
        let provider = provide(&fake, &registry, &loops);
        let mut options = options();
        change(&mut options);
        let proxy = start(options, &loops, &registry, &bus);
        Self {
            proxy,
            provider,
            fake,
            bus,
            registry,
            loops,
        }
    }

    /// Another proxy of the same cluster.
    fn another_proxy(&self) -> Proxy {
        start(options(), &self.loops, &self.registry, &self.bus)
    }

    fn connect(&self) -> Client {
        Client::connect(self.proxy.local_addr())
    }

    fn logged_in(&self, user_id: i32) -> Client {
        Client::logged_in(self.proxy.local_addr(), user_id)
    }

    fn is_online(&self, user_id: i32) -> bool {
        self.bus.locate(&[user_id]).expect("located")[0].is_some()
    }
}

fn options() -> ProxyOptions {
    ProxyOptions {
        listen: "127.0.0.1:0".parse().expect("an address"),
        ack_interval: Duration::from_millis(5),
        ..ProxyOptions::default()
    }
}

fn provide(fake: &Arc<Fake>, registry: &Arc<dyn Registry>, loops: &Arc<LoopGroup>) -> RpcProvider {
    RpcProvider::builder()
        .service(UserServiceRpcServer::from_arc(Arc::clone(fake)))
        .service(FriendServiceRpcServer::from_arc(Arc::clone(fake)))
        .service(OneChatServiceRpcServer::from_arc(Arc::clone(fake)))
        .service(GroupServiceRpcServer::from_arc(Arc::clone(fake)))
        .service(GroupChatServiceRpcServer::from_arc(Arc::clone(fake)))
        .registry(Arc::clone(registry))
        .loops(Arc::clone(loops))
        .start("127.0.0.1:0".parse().expect("an address"))
        .expect("a provider")
}

fn start(
    options: ProxyOptions,
    loops: &Arc<LoopGroup>,
    registry: &Arc<dyn Registry>,
    bus: &Arc<CuttableBus>,
) -> Proxy {
    let (loops, registry) = (Arc::clone(loops), Arc::clone(registry));
    let bus = Arc::clone(bus) as Arc<dyn Bus>;
    let proxy = Proxy::start(options, loops, registry, bus).expect("a proxy");
    wait_until("the proxy is ready", || proxy.is_ready());
    proxy
}

/// Waits until something holds that nobody tells of.
#[track_caller]
fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
