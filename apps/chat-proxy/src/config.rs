//! The configuration file of the program: TOML text to [`ProxyConfig`], checked whole.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use chat_bus::{RedisConfig, RedisTls};
use chat_node::cluster::ClusterSection;
use chat_node::config::{self, Address, ByteSize, ConfigError, Problems};
use chat_node::reload::Reload;
use chat_node::tls::{self, TlsSection};
use chat_proto::frame::{REQUEST_FRAME_BYTES_MIN, RESPONSE_FRAME_BYTES_MIN};
use nexus_net::ProxyProtocol;
use nexus_net::ipnet::IpNet;
use nexus_rpc::registry::{StaticRegistry, ZooKeeperOptions};
use serde::Deserialize;

use crate::{ClientLimits, ProxyOptions};

/// Most event loops.
const LOOPS_MAX: usize = 256;

/// A login or a registration is not longer.
const LOGIN_BYTES_MAX: usize = 2 << 10;

/// Everything that the program needs to run. Not `Debug`: a url may hold a password.
#[derive(Clone)]
pub struct ProxyConfig {
    /// How the proxy serves.
    pub options: ProxyOptions,
    /// Event loops, each on a thread.
    pub loops: usize,
    /// Where the services are found; see [`nexus_rpc::registry::open`].
    pub registry_url: String,
    /// The bus.
    pub redis: RedisConfig,
    /// What is logged, unless `RUST_LOG` is set.
    pub log_level: String,
    /// How long a drain may take.
    pub grace: Duration,
    /// Where its pages are, if anywhere.
    pub admin: Option<SocketAddr>,
    /// What is read again at SIGHUP.
    pub reload: Reload,
}

