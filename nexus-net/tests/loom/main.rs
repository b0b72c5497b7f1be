//! What threads share, run by loom through the orders in which their steps can happen.
//!
//! The library's own source files are compiled here a second time, with loom's locks and atomics for
//! the library's. A step is whatever one of those does; between steps loom switches threads, and a
//! relaxed load returns each value that the memory model allows.

#[path = "../../src/mailbox.rs"]
#[allow(dead_code, unreachable_pub)]
mod mailbox;
mod mailbox_model;
mod sync;
#[path = "../../src/wake_queue.rs"]
mod wake_queue;
mod wake_queue_model;

// What the mailbox wakes.
use mailbox_model::ConnHandle;

/// Checks `model` in every order of its steps, or, with a limit, in those that take a thread off the
/// processor at most so many times while it could go on.
fn check(preemptions_max: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions_max;
    builder.check(model);
}
