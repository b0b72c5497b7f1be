//! Registries by url.

use std::io;
use std::sync::Arc;

use super::{Registry, StaticRegistry, ZooKeeperOptions, ZooKeeperRegistry};

/// A registry's url is not understood. The configuration's fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryUrlError {
    /// There is no such kind of registry.
    #[error(
        "{url:?} is neither zookeeper://host:port,host:port/root nor list://host:port,host:port"
    )]
    UnknownScheme {
        /// The whole url.
        url: String,
    },
    /// An address is missing, malformed or cannot be looked up.
    #[error("{address:?} is not a usable host:port: {source}")]
    BadAddress {
        /// The address.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// ZooKeeper's root is not a path: it begins with a slash, does not end with one, and has no empty,
    /// `.` or `..` part.
    #[error("{root:?} is not a path of ZooKeeper")]
    BadRoot {
        /// The root.
        root: String,
    },
}

/// Opens the registry that a url names:
///
/// - `zookeeper://host:port,host:port/root`, with the defaults of [`ZooKeeperOptions`]; the root
///   is `/nexus` when the url has none. Returns at once and connects in the background.
/// - `list://host:port,host:port`: always the same providers.
///
/// # Errors
/// [`RegistryUrlError`]; never because a server cannot be reached.
pub fn open(url: &str) -> Result<Arc<dyn Registry>, RegistryUrlError> {
    if let Some(servers) = url.strip_prefix("zookeeper://") {
        let options = ZooKeeperOptions::parse(servers)?;
        return Ok(Arc::new(ZooKeeperRegistry::open(options)?));
    }
    if let Some(list) = url.strip_prefix("list://") {
        return Ok(Arc::new(StaticRegistry::parse(list)?));
    }
    let url = url.to_owned();
    Err(RegistryUrlError::UnknownScheme { url })
}