/// Reads and checks the file.
///
/// # Errors
/// All that is wrong with it, each with file and key.
pub fn load(file: &Path) -> Result<ProxyConfig, ConfigError> {
    let raw: Raw = config::load(file)?;
    let mut problems = Problems::new(file);
    let checked = raw.check(&mut problems);
    problems.finish()?;
    Ok(checked)
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Raw {
    proxy: RawProxy,
    tls: TlsSection,
    cluster: ClusterSection,
    admin: RawAdmin,
    registry: RawRegistry,
    redis: RawRedis,
    limits: RawLimits,
    clients: ClientLimits,
    log: RawLog,
    shutdown: RawShutdown,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawProxy {
    listen: Option<Address>,
    proxy_protocol: Vec<String>,
    loops: usize,
    #[serde(with = "config::duration")]
    idle_timeout: Duration,
    #[serde(with = "config::duration")]
    idle_timeout_without_heartbeat: Duration,
    #[serde(with = "config::duration")]
    close_timeout: Duration,
    #[serde(with = "config::duration")]
    request_timeout: Duration,
    #[serde(with = "config::duration")]
    lease_ttl: Duration,
    #[serde(with = "config::duration")]
    ack_interval: Duration,
    #[serde(with = "config::duration")]
    gap_timeout: Duration,
    #[serde(with = "config::duration")]
    resync_interval: Duration,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawAdmin {
    listen: Option<Address>,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawRegistry {
    url: String,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawRedis {
    url: String,
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    prefix: String,
    #[serde(with = "config::duration")]
    timeout: Duration,
    connections_max: usize,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawLimits {
    connections_max: usize,
    frame_size_max: ByteSize,
    unauthenticated_frame_size_max: ByteSize,
    unauthenticated_size_max: ByteSize,
    requests_in_flight_per_session_max: usize,
    output_size_high: ByteSize,
    output_size_low: ByteSize,
    output_size_max: ByteSize,
    held_messages_max: usize,
    held_size_max: ByteSize,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawLog {
    level: String,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawShutdown {
    #[serde(with = "config::duration")]
    grace: Duration,
}

impl Default for RawProxy {
    fn default() -> Self {
        let options = ProxyOptions::default();
        Self {
            listen: None,
            proxy_protocol: Vec::new(),
            loops: 2,
            idle_timeout: options.idle_timeout,
            idle_timeout_without_heartbeat: options.idle_timeout_without_heartbeat,
            close_timeout: options.close_timeout,
            request_timeout: options.request_timeout,
            lease_ttl: options.lease_ttl,
            ack_interval: options.ack_interval,
            gap_timeout: options.gap_timeout,
            resync_interval: options.resync_interval,
        }
    }
}

impl Default for RawRegistry {
    fn default() -> Self {
        Self {
            url: "zookeeper://127.0.0.1:2181/nexus".to_owned(),
        }
    }
}

impl Default for RawRedis {
    fn default() -> Self {
        let redis = RedisConfig::new("redis://127.0.0.1:6379");
        Self {
            url: redis.url,
            ca: None,
            certificate: None,
            key: None,
            prefix: redis.key_prefix,
            timeout: redis.timeout,
            connections_max: redis.connections_max,
        }
    }
}

impl Default for RawLimits {
    fn default() -> Self {
        let options = ProxyOptions::default();
        let size = |bytes: usize| ByteSize::b(bytes as u64);
        Self {
            connections_max: options.connections_max,
            frame_size_max: size(options.frame_bytes_max),
            unauthenticated_frame_size_max: size(options.unauthenticated_frame_bytes_max),
            unauthenticated_size_max: size(options.unauthenticated_bytes_max),
            requests_in_flight_per_session_max: options.requests_in_flight_per_session_max,
            output_size_high: size(options.output_high_bytes),
            output_size_low: size(options.output_low_bytes),
            output_size_max: size(options.output_bytes_max),
            held_messages_max: options.held_messages_max,
            held_size_max: size(options.held_bytes_max),
        }
    }
}

impl Default for RawLog {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
        }
    }
}

impl Default for RawShutdown {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(10),
        }
    }
}

impl Raw {
    fn check(self, problems: &mut Problems) -> ProxyConfig {
        let mut options = self.options(problems);
        let mut reload = Reload::default();
        options.tls = self.tls.server("tls", problems, &mut reload);
        options.cluster = self.cluster.proxy_side(problems, &mut reload);
        options.proxy_protocol = proxy_protocol(&self.proxy.proxy_protocol, problems);
        let loops = self.proxy.loops;
        let in_range = (1..=LOOPS_MAX).contains(&loops);
        problems.require(
            "proxy.loops",
            in_range,
            format!("expected 1 to {LOOPS_MAX}"),
        );
        check_registry(&self.registry.url, problems);
        let mut redis = RedisConfig::new(self.redis.url);
        redis.key_prefix = self.redis.prefix;
        redis.timeout = self.redis.timeout;
        redis.connections_max = self.redis.connections_max;
        let (ca, certificate, key) = (self.redis.ca, self.redis.certificate, self.redis.key);
        if let Some(files) = tls::backend("redis", ca, certificate, key, problems) {
            let tls = RedisTls::from_pem(files.roots, files.identity);
            redis.tls = problems.accept("redis.ca", tls).inspect(|tls| {
                let tls = tls.clone();
                reload.add("[redis]", move || tls.reload());
            });
        }
        check_redis(&redis, problems);
        let level = &self.log.level;
        problems.require(
            "log.level",
            !level.trim().is_empty(),
            "expected a level, as \"info\"",
        );
        ProxyConfig {
            options,
            loops,
            registry_url: self.registry.url,
            redis,
            log_level: self.log.level,
            grace: self.shutdown.grace,
            admin: self.admin.listen.map(|listen| listen.socket_addr()),
            reload,
        }
    }

    fn options(&self, problems: &mut Problems) -> ProxyOptions {
        let (proxy, limits) = (&self.proxy, &self.limits);
        for (key, duration) in [
            ("proxy.idle_timeout", proxy.idle_timeout),
            (
                "proxy.idle_timeout_without_heartbeat",
                proxy.idle_timeout_without_heartbeat,
            ),
            ("proxy.close_timeout", proxy.close_timeout),
            ("proxy.request_timeout", proxy.request_timeout),
            ("proxy.lease_ttl", proxy.lease_ttl),
            ("proxy.ack_interval", proxy.ack_interval),
            ("proxy.gap_timeout", proxy.gap_timeout),
            ("proxy.resync_interval", proxy.resync_interval),
        ] {
            let range = Duration::from_millis(1)..=Duration::from_secs(24 * 60 * 60);
            problems.require(key, range.contains(&duration), "expected 1ms to 1day");
        }
        for (key, count) in [
            ("limits.connections_max", limits.connections_max),
            (
                "limits.requests_in_flight_per_session_max",
                limits.requests_in_flight_per_session_max,
            ),
            ("limits.held_messages_max", limits.held_messages_max),
        ] {
            problems.require(key, count > 0, "expected at least 1");
        }
        let mut size = |key: &str, size: ByteSize| {
            // Frames and buffers beyond a gibibyte are a slip of the pen.
            let bytes = usize::try_from(size.as_u64()).ok();
            let bytes = bytes.filter(|bytes| (1..=1 << 30).contains(bytes));
            problems.require(key, bytes.is_some(), "expected 1 B to 1 GiB");
            bytes.unwrap_or(1)
        };
        let options = ProxyOptions {
            listen: proxy
                .listen
                .as_ref()
                .map_or(ProxyOptions::default().listen, Address::socket_addr),
            clients: self.clients.clone(),
            connections_max: limits.connections_max,
            idle_timeout: proxy.idle_timeout,
            idle_timeout_without_heartbeat: proxy.idle_timeout_without_heartbeat,
            close_timeout: proxy.close_timeout,
            frame_bytes_max: size("limits.frame_size_max", limits.frame_size_max),
            unauthenticated_frame_bytes_max: size(
                "limits.unauthenticated_frame_size_max",
                limits.unauthenticated_frame_size_max,
            ),
            unauthenticated_bytes_max: size(
                "limits.unauthenticated_size_max",
                limits.unauthenticated_size_max,
            ),
            requests_in_flight_per_session_max: limits.requests_in_flight_per_session_max,
            output_high_bytes: size("limits.output_size_high", limits.output_size_high),
            output_low_bytes: size("limits.output_size_low", limits.output_size_low),
            output_bytes_max: size("limits.output_size_max", limits.output_size_max),
            held_messages_max: limits.held_messages_max,
            held_bytes_max: size("limits.held_size_max", limits.held_size_max),
            gap_timeout: proxy.gap_timeout,
            resync_interval: proxy.resync_interval,
            request_timeout: proxy.request_timeout,
            lease_ttl: proxy.lease_ttl,
            ack_interval: proxy.ack_interval,
            ..ProxyOptions::default()
        };
        options.clients.check(problems);
        problems.require(
            "limits.unauthenticated_frame_size_max",
            options.unauthenticated_frame_bytes_max >= LOGIN_BYTES_MAX,
            "expected at least 2 KiB, which a login may take",
        );
        problems.require(
            "limits.output_size_low",
            options.output_low_bytes <= options.output_high_bytes,
            "expected at most limits.output_size_high",
        );
        problems.require(
            "limits.frame_size_max",
            options.frame_bytes_max >= REQUEST_FRAME_BYTES_MIN,
            format!(
                "expected at least {REQUEST_FRAME_BYTES_MIN}B: the longest message has room in it"
            ),
        );
        let answered = options
            .output_high_bytes
            .saturating_add(RESPONSE_FRAME_BYTES_MIN);
        problems.require(
            "limits.output_size_max",
            answered <= options.output_bytes_max,
            format!(
                "expected at least limits.output_size_high and {RESPONSE_FRAME_BYTES_MIN}B: the largest answer"
            ),
        );
        options
    }
}

/// From where connections begin with the PROXY protocol's header.
fn proxy_protocol(sources: &[String], problems: &mut Problems) -> ProxyProtocol {
    if sources.is_empty() {
        return ProxyProtocol::Off;
    }
    let network = |source: &String| {
        let network = source.parse::<IpNet>();
        let network = network.or_else(|_| source.parse::<IpAddr>().map(IpNet::from));
        problems.accept(
            "proxy.proxy_protocol",
            network.map_err(|_| {
                format!("{source:?}: expected an address or a network, as \"10.1.0.0/16\"")
            }),
        )
    };
    ProxyProtocol::RequiredFrom(sources.iter().filter_map(network).collect())
}

fn check_registry(url: &str, problems: &mut Problems) {
    let key = "registry.url";
    if let Some(servers) = url.strip_prefix("zookeeper://") {
        let parsed = ZooKeeperOptions::parse(servers);
        problems.accept(key, parsed.and_then(|options| options.check()));
    } else if let Some(list) = url.strip_prefix("list://") {
        problems.accept(key, StaticRegistry::parse(list));
    } else {
        problems.add(
            key,
            "expected zookeeper://user:password@host:port,host:port/root (user and password are optional) or \
             list://host:port,host:port",
        );
    }
}

/// The bus itself knows what it can work with; it does not connect yet.
fn check_redis(redis: &RedisConfig, problems: &mut Problems) {
    match chat_bus::RedisBus::new(redis.clone()) {
        Ok(_) => {}
        Err(chat_bus::BusError::Config { key, reason }) => {
            let key = match key {
                "key_prefix" => "prefix",
                key => key,
            };
            problems.add(&format!("redis.{key}"), reason);
        }
        Err(error) => problems.add("redis", error),
    }
}

#[cfg(test)]
mod tests;
