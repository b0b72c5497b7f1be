//! The handles that keep a registration and a watch alive.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

type Release<A> = Box<dyn FnOnce(A) + Send + Sync>;

/// Keeps a provider registered. Dropping it takes the provider out of the registry, without waiting
/// for that; [`deregister`](Self::deregister) waits.
#[must_use = "dropping it deregisters the provider"]
pub struct Registration {
    shared: Arc<Shared>,
    release: Option<Release<RegistrationStatus>>,
}

impl Registration {
    /// For implementations of [`Registry`](super::Registry): the handle, and what the registry
    /// reports through it. `release` is called once, when the handle is given up, and sees to it
    /// that [`RegistrationStatus::gone`] is reported in the end.
    pub fn new(
        release: impl FnOnce(&RegistrationStatus) + Send + Sync + 'static,
    ) -> (Self, RegistrationStatus) {
        let shared = Arc::new(Shared {
            phase: Mutex::new(Phase::Pending),
            changed: Condvar::new(),
        });
        let status = RegistrationStatus(Arc::clone(&shared));
        let release: Release<RegistrationStatus> = Box::new(move |status| release(&status));
        let release = Some(release);
        (Self { shared, release }, status)
    }

    /// Whether the registry has the provider, as far as is known. While the registry is away it is
    /// not known, and this is false.
    pub fn is_registered(&self) -> bool {
        *self.shared.phase.lock() == Phase::Registered
    }

    /// Waits until the registry has the provider; false when the deadline passes before.
    pub fn wait_registered(&self, deadline: Instant) -> bool {
        self.shared.wait(Phase::Registered, deadline)
    }

    /// Takes the provider out of the registry and waits until that is done; false when the deadline
    /// passes before, as it does when the registry is away. It goes on being tried then, and the
    /// registry forgets the provider by itself when the session that registered it expires.
    pub fn deregister(mut self, deadline: Instant) -> bool {
        self.release();
        self.shared.wait(Phase::Gone, deadline)
    }

    fn release(&mut self) {
        if let Some(release) = self.release.take() {
            release(RegistrationStatus(Arc::clone(&self.shared)));
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.release();
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registration")
            .field(&*self.shared.phase.lock())
            .finish()
    }
}

/// The registry's end of a [`Registration`].
#[derive(Clone)]
pub struct RegistrationStatus(Arc<Shared>);

impl RegistrationStatus {
    /// The provider is not in the registry, or it is not known whether it is.
    pub fn pending(&self) {
        self.0.set(Phase::Pending);
    }

    /// The registry has the provider.
    pub fn registered(&self) {
        self.0.set(Phase::Registered);
    }

    /// The registration ended. Final.
    pub fn gone(&self) {
        self.0.set(Phase::Gone);
    }
}

impl fmt::Debug for RegistrationStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RegistrationStatus")
            .field(&*self.0.phase.lock())
            .finish()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Pending,
    Registered,
    Gone,
}

struct Shared {
    phase: Mutex<Phase>,
    changed: Condvar,
}

impl Shared {
    fn set(&self, new: Phase) {
        let mut phase = self.phase.lock();
        if *phase != Phase::Gone {
            *phase = new;
            self.changed.notify_all();
        }
    }

    /// True when the phase is reached; false at the deadline, or when it can no longer be reached.
    fn wait(&self, wanted: Phase, deadline: Instant) -> bool {
        let mut phase = self.phase.lock();
        while *phase != wanted {
            if *phase == Phase::Gone || self.changed.wait_until(&mut phase, deadline).timed_out() {
                return *phase == wanted;
            }
        }
        true
    }
}

/// Keeps a watch alive. After it is dropped no new call of its function begins; one that runs on
/// another thread at that moment may still be finishing.
#[must_use = "dropping it ends the watch"]
pub struct Watch {
    release: Option<Release<()>>,
}

impl Watch {
    /// For implementations of [`Registry`](super::Registry): `release` is called once, when the
    /// watch is dropped.
    pub fn new(release: impl FnOnce() + Send + Sync + 'static) -> Self {
        let release: Release<()> = Box::new(move |()| release());
        let release = Some(release);
        Self { release }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(release) = self.release.take() {
            release(());
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}
