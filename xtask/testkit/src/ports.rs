//! Free ports for programs that cannot bind port 0 and say what they got.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::sync::Mutex;

/// Below the range Linux takes the ports of outgoing connections from (32768 and up): a server
/// that is killed finds its port still free when it is restarted, however many connections a
/// load test opens meanwhile. That is why this does not bind port 0, which answers from there.
const RANGE: Range<u16> = 15_000..32_000;

/// A TCP port of 127.0.0.1 nobody listens on. It is not handed out a second time in this process
/// until the whole range is used up; other processes start at another place of the range.
///
/// # Panics
///
/// When the range holds no free port at all.
pub fn free_port() -> u16 {
    static NEXT: Mutex<Option<u16>> = Mutex::new(None);
    let mut next = NEXT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut port = next.unwrap_or_else(random_start);
    for _ in RANGE {
        let candidate = port;
        port = if port + 1 < RANGE.end {
            port + 1
        } else {
            RANGE.start
        };
        if TcpListener::bind((Ipv4Addr::LOCALHOST, candidate)).is_ok() {
            *next = Some(port);
            return candidate;
        }
    }
    panic!("no free TCP port in {RANGE:?}");
}

/// A place in the range, another one in each process.
fn random_start() -> u16 {
    let random = RandomState::new().build_hasher().finish();
    let width = u64::from(RANGE.end - RANGE.start);
    RANGE.start + u16::try_from(random % width).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_bindable_and_all_different() {
        let mut ports: Vec<u16> = (0..100).map(|_| free_port()).collect();
        for port in &ports {
            assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok());
        }
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 100);
    }

    #[test]
    fn a_port_in_use_is_not_handed_out() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())).unwrap();
        let taken = taken.local_addr().unwrap().port();
        assert!((0..100).all(|_| free_port() != taken));
    }
}
