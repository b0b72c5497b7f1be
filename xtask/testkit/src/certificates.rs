//! Certificates for a cluster with TLS: two authorities, and what they have signed.
//!
//! ```text
//!   ca ──────── proxy                   what clients see
//!   inner-ca ── chat-server, chat-proxy, mariadb, redis: what the nodes see of each other
//! ```

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};

use crate::Error;

/// An authority, kept in a folder: its key stays there, so what it has signed before goes on being good.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: PathBuf,
    name: String,
}

/// A certificate and its key, as files in PEM.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// How a server speaks TLS: with nobody who does not, and only with who shows a certificate, too.
#[derive(Debug, Clone)]
pub struct ServerFiles {
    /// What the server shows.
    pub identity: Identity,
    /// The authority whose certificates it lets in.
    pub client_ca: PathBuf,
    /// What is shown to it to see whether it is ready.
    pub probe: Identity,
}

impl Authority {
    /// The authority of this name in `folder`, made if it is not there: `NAME.pem` and `NAME.key`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] and [`Error::Certificate`].
    pub fn open(folder: &Path, name: &str) -> Result<Self, Error> {
        fs::create_dir_all(folder).map_err(Error::io(format!("creating {}", folder.display())))?;
        let folder = folder
            .canonicalize()
            .map_err(Error::io(format!("resolving {}", folder.display())))?;
        let (certificate, key_path) = paths(&folder, name);
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Each its own: certificates name who signed them.
        let common_name = format!("nexus {name}");
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        let key = if certificate.exists() {
            let pem = fs::read_to_string(&key_path)
                .map_err(Error::io(format!("reading {}", key_path.display())))?;
            KeyPair::from_pem(&pem)?
        } else {
            let key = KeyPair::generate()?;
            write_private(&key_path, &key.serialize_pem())?;
            write(&certificate, &params.self_signed(&key)?.pem())?;
            key
        };
        Ok(Self {
            issuer: Issuer::new(params, key),
            folder,
            name: name.to_owned(),
        })
    }

    /// Its own certificate, for those who are to trust what it signs.
    pub fn certificate(&self) -> PathBuf {
        paths(&self.folder, &self.name).0
    }

    /// Signs a new certificate and writes it to `FILE.pem`, with its key in `FILE.key`: for a name, and for
    /// this machine by its loopback address and `localhost`. What was in the files before is replaced.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn issue(&self, file: &str, name: &str) -> Result<Identity, Error> {
        let (certificate, key_path) = paths(&self.folder, file);
        let names = vec![name.to_owned(), "localhost".to_owned()];
        let mut params = CertificateParams::new(names)?;
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        params.subject_alt_names.push(SanType::IpAddress(loopback));
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate()?;
        let signed = params.signed_by(&key, &self.issuer)?;
        write_private(&key_path, &key.serialize_pem())?;
        write(&certificate, &signed.pem())?;
        Ok(Identity {
            certificate,
            key: key_path,
        })
    }
}

fn paths(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    let file = |kind: &str| folder.join(format!("{name}.{kind}"));
    (file("pem"), file("key"))
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(Error::io(format!("writing {}", path.display())))
}

/// For nobody but the owner to read.
fn write_private(path: &Path, text: &str) -> Result<(), Error> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;

    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(Error::io(format!("writing {}", path.display())))
}

/// The files of a cluster with TLS.
#[derive(Debug)]
pub struct ClusterFiles {
    folder: PathBuf,
    /// Signs what clients see.
    pub ca: Authority,
    /// Signs what nodes see of each other.
    pub inner_ca: Authority,
    /// What clients see.
    pub proxy: Identity,
    /// What chat servers show, and proxies to them, and both to MariaDB and Redis.
    pub node: Identity,
    /// What MariaDB and Redis show.
    pub backend: Identity,
}

impl ClusterFiles {
    /// What the proxies' certificate is for, and clients expect.
    pub const SERVER_NAME: &str = "chat-proxy";

    /// The folder `tls` in `home`: authorities and the secret that are there stay, certificates are new.
    pub(crate) fn open(home: &Path) -> Result<Self, Error> {
        let folder = home.join("tls");
        let ca = Authority::open(&folder, "ca")?;
        let inner_ca = Authority::open(&folder, "inner-ca")?;
        let files = Self {
            proxy: ca.issue("proxy", Self::SERVER_NAME)?,
            node: inner_ca.issue("node", "chat-server")?,
            backend: inner_ca.issue("backend", "backend")?,
            ca,
            inner_ca,
            folder,
        };
        if !files.secret().exists() {
            // Any text that nobody can guess: a new key's has 256 random bits in it.
            let secret: String = KeyPair::generate()?
                .serialize_der()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            write_private(&files.secret(), &format!("{secret}\n"))?;
        }
        Ok(files)
    }

    /// How MariaDB and Redis speak.
    pub(crate) fn backend(&self) -> ServerFiles {
        ServerFiles {
            identity: self.backend.clone(),
            client_ca: self.inner_ca.certificate(),
            probe: self.node.clone(),
        }
    }

    /// The file with the cluster's secret.
    pub fn secret(&self) -> PathBuf {
        self.folder.join("secret")
    }
}
