//! Code around every call, on both sides: `cargo run -p nexus-rpc --example interceptor`.
//!
//! ```text
//!   client: before ─► request ─► provider: before ─► handler ─► after ─► answer ─► client: after
//! ```
//!
//! The caller's adds a tenant to the metadata and counts what failed; the provider's wants a tenant.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nexus_net::LoopGroup;
use nexus_rpc::registry::{InProcessRegistry, Registry};
use nexus_rpc::{
    CallContext, CallHead, CallOptions, ChannelOptions, ClientInterceptor, ClientOutcome,
    MetadataKey, RpcChannel, RpcError, RpcProvider, ServerInterceptor,
};

include!(concat!(env!("OUT_DIR"), "/example.rs"));

/// Who calls. Both sides know it by this.
const TENANT: MetadataKey<String> = MetadataKey::new("tenant");

/// On the caller's side.
#[derive(Default)]
struct Tenant {
    name: Option<String>,
    failed: AtomicU64,
}

impl ClientInterceptor for Tenant {
    fn before(&self, call: &mut CallHead<'_>) -> Result<(), RpcError> {
        if let Some(name) = &self.name {
            call.metadata.set(TENANT, name.clone());
        }
        Ok(())
    }

    fn after(&self, outcome: &ClientOutcome<'_>) {
        // On a loop's thread as a rule: count, and leave what takes its time to others.
        if outcome.error.is_some() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// On the provider's side.
struct TenantsOnly;

impl ServerInterceptor for TenantsOnly {
    fn before(&self, call: &CallContext) -> Result<(), RpcError> {
        call.metadata().require(TENANT)?;
        Ok(())
    }
}

struct Echo;

impl EchoService for Echo {
    fn echo(&self, call: &CallContext, request: EchoRequest) -> Result<EchoResponse, RpcError> {
        let tenant = call.metadata().require(TENANT)?;
        let message = format!("{tenant}: {}", request.message);
        Ok(EchoResponse { message })
    }
}

/// What a call came to, and how many the interceptor has seen failing.
pub(crate) type Ended = (Result<String, RpcError>, u64);

/// Calls as this tenant.
pub(crate) fn run(tenant: Option<&str>) -> Result<Ended, Box<dyn Error>> {
    let registry: Arc<dyn Registry> = Arc::new(InProcessRegistry::new());
    let loops = Arc::new(LoopGroup::start("rpc", 2)?);
    let _provider = RpcProvider::builder()
        .service(EchoServiceServer::new(Echo))
        .interceptor(TenantsOnly)
        .registry(Arc::clone(&registry))
        .loops(Arc::clone(&loops))
        .start("127.0.0.1:0".parse()?)?;
    let counting = Arc::new(Tenant {
        name: tenant.map(str::to_owned),
        ..Tenant::default()
    });
    let options = ChannelOptions {
        interceptors: vec![Arc::clone(&counting) as Arc<dyn ClientInterceptor>],
        ..ChannelOptions::default()
    };
    let client = EchoServiceClient::new(RpcChannel::new(registry, loops, options));
    let message = "hello".to_owned();
    let waiting = CallOptions::default().wait_for_ready();
    let result = client.echo_with(&EchoRequest { message }, waiting).wait();
    let answer = result.map(|reply| reply.message.message);
    Ok((answer, counting.failed.load(Ordering::Relaxed)))
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("{:?}, {:?}", run(Some("acme"))?, run(None)?);
    Ok(())
}
