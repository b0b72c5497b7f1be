//! The suite and the faults on a real cluster: two servers and two proxies behind nginx, on
//! MariaDB, Redis and ZooKeeper.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chat_proto::ids::{MessageId, code};
use chat_proto::messages::FriendChatRequest;
use chat_tests::suite;
use chat_tests::{System, WireClient};
use nexus_rpc::registry::{Registry, ZooKeeperOptions, ZooKeeperRegistry};
use nexus_testkit::{Cluster, ClusterOptions, Profile, build_binaries, wait_until};

const SERVICES: [&str; 5] = [
    "nexus.chat.UserServiceRpc",
    "nexus.chat.FriendServiceRpc",
    "nexus.chat.OneChatServiceRpc",
    "nexus.chat.GroupServiceRpc",
    "nexus.chat.GroupChatServiceRpc",
];

fn cluster() -> (Cluster, System) {
    let binaries = build_binaries(Profile::Dev).unwrap();
    let cluster = Cluster::start(ClusterOptions::new(binaries)).unwrap();
    let system = System {
        left: cluster.proxy(0).address().into(),
        right: cluster.proxy(1).address().into(),
    };
    // The nodes are up; that each proxy has found all services shows in that it serves.
    for address in [system.left, system.right] {
        wait_until("the proxy serves", Duration::from_secs(30), || {
            suite::serves(address)
        });
    }
    (cluster, system)
}

#[test]
fn the_cluster_passes_the_suite() {
    let (cluster, system) = cluster();
    suite::run(&system);
    // The same behind nginx, where a client finds itself on either proxy.
    let front = System {
        left: cluster.address().into(),
        right: cluster.address().into(),
    };
    suite::run(&front);
}

/// Chats back and forth until told to stop; counts what was done, panics at the first failure.
fn chat_until(system: &System, stop: &Arc<AtomicBool>, done: &Arc<AtomicU64>) {
    let (mut left, mut right) = suite::friends(system);
    let (a, b) = (left.user_id, right.user_id);
    while !stop.load(Ordering::Relaxed) {
        let text = format!("{}", done.load(Ordering::Relaxed));
        assert_eq!(left.chat(b, &text).error_code, code::SUCCESS);
        let push: FriendChatRequest = right.push(MessageId::RECV_FRIEND);
        assert_eq!(push.content, text);
        assert_eq!(right.friends().len(), 1);
        assert_eq!(right.chat(a, &text).error_code, code::SUCCESS);
        let push: FriendChatRequest = left.push(MessageId::RECV_FRIEND);
        assert_eq!(push.content, text);
        done.fetch_add(1, Ordering::Relaxed);
    }
}

/// How long until every service has two providers again, as a newcomer sees it.
fn wait_registered(addresses: &str, deadline: Duration) {
    let options = ZooKeeperOptions::parse(addresses).unwrap();
    let registry = ZooKeeperRegistry::open(options).unwrap();
    let counts: Arc<[AtomicU64; 5]> = Arc::default();
    let _watches: Vec<_> = (0..)
        .zip(SERVICES)
        .map(|(index, service)| {
            let counts = Arc::clone(&counts);
            let store = move |providers: &[_]| {
                counts[index as usize].store(providers.len() as u64, Ordering::Relaxed);
            };
            registry.watch(service, Box::new(store))
        })
        .collect();
    wait_until("all providers are registered again", deadline, || {
        counts
            .iter()
            .all(|count| count.load(Ordering::Relaxed) == 2)
    });
}

