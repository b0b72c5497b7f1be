//! nexus-rpc against tonic, and the frames by themselves: `cargo bench -p nexus-benches --bench rpc`.
//!
//! Each server runs in this process on one loop or worker, with an inline handler, and so does each client. After
//! the run each pair is printed with its ratio. An argument runs only the benches whose names contain it.

mod calls;
mod frames;

use std::path::Path;
use std::time::{Duration, SystemTime};

use criterion::Criterion;
use nexus_benches::ratio;

fn main() {
    let started = SystemTime::now();
    let output = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../criterion");
    let mut criterion = Criterion::default()
        .output_directory(&output)
        .without_plots()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    frames::encode(&mut criterion);
    frames::decode_frames(&mut criterion);
    calls::one_by_one(&mut criterion);
    calls::many_at_a_time(&mut criterion);
    criterion.final_summary();
    ratio::print(&output, started, "tonic");
}
