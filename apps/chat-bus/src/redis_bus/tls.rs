//! [`RedisTls`]: how Redis is known, and who the bus is.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use redis::{ClientTlsConfig, TlsCertificates};

/// What TLS with Redis needs, from files in PEM. Clones share what is [read again](Self::reload).
#[derive(Clone)]
pub struct RedisTls {
    ca: PathBuf,
    identity: Option<(PathBuf, PathBuf)>,
    certificates: Arc<RwLock<TlsCertificates>>,
}

impl RedisTls {
    /// Trusts certificates that are signed by one of those in `ca`, and shows those of `identity` (certificate,
    /// key) if Redis asks.
    ///
    /// # Errors
    /// Which file cannot be read.
    pub fn from_pem(ca: PathBuf, identity: Option<(PathBuf, PathBuf)>) -> Result<Self, String> {
        let certificates = read_all(&ca, identity.as_ref())?;
        Ok(Self {
            ca,
            identity,
            certificates: Arc::new(RwLock::new(certificates)),
        })
    }

    /// Reads the files again, for connections made from now on. From any thread.
    ///
    /// # Errors
    /// Which file cannot be read; then nothing has changed.
    pub fn reload(&self) -> Result<(), String> {
        *self.certificates.write() = read_all(&self.ca, self.identity.as_ref())?;
        Ok(())
    }

    pub(super) fn certificates(&self) -> TlsCertificates {
        self.certificates.read().clone()
    }
}

impl fmt::Debug for RedisTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisTls")
            .field("ca", &self.ca)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

fn read_all(ca: &Path, identity: Option<&(PathBuf, PathBuf)>) -> Result<TlsCertificates, String> {
    let client_tls = match identity {
        None => None,
        Some((certificate, key)) => Some(ClientTlsConfig {
            client_cert: read(certificate)?,
            client_key: read(key)?,
        }),
    };
    Ok(TlsCertificates {
        client_tls,
        root_cert: Some(read(ca)?),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}
