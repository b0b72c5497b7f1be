//! The header: bytes to a peer, sans-IO.

use std::net::SocketAddr;

use proxy_header::{Error, ParseConfig, ProxyHeader};

/// A longer header is refused. Version 1 has at most 107 bytes; version 2 allows 64 KiB for
/// extensions, of which a few hundred bytes are used in practice.
pub(crate) const HEADER_BYTES_MAX: usize = 4096;
/// The specification's limit for version 1, line end included.
const V1_BYTES_MAX: usize = 107;

/// What stands before everything else is no header of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no header of the PROXY protocol")]
pub(crate) struct BadHeader;

/// A header, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Its length in bytes.
    pub(crate) len: usize,
    /// The peer; `None` where the proxy speaks for itself (a health check) or does not know.
    pub(crate) peer: Option<SocketAddr>,
}

/// Reads the header at the start of `input`. `Ok(None)`: not complete yet.
pub(crate) fn parse(input: &[u8]) -> Result<Option<Header>, BadHeader> {
    let config = ParseConfig {
        include_tlvs: false,
        ..ParseConfig::default()
    };
    // proxy-header applies this limit to a line without an end only, so whether a longer one is refused
    // would depend on how it was cut into reads.
    let input = match input {
        [b'P', ..] => &input[..input.len().min(V1_BYTES_MAX)],
        _ => input,
    };
    match ProxyHeader::parse(input, config) {
        Ok((_, len)) if len > HEADER_BYTES_MAX => Err(BadHeader),
        Ok((header, len)) => Ok(Some(Header {
            len,
            peer: header.proxied_address().map(|proxied| proxied.source),
        })),
        Err(Error::BufferTooShort) if input.len() < HEADER_BYTES_MAX => Ok(None),
        Err(_) => Err(BadHeader),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proxy_header::ProxiedAddress;

    use super::*;

    const V1: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 80\r\n";

    fn v2(source: &str, destination: &str) -> Vec<u8> {
        let addresses =
            ProxiedAddress::stream(source.parse().unwrap(), destination.parse().unwrap());
        let mut bytes = Vec::new();
        ProxyHeader::with_address(addresses)
            .encode_v2(&mut bytes)
            .unwrap();
        bytes
    }

    #[test]
    fn both_versions_name_the_peer_whatever_follows() {
        let v4 = "192.0.2.1:4711".parse().unwrap();
        let v6 = "[2001:db8::7]:4711".parse().unwrap();
        let cases = [
            (V1.to_vec(), v4),
            (
                b"PROXY TCP6 2001:db8::7 2001:db8::8 4711 80\r\n".to_vec(),
                v6,
            ),
            (v2("192.0.2.1:4711", "192.0.2.2:80"), v4),
            (v2("[2001:db8::7]:4711", "[2001:db8::8]:80"), v6),
        ];
        for (header, peer) in cases {
            let mut input = header.clone();
            input.extend_from_slice(b"PROXY");
            let expected = Header {
                len: header.len(),
                peer: Some(peer),
            };
            assert_eq!(parse(&input), Ok(Some(expected)));
            for end in 0..header.len() {
                assert_eq!(parse(&header[..end]), Ok(None), "{end} bytes");
            }
        }
    }

    #[test]
    fn a_proxy_speaking_for_itself_names_nobody() {
        let unknown = b"PROXY UNKNOWN\r\n";
        let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\0";
        for header in [&unknown[..], &local[..]] {
            let expected = Header {
                len: header.len(),
                peer: None,
            };
            assert_eq!(parse(header), Ok(Some(expected)));
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        for input in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 99999\r\n",
            b"PROXY UDP4 192.0.2.1 192.0.2.2 4711 80\r\n",
            b"\r\n\r\n\0\r\nQUIX\n\x21\x11\0\x0c",
        ] {
            assert_eq!(parse(input), Err(BadHeader), "{input:?}");
        }
    }

    #[test]
    fn an_endless_header_is_refused_at_the_limit() {
        let mut endless = b"PROXY TCP4 ".to_vec();
        endless.resize(107, b'1');
        assert_eq!(parse(&endless), Err(BadHeader));
        let mut extended = b"\r\n\r\n\0\r\nQUIT\n\x21\x00\xff\xff".to_vec();
        extended.resize(HEADER_BYTES_MAX - 1, 0);
        assert_eq!(parse(&extended), Ok(None));
        extended.push(0);
        assert_eq!(parse(&extended), Err(BadHeader));
    }

    #[test]
    fn a_line_one_over_its_limit_is_refused_even_when_it_comes_whole() {
        let line = |bytes: usize| {
            let mut line = b"PROXY UNKNOWN ".to_vec();
            line.resize(bytes - 2, b'x');
            line.extend_from_slice(b"\r\n");
            line
        };
        let longest = Header {
            len: V1_BYTES_MAX,
            peer: None,
        };
        assert_eq!(parse(&line(V1_BYTES_MAX)), Ok(Some(longest)));
        assert_eq!(parse(&line(V1_BYTES_MAX + 1)), Err(BadHeader));
    }

    proptest! {
        #[test]
        fn no_input_panics_and_a_longer_one_never_changes_the_verdict(
            input in proptest::collection::vec(any::<u8>(), 0..200),
            prefix in 0usize..40,
        ) {
            let mut bytes = V1[..prefix.min(V1.len())].to_vec();
            bytes.extend_from_slice(&input);
            let mut verdict = None;
            for end in 0..=bytes.len() {
                let now = parse(&bytes[..end]);
                match verdict {
                    None if now == Ok(None) => {}
                    None => verdict = Some(now),
                    Some(before) => prop_assert_eq!(now, before),
                }
            }
        }
    }
}
