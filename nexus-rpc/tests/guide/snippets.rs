//! The guide's code, in its order, inside what makes it run.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use nexus_net::LoopGroup;
use nexus_rpc::registry::{self, InProcessRegistry, Provider, Registry, StaticRegistry};
use nexus_rpc::{
    AdaptiveLimit, BackupAfter, BackupOptions, BreakerOptions, CallContext, CallOptions,
    ChannelOptions, ConcurrencyLimit, Connections, ErrorCode, HttpOptions, LoadBalancing,
    MetadataKey, ProviderBuilder, ProviderOptions, Responder, RetryOptions, RpcChannel, RpcError,
    RpcProvider, ServerInterceptor, ServerOutcome, TraceContext, ZonePreference,
};

use shop::*;

#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
mod shop {
    include!(concat!(env!("OUT_DIR"), "/shop.rs"));
}

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

const TENANT: MetadataKey<String> = MetadataKey::new("tenant");

struct Warehouse;

impl Inventory for Warehouse {
    fn find(&self, _call: &CallContext, item: Item) -> Result<Stock, RpcError> {
        if item.name.is_empty() {
            return Err(RpcError::bad_request("an item has a name"));
        }
        Ok(Stock {
            name: item.name,
            left: 3,
        })
    }
}

struct PriceList;

impl Prices for PriceList {
    fn look(&self, _call: &CallContext, item: Item) -> Result<Price, RpcError> {
        let cents = 10 * item.name.len() as i64;
        Ok(Price { cents })
    }
}

struct Desk {
    clerk: SyncSender<(Order, Responder<Receipt>)>,
}

impl Orders for Desk {
    fn place(&self, _call: CallContext, order: Order, responder: Responder<Receipt>) {
        // When the queue is full the responder is dropped, and that fails the call.
        let _ = self.clerk.try_send((order, responder));
    }
}

fn desk() -> Desk {
    let (clerk, orders) = sync_channel::<(Order, Responder<Receipt>)>(1024);
    thread::spawn(move || {
        for (number, (_order, responder)) in (1..).zip(orders) {
            responder.complete(Ok(Receipt { number }));
        }
    });
    Desk { clerk }
}

fn serve(registry: &Arc<dyn Registry>, loops: &Arc<LoopGroup>) -> Result<RpcProvider> {
    let provider = RpcProvider::builder()
        .service(InventoryServer::new(Warehouse))
        .service(PricesServer::new(PriceList))
        .service(OrdersServer::new(desk()))
        .registry(Arc::clone(registry))
        .loops(Arc::clone(loops))
        .start("127.0.0.1:0".parse()?)?;
    Ok(provider)
}

fn setting(options: ChannelOptions) -> Result<(RpcProvider, RpcChannel)> {
    let registry: Arc<dyn Registry> = Arc::new(InProcessRegistry::new());
    let loops = Arc::new(LoopGroup::start("rpc", 2)?);
    let provider = serve(&registry, &loops)?;
    let channel = RpcChannel::new(registry, loops, options);
    assert!(channel.wait_ready(InventoryClient::SERVICE, Duration::from_secs(5)));
    Ok((provider, channel))
}

fn pencil() -> Item {
    Item {
        name: "pencil".to_owned(),
    }
}

#[tokio::test]
async fn a_call_is_waited_for_left_with_a_callback_or_awaited() -> Result {
    let (_provider, channel) = setting(ChannelOptions::default())?;
    let client = InventoryClient::new(channel);
    let item = pencil();

    // Blocks this thread; an error at once on a loop's thread.
    let reply = client.find(&item).wait()?;
    assert_eq!(reply.message.left, 3);

    // Runs on a loop's thread and must not block.
    client.find(&item).on_complete(|result| match result {
        Ok(reply) => println!("{} left", reply.message.left),
        Err(error) => println!("{error}"),
    });

    // Under tokio or any other executor. Dropped, it is abandoned.
    let reply = client.find(&item).await?;
    assert_eq!(reply.message.left, 3);
    Ok(())
}

#[test]
fn a_call_has_options_of_its_own() -> Result {
    let (_provider, channel) = setting(ChannelOptions::default())?;
    let orders = OrdersClient::new(channel.clone());
    let order = Order {
        item: "pencil".to_owned(),
        count: 2,
    };

    let options = CallOptions::timeout(Duration::from_millis(200))
        .with_metadata(TENANT, "acme".to_owned())
        .wait_for_ready();
    let receipt = orders.place_with(&order, options).wait()?;
    assert_eq!(receipt.message.number, 1);

    let call = orders.place(&order);
    call.cancel();
    Ok(())
}

#[allow(dead_code, reason = "compiled for the guide")]
fn whose(call: &CallContext) -> Result<String, RpcError> {
    let tenant = call.metadata().require(TENANT)?;
    Ok(tenant)
}

/// A handler that calls another service.
#[allow(dead_code, reason = "compiled for the guide")]
fn handed_down(call: &CallContext, inventory: &InventoryClient, item: Item) {
    // On the handler's thread a call inherits deadline and trace by itself; on another it takes them along.
    let scope = call.scope();
    let inventory = inventory.clone();
    thread::spawn(move || scope.run(|| inventory.find(&item).wait()));
}

#[test]
fn retries_backups_and_fallbacks_are_options() -> Result {
    let options = ChannelOptions {
        timeout: Duration::from_millis(500),
        retry: RetryOptions {
            attempts_max: 2,
            ..RetryOptions::default()
        },
        backup: BackupOptions {
            after: Some(BackupAfter::Percentile {
                share: 0.95,
                min: Duration::from_millis(5),
                max: Duration::from_millis(100),
            }),
            ..BackupOptions::default()
        },
        ..ChannelOptions::default()
    };
    let (provider, channel) = setting(options)?;
    let client = InventoryClient::new(channel);
    let item = pencil();

    client.find_fallback(|item, _error| {
        Ok(Stock {
            name: item.name,
            left: 0,
        })
    });
    let reply = client.find(&item).wait()?;
    if let Some(error) = &reply.degraded {
        println!("in place of an answer: {error}");
    }

    assert!(reply.degraded.is_none());
    drop(provider);
    assert!(client.find(&item).wait()?.degraded.is_some());
    Ok(())
}

