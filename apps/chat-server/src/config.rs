//! The node's configuration: the TOML file as it is written, and what it comes to.
//!
//! `configs/server-1.toml` explains every key.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chat_bus::{Bus, BusError, LoginPolicy, RedisBus, RedisConfig, RedisTls};
use chat_node::cluster::ClusterSection;
use chat_node::config::{self, Address, ByteSize, ConfigError, Problems};
use chat_node::reload::Reload;
use chat_node::tls;
use chat_store::{MySqlOptions, MySqlStore, MySqlTls, SqliteStore, Store};
use nexus_net::ClientPemFiles;
use nexus_rpc::Pages;
use nexus_rpc::registry::{self, Registry};
use serde::Deserialize;

use crate::{ClientLimits, ServerOptions, ServiceName};

/// Room for several messages of the greatest size.
const UNSTORED_BYTES_MIN: usize = 1 << 20;
/// Shorter, and a client could not come back after a restart; longer is no expiry.
const SESSION_TTL: RangeInclusive<Duration> =
    Duration::from_secs(60)..=Duration::from_secs(10 * 366 * 24 * 3600);

/// A node, composed and not yet started.
pub struct Node {
    /// How the server runs.
    pub options: ServerOptions,
    /// Where users and messages are kept.
    pub store: Arc<dyn Store>,
    /// Presence, and the way to the proxies.
    pub bus: Arc<dyn Bus>,
    /// Where it registers.
    pub registry: Arc<dyn Registry>,
    /// Threads for connections.
    pub loops: usize,
    /// For the logger.
    pub log_level: String,
    /// How long stopping may take.
    pub grace: Duration,
    /// What is read again at SIGHUP.
    pub reload: Reload,
}

