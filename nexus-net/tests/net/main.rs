//! The public API on real loopback sockets.
//!
//! One binary; a file per subject. Nothing sleeps: every wait is for a message or a condition, with
//! a deadline that only a failure reaches.

mod client;
mod closing;
mod cross_thread;
mod echo;
mod examples;
mod faults;
mod flow;
mod pool;
mod server;
mod support;
mod system;
mod timers;
