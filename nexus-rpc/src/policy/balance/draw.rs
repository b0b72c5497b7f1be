//! Weighted random in constant time: Walker's alias method, its tables made as Vose does.
//!
//! There are as many slots as members, all equally likely. A slot is shared by two members: its own
//! up to a threshold, and above it another one, which weighs more than the average.

use super::super::mix::below;

/// Draws that may hit an unusable member before all are looked at.
const DRAWS_MAX: usize = 8;

#[derive(Debug)]
pub(super) struct Draw {
    weights: Vec<usize>,
    slots: Vec<Slot>,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    /// Of 2^64.
    own_below: u64,
    other: usize,
}

impl Draw {
    /// For weights of at least 1.
    pub(super) fn new(weights: Vec<usize>) -> Self {
        let total: u128 = weights.iter().map(|weight| *weight as u128).sum();
        let count = weights.len() as u128;
        // In units in which the average, which is what a slot holds, is `total`.
        let mut left: Vec<u128> = weights.iter().map(|w| *w as u128 * count).collect();
        let (mut light, mut heavy): (Vec<usize>, Vec<usize>) =
            (0..weights.len()).partition(|member| left[*member] < total);
        let mut slots: Vec<Slot> = (0..weights.len())
            .map(|member| Slot {
                own_below: u64::MAX,
                other: member,
            })
            .collect();
        while let (Some(poor), Some(rich)) = (light.pop(), heavy.pop()) {
            let threshold = (left[poor] << 64) / total;
            slots[poor] = Slot {
                own_below: u64::try_from(threshold).unwrap_or(u64::MAX),
                other: rich,
            };
            left[rich] -= total - left[poor];
            if left[rich] < total {
                light.push(rich);
            } else {
                heavy.push(rich);
            }
        }
        Self { weights, slots }
    }

    /// A member by its weight, usable or not. There must be one.
    fn draw(&self, random: u64) -> usize {
        // The whole part of the product is the slot, the fraction is where in it.
        let point = u128::from(random) * self.slots.len() as u128;
        let (slot, within) = ((point >> 64) as usize, point as u64);
        let Slot { own_below, other } = self.slots[slot];
        if within < own_below { slot } else { other }
    }

    pub(super) fn pick(
        &self,
        usable: &dyn Fn(usize) -> bool,
        random: &mut dyn FnMut() -> u64,
    ) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        (0..DRAWS_MAX)
            .map(|_| self.draw(random()))
            .find(|member| usable(*member))
            .or_else(|| self.pick_from_few(usable, random))
    }

    /// One pass over all: each usable member takes the place of the one chosen so far with the
    /// probability that its weight has among those seen. In the end every one has its share.
    fn pick_from_few(
        &self,
        usable: &dyn Fn(usize) -> bool,
        random: &mut dyn FnMut() -> u64,
    ) -> Option<usize> {
        let (mut chosen, mut seen) = (None, 0);
        for (member, weight) in self.weights.iter().enumerate() {
            if usable(member) {
                seen += weight;
                if below(random(), seen) < *weight {
                    chosen = Some(member);
                }
            }
        }
        chosen
    }
}
