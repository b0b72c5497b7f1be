//! What concerns whole processes: descriptors, memory, and more connections than one process holds.
//!
//! Descriptors and memory are a process's own, so what is counted runs in a child: this binary again,
//! with one test selected and a role in its environment. The test itself is the parent, and tells its
//! children line by line what to do.

mod child;
mod leaks;
mod reserve;
mod roles;
mod stop;
mod storm;
#[allow(dead_code)] // Shared with the other tests; not all of it is needed here.
#[path = "../net/support.rs"]
mod support;
