//! TLS to providers, for their calls and for their pages.
//!
//! Both are reached at an address and known by a name. A channel of nexus-rpc is told the two apart; ureq takes
//! the name from the URL, so it is given a resolver that finds the address whatever the name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use nexus_net::{ClientPemFiles, ClientTls};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::http::uri::InvalidUri;
use ureq::tls::{
    Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, TlsProvider, parse_pem,
};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use crate::args::TlsFiles;
use crate::failure::Failure;
use crate::target::read_file;

/// What TLS is spoken with.
pub(crate) struct Tls {
    /// For a channel.
    pub(crate) calls: ClientTls,
    /// The same, for a handshake of our own.
    config: Arc<ClientConfig>,
    server_name: ServerName<'static>,
    /// As it stands in a URL.
    name: String,
    roots: RootCerts,
    identity: Option<ClientCert>,
}

impl Tls {
    /// As the command line says; `None` when it says nothing of TLS.
    pub(crate) fn of(files: &TlsFiles) -> Result<Option<Self>, Failure> {
        let TlsFiles {
            tls_ca,
            tls_name,
            tls_cert,
            tls_key,
        } = files;
        let any = tls_name.is_some() || tls_cert.is_some() || tls_key.is_some();
        let (ca, name) = match (tls_ca, tls_name) {
            (Some(ca), Some(name)) => (ca, name),
            (None, None) if !any => return Ok(None),
            _ => {
                return Err(Failure::new(
                    "TLS needs to know whom to trust and who the providers are",
                    "give both --tls-ca FILE and --tls-name NAME",
                ));
            }
        };
        let identity = match (tls_cert, tls_key) {
            (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
            (None, None) => None,
            _ => {
                return Err(Failure::new(
                    "a certificate is of no use without its key",
                    "give both --tls-cert FILE and --tls-key FILE, or neither",
                ));
            }
        };
        let pem = ClientPemFiles {
            roots: ca.clone(),
            identity: identity.clone(),
            ..ClientPemFiles::default()
        };
        let unusable = |error: String| {
            Failure::new(
                error,
                "check --tls-ca, --tls-cert and --tls-key (PEM files) and --tls-name (a DNS name or an IP address)",
            )
        };
        let config = pem
            .client_config()
            .map_err(|error| unusable(error.to_string()))?;
        let calls = ClientTls::new(Arc::clone(&config), name)
            .map_err(|error| unusable(error.to_string()))?;
        let server_name = ServerName::try_from(name.clone())
            .map_err(|error| unusable(format!("{name}: {error}")))?;
        Ok(Some(Self {
            calls,
            config,
            server_name,
            name: match name.contains(':') {
                true => format!("[{name}]"),
                false => name.clone(),
            },
            roots: RootCerts::new_with_certs(&certificates(ca)?),
            identity: identity.as_ref().map(client_certificate).transpose()?,
        }))
    }

    /// The URL of a page, and who fetches it from the provider at `address`.
    pub(crate) fn agent(
        &self,
        config: Config,
        address: &str,
        page: &str,
    ) -> Result<(ureq::Agent, String), InvalidUri> {
        let at: Uri = format!("https://{address}/").parse()?;
        let port = at.port_u16().unwrap_or(443);
        let url = format!("https://{}:{port}{page}", self.name);
        let agent = ureq::Agent::with_parts(config, DefaultConnector::default(), Always(at));
        Ok((agent, url))
    }

    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }

    pub(crate) fn server_name(&self) -> ServerName<'static> {
        self.server_name.clone()
    }

    /// Whether this side has a certificate, should it be asked for one.
    pub(crate) fn shows_certificate(&self) -> bool {
        self.identity.is_some()
    }

    /// For an agent.
    pub(crate) fn for_pages(&self) -> TlsConfig {
        TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(self.roots.clone())
            .client_cert(self.identity.clone())
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build()
    }
}

/// Finds this host, whoever is asked for.
#[derive(Debug)]
struct Always(Uri);

impl Resolver for Always {
    fn resolve(
        &self,
        _uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        DefaultResolver::default().resolve(&self.0, config, timeout)
    }
}

fn client_certificate((cert, key): &(PathBuf, PathBuf)) -> Result<ClientCert, Failure> {
    let bytes = read_file(key)?;
    let key = PrivateKey::from_pem(&bytes).map_err(|error| unreadable(key, &error))?;
    Ok(ClientCert::new_with_certs(&certificates(cert)?, key))
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, Failure> {
    let bytes = read_file(path)?;
    let items: Result<Vec<_>, _> = parse_pem(&bytes).collect();
    let items = items.map_err(|error| unreadable(path, &error))?;
    let certificates = items.into_iter().filter_map(|item| match item {
        PemItem::Certificate(certificate) => Some(certificate),
        _ => None,
    });
    Ok(certificates.collect())
}

fn unreadable(path: &Path, error: &ureq::Error) -> Failure {
    Failure::new(
        format!("{}: {error}", path.display()),
        "give a file in PEM form (-----BEGIN ...)",
    )
}
