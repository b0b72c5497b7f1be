//! [`RedisTls`]: how Redis is known, and who the bus is.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use redis::{Client, ClientTlsConfig, TlsCertificates};

/// An address for a look at certificates.
const ANY_URL: &str = "rediss://127.0.0.1";

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
    /// Which file cannot be read, or that they do not hold what they should.
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
    /// Which file cannot be read, or that they do not hold what they should; then nothing has changed.
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
    let certificates = TlsCertificates {
        client_tls,
        root_cert: Some(read(ca)?),
    };
    // Connects to nothing; says whether the files hold what they should.
    match Client::build_with_tls(ANY_URL, certificates.clone()) {
        Ok(_) => Ok(certificates),
        Err(error) => Err(format!(
            "{} and the certificate and key beside it: {error}",
            ca.display()
        )),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}
