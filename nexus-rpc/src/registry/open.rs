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
        /// The url, [without its credentials](redacted).
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
    /// What stands before the `@` is not `user:password`, or contains what must be percent-encoded. It is
    /// not shown, as a password may be in it.
    #[error(
        "the credentials before the @ are not user:password, both given and percent-encoded \
         (% as %25, / as %2F, : as %3A, @ as %40)"
    )]
    BadCredentials,
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
/// - `zookeeper://user:password@host:port,host:port/root`, with the defaults of [`ZooKeeperOptions`].
///   Without credentials the client is nobody; see
///   [`ZooKeeperCredentials`](super::ZooKeeperCredentials). The root is `/nexus` when the url has none.
///   Returns at once and connects in the background.
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
    let url = redacted(url);
    Err(RegistryUrlError::UnknownScheme { url })
}

/// The url as it may be shown: `***` in place of what stands before an `@`.
pub fn redacted(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    match rest.rsplit_once('@') {
        Some((_, rest)) if scheme.is_empty() => format!("***@{rest}"),
        Some((_, rest)) => format!("{scheme}://***@{rest}"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_shown() {
        for (url, shown) in [
            ("zookeeper://u:p@a:1/x", "zookeeper://***@a:1/x"),
            ("zookeeper://u:p/q@r@a:1", "zookeeper://***@a:1"),
            ("zookeeper:/u:p@a:1", "***@a:1"),
            ("list://a:1,b:2", "list://a:1,b:2"),
        ] {
            assert_eq!(redacted(url), shown);
        }
        let error = open("zk://user:secret@a:1")
            .err()
            .expect("an unknown scheme");
        assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
    }

    #[test]
    fn a_list_that_names_an_address_twice_has_it_once() {
        let registry = open("list://127.0.0.1:80, 127.0.0.1:81,127.0.0.1:80").expect("a list");
        let (sender, receiver) = std::sync::mpsc::channel();
        let _watch = registry.watch(
            "test.Service",
            Box::new(move |list| {
                let ports = list.iter().map(|provider| provider.address.port());
                let _ = sender.send(ports.collect::<Vec<_>>());
            }),
        );
        assert_eq!(receiver.recv().expect("the list"), [80, 81]);
    }
}
