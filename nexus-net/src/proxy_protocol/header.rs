//! The header: bytes to a peer, sans-IO.
//!
//! ```text
//!   version 1, a line of at most 107 bytes:   PROXY TCP4 source destination source-port destination-port CRLF
//!                                             PROXY UNKNOWN … CRLF
//! ```
//!
//! | version 2: offset | size | what |
//! |---|---|---|
//! | 0 | 12 | signature |
//! | 12 | 1 | version 2 and command: 0x20 LOCAL, 0x21 PROXY |
//! | 13 | 1 | family and transport: 0x1_ IPv4, 0x2_ IPv6, 0x3_ Unix, 0x00 unspecified |
//! | 14 | 2 | length of the rest, big-endian |
//! | 16 | 4 or 16 each | source and destination address, then their ports of 2 bytes each; then extensions |
//!
//! Only the source is used. The destination is not even of the source's family where servers are chained: nginx
//! writes a line from what it has accepted on and whom it speaks for, as in
//! `PROXY TCP4 192.0.2.7 unix:/run/inner.sock 4711 0` or `PROXY TCP4 192.0.2.7 2001:db8::1 4711 80`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// A longer header is refused. Version 1 has at most 107 bytes; version 2 allows 64 KiB for
/// extensions, of which a few hundred bytes are used in practice.
pub(crate) const HEADER_BYTES_MAX: usize = 4096;
/// The specification's limit for version 1, line end included.
const V1_BYTES_MAX: usize = 107;
const V1_START: &[u8] = b"PROXY ";
const V2_START: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, command, family and length.
const V2_FIXED_BYTES: usize = 16;

/// What stands before everything else is no header of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no header of the PROXY protocol")]
pub(crate) struct BadHeader;

/// A header, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Its length in bytes.
    pub(crate) len: usize,
    /// The peer; `None` where the proxy speaks for itself (a health check), does not know, or names a
    /// Unix socket.
    pub(crate) peer: Option<SocketAddr>,
}

/// Reads the header at the start of `input`. `Ok(None)`: not complete yet.
pub(crate) fn parse(input: &[u8]) -> Result<Option<Header>, BadHeader> {
    if begins_with(input, V1_START) {
        parse_v1(input)
    } else if begins_with(input, V2_START) {
        parse_v2(input)
    } else {
        Err(BadHeader)
    }
}

/// Whether `input`, as far as it has come, begins with `start`.
fn begins_with(input: &[u8], start: &[u8]) -> bool {
    input.starts_with(start) || start.starts_with(input)
}

fn parse_v1(input: &[u8]) -> Result<Option<Header>, BadHeader> {
    let longest = input.get(..V1_BYTES_MAX).unwrap_or(input);
    let Some(end) = longest.windows(2).position(|end| end == b"\r\n") else {
        return match longest.len() < V1_BYTES_MAX {
            true => Ok(None),
            false => Err(BadHeader),
        };
    };
    let line = longest.get(V1_START.len()..end).ok_or(BadHeader)?;
    // A path need not be UTF-8.
    let line = String::from_utf8_lossy(line);
    let peer = match line.split_once(' ').unwrap_or((&line, "")) {
        ("UNKNOWN", _) => None,
        ("TCP4" | "TCP6", rest) => v1_source(rest)?,
        _ => return Err(BadHeader),
    };
    Ok(Some(Header { len: end + 2, peer }))
}

/// The source of `source destination source-port destination-port`. The path of a Unix socket may hold spaces.
fn v1_source(addresses: &str) -> Result<Option<SocketAddr>, BadHeader> {
    let mut from_the_end = addresses.rsplitn(3, ' ');
    let _destination_port: u16 = number(from_the_end.next())?;
    let port = number(from_the_end.next())?;
    let addresses = from_the_end.next().ok_or(BadHeader)?;
    if addresses.starts_with("unix:") {
        return Ok(None);
    }
    let (source, destination) = addresses.split_once(' ').ok_or(BadHeader)?;
    if !destination.starts_with("unix:") && destination.parse::<IpAddr>().is_err() {
        return Err(BadHeader);
    }
    let source: IpAddr = source.parse().map_err(|_| BadHeader)?;
    Ok(Some(peer(source, port)))
}

fn number<N: FromStr>(digits: Option<&str>) -> Result<N, BadHeader> {
    let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    digits.ok_or(BadHeader)?.parse().map_err(|_| BadHeader)
}

fn parse_v2(input: &[u8]) -> Result<Option<Header>, BadHeader> {
    let Some(fixed) = input.first_chunk::<V2_FIXED_BYTES>() else {
        return Ok(None);
    };
    let [.., command, family, high, low] = *fixed;
    let len = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
    if !matches!(command, 0x20 | 0x21) || len > HEADER_BYTES_MAX {
        return Err(BadHeader);
    }
    let Some(rest) = input.get(V2_FIXED_BYTES..len) else {
        return Ok(None);
    };
    let source = match (command, family) {
        // The specification has the family ignored, too.
        (0x20, _) | (_, 0x00 | 0x31 | 0x32) => None,
        (_, 0x11 | 0x12) => Some(v2_source::<4, Ipv4Addr>(rest)?),
        (_, 0x21 | 0x22) => Some(v2_source::<16, Ipv6Addr>(rest)?),
        _ => return Err(BadHeader),
    };
    Ok(Some(Header { len, peer: source }))
}

