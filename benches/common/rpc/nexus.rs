//! The echo service on nexus-rpc, in each of the ways to run a handler.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nexus_net::LoopGroup;
use nexus_rpc::{CallContext, Responder, RpcError, RpcProvider};

use super::generated::{inline, pooled, responder};
use super::{Mode, RpcServerOptions, is_slow};
use crate::BoxError;

pub(super) struct NexusServer {
    provider: RpcProvider,
    echo: Arc<Echo>,
}

impl NexusServer {
    pub(super) fn start(options: &RpcServerOptions) -> Result<Self, BoxError> {
        let loops = Arc::new(LoopGroup::start_with(
            "rpc",
            options.threads,
            &options.loops,
        )?);
        let echo = Arc::new(Echo {
            calls: AtomicU64::new(0),
            slow: options.slow,
            loops: Arc::clone(&loops),
        });
        let builder = RpcProvider::builder().loops(loops);
        let shared = Arc::clone(&echo);
        let builder = match options.mode {
            Mode::Pooled => builder.service(pooled::EchoServiceServer::from_arc(shared)),
            Mode::Inline => builder.service(inline::EchoServiceServer::from_arc(shared)),
            Mode::Responder => builder.service(responder::EchoServiceServer::from_arc(shared)),
        };
        Ok(Self {
            provider: builder.start(options.address)?,
            echo,
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.provider.local_addr()
    }

    pub(super) fn calls(&self) -> u64 {
        self.echo.calls.load(Ordering::Relaxed)
    }
}

struct Echo {
    calls: AtomicU64,
    slow: Duration,
    loops: Arc<LoopGroup>,
}

impl Echo {
    fn count(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// For where a handler may block.
    fn hold_up(&self, message: &str) {
        if is_slow(message) && !self.slow.is_zero() {
            std::thread::sleep(self.slow);
        }
    }
}

fn return_attachment(call: &CallContext) {
    if !call.attachment().is_empty() {
        call.set_response_attachment(call.attachment().clone());
    }
}

impl pooled::EchoService for Echo {
    fn echo(
        &self,
        call: &CallContext,
        request: pooled::EchoRequest,
    ) -> Result<pooled::EchoResponse, RpcError> {
        self.count();
        self.hold_up(&request.message);
        return_attachment(call);
        let message = request.message;
        Ok(pooled::EchoResponse { message })
    }
}

impl inline::EchoService for Echo {
    fn echo(
        &self,
        call: &CallContext,
        request: inline::EchoRequest,
    ) -> Result<inline::EchoResponse, RpcError> {
        self.count();
        return_attachment(call);
        let message = request.message;
        Ok(inline::EchoResponse { message })
    }
}

impl responder::EchoService for Echo {
    fn echo(
        &self,
        call: CallContext,
        request: responder::EchoRequest,
        responder: Responder<responder::EchoResponse>,
    ) {
        self.count();
        return_attachment(&call);
        let message = request.message;
        let slow = is_slow(&message) && !self.slow.is_zero();
        let answer = move || responder.complete(Ok(responder::EchoResponse { message }));
        if slow {
            // Refused only by a loop that has stopped, and the responder is dropped with it.
            let _ = self.loops.next().post_after(self.slow, move |_| answer());
        } else {
            answer();
        }
    }
}
