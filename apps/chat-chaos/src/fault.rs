//! What can be done to a cluster, and how it is called.

use std::fmt;
use std::str::FromStr;

use nexus_testkit::Link;

/// Proxies of the cluster that is hurt.
pub const PROXIES: usize = 2;
/// Its chat servers.
pub const SERVERS: usize = 2;

/// A process of the cluster. Nodes are counted from 0, and printed from 1 as in their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// A proxy.
    Proxy(usize),
    /// A chat server.
    Server(usize),
    /// The bus.
    Redis,
    /// The registry.
    ZooKeeper,
    /// What stands in front of the proxies.
    Nginx,
    /// The store.
    MariaDb,
}

/// Something that is done to a chat, and undone after a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// SIGKILL, and after a while a new start. Redis comes back empty.
    Kill(Part),
    /// SIGSTOP, and after a while SIGCONT.
    Pause(Part),
    /// A network that loses everything.
    Silence(Link),
    /// Half of the clients lose their network, without a goodbye, and come back by another way.
    VanishClients,
    /// No space is left on the disk of a standalone chat.
    FillDisk,
}

impl Fault {
    /// Every fault there is.
    pub fn all() -> Vec<Self> {
        let parts = || {
            let proxies = (0..PROXIES).map(Part::Proxy);
            let servers = (0..SERVERS).map(Part::Server);
            let others = [Part::Redis, Part::ZooKeeper, Part::Nginx, Part::MariaDb];
            proxies.chain(servers).chain(others)
        };
        let of_proxy = |index| {
            [
                Link::NginxToProxy(index),
                Link::ProxyToRedis(index),
                Link::ProxyToZooKeeper(index),
            ]
        };
        let of_server = |index| {
            [
                Link::ProxiesToServer(index),
                Link::ServerToMariaDb(index),
                Link::ServerToRedis(index),
                Link::ServerToZooKeeper(index),
            ]
        };
        let links = (0..PROXIES)
            .flat_map(of_proxy)
            .chain((0..SERVERS).flat_map(of_server));
        let kills = parts().map(Self::Kill);
        let pauses = parts().map(Self::Pause);
        let silences = links.map(Self::Silence);
        let others = [Self::VanishClients, Self::FillDisk];
        kills.chain(pauses).chain(silences).chain(others).collect()
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proxy(index) => write!(f, "proxy-{}", index + 1),
            Self::Server(index) => write!(f, "server-{}", index + 1),
            Self::Redis => f.write_str("redis"),
            Self::ZooKeeper => f.write_str("zookeeper"),
            Self::Nginx => f.write_str("nginx"),
            Self::MariaDb => f.write_str("mariadb"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whole first, so that a width applies to the whole name.
        let name = match self {
            Self::Kill(part) => format!("kill-{part}"),
            Self::Pause(part) => format!("pause-{part}"),
            Self::Silence(link) => format!("silence-{}", link_name(*link)),
            Self::VanishClients => "vanish-clients".to_owned(),
            Self::FillDisk => "fill-disk".to_owned(),
        };
        f.pad(&name)
    }
}

fn link_name(link: Link) -> String {
    match link {
        Link::NginxToProxy(index) => format!("nginx-proxy-{}", index + 1),
        Link::ProxiesToServer(index) => format!("proxies-server-{}", index + 1),
        Link::ServerToMariaDb(index) => format!("server-{}-mariadb", index + 1),
        Link::ServerToRedis(index) => format!("server-{}-redis", index + 1),
        Link::ServerToZooKeeper(index) => format!("server-{}-zookeeper", index + 1),
        Link::ProxyToRedis(index) => format!("proxy-{}-redis", index + 1),
        Link::ProxyToZooKeeper(index) => format!("proxy-{}-zookeeper", index + 1),
    }
}

/// There is no fault of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no fault is called so; there are: {}", names().join(", "))]
pub struct UnknownFault;

impl FromStr for Fault {
    type Err = UnknownFault;

    fn from_str(name: &str) -> Result<Self, UnknownFault> {
        let mut all = Self::all().into_iter();
        all.find(|fault| fault.to_string() == name)
            .ok_or(UnknownFault)
    }
}

fn names() -> Vec<String> {
    Fault::all().iter().map(Fault::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_found_by_its_name() {
        for fault in Fault::all() {
            assert_eq!(fault.to_string().parse(), Ok(fault));
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let error = "kill-everything".parse::<Fault>().unwrap_err().to_string();
        assert!(error.contains("silence-server-2-mariadb"), "{error}");
    }
}
