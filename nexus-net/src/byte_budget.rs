//! One limit on the bytes that many connections hold together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that many holders may have together. Shared by threads; taking and giving back is one atomic operation.
///
/// ```
/// use std::sync::Arc;
/// use nexus_net::{ByteBudget, Charge};
///
/// let budget = Arc::new(ByteBudget::new(100));
/// let mut one = Charge::none(&budget);
/// let mut two = Charge::none(&budget);
/// assert!(one.resize(80));
/// assert!(!two.resize(30));
/// drop(one);
/// assert!(two.resize(30));
/// assert_eq!(budget.used_bytes(), 30);
/// ```
#[derive(Debug)]
pub struct ByteBudget {
    bytes_max: usize,
    used_bytes: AtomicUsize,
}

impl ByteBudget {
    /// A budget of which nothing is used.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            used_bytes: AtomicUsize::new(0),
        }
    }

    /// The limit.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// What all holders have now.
    pub fn used_bytes(&self) -> usize {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Takes `bytes`, unless more than `bytes_max` would be used then.
    fn take(&self, bytes: usize, bytes_max: usize) -> bool {
        // The count protects no other memory, so no order is needed.
        self.used_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|&used| used <= bytes_max)
            })
            .is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What one holder has of a [`ByteBudget`]. Given back when dropped.
#[derive(Debug)]
pub struct Charge {
    budget: Arc<ByteBudget>,
    bytes: usize,
}

impl Charge {
    /// Nothing yet.
    pub fn none(budget: &Arc<ByteBudget>) -> Self {
        Self {
            budget: Arc::clone(budget),
            bytes: 0,
        }
    }

    /// The bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Holds `bytes` from now on. `false`: the budget has no room for that, and what is held stays as it is. Less
    /// than is held always succeeds.
    #[must_use = "without room nothing has changed"]
    pub fn resize(&mut self, bytes: usize) -> bool {
        self.resize_within(bytes, self.budget.bytes_max)
    }

    /// As [`resize`](Self::resize), but what is added has to fit into `bytes_max` together with all that others hold:
    /// a lower limit than the budget's keeps the rest of the budget for others.
    #[must_use = "without room nothing has changed"]
    pub fn resize_within(&mut self, bytes: usize, bytes_max: usize) -> bool {
        let bytes_max = bytes_max.min(self.budget.bytes_max);
        match bytes.checked_sub(self.bytes) {
            Some(0) => return true,
            Some(more) if !self.budget.take(more, bytes_max) => return false,
            Some(_) => {}
            None => self.budget.give_back(self.bytes - bytes),
        }
        self.bytes = bytes;
        true
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_grows_to_the_limit_shrinks_and_is_given_back() {
        let budget = Arc::new(ByteBudget::new(10));
        let (mut one, mut two) = (Charge::none(&budget), Charge::none(&budget));
        assert!(one.resize(10) && !two.resize(1) && !one.resize(11));
        assert_eq!((one.bytes(), two.bytes(), budget.used_bytes()), (10, 0, 10));
        assert!(one.resize(4) && two.resize(6) && !one.resize(5));
        drop(two);
        assert_eq!(budget.used_bytes(), 4);
        assert!(!one.resize(usize::MAX));
        drop(one);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn who_has_a_lower_limit_leaves_the_rest_to_others() {
        let budget = Arc::new(ByteBudget::new(10));
        let (mut greedy, mut modest) = (Charge::none(&budget), Charge::none(&budget));
        assert!(!greedy.resize_within(6, 5) && greedy.resize_within(5, 5));
        assert!(modest.resize(5) && greedy.resize_within(3, 5));
        assert!(!greedy.resize_within(4, 5), "others hold as much");
        assert!(!greedy.resize_within(6, usize::MAX));
    }

    #[test]
    fn many_threads_never_hold_more_than_there_is() {
        let budget = Arc::new(ByteBudget::new(100));
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let budget = &budget;
                scope.spawn(move || {
                    let mut charge = Charge::none(budget);
                    for round in 0..10_000 {
                        let _ = charge.resize((round * 7 + thread * 13) % 90);
                        assert!(budget.used_bytes() <= 100);
                    }
                });
            }
        });
        assert_eq!(budget.used_bytes(), 0);
    }
}
