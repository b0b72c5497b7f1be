//! A loop that sleeps on a waker, and threads that push and stop.
//!
//! A lost wake-up leaves the loop asleep when all others have ended, which loom reports as a deadlock.

// Not loom's: they only count, and nothing is decided by them.
use std::sync::atomic::AtomicUsize;

use loom::sync::{Arc, Condvar};
use loom::thread::{self, JoinHandle};

use crate::check;
use crate::sync::Ordering;
use crate::wake_queue::{Wake, WakeQueue};

/// An eventfd with its poll: a signal stays until somebody has slept on it.
#[derive(Default)]
struct Eventfd {
    signalled: loom::sync::Mutex<bool>,
    changed: Condvar,
    naps: AtomicUsize,
    writes: AtomicUsize,
}

impl Eventfd {
    fn sleep(&self) {
        let mut signalled = self.signalled.lock().unwrap();
        while !*signalled {
            signalled = self.changed.wait(signalled).unwrap();
        }
        *signalled = false;
    }
}

impl Wake for Arc<Eventfd> {
    fn wake(&self) {
        let writes = self.writes.fetch_add(1, Ordering::Relaxed) + 1;
        let naps = self.naps.load(Ordering::Relaxed);
        assert!(writes <= naps, "{writes} writes for {naps} times of sleep");
        *self.signalled.lock().unwrap() = true;
        self.changed.notify_one();
    }
}

/// An item: who pushed it, and how many that thread had pushed before.
type Item = (usize, usize);
type Queue = Arc<WakeQueue<Item, Arc<Eventfd>>>;

/// What ends a poll, apart from the waker.
#[derive(Clone, Copy, PartialEq)]
enum Poll {
    /// Nothing does.
    Waker,
    /// A socket or a timer was ready.
    Ready,
}

/// The loop's side, as `EventLoop` drives it.
struct Loop {
    queue: Queue,
    eventfd: Arc<Eventfd>,
    taken: Vec<Item>,
}

impl Loop {
    fn new() -> Self {
        let eventfd = Arc::new(Eventfd::default());
        Self {
            queue: Arc::new(WakeQueue::new(Arc::clone(&eventfd))),
            eventfd,
            taken: Vec::new(),
        }
    }

    fn turn(&mut self, poll: Poll) {
        // What it finds while it looks around nobody has to wake it for.
        if !self.queue.has_work() {
            self.eventfd.naps.fetch_add(1, Ordering::Relaxed);
            if self.queue.may_sleep() && poll == Poll::Waker {
                self.eventfd.sleep();
            }
            self.queue.woke();
        }
        let mut items = Vec::new();
        self.queue.take(&mut items);
        self.taken.append(&mut items);
    }

    fn turn_until_taken(&mut self, count: usize) {
        while self.taken.len() < count {
            self.turn(Poll::Waker);
        }
    }

    fn turn_until_stopped(&mut self) {
        while !self.queue.stopping() {
            self.turn(Poll::Waker);
        }
    }

    /// What has come of this thread's items, in order.
    fn of(&self, thread: usize) -> Vec<usize> {
        let items = self.taken.iter().filter(|item| item.0 == thread);
        items.map(|item| item.1).collect()
    }
}

/// Pushes items until one is refused; returns how many were accepted.
fn poster(queue: &Queue, thread: usize, count: usize) -> JoinHandle<usize> {
    let queue = Arc::clone(queue);
    thread::spawn(move || {
        let refused = (0..count).find(|&n| queue.push((thread, n)).is_err());
        if let Some(n) = refused {
            assert_eq!(queue.push((thread, n)), Err((thread, n)), "opened again");
        }
        refused.unwrap_or(count)
    })
}

fn stopper(queue: &Queue) -> JoinHandle<()> {
    let queue = Arc::clone(queue);
    thread::spawn(move || queue.stop())
}

fn numbers(count: usize) -> Vec<usize> {
    (0..count).collect()
}

#[test]
fn every_push_reaches_a_sleeping_loop() {
    check(None, || {
        let mut turns = Loop::new();
        let poster = poster(&turns.queue, 0, 2);
        turns.turn_until_taken(2);
        assert_eq!(turns.of(0), numbers(2));
        assert_eq!(poster.join().unwrap(), 2);
    });
}

#[test]
fn a_push_is_not_lost_to_a_poll_that_something_else_ended() {
    check(None, || {
        let mut turns = Loop::new();
        let poster = poster(&turns.queue, 0, 2);
        turns.turn(Poll::Ready);
        turns.turn_until_taken(2);
        assert_eq!(turns.of(0), numbers(2));
        assert_eq!(poster.join().unwrap(), 2);
    });
}

#[test]
fn two_threads_that_push_share_wake_ups_and_each_keep_their_order() {
    check(Some(3), || {
        let mut turns = Loop::new();
        let posters = [poster(&turns.queue, 0, 2), poster(&turns.queue, 1, 2)];
        turns.turn_until_taken(4);
        for (thread, poster) in posters.into_iter().enumerate() {
            assert_eq!(turns.of(thread), numbers(2));
            assert_eq!(poster.join().unwrap(), 2);
        }
    });
}

#[test]
fn a_stop_reaches_a_sleeping_loop() {
    check(None, || {
        let mut turns = Loop::new();
        let stopper = stopper(&turns.queue);
        turns.turn_until_stopped();
        stopper.join().unwrap();
    });
}

#[test]
fn a_closing_loop_gets_what_was_accepted_and_nothing_else_is() {
    check(Some(3), || {
        let mut turns = Loop::new();
        let poster = poster(&turns.queue, 0, 2);
        let stopper = stopper(&turns.queue);
        turns.turn_until_stopped();
        let last = turns.queue.close();
        turns.taken.extend(last);
        assert_eq!(turns.of(0), numbers(poster.join().unwrap()));
        assert_eq!(turns.queue.push((1, 0)), Err((1, 0)));
        assert_eq!(turns.queue.close(), []);
        stopper.join().unwrap();
    });
}

#[test]
fn pushes_to_a_loop_that_is_awake_cost_no_wake_up() {
    check(None, || {
        let mut turns = Loop::new();
        turns.turn(Poll::Ready);
        let posters = [poster(&turns.queue, 0, 1), poster(&turns.queue, 1, 1)];
        for poster in posters {
            assert_eq!(poster.join().unwrap(), 1);
        }
        assert_eq!(turns.eventfd.writes.load(Ordering::Relaxed), 0);
    });
}
