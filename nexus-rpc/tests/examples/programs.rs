//! The examples as modules.

#[path = "../../examples/async_handler.rs"]
pub(crate) mod async_handler;
#[path = "../../examples/attachment.rs"]
pub(crate) mod attachment;
#[path = "../../examples/auth.rs"]
pub(crate) mod auth;
#[path = "../../examples/axum_server.rs"]
pub(crate) mod axum_server;
#[path = "../../examples/consistent_hash.rs"]
pub(crate) mod consistent_hash;
#[path = "../../examples/hedging.rs"]
pub(crate) mod hedging;
#[path = "../../examples/interceptor.rs"]
pub(crate) mod interceptor;
#[path = "../../examples/retries_and_fallback.rs"]
pub(crate) mod retries_and_fallback;
#[cfg(feature = "tls")]
#[path = "../../examples/tls.rs"]
pub(crate) mod tls;
