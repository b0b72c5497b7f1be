//! The server side: a port, the services behind it, and what stands before a handler.
//!
//! ```text
//!   bytes ─► connection ─► serving: known? authentic? within the limits? ─► IncomingCall
//!                                                                              │ on the handler's thread
//!            answer  ◄──── interceptors' after ◄──── handler ◄──── interceptors' before, decode
//! ```
//!
//! | module | owns |
//! |---|---|
//! | `provider` | [`RpcProvider`]: starting, registering, draining |
//! | `options` | what can be chosen |
//! | `serving` | what all connections share: the methods by name, admission of calls |
//! | `connection` | one caller's connection: which protocol; frames in, refusals out |
//! | `incoming` | the call as a handler sees it: [`CallContext`], [`IncomingCall`], [`Responder`] |
//! | `answer` | the obligation to answer, and the way back |
//! | `interceptor` | [`ServerInterceptor`]: code around every handler |
//! | `auth` | [`Authenticator`]: who calls |
//! | `limit` | how many calls may be in work: constant, or by measured latency |
//! | `stats`, `recent` | counters and latencies, written without a lock, and what they were a while ago |
//! | `connections` | who is connected |
//! | `json` | messages as JSON |
//! | `web` | pages and calls over HTTP |

mod answer;
mod auth;
mod connection;
mod connections;
mod incoming;
mod interceptor;
mod json;
mod limit;
mod options;
mod provider;
mod receiving;
mod recent;
mod serving;
mod stats;
mod web;

pub use auth::{AuthContext, Authenticator};
pub use incoming::{CallContext, IncomingCall, Responder};
pub use interceptor::{ServerInterceptor, ServerOutcome};
pub use limit::{AdaptiveLimit, ConcurrencyLimit};
pub use options::{HttpOptions, Pages, ProviderOptions};
pub use provider::{ProviderBuilder, ProviderError, RpcProvider};