#[test]
fn nobody_notices_that_zookeeper_is_away() {
    let (cluster, system) = cluster();
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicU64::new(0));
    let chatting = std::thread::spawn({
        let (system, stop, done) = (system.clone(), Arc::clone(&stop), Arc::clone(&done));
        move || chat_until(&system, &stop, &done)
    });
    let progress = |during: &str| {
        let before = done.load(Ordering::Relaxed);
        wait_until(during, Duration::from_secs(20), || {
            chatting.is_finished() || done.load(Ordering::Relaxed) > before
        });
        assert!(!chatting.is_finished(), "a request failed {during}");
    };
    progress("before");
    let zookeeper = cluster.zookeeper().node(0);

    // Time itself is what is tested: longer than any session.
    zookeeper.stop();
    let until = Instant::now() + Duration::from_secs(20);
    while Instant::now() < until {
        progress("while ZooKeeper is stopped");
    }
    zookeeper.restart().unwrap();
    wait_registered(&cluster.zookeeper().addresses(), Duration::from_secs(10));
    progress("after ZooKeeper is back");

    zookeeper.kill();
    progress("while ZooKeeper is killed");
    zookeeper.restart().unwrap();
    wait_registered(&cluster.zookeeper().addresses(), Duration::from_secs(10));
    progress("after ZooKeeper is back again");

    stop.store(true, Ordering::Relaxed);
    chatting.join().unwrap();
}

#[test]
fn a_dead_proxy_leaves_nobody_online_and_loses_nothing() {
    let (cluster, system) = cluster();
    let (mut left, right) = suite::friends(&system);
    let user = right.user_id;
    cluster.proxy(1).kill();
    drop(right);
    wait_until(
        "the friend counts as offline",
        Duration::from_secs(15),
        || &left.friends()[0].friend_state[..] == b"offline",
    );
    assert_eq!(
        left.chat(user, "while your proxy is dead").error_code,
        code::SUCCESS
    );
    // The other proxy takes the user in, with what was pending.
    let mut again = WireClient::connect(system.left);
    let answer = suite::login(&mut again, user, true);
    let list = answer.offline_message_list.unwrap_or_default().messages;
    assert_eq!(
        list.last().map(|message| message.content.as_str()),
        Some("while your proxy is dead")
    );
    assert_eq!(left.chat(user, "live").error_code, code::SUCCESS);
    let push: FriendChatRequest = again.push(MessageId::RECV_FRIEND);
    assert_eq!(push.content, "live");
}

#[test]
fn a_server_that_stops_hands_over_to_the_other() {
    let (cluster, system) = cluster();
    let (mut left, mut right) = suite::friends(&system);
    for server in [0, 1] {
        cluster.server(server).stop();
        for i in 0..50 {
            assert_eq!(
                left.chat(right.user_id, &format!("{server} {i}"))
                    .error_code,
                code::SUCCESS
            );
            let push: FriendChatRequest = right.push(MessageId::RECV_FRIEND);
            assert_eq!(push.content, format!("{server} {i}"));
        }
        cluster.server(server).restart().unwrap();
        wait_registered(&cluster.zookeeper().addresses(), Duration::from_secs(10));
        wait_until("both proxies serve", Duration::from_secs(10), || {
            suite::serves(system.left) && suite::serves(system.right)
        });
    }
}

#[test]
fn redis_and_mariadb_may_go_and_come_back() {
    let (cluster, system) = cluster();
    let (mut left, mut right) = suite::friends(&system);
    let b = right.user_id;

    // Redis comes back empty: the proxies bring presence back, and deliver what was sent meanwhile.
    cluster.redis().kill();
    let answer = left.chat(b, "without redis");
    assert_eq!(
        answer.error_code,
        code::SUCCESS,
        "stored, whatever Redis does: {}",
        answer.error_text
    );
    cluster.redis().restart().unwrap();
    let push: FriendChatRequest = right.push(MessageId::RECV_FRIEND);
    assert_eq!(push.content, "without redis");
    wait_until("presence is back", Duration::from_secs(20), || {
        let seen = left.friends_if_available();
        seen.is_some_and(|friends| &friends[0].friend_state[..] == b"online")
    });

    // Without the database a request is answered, and says that it may be tried again.
    cluster.mariadb().kill();
    let answer = left.chat(b, "without mariadb");
    assert_eq!(answer.error_code, code::UNAVAILABLE);
    cluster.mariadb().restart().unwrap();
    wait_until("messages are taken again", Duration::from_secs(20), || {
        left.chat(b, "with mariadb").error_code == code::SUCCESS
    });
    let push: FriendChatRequest = right.push(MessageId::RECV_FRIEND);
    assert_eq!(push.content, "with mariadb");
}