/// The source of two addresses of `N` bytes and two ports.
fn v2_source<const N: usize, A: From<[u8; N]> + Into<IpAddr>>(
    addresses: &[u8],
) -> Result<SocketAddr, BadHeader> {
    let (source, rest) = addresses.split_first_chunk::<N>().ok_or(BadHeader)?;
    let (_destination, rest) = rest.split_first_chunk::<N>().ok_or(BadHeader)?;
    let [high, low, _, _] = *rest.first_chunk::<4>().ok_or(BadHeader)?;
    let port = u16::from_be_bytes([high, low]);
    Ok(peer(A::from(*source).into(), port))
}

/// A proxy that has accepted over IPv6 writes an IPv4 client as a mapped address.
fn peer(source: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(source.to_canonical(), port)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proxy_header::{ParseConfig, ProxiedAddress, ProxyHeader};

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

    /// What nginx 1.22 has written, between stream servers that pass connections on to each other.
    #[test]
    fn only_the_source_of_what_chained_servers_write_counts() {
        for (line, peer) in [
            (
                "PROXY TCP4 127.0.0.1 unix:/run/mid.sock 56590 0\r\n",
                Some("127.0.0.1:56590"),
            ),
            (
                "PROXY TCP4 127.0.0.1 unix:/run/a b.sock 34826 0\r\n",
                Some("127.0.0.1:34826"),
            ),
            (
                "PROXY TCP4 127.0.0.1 ::1 59856 52419\r\n",
                Some("127.0.0.1:59856"),
            ),
            (
                "PROXY TCP6 ::1 127.0.0.1 53474 40445\r\n",
                Some("[::1]:53474"),
            ),
            ("PROXY UNKNOWN\r\n", None),
        ] {
            let expected = Header {
                len: line.len(),
                peer: peer.map(|peer| peer.parse().unwrap()),
            };
            assert_eq!(parse(line.as_bytes()), Ok(Some(expected)), "{line:?}");
        }
        // It cuts a line off that a long path takes beyond 107 bytes, and the ports are lost.
        let mut cut = b"PROXY TCP4 127.0.0.1 unix:/run/".to_vec();
        cut.resize(V1_BYTES_MAX - 1, b'l');
        cut.extend_from_slice(b" hello");
        assert_eq!(parse(&cut), Err(BadHeader));
    }

    #[test]
    fn an_ipv4_client_is_one_however_its_address_is_written() {
        let peer = Some("192.0.2.1:4711".parse().unwrap());
        for header in [
            b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::8 4711 80\r\n".to_vec(),
            v2("[::ffff:192.0.2.1]:4711", "[2001:db8::8]:80"),
        ] {
            let len = header.len();
            assert_eq!(parse(&header), Ok(Some(Header { len, peer })));
        }
    }

    #[test]
    fn unix_sockets_and_a_local_command_of_any_family_name_nobody() {
        let v2 = |command: u8, family: u8, rest: usize| {
            let mut header = V2_START.to_vec();
            header.extend_from_slice(&[command, family]);
            header.extend_from_slice(&u16::try_from(rest).unwrap().to_be_bytes());
            header.resize(header.len() + rest, 7);
            header
        };
        for header in [
            v2(0x21, 0x31, 216),
            v2(0x21, 0x00, 0),
            v2(0x20, 0x11, 0),
            v2(0x20, 0x31, 8),
            v2(0x20, 0xff, 3),
            b"PROXY TCP4 unix:/run/outer.sock 192.0.2.2 0 80\r\n".to_vec(),
            b"PROXY TCP4 unix: unix:/run/inner.sock 0 0\r\n".to_vec(),
        ] {
            let expected = Header {
                len: header.len(),
                peer: None,
            };
            assert_eq!(parse(&header), Ok(Some(expected)), "{header:?}");
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        for input in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 99999\r\n",
            b"PROXY UDP4 192.0.2.1 192.0.2.2 4711 80\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 +4711 80\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 4711\r\n",
            b"PROXY TCP4 192.0.2.1 example.org 4711 80\r\n",
            b"PROXY TCP4 192.0.2.1\r\n",
            b"PROXY\tUNKNOWN\r\n",
            b"\r\n\r\n\0\r\nQUIX\n\x21\x11\0\x0c",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x04\x7f\0\0\x01",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x41\0\0",
            b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\0",
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
        assert_eq!(parse(&extended[..V2_FIXED_BYTES - 1]), Ok(None));
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

        #[test]
        fn what_another_reader_takes_is_read_alike(
            source in any::<SocketAddr>(),
            destination in any::<SocketAddr>(),
            version in 1..=2,
            extension in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let addresses = ProxiedAddress::stream(source, destination);
            let mut header = ProxyHeader::with_address(addresses);
            let mut bytes = Vec::new();
            let encoded = if version == 1 {
                header.encode_v1(&mut bytes)
            } else {
                header.append_tlv(proxy_header::Tlv::Custom(0xe0, extension.into()));
                header.encode_v2(&mut bytes)
            };
            // It writes no mixed families.
            prop_assume!(encoded.is_ok());
            let (read, len) = ProxyHeader::parse(&bytes, ParseConfig::default()).unwrap();
            let theirs = read.proxied_address().map(|proxied| proxied.source);
            let theirs = theirs.map(|source| peer(source.ip(), source.port()));
            prop_assert_eq!(parse(&bytes), Ok(Some(Header { len, peer: theirs })));
        }
    }
}