#[test]
fn providers_are_picked_and_looked_at() -> Result {
    let options = ChannelOptions {
        load_balancing: LoadBalancing::PowerOfTwo,
        zone: Some(ZonePreference::new("north")),
        connections: Connections::Several(2),
        breaker: BreakerOptions {
            silent_timeouts: 3,
            ..BreakerOptions::default()
        },
        ..ChannelOptions::default()
    };
    let (_provider, channel) = setting(options)?;
    for endpoint in channel.endpoints(InventoryClient::SERVICE) {
        println!("{endpoint:?}");
    }
    Ok(())
}

#[allow(dead_code, reason = "compiled for the guide")]
fn a_cluster() -> Result {
    let registry = registry::open("zookeeper://zk1:2181,zk2:2181,zk3:2181/nexus")?;
    let mut provider = RpcProvider::builder()
        .service(InventoryServer::new(Warehouse))
        .registry(registry)
        .options(ProviderOptions {
            advertise: Some("10.0.0.7:9100".parse()?),
            zone: "north".to_owned(),
            weight: 2,
            ..ProviderOptions::default()
        })
        .pages_on("127.0.0.1:9180".parse()?)
        .start("0.0.0.0:9100".parse()?)?;

    // On SIGTERM, say:
    let report = provider.drain(Duration::from_secs(10));
    println!("{} connections were cut off", report.aborted);
    Ok(())
}

struct Slow(Duration);

impl ServerInterceptor for Slow {
    fn after(&self, call: &CallContext, outcome: &ServerOutcome<'_>) {
        if outcome.latency > self.0 {
            let trace = call.trace().map(TraceContext::to_string);
            log::warn!(
                "{} took {:?}, trace {trace:?}",
                call.method().name,
                outcome.latency
            );
        }
    }
}

#[test]
fn a_trace_is_begun_by_whoever_calls_first() -> Result {
    let (_provider, channel) = setting(ChannelOptions::default())?;
    let client = InventoryClient::new(channel);
    let item = pencil();

    let options = CallOptions {
        trace: Some(TraceContext::new_root()),
        ..CallOptions::default()
    };
    client.find_with(&item, options).wait()?;
    Ok(())
}

#[test]
fn limits_refuse_what_is_too_much() -> Result {
    let builder = limited(RpcProvider::builder().service(InventoryServer::new(Warehouse)));
    let provider = builder
        .interceptor(Slow(Duration::from_secs(1)))
        .start(([127, 0, 0, 1], 0).into())?;
    let loops = Arc::new(LoopGroup::start("rpc", 1)?);
    let address = provider.local_addr();

    // A brpc server, or whoever else speaks baidu_std, at an address that is known.
    let registry = Arc::new(StaticRegistry::new([Provider::new(address)]));
    let channel = RpcChannel::new(registry, loops, ChannelOptions::default());

    let waiting = CallOptions::default().wait_for_ready();
    let result = InventoryClient::new(channel)
        .find_with(&pencil(), waiting)
        .wait();
    match result {
        Ok(reply) => println!("{} left", reply.message.left),
        Err(error) if error.code() == ErrorCode::OVERLOADED => println!("later, perhaps"),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

#[allow(dead_code, reason = "compiled for the guide")]
fn in_production(builder: ProviderBuilder) -> Result<ProviderBuilder> {
    let builder = builder
        .options(ProviderOptions {
            worker_threads: 32,
            worker_queue_max: 1024,
            concurrency: ConcurrencyLimit::Adaptive(AdaptiveLimit::default()),
            http: HttpOptions {
                calls: false, // only baidu_std
                ..HttpOptions::default()
            },
            ..ProviderOptions::default()
        })
        // After `options`, which would replace it.
        .pages_on("10.0.0.7:9180".parse()?)
        .interceptor(Slow(Duration::from_secs(1)));
    Ok(builder)
}

fn limited(builder: ProviderBuilder) -> ProviderBuilder {
    builder
        .options(ProviderOptions {
            worker_threads: 16,
            concurrency: ConcurrencyLimit::Adaptive(AdaptiveLimit::default()),
            ..ProviderOptions::default()
        })
        .limit("shop.Inventory.Find", ConcurrencyLimit::Constant(64))
}

#[cfg(feature = "tls")]
#[allow(dead_code, reason = "compiled for the guide")]
mod with_tls {
    use super::*;
    use nexus_net::{ClientPemFiles, ClientTls, PemFiles, ServerTls};

    fn serving() -> Result<ProviderOptions> {
        let tls = ServerTls::from_pem(&PemFiles {
            certificates: "server.pem".into(),
            key: "server.key".into(),
            client_roots: Some("ca.pem".into()), // callers must show a certificate
            ..PemFiles::default()
        })?;
        let options = ProviderOptions {
            tls: Some(tls),
            ..ProviderOptions::default()
        };
        Ok(options)
    }

    fn calling() -> Result<ChannelOptions> {
        let files = ClientPemFiles {
            roots: "ca.pem".into(),
            identity: Some(("client.pem".into(), "client.key".into())),
            ..ClientPemFiles::default()
        };
        let options = ChannelOptions {
            tls: Some(ClientTls::from_pem(&files, "shop.internal")?),
            ..ChannelOptions::default()
        };
        Ok(options)
    }
}
