//! Opening the connections, and the server's memory before and after.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use clap::Args;
use nexus_benches::BoxError;
use procfs::process::Process;
use serde::Serialize;
use socket2::{Domain, Protocol, Socket, Type};

/// Command line of a measurement.
#[derive(Debug, Clone, Args)]
pub(crate) struct OpenArgs {
    /// The server
    #[arg(long)]
    pub(crate) addr: SocketAddr,
    /// Connections to open
    #[arg(long)]
    pub(crate) connections: usize,
    /// The server's process id, to look at its memory
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// Use each connection before: send this many bytes, which the server echoes
    #[arg(long, default_value_t = 0)]
    pub(crate) echo: usize,
    /// Keep the connections open for this long after the measurement
    #[arg(long, default_value_t = 0)]
    pub(crate) hold_seconds: u64,
}

/// What a measurement prints.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct IdleReport {
    pub(crate) connections: usize,
    pub(crate) connect_seconds: f64,
    /// Of the server, without a process id not known.
    pub(crate) memory: Option<Memory>,
}

/// Anonymous memory of the server's process.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Memory {
    pub(crate) before_bytes: u64,
    pub(crate) after_bytes: u64,
    pub(crate) bytes_per_connection: f64,
}

/// Connections from one source address: well below the number of ports that the system gives out.
const CONNECTIONS_PER_SOURCE: usize = 5_000;
const ACCEPT_DEADLINE: Duration = Duration::from_secs(30);

/// Measures and prints an [`IdleReport`].
pub(crate) fn run(args: &OpenArgs) -> Result<(), BoxError> {
    let (report, connections) = measure(args)?;
    println!("{}", serde_json::to_string(&report)?);
    std::thread::sleep(Duration::from_secs(args.hold_seconds));
    drop(connections);
    Ok(())
}

/// Opens the connections and returns them with what was measured.
pub(crate) fn measure(args: &OpenArgs) -> Result<(IdleReport, Vec<TcpStream>), BoxError> {
    let server = args
        .pid
        .map(|pid| Process::new(i32::try_from(pid)?).map_err(BoxError::from))
        .transpose()?;
    let before = server.as_ref().map(usage).transpose()?;
    let started = Instant::now();
    let mut connections = Vec::with_capacity(args.connections);
    for n in 0..args.connections {
        connections.push(connect(args.addr, n / CONNECTIONS_PER_SOURCE)?);
    }
    use_each(&mut connections, args.echo)?;
    let mut report = IdleReport {
        connections: args.connections,
        connect_seconds: 0.0,
        memory: None,
    };
    if let (Some(server), Some(before)) = (&server, before) {
        wait_until_accepted(server, before.descriptors + args.connections)?;
        let after_bytes = usage(server)?.bytes;
        let grown = after_bytes.saturating_sub(before.bytes);
        report.memory = Some(Memory {
            before_bytes: before.bytes,
            after_bytes,
            bytes_per_connection: grown as f64 / args.connections as f64,
        });
    }
    report.connect_seconds = started.elapsed().as_secs_f64();
    Ok((report, connections))
}

/// Connects; to a server on a loopback address, from the loopback address number `source`.
fn connect(address: SocketAddr, source: usize) -> Result<TcpStream, BoxError> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if let IpAddr::V4(ip) = address.ip()
        && ip.is_loopback()
    {
        let source = Ipv4Addr::new(127, 0, 0, u8::try_from(source + 1)?);
        socket.bind(&SocketAddr::from((source, 0)).into())?;
    }
    socket.connect(&address.into())?;
    Ok(socket.into())
}

fn use_each(connections: &mut [TcpStream], bytes: usize) -> Result<(), BoxError> {
    let message = vec![b'x'; bytes];
    let mut answer = vec![0; bytes];
    for connection in connections {
        connection.write_all(&message)?;
        connection.read_exact(&mut answer)?;
    }
    Ok(())
}

struct Usage {
    bytes: u64,
    descriptors: usize,
}

fn usage(server: &Process) -> Result<Usage, BoxError> {
    let kib = server
        .status()?
        .rssanon
        .ok_or("the kernel tells no RssAnon")?;
    Ok(Usage {
        bytes: kib * 1024,
        descriptors: server.fd_count()?,
    })
}

/// The kernel establishes connections before the server accepts them; those that it has accepted
/// show as its descriptors.
fn wait_until_accepted(server: &Process, descriptors: usize) -> Result<(), BoxError> {
    let deadline = Instant::now() + ACCEPT_DEADLINE;
    while server.fd_count()? < descriptors {
        if Instant::now() > deadline {
            return Err("the server does not accept all connections".into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
