//! Who calls, and what they may: `cargo run -p nexus-rpc --example auth`.
//!
//! A caller shows who it is with the first request of each connection; the provider checks it once, before
//! anything else of the call is looked at, and its handlers see the result. Bytes that say who somebody is
//! travel as they are: use them over TLS.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use nexus_net::{Address, LoopGroup};
use nexus_rpc::registry::{InProcessRegistry, Registry};
use nexus_rpc::{
    AuthContext, Authenticator, CallContext, CallOptions, ChannelOptions, Credentials, ErrorCode,
    RpcChannel, RpcError, RpcProvider,
};

include!(concat!(env!("OUT_DIR"), "/example.rs"));

/// The provider's side: who has which token.
struct Tokens(HashMap<&'static [u8], AuthContext>);

impl Authenticator for Tokens {
    fn verify(&self, data: &[u8], _peer: &Address) -> Result<AuthContext, RpcError> {
        // On the connection's loop, so not the place to ask a database.
        let unknown = || RpcError::new(ErrorCode::UNAUTHENTICATED, "unknown token");
        self.0.get(data).cloned().ok_or_else(unknown)
    }
}

/// The caller's side: what it shows.
struct Token(&'static str);

impl Credentials for Token {
    fn authentication_data(&self) -> Bytes {
        // Asked for each connection, so a token that is renewed is taken up by the next one.
        Bytes::from_static(self.0.as_bytes())
    }
}

struct Vault;

impl EchoService for Vault {
    fn echo(&self, call: &CallContext, request: EchoRequest) -> Result<EchoResponse, RpcError> {
        // The authenticator has let the caller in; what it may do is the service's affair.
        let caller = call
            .auth()
            .ok_or_else(|| RpcError::internal("no authenticator"))?;
        if !caller.has_role("reader") {
            let text = format!("{} may not read", caller.user());
            return Err(RpcError::new(ErrorCode::new(403), text));
        }
        let message = format!("{} for {}", request.message, caller.user());
        Ok(EchoResponse { message })
    }
}

/// Calls with each of the tokens; returns what came of it.
pub(crate) fn run(
    tokens: &[&'static str],
) -> Result<Vec<Result<String, RpcError>>, Box<dyn Error>> {
    let registry: Arc<dyn Registry> = Arc::new(InProcessRegistry::new());
    let loops = Arc::new(LoopGroup::start("rpc", 2)?);
    let known = Tokens(HashMap::from([
        (
            b"a secret".as_slice(),
            AuthContext::new("ada").with_role("reader"),
        ),
        (b"another secret".as_slice(), AuthContext::new("bob")),
    ]));
    let _provider = RpcProvider::builder()
        .service(EchoServiceServer::new(Vault))
        .authenticator(known)
        .registry(Arc::clone(&registry))
        .loops(Arc::clone(&loops))
        .start("127.0.0.1:0".parse()?)?;

    let call = |token: &&'static str| {
        let options = ChannelOptions {
            credentials: Some(Arc::new(Token(token))),
            ..ChannelOptions::default()
        };
        let channel = RpcChannel::new(Arc::clone(&registry), Arc::clone(&loops), options);
        let client = EchoServiceClient::new(channel);
        let message = "gold".to_owned();
        let waiting = CallOptions::default().wait_for_ready();
        let reply = client.echo_with(&EchoRequest { message }, waiting).wait()?;
        Ok(reply.message.message)
    };
    Ok(tokens.iter().map(call).collect())
}

fn main() -> Result<(), Box<dyn Error>> {
    for result in run(&["a secret", "another secret", "a guess"])? {
        println!("{result:?}");
    }
    Ok(())
}
