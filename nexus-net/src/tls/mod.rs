//! TLS as a layer under the same handler, with rustls. Feature `tls`.
//!
//! A [`Session`] sits between a connection's buffers and its socket; handlers see plain bytes only:
//!
//! ```text
//!   Handler::data ◄── plain ── Session ◄── cipher ── scratch ◄── socket
//!   Connection::write ─ plain ─► Output ──► Session ── cipher ──► socket
//! ```
//!
//! The configuration is rustls's own; [`PemFiles`] and [`ClientPemFiles`] make the usual ones.

mod pem;
mod session;

use std::sync::Arc;

use parking_lot::RwLock;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, Connection, ServerConfig};

pub use self::pem::{ClientPemFiles, PemFiles};
pub(crate) use self::session::Session;
use crate::Error;

/// TLS on a server's side. Cheap to clone; clones share what is [replaced](Self::replace).
#[derive(Debug, Clone)]
pub struct ServerTls {
    config: Arc<RwLock<Arc<ServerConfig>>>,
}

impl ServerTls {
    /// From a configuration of rustls.
    pub fn new(config: Arc<ServerConfig>) -> Self {
        Self {
            config: Arc::new(RwLock::new(config)),
        }
    }

    /// Reads certificates and key from files.
    ///
    /// # Errors
    /// [`Error::Tls`], with the file's name.
    pub fn from_pem(files: &PemFiles) -> Result<Self, Error> {
        Ok(Self::new(files.server_config()?))
    }

    /// Has connections accepted from now on use another configuration; those that exist keep
    /// theirs. From any thread.
    pub fn replace(&self, config: Arc<ServerConfig>) {
        *self.config.write() = config;
    }

    /// Reads the files again, for certificates that were renewed. From any thread; reads files, so
    /// not for a loop's. What is in use stays when a file cannot be used.
    ///
    /// # Errors
    /// [`Error::Tls`], with the file's name.
    pub fn reload(&self, files: &PemFiles) -> Result<(), Error> {
        self.replace(files.server_config()?);
        Ok(())
    }

    pub(crate) fn session(&self) -> Result<Session, rustls::Error> {
        let config = Arc::clone(&self.config.read());
        rustls::ServerConnection::new(config).map(|server| Session::new(server.into()))
    }
}

/// TLS on a client's side. Cheap to clone; clones share what is [replaced](Self::replace).
#[derive(Debug, Clone)]
pub struct ClientTls {
    config: Arc<RwLock<Arc<ClientConfig>>>,
    server_name: ServerName<'static>,
}

impl ClientTls {
    /// From a configuration of rustls, for a server whose certificate is for `server_name` (a DNS
    /// name or an IP address).
    ///
    /// # Errors
    /// [`Error::Tls`] for a name that is neither.
    pub fn new(config: Arc<ClientConfig>, server_name: &str) -> Result<Self, Error> {
        let server_name = ServerName::try_from(server_name.to_owned())
            .map_err(|error| Error::tls(format!("server name {server_name:?}"), error))?;
        Ok(Self {
            config: Arc::new(RwLock::new(config)),
            server_name,
        })
    }

    /// Reads trusted roots, and the client's own certificate if it has one, from files.
    ///
    /// # Errors
    /// [`Error::Tls`], with the file's name.
    pub fn from_pem(files: &ClientPemFiles, server_name: &str) -> Result<Self, Error> {
        Self::new(files.client_config()?, server_name)
    }

    /// Has connections made from now on use another configuration; those that exist keep theirs.
    /// From any thread.
    pub fn replace(&self, config: Arc<ClientConfig>) {
        *self.config.write() = config;
    }

    /// Reads the files again, for roots that changed or an own certificate that was renewed. From any
    /// thread; reads files, so not for a loop's. What is in use stays when a file cannot be used.
    ///
    /// # Errors
    /// [`Error::Tls`], with the file's name.
    pub fn reload(&self, files: &ClientPemFiles) -> Result<(), Error> {
        self.replace(files.client_config()?);
        Ok(())
    }

    pub(crate) fn session(&self) -> Result<Session, rustls::Error> {
        let config = Arc::clone(&self.config.read());
        rustls::ClientConnection::new(config, self.server_name.clone())
            .map(|client| Session::new(client.into()))
    }
}

/// What the handshake of a connection agreed on. From [`Connection::tls`](crate::Connection::tls).
#[derive(Debug, Clone, Copy)]
pub struct TlsInfo<'a> {
    pub(crate) connection: &'a Connection,
}

impl<'a> TlsInfo<'a> {
    /// The application protocol agreed on (ALPN, RFC 7301).
    pub fn alpn(&self) -> Option<&'a [u8]> {
        self.connection.alpn_protocol()
    }

    /// The peer's certificates, its own first. On a server `None` unless a client certificate was
    /// asked for and given.
    pub fn peer_certificates(&self) -> Option<&'a [CertificateDer<'static>]> {
        self.connection.peer_certificates()
    }

    /// The host name that the client asked for (SNI, RFC 6066). `None` on a client.
    pub fn server_name(&self) -> Option<&'a str> {
        match self.connection {
            Connection::Server(server) => server.server_name(),
            Connection::Client(_) => None,
        }
    }

    /// The version of TLS.
    pub fn version(&self) -> Option<rustls::ProtocolVersion> {
        self.connection.protocol_version()
    }
}
