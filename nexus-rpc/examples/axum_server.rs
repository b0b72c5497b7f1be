//! RPC inside somebody else's async server: `cargo run -p nexus-rpc --example axum_server`, then
//! `curl http://127.0.0.1:3000/greet/ada`.
//!
//! One process serves HTTP by axum, on tokio's threads, and RPC by nexus-rpc, on loops of its own. A call
//! is a plain future: a handler of axum awaits it as anything else, and no thread waits. When a client of
//! axum goes away, the handler is dropped, and the call with it.

use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Router, routing::get};
use nexus_net::LoopGroup;
use nexus_rpc::registry::{InProcessRegistry, Registry};
use nexus_rpc::{CallContext, ChannelOptions, ErrorCode, RpcChannel, RpcError, RpcProvider};
use tokio::net::TcpListener;

include!(concat!(env!("OUT_DIR"), "/example.rs"));

struct Greeter;

impl EchoService for Greeter {
    fn echo(&self, _call: &CallContext, request: EchoRequest) -> Result<EchoResponse, RpcError> {
        let message = format!("hello, {}", request.message);
        Ok(EchoResponse { message })
    }
}

/// A handler of axum that calls a service.
async fn greet(
    State(client): State<EchoServiceClient>,
    Path(name): Path<String>,
) -> Result<String, (StatusCode, String)> {
    let reply = client.echo(&EchoRequest { message: name }).await;
    let failed = |error: RpcError| (status(error.code()), error.to_string());
    Ok(reply.map_err(failed)?.message.message)
}

fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::BAD_REQUEST => StatusCode::BAD_REQUEST,
        ErrorCode::DEADLINE_EXCEEDED => StatusCode::GATEWAY_TIMEOUT,
        code if code.is_retryable() => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Serves on `listener` until `stopped`, then ends in order: HTTP first, as it calls the other.
pub(crate) async fn serve(
    listener: TcpListener,
    stopped: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Box<dyn Error>> {
    let registry: Arc<dyn Registry> = Arc::new(InProcessRegistry::new());
    let loops = Arc::new(LoopGroup::start("rpc", 2)?);
    let mut provider = RpcProvider::builder()
        .service(EchoServiceServer::new(Greeter))
        .registry(Arc::clone(&registry))
        .loops(Arc::clone(&loops))
        .start("127.0.0.1:0".parse()?)?;
    println!("RPC on {}", provider.local_addr());

    let channel = RpcChannel::new(registry, loops, ChannelOptions::default());
    // It begins to connect at this first look, and not at the first request.
    channel.is_ready(EchoServiceClient::SERVICE);
    let app = Router::new()
        .route("/greet/{name}", get(greet))
        .with_state(EchoServiceClient::new(channel));
    println!("HTTP on {}", listener.local_addr()?);
    axum::serve(listener, app)
        .with_graceful_shutdown(stopped)
        .await?;

    // Blocks while calls end, so not on a thread of the runtime.
    tokio::task::spawn_blocking(move || provider.drain(Duration::from_secs(5))).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    serve(listener, std::future::pending()).await
}
