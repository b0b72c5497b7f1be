//! One chat server node: `chat-server -i FILE`.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use chat_node::{cli, drain::Drain, logging};
use chat_server::ChatServer;
use chat_server::config::{self, Node};
use nexus_net::LoopGroup;

/// Returns freed memory to the system after a peak. The system's allocator keeps much of a peak (`benches/README.md`).
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    cli::run(
        "chat-server",
        "A chat server: the services behind the proxies",
        config::load,
        serve,
    )
}

fn serve(node: Node) -> Result<(), Box<dyn std::error::Error>> {
    logging::init(&node.log_level);
    let drain = Drain::on_signals(node.grace, node.reload)?;
    let loops = Arc::new(LoopGroup::start("loop", node.loops)?);
    let mut server = ChatServer::start(node.options, node.store, node.bus, node.registry, loops)?;
    if let Some(pages) = server.pages_addr() {
        log::info!("pages on {pages}");
    }
    log::info!("ready on {}", server.local_addr());
    let deadline = drain.wait();
    let report = server.drain(deadline.saturating_duration_since(Instant::now()));
    log::info!(
        "stopped: {} connection(s), {} cut off",
        report.open_at_start,
        report.aborted
    );
    drain.stopped();
    Ok(())
}
