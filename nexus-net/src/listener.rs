//! A listening socket of any kind.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use mio::event::Source;
use socket2::{Domain, Protocol, SockAddr, Type};

use crate::Address;
use crate::transport::Socket;

/// Whether several listeners share a port (SO_REUSEPORT).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    Alone,
    Shared,
}

/// A listening socket of any kind.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(mio::net::TcpListener),
    Unix(mio::net::UnixListener, #[allow(dead_code)] SocketFile),
}

impl Listener {
    pub(crate) fn bind(address: &Address, backlog: i32, sharing: Sharing) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => bind_tcp(*address, backlog, sharing).map(Self::Tcp),
            Address::Unix(Some(path)) => bind_unix(path, backlog),
            Address::Unix(None) => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a Unix socket needs a path to be listened on",
            )),
        }
    }

    pub(crate) fn local_addr(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Address::Tcp),
            Self::Unix(listener, _) => listener.local_addr().map(Address::from),
        }
    }

    pub(crate) fn accept(&self) -> io::Result<(Socket, Address)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                let _ = stream.set_nodelay(true);
                Ok((Socket::Tcp(stream), Address::Tcp(peer)))
            }
            Self::Unix(listener, _) => {
                let (stream, peer) = listener.accept()?;
                Ok((Socket::Unix(stream), Address::from(peer)))
            }
        }
    }

    pub(crate) fn as_source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp(listener) => listener,
            Self::Unix(listener, _) => listener,
        }
    }
}

fn bind_tcp(
    address: SocketAddr,
    backlog: i32,
    sharing: Sharing,
) -> io::Result<mio::net::TcpListener> {
    let domain = Domain::for_address(address);
    let socket = socket2::Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    // A restarted server must not wait for the old connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    if sharing == Sharing::Shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    Ok(mio::net::TcpListener::from_std(socket.into()))
}

fn bind_unix(path: &Path, backlog: i32) -> io::Result<Listener> {
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    let address = SockAddr::unix(path)?;
    match socket.bind(&address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_abandoned(path) => {
            fs::remove_file(path)?;
            socket.bind(&address)?;
        }
        other => other?,
    }
    let file = SocketFile::at(path)?;
    socket.listen(backlog)?;
    let listener = mio::net::UnixListener::from_std(socket.into());
    Ok(Listener::Unix(listener, file))
}

/// Whether the file is a socket left behind by a process that has ended.
fn is_abandoned(path: &Path) -> bool {
    let is_socket = fs::metadata(path).is_ok_and(|file| file.file_type().is_socket());
    is_socket
        && UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// The file of a Unix socket: removed with its listener, unless another has taken its name.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            identity: identity(path)?,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}
