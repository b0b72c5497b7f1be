//! [`Address`]: `host:port`, resolved.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use serde::Deserialize;

/// An address `host:port`, to listen on or to connect to.
///
/// A name is resolved once, when the configuration is read; of several addresses the first IPv4
/// one is taken, else the first. An IPv6 address stands in brackets: `[::1]:8000`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Address {
    text: String,
    resolved: SocketAddr,
}

impl Address {
    /// The address to bind or to connect to.
    pub fn socket_addr(&self) -> SocketAddr {
        self.resolved
    }

    /// The address as the configuration has it.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = |reason| AddressError {
            text: text.to_owned(),
            reason,
        };
        let form = || wrong("expected host:port, port from 0 to 65535".to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(form)?;
        let bracketed = host.starts_with('[') && host.ends_with(']');
        // Digits only: a number's own parser takes a sign.
        let port_is_number =
            port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
        if host.is_empty() || !port_is_number || (host.contains(':') && !bracketed) {
            return Err(form());
        }
        let found: Vec<SocketAddr> = text
            .to_socket_addrs()
            .map_err(|error| wrong(format!("the host cannot be resolved: {error}")))?
            .collect();
        let resolved = found
            .iter()
            .find(|address| address.is_ipv4())
            .or(found.first());
        match resolved {
            Some(&resolved) => Ok(Self {
                text: text.to_owned(),
                resolved,
            }),
            None => Err(wrong("the host has no address".to_owned())),
        }
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why a text is not an [`Address`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is not an address: {reason}")]
pub struct AddressError {
    text: String,
    reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_are_resolved() {
        for (text, resolved) in [
            ("127.0.0.1:8000", "127.0.0.1:8000"),
            ("0.0.0.0:0", "0.0.0.0:0"),
            ("[::1]:65535", "[::1]:65535"),
            ("localhost:80", "127.0.0.1:80"),
        ] {
            let address: Address = text.parse().expect("an address");
            assert_eq!(address.socket_addr().to_string(), resolved);
            assert_eq!(address.as_str(), text);
        }
    }

    #[test]
    fn what_is_not_host_and_port_is_refused() {
        for text in [
            "",
            ":",
            ":80",
            "localhost",
            "localhost:",
            "::1:80",
            "[::1]",
            "a:65536",
            "a:+80",
        ] {
            let error = text.parse::<Address>().expect_err(text);
            assert!(error.to_string().contains("expected host:port"), "{error}");
        }
    }

    #[test]
    fn a_host_that_does_not_exist_is_refused_with_its_name() {
        let error = "no such host:80".parse::<Address>().expect_err("refused");
        assert!(error.to_string().contains("\"no such host:80\""), "{error}");
    }
}
