//! CPU time of this process.

use rustix::time::{ClockId, clock_gettime};

/// Seconds that all threads of this process have run so far, in user mode and in the kernel.
pub fn process_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
