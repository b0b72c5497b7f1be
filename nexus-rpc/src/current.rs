//! What the calls that a handler makes inherit from the call it serves: the deadline and the trace.
//!
//! While a handler runs, its thread holds it; a call made on that thread looks here. Work that a handler
//! hands to another thread takes it along as a [`CallScope`].

use std::cell::RefCell;
use std::marker::PhantomData;
use std::time::Instant;

use crate::TraceContext;

thread_local! {
    static CURRENT: RefCell<Option<Inherited>> = const { RefCell::new(None) };
}

/// What a call hands down to those made on its behalf.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inherited {
    /// When the caller stops waiting; nothing done for it later is of use.
    pub(crate) deadline: Option<Instant>,
    /// As the call brought it; what is made on its behalf carries a child.
    pub(crate) trace: Option<TraceContext>,
}

/// What this thread's calls inherit; `None` when it serves no call.
pub(crate) fn inherited() -> Option<Inherited> {
    CURRENT.with_borrow(Clone::clone)
}

/// Deadline and trace of a call that is being served, to be taken to other threads. Made by
/// [`CallContext::scope`](crate::CallContext::scope).
#[derive(Clone, Debug)]
pub struct CallScope(Inherited);

impl CallScope {
    pub(crate) fn new(deadline: Option<Instant>, trace: Option<TraceContext>) -> Self {
        Self(Inherited { deadline, trace })
    }

    /// Has calls made on this thread inherit deadline and trace, until the returned value is dropped.
    pub fn enter(&self) -> Entered {
        let before = CURRENT.with_borrow_mut(|current| current.replace(self.0.clone()));
        Entered {
            before,
            stays_on_its_thread: PhantomData,
        }
    }

    /// Runs `work` with its calls inheriting deadline and trace.
    pub fn run<R>(&self, work: impl FnOnce() -> R) -> R {
        let _entered = self.enter();
        work()
    }
}

/// While it lives, calls made on its thread inherit from a call that is being served. Dropped, what was
/// there before holds again; drop several in the opposite order of entering.
#[must_use = "dropped at once, it has no effect"]
#[derive(Debug)]
pub struct Entered {
    before: Option<Inherited>,
    stays_on_its_thread: PhantomData<*const ()>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let before = self.before.take();
        // A thread that ends may have lost it already, and makes no calls any more.
        let _ = CURRENT.try_with(|current| current.replace(before));
    }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    fn scope() -> CallScope {
        CallScope::new(Some(Instant::now()), Some(TraceContext::new_root()))
    }

    #[test]
    fn a_scope_holds_until_it_is_left_and_gives_back_what_was_before() {
        let (outer, inner) = (scope(), scope());
        assert_eq!(inherited(), None);
        outer.run(|| {
            assert_eq!(inherited().as_ref(), Some(&outer.0));
            inner.run(|| assert_eq!(inherited().as_ref(), Some(&inner.0)));
            assert_eq!(inherited().as_ref(), Some(&outer.0));
        });
        assert_eq!(inherited(), None);
    }

    #[test]
    fn a_panic_leaves_the_scope_too() {
        assert!(catch_unwind(|| scope().run(|| panic!("asked to"))).is_err());
        assert_eq!(inherited(), None);
    }

    #[test]
    fn another_thread_inherits_only_what_it_enters() {
        let scope = scope();
        scope.run(|| {
            let taken = scope.clone();
            std::thread::scope(|threads| {
                threads.spawn(|| {
                    assert_eq!(inherited(), None);
                    taken.run(|| assert_eq!(inherited().as_ref(), Some(&scope.0)));
                });
            });
        });
    }
}
