//! A whole chat cluster on this machine, every part a process of its own.
//!
//! ```text
//! clients ── nginx ── proxies ── servers ── MariaDB
//!                        │  └── ZooKeeper ──┘ │
//!                        └────── Redis ───────┘
//! ```

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Deref;
use std::path::PathBuf;

use crate::home::Home;
use crate::node_config::{self, Backends};
use crate::process::{Launch, Process};
use crate::{
    Error, MariaDb, MariaDbOptions, Nginx, NginxConfig, Redis, RedisOptions, ZooKeeperEnsemble,
    free_port,
};

/// A running cluster. Dropping it kills all of it; to stop it in order, stop
/// [`Self::processes`] from the last to the first.
#[derive(Debug)]
pub struct Cluster {
    // In this order they are dropped: those that depend before those they depend on.
    nginx: Nginx,
    proxies: Vec<Node>,
    servers: Vec<Node>,
    zookeeper: ZooKeeperEnsemble,
    redis: Redis,
    mariadb: MariaDb,
    home: Home,
}

/// What a [`Cluster`] consists of.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// How many chat servers. Default 2.
    pub servers: usize,
    /// How many proxies, at least one. Default 2.
    pub proxies: usize,
    /// How many ZooKeeper servers. Default 1.
    pub zookeepers: usize,
    /// Where nginx accepts clients. By default a free port of 127.0.0.1.
    pub listen: SocketAddr,
    /// The folder of all data, configurations and logs; data that is there already is taken up
    /// again. By default a temporary one.
    pub data_dir: Option<PathBuf>,
    /// The folder `chat-server` and `chat-proxy` are in; see
    /// [`build_binaries`](crate::build_binaries).
    pub binaries: PathBuf,
}

/// A chat server or a proxy. Derefs to its [`Process`].
#[derive(Debug)]
pub struct Node {
    process: Process,
    address: SocketAddr,
}

impl ClusterOptions {
    /// The defaults, with the binaries of this folder.
    pub fn new(binaries: PathBuf) -> Self {
        Self {
            servers: 2,
            proxies: 2,
            zookeepers: 1,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            data_dir: None,
            binaries,
        }
    }
}

impl Cluster {
    /// Starts the backends, then the servers, then the proxies, then nginx, and returns when a
    /// client can join.
    ///
    /// # Errors
    ///
    /// Those of the parts: see [`MariaDb::start`], [`Process::start`]. What was started is ended.
    pub fn start(options: ClusterOptions) -> Result<Self, Error> {
        let home = Home::open(options.data_dir, "cluster")?;
        let mariadb = MariaDb::start_with(MariaDbOptions {
            port: None,
            data_dir: Some(home.join("mariadb")),
        })?;
        let redis = Redis::start_with(RedisOptions {
            port: None,
            data_dir: Some(home.join("redis")),
        })?;
        let zookeeper =
            ZooKeeperEnsemble::start_in(options.zookeepers, Some(home.path().to_path_buf()))?;
        let backends = Backends {
            mariadb: mariadb.url(),
            redis: redis.url(),
            zookeeper: zookeeper.addresses(),
        };

        let start_nodes = |count, program: &str, config: NodeConfig, ready| {
            let nodes = (1..=count)
                .map(|number| {
                    let name = format!("{program}-{number}");
                    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
                    let config = config(address, &backends);
                    let program = options.binaries.join(program);
                    Node::spawn(&home, name, program, address, &config, ready)
                })
                .collect::<Result<Vec<_>, _>>()?;
            nodes.iter().try_for_each(|node| node.wait_ready())?;
            Ok::<_, Error>(nodes)
        };
        let servers = start_nodes(
            options.servers,
            "chat-server",
            node_config::server,
            Ready::Says,
        )?;
        let proxies = start_nodes(
            options.proxies,
            "chat-proxy",
            node_config::proxy,
            Ready::SaysAndAccepts,
        )?;

        let nginx = Nginx::start(NginxConfig {
            listen: options.listen,
            upstreams: proxies.iter().map(Node::address).collect(),
            data_dir: Some(home.join("nginx")),
            ..NginxConfig::default()
        })?;
        Ok(Self {
            nginx,
            proxies,
            servers,
            zookeeper,
            redis,
            mariadb,
            home,
        })
    }

