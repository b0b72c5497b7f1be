//! Starts real servers for tests and for `cargo xtask up`: MariaDB, Redis, ZooKeeper and nginx
//! from Debian's packages, each on free ports of 127.0.0.1, with data of its own.
//!
//! # Layout
//!
//! | module | holds |
//! |---|---|
//! | [`mariadb`], [`redis`], [`zookeeper`], [`nginx`] | one server each |
//! | [`relay`] | a network between two parts that can be taken away |
//! | [`process`] | a child process and its verbs: kill, stop, restart, pause, resume |
//! | [`programs`] | which programs are needed and which Debian package brings them |
//! | [`cluster`] | a whole chat cluster of them |
//! | [`certificates`] | authorities and certificates, for those with TLS |
//! | `node_config` | the configuration files of its nodes |
//! | `config_keys` | whether a configuration file shows every key |
//! | `binaries` | building the nodes |
//! | `guardian` | sees to it that nothing outlives this process |
//! | `home` | the folder a server lives in |
//!
//! # What holds for every server
//!
//! - `start` returns when the server answers, or with an error that carries the end of its log.
//! - A server derefs to its [`Process`]: `server.kill()`, `server.restart()` and so on.
//! - Dropping it ends its process, by process id, and removes its temporary files.
//! - So it is when the process that started it dies, however that dies.
//!
//! ```no_run
//! let redis = nexus_testkit::Redis::start()?;
//! println!("{}", redis.url());
//! redis.kill();
//! redis.restart()?;
//! # Ok::<(), nexus_testkit::Error>(())
//! ```

#![forbid(unsafe_code)]

mod binaries;
pub mod certificates;
pub mod cluster;
mod config_keys;
mod error;
mod guardian;
mod home;
mod limits;
mod links;
pub mod mariadb;
pub mod nginx;
mod node_config;
pub mod ports;
pub mod process;
pub mod programs;
pub mod redis;
pub mod relay;
mod wait;
pub mod zookeeper;

pub use binaries::{Profile, build_binaries, build_binaries_with, cargo};
pub use certificates::{Authority, ClusterFiles, Identity, ServerFiles};
pub use cluster::{Cluster, ClusterOptions, Link, Node};
pub use config_keys::assert_keys_stand;
pub use error::Error;
pub use home::Home;
pub use mariadb::{MariaDb, MariaDbOptions};
pub use nginx::{Nginx, NginxConfig};
pub use ports::free_port;
pub use process::{Launch, Process};
pub use redis::{Redis, RedisOptions};
pub use relay::Relay;
pub use wait::{repository_root, wait_until};
pub use zookeeper::{ZooKeeper, ZooKeeperEnsemble, ZooKeeperOptions};
