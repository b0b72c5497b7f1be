//! [`ClientAddress`]: whom a limit per address concerns.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Bits of an IPv6 address that name a network; the rest a client chooses as it likes.
const IPV6_NETWORK_BITS: u32 = 64;

/// A client's IPv4 address, or the /64 network of its IPv6 address: what one client has of its own.
///
/// Its text form is `192.0.2.7` or `2001:db8:1:2::`; parsing takes any address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientAddress(IpAddr);

impl ClientAddress {
    /// Stands for all whose address is not known.
    pub const UNKNOWN: Self = Self(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
}

impl From<IpAddr> for ClientAddress {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = address.to_bits() >> (128 - IPV6_NETWORK_BITS);
                Ipv6Addr::from_bits(network << (128 - IPV6_NETWORK_BITS)).into()
            }
            address => address,
        })
    }
}

impl FromStr for ClientAddress {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<IpAddr>().map(Self::from)
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_client_is_its_network_and_an_ipv4_client_its_address() {
        for (address, text) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:2::", "2001:db8:1:2::"),
        ] {
            let client: ClientAddress = address.parse().expect(address);
            assert_eq!(client.to_string(), text);
            assert_eq!(client.to_string().parse(), Ok(client));
        }
        let of = |text: &str| text.parse::<ClientAddress>().expect(text);
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_ne!(of("192.0.2.7"), of("192.0.2.8"));
    }
}