/// Reads and checks a configuration file. Nothing is opened but the file; a SQLite database is
/// made if it is configured.
///
/// # Errors
/// Everything that is wrong, by file and key.
pub fn load(file: &Path) -> Result<Node, ConfigError> {
    let raw: Raw = config::load(file)?;
    let mut problems = Problems::new(file);
    let mut reload = Reload::default();
    let mut options = ServerOptions::new(raw.server.listen.socket_addr());
    options.services = raw.server.services;
    problems.require(
        "server.services",
        !options.services.is_empty(),
        "expected at least one",
    );
    options.provider.advertise = raw.server.advertise.map(|address| address.socket_addr());
    let reachable = options.provider.advertise.unwrap_or(options.listen);
    problems.require(
        "server.advertise",
        !reachable.ip().is_unspecified(),
        "needed when `server.listen` is a wildcard: an address that proxies can reach",
    );
    options.gate = raw.cluster.server_side(&mut problems, &mut reload);
    problems.require(
        "server.listen",
        !options.gate.is_open() || raw.server.accept_anyone || options.listen.ip().is_loopback(),
        "whoever reaches this address could act for every user: say how proxies are known in [cluster], \
         or, where the network lets nobody else near, set `server.accept_anyone = true`",
    );
    if let Some(listen) = &raw.admin.listen {
        options.provider.http.pages = Pages::InnerPort(listen.socket_addr());
    }
    options.provider.discovery_delay = raw.shutdown.discovery_delay;
    options.provider.worker_threads = raw.server.workers;
    options.provider.worker_queue_max = raw.limits.worker_queue;
    options.group_members_max = raw.limits.group_members;
    options.writer.queue_max = raw.limits.unstored_messages;
    options.writer.queue_bytes_max = bytes(raw.limits.unstored_bytes);
    options.writer.batch_max = raw.limits.batch_messages;
    options.writer.commit_interval = raw.limits.commit_interval;
    raw.clients.check(&mut problems);
    options.clients = raw.clients;
    options.login_policy = match raw.server.login_policy {
        Policy::NewerWins => LoginPolicy::NewerWins,
        Policy::OlderWins => LoginPolicy::OlderWins,
    };
    options.session_ttl = raw.server.session_ttl;
    problems.require(
        "server.session_ttl",
        SESSION_TTL.contains(&options.session_ttl),
        "expected one minute to ten years",
    );
    for (key, value) in [
        ("server.loops", raw.server.loops),
        ("server.workers", raw.server.workers),
        ("limits.worker_queue", raw.limits.worker_queue),
        ("limits.group_members", raw.limits.group_members),
        ("limits.unstored_messages", raw.limits.unstored_messages),
        ("limits.batch_messages", raw.limits.batch_messages),
        ("store.connections", raw.store.connections),
    ] {
        problems.require(key, value > 0, "expected at least 1");
    }
    problems.require(
        "limits.unstored_bytes",
        options.writer.queue_bytes_max >= UNSTORED_BYTES_MIN,
        "expected at least 1 MiB",
    );
    problems.require(
        "limits.commit_interval",
        raw.limits.commit_interval <= Duration::from_secs(1),
        "expected at most 1s: every message of a busy chat waits for it",
    );
    for (key, value) in [
        ("store.connect_timeout", raw.store.connect_timeout),
        ("store.timeout", raw.store.timeout),
        ("store.stalled_after", raw.store.stalled_after),
    ] {
        problems.require(key, !value.is_zero(), "expected more than 0");
    }
    // Two of the connections are the messages'. With as many workers as there are others, a database that hangs
    // would hold every worker.
    problems.require(
        "server.workers",
        raw.server.workers + 2 > raw.store.connections,
        "expected at least `store.connections` - 1",
    );
    let mut of_store = raw.store;
    let (ca, certificate, key) = (
        of_store.ca.take(),
        of_store.certificate.take(),
        of_store.key.take(),
    );
    let tls = tls::backend("store", ca, certificate, key, &mut problems);
    let store = problems.accept("store.url", open_store(&of_store, tls));
    let mut redis = RedisConfig::new(raw.redis.url);
    let (ca, certificate, key) = (raw.redis.ca, raw.redis.certificate, raw.redis.key);
    if let Some(files) = tls::backend("redis", ca, certificate, key, &mut problems) {
        let tls = RedisTls::from_pem(files.roots, files.identity);
        redis.tls = problems.accept("redis.ca", tls).inspect(|tls| {
            let tls = tls.clone();
            reload.add("[redis]", move || tls.reload());
        });
    }
    redis.key_prefix = raw.redis.prefix;
    redis.timeout = raw.redis.timeout;
    redis.connections_max = raw.redis.connections_max;
    let bus = match RedisBus::new(redis) {
        Err(BusError::Config { key, reason }) => {
            problems.add(&format!("redis.{key}"), reason);
            None
        }
        bus => problems.accept("redis", bus),
    };
    let registry = problems.accept("registry.url", registry::open(&raw.registry.url));
    problems.finish()?;
    let (Some(store), Some(bus), Some(registry)) = (store, bus, registry) else {
        unreachable!("what was not accepted is a problem, and those were reported");
    };
    Ok(Node {
        options,
        store,
        bus: Arc::new(bus),
        registry,
        loops: raw.server.loops,
        log_level: raw.log.level,
        grace: raw.shutdown.grace,
        reload,
    })
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(Debug))]
#[serde(deny_unknown_fields)]
struct Raw {
    server: RawServer,
    store: RawStore,
    redis: RawRedis,
    registry: RawRegistry,
    #[serde(default)]
    cluster: ClusterSection,
    #[serde(default)]
    admin: RawAdmin,
    #[serde(default)]
    limits: RawLimits,
    #[serde(default)]
    clients: ClientLimits,
    #[serde(default)]
    log: RawLog,
    #[serde(default)]
    shutdown: RawShutdown,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(Debug))]
#[serde(deny_unknown_fields)]
struct RawServer {
    listen: Address,
    advertise: Option<Address>,
    #[serde(default)]
    accept_anyone: bool,
    #[serde(default = "all_services")]
    services: BTreeSet<ServiceName>,
    #[serde(default)]
    login_policy: Policy,
    #[serde(with = "config::duration", default = "thirty_days")]
    session_ttl: Duration,
    #[serde(default = "two")]
    loops: usize,
    #[serde(default = "sixteen")]
    workers: usize,
}

#[derive(Deserialize, Default)]
#[cfg_attr(test, derive(Debug))]
#[serde(rename_all = "kebab-case")]
enum Policy {
    #[default]
    NewerWins,
    OlderWins,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(Debug))]
