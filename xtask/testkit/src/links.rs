//! The networks between the parts of a cluster, each of which can be taken away.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::{Error, Relay};

/// A network between two parts of a [`Cluster`](crate::Cluster). Nodes are counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Link {
    /// From nginx to this proxy.
    NginxToProxy(usize),
    /// From all proxies to this server.
    ProxiesToServer(usize),
    /// From this server to MariaDB.
    ServerToMariaDb(usize),
    /// From this server to Redis.
    ServerToRedis(usize),
    /// From this server to the (first) ZooKeeper server.
    ServerToZooKeeper(usize),
    /// From this proxy to Redis.
    ProxyToRedis(usize),
    /// From this proxy to the (first) ZooKeeper server.
    ProxyToZooKeeper(usize),
}

/// The relays of a cluster: one for each link, or none at all.
#[derive(Debug)]
pub(crate) struct Links {
    relays: Option<BTreeMap<Link, Relay>>,
}

impl Links {
    pub(crate) fn new(relayed: bool) -> Self {
        Self {
            relays: relayed.then(BTreeMap::new),
        }
    }

    /// The address at which one end of the link finds the other, which is at `target`.
    pub(crate) fn lay(&mut self, link: Link, target: SocketAddr) -> Result<SocketAddr, Error> {
        let Some(relays) = &mut self.relays else {
            return Ok(target);
        };
        let relay = Relay::start(target)?;
        let address = relay.address();
        relays.insert(link, relay);
        Ok(address)
    }

    pub(crate) fn get(&self, link: Link) -> Option<&Relay> {
        self.relays.as_ref()?.get(&link)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (Link, &Relay)> {
        let relays = self.relays.iter().flatten();
        relays.map(|(link, relay)| (*link, relay))
    }
}
