//! The echo service on tonic.
//!
//! As tonic comes, but for what would stand in the way of the load: TCP_NODELAY, as nexus-net has it; room for 1,024
//! calls on a connection instead of 200; and windows that hold more than one message of 64 KiB.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::runtime::Runtime;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use super::generated::tonic::echo_service_server::{EchoService, EchoServiceServer};
use super::generated::tonic::{EchoRequest, EchoResponse};
use super::{Mode, RpcServerOptions, is_slow};
use crate::BoxError;

/// Calls of one connection at a time.
const STREAMS_MAX: u32 = 1024;
/// What one call may send ahead.
pub const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// What one connection may send ahead.
pub const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

pub(super) struct TonicServer {
    address: SocketAddr,
    calls: Arc<AtomicU64>,
    /// Ends the server by being dropped.
    runtime: Option<Runtime>,
}

impl TonicServer {
    pub(super) fn start(options: &RpcServerOptions) -> Result<Self, BoxError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(options.threads)
            .enable_all()
            .build()?;
        let calls = Arc::new(AtomicU64::new(0));
        let echo = Echo {
            calls: Arc::clone(&calls),
            mode: options.mode,
            slow: options.slow,
        };
        // The listener is registered with the runtime it is made in.
        let entered = runtime.enter();
        let incoming = TcpIncoming::bind(options.address)?.with_nodelay(Some(true));
        drop(entered);
        let address = incoming.local_addr()?;
        let server = Server::builder()
            .max_concurrent_streams(STREAMS_MAX)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .add_service(EchoServiceServer::new(echo));
        runtime.spawn(async move {
            if let Err(error) = server.serve_with_incoming(incoming).await {
                eprintln!("the tonic server ended: {error}");
            }
        });
        Ok(Self {
            address,
            calls,
            runtime: Some(runtime),
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }
}

impl Drop for TonicServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

struct Echo {
    calls: Arc<AtomicU64>,
    mode: Mode,
    slow: Duration,
}

#[tonic::async_trait]
impl EchoService for Echo {
    async fn echo(&self, request: Request<EchoRequest>) -> Result<Response<EchoResponse>, Status> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let message = request.into_inner().message;
        let slow = is_slow(&message) && !self.slow.is_zero();
        match self.mode {
            Mode::Inline => Ok(Response::new(EchoResponse { message })),
            Mode::Responder => {
                if slow {
                    tokio::time::sleep(self.slow).await;
                }
                Ok(Response::new(EchoResponse { message }))
            }
            Mode::Pooled => {
                let for_how_long = self.slow;
                let run = tokio::task::spawn_blocking(move || {
                    if slow {
                        std::thread::sleep(for_how_long);
                    }
                    EchoResponse { message }
                });
                let response = run
                    .await
                    .map_err(|error| Status::internal(error.to_string()))?;
                Ok(Response::new(response))
            }
        }
    }
}
