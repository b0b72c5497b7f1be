//! The PROXY protocol, versions 1 and 2: what a proxy in front says of the peer it speaks for.
//!
//! The format is HAProxy's (`doc/proxy-protocol.txt` in its sources). A header stands before
//! everything else on a connection, before TLS as well.

mod header;

use ipnet::IpNet;

pub(crate) use self::header::parse;
use crate::Address;

/// Whether a server expects the PROXY protocol's header on each connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ProxyProtocol {
    /// Connections come from the peers themselves.
    #[default]
    Off,
    /// Every connection begins with a header, of version 1 or 2; one that does not is closed. The
    /// source address it names becomes the connection's [`peer_addr`](crate::Connection::peer_addr). A header
    /// without one (`UNKNOWN`, `LOCAL`, a Unix socket) leaves the connection its own.
    ///
    /// Whoever reaches the port can claim any address: listen where only the proxy can reach, or name the
    /// proxies with [`RequiredFrom`](Self::RequiredFrom).
    Required,
    /// As [`Required`](Self::Required) for connections that come from these networks. All others come from
    /// the peers themselves: a header on them is input like any other, and changes no address. So is every
    /// connection on a Unix socket.
    RequiredFrom(Vec<IpNet>),
}

impl ProxyProtocol {
    /// Whether a connection from `peer` begins with a header.
    pub(crate) fn is_expected_from(&self, peer: &Address) -> bool {
        match self {
            Self::Off => false,
            Self::Required => true,
            Self::RequiredFrom(networks) => peer.as_tcp().is_some_and(|peer| {
                // A socket for both families names IPv4 peers by mapped IPv6 addresses.
                let peer = peer.ip().to_canonical();
                networks.iter().any(|network| network.contains(&peer))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_expected_from_the_named_networks_only() {
        let networks = ["10.1.0.0/16", "2001:db8::/32"].map(|network| network.parse().unwrap());
        let named = ProxyProtocol::RequiredFrom(networks.into());
        for (peer, expected) in [
            ("10.1.2.3:4", true),
            ("10.2.0.1:4", false),
            ("[::ffff:10.1.2.3]:4", true),
            ("[::ffff:10.2.0.1]:4", false),
            ("[2001:db8::1]:4", true),
            ("[2001:db9::1]:4", false),
        ] {
            let peer = Address::Tcp(peer.parse().unwrap());
            assert_eq!(named.is_expected_from(&peer), expected, "{peer}");
            assert!(ProxyProtocol::Required.is_expected_from(&peer));
            assert!(!ProxyProtocol::Off.is_expected_from(&peer));
        }
        assert!(!named.is_expected_from(&Address::Unix(None)));
    }
}
