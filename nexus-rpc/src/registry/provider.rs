//! What a registry knows of a provider, and how it is written into a registry's node.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use prost::Message;

use self::generated::{MethodMeta, ServiceMeta};

#[allow(missing_docs, unreachable_pub, clippy::all)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/nexus.registry.rs"));
}

/// One who serves a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Provider {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share of the calls relative to the other providers; at least 1.
    pub weight: u32,
    /// Where it runs, for callers that prefer providers near them; may be empty.
    pub zone: String,
    /// Its version; may be empty.
    pub version: String,
    /// Whatever else its callers choose by.
    pub tags: BTreeMap<String, String>,
}

impl Provider {
    /// A provider of weight 1, without zone, version and tags.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            weight: 1,
            zone: String::new(),
            version: String::new(),
            tags: BTreeMap::new(),
        }
    }

    /// The content of the provider's node, the same in every registry: a `ServiceMeta` of
    /// `proto/nexus/registry.proto`.
    pub fn to_node(&self) -> Vec<u8> {
        let meta = ServiceMeta {
            ip: self.address.ip().to_string(),
            port: i32::from(self.address.port()),
            keep_alive: true,
            weight: self.weight.max(1),
            zone: self.zone.clone(),
            version: self.version.clone(),
            tags: self.tags.clone(),
            token: Bytes::new(),
        };
        meta.encode_to_vec()
    }

    /// The provider in a node's content.
    ///
    /// # Errors
    /// [`NodeError`].
    pub fn from_node(content: &[u8]) -> Result<Self, NodeError> {
        let meta = ServiceMeta::decode(content)?;
        let ip: IpAddr = meta.ip.parse().map_err(|_| NodeError::BadIp(meta.ip))?;
        let port = u16::try_from(meta.port).map_err(|_| NodeError::BadPort(meta.port))?;
        if port == 0 {
            return Err(NodeError::BadPort(0));
        }
        Ok(Self {
            address: SocketAddr::new(ip, port),
            weight: meta.weight.max(1),
            zone: meta.zone,
            version: meta.version,
            tags: meta.tags,
        })
    }
}

/// The content of a provider's node, with a token that is nobody else's. To readers it is the same.
pub(super) fn with_token(content: &[u8]) -> Vec<u8> {
    let token = ServiceMeta {
        token: Bytes::copy_from_slice(&rand::random::<[u8; 16]>()),
        ..ServiceMeta::default()
    };
    // Protobuf: messages one after the other are the merged message, and defaults are not written.
    [content, &token.encode_to_vec()].concat()
}

/// A node's content is not a provider. Whoever wrote it is at fault; the node is skipped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// It is not the message that it should be.
    #[error("not a ServiceMeta: {0}")]
    Undecodable(#[from] prost::DecodeError),
    /// Host names are not taken.
    #[error("not an ip address: {0:?}")]
    BadIp(String),
    /// 0, or beyond 16 bits.
    #[error("not a port: {0}")]
    BadPort(i32),
}

/// A method of a service, published for people and tools that look into the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodInfo {
    /// The method's name in the `.proto` file.
    pub name: String,
    /// The full name of its request message.
    pub request_type: String,
    /// The full name of its response message.
    pub response_type: String,
}

impl MethodInfo {
    /// The content of the method's node.
    pub(super) fn to_node(&self) -> Vec<u8> {
        let meta = MethodMeta {
            request_type: self.request_type.clone(),
            response_type: self.response_type.clone(),
        };
        meta.encode_to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_survives_its_node() {
        let mut provider = Provider::new("[2001:db8::1]:8000".parse().expect("an address"));
        provider.weight = 7;
        provider.zone = "east".into();
        provider.version = "1.2".into();
        provider.tags.insert("disk".into(), "ssd".into());
        let back = Provider::from_node(&provider.to_node()).expect("a provider");
        assert_eq!(back, provider);
    }

    #[test]
    fn a_token_makes_a_node_unique_and_changes_nothing_for_readers() {
        let mut provider = Provider::new("127.0.0.1:1".parse().expect("an address"));
        provider.weight = 3;
        let node = provider.to_node();
        let (one, other) = (with_token(&node), with_token(&node));
        assert_ne!(one, other);
        assert_eq!(Provider::from_node(&one).expect("a provider"), provider);
    }

    #[test]
    fn weight_zero_reads_as_one() {
        let meta = ServiceMeta {
            ip: "127.0.0.1".into(),
            port: 1,
            ..Default::default()
        };
        let provider = Provider::from_node(&meta.encode_to_vec()).expect("a provider");
        assert_eq!(provider.weight, 1);
    }

    #[test]
    fn garbage_is_an_error_and_not_a_provider() {
        let node = |ip: &str, port| {
            let ip = ip.into();
            ServiceMeta {
                ip,
                port,
                ..Default::default()
            }
            .encode_to_vec()
        };
        for content in [
            vec![0xff; 10],
            vec![],
            node("localhost", 80),
            node("127.0.0.1", 0),
            node("127.0.0.1", -1),
            node("127.0.0.1", 65536),
        ] {
            assert!(Provider::from_node(&content).is_err(), "{content:?}");
        }
    }
}
