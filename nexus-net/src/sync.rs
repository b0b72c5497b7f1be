//! The locks and atomics of what is proven with loom.
//!
//! The models in `tests/` compile the same source files with a module of this name that has loom's.

pub(crate) use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) use parking_lot::{Mutex, MutexGuard};
