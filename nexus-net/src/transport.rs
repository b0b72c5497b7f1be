//! The kinds of stream a connection can run on.
//!
//! ```text
//!   Transport = Socket (TCP or Unix)  [ + a TLS session on top ]
//! ```

use std::io::{self, IoSlice, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};

use bytes::BytesMut;
use mio::{Interest, Registry, Token, event::Source};

use crate::Address;
#[cfg(feature = "tls")]
use crate::tls::Session;

/// A non-blocking stream socket.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(mio::net::TcpStream),
    Unix(mio::net::UnixStream),
}

impl Socket {
    /// Starts to connect.
    pub(crate) fn connect(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => {
                let stream = mio::net::TcpStream::connect(*address)?;
                let _ = stream.set_nodelay(true);
                Ok(Self::Tcp(stream))
            }
            Address::Unix(Some(path)) => mio::net::UnixStream::connect(path).map(Self::Unix),
            Address::Unix(None) => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a Unix socket without a path cannot be connected to",
            )),
        }
    }

    fn as_source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp(stream) => stream,
            Self::Unix(stream) => stream,
        }
    }

    /// Whether a connection attempt has ended, and how. `Ok(false)`: not yet.
    pub(crate) fn connected(&self) -> io::Result<bool> {
        let (error, peer) = match self {
            Self::Tcp(stream) => (stream.take_error()?, stream.peer_addr().map(drop)),
            Self::Unix(stream) => (stream.take_error()?, stream.peer_addr().map(drop)),
        };
        if let Some(error) = error {
            return Err(error);
        }
        match peer {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn local_addr(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(stream) => stream.local_addr().map(Address::Tcp),
            Self::Unix(stream) => stream.local_addr().map(Address::from),
        }
    }

    fn shutdown_write(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write_vectored(slices),
            Self::Unix(stream) => stream.write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

/// What a connection reads and writes.
#[derive(Debug)]
pub(crate) struct Transport {
    pub(crate) socket: Socket,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<Box<Session>>,
}

impl Transport {
    pub(crate) fn plain(socket: Socket) -> Self {
        Self {
            socket,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    #[cfg(feature = "tls")]
    pub(crate) fn tls(socket: Socket, session: Session) -> Self {
        Self {
            socket,
            tls: Some(Box::new(session)),
        }
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        // Both directions once, for life: edges are remembered by the connection.
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.socket.as_source().register(registry, token, interest)
    }

    pub(crate) fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.socket.as_source().deregister(registry)
    }

    /// Writes, and says how many bytes of `slices` were taken. Those are with the kernel, or, under
    /// TLS, encrypted and possibly still [`pending`](Self::has_pending).
    pub(crate) fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        #[cfg(feature = "tls")]
        if let Some(session) = &mut self.tls {
            return session.write_vectored(&mut self.socket, slices);
        }
        if let [slice] = slices {
            return self.socket.write(slice);
        }
        self.socket.write_vectored(slices)
    }

    /// Whether the layers above the socket have something of their own to write.
    pub(crate) fn has_pending(&self) -> bool {
        #[cfg(feature = "tls")]
        if let Some(session) = &self.tls {
            return session.wants_write();
        }
        false
    }

    /// Writes what is pending.
    pub(crate) fn write_pending(&mut self) -> io::Result<()> {
        #[cfg(feature = "tls")]
        if let Some(session) = &mut self.tls {
            return session.write_pending(&mut self.socket);
        }
        Ok(())
    }

    /// Says, after everything written so far, that nothing more follows. That may become pending.
    pub(crate) fn end_output(&mut self) {
        #[cfg(feature = "tls")]
        if let Some(session) = &mut self.tls {
            session.end_output();
        }
    }

    /// Whether what the socket carries is not what the handler sees.
    pub(crate) fn is_encrypted(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.is_some();
        #[cfg(not(feature = "tls"))]
        false
    }

    /// Replaces what came from the socket by the plain bytes in it. `Ok(true)`: the peer has said
    /// that nothing more follows. After an error an alert for the peer may be pending.
    pub(crate) fn decrypt(&mut self, scratch: &mut BytesMut) -> io::Result<bool> {
        #[cfg(feature = "tls")]
        if let Some(session) = &mut self.tls {
            let cipher = scratch.split();
            let decrypted = session.decrypt(&cipher, scratch);
            if decrypted.is_err() {
                // The buffer serves all connections of the loop: what came before the error must not stay.
                scratch.clear();
            }
            return decrypted;
        }
        let _ = scratch;
        Ok(false)
    }

    /// Whether the socket's end is the stream's: under TLS only after the peer has said so, or
    /// somebody in between may have cut the stream off (RFC 8446, section 6.1).
    pub(crate) fn check_end(&self) -> io::Result<()> {
        #[cfg(feature = "tls")]
        if let Some(session) = &self.tls
            && !session.peer_ended()
        {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the peer closed without the end of its TLS stream",
            ));
        }
        Ok(())
    }

    /// Whether the connection may be used, apart from the socket's own connecting.
    pub(crate) fn is_established(&self) -> bool {
        #[cfg(feature = "tls")]
        if let Some(session) = &self.tls {
            return !session.is_handshaking();
        }
        true
    }

    /// Shuts down the socket's write side.
    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        self.socket.shutdown_write()
    }
}
