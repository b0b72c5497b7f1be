//! The configuration files of a cluster's nodes. Keys that are not written keep the defaults the
//! files in `configs/` explain.

use std::net::SocketAddr;
use std::time::Duration;

/// What all nodes of a cluster work with, as one of them finds it.
pub(crate) struct Backends {
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
pub(crate) fn server(place: Place, store: &str, backends: &Backends) -> String {
    let Backends { redis, zookeeper } = backends;
    let Place { listen, reached_by } = place;
    let advertise = (reached_by != listen).then(|| format!("advertise = \"{reached_by}\"\n"));
    format!(
        "[server]\n\
         listen = \"{listen}\"\n\
         {advertise}\
         \n\
         [store]\n\
         url = \"{store}\"\n\
         \n\
         [redis]\n\
         url = \"{redis}\"\n\
         \n\
         [registry]\n\
         url = \"zookeeper://{zookeeper}/nexus\"\n",
        advertise = advertise.unwrap_or_default(),
    )
}

/// The configuration of a proxy.
pub(crate) fn proxy(
    listen: SocketAddr,
    idle_timeout: Option<Duration>,
    backends: &Backends,
) -> String {
    let Backends { redis, zookeeper } = backends;
    let idle = idle_timeout.map(|time| format!("idle_timeout = \"{}ms\"\n", time.as_millis()));
    format!(
        "[proxy]\n\
         listen = \"{listen}\"\n\
         {idle}\
         \n\
         [redis]\n\
         url = \"{redis}\"\n\
         \n\
         [registry]\n\
         url = \"zookeeper://{zookeeper}/nexus\"\n",
        idle = idle.unwrap_or_default(),
    )
}
