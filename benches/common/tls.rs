//! Certificates for the load programs' TLS: files that are given, or a self-signed one made for a run.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use nexus_net::{ClientPemFiles, ClientTls, PemFiles};
use tempfile::TempDir;

use crate::BoxError;

/// Whom a certificate made here is for: what a client on this machine may call the server.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// A server's part of the command line.
#[derive(Debug, Clone, Default, Args)]
pub struct ServerTlsArgs {
    /// Serve under TLS
    #[arg(long)]
    pub tls: bool,
    /// The certificate (PEM) [default: self-signed for localhost, its path printed to stderr]
    #[arg(long, requires_all = ["tls", "key"], value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(long, requires_all = ["tls", "cert"], value_name = "FILE")]
    pub key: Option<PathBuf>,
}

impl ServerTlsArgs {
    /// The certificate to serve with; `None` without TLS.
    ///
    /// # Errors
    /// When one has to be made and cannot be.
    pub fn certificate(&self) -> Result<Option<Certificate>, BoxError> {
        match (&self.cert, &self.key) {
            _ if !self.tls => Ok(None),
            (Some(cert), Some(key)) => Ok(Some(Certificate {
                cert: cert.clone(),
                key: key.clone(),
                _folder: None,
            })),
            _ => {
                let made = Certificate::make()?;
                eprintln!("certificate: {}", made.cert().display());
                Ok(Some(made))
            }
        }
    }
}

/// A client's part of the command line.
#[derive(Debug, Clone, Args)]
pub struct ClientTlsArgs {
    /// Connect with TLS
    #[arg(long, requires = "cert")]
    tls: bool,
    /// What to trust: the server's own certificate, or the root that signed it (PEM)
    #[arg(long, requires = "tls", value_name = "FILE")]
    cert: Option<PathBuf>,
    /// The name that the server's certificate is for
    #[arg(long, default_value = "localhost", value_name = "NAME")]
    server_name: String,
}

impl ClientTlsArgs {
    /// What to connect with; `None` without TLS.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub fn client_tls(&self) -> Result<Option<ClientTls>, BoxError> {
        let Some(roots) = self.cert.clone().filter(|_| self.tls) else {
            return Ok(None);
        };
        let files = ClientPemFiles {
            roots,
            ..ClientPemFiles::default()
        };
        Ok(Some(ClientTls::from_pem(&files, &self.server_name)?))
    }
}

/// A certificate and its key, in files.
#[derive(Debug)]
pub struct Certificate {
    cert: PathBuf,
    key: PathBuf,
    /// Of one that was made: goes with it.
    _folder: Option<TempDir>,
}

impl Certificate {
    /// Makes a self-signed one for this machine, in a folder that only this user can look into.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn make() -> Result<Self, BoxError> {
        let made = rcgen::generate_simple_self_signed(NAMES.map(str::to_owned))?;
        let folder = tempfile::Builder::new()
            .permissions(Permissions::from_mode(0o700))
            .tempdir()?;
        let (cert, key) = (
            folder.path().join("cert.pem"),
            folder.path().join("key.pem"),
        );
        fs::write(&cert, made.cert.pem())?;
        fs::write(&key, made.signing_key.serialize_pem())?;
        Ok(Self {
            cert,
            key,
            _folder: Some(folder),
        })
    }

    /// The certificate's file.
    pub fn cert(&self) -> &Path {
        &self.cert
    }

    /// The key's file.
    pub fn key(&self) -> &Path {
        &self.key
    }

    /// For a server of either kind.
    pub fn files(&self) -> PemFiles {
        PemFiles {
            certificates: self.cert.clone(),
            key: self.key.clone(),
            ..PemFiles::default()
        }
    }
}
