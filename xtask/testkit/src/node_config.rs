//! The configuration files of a cluster's nodes. Keys that are not written keep the defaults the
//! files in `configs/` explain.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use crate::certificates::{ClusterFiles, Identity};

/// All clients of a test come from this machine, and more of them, and faster, than from any other.
const SERVER_CLIENTS: &str = "[clients]\n\
     registrations_per_address = \"1000000/1m\"\n\
     registrations = \"1000000/1m\"\n\
     failed_logins_per_address = \"1000000/1m\"\n\
     password_hashes_waiting_max = 4096\n\
     password_characters_min = 1\n\
     friends_max = 100000\n\
     groups_max = 100000\n";
const PROXY_CLIENTS: &str = "[clients]\n\
     connections_per_address_max = 100000\n\
     logins_per_address = \"1000000/1s\"\n\
     requests_per_connection = \"1000000/1s\"\n\
     messages_per_user = \"1000000/1s\"\n";

/// What all nodes of a cluster have in common, as one of them finds it.
pub(crate) struct Backends {
    /// Event loops; the nodes' own number if `None`.
    pub(crate) loops: Option<usize>,
    /// `redis://...`
    pub(crate) redis: String,
    /// `host:port,host:port,...`
    pub(crate) zookeeper: String,
}

/// Where a server listens.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) listen: SocketAddr,
    /// Where it is to be found, if that is elsewhere.
    pub(crate) reached_by: SocketAddr,
}

/// The configuration of a chat server; `store` is the URL of its database.
pub(crate) fn server(
    place: Place,
    store: &str,
    backends: &Backends,
    tls: Option<&ClusterFiles>,
) -> String {
    let tls = tls.map(server_tls).unwrap_or_default();
    let Backends {
        loops,
        redis,
        zookeeper,
    } = backends;
    let loops = loops.map(|loops| format!("loops = {loops}\n"));
    let Place { listen, reached_by } = place;
    let advertise = (reached_by != listen).then(|| format!("advertise = \"{reached_by}\"\n"));
    format!(
        "[server]\n\
         listen = \"{listen}\"\n\
         {loops}\
         {advertise}\
         \n\
         [store]\n\
         url = \"{store}\"\n\
         {store_tls}\
         \n\
         [redis]\n\
         url = \"{redis}\"\n\
         {redis_tls}\
         \n\
         [registry]\n\
         url = \"zookeeper://{zookeeper}/nexus\"\n\
         {cluster}\
         \n\
         {SERVER_CLIENTS}",
        loops = loops.unwrap_or_default(),
        advertise = advertise.unwrap_or_default(),
        store_tls = tls.store,
        redis_tls = tls.redis,
        cluster = tls.cluster,
    )
}

/// The configuration of a proxy.
pub(crate) fn proxy(
    listen: SocketAddr,
    idle_timeout: Option<Duration>,
    backends: &Backends,
    tls: Option<(&ClusterFiles, IpAddr)>,
) -> String {
    let tls = tls.map(|(files, balancer)| proxy_tls(files, balancer));
    let tls = tls.unwrap_or_default();
    let Backends {
        loops,
        redis,
        zookeeper,
    } = backends;
    let loops = loops.map(|loops| format!("loops = {loops}\n"));
    let idle = idle_timeout.map(|time| format!("idle_timeout = \"{}ms\"\n", time.as_millis()));
    format!(
        "[proxy]\n\
         listen = \"{listen}\"\n\
         {loops}\
         {idle}\
         {node}\
         \n\
         [redis]\n\
         url = \"{redis}\"\n\
         {redis_tls}\
         \n\
         [registry]\n\
         url = \"zookeeper://{zookeeper}/nexus\"\n\
         {cluster}\
         \n\
         {PROXY_CLIENTS}",
        loops = loops.unwrap_or_default(),
        idle = idle.unwrap_or_default(),
        node = tls.node,
        redis_tls = tls.redis,
        cluster = tls.cluster,
    )
}

/// What a chat server's configuration says beside when the cluster has TLS.
pub(crate) fn server_tls(files: &ClusterFiles) -> Sections {
    let backend = backend(files);
    Sections {
        cluster: cluster(files),
        store: backend.clone(),
        redis: backend,
        ..Sections::default()
    }
}

/// What a proxy's configuration says beside when the cluster has TLS; its load balancer comes from
/// `balancer`.
pub(crate) fn proxy_tls(files: &ClusterFiles, balancer: IpAddr) -> Sections {
    Sections {
        cluster: format!("{}\n[tls]\n{}", cluster(files), identity(&files.proxy)),
        node: format!("proxy_protocol = [\"{balancer}\"]\n"),
        redis: backend(files),
        ..Sections::default()
    }
}

/// Lines for the sections of a node's configuration; empty without TLS.
#[derive(Default)]
pub(crate) struct Sections {
    /// For `[server]` or `[proxy]`.
    pub(crate) node: String,
    /// Sections of their own.
    pub(crate) cluster: String,
    pub(crate) store: String,
    pub(crate) redis: String,
}

fn cluster(files: &ClusterFiles) -> String {
    format!(
        "\n[cluster]\nsecret_file = {secret}\nca = {ca}\n{node}",
        secret = quoted(&files.secret()),
        ca = quoted(&files.inner_ca.certificate()),
        node = identity(&files.node),
    )
}

/// Keys of `[store]` and `[redis]`.
fn backend(files: &ClusterFiles) -> String {
    let ca = quoted(&files.inner_ca.certificate());
    format!("ca = {ca}\n{}", identity(&files.node))
}

fn identity(identity: &Identity) -> String {
    let (certificate, key) = (quoted(&identity.certificate), quoted(&identity.key));
    format!("certificate = {certificate}\nkey = {key}\n")
}

/// As TOML has it.
fn quoted(path: &Path) -> String {
    format!("{:?}", path.display().to_string())
}
