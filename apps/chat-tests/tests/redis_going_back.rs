//! Redis goes back to an older state under a real cluster.

use std::time::Duration;

use chat_proto::ids::code;
use chat_tests::{WireClient, suite};
use nexus_testkit::{Cluster, ClusterOptions, Profile, build_binaries, wait_until};

const SOON: Duration = Duration::from_secs(60);
const PASSWORD: &str = "secret-1";

#[test]
fn who_left_after_the_snapshot_is_offline_and_who_came_is_online() {
    let binaries = build_binaries(Profile::Dev).unwrap();
    let cluster = Cluster::start(ClusterOptions::new(binaries)).unwrap();
    for proxy in cluster.proxies() {
        wait_until("the proxy serves", SOON, || suite::serves(proxy.address()));
    }
    let mut anna = member(&cluster, 0, "anna");
    let mut friend = |name: &str, at: usize| {
        let friend = member(&cluster, at, name);
        assert_eq!(anna.add_friend(friend.user_id).error_code, code::SUCCESS);
        friend
    };
    let (mut logs_out, closes) = (friend("bert", 0), friend("carl", 1));
    let (stays, comes) = (friend("dora", 1), friend("emil", 0));
    let [out, closed, stayed, came] =
        [&logs_out, &closes, &stays, &comes].map(|friend| friend.user_id);
    drop(comes);
    let mut online_are = |expected: &[i32]| {
        wait_until("the friends who should be are online", SOON, || {
            let mut online = online(&mut anna);
            online.sort_unstable();
            online == expected
        });
    };
    online_are(&[out, closed, stayed]);

    assert_eq!(cluster.redis().ask("SAVE").unwrap(), "+OK");
    assert_eq!(logs_out.logout().error_code, code::SUCCESS);
    drop(closes);
    let _comes = log_in(&cluster, 1, came);
    online_are(&[stayed, came]);
    cluster.redis().kill();
    cluster.redis().restart().unwrap();

    // Redis has come back with users who are not there, and without one who is.
    online_are(&[stayed, came]);
    // The proxies have compared by then, with all that Redis had.
    wait_until("compared", SOON, || {
        let left =
            [out, closed].map(|user| cluster.redis().ask(&format!("EXISTS nexus:user:{user}")));
        left.into_iter()
            .all(|left| left.is_ok_and(|left| left == ":0"))
    });
    online_are(&[stayed, came]);
    drop(log_in(&cluster, 1, out));
}

fn member(cluster: &Cluster, at: usize, name: &str) -> WireClient {
    let mut client = WireClient::connect(cluster.proxy(at).address());
    let registered = client.register(name, PASSWORD);
    assert_eq!(
        registered.error_code,
        code::SUCCESS,
        "{}",
        registered.error_text
    );
    log_in(cluster, at, registered.user_id)
}

fn log_in(cluster: &Cluster, at: usize, user: i32) -> WireClient {
    let mut client = WireClient::connect(cluster.proxy(at).address());
    let answer = client.login(user, PASSWORD, true);
    assert_eq!(answer.error_code, code::SUCCESS, "{}", answer.error_text);
    client
}

/// The friends who are online.
fn online(client: &mut WireClient) -> Vec<i32> {
    let friends = client.friends().into_iter();
    friends
        .filter(|friend| friend.friend_state.as_ref() == b"online")
        .map(|friend| friend.friend_id)
        .collect()
}