    /// Where clients join: nginx.
    pub fn address(&self) -> SocketAddr {
        self.nginx.address()
    }

    /// The folder all data, configurations and logs are in.
    pub fn data_dir(&self) -> &std::path::Path {
        self.home.path()
    }

    /// The proxy in front.
    pub fn nginx(&self) -> &Nginx {
        &self.nginx
    }

    /// The proxies.
    pub fn proxies(&self) -> &[Node] {
        &self.proxies
    }

    /// The `index`th proxy, from 0.
    ///
    /// # Panics
    ///
    /// When there are not as many.
    #[track_caller]
    pub fn proxy(&self, index: usize) -> &Node {
        &self.proxies[index]
    }

    /// The chat servers.
    pub fn servers(&self) -> &[Node] {
        &self.servers
    }

    /// The `index`th chat server, from 0.
    ///
    /// # Panics
    ///
    /// When there are not as many.
    #[track_caller]
    pub fn server(&self, index: usize) -> &Node {
        &self.servers[index]
    }

    /// The registry: an ensemble, also when it is of one.
    pub fn zookeeper(&self) -> &ZooKeeperEnsemble {
        &self.zookeeper
    }

    /// The bus.
    pub fn redis(&self) -> &Redis {
        &self.redis
    }

    /// The store.
    pub fn mariadb(&self) -> &MariaDb {
        &self.mariadb
    }

    /// All processes, in the order they were started in.
    pub fn processes(&self) -> Vec<&Process> {
        let mut processes: Vec<&Process> = vec![&self.mariadb, &self.redis];
        processes.extend(self.zookeeper.nodes().iter().map(Deref::deref));
        processes.extend(self.servers.iter().map(Deref::deref));
        processes.extend(self.proxies.iter().map(Deref::deref));
        processes.push(&self.nginx);
        processes
    }
}

/// Writes the configuration of a node: its address, what it works with.
type NodeConfig = fn(SocketAddr, &Backends) -> String;

/// How a node shows that it is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ready {
    /// It logs so.
    Says,
    /// It logs so, and accepts connections.
    SaysAndAccepts,
}

impl Node {
    /// Where it accepts: a server its RPC, a proxy its clients.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn spawn(
        home: &Home,
        name: String,
        program: PathBuf,
        address: SocketAddr,
        config: &str,
        ready: Ready,
    ) -> Result<Self, Error> {
        let home = Home::open(Some(home.join(&name)), &name)?;
        let config = home.write("config.toml", config)?;
        let process = Process::spawn(Launch {
            program,
            args: vec!["-i".into(), config.into()],
            log: home.join(&format!("{name}.log")),
            name,
            ready: Box::new(move |output| {
                output.any_line(says_ready)
                    && (ready == Ready::Says || TcpStream::connect(address).is_ok())
            }),
        })?;
        Ok(Self { process, address })
    }
}

impl Deref for Node {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

/// Whether a line is, or as a record of a log carries, the message `ready ...`.
fn says_ready(line: &str) -> bool {
    line.starts_with("ready") || line.contains(": ready")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_ready_when_its_message_says_so_and_not_when_the_word_occurs() {
        assert!(says_ready("ready on 127.0.0.1:1"));
        assert!(says_ready(
            "2026-01-01T00:00:00Z INFO  main chat_proxy: ready on 127.0.0.1:1"
        ));
        assert!(!says_ready(
            "2026-01-01T00:00:00Z WARN  main chat_proxy: not ready yet"
        ));
        assert!(!says_ready("ERROR main chat_proxy: address already in use"));
    }
}
