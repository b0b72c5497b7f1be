//! Who provides a service: providers [register](Registry::register), callers
//! [watch](Registry::watch).
//!
//! One small trait, [`Registry`], and three that implement it:
//!
//! | registry | for | url |
//! |---|---|---|
//! | [`ZooKeeperRegistry`] | a cluster | `zookeeper://user:password@host:port,host:port/root` |
//! | [`StaticRegistry`] | a list that never changes | `list://host:port,host:port` |
//! | [`InProcessRegistry`] | provider and caller in one process, and tests | |
//!
//! A registry is never needed for a call: what a watch said last stays valid while the registry is
//! away, and whoever was registered is registered again when it is back. So nothing here fails for
//! the reason that the registry is not there; [`Registry::state`] tells who wants to know.

mod handle;
mod in_process;
mod observer;
mod open;
mod provider;
mod static_list;
mod zookeeper;

pub use handle::{Registration, RegistrationStatus, Watch};
pub use in_process::InProcessRegistry;
pub use open::{RegistryUrlError, open, redacted};
pub use provider::{MethodInfo, NodeError, Provider};
pub use static_list::StaticRegistry;
pub use zookeeper::{ZooKeeperCredentials, ZooKeeperOptions, ZooKeeperRegistry};

/// What a [`Watch`] calls. It runs on a thread of the registry or of whoever caused the change: it
/// must not block, and must not wait for a registration of the same registry.
pub type OnChange = Box<dyn Fn(&[Provider]) + Send + Sync>;

/// What a [`Watch`] of the services' names calls. As [`OnChange`].
pub type OnServices = Box<dyn Fn(&[String]) + Send + Sync>;

/// Where providers make themselves known and callers find them. All methods may be called from any
/// thread, and none of them waits for a server.
pub trait Registry: Send + Sync + 'static {
    /// Makes `provider` known as one that serves `service`, until the [`Registration`] is dropped.
    ///
    /// It never fails because the registry is away: it is tried until it succeeds, and done again
    /// whenever the registry lost it. A service has one provider at an address: a later
    /// registration at the same address takes the place of the earlier, whose handle then does
    /// nothing any more.
    fn register(&self, service: &str, methods: &[MethodInfo], provider: &Provider) -> Registration;

    /// Calls `on_change` with the providers of `service`: once as soon as they are known, then at
    /// every change, until the [`Watch`] is dropped.
    ///
    /// The list is sorted by address, each address once; it is empty when there is no provider. Calls
    /// of one watch never overlap, changes that come while one runs are passed on together, and
    /// nothing is called when nothing changed.
    fn watch(&self, service: &str, on_change: OnChange) -> Watch;

    /// Calls `on_change` with the names of the services, as [`watch`](Self::watch) does with providers:
    /// once as soon as they are known, then at every change. For tools that show what there is.
    ///
    /// The list is sorted, each name once. Every service that has a provider is in it; one that had some
    /// may be. A list of addresses has no names to tell: its list is empty.
    fn watch_services(&self, on_change: OnServices) -> Watch;

    /// Whether the registry can be reached right now.
    fn state(&self) -> RegistryState;
}

/// Whether a registry can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistryState {
    /// Not yet since it was opened.
    Connecting,
    /// Yes: registrations and changes get through.
    Connected,
    /// It was, and is not now. The last known providers stay valid.
    Away,
}

impl RegistryState {
    /// Whether this is [`Connected`](Self::Connected).
    pub fn is_connected(self) -> bool {
        self == Self::Connected
    }
}
