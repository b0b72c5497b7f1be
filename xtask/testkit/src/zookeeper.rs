//! ZooKeeper, alone or as an ensemble.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

use crate::home::Home;
use crate::ports::free_port;
use crate::process::{Launch, Process};
use crate::{Error, programs};

/// A ZooKeeper server: one that stands alone, or a node of a [`ZooKeeperEnsemble`].
///
/// It grants session timeouts from 1 s to 60 s.
#[derive(Debug)]
pub struct ZooKeeper {
    // Before the home: the process ends before its folder is removed.
    process: Process,
    port: u16,
    _home: Home,
}

/// What may be chosen about a [`ZooKeeper`].
#[derive(Debug, Clone, Default)]
pub struct ZooKeeperOptions {
    /// The clients' TCP port; a free one by default.
    pub port: Option<u16>,
    /// The folder of its data, its configuration and its log. Data that is there already is
    /// taken up again. By default a temporary one.
    pub data_dir: Option<PathBuf>,
    /// Java system properties, as `("zookeeper.enforceQuota", "true")`.
    pub properties: Vec<(&'static str, &'static str)>,
}

/// Several ZooKeeper servers that elect a leader and survive the loss of fewer than half.
#[derive(Debug)]
pub struct ZooKeeperEnsemble {
    nodes: Vec<ZooKeeper>,
}

/// A node's place in an ensemble.
struct Membership<'a> {
    /// From 1.
    id: usize,
    /// The `server.N=` lines, the same on every node.
    members: &'a str,
}

impl ZooKeeper {
    /// Starts a server on a free port and waits until it serves.
    ///
    /// # Errors
    ///
    /// [`Error::MissingProgram`], and as [`Process::start`].
    pub fn start() -> Result<Self, Error> {
        Self::start_with(ZooKeeperOptions::default())
    }

    /// [`Self::start`] with options.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_with(options: ZooKeeperOptions) -> Result<Self, Error> {
        let server = Self::spawn(options, None)?;
        server.wait_ready()?;
        Ok(server)
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The clients' TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What the server is: `standalone`, `leader`, `follower` or `read-only`; `None` while it does not serve.
    pub fn mode(&self) -> Option<String> {
        mode(self.port)
    }

    /// The number of the last change, failed ones included; `None` while the server does not serve.
    pub fn zxid(&self) -> Option<u64> {
        let zxid = status(self.port, "Zxid: ")?;
        u64::from_str_radix(zxid.strip_prefix("0x")?, 16).ok()
    }

    fn spawn(options: ZooKeeperOptions, membership: Option<Membership<'_>>) -> Result<Self, Error> {
        let java = programs::JAVA.find()?;
        let home = Home::open(options.data_dir, "zookeeper")?;
        let port = options.port.unwrap_or_else(free_port);
        let name = match &membership {
            Some(Membership { id, .. }) => format!("zookeeper-{id}"),
            None => "zookeeper".to_owned(),
        };
        let process = Process::spawn(Launch {
            name,
            program: java,
            args: java_args(&home, port, &options.properties, membership)?,
            log: home.join("zookeeper.log"),
            ready: Box::new(move |_| mode(port).is_some()),
        })?;
        Ok(Self {
            process,
            port,
            _home: home,
        })
    }
}

impl Deref for ZooKeeper {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl ZooKeeperEnsemble {
    /// Starts `nodes` servers and waits until all of them serve.
    ///
    /// # Errors
    ///
    /// As [`ZooKeeper::start`].
    pub fn start(nodes: usize) -> Result<Self, Error> {
        Self::start_with(nodes, ZooKeeperOptions::default())
    }

    /// [`Self::start`] with options. Data, configurations and logs lie in folders named after the nodes below
    /// `data_dir`, where data that is there already is taken up again. Each node has a free port.
    ///
    /// # Errors
    ///
    /// As [`ZooKeeper::start`].
    pub fn start_with(nodes: usize, options: ZooKeeperOptions) -> Result<Self, Error> {
        let mut members = String::new();
        for id in 1..=nodes {
            let (peer, election) = (free_port(), free_port());
            // Writing to a String cannot fail.
            let _ = writeln!(members, "server.{id}=127.0.0.1:{peer}:{election}");
        }
        let nodes = (1..=nodes)
            .map(|id| {
                let data_dir = options
                    .data_dir
                    .as_ref()
                    .map(|dir| dir.join(format!("zookeeper-{id}")));
                // An ensemble of one is to ZooKeeper a server that stands alone.
                let membership = (nodes > 1).then_some(Membership {
                    id,
                    members: &members,
                });
                ZooKeeper::spawn(
                    ZooKeeperOptions {
                        port: None,
                        data_dir,
                        properties: options.properties.clone(),
                    },
                    membership,
                )
            })
            .collect::<Result<Vec<_>, _>>()?;
        let ensemble = Self { nodes };
        ensemble.wait_ready()?;
        Ok(ensemble)
    }

