//! What happens to a call that fails: elsewhere, again, or an answer of last resort.
//! `cargo run -p nexus-rpc --example retries_and_fallback`.
//!
//! | what failed | what the channel does |
//! |---|---|
//! | it was refused before it ran (overloaded, stopping), or was never sent | another provider, at once |
//! | it may have run, and its method is idempotent | again, after a delay, while the budget lasts |
//! | it may have run, and its method is not idempotent | nothing: only the caller knows whether it may be repeated |
//! | it failed for good, and its method has a fallback | the fallback answers, and the reply says so |

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nexus_net::LoopGroup;
use nexus_rpc::registry::{InProcessRegistry, Registry};
use nexus_rpc::{
    CallContext, ChannelOptions, ConcurrencyLimit, ErrorCode, ProviderOptions, RetryOptions,
    RpcChannel, RpcError, RpcProvider,
};

include!(concat!(env!("OUT_DIR"), "/shop.rs"));

/// Its database is away for the first call.
#[derive(Default)]
struct Warehouse {
    calls: AtomicU32,
}

impl Inventory for Warehouse {
    fn find(&self, _call: &CallContext, item: Item) -> Result<Stock, RpcError> {
        match self.calls.fetch_add(1, Ordering::Relaxed) {
            // ECONNREFUSED, one of the codes that say: a moment later it may work.
            0 => Err(RpcError::new(ErrorCode::new(111), "the database is away")),
            _ => Ok(Stock {
                name: item.name,
                left: 3,
            }),
        }
    }
}

/// Asks while providers fail in one way after the other; returns the answers, with whether a fallback gave
/// them.
pub(crate) fn run() -> Result<Vec<(i32, bool)>, Box<dyn Error>> {
    let registry: Arc<dyn Registry> = Arc::new(InProcessRegistry::new());
    let loops = Arc::new(LoopGroup::start("rpc", 2)?);
    let provide = |concurrency| {
        RpcProvider::builder()
            .service(InventoryServer::new(Warehouse::default()))
            .registry(Arc::clone(&registry))
            .loops(Arc::clone(&loops))
            .options(ProviderOptions {
                concurrency,
                ..ProviderOptions::default()
            })
            .start(([127, 0, 0, 1], 0).into())
    };
    // One that refuses every call, and one that is well but for its first call.
    let full = provide(ConcurrencyLimit::Constant(0))?;
    let well = provide(ConcurrencyLimit::Unlimited)?;

    let options = ChannelOptions {
        retry: RetryOptions {
            attempts_max: 4,
            ..RetryOptions::default()
        },
        ..ChannelOptions::default()
    };
    let channel = RpcChannel::new(Arc::clone(&registry), Arc::clone(&loops), options);
    channel.wait_ready(InventoryClient::SERVICE, Duration::from_secs(5));
    let client = InventoryClient::new(channel);
    client.find_fallback(|item, error| match error.code() {
        ErrorCode::HOST_DOWN | ErrorCode::CONNECTION_FAILED => Ok(Stock {
            name: item.name,
            left: 0, // Better to sell nothing than to sell what is not there.
        }),
        _ => Err(error.clone()),
    });
    let ask = || {
        let name = "pencil".to_owned();
        let reply = client.find(&Item { name }).wait()?;
        Ok::<_, RpcError>((reply.message.left, reply.degraded.is_some()))
    };
    // Refused by one, failed at the other and repeated there: none of it is seen here.
    let mut answers = vec![ask()?, ask()?, ask()?];
    drop((full, well));
    answers.push(ask()?);
    Ok(answers)
}

fn main() -> Result<(), Box<dyn Error>> {
    for (left, degraded) in run()? {
        println!("{left} left, degraded: {degraded}");
    }
    Ok(())
}
