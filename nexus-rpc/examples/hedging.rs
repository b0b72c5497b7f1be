//! Backup requests: one slow provider does not make a call slow.
//! `cargo run -p nexus-rpc --example hedging`.
//!
//! When a call has no answer after a while, it is sent to a second provider as well, and the first answer
//! counts. Both may run it, so it is done only for methods that the `.proto` declares idempotent (here
//! `option idempotency_level = NO_SIDE_EFFECTS`) or calls that say so themselves. A budget keeps a service
//! that is slow as a whole from getting twice the load: of the calls, one in twenty by default.

use std::error::Error;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nexus_net::LoopGroup;
use nexus_rpc::registry::{InProcessRegistry, Registry};
use nexus_rpc::{
    BackupAfter, BackupOptions, CallContext, ChannelOptions, RpcChannel, RpcError, RpcProvider,
};

include!(concat!(env!("OUT_DIR"), "/shop.rs"));

struct Warehouse {
    name: &'static str,
    takes: Duration,
}

impl Inventory for Warehouse {
    fn find(&self, _call: &CallContext, _item: Item) -> Result<Stock, RpcError> {
        // A pooled handler may block: it has a thread of the worker pool for itself.
        thread::sleep(self.takes);
        let name = self.name.to_owned();
        Ok(Stock { name, left: 3 })
    }
}

/// Asks a number of times; returns who answered, and how long each answer took.
pub(crate) fn run(calls: usize) -> Result<Vec<(String, Duration)>, Box<dyn Error>> {
    let registry: Arc<dyn Registry> = Arc::new(InProcessRegistry::new());
    let loops = Arc::new(LoopGroup::start("rpc", 2)?);
    let provide = |name, takes| {
        RpcProvider::builder()
            .service(InventoryServer::new(Warehouse { name, takes }))
            .registry(Arc::clone(&registry))
            .loops(Arc::clone(&loops))
            .start(([127, 0, 0, 1], 0).into())
    };
    let _fast = provide("fast", Duration::ZERO)?;
    let _slow = provide("slow", Duration::from_secs(1))?;

    let options = ChannelOptions {
        timeout: Duration::from_secs(10),
        backup: BackupOptions {
            // Or `BackupAfter::Percentile`: when it takes longer than most calls of the method lately did.
            after: Some(BackupAfter::Delay(Duration::from_millis(10))),
            ..BackupOptions::default()
        },
        ..ChannelOptions::default()
    };
    let channel = RpcChannel::new(registry, loops, options);
    channel.wait_ready(InventoryClient::SERVICE, Duration::from_secs(5));
    let client = InventoryClient::new(channel);
    let ask = |_| {
        let (name, started) = ("pencil".to_owned(), Instant::now());
        let reply = client.find(&Item { name }).wait()?;
        Ok((reply.message.name, started.elapsed()))
    };
    (0..calls).map(ask).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    for (who, took) in run(8)? {
        println!("{who} answered after {took:?}");
    }
    Ok(())
}
