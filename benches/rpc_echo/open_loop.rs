//! Calls at a fixed rate, whatever becomes of them.
//!
//! A closed loop that meets a stall stops asking, and so hides it from its own latencies (coordinated
//! omission). Here every call has a time at which it is due and its latency counts from there, also when the
//! client itself comes late.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus_benches::BoxError;
use nexus_benches::rpc::Slow;

use crate::client::Load;
use crate::record::Recorder;

/// Makes `rate` calls per second from a thread of its own until the process ends; every `slow_every`th
/// is a slow one.
pub(crate) fn start(
    load: Box<dyn Load + Send>,
    rate: f64,
    slow_every: Option<u64>,
    recorder: Arc<Recorder>,
) -> Result<(), BoxError> {
    if rate.is_nan() || rate <= 0.0 {
        return Err("a rate is above 0".into());
    }
    std::thread::Builder::new()
        .name("open-loop".to_owned())
        .spawn(move || {
            let started = Instant::now();
            for number in 0.. {
                let due = started + Duration::from_secs_f64(number as f64 / rate);
                let early = due.saturating_duration_since(Instant::now());
                if !early.is_zero() {
                    std::thread::sleep(early);
                }
                let slow = match slow_every {
                    Some(every) if number % every.max(1) == 0 => Slow::Yes,
                    _ => Slow::No,
                };
                if load.call(number, slow, due).is_err() {
                    recorder.failed(0);
                }
            }
        })?;
    Ok(())
}
