//! The echo servers that are compared: bytes go back as they come, on nexus-net and on tokio.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use bytes::BytesMut;
use clap::ValueEnum;
use nexus_net::{Connection, Handler, LoopGroup, ServerOptions, ServerTls, TcpServer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use crate::BoxError;
use crate::tls::Certificate;

/// What an echo server is built on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Runtime {
    /// nexus-net: one event loop per thread.
    Nexus,
    /// tokio: `current_thread` for one loop, `multi_thread` with as many workers for more.
    Tokio,
}

impl Runtime {
    /// Both, in the order of the tables.
    pub const ALL: [Self; 2] = [Self::Nexus, Self::Tokio];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nexus => "nexus",
            Self::Tokio => "tokio",
        }
    }
}

/// A running echo server, of either kind. Dropping it ends it and its connections.
pub struct EchoServer {
    address: SocketAddr,
    kind: Kind,
}

enum Kind {
    // In the order of dropping: the loops outlive the server.
    Nexus(TcpServer, LoopGroup),
    Tokio(TokioEcho),
}

impl EchoServer {
    /// Listens on `address` (port 0: any free port) and serves on `loops` threads; under TLS when
    /// there is a certificate.
    ///
    /// # Errors
    /// When the address or the certificate cannot be had or the system refuses a thread.
    pub fn start(
        runtime: Runtime,
        address: SocketAddr,
        loops: usize,
        certificate: Option<&Certificate>,
    ) -> Result<Self, BoxError> {
        let tls = certificate
            .map(|certificate| certificate.files().server_config())
            .transpose()?;
        match runtime {
            Runtime::Nexus => {
                let group = LoopGroup::start("echo", loops)?;
                let options = ServerOptions {
                    tls: tls.map(ServerTls::new),
                    ..ServerOptions::default()
                };
                let server = TcpServer::start(&group, address, options, |_| Box::new(NexusEcho))?;
                Ok(Self {
                    address: server.local_addr().as_tcp().expect("a TCP address"),
                    kind: Kind::Nexus(server, group),
                })
            }
            Runtime::Tokio => {
                let tokio = TokioEcho::start(address, loops, tls.map(TlsAcceptor::from))?;
                Ok(Self {
                    address: tokio.address,
                    kind: Kind::Tokio(tokio),
                })
            }
        }
    }

    /// The address it listens on, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it and returns how many bytes it sent back.
    pub fn stop(self) -> u64 {
        match self.kind {
            Kind::Nexus(_server, group) => group
                .handles()
                .iter()
                .map(|handle| handle.metrics().bytes_written())
                .sum(),
            Kind::Tokio(tokio) => tokio.stop(),
        }
    }
}

struct NexusEcho;

impl Handler for NexusEcho {
    fn data(&mut self, conn: &mut Connection<'_>, input: &mut BytesMut) {
        conn.send(input.split().freeze());
    }
}

/// Large enough that a message of 16 KiB does not fill it: after a read that fills its buffer tokio
/// has to ask the kernel once more before it may wait.
const TOKIO_BUFFER_BYTES: usize = 32 << 10;

struct TokioEcho {
    address: SocketAddr,
    echoed: Arc<AtomicU64>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl TokioEcho {
    fn start(
        address: SocketAddr,
        loops: usize,
        tls: Option<TlsAcceptor>,
    ) -> Result<Self, BoxError> {
        let runtime = if loops == 1 {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?
        } else {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(loops)
                .enable_all()
                .build()?
        };
        let listener = runtime.block_on(TcpListener::bind(address))?;
        let address = listener.local_addr()?;
        let echoed = Arc::new(AtomicU64::new(0));
        let (stop, stopped) = oneshot::channel();
        let total = Arc::clone(&echoed);
        let thread = std::thread::Builder::new()
            .name("tokio-echo".to_owned())
            .spawn(move || {
                // Spawned, so that accepting happens on a worker and not on this thread.
                runtime.spawn(accept(listener, tls, total));
                let _ = runtime.block_on(stopped);
            })?;
        Ok(Self {
            address,
            echoed,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    fn stop(mut self) -> u64 {
        self.end();
        self.echoed.load(Ordering::Relaxed)
    }

    fn end(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the thread of the tokio server panicked");
        }
    }
}

impl Drop for TokioEcho {
    fn drop(&mut self) {
        self.end();
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, total: Arc<AtomicU64>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let echoed = Echoed {
                    bytes: 0,
                    total: Arc::clone(&total),
                };
                tokio::spawn(serve(stream, tls.clone(), echoed));
            }
            Err(error) => {
                eprintln!("cannot accept: {error}");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

/// Bytes of one connection, added to the total at its end: a shared counter on the path would cost
/// tokio what nexus-net, with a counter per loop, does not pay.
struct Echoed {
    bytes: u64,
    total: Arc<AtomicU64>,
}

impl Drop for Echoed {
    fn drop(&mut self) {
        self.total.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

async fn serve(stream: TcpStream, tls: Option<TlsAcceptor>, echoed: Echoed) -> io::Result<()> {
    stream.set_nodelay(true)?;
    match tls {
        None => echo(stream, echoed).await,
        Some(tls) => echo(tls.accept(stream).await?, echoed).await,
    }
}

async fn echo(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    mut echoed: Echoed,
) -> io::Result<()> {
    let mut buffer = vec![0; TOKIO_BUFFER_BYTES];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..count]).await?;
        // Nothing on a socket; what TLS has encrypted leaves here at the latest.
        stream.flush().await?;
        echoed.bytes += count as u64;
    }
}
