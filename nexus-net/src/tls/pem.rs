//! Configurations from PEM files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::Error;

/// A server's certificates and key.
#[derive(Debug, Clone, Default)]
pub struct PemFiles {
    /// The server's certificate, followed by those between it and the root.
    pub certificates: PathBuf,
    /// Its private key (PKCS#8, PKCS#1 or SEC1).
    pub key: PathBuf,
    /// When set, clients must show a certificate signed by one of these.
    pub client_roots: Option<PathBuf>,
    /// Application protocols offered, the preferred first (ALPN). Default: none.
    pub alpn: Vec<Vec<u8>>,
}

impl PemFiles {
    /// The configuration of rustls made from the files: TLS 1.2 and 1.3, rustls's default ciphers.
    ///
    /// # Errors
    /// [`Error::Tls`], with the file's name.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, Error> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::tls("protocol versions", error))?;
        let builder = match &self.client_roots {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let roots = Arc::new(roots(path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
                    .build()
                    .map_err(|error| Error::tls(name(path), error))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder
            .with_single_cert(certificates(&self.certificates)?, key(&self.key)?)
            .map_err(|error| Error::tls(name(&self.key), error))?;
        config.alpn_protocols = self.alpn.clone();
        Ok(Arc::new(config))
    }
}

/// What a client trusts, and who it is.
#[derive(Debug, Clone, Default)]
pub struct ClientPemFiles {
    /// The roots that servers' certificates must be signed by.
    pub roots: PathBuf,
    /// The client's own certificates and key, for servers that ask.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Application protocols offered, the preferred first (ALPN). Default: none.
    pub alpn: Vec<Vec<u8>>,
}

impl ClientPemFiles {
    /// The configuration of rustls made from the files: TLS 1.2 and 1.3, rustls's default ciphers.
    ///
    /// # Errors
    /// [`Error::Tls`], with the file's name.
    pub fn client_config(&self) -> Result<Arc<ClientConfig>, Error> {
        let roots = Arc::new(roots(&self.roots)?);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider())
            .build()
            .map_err(|error| Error::tls(name(&self.roots), error))?;
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::tls("protocol versions", error))?
            .with_webpki_verifier(verifier);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((certificates_path, key_path)) => builder
                .with_client_auth_cert(certificates(certificates_path)?, key(key_path)?)
                .map_err(|error| Error::tls(name(key_path), error))?,
        };
        config.alpn_protocols = self.alpn.clone();
        Ok(Arc::new(config))
    }
}

/// Named rather than taken from the process: another library's choice must not make ours fail.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| Error::tls(name(path), error))?;
    if found.is_empty() {
        return Err(Error::tls(name(path), "no certificate in it"));
    }
    Ok(found)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| Error::tls(name(path), error))
}

fn roots(path: &Path) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store
            .add(certificate)
            .map_err(|error| Error::tls(name(path), error))?;
    }
    Ok(store)
}

fn name(path: &Path) -> String {
    path.display().to_string()
}