#[serde(deny_unknown_fields)]
struct RawStore {
    url: String,
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    #[serde(default = "sixteen")]
    connections: usize,
    #[serde(with = "config::duration", default = "two_seconds")]
    connect_timeout: Duration,
    #[serde(with = "config::duration", default = "five_seconds")]
    timeout: Duration,
    #[serde(with = "config::duration", default = "one_second")]
    stalled_after: Duration,
    #[serde(default = "cache_bytes")]
    cache_bytes: ByteSize,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(Debug))]
#[serde(deny_unknown_fields)]
struct RawRedis {
    url: String,
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    #[serde(default = "prefix")]
    prefix: String,
    #[serde(with = "config::duration", default = "one_second")]
    timeout: Duration,
    #[serde(default = "eight")]
    connections_max: usize,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(Debug))]
#[serde(deny_unknown_fields)]
struct RawRegistry {
    url: String,
}

#[derive(Deserialize, Default)]
#[cfg_attr(test, derive(Debug))]
#[serde(deny_unknown_fields, default)]
struct RawAdmin {
    listen: Option<Address>,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(Debug))]
#[serde(deny_unknown_fields, default)]
struct RawLimits {
    worker_queue: usize,
    group_members: usize,
    unstored_messages: usize,
    unstored_bytes: ByteSize,
    batch_messages: usize,
    #[serde(with = "config::duration")]
    commit_interval: Duration,
}

impl Default for RawLimits {
    fn default() -> Self {
        Self {
            worker_queue: 4096,
            group_members: 1000,
            unstored_messages: 65_536,
            unstored_bytes: ByteSize::mib(64),
            batch_messages: 512,
            commit_interval: Duration::from_millis(5),
        }
    }
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(Debug))]
#[serde(deny_unknown_fields, default)]
struct RawLog {
    level: String,
}

impl Default for RawLog {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
        }
    }
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(Debug))]
#[serde(deny_unknown_fields, default)]
struct RawShutdown {
    #[serde(with = "config::duration")]
    grace: Duration,
    #[serde(with = "config::duration")]
    discovery_delay: Duration,
}

impl Default for RawShutdown {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(10),
            discovery_delay: Duration::from_millis(500),
        }
    }
}

fn all_services() -> BTreeSet<ServiceName> {
    ServiceName::ALL.into()
}

fn thirty_days() -> Duration {
    Duration::from_secs(30 * 24 * 3600)
}

fn two() -> usize {
    2
}

fn eight() -> usize {
    8
}

fn sixteen() -> usize {
    16
}

fn one_second() -> Duration {
    Duration::from_secs(1)
}

fn two_seconds() -> Duration {
    Duration::from_secs(2)
}

fn five_seconds() -> Duration {
    Duration::from_secs(5)
}

fn cache_bytes() -> ByteSize {
    ByteSize::mib(64)
}

/// On a machine whose addresses are shorter, the most that it can address.
fn bytes(size: ByteSize) -> usize {
    usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
}

fn prefix() -> String {
    "nexus:".to_owned()
}

fn open_store(raw: &RawStore, tls: Option<ClientPemFiles>) -> Result<Arc<dyn Store>, String> {
    let url = raw.url.as_str();
    if let Some(path) = url.strip_prefix("sqlite://") {
        let store = SqliteStore::open(path).map_err(|error| error.to_string())?;
        return Ok(Arc::new(store));
    }
    if !url.starts_with("mysql://") {
        return Err(format!(
            "expected mysql://user:password@host:port/database or sqlite://PATH, found {:?}",
            url.split(':').next().unwrap_or_default()
        ));
    }
    let mut options = MySqlOptions::new(url);
    options.connections_max = raw.connections.max(1);
    options.connect_timeout = raw.connect_timeout;
    options.io_timeout = raw.timeout;
    options.stalled_after = raw.stalled_after;
    options.cache_bytes = bytes(raw.cache_bytes);
    options.tls = tls.map(|files| MySqlTls {
        ca: files.roots,
        identity: files.identity,
    });
    match MySqlStore::new(options) {
        Ok(store) => Ok(Arc::new(store)),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
