//! How proxies and chat servers know each other: the section `[cluster]`, the same on all nodes.
//!
//! ```text
//!   proxy ── secret, with the first call of a connection ──► chat server
//!         ◄─────── TLS, a certificate on both sides ───────►
//! ```
//!
//! Either is enough to keep strangers out; both together keep out also those who listen in, and who have
//! got hold of one of the two.

use std::path::PathBuf;

use nexus_net::{ClientPemFiles, ClientTls, PemFiles, ServerTls};
use serde::Deserialize;

use crate::config::Problems;
use crate::reload::Reload;
use crate::secret::ClusterSecret;
use crate::tls;

const SECTION: &str = "cluster";

/// The section as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterSection {
    /// A file with what proxies show and servers expect.
    secret_file: Option<PathBuf>,
    /// What the certificates of the other side are signed by (PEM). With it comes TLS.
    ca: Option<PathBuf>,
    /// This node's certificate (PEM), and those between it and the root.
    certificate: Option<PathBuf>,
    /// Its private key (PEM).
    key: Option<PathBuf>,
    /// The name that the certificates of all chat servers are for.
    server_name: String,
}

impl Default for ClusterSection {
    fn default() -> Self {
        Self {
            secret_file: None,
            ca: None,
            certificate: None,
            key: None,
            server_name: "chat-server".to_owned(),
        }
    }
}

/// Whom a chat server lets in. By default everybody.
#[derive(Debug, Clone, Default)]
pub struct ServerSide {
    /// TLS, for callers that show a certificate of the cluster's authority.
    pub tls: Option<ServerTls>,
    /// What callers have to show.
    pub secret: Option<ClusterSecret>,
}

impl ServerSide {
    /// Whether strangers are let in.
    pub fn is_open(&self) -> bool {
        self.tls.is_none() && self.secret.is_none()
    }
}

/// How a proxy comes to chat servers. By default without a word about itself.
#[derive(Debug, Clone, Default)]
pub struct ProxySide {
    /// TLS, with the proxy's own certificate.
    pub tls: Option<ClientTls>,
    /// What it shows.
    pub secret: Option<ClusterSecret>,
}

impl ClusterSection {
    /// What a chat server makes of the section. What is wrong is noted in `problems`; files are added to what
    /// is read again.
    pub fn server_side(&self, problems: &mut Problems, reload: &mut Reload) -> ServerSide {
        let tls = self.files(problems).and_then(|files| {
            let files = PemFiles {
                certificates: files.certificate,
                key: files.key,
                client_roots: Some(files.ca),
                ..PemFiles::default()
            };
            tls::server(SECTION, files, problems, reload)
        });
        let secret = self.secret(problems, reload);
        ServerSide { tls, secret }
    }

    /// What a proxy makes of the section. See [`server_side`](Self::server_side).
    pub fn proxy_side(&self, problems: &mut Problems, reload: &mut Reload) -> ProxySide {
        let tls = self.files(problems).and_then(|files| {
            let name = &self.server_name;
            let files = ClientPemFiles {
                roots: files.ca,
                identity: Some((files.certificate, files.key)),
                ..ClientPemFiles::default()
            };
            tls::client(SECTION, files, name, problems, reload)
        });
        let secret = self.secret(problems, reload);
        ProxySide { tls, secret }
    }

    fn secret(&self, problems: &mut Problems, reload: &mut Reload) -> Option<ClusterSecret> {
        let file = self.secret_file.as_ref();
        ClusterSecret::configured("cluster.secret_file", file, problems, reload)
    }

    /// Of the three files none or all are named.
    fn files(&self, problems: &mut Problems) -> Option<Files> {
        let identity = tls::both(
            SECTION,
            &self.certificate,
            &self.key,
            "certificate",
            problems,
        );
        match (&self.ca, identity) {
            (Some(ca), Some((certificate, key))) => Some(Files {
                ca: ca.clone(),
                certificate,
                key,
            }),
            (Some(_), None) if self.certificate.is_none() && self.key.is_none() => {
                problems.add(
                    "cluster.certificate",
                    "missing: needed with `cluster.ca`, for each side shows who it is",
                );
                None
            }
            (None, Some(_)) => {
                problems.add(
                    "cluster.ca",
                    "missing: needed with `cluster.certificate`, to know the other side by",
                );
                None
            }
            _ => None,
        }
    }
}

struct Files {
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}
