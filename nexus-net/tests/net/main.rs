//! The public API on real loopback sockets.
//!
//! One binary; a file per subject. Nothing sleeps: every wait is for a message or a condition, with
//! a deadline that only a failure reaches.

mod addresses;
mod client;
mod closing;
mod cross_thread;
mod echo;
mod examples;
mod faults;
mod flow;
mod hostile;
mod metrics;
mod placement;
mod pool;
mod proxy_protocol;
mod relay;
mod server;
mod support;
mod system;
mod timers;
#[cfg(feature = "tls")]
mod tls;
mod turn;
mod unix;
