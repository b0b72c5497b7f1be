//! Brings what a user may set, or a peer may say, within what the layers below can take.

use std::time::{Duration, Instant};

use nexus_net::ConnectionOptions;

use crate::wire::{HEADER_BYTES, Limits};

/// The longest time-out: what `timeout_ms` can say, 24 days. Longer ones are cut to it.
pub(crate) const TIMEOUT_MAX: Duration = Duration::from_millis(i32::MAX as u64);

/// When `timeout` from now is over.
pub(crate) fn deadline_after(timeout: Duration) -> Instant {
    Instant::now() + timeout.min(TIMEOUT_MAX)
}

/// `timeout` as it travels. Rounded up: 0 would mean no deadline.
pub(crate) fn timeout_ms(timeout: Duration) -> i32 {
    let timeout_ms = timeout.as_nanos().div_ceil(1_000_000).max(1);
    i32::try_from(timeout_ms).unwrap_or(i32::MAX)
}

/// The options, with room for one frame of the largest size in either direction.
pub(crate) fn with_room_for_frames(
    mut options: ConnectionOptions,
    limits: &Limits,
) -> ConnectionOptions {
    let frame_bytes_max = limits.body_bytes_max.saturating_add(HEADER_BYTES);
    options.input_bytes_max = options.input_bytes_max.max(frame_bytes_max);
    options.output_bytes_max = options.output_bytes_max.max(frame_bytes_max);
    options
}

/// The options of a caller's connection: as [`with_room_for_frames`], and it is read however much waits to be
/// written. A provider stops reading while its answers are not taken; if its caller stopped as
/// well, neither would ever go on.
pub(crate) fn with_room_to_call(options: ConnectionOptions, limits: &Limits) -> ConnectionOptions {
    let mut options = with_room_for_frames(options, limits);
    options.output_high_bytes = options.output_bytes_max;
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_timeout_overflows() {
        assert_eq!(timeout_ms(Duration::MAX), i32::MAX);
        assert_eq!(timeout_ms(Duration::from_nanos(1)), 1);
        assert_eq!(timeout_ms(Duration::from_micros(1001)), 2);
        assert_eq!(timeout_ms(Duration::ZERO), 1);
        assert!(deadline_after(Duration::MAX) > Instant::now());
    }

    #[test]
    fn the_largest_frame_fits_a_connection() {
        let limits = Limits::default();
        let options = with_room_for_frames(ConnectionOptions::default(), &limits);
        assert!(options.output_bytes_max >= limits.body_bytes_max + HEADER_BYTES);
        assert!(options.input_bytes_max >= limits.body_bytes_max + HEADER_BYTES);
    }
}
