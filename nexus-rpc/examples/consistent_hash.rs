//! Calls of one key go to one provider, whose cache then knows it:
//! `cargo run -p nexus-rpc --example consistent_hash`.
//!
//! When a provider leaves, only the keys that it had move, and each of the others keeps its own. A provider that is
//! overloaded (here: has more than 1.25 times the average of calls in flight) passes further calls on to the
//! next one, so that a key that everybody wants does not bring its provider down.

use std::collections::BTreeMap;
use std::error::Error;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use nexus_net::LoopGroup;
use nexus_rpc::registry::{InProcessRegistry, Registry};
use nexus_rpc::{
    CallContext, CallOptions, ChannelOptions, EndpointInfo, EndpointState, LoadBalancing,
    RpcChannel, RpcError, RpcProvider,
};

include!(concat!(env!("OUT_DIR"), "/example.rs"));

/// Says who it is.
struct Named(usize);

impl EchoService for Named {
    fn echo(&self, _call: &CallContext, _request: EchoRequest) -> Result<EchoResponse, RpcError> {
        let message = self.0.to_string();
        Ok(EchoResponse { message })
    }
}

/// Which provider answers for each key.
pub(crate) type Owners = BTreeMap<String, usize>;

fn owners(client: &EchoServiceClient, keys: usize) -> Result<Owners, Box<dyn Error>> {
    let owner = |key: String| {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let options = CallOptions {
            hash_key: Some(hasher.finish()),
            ..CallOptions::default()
        };
        let message = key.clone();
        let reply = client.echo_with(&EchoRequest { message }, options).wait()?;
        Ok((key, reply.message.message.parse()?))
    };
    (0..keys).map(|n| format!("user-{n}")).map(owner).collect()
}

/// Asks for some keys with three providers, and again when the last of them has left.
pub(crate) fn run(keys: usize) -> Result<(Owners, Owners), Box<dyn Error>> {
    let registry: Arc<dyn Registry> = Arc::new(InProcessRegistry::new());
    let loops = Arc::new(LoopGroup::start("rpc", 2)?);
    let provide = |number| {
        RpcProvider::builder()
            .service(EchoServiceServer::new(Named(number)))
            .registry(Arc::clone(&registry))
            .loops(Arc::clone(&loops))
            .start(([127, 0, 0, 1], 0).into())
    };
    let mut providers = (0..3).map(provide).collect::<Result<Vec<_>, _>>()?;

    let options = ChannelOptions {
        load_balancing: LoadBalancing::ConsistentHash { load_factor: 1.25 },
        ..ChannelOptions::default()
    };
    let channel = RpcChannel::new(Arc::clone(&registry), Arc::clone(&loops), options);
    // For all of them: the keys of one that is not connected go elsewhere meanwhile.
    let is_ready = |endpoint: &EndpointInfo| endpoint.state == EndpointState::Ready;
    while !channel
        .endpoints(EchoServiceClient::SERVICE)
        .iter()
        .all(is_ready)
    {
        std::thread::yield_now();
    }
    let client = EchoServiceClient::new(channel);

    let with_three = owners(&client, keys)?;
    let leaving = providers.pop();
    if let Some(mut leaving) = leaving {
        leaving.drain(Duration::from_secs(5));
    }
    Ok((with_three, owners(&client, keys)?))
}

fn main() -> Result<(), Box<dyn Error>> {
    let (with_three, with_two) = run(12)?;
    for (key, before) in &with_three {
        println!("{key}: provider {before}, then {}", with_two[key]);
    }
    Ok(())
}
