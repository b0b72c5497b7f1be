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
//! | `current`, `trace` | what a handler's own calls inherit: [`CallScope`], [`TraceContext`] |
//! | `policy` | what a channel decides: balancing, isolation, retries, backup requests; pure |
//! | [`http`] | HTTP/1.1, the bytes: requests read, answers written; no socket, no page |
//! | `bounds` | what time-outs and limits come to |
//!
//! Services are defined in `.proto` files; nexus-rpc-build, called from a `build.rs`, makes a trait
//! to implement and a client to call of each.

mod bounds;
mod client;
mod current;
pub mod error;
pub mod http;
mod policy;
pub mod registry;
mod server;
mod service;
mod trace;
pub mod wire;

pub use client::{
    Answer, Backup, BackupOptions, Call, CallHead, CallOptions, CallOutcome, ChannelOptions,
    ClientInterceptor, Connections, Credentials, EndpointInfo, EndpointState, RawMessage,
    Readiness, Reply, RetryOptions, RpcChannel,
};
pub use current::{CallScope, Entered};
pub use error::{ErrorCode, RpcError};
pub use policy::{
    BackupAfter, BreakerOptions, BudgetOptions, FailureWindow, LoadBalancing, SlowCalls,
    ZonePreference,
};
pub use server::{
    AdaptiveLimit, AuthContext, Authenticator, CallContext, ConcurrencyLimit, HttpOptions,
    IncomingCall, Interceptor, Outcome, Pages, ProviderBuilder, ProviderError, ProviderOptions,
    Responder, RpcProvider,
};
pub use service::{Execution, MethodDescriptor, Service, ServiceDescriptor};
pub use trace::{TraceContext, TraceError};
