//! Calls that wait for a provider, in their order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::flight::Flight;
use crate::{ErrorCode, RpcError};

/// The queue of one route. Dropped, it fails what is in it: nobody else would, once the loops are gone.
#[derive(Default)]
pub(crate) struct Waiting {
    flights: Mutex<VecDeque<Arc<Flight>>>,
    /// Counts what may have given the queue somebody to send to.
    changes: AtomicU64,
}

impl Waiting {
    /// Lets a call wait. `false`: as many as may wait do so already.
    pub(crate) fn push(&self, flight: &Arc<Flight>, max: usize) -> bool {
        let mut flights = self.flights.lock();
        if flights.len() >= max {
            flights.retain(|flight| !flight.is_over());
        }
        let has_room = flights.len() < max;
        if has_room {
            flights.push_back(Arc::clone(flight));
        }
        has_room
    }

    /// The call does not wait any longer.
    pub(crate) fn remove(&self, flight: &Arc<Flight>) {
        self.flights.lock().retain(|one| !Arc::ptr_eq(one, flight));
    }

    /// Somebody may have become ready. [`serve`](Self::serve) comes after it.
    pub(crate) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// Sends what waits while there `is_anybody` to send to. What `send` could not hand over (`false`) waits on.
    pub(crate) fn serve(&self, is_anybody: impl Fn() -> bool, send: impl Fn(&Arc<Flight>) -> bool) {
        loop {
            let changes = self.changes.load(Ordering::SeqCst);
            if !is_anybody() {
                return;
            }
            let Some(flight) = self.flights.lock().pop_front() else {
                return;
            };
            if send(&flight) {
                continue;
            }
            self.flights.lock().push_front(flight);
            // Whoever became ready while the call was out of the queue did not find it there. Without such a
            // change another try would end as this one did.
            if self.changes.load(Ordering::SeqCst) == changes {
                return;
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        for flight in self.flights.get_mut().drain(..) {
            let what = "the channel was dropped while the call waited for a provider";
            flight.finish(Err(RpcError::new(ErrorCode::CONNECTION_FAILED, what)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::time::{Duration, Instant};

    use super::super::flight::Plan;
    use super::super::options::Readiness;
    use super::*;
    use crate::wire::Limits;
    use crate::{Execution, MethodDescriptor};

    static METHOD: MethodDescriptor = MethodDescriptor {
        service: "test.Service",
        name: "Method",
        request_type: "test.Request",
        response_type: "test.Response",
        execution: Execution::Inline,
        idempotent: false,
    };

    fn flight() -> Arc<Flight> {
        let started = Instant::now();
        Flight::new(Plan {
            method: &METHOD,
            started,
            deadline: started + Duration::from_secs(60),
            hash_key: None,
            idempotent: false,
            readiness: Readiness::WaitForReady,
            attempts_max: 1,
            limits: Limits::default(),
            interceptors: None,
            interceptors_passed: 0,
            backup_timer: None,
            fallback: None,
        })
    }

    /// The queue with `count` calls in it.
    fn waiting(count: usize) -> (Waiting, Vec<Arc<Flight>>) {
        let waiting = Waiting::default();
        let flights: Vec<_> = (0..count).map(|_| flight()).collect();
        for flight in &flights {
            assert!(waiting.push(flight, count));
        }
        (waiting, flights)
    }

    fn same(sent: &[Arc<Flight>], expected: &[Arc<Flight>]) -> bool {
        sent.len() == expected.len() && sent.iter().zip(expected).all(|(a, b)| Arc::ptr_eq(a, b))
    }

    #[test]
    fn calls_are_sent_in_their_order_as_long_as_somebody_takes_them() {
        let (waiting, flights) = waiting(3);
        let sent = RefCell::new(Vec::new());
        let send = |flight: &Arc<Flight>| {
            sent.borrow_mut().push(Arc::clone(flight));
            sent.borrow().len() != 2
        };
        waiting.serve(|| false, send);
        assert!(sent.borrow().is_empty());
        // The second is not taken, and stays before the third. Nothing has changed: it is not tried again.
        waiting.serve(|| true, send);
        assert!(same(&sent.borrow(), &flights[..2]));
        waiting.serve(|| true, send);
        assert!(same(&sent.borrow()[2..], &flights[1..]));
    }

    #[test]
    fn a_provider_that_becomes_ready_while_another_fails_gets_the_call() {
        let (waiting, flights) = waiting(1);
        let (sent, is_second_ready) = (RefCell::new(Vec::new()), Cell::new(false));
        let send = |flight: &Arc<Flight>| {
            if is_second_ready.get() {
                sent.borrow_mut().push(Arc::clone(flight));
                return true;
            }
            // The first has been asked in vain when the second, on another thread, becomes ready and looks.
            is_second_ready.set(true);
            waiting.changed();
            waiting.serve(|| true, |_| panic!("the call is out of the queue"));
            false
        };
        waiting.serve(|| true, send);
        assert!(same(&sent.borrow(), &flights));
    }

    #[test]
    fn no_more_wait_than_may_and_ended_ones_do_not_count() {
        let (waiting, flights) = waiting(2);
        let late = flight();
        assert!(!waiting.push(&late, 2));
        flights[0].finish(Err(RpcError::internal("ended")));
        assert!(waiting.push(&late, 2));
        waiting.remove(&flights[1]);
        let sent = RefCell::new(Vec::new());
        let send = |flight: &Arc<Flight>| {
            sent.borrow_mut().push(Arc::clone(flight));
            true
        };
        waiting.serve(|| true, send);
        assert!(same(&sent.borrow(), &[late]));
    }
}
