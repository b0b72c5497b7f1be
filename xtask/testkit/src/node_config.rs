//! The configuration files of a cluster's nodes. Keys that are not written keep the defaults the
//! files in `configs/` explain.

use std::net::SocketAddr;

/// What all nodes of a cluster work with.
pub(crate) struct Backends {
    /// `mysql://...`
    pub(crate) mariadb: String,
    /// `redis://...`
    pub(crate) redis: String,
    /// `host:port,host:port,...`
    pub(crate) zookeeper: String,
}

/// The configuration of a chat server.
pub(crate) fn server(listen: SocketAddr, backends: &Backends) -> String {
    let Backends {
        mariadb,
        redis,
        zookeeper,
    } = backends;
    format!(
        "[server]\n\
         listen = \"{listen}\"\n\
         \n\
         [store]\n\
         url = \"{mariadb}\"\n\
         \n\
         [redis]\n\
         url = \"{redis}\"\n\
         \n\
         [registry]\n\
         url = \"zookeeper://{zookeeper}/nexus\"\n"
    )
}

/// The configuration of a proxy.
pub(crate) fn proxy(listen: SocketAddr, backends: &Backends) -> String {
    let Backends {
        mariadb: _,
        redis,
        zookeeper,
    } = backends;
    format!(
        "[proxy]\n\
         listen = \"{listen}\"\n\
         \n\
         [redis]\n\
         url = \"{redis}\"\n\
         \n\
         [registry]\n\
         url = \"zookeeper://{zookeeper}/nexus\"\n"
    )
}
