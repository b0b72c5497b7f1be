//! The reactor against tokio, each with the same work: `cargo bench -p nexus-benches --bench reactor`.
//!
//! After the run each pair is printed with its ratio. An argument runs only the benches whose names
//! contain it.

mod accept;
mod fanout;
mod pingpong;
mod post;
mod timers;
mod worker_pool;

use std::path::Path;
use std::time::{Duration, SystemTime};

use criterion::Criterion;
use nexus_benches::ratio;

fn main() {
    if fanout::is_receiver() {
        fanout::receive();
        return;
    }
    let started = SystemTime::now();
    let output = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../criterion");
    let mut criterion = Criterion::default()
        .output_directory(&output)
        .without_plots()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    pingpong::latency(&mut criterion);
    pingpong::throughput(&mut criterion);
    post::round_trip(&mut criterion);
    post::burst(&mut criterion);
    timers::start_and_cancel(&mut criterion);
    timers::fire(&mut criterion);
    worker_pool::hand_over(&mut criterion);
    accept::rate(&mut criterion);
    fanout::to_all(&mut criterion);
    criterion.final_summary();
    ratio::print(&output, started, "tokio");
}
