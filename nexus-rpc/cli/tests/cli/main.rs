//! The program `nexus-rpc`, run as its users run it, on real providers.

mod call;
mod describe;
mod list;
mod press;
mod readme;
mod support;
mod tls;
mod types;
