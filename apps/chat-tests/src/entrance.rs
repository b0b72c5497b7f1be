//! Where clients connect, and how.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use nexus_net::rustls::pki_types::ServerName;
use nexus_net::rustls::{ClientConfig, ClientConnection, StreamOwned};

/// How long the other side may take for its part of a handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(30);

/// A way into the chat: an address, with TLS or without.
#[derive(Debug, Clone, Copy)]
pub struct Entrance {
    /// Where clients connect.
    pub address: SocketAddr,
    tls: Option<&'static Tls>,
}

#[derive(Debug)]
struct Tls {
    config: Arc<ClientConfig>,
    server_name: ServerName<'static>,
}

impl From<SocketAddr> for Entrance {
    fn from(address: SocketAddr) -> Self {
        Self { address, tls: None }
    }
}

impl Entrance {
    /// One with TLS. What it holds is never freed: a test has a few of them.
    pub fn with_tls(address: SocketAddr, config: Arc<ClientConfig>, server_name: &str) -> Self {
        let server_name = ServerName::try_from(server_name.to_owned()).expect("a name");
        let tls = Box::leak(Box::new(Tls {
            config,
            server_name,
        }));
        Self {
            address,
            tls: Some(tls),
        }
    }

    /// The same way in at another address.
    #[must_use]
    pub fn at(self, address: SocketAddr) -> Self {
        Self { address, ..self }
    }

    pub(crate) fn connect(self) -> Stream {
        let stream = TcpStream::connect(self.address).expect("the chat accepts connections");
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(HANDSHAKE_MAX)).unwrap();
        let Some(tls) = self.tls else {
            return Stream::Plain(stream);
        };
        let session = ClientConnection::new(Arc::clone(&tls.config), tls.server_name.clone());
        Stream::Tls(Box::new(StreamOwned::new(
            session.expect("a session"),
            stream,
        )))
    }
}

/// A blocking connection.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    pub(crate) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => &stream.sock,
        }
    }

    pub(crate) fn set_read_timeout(&self, timeout: Duration) {
        self.socket().set_read_timeout(Some(timeout)).unwrap();
    }

    /// Shuts the sending side down.
    pub(crate) fn finish(&mut self) {
        if let Self::Tls(stream) = self {
            stream.conn.send_close_notify();
            stream.flush().unwrap();
        }
        self.socket().shutdown(Shutdown::Write).unwrap();
    }

    /// The certificate that the server has shown, once something was read.
    pub(crate) fn server_certificate(&self) -> Option<Vec<u8>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => Some(stream.conn.peer_certificates()?.first()?.to_vec()),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
