//! A real cluster whose Redis is away: messages arrive all the same, and people come and go.

use std::time::Duration;

use chat_proto::ids::{MessageId, code};
use chat_proto::messages::FriendChatRequest;
use chat_tests::suite;
use chat_tests::{System, WireClient};
use nexus_testkit::{Cluster, ClusterOptions, Profile, build_binaries, wait_until};

#[test]
fn without_redis_messages_arrive_and_people_log_in() {
    let binaries = build_binaries(Profile::Dev).unwrap();
    let cluster = Cluster::start(ClusterOptions::new(binaries)).unwrap();
    let system = System {
        left: cluster.proxy(0).address().into(),
        right: cluster.proxy(1).address().into(),
    };
    for address in [system.left, system.right] {
        wait_until("the proxy serves", Duration::from_secs(30), || {
            suite::serves(address)
        });
    }
    let (mut left, mut right) = suite::friends(&system);
    let (a, b) = (left.user_id, right.user_id);
    for killed in [false, true] {
        match killed {
            false => cluster.redis().pause(),
            true => drop(cluster.redis().kill()),
        }
        // Each is pushed while Redis is away: fetched by the proxy.
        for text in ["one", "two", "three"] {
            assert_eq!(left.chat(b, text).error_code, code::SUCCESS);
            let push: FriendChatRequest = right.push(MessageId::RECV_FRIEND);
            assert_eq!(push.content, text);
        }
        // A login, at a proxy that the user was not at.
        drop(right);
        right = WireClient::connect(system.left);
        suite::login(&mut right, b, true);
        assert_eq!(
            right.chat(a, "from a new session").error_code,
            code::SUCCESS
        );
        let push: FriendChatRequest = left.push(MessageId::RECV_FRIEND);
        assert_eq!(push.content, "from a new session");

        match killed {
            false => cluster.redis().resume(),
            true => cluster.redis().restart().unwrap(),
        }
        wait_until("presence is back", Duration::from_secs(20), || {
            &left.friends()[0].friend_state[..] == b"online"
        });
        assert_eq!(left.chat(b, "as before").error_code, code::SUCCESS);
        let push: FriendChatRequest = right.push(MessageId::RECV_FRIEND);
        assert_eq!(push.content, "as before");
    }
}
