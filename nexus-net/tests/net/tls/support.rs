//! Certificates of a test's own, and clients that use them.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

use nexus_net::rustls::pki_types::ServerName;
use nexus_net::rustls::{ClientConfig, ClientConnection, StreamOwned};
use nexus_net::{
    ClientOptions, ClientPemFiles, ClientTls, Connection, ConnectionOptions, LoopGroup, PemFiles,
    ServerOptions, ServerTls, TcpClient,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::support::*;

pub(crate) type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// An authority, with a folder for the files.
pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) folder: tempfile::TempDir,
}

impl Ca {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            folder,
        }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a certificate for `name`, with its key, to files of that name; returns it.
    pub(crate) fn issue(&self, file: &str, name: &str) -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()])
            .unwrap()
            .signed_by(&key, &self.issuer)
            .unwrap();
        std::fs::write(self.file(&format!("{file}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.file(&format!("{file}.key")), key.serialize_pem()).unwrap();
        certificate.der().to_vec()
    }

    pub(crate) fn server_files(&self) -> PemFiles {
        PemFiles {
            certificates: self.file("server.pem"),
            key: self.file("server.key"),
            ..PemFiles::default()
        }
    }

    /// A server for localhost.
    pub(crate) fn server(&self, alpn: &[&str]) -> ServerTls {
        self.issue("server", "localhost");
        let alpn = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        ServerTls::from_pem(&PemFiles {
            alpn,
            ..self.server_files()
        })
        .unwrap()
    }

    /// A client that trusts this authority.
    pub(crate) fn client(&self) -> Client {
        Client(ClientPemFiles {
            roots: self.file("ca.pem"),
            ..ClientPemFiles::default()
        })
    }
}

pub(crate) struct Client(pub(crate) ClientPemFiles);

impl Client {
    pub(crate) fn alpn(mut self, names: &[&str]) -> Self {
        self.0.alpn = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        self
    }

    /// Shows the certificate issued to `file`.
    pub(crate) fn identity(mut self, ca: &Ca, file: &str) -> Self {
        let certificate = ca.file(&format!("{file}.pem"));
        self.0.identity = Some((certificate, ca.file(&format!("{file}.key"))));
        self
    }

    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        self.0.client_config().unwrap()
    }

    pub(crate) fn tls(&self, server_name: &str) -> ClientTls {
        ClientTls::from_pem(&self.0, server_name).unwrap()
    }

    /// A blocking client that has not begun its handshake.
    pub(crate) fn stream(&self, address: SocketAddr) -> TlsStream {
        let name = ServerName::try_from("localhost").unwrap();
        let session = ClientConnection::new(self.config(), name).unwrap();
        StreamOwned::new(session, connect(address))
    }

    /// A blocking client that has completed its handshake.
    pub(crate) fn connect(&self, address: SocketAddr) -> TlsStream {
        let mut stream = self.stream(address);
        while stream.conn.is_handshaking() || stream.conn.wants_write() {
            stream.conn.complete_io(&mut stream.sock).unwrap();
        }
        stream
    }
}

pub(crate) fn serve_tls(
    tls: ServerTls,
    connection: ConnectionOptions,
    on: impl Fn(&mut Connection<'_>, Call<'_>) + Send + Sync + 'static,
) -> Served {
    let options = ServerOptions {
        connection,
        tls: Some(tls),
        ..ServerOptions::default()
    };
    serve_with(1, options, on)
}

/// A client of the library.
pub(crate) struct Running {
    pub(crate) events: Events,
    _client: TcpClient,
    _loops: LoopGroup,
}

pub(crate) fn start_client(
    address: SocketAddr,
    tls: Option<ClientTls>,
    on: impl Fn(&mut Connection<'_>, Call<'_>) + Send + Sync + 'static,
) -> Running {
    let loops = LoopGroup::start("client", 1).unwrap();
    let (sender, events) = Events::channel();
    let on = script(on);
    let options = ClientOptions {
        tls,
        ..ClientOptions::default()
    };
    let client = TcpClient::start(&loops.handles()[0], address, options, move |_| {
        Scripted::boxed(&on, &sender)
    })
    .unwrap();
    Running {
        events,
        _client: client,
        _loops: loops,
    }
}
