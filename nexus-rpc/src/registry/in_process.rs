//! A registry inside the process: for provider and caller that run together, and for tests.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use super::observer::Observer;
use super::{
    MethodInfo, OnChange, Provider, Registration, RegistrationStatus, Registry, RegistryState,
    Watch,
};

/// Shared by all its clones and by nobody else. Changes are told on the thread that makes them.
#[derive(Clone, Default)]
pub struct InProcessRegistry {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    services: HashMap<String, Service>,
    last_id: u64,
}

#[derive(Default)]
struct Service {
    providers: HashMap<SocketAddr, Registered>,
    observers: HashMap<u64, Arc<Observer>>,
}

struct Registered {
    id: u64,
    provider: Provider,
    status: RegistrationStatus,
}

impl InProcessRegistry {
    /// A registry that knows nobody yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn deregister(&self, service: &str, address: SocketAddr, id: u64) {
        let observers = {
            let mut inner = self.inner.lock();
            let Some(service) = inner.services.get_mut(service) else {
                return;
            };
            // Another registration may have taken the place in the meantime.
            match service.providers.get(&address) {
                Some(registered) if registered.id == id => {}
                _ => return,
            }
            if let Some(registered) = service.providers.remove(&address) {
                registered.status.gone();
            }
            service.note()
        };
        tell(&observers);
    }

    fn unwatch(&self, service: &str, id: u64) {
        let mut inner = self.inner.lock();
        if let Some(observed) = inner.services.get_mut(service) {
            observed.observers.remove(&id);
            if observed.observers.is_empty() && observed.providers.is_empty() {
                inner.services.remove(service);
            }
        }
    }
}

impl Registry for InProcessRegistry {
    fn register(&self, service: &str, _: &[MethodInfo], provider: &Provider) -> Registration {
        let (registration, observers) = {
            let mut inner = self.inner.lock();
            let id = inner.next_id();
            let (registry, name, address) = (self.clone(), service.to_owned(), provider.address);
            let (registration, status) =
                Registration::new(move |_| registry.deregister(&name, address, id));
            let service = inner.services.entry(service.to_owned()).or_default();
            status.registered();
            let registered = Registered {
                id,
                provider: provider.clone(),
                status,
            };
            if let Some(replaced) = service.providers.insert(address, registered) {
                replaced.status.gone();
            }
            (registration, service.note())
        };
        tell(&observers);
        registration
    }

    fn watch(&self, service: &str, on_change: OnChange) -> Watch {
        let observer = Arc::new(Observer::new(on_change));
        let id = {
            let mut inner = self.inner.lock();
            let id = inner.next_id();
            let service = inner.services.entry(service.to_owned()).or_default();
            service.observers.insert(id, Arc::clone(&observer));
            observer.note(
                service
                    .providers
                    .values()
                    .map(|known| known.provider.clone()),
            );
            id
        };
        observer.tell();
        let (registry, service) = (self.clone(), service.to_owned());
        Watch::new(move || {
            observer.end();
            registry.unwatch(&service, id);
        })
    }

    fn state(&self) -> RegistryState {
        RegistryState::Connected
    }
}

impl Inner {
    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}

impl Service {
    /// Notes the present providers with every observer. Under the lock, so that observers get
    /// the changes in their order; telling comes after it, so that they may use the registry.
    fn note(&self) -> Vec<Arc<Observer>> {
        for observer in self.observers.values() {
            observer.note(self.providers.values().map(|known| known.provider.clone()));
        }
        self.observers.values().cloned().collect()
    }
}

fn tell(observers: &[Arc<Observer>]) {
    for observer in observers {
        observer.tell();
    }
}
