//! The connections of a provider, to be shown.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::answer::ConnectionCalls;

/// All open connections, in the order in which they were opened. Locked when one opens or closes, never for
/// a call.
#[derive(Debug, Default)]
pub(crate) struct Connections(Mutex<Numbered>);

#[derive(Debug, Default)]
struct Numbered {
    next: u64,
    open: BTreeMap<u64, Weak<ConnectionCalls>>,
}

impl Connections {
    /// Adds one; the number to remove it by.
    pub(super) fn add(&self, calls: &Arc<ConnectionCalls>) -> u64 {
        let mut connections = self.0.lock();
        let number = connections.next;
        connections.next += 1;
        connections.open.insert(number, Arc::downgrade(calls));
        number
    }

    pub(super) fn remove(&self, number: u64) {
        self.0.lock().open.remove(&number);
    }

    pub(crate) fn count(&self) -> usize {
        self.0.lock().open.len()
    }

    /// The oldest ones.
    pub(crate) fn list(&self, count_max: usize) -> Vec<Arc<ConnectionCalls>> {
        let connections = self.0.lock();
        let open = connections.open.values().filter_map(Weak::upgrade);
        open.take(count_max).collect()
    }
}
