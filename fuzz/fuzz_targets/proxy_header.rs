//! The start of a connection from a proxy, cut into reads: the same verdict whatever the cut and
//! whatever follows, nothing kept beyond the limit, and the peer found survives being written again.
//! The last byte of the input is the size of a read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxy_header::{ProxiedAddress, ProxyHeader};

// The library's own source: its parser is none of its public items.
#[path = "../../nexus-net/src/proxy_protocol/header.rs"]
#[allow(dead_code, unreachable_pub)]
mod header;

use header::{BadHeader, HEADER_BYTES_MAX, Header, parse};

fuzz_target!(|data: &[u8]| {
    let Some((&read_bytes, input)) = data.split_last() else {
        return;
    };
    let whole = read([input].into_iter());
    let cut = read(input.chunks(usize::from(read_bytes).max(1)));
    assert_eq!(whole, cut);
    if let Ok(Some(header)) = whole {
        assert!(header.len <= input.len().min(HEADER_BYTES_MAX));
        assert_eq!(parse(&input[..header.len]), Ok(Some(header)));
        assert_eq!(parse(&input[..header.len - 1]), Ok(None));
        write_again(header);
    }
});

/// As a connection does: what has come so far is looked at after each read.
fn read<'a>(reads: impl Iterator<Item = &'a [u8]>) -> Result<Option<Header>, BadHeader> {
    let mut partial = Vec::new();
    for read in reads {
        partial.extend_from_slice(read);
        if let Some(header) = parse(&partial)? {
            return Ok(Some(header));
        }
        assert!(partial.len() < HEADER_BYTES_MAX);
    }
    Ok(None)
}

fn write_again(header: Header) {
    let Some(peer) = header.peer else {
        return;
    };
    let again = ProxyHeader::with_address(ProxiedAddress::stream(peer, peer));
    let (mut v1, mut v2) = (Vec::new(), Vec::new());
    again.encode_v1(&mut v1).expect("a stream's addresses");
    again.encode_v2(&mut v2).expect("two addresses of one kind");
    for bytes in [v1, v2] {
        let read = parse(&bytes).expect("valid").expect("whole");
        assert_eq!((read.len, read.peer), (bytes.len(), Some(peer)));
    }
}
