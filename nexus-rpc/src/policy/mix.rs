//! A hash of numbers and a generator made of it: splitmix64.
//!
//! Its values are the same in every process and version, which consistent hashing depends on: clients
//! that disagree about where a key belongs would defeat its purpose. Nothing here withstands an
//! adversary who chooses the inputs.

use std::sync::atomic::{AtomicU64, Ordering};

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A number whose every bit depends on every bit of `input`; no two inputs give the same.
pub(crate) const fn mix(input: u64) -> u64 {
    let z = input.wrapping_add(STEP);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number in `0..below`, from 64 random bits. 0 when `below` is 0.
#[allow(
    clippy::cast_possible_truncation,
    reason = "the product's upper half is less than `below`"
)]
pub(crate) const fn below(random: u64, below: usize) -> usize {
    ((random as u128 * below as u128) >> 64) as usize
}

/// A number in `0.0..1.0`, from 64 random bits.
pub(crate) fn fraction(random: u64) -> f64 {
    // As many bits as the type holds exactly.
    (random >> 11) as f64 / (1_u64 << 53) as f64
}

/// Random numbers from a seed; from any thread, without a lock.
#[derive(Debug)]
pub(crate) struct Seeded(AtomicU64);

impl Seeded {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    pub(crate) fn next(&self) -> u64 {
        mix(self.0.fetch_add(STEP, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_splitmix64() {
        // The first outputs of the reference generator with seed 0.
        let seeded = Seeded::new(0);
        let first = [seeded.next(), seeded.next(), seeded.next()];
        let reference = [
            0xe220_a839_7b1d_cdaf,
            0x6e78_9e6a_a1b9_65f4,
            0x06c4_5d18_8009_454f,
        ];
        assert_eq!(first, reference);
    }

    #[test]
    fn ranges_hold_at_their_ends() {
        assert_eq!(below(0, 3), 0);
        assert_eq!(below(u64::MAX, 3), 2);
        assert_eq!(below(u64::MAX, 0), 0);
        assert_eq!(fraction(0), 0.0);
        assert!(fraction(u64::MAX) < 1.0);
    }
}
