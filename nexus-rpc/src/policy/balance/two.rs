//! The better of two (Mitzenmacher's power of two choices), with the cost that Finagle made common:
//! peak-EWMA latency times calls in flight.
//!
//! The first is drawn by weight, the second from all the others alike, and the second has the call only if
//! it costs less. So idle members of one latency have calls by their weights, and a light
//! one that is ahead is still compared often enough to be found. Calls in flight are counted relative to
//! the weight: twice the weight, twice the calls at the same cost.

use super::super::mix::below;
use super::draw::Draw;
use super::{Load, Members};

/// Tries to find a second that is usable.
const TRIES_MAX: usize = 4;

/// The cost of a member that has calls and has not answered one yet: above any real cost. A new member
/// so gets one call, and more when it has shown how fast it is.
const UNPROVEN: f64 = 1e30;

#[derive(Debug)]
pub(super) struct BetterOfTwo {
    draw: Draw,
    /// Relative to the average.
    weights: Vec<f64>,
}

impl BetterOfTwo {
    pub(super) fn new(weights: Vec<usize>) -> Self {
        let total: f64 = weights.iter().map(|weight| *weight as f64).sum();
        let average = total / weights.len() as f64;
        Self {
            weights: weights.iter().map(|w| *w as f64 / average).collect(),
            draw: Draw::new(weights),
        }
    }

    pub(super) fn pick(
        &self,
        members: Members<'_>,
        random: &mut dyn FnMut() -> u64,
    ) -> Option<usize> {
        let first = self.draw.pick(members.usable, random)?;
        let count = self.weights.len();
        if count == 1 {
            return Some(first);
        }
        let second = (0..TRIES_MAX)
            .map(|_| (first + 1 + below(random(), count - 1)) % count)
            .find(|member| (members.usable)(*member));
        match second {
            Some(second) if self.cost(second, members) < self.cost(first, members) => Some(second),
            _ => Some(first),
        }
    }

    fn cost(&self, member: usize, members: Members<'_>) -> f64 {
        let Load {
            in_flight,
            latency_ns,
        } = (members.load)(member);
        let queue = in_flight as f64 / self.weights[member];
        if latency_ns == 0 && in_flight > 0 {
            UNPROVEN + UNPROVEN * queue
        } else {
            latency_ns as f64 * (1.0 + queue)
        }
    }
}
