//! A service, its registration, and a call to it, in one program.

use std::{sync::Arc, time::Duration};

use nexus_net::LoopGroup;
use nexus_rpc::{CallContext, ChannelOptions, RpcChannel, RpcError, RpcProvider, registry};

include!(concat!(env!("OUT_DIR"), "/example.rs"));

struct Echo;

impl EchoService for Echo {
    fn echo(&self, _call: &CallContext, request: EchoRequest) -> Result<EchoResponse, RpcError> {
        let message = request.message;
        Ok(EchoResponse { message })
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let registry = registry::open("list://127.0.0.1:9100")?; // or zookeeper://host:port/nexus
    let loops = Arc::new(LoopGroup::start("rpc", 2)?);

    let _provider = RpcProvider::builder()
        .service(EchoServiceServer::new(Echo))
        .registry(Arc::clone(&registry))
        .loops(Arc::clone(&loops))
        .start("127.0.0.1:9100".parse()?)?;

    let channel = RpcChannel::new(registry, loops, ChannelOptions::default());
    channel.wait_ready(EchoServiceClient::SERVICE, Duration::from_secs(5));
    let client = EchoServiceClient::new(channel);
    let message = "hello".into();
    let reply = client.echo(&EchoRequest { message }).wait()?;
    println!("{}", reply.message.message);

    // Serves until Ctrl-C; `RpcProvider::drain` would first let calls in work end.
    loop {
        std::thread::park();
    }
}
