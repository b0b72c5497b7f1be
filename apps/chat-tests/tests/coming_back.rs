//! The client library on a real cluster whose connections, proxies and servers are taken away while it
//! sends: it comes back by itself, and nothing is lost, shown twice or out of order.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use chat_client::{Body, ChatClient, ClientOptions, Event, Sent, Status, UserId};
use chat_tests::suite;
use crossbeam_channel::Receiver;
use nexus_net::Backoff;
use nexus_testkit::{Cluster, ClusterOptions, Profile, Relay, build_binaries, wait_until};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

/// For what takes a moment, also on a busy machine and right after something was killed.
const SOON: Duration = Duration::from_secs(60);
/// Sends without an answer at a time.
const WINDOW: usize = 20;
const LAST: &str = "the last one";

/// A cluster, and for each proxy a network in front of it.
struct Place {
    cluster: Cluster,
    relays: [Relay; 2],
}

impl Place {
    fn start() -> Self {
        let binaries = build_binaries(Profile::Dev).unwrap();
        let cluster = Cluster::start(ClusterOptions::new(binaries)).unwrap();
        let relays = [0, 1].map(|index| Relay::start(cluster.proxy(index).address()).unwrap());
        let place = Self { cluster, relays };
        place.wait_serving();
        place
    }

    fn wait_serving(&self) {
        for relay in &self.relays {
            wait_until("the proxy serves", SOON, || suite::serves(relay.address()));
        }
    }

    /// A new user, at the first proxy or at the second.
    fn member(&self, name: &str, at: usize) -> (ChatClient, Receiver<Event>, UserId) {
        let address = |index: usize| -> SocketAddr { self.relays[index % 2].address() };
        let options = ClientOptions {
            more_addresses: vec![address(at + 1)],
            backoff: Backoff {
                initial: Duration::from_millis(20),
                max: Duration::from_millis(500),
            },
            heartbeat_interval: Duration::from_millis(300),
            silence_max: Duration::from_secs(2),
            send_timeout: SOON,
            ..ClientOptions::default()
        };
        let (client, events) = ChatClient::connect(address(at), options).unwrap();
        let name = format!("{name} {}", rand::rng().next_u64());
        let user = client.register(&name, "secret").wait(SOON).unwrap();
        let login = client.login(user, "secret").wait(SOON).unwrap();
        assert!(login.token.is_some());
        (client, events, user)
    }

    /// One user writes to another for as long as `trouble` takes. Then all of it must have arrived.
    fn talk_during(&self, trouble: impl FnOnce(&Talk)) {
        let (anna, _events, _) = self.member("anna", 0);
        let (bert, inbox, bert_id) = self.member("bert", 1);
        anna.add_friend(bert_id).wait(SOON).unwrap();
        let talk = Talk::default();
        let (sent, received) = std::thread::scope(|scope| {
            let writer = scope.spawn(|| talk.write(&anna, bert_id));
            let reader = scope.spawn(|| read_to_the_last(&inbox));
            trouble(&talk);
            talk.stop.store(true, Ordering::Relaxed);
            (writer.join().unwrap(), reader.join().unwrap())
        });
        let mut texts: Vec<String> = (0..sent.len() - 1).map(|n| n.to_string()).collect();
        texts.push(LAST.to_owned());
        assert_eq!(received, texts);
        // Behind the notice of the friendship, in the order of the calls and without anything between.
        let places: Vec<u64> = sent.iter().map(|sent| sent.sequence).collect();
        assert_eq!(places, (2..).take(places.len()).collect::<Vec<_>>());
        for client in [&anna, &bert] {
            wait_until("live", SOON, || client.status() == Status::Live);
        }
        println!("{} messages", sent.len());
    }
}

#[derive(Default)]
struct Talk {
    acknowledged: AtomicU64,
    stop: AtomicBool,
}

impl Talk {
    fn write(&self, client: &ChatClient, to: UserId) -> Vec<Sent> {
        let (mut sent, mut waiting) = (Vec::new(), VecDeque::new());
        let mut next = 0;
        loop {
            let is_last = self.stop.load(Ordering::Relaxed);
            let text = match is_last {
                true => LAST.to_owned(),
                false => next.to_string(),
            };
            waiting.push_back(client.send_to_friend(to, &text));
            next += 1;
            while waiting.len() >= WINDOW || is_last && !waiting.is_empty() {
                let oldest = waiting.pop_front().expect("not empty");
                sent.push(oldest.wait(SOON).expect("every send is answered well"));
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            if is_last {
                return sent;
            }
        }
    }

    /// Waits until so many more messages were acknowledged.
    fn progress(&self, count: u64) {
        let enough = self.acknowledged.load(Ordering::Relaxed) + count;
        wait_until("messages are acknowledged", SOON, || {
            self.acknowledged.load(Ordering::Relaxed) >= enough
        });
    }
}

fn read_to_the_last(inbox: &Receiver<Event>) -> Vec<String> {
    let mut texts = Vec::new();
    loop {
        match inbox.recv_timeout(SOON).expect("another event") {
            Event::Message(message) => {
                if let Body::Text(text) = message.body {
                    texts.push(text);
                }
            }
            Event::SignedOut { reason } => panic!("signed out: {reason}"),
            _ => {}
        }
        if texts.last().is_some_and(|text| text == LAST) {
            return texts;
        }
    }
}

#[test]
fn connections_that_are_cut_or_fall_silent_lose_and_repeat_nothing() {
    let place = Place::start();
    let seed: u64 = rand::rng().next_u64();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    place.talk_during(|talk| {
        for _ in 0..40 {
            // A few messages, and a part of one.
            talk.progress(random.random_range(0..8));
            for _ in 0..random.random_range(0..2_000) {
                std::hint::spin_loop();
            }
            let relay = &place.relays[random.random_range(0..2)];
            relay.cut();
            relay.open();
        }
        // What the silent network held comes out when the client has long gone on elsewhere.
        for relay in place.relays.iter().cycle().take(4) {
            talk.progress(3);
            relay.silence();
            talk.progress(3 * WINDOW as u64);
            relay.open();
        }
        talk.progress(WINDOW as u64);
    });
}

#[test]
fn killed_proxies_and_servers_lose_and_repeat_nothing() {
    let place = Place::start();
    place.talk_during(|talk| {
        for index in [0, 1, 0] {
            talk.progress(30);
            place.cluster.proxy(index).kill();
            talk.progress(30);
            place.cluster.proxy(index).restart().unwrap();
            place.wait_serving();
        }
        for index in [0, 1] {
            talk.progress(30);
            place.cluster.server(index).kill();
            talk.progress(30);
            place.cluster.server(index).restart().unwrap();
            place.wait_serving();
        }
        // With nobody there to take a message, and then with nobody to connect to, for a while. (A
        // proxy is not ready before it has found servers.)
        talk.progress(30);
        for index in [0, 1] {
            place.cluster.server(index).kill();
        }
        for index in [0, 1] {
            place.cluster.server(index).restart().unwrap();
        }
        talk.progress(30);
        for index in [0, 1] {
            place.cluster.proxy(index).kill();
        }
        for index in [0, 1] {
            place.cluster.proxy(index).restart().unwrap();
        }
        talk.progress(100);
    });
}
