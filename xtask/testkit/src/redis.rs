//! Redis.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::certificates::ServerFiles;
use crate::home::Home;
use crate::ports::free_port;
use crate::process::{Launch, Process};
use crate::{Error, programs};

/// A Redis server that keeps nothing on disk by itself: a restart brings it back empty, or with what it was told to
/// `SAVE`.
#[derive(Debug)]
pub struct Redis {
    // Before the home: the process ends before its folder is removed.
    process: Process,
    port: u16,
    scheme: &'static str,
    _home: Home,
}

/// What may be chosen about a [`Redis`].
#[derive(Debug, Clone, Default)]
pub struct RedisOptions {
    /// The TCP port; a free one by default.
    pub port: Option<u16>,
    /// The folder of its log; by default a temporary one.
    pub data_dir: Option<PathBuf>,
    /// TLS, and then nothing else. By default none.
    pub tls: Option<ServerFiles>,
}

impl Redis {
    /// Starts a server on a free port and waits until it answers a PING.
    ///
    /// # Errors
    ///
    /// [`Error::MissingProgram`], and as [`Process::start`].
    pub fn start() -> Result<Self, Error> {
        Self::start_with(RedisOptions::default())
    }

    /// [`Self::start`] with options.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_with(options: RedisOptions) -> Result<Self, Error> {
        let program = programs::REDIS.find()?;
        let home = Home::open(options.data_dir, "redis")?;
        let port = options.port.unwrap_or_else(free_port);
        let mut args: Vec<OsString> = match &options.tls {
            None => vec!["--port".into(), port.to_string().into()],
            Some(tls) => tls_args(tls, port),
        };
        args.extend([
            "--bind".into(),
            "127.0.0.1".into(),
            "--dir".into(),
            home.path().into(),
            "--save".into(),
            "".into(),
            "--appendonly".into(),
            "no".into(),
        ]);
        let scheme = match options.tls {
            None => "redis",
            Some(_) => "rediss",
        };
        let probe = match options.tls {
            None => None,
            Some(tls) => Some((programs::REDIS_CLI.find()?, tls)),
        };
        let process = Process::start(Launch {
            name: "redis".to_owned(),
            program,
            args,
            log: home.join("redis.log"),
            ready: Box::new(move |_| match &probe {
                None => answers_ping(port).is_ok_and(|answers| answers),
                Some((client, tls)) => answers_ping_under_tls(client, port, tls),
            }),
        })?;
        Ok(Self {
            process,
            port,
            scheme,
            _home: home,
        })
    }

    /// `redis://127.0.0.1:PORT`, with TLS `rediss://`.
    pub fn url(&self) -> String {
        self.url_at(self.address())
    }

    /// [`Self::url`] for those who reach the server at another address.
    pub(crate) fn url_at(&self, address: SocketAddr) -> String {
        format!("{}://{address}", self.scheme)
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Sends one command, as a person types it, over a connection of its own, and returns the first line of the answer.
    ///
    /// # Errors
    ///
    /// It is not there, or has TLS.
    pub fn ask(&self, command: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(self.address())?;
        stream.write_all(format!("{command}\r\n").as_bytes())?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        line.truncate(line.trim_end().len());
        Ok(line)
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Deref for Redis {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

fn tls_args(tls: &ServerFiles, port: u16) -> Vec<OsString> {
    vec![
        "--port".into(),
        "0".into(),
        "--tls-port".into(),
        port.to_string().into(),
        "--tls-cert-file".into(),
        tls.identity.certificate.clone().into(),
        "--tls-key-file".into(),
        tls.identity.key.clone().into(),
        "--tls-ca-cert-file".into(),
        tls.client_ca.clone().into(),
        "--tls-auth-clients".into(),
        "yes".into(),
    ]
}

/// Asked by the server's own client program, so that this crate needs no TLS.
fn answers_ping_under_tls(client: &Path, port: u16, tls: &ServerFiles) -> bool {
    let output = Command::new(client)
        .args(["-h", "127.0.0.1", "-p", &port.to_string(), "--tls"])
        .arg("--cacert")
        .arg(&tls.client_ca)
        .arg("--cert")
        .arg(&tls.probe.certificate)
        .arg("--key")
        .arg(&tls.probe.key)
        .arg("PING")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    output.is_ok_and(|output| output.stdout.starts_with(b"PONG"))
}

fn answers_ping(port: u16) -> io::Result<bool> {
    let mut stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(b"PING\r\n")?;
    let mut answer = [0; 7];
    stream.read_exact(&mut answer)?;
    Ok(&answer == b"+PONG\r\n")
}
