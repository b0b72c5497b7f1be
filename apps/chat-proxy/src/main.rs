//! `chat-proxy -i FILE`: one proxy of a cluster.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chat_bus::RedisBus;
use chat_node::drain::Drain;
use chat_node::{cli, logging};
use chat_proxy::config::{self, ProxyConfig};
use chat_proxy::{Proxy, ProxyOptions};
use nexus_net::{LoopGroup, ProxyProtocol};
use nexus_rpc::{HttpOptions, ProviderError, ProviderOptions, RpcProvider, registry};

/// Returns freed memory to the system after a peak. The system's allocator keeps much of a peak (`benches/README.md`).
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

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
    let drain = Drain::on_signals(config.grace, config.reload)?;
    let registry = registry::open(&config.registry_url)?;
    let bus = Arc::new(RedisBus::new(config.redis)?);
    let loops = Arc::new(LoopGroup::start("proxy", config.loops)?);
    if passwords_travel_in_clear(&config.options) {
        log::warn!(
            "whoever listens in reads passwords: [tls] is not configured, nor `proxy_protocol` for a load \
             balancer that could end it"
        );
    }
    let mut pages = match config.admin {
        Some(listen) => Some(show_pages(listen, &loops)?),
        None => None,
    };
    let mut proxy = Proxy::start(config.options, loops, registry, bus)?;
    log::info!("proxy {} listens on {}", proxy.id(), proxy.local_addr());
    let deadline = wait(&drain, &proxy);
    if let Some(pages) = &mut pages {
        // `/health` says so first, to a load balancer that asks for it.
        pages.drain(deadline.saturating_duration_since(Instant::now()));
    }
    let report = proxy.drain(deadline.saturating_duration_since(Instant::now()));
    log::info!("drained: {report:?}");
    drain.stopped();
    Ok(())
}

fn passwords_travel_in_clear(options: &ProxyOptions) -> bool {
    options.tls.is_none()
        && options.proxy_protocol == ProxyProtocol::Off
        && !options.listen.ip().is_loopback()
}

/// Pages on a port of their own: a provider without a service, on the proxy's loops, whose numbers it
/// shows.
fn show_pages(listen: SocketAddr, loops: &Arc<LoopGroup>) -> Result<RpcProvider, ProviderError> {
    let pages = RpcProvider::builder()
        .loops(Arc::clone(loops))
        .options(ProviderOptions {
            worker_threads: 1,
            http: HttpOptions {
                calls: false,
                ..HttpOptions::default()
            },
            ..ProviderOptions::default()
        })
        .start(listen)?;
    log::info!("pages on {}", pages.local_addr());
    Ok(pages)
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
