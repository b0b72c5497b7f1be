//! nginx as a proxy of TCP streams.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::certificates::Identity;
use crate::home::Home;
use crate::ports::free_port;
use crate::process::{Launch, Process, READY_DEADLINE};
use crate::wait::holds_within;
use crate::{Error, programs};

/// An nginx that spreads the TCP connections it accepts over its upstreams, in turn. An upstream
/// that refuses a connection is left out for a second.
#[derive(Debug)]
pub struct Nginx {
    // Before the home: the process ends before its folder is removed.
    process: Process,
    config: Mutex<NginxConfig>,
    listen: SocketAddr,
    home: Home,
}

/// What an [`Nginx`] does.
#[derive(Debug, Clone)]
pub struct NginxConfig {
    /// Where it accepts; port 0 (the default, on 127.0.0.1) means a free one.
    pub listen: SocketAddr,
    /// Where it passes connections to. At least one.
    pub upstreams: Vec<SocketAddr>,
    /// How long a connection may be idle. Default 24 h.
    pub proxy_timeout: Duration,
    /// How long an upstream may take to accept. Default 2 s.
    pub connect_timeout: Duration,
    /// Whether upstreams are told the clients' addresses, by the PROXY protocol. Default: no.
    pub proxy_protocol: bool,
    /// Whether connections pass through a second server on their way, which the first reaches over a Unix socket
    /// and tells the clients' addresses by the PROXY protocol. Default: no.
    pub chained: bool,
    /// What it shows to clients, where it ends TLS. By default it passes on what comes.
    pub tls: Option<Identity>,
    /// The address its connections to upstreams come from; by default whichever the system takes.
    pub bind: Option<IpAddr>,
    /// The folder of its configuration and its log; by default a temporary one.
    pub data_dir: Option<PathBuf>,
}

impl Default for NginxConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            upstreams: Vec::new(),
            proxy_timeout: Duration::from_secs(24 * 60 * 60),
            connect_timeout: Duration::from_secs(2),
            proxy_protocol: false,
            chained: false,
            tls: None,
            bind: None,
            data_dir: None,
        }
    }
}

impl Nginx {
    /// Starts the proxy and waits until it accepts. Whether its upstreams do is not looked at.
    ///
    /// # Errors
    ///
    /// [`Error::MissingProgram`], and as [`Process::start`].
    pub fn start(mut config: NginxConfig) -> Result<Self, Error> {
        let program = programs::NGINX.find()?;
        let home = Home::open(config.data_dir.clone(), "nginx")?;
        if config.listen.port() == 0 {
            config.listen.set_port(free_port());
        }
        let listen = config.listen;
        let path = home.write("nginx.conf", &config_file(&config)?)?;
        let process = Process::start(Launch {
            name: "nginx".to_owned(),
            program,
            args: vec![
                "-p".into(),
                home.path().into(),
                "-c".into(),
                path.into(),
                // What happens before the configuration is read would go to the system's log.
                "-e".into(),
                "stderr".into(),
            ],
            log: home.join("nginx.log"),
            // The port is bound before the worker starts. To try it would disturb an upstream.
            ready: Box::new(|output| output.contains("start worker process ")),
        })?;
        Ok(Self {
            process,
            config: Mutex::new(config),
            listen,
            home,
        })
    }

    /// Where it accepts.
    pub fn address(&self) -> SocketAddr {
        self.listen
    }

    /// Changes the upstreams without closing a connection: those that exist stay where they are.
    /// Returns when new connections go to the new upstreams.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the configuration cannot be written, [`Error::NotReady`] when nginx
    /// does not take it up.
    pub fn reload(&self, upstreams: Vec<SocketAddr>) -> Result<(), Error> {
        let mut config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        config.upstreams = upstreams;
        self.home.write("nginx.conf", &config_file(&config)?)?;
        let start = Instant::now();
        // The old worker says this when it has accepted its last connection.
        let reloaded = self.process.hang_up().is_some_and(|output| {
            holds_within(READY_DEADLINE, || {
                output.contains("gracefully shutting down")
            })
        });
        reloaded.then_some(()).ok_or_else(|| Error::NotReady {
            name: "nginx (reloaded)".to_owned(),
            waited: start.elapsed(),
            log_tail: self.process.log_tail(),
        })
    }
}

impl Deref for Nginx {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

/// The end of the first of two servers, and the beginning of the second. The socket is relative to nginx's folder.
const SECOND_SERVER: &str = "        proxy_pass unix:second.sock;
        proxy_protocol on;
    }
    server {
        listen unix:second.sock proxy_protocol;
        set_real_ip_from unix:;
";

fn config_file(config: &NginxConfig) -> Result<String, Error> {
    let module = programs::NGINX_STREAM.find()?;
    let mut servers = String::new();
    for upstream in &config.upstreams {
        // Writing to a String cannot fail.
        let _ = writeln!(
            servers,
            "        server {upstream} max_fails=1 fail_timeout=1s;"
        );
    }
    // One worker: each has its own idea of whose turn it is, and one carries more than the nodes
    // behind it.
    Ok(format!(
        "load_module {module};\n\
         daemon off;\n\
         pid nginx.pid;\n\
         error_log stderr notice;\n\
         worker_processes 1;\n\
         events {{ worker_connections 16384; }}\n\
         stream {{\n\
         \x20   upstream nodes {{\n\
         {servers}\
         \x20   }}\n\
         \x20   server {{\n\
         \x20       listen {listen}{ssl} backlog=1024;\n\
         {identity}\
         {second}\
         \x20       proxy_pass nodes;\n\
         {bind}\
         \x20       proxy_protocol {proxy_protocol};\n\
         \x20   }}\n\
         \x20   proxy_timeout {idle}s;\n\
         \x20   proxy_connect_timeout {connect}ms;\n\
         }}\n",
        module = module.display(),
        listen = config.listen,
        ssl = if config.tls.is_some() { " ssl" } else { "" },
        second = if config.chained { SECOND_SERVER } else { "" },
        identity = config.tls.as_ref().map(identity).unwrap_or_default(),
        bind = config
            .bind
            .map(|address| format!("        proxy_bind {address};\n"))
            .unwrap_or_default(),
        proxy_protocol = if config.proxy_protocol { "on" } else { "off" },
        idle = config.proxy_timeout.as_secs(),
        connect = config.connect_timeout.as_millis(),
    ))
}

fn identity(tls: &Identity) -> String {
    format!(
        "        ssl_certificate {};\n        ssl_certificate_key {};\n",
        tls.certificate.display(),
        tls.key.display()
    )
}
