//! A whole chat cluster on this machine, every part a process of its own.
//!
//! ```text
//! clients ── nginx ── proxies ── servers ── MariaDB
//!                        │  └── ZooKeeper ──┘ │
//!                        └────── Redis ───────┘
//! ```
//!
//! With [`ClusterOptions::relayed`] each line of the picture is a [`Relay`] that can be silenced or cut.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Deref;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use crate::certificates::ClusterFiles;
use crate::home::Home;
use crate::links::Links;
use crate::node_config::{self, Backends, Place};
use crate::process::{Launch, Process};
use crate::{
    Error, MariaDb, MariaDbOptions, Nginx, NginxConfig, Redis, RedisOptions, Relay, ZooKeeper,
    ZooKeeperEnsemble, ZooKeeperOptions, free_port,
};

pub use crate::links::Link;

/// Where nginx's connections come from when the proxies are to believe what it says of its clients. Tests
/// connect from 127.0.0.1, and so are who they are.
const BALANCER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

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
    links: Links,
    files: Option<ClusterFiles>,
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
    /// Whether the parts reach each other through relays; see [`Cluster::link`]. Nodes then know the first
    /// ZooKeeper server only. Default: no.
    pub relayed: bool,
    /// The event loops of each node; by default the nodes' own number.
    pub loops: Option<usize>,
    /// The proxies' `idle_timeout`; by default the proxies' own.
    pub idle_timeout: Option<Duration>,
    /// Whether everything between the parts is TLS, with certificates on both sides and a secret, and the
    /// clients' side, too; all but ZooKeeper. See [`Cluster::files`]. Default: no.
    pub tls: bool,
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
            relayed: false,
            loops: None,
            idle_timeout: None,
            tls: false,
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
        let files = match options.tls {
            true => Some(ClusterFiles::open(home.path())?),
            false => None,
        };
        // A relay in between connects from the machine's own address.
        let balancer = match options.relayed {
            true => IpAddr::V4(Ipv4Addr::LOCALHOST),
            false => BALANCER,
        };
        // Each of them takes seconds.
        let (mariadb, redis, zookeeper) = thread::scope(|scope| {
            let mariadb = scope.spawn(|| {
                MariaDb::start_with(MariaDbOptions {
                    data_dir: Some(home.join("mariadb")),
                    tls: files.as_ref().map(ClusterFiles::backend),
                    ..MariaDbOptions::default()
                })
            });
            let redis = scope.spawn(|| {
                Redis::start_with(RedisOptions {
                    port: None,
                    data_dir: Some(home.join("redis")),
                    tls: files.as_ref().map(ClusterFiles::backend),
                })
            });
            let zookeeper_options = ZooKeeperOptions {
                data_dir: Some(home.path().to_path_buf()),
                ..ZooKeeperOptions::default()
            };
            let zookeeper = ZooKeeperEnsemble::start_with(options.zookeepers, zookeeper_options);
            (joined(mariadb), joined(redis), zookeeper)
        });
        let (mariadb, redis, zookeeper) = (mariadb?, redis?, zookeeper?);
        let mut links = Links::new(options.relayed);

        let mut servers = Vec::with_capacity(options.servers);
        for index in 0..options.servers {
            let listen = free_address();
            let place = Place {
                listen,
                reached_by: links.lay(Link::ProxiesToServer(index), listen)?,
            };
            let store = links.lay(Link::ServerToMariaDb(index), mariadb.address())?;
            let backends = Backends {
                loops: options.loops,
                redis: redis.url_at(links.lay(Link::ServerToRedis(index), redis.address())?),
                zookeeper: zookeepers(&zookeeper, &mut links, Link::ServerToZooKeeper(index))?,
            };
            servers.push(Node::spawn(
                &home,
                format!("chat-server-{}", index + 1),
                options.binaries.join("chat-server"),
                listen,
                &node_config::server(place, &mariadb.url_at(store), &backends, files.as_ref()),
                Ready::Says,
            )?);
        }
        servers.iter().try_for_each(|node| node.wait_ready())?;

        let mut proxies = Vec::with_capacity(options.proxies);
        let mut upstreams = Vec::with_capacity(options.proxies);
        for index in 0..options.proxies {
            let listen = free_address();
            let backends = Backends {
                loops: options.loops,
                redis: redis.url_at(links.lay(Link::ProxyToRedis(index), redis.address())?),
                zookeeper: zookeepers(&zookeeper, &mut links, Link::ProxyToZooKeeper(index))?,
            };
            proxies.push(Node::spawn(
                &home,
                format!("chat-proxy-{}", index + 1),
                options.binaries.join("chat-proxy"),
                listen,
                &node_config::proxy(
                    listen,
                    options.idle_timeout,
                    &backends,
                    files.as_ref().map(|files| (files, balancer)),
                ),
                Ready::SaysAndAccepts,
            )?);
            upstreams.push(links.lay(Link::NginxToProxy(index), listen)?);
        }
        proxies.iter().try_for_each(|node| node.wait_ready())?;

        let nginx = Nginx::start(NginxConfig {
            listen: options.listen,
            upstreams,
            data_dir: Some(home.join("nginx")),
            proxy_protocol: options.tls,
            bind: options.tls.then_some(balancer),
            ..NginxConfig::default()
        })?;
        Ok(Self {
            nginx,
            proxies,
            servers,
            zookeeper,
            redis,
            mariadb,
            links,
            files,
            home,
        })
    }

    /// A network between two parts.
    ///
    /// # Panics
    ///
    /// When the cluster is not [relayed](ClusterOptions::relayed), or has no such link.
    #[track_caller]
    pub fn link(&self, link: Link) -> &Relay {
        self.links
            .get(link)
            .unwrap_or_else(|| panic!("{link:?} is not a relayed link of this cluster"))
    }

    /// All networks between parts, in the order of [`Link`]; none when the cluster is not
    /// [relayed](ClusterOptions::relayed).
    pub fn links(&self) -> impl Iterator<Item = (Link, &Relay)> {
        self.links.all()
    }

    /// Where clients join: nginx.
    pub fn address(&self) -> SocketAddr {
        self.nginx.address()
    }

    /// The folder all data, configurations and logs are in.
    pub fn data_dir(&self) -> &std::path::Path {
        self.home.path()
    }

    /// Certificates, keys and the secret of a cluster with [TLS](ClusterOptions::tls).
    pub fn files(&self) -> Option<&ClusterFiles> {
        self.files.as_ref()
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

fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

fn free_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))
}

/// The connect string for one node.
fn zookeepers(
    ensemble: &ZooKeeperEnsemble,
    links: &mut Links,
    link: Link,
) -> Result<String, Error> {
    let Some(first) = ensemble.nodes().first() else {
        return Ok(String::new());
    };
    let target = SocketAddr::from((Ipv4Addr::LOCALHOST, ZooKeeper::port(first)));
    let address = links.lay(link, target)?;
    Ok(if address == target {
        ensemble.addresses()
    } else {
        address.to_string()
    })
}

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
