//! Protobuf RPC on nexus-net, speaking baidu_std, the native protocol of Apache brpc.
//!
//! | module | owns |
//! |---|---|
//! | [`wire`] | the bytes: frames, meta, compression, checksums; no socket, no clock |
//! | [`error`] | what a call fails with: a code that both sides know and a text |
//! | [`registry`] | who provides a service: ZooKeeper, a fixed list, or this process |
//! | `server` | serving: [`RpcProvider`], what stands before its handlers, and what they see |
//! | `service` | descriptors: what generated code says to both sides |
//! | `client` | calling: [`RpcChannel`], its connections, and [`Call`] |
//! | `metadata` | what goes along beside messages: [`Metadata`], [`MetadataKey`] |
//! | `current`, `trace` | what a handler's own calls inherit: [`CallScope`], [`TraceContext`] |
//! | `circuit` | what stands before a service's own dependencies: [`Circuit`] |
//! | `policy` | what a channel decides: balancing, isolation, retries, backup requests; pure |
//! | [`http`] | HTTP/1.1, the bytes: requests read, answers written; no socket, no page |
//! | [`json`] | JSON as messages, by their descriptors |
//! | `bounds` | what time-outs and limits come to |
//!
//! Services are defined in `.proto` files; nexus-rpc-build, called from a `build.rs`, makes a trait
//! to implement and a client to call of each. Whole programs are in `examples/`, and `docs/guide.md` goes from a
//! `.proto` to a cluster.
//!
//! # A first service
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//!
//! use nexus_net::LoopGroup;
//! use nexus_rpc::registry::{InProcessRegistry, Registry};
//! use nexus_rpc::{CallContext, ChannelOptions, RpcChannel, RpcError, RpcProvider};
//!
//! // What nexus-rpc-build has made of `package example; service EchoService { rpc Echo(…) … }`.
//! include!(concat!(env!("OUT_DIR"), "/example.rs"));
//!
//! struct Echo;
//!
//! impl EchoService for Echo {
//!     fn echo(&self, _call: &CallContext, request: EchoRequest) -> Result<EchoResponse, RpcError> {
//!         Ok(EchoResponse { message: request.message })
//!     }
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let registry: Arc<dyn Registry> = Arc::new(InProcessRegistry::new());
//!     let loops = Arc::new(LoopGroup::start("rpc", 2)?);
//!     let mut provider = RpcProvider::builder()
//!         .service(EchoServiceServer::new(Echo))
//!         .registry(Arc::clone(&registry))
//!         .loops(Arc::clone(&loops))
//!         .start("127.0.0.1:0".parse()?)?;
//!
//!     let channel = RpcChannel::new(registry, loops, ChannelOptions::default());
//!     channel.wait_ready(EchoServiceClient::SERVICE, Duration::from_secs(5));
//!     let client = EchoServiceClient::new(channel);
//!     let reply = client.echo(&EchoRequest { message: "hello".into() }).wait()?;
//!     assert_eq!(reply.message.message, "hello");
//!
//!     provider.drain(Duration::from_secs(5));
//!     Ok(())
//! }
//! ```
//!
//! # What runs where
//!
//! | thread | runs | may block |
//! |---|---|---|
//! | a loop | connections; handlers that are [inline](Execution::Inline), and the beginning of those with a [`Responder`]; callbacks of calls; [`Credentials`], [`Authenticator`] | no |
//! | `rpc-worker-n`, the provider's pool | [pooled](Execution::Pooled) handlers, the default, with the [`ServerInterceptor`]s around them | yes |
//! | the caller's | a request's encoding, [`ClientInterceptor::before`]; an answer's decoding in [`Call::wait`] and in the future | as the caller may |
//! | the registry's | news of providers | no |
//!
//! Loops belong to a [`LoopGroup`](nexus_net::LoopGroup) that providers and channels may share. What blocks
//! says so, and on a loop's thread it refuses ([`Call::wait`]), only looks ([`RpcChannel::wait_ready`]) or
//! panics ([`RpcProvider::drain`]), but never stops the loop.
//!
//! # Limits
//!
//! | what | default | beyond it | where |
//! |---|---|---|---|
//! | a frame | 64 MiB | not sent, or the connection is closed | [`wire::Limits`] |
//! | a call's time | 1 s | [`DEADLINE_EXCEEDED`](ErrorCode::DEADLINE_EXCEEDED) | [`ChannelOptions::timeout`] |
//! | attempts of a call | 3, of which retries within a budget; beside them up to 16 that were refused | the last error | [`RetryOptions`] |
//! | calls in flight to one provider | 65,536 | [`SEND_QUEUE_FULL`](ErrorCode::SEND_QUEUE_FULL) | [`ChannelOptions::in_flight_max`] |
//! | calls waiting for a provider, per service | 10,000 | [`SEND_QUEUE_FULL`](ErrorCode::SEND_QUEUE_FULL) | [`ChannelOptions::waiting_max`] |
//! | calls in work in a provider | 100,000 | [`OVERLOADED`](ErrorCode::OVERLOADED) | [`ProviderOptions::in_flight_max`], [`ConcurrencyLimit`] |
//! | requests above 64 KiB that are received or in work | 256 MiB | [`OVERLOADED`](ErrorCode::OVERLOADED) | [`ProviderOptions::request_bytes_max`] |
//! | pooled calls waiting for one of 8 threads | 4096 | [`OVERLOADED`](ErrorCode::OVERLOADED) | [`ProviderOptions::worker_queue_max`] |
//!
//! # Features
//!
//! `tls`: TLS (rustls) to and from providers, by `ChannelOptions::tls` and `ProviderOptions::tls`. Off by default.

mod bounds;
mod circuit;
mod client;
mod current;
pub mod error;
pub mod http;
pub mod json;
mod metadata;
mod policy;
pub mod registry;
mod server;
mod service;
mod trace;
pub mod wire;

pub use circuit::{Circuit, CircuitOptions, NoPassage, Passage};
pub use client::{
    Answer, Backup, BackupOptions, Call, CallHead, CallOptions, ChannelOptions, ClientInterceptor,
    ClientOutcome, Connections, Credentials, EndpointInfo, EndpointState, RawMessage, Readiness,
    Reply, RetryOptions, RpcChannel,
};
pub use current::{CallScope, Entered};
pub use error::{ErrorCode, RpcError};
pub use metadata::{Metadata, MetadataError, MetadataIter, MetadataKey};
pub use policy::{
    BackupAfter, BreakerOptions, BudgetOptions, FailureWindow, LoadBalancing, SlowCalls,
    ZonePreference,
};
pub use server::{
    AdaptiveLimit, AuthContext, Authenticator, CallContext, ConcurrencyLimit, HttpOptions,
    IncomingCall, Pages, ProviderBuilder, ProviderError, ProviderOptions, Responder, RpcProvider,
    ServerInterceptor, ServerOutcome,
};
pub use service::{Execution, MethodDescriptor, Service, ServiceDescriptor};
pub use trace::{TraceContext, TraceError};
