//! A registry inside the process: for provider and caller that run together, and for tests.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use super::observer::Observer;
use super::{
    MethodInfo, OnChange, OnServices, Provider, Registration, RegistrationStatus, Registry,
    RegistryState, Watch,
};

/// Shared by all its clones and by nobody else. Changes are told on the thread that makes them.
#[derive(Clone, Default)]
pub struct InProcessRegistry {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    services: HashMap<String, Service>,
    /// Of the services' names.
    observers: HashMap<u64, Arc<Observer<String>>>,
    last_id: u64,
}

#[derive(Default)]
struct Service {
    providers: HashMap<SocketAddr, Registered>,
    observers: HashMap<u64, Arc<Observer<Provider>>>,
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
        let noted = {
            let mut inner = self.inner.lock();
            let Some(changed) = inner.services.get_mut(service) else {
                return;
            };
            // Another registration may have taken the place in the meantime.
            match changed.providers.get(&address) {
                Some(registered) if registered.id == id => {}
                _ => return,
            }
            if let Some(registered) = changed.providers.remove(&address) {
                registered.status.gone();
            }
            inner.note(service)
        };
        noted.tell();
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
        let (registration, noted) = {
            let mut inner = self.inner.lock();
            let id = inner.next_id();
            let (registry, name, address) = (self.clone(), service.to_owned(), provider.address);
            let (registration, status) =
                Registration::new(move |_| registry.deregister(&name, address, id));
            let changed = inner.services.entry(service.to_owned()).or_default();
            status.registered();
            let registered = Registered {
                id,
                provider: provider.clone(),
                status,
            };
            if let Some(replaced) = changed.providers.insert(address, registered) {
                replaced.status.gone();
            }
            (registration, inner.note(service))
        };
        noted.tell();
        registration
    }

    fn watch(&self, service: &str, on_change: OnChange) -> Watch {
        let observer = Arc::new(Observer::new(on_change));
        let id = {
            let mut inner = self.inner.lock();
            let id = inner.next_id();
            let service = inner.services.entry(service.to_owned()).or_default();
            service.observers.insert(id, Arc::clone(&observer));
            observer.note(service.providers());
            id
        };
        observer.tell();
        let (registry, service) = (self.clone(), service.to_owned());
        Watch::new(move || {
            observer.end();
            registry.unwatch(&service, id);
        })
    }

    fn watch_services(&self, on_change: OnServices) -> Watch {
        let observer = Arc::new(Observer::new(on_change));
        let id = {
            let mut inner = self.inner.lock();
            let id = inner.next_id();
            inner.observers.insert(id, Arc::clone(&observer));
            observer.note_names(inner.names());
            id
        };
        observer.tell();
        let registry = self.clone();
        Watch::new(move || {
            observer.end();
            registry.inner.lock().observers.remove(&id);
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

    /// The services that have a provider.
    fn names(&self) -> impl Iterator<Item = String> {
        let served = |(_, service): &(&String, &Service)| !service.providers.is_empty();
        self.services
            .iter()
            .filter(served)
            .map(|(name, _)| name.clone())
    }

    /// Notes a service's present providers, and the names, with every observer. Under the lock, so
    /// that observers get the changes in their order.
    fn note(&self, service: &str) -> Noted {
        for observer in self.observers.values() {
            observer.note_names(self.names());
        }
        let mut of_providers = Vec::new();
        if let Some(service) = self.services.get(service) {
            for observer in service.observers.values() {
                observer.note(service.providers());
            }
            of_providers.extend(service.observers.values().cloned());
        }
        Noted {
            of_providers,
            of_names: self.observers.values().cloned().collect(),
        }
    }
}

impl Service {
    fn providers(&self) -> impl Iterator<Item = Provider> {
        self.providers.values().map(|known| known.provider.clone())
    }
}

/// Who has news to be told, once the lock is given back: they may use the registry.
struct Noted {
    of_providers: Vec<Arc<Observer<Provider>>>,
    of_names: Vec<Arc<Observer<String>>>,
}

impl Noted {
    fn tell(&self) {
        for observer in &self.of_providers {
            observer.tell();
        }
        for observer in &self.of_names {
            observer.tell();
        }
    }
}
