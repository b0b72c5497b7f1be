//! Requests of SOCKS4: bytes to an address, without I/O.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version, 4 |
//! | 1 | command: 1, connect |
//! | 2 | port, big endian |
//! | 4 | IPv4 address; `0.0.0.x` says that a name follows (SOCKS4a) |
//! | n | the user's name, ended by 0; ignored |

use std::net::SocketAddr;

/// Longer requests than this are none.
pub(super) const REQUEST_BYTES_MAX: usize = 264;
pub(super) const GRANTED: [u8; 8] = [0, 90, 0, 0, 0, 0, 0, 0];
pub(super) const REFUSED: [u8; 8] = [0, 91, 0, 0, 0, 0, 0, 0];

/// No request that this relay serves. Names are not: looking one up would block the loop.
pub(super) struct Refused;

/// Where to, and the length of the request. `None`: it is not complete.
pub(super) fn parse(input: &[u8]) -> Result<Option<(SocketAddr, usize)>, Refused> {
    if input.first().is_some_and(|&version| version != 4) {
        return Err(Refused);
    }
    let Some((head, rest)) = input.split_first_chunk::<8>() else {
        return Ok(None);
    };
    let [_, 1, port @ .., a, b, c, d] = *head else {
        return Err(Refused);
    };
    if (a, b, c) == (0, 0, 0) {
        return Err(Refused);
    }
    let Some(user_bytes) = rest.iter().position(|&byte| byte == 0) else {
        let overlong = input.len() >= REQUEST_BYTES_MAX;
        return if overlong { Err(Refused) } else { Ok(None) };
    };
    let address = ([a, b, c, d], u16::from_be_bytes(port)).into();
    Ok(Some((address, head.len() + user_bytes + 1)))
}
