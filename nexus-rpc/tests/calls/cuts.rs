//! A connection that is cut at any byte, in either direction: every call ends exactly once.
//!
//! Between channel and provider stands a relay that passes on so many bytes of each direction, in pieces of
//! seeded sizes, and then cuts.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::*;

/// How many bytes pass towards the provider and back, before all is cut.
#[derive(Debug, Clone, Copy)]
struct Cut {
    requests: usize,
    answers: usize,
}

const CALLS: usize = 3;

#[test]
fn a_connection_cut_at_any_byte_ends_every_call_once() {
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let provider = RpcProvider::builder()
        .service(ModesServer::new(Service::default()))
        .start("127.0.0.1:0".parse().unwrap())
        .unwrap();
    let whole = Cut {
        requests: usize::MAX,
        answers: usize::MAX,
    };
    // What a whole exchange takes; a few bytes more or less for larger numbers in it.
    let (ended, sizes) = exchange(provider.local_addr(), whole, random.random());
    assert!(ended.iter().all(Result::is_ok), "{ended:?}");
    for requests in 0..=sizes.requests {
        let cut = Cut { requests, ..whole };
        check(&provider, cut, random.random());
    }
    for answers in 0..=sizes.answers {
        let cut = Cut { answers, ..whole };
        check(&provider, cut, random.random());
    }
    until("nothing is in work", || provider.in_flight() == 0);
}

fn check(provider: &RpcProvider, cut: Cut, seed: u64) {
    let (ended, _) = exchange(provider.local_addr(), cut, seed);
    assert_eq!(ended.len(), CALLS, "{cut:?}, seed {seed}");
    for result in ended {
        if let Err(error) = result {
            let lost = [
                ErrorCode::CONNECTION_CLOSED,
                ErrorCode::CONNECTION_FAILED,
                // Made when all was over.
                ErrorCode::HOST_DOWN,
            ];
            assert!(lost.contains(&error.code()), "{error} {cut:?}, seed {seed}");
        }
    }
}

/// Some calls through a relay that cuts: how each of them ended, in the order of their ends, and how many
/// bytes passed.
fn exchange(provider: SocketAddr, cut: Cut, seed: u64) -> (Vec<Result<(), RpcError>>, Cut) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let relay = std::thread::spawn(move || {
        let (client, _) = listener.accept().unwrap();
        // One connection: the next attempt is refused.
        drop(listener);
        relay(client, TcpStream::connect(provider).unwrap(), cut, seed)
    });
    let (sender, receiver) = mpsc::channel();
    let channel = channel_to([address]);
    let client = ModesClient::new(channel.clone());
    for n in 0..CALLS {
        let sender = sender.clone();
        let request = text(&"x".repeat(n));
        let call = match n {
            0 => client.inline_with(&request, CallOptions::timeout(LONG)),
            1 => client.pooled_with(&request, CallOptions::timeout(LONG)),
            _ => client.later_with(&request, CallOptions::timeout(LONG)),
        };
        call.on_complete(move |result| sender.send(result.map(drop)).unwrap());
    }
    drop(sender);
    // Until the last callback is gone: one that ran twice would have panicked or be counted.
    let ended: Vec<_> = receiver.iter().collect();
    assert_eq!(channel.in_flight(ModesClient::SERVICE), 0);
    drop((client, channel));
    (ended, relay.join().unwrap())
}

/// Passes on until either direction has had its bytes or has ended, and cuts both.
fn relay(client: TcpStream, provider: TcpStream, cut: Cut, seed: u64) -> Cut {
    let back = {
        let (from, to) = (provider.try_clone().unwrap(), client.try_clone().unwrap());
        std::thread::spawn(move || pass(from, to, cut.answers, seed ^ 1))
    };
    let requests = pass(client, provider, cut.requests, seed);
    let answers = back.join().unwrap();
    Cut { requests, answers }
}

fn pass(mut from: TcpStream, mut to: TcpStream, bytes_max: usize, seed: u64) -> usize {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut passed = 0;
    let mut piece = [0; 64];
    while passed < bytes_max {
        let room = random.random_range(1..=piece.len()).min(bytes_max - passed);
        let Ok(count @ 1..) = from.read(&mut piece[..room]) else {
            break;
        };
        if to.write_all(&piece[..count]).is_err() {
            break;
        }
        passed += count;
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
    passed
}
