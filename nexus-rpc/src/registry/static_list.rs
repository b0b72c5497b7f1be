//! A list of providers that never changes.

use std::net::{SocketAddr, ToSocketAddrs};

use super::observer::Observer;
use super::{
    MethodInfo, OnChange, OnServices, Provider, Registration, RegistrationStatus, Registry,
    RegistryState, RegistryUrlError, Watch,
};

/// The same providers for every service, for as long as the process runs.
///
/// Registering changes nothing: who is in the list is in it already.
#[derive(Clone, Debug)]
pub struct StaticRegistry {
    providers: Vec<Provider>,
}

impl StaticRegistry {
    /// A registry of these providers.
    pub fn new(providers: impl IntoIterator<Item = Provider>) -> Self {
        let providers = providers.into_iter().collect();
        Self { providers }
    }

    /// The providers in `host:port,host:port`. Names are looked up once, here, and may stand for
    /// several addresses.
    ///
    /// # Errors
    /// [`RegistryUrlError::BadAddress`] for what is not an address or cannot be looked up.
    pub fn parse(list: &str) -> Result<Self, RegistryUrlError> {
        let mut addresses: Vec<SocketAddr> = Vec::new();
        for part in list.split(',').map(str::trim) {
            let found = part.to_socket_addrs().map_err(|source| {
                let address = part.to_owned();
                RegistryUrlError::BadAddress { address, source }
            })?;
            addresses.extend(found);
        }
        Ok(Self::new(addresses.into_iter().map(Provider::new)))
    }
}

impl Registry for StaticRegistry {
    fn register(&self, _: &str, _: &[MethodInfo], _: &Provider) -> Registration {
        let (registration, status) = Registration::new(RegistrationStatus::gone);
        status.registered();
        registration
    }

    fn watch(&self, _: &str, on_change: OnChange) -> Watch {
        let observer = Observer::new(on_change);
        observer.note(self.providers.iter().cloned());
        observer.tell();
        Watch::new(|| ())
    }

    fn watch_services(&self, on_change: OnServices) -> Watch {
        let observer = Observer::new(on_change);
        observer.note_names([]);
        observer.tell();
        Watch::new(|| ())
    }

    fn state(&self) -> RegistryState {
        RegistryState::Connected
    }
}
