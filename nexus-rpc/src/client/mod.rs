//! The client side: finds providers, keeps connections to them, and sends calls.
//!
//! ```text
//!   RpcChannel ── call ──► Flight ── attempt ──► Route ── picks ──► Endpoint ──► Link ──► connection
//!                            ▲  first, again, backup                (a provider) (one of its connections)
//!                            └───────────── answered, failed ◄───────────────────────┘
//! ```
//!
//! | module | owns |
//! |---|---|
//! | `channel` | [`RpcChannel`]: services to routes, addresses to endpoints |
//! | `options` | what a channel and a call can be told |
//! | `call` | [`Call`]: the caller's end |
//! | `flight` | a call from its first attempt to its one completion: retries, backup requests, cancellation |
//! | `route` | the providers of one service: picking one, waiting for one |
//! | `waiting` | the calls of a service that wait for a provider |
//! | `endpoint` | one provider: its connections, its health, its latency |
//! | `pool` | its connections beside the first: made, and closed when unused |
//! | `link` | a place for a connection to a provider |
//! | `connection`, `exchange` | one connection, and the calls in flight on it |
//! | `interceptor` | what runs around each call, and who the caller is |
//!
//! **Every call completes once.** Its flight owns the completion; each attempt is an obligation that
//! is answered, failed, or (dropped by a panic or a stopped loop) failed by being dropped.

mod call;
mod channel;
mod connection;
mod endpoint;
mod exchange;
mod flight;
mod interceptor;
mod link;
mod options;
mod pool;
mod route;
mod waiting;

pub use call::{Answer, Call, Reply};
pub use channel::{EndpointInfo, RpcChannel};
pub use endpoint::EndpointState;
pub use interceptor::{CallHead, ClientInterceptor, ClientOutcome, Credentials};
pub use options::{
    Backup, BackupOptions, CallOptions, ChannelOptions, Connections, RawMessage, Readiness,
    RetryOptions,
};