    /// The connect string: `127.0.0.1:PORT,127.0.0.1:PORT,...`.
    pub fn addresses(&self) -> String {
        self.nodes
            .iter()
            .map(ZooKeeper::address)
            .collect::<Vec<_>>()
            .join(",")
    }

    /// The nodes.
    pub fn nodes(&self) -> &[ZooKeeper] {
        &self.nodes
    }

    /// The `index`th node, from 0.
    ///
    /// # Panics
    ///
    /// When there are not as many.
    #[track_caller]
    pub fn node(&self, index: usize) -> &ZooKeeper {
        &self.nodes[index]
    }

    /// The node that leads; `None` while the ensemble has no leader.
    pub fn leader(&self) -> Option<&ZooKeeper> {
        self.nodes
            .iter()
            .find(|node| node.mode().as_deref() == Some("leader"))
    }

    /// Ends all nodes with SIGKILL.
    pub fn kill(&self) {
        for node in &self.nodes {
            node.kill();
        }
    }

    /// Ends all nodes with SIGTERM.
    pub fn stop(&self) {
        for node in &self.nodes {
            node.stop();
        }
    }

    /// Starts all nodes again, with the same ports and data, and waits until all of them serve.
    /// (One node's [`Process::restart`] waits until a majority runs, so a lost majority is not
    /// brought back one by one.)
    ///
    /// # Errors
    ///
    /// As [`Process::restart`].
    pub fn restart(&self) -> Result<(), Error> {
        self.nodes.iter().try_for_each(|node| node.respawn())?;
        self.wait_ready()
    }

    fn wait_ready(&self) -> Result<(), Error> {
        self.nodes.iter().try_for_each(|node| node.wait_ready())
    }
}

/// Writes the configuration and returns the arguments that start the server from it.
fn java_args(
    home: &Home,
    port: u16,
    properties: &[(&str, &str)],
    membership: Option<Membership<'_>>,
) -> Result<Vec<OsString>, Error> {
    let data = home.join("data");
    fs::create_dir_all(&data).map_err(Error::io(format!("creating {}", data.display())))?;
    if let Some(Membership { id, .. }) = &membership {
        home.write("data/myid", &id.to_string())?;
    }
    let members = membership.map_or("", |membership| membership.members);
    let data = data.display();
    let config = home.write(
        "zoo.cfg",
        &format!(
            "dataDir={data}\n\
             clientPort={port}\n\
             clientPortAddress=127.0.0.1\n\
             maxClientCnxns=0\n\
             tickTime=500\n\
             initLimit=20\n\
             syncLimit=10\n\
             minSessionTimeout=1000\n\
             maxSessionTimeout=60000\n\
             admin.enableServer=false\n\
             4lw.commands.whitelist=srvr\n\
             {members}"
        ),
    )?;
    // The jar's manifest names all it needs but a logger. The plain one writes to stderr and is
    // configured by properties alone.
    let mut class_path = programs::ZOOKEEPER_JAR.find()?.into_os_string();
    class_path.push(":");
    class_path.push(programs::SLF4J_JAR.find()?);
    let properties = properties
        .iter()
        .map(|(name, value)| format!("-D{name}={value}").into());
    let mut args: Vec<OsString> = vec![
        "-Xmx192m".into(),
        // Starts sooner and takes less memory than the defaults, which are made for large heaps.
        "-XX:+UseSerialGC".into(),
        "-XX:TieredStopAtLevel=1".into(),
        "-Dzookeeper.preAllocSize=1024".into(),
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn".into(),
        "-Dorg.slf4j.simpleLogger.showDateTime=true".into(),
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS".into(),
    ];
    args.extend(properties);
    args.extend([
        "-classpath".into(),
        class_path,
        "org.apache.zookeeper.server.quorum.QuorumPeerMain".into(),
        config.into(),
    ]);
    Ok(args)
}

/// The server's part in an ensemble. A node without a majority answers too, but not with a mode, unless it
/// serves readers (`readonlymode.enabled`).
fn mode(port: u16) -> Option<String> {
    status(port, "Mode: ")
}

/// What stands behind `key` in the server's answer to the four-letter word `srvr`.
fn status(port: u16, key: &str) -> Option<String> {
    let mut answer = String::new();
    let mut stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    stream.write_all(b"srvr").ok()?;
    stream.read_to_string(&mut answer).ok()?;
    answer
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .map(str::to_owned)
}
