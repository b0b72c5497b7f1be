//! What the load programs and benchmarks share: echo servers over TCP and by RPC, each on a Nexus crate
//! and on its peer, a way to run them as child processes, certificates, and the
//! clocks.

pub mod cpu;
pub mod echo;
pub mod process;
pub mod ratio;
pub mod rpc;
pub mod serve;
pub mod tls;

pub use crate::echo::{EchoServer, Runtime};

/// What the programs' `main` fails with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The middle one, or the mean of the two in the middle.
///
/// # Panics
/// Of nothing there is no median.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        (values[middle - 1] + values[middle]) / 2.0
    }
}
