//! Round robin: a cycle of turns that is gone through again and again.
//!
//! A turn whose member is unusable is skipped and gone. So the others' shares of what remains are what
//! they were, and no member inherits a neighbour's calls.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::mix::mix;

/// The longest smooth cycle, for a few members and for each of many. Weights whose cycle would be longer
/// are rounded.
const TURNS_MAX: usize = 1024;
const TURNS_PER_MEMBER_MAX: usize = 16;

#[derive(Debug)]
pub(super) struct Cycle {
    /// The member of each turn.
    turns: Vec<usize>,
    members: usize,
    next: AtomicUsize,
}

impl Cycle {
    /// All members in their order.
    pub(super) fn plain(members: usize, seed: u64) -> Self {
        Self::new((0..members).collect(), members, seed)
    }

    /// As many turns for each member as its weight says, spread as evenly as nginx spreads them: in
    /// each turn every member gains its weight, the richest has the turn and pays the sum of weights.
    pub(super) fn smooth(weights: &[usize], seed: u64) -> Self {
        let weights = shortened(weights);
        let total: i64 = weights.iter().sum();
        let mut wealth = vec![0; weights.len()];
        let turns = (0..total).filter_map(|_| {
            for (wealth, weight) in wealth.iter_mut().zip(&weights) {
                *wealth += weight;
            }
            // The first of the richest.
            let (richest, wealth) = wealth
                .iter_mut()
                .enumerate()
                .rev()
                .max_by_key(|(_, wealth)| **wealth)?;
            *wealth -= total;
            Some(richest)
        });
        Self::new(turns.collect(), weights.len(), seed)
    }

    fn new(turns: Vec<usize>, members: usize, seed: u64) -> Self {
        Self {
            turns,
            members,
            // So far below the end that it is never reached.
            next: AtomicUsize::new((mix(seed) >> 8) as usize),
        }
    }

    pub(super) fn pick(&self, usable: &dyn Fn(usize) -> bool) -> Option<usize> {
        let mut turn = 0;
        for _ in 0..self.members {
            turn = self.next.fetch_add(1, Ordering::Relaxed);
            let member = self.member(turn);
            if usable(member) {
                return Some(member);
            }
        }
        // Unusable members had all of these turns, or other threads had those between them.
        let ahead = (1..=self.turns.len()).find(|ahead| usable(self.member(turn + ahead)))?;
        self.next.fetch_add(ahead, Ordering::Relaxed);
        Some(self.member(turn + ahead))
    }

    fn member(&self, turn: usize) -> usize {
        self.turns[turn % self.turns.len()]
    }
}

/// The weights in lowest terms, and rounded if their sum would still be too large; at least 1 each.
fn shortened(weights: &[usize]) -> Vec<i64> {
    let divisor = weights.iter().copied().fold(0, greatest_common_divisor);
    let total: usize = weights.iter().map(|weight| weight / divisor.max(1)).sum();
    let total_max = TURNS_MAX.max(TURNS_PER_MEMBER_MAX * weights.len());
    let scale = if total > total_max {
        total_max as f64 / total as f64
    } else {
        1.0
    };
    weights
        .iter()
        .map(|weight| ((weight / divisor.max(1)) as f64 * scale).round().max(1.0) as i64)
        .collect()
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}
