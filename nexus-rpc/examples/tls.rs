//! TLS on both sides, each showing the other a certificate:
//! `cargo run -p nexus-rpc --features tls --example tls -- FOLDER`, where the folder holds an authority, and
//! a certificate and key of it for each side. To make one to try:
//!
//! ```sh
//! openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=ca \
//!     -keyout ca.key -out ca.pem
//! for side in server client; do
//!   openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=$side \
//!       -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE \
//!       -CA ca.pem -CAkey ca.key -keyout $side.key -out $side.pem
//! done
//! ```

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use nexus_net::{ClientPemFiles, ClientTls, LoopGroup, PemFiles, ServerTls};
use nexus_rpc::registry::{InProcessRegistry, Registry};
use nexus_rpc::{
    CallContext, CallOptions, ChannelOptions, ProviderOptions, RpcChannel, RpcError, RpcProvider,
};

include!(concat!(env!("OUT_DIR"), "/example.rs"));

struct Echo;

impl EchoService for Echo {
    fn echo(&self, _call: &CallContext, request: EchoRequest) -> Result<EchoResponse, RpcError> {
        let message = request.message;
        Ok(EchoResponse { message })
    }
}

/// Calls a provider under TLS, with the files of a folder. `identity` is the name of the client's files;
/// without one it shows no certificate, and the provider does not let it in.
pub(crate) fn run(folder: &Path, identity: Option<&str>) -> Result<String, Box<dyn Error>> {
    let file = |name: &str, kind: &str| folder.join(format!("{name}.{kind}"));
    let registry: Arc<dyn Registry> = Arc::new(InProcessRegistry::new());
    let loops = Arc::new(LoopGroup::start("rpc", 2)?);

    // Keep a clone of it: `ServerTls::reload` takes renewed certificates while the provider serves.
    let server_tls = ServerTls::from_pem(&PemFiles {
        certificates: file("server", "pem"),
        key: file("server", "key"),
        // Without it anybody may call, and only the provider is known.
        client_roots: Some(file("ca", "pem")),
        ..PemFiles::default()
    })?;
    let _provider = RpcProvider::builder()
        .service(EchoServiceServer::new(Echo))
        .registry(Arc::clone(&registry))
        .loops(Arc::clone(&loops))
        .options(ProviderOptions {
            tls: Some(server_tls),
            ..ProviderOptions::default()
        })
        .start("127.0.0.1:0".parse()?)?;

    // The name is what the certificates of all providers of the channel must be for.
    let client_files = ClientPemFiles {
        roots: file("ca", "pem"),
        identity: identity.map(|name| (file(name, "pem"), file(name, "key"))),
        ..ClientPemFiles::default()
    };
    let options = ChannelOptions {
        tls: Some(ClientTls::from_pem(&client_files, "localhost")?),
        ..ChannelOptions::default()
    };
    let client = EchoServiceClient::new(RpcChannel::new(registry, loops, options));
    let message = "nobody listens in".to_owned();
    let options = CallOptions::default().wait_for_ready();
    let reply = client.echo_with(&EchoRequest { message }, options).wait()?;
    Ok(reply.message.message)
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).ok_or("usage: tls FOLDER")?;
    println!("{}", run(Path::new(&folder), Some("client"))?);
    Ok(())
}
