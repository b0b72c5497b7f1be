//! One watch's function, called with what is new to it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::Mutex;

use super::Provider;

/// A watch's function, of a list of `T`.
type OnList<T> = Box<dyn Fn(&[T]) + Send + Sync>;

/// Remembers what its function was told last, so that it is called only for changes, in order, and
/// never twice at once; and without a lock held, so that it may use the registry.
///
/// `T` is what the list is of: providers, or the names of services.
pub(super) struct Observer<T> {
    on_change: OnList<T>,
    inner: Mutex<Inner<T>>,
}

struct Inner<T> {
    /// What is known.
    latest: Option<Arc<[T]>>,
    /// What the function was told.
    told: Option<Arc<[T]>>,
    telling: bool,
    ended: bool,
}

impl Observer<Provider> {
    /// Notes what is known now, in any order. Calls nothing; [`tell`](Self::tell) does.
    pub(super) fn note(&self, providers: impl IntoIterator<Item = Provider>) {
        let mut providers: Vec<Provider> = providers.into_iter().collect();
        providers.sort();
        providers.dedup_by_key(|provider| provider.address);
        self.inner.lock().latest = Some(providers.into());
    }
}

impl Observer<String> {
    /// Notes the names that are known now, in any order. Calls nothing; [`tell`](Self::tell) does.
    pub(super) fn note_names(&self, names: impl IntoIterator<Item = String>) {
        let mut names: Vec<String> = names.into_iter().collect();
        names.sort();
        names.dedup();
        self.inner.lock().latest = Some(names.into());
    }
}

impl<T: PartialEq> Observer<T> {
    pub(super) fn new(on_change: OnList<T>) -> Self {
        Self {
            on_change,
            inner: Mutex::new(Inner {
                latest: None,
                told: None,
                telling: false,
                ended: false,
            }),
        }
    }

    /// Calls the function if there is something it was not told. If another thread, or a caller of
    /// this one, is just calling it, the news is left to that call.
    pub(super) fn tell(&self) {
        let mut inner = self.inner.lock();
        if inner.telling {
            return;
        }
        while !inner.ended && inner.latest != inner.told {
            let Some(news) = inner.latest.clone() else {
                return;
            };
            inner.told = Some(Arc::clone(&news));
            inner.telling = true;
            drop(inner);
            // A panic must take down neither a registry's thread nor the other watches.
            if catch_unwind(AssertUnwindSafe(|| (self.on_change)(&news))).is_err() {
                log::error!("a registry watch panicked");
            }
            inner = self.inner.lock();
            inner.telling = false;
        }
    }

    /// No further call begins.
    pub(super) fn end(&self) {
        self.inner.lock().ended = true;
    }
}
