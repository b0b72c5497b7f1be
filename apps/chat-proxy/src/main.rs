//! `chat-proxy -i FILE`: one proxy of a cluster.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chat_bus::RedisBus;
use chat_node::drain::Drain;
use chat_node::{cli, logging};
use chat_proxy::Proxy;
use chat_proxy::config::{self, ProxyConfig};
use nexus_net::LoopGroup;
use nexus_rpc::registry;

fn main() -> ExitCode {
    cli::run(
        "chat-proxy",
        "Holds the connections of chat clients and calls the chat servers for them",
        config::load,
        serve,
    )
}

fn serve(config: ProxyConfig) -> Result<(), Box<dyn std::error::Error>> {
    logging::init(&config.log_level);
    let drain = Drain::on_signals(config.grace)?;
    let registry = registry::open(&config.registry_url)?;
    let bus = Arc::new(RedisBus::new(config.redis)?);
    let loops = Arc::new(LoopGroup::start("proxy", config.loops)?);
    let mut proxy = Proxy::start(config.options, loops, registry, bus)?;
    log::info!("proxy {} listens on {}", proxy.id(), proxy.local_addr());
    let deadline = wait(&drain, &proxy);
    let report = proxy.drain(deadline.saturating_duration_since(Instant::now()));
    log::info!("drained: {report:?}");
    drain.stopped();
    Ok(())
}

/// Waits for the drain's deadline, and says whenever the proxy begins or ceases to be able to serve
/// everything.
fn wait(drain: &Drain, proxy: &Proxy) -> Instant {
    const INTERVAL: Duration = Duration::from_millis(100);
    let mut was_ready = false;
    loop {
        if let Some(deadline) = drain.wait_for(INTERVAL) {
            return deadline;
        }
        let is_ready = proxy.is_ready();
        match (was_ready, is_ready) {
            (false, true) => log::info!("ready: all services and Redis are reachable"),
            (true, false) => log::warn!("clients are told \"unavailable\" for now"),
            _ => {}
        }
        was_ready = is_ready;
    }
}
