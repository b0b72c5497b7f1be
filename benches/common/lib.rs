//! What the load programs and benchmarks of the reactor share: an echo server on nexus-net and one on
//! tokio, a way to run either as a child process, certificates, and the clocks.

pub mod cpu;
pub mod echo;
pub mod process;
pub mod serve;
pub mod tls;

pub use crate::echo::{EchoServer, Runtime};

/// What the programs' `main` fails with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
