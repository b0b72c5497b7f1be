//! `chat-proxy -i FILE`: one proxy of a cluster.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

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
    log::info!(
        "ready: proxy {} listens on {}",
        proxy.id(),
        proxy.local_addr()
    );
    let deadline = drain.wait();
    let report = proxy.drain(deadline.saturating_duration_since(Instant::now()));
    log::info!("drained: {report:?}");
    drain.stopped();
    Ok(())
}
