//! A real cluster whose proxies, servers and Redis stand still with work in them: what they carry out when they go on
//! harms nobody who came later, and nobody was told what is not so.
//!
//! The pauses are shorter and longer than the five seconds that a proxy waits for a service. Time itself is what is
//! tested, so it is waited for.

use std::time::{Duration, Instant};

use bytes::Bytes;
use chat_proto::ids::{MessageId, code};
use chat_proto::messages::*;
use chat_tests::suite;
use chat_tests::{System, WireClient};
use nexus_testkit::{Cluster, ClusterOptions, Profile, build_binaries, wait_until};

const SOON: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(6);
/// For what went on late to do its harm.
const AFTERMATH: Duration = Duration::from_secs(1);

fn cluster() -> (Cluster, System) {
    let binaries = build_binaries(Profile::Dev).unwrap();
    let cluster = Cluster::start(ClusterOptions::new(binaries)).unwrap();
    let system = System {
        left: cluster.proxy(0).address().into(),
        right: cluster.proxy(1).address().into(),
    };
    wait_serving(&system);
    (cluster, system)
}

fn wait_serving(system: &System) {
    for address in [system.left, system.right] {
        wait_until("the proxy serves", SOON, || suite::serves(address));
    }
}

fn wait_out(pause: Duration) {
    let until = Instant::now() + pause;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        std::thread::sleep(left);
    }
}

/// The session serves, again and again, and is not ended.
fn assert_stays(client: &mut WireClient, what: &str) {
    let until = Instant::now() + AFTERMATH;
    while Instant::now() < until {
        assert!(client.friends().len() < 100, "{what}");
        client.assert_no_push();
    }
}

fn resume_request(user_id: i32, token: &Bytes) -> ResumeRequest {
    ResumeRequest {
        user_id,
        session_token: token.clone(),
        acknowledges: true,
        ..Default::default()
    }
}

fn history(client: &mut WireClient, friend_id: i32) -> Vec<String> {
    let request = FetchHistoryRequest {
        user_id: client.user_id,
        conversation: Some(Conversation {
            friend_id,
            group_id: 0,
        }),
        first_sequence: 2,
        ..Default::default()
    };
    let (id, answer_id) = (MessageId::FETCH_HISTORY, MessageId::FETCH_HISTORY_ANSWER);
    let answer: FetchHistoryResponse = client.request(id, &request, answer_id);
    assert_eq!(answer.error_code, code::SUCCESS, "{}", answer.error_text);
    let texts = answer.messages.into_iter().map(|message| message.content);
    texts.collect()
}

#[derive(Debug, Clone, Copy)]
enum Leaves {
    Closing,
    Aborting,
    /// As when the network is gone: the proxy hears nothing.
    Silently,
}

#[test]
fn a_login_that_lies_in_a_stopped_proxy_ends_no_session_that_came_later() {
    let (cluster, system) = cluster();
    let mut right = WireClient::connect(system.right);
    let user = suite::new_user(&mut right);
    let mut token = suite::login(&mut right, user, true).session_token;
    for pause in [SHORT, LONG] {
        for (leaves, by_password) in [
            (Leaves::Closing, false),
            (Leaves::Aborting, true),
            (Leaves::Silently, false),
            (Leaves::Silently, true),
        ] {
            let what = format!("{leaves:?} after {pause:?}, by password: {by_password}");
            drop(right);
            cluster.proxy(0).pause();
            let mut stale = WireClient::connect(system.left);
            let (sent, answer_id) = match by_password {
                true => (suite::send_login(&mut stale, user), MessageId::LOGIN_ANSWER),
                false => {
                    let request = resume_request(user, &token);
                    let sent = stale.send(MessageId::RESUME, &request);
                    (sent, MessageId::RESUME_ANSWER)
                }
            };
            wait_out(pause);
            let mut silent = None;
            match leaves {
                Leaves::Closing => drop(stale),
                Leaves::Aborting => stale.abort(),
                Leaves::Silently => silent = Some(stale),
            }
            right = WireClient::connect(system.right);
            let resumed = right.resume(user, &token, &[]);
            assert_eq!(resumed.error_code, code::SUCCESS, "{what}");
            cluster.proxy(0).resume();
            assert_stays(&mut right, &what);
            if let Some(mut silent) = silent {
                let refused: LoginResponse = silent.answer(sent, answer_id);
                assert_eq!(refused.error_code, code::UNAVAILABLE, "{what}");
            }
            // Nor has it taken the token, or the session's right to act.
            assert_eq!(right.create_group("group").error_code, code::SUCCESS);
            let mut again = WireClient::connect(system.right);
            let resumed = again.resume(user, &token, &[]);
            assert_eq!(resumed.error_code, code::SUCCESS, "{what}");
            let _: SignedOut = right.push(MessageId::SIGNED_OUT);
            right = again;
        }
        // Where nobody has come later, a login that waited is good, or is told that it may be tried again.
        let patient = suite::new_user(&mut WireClient::connect(system.right));
        cluster.proxy(0).pause();
        let mut waiting = WireClient::connect(system.left);
        let sent = suite::send_login(&mut waiting, patient);
        wait_out(pause);
        cluster.proxy(0).resume();
        let answer: LoginResponse = waiting.answer(sent, MessageId::LOGIN_ANSWER);
        match pause < Duration::from_secs(5) {
            true => assert_eq!(answer.error_code, code::SUCCESS),
            false => assert_eq!(answer.error_code, code::UNAVAILABLE),
        }
        right = WireClient::connect(system.right);
        token = suite::login(&mut right, user, true).session_token;
    }
}

#[test]
fn a_message_that_lies_in_a_stopped_proxy_is_not_sent_for_a_session_that_went_on_elsewhere() {
    let (cluster, system) = cluster();
    let (mut left, mut friend) = suite::friends(&system);
    let (user, other) = (left.user_id, friend.user_id);
    let mut sent = Vec::new();
    for pause in [SHORT, LONG] {
        left = WireClient::connect(system.left);
        let token = suite::login(&mut left, user, true).session_token;
        cluster.proxy(0).pause();
        let id = u64::try_from(sent.len()).unwrap() + 1;
        let requests = [
            left.chat_request(other, "without an id", 0),
            left.chat_request(other, "with an id", id),
        ];
        for request in &requests {
            left.send(MessageId::FRIEND_CHAT, request);
        }
        wait_out(pause);
        let mut again = WireClient::connect(system.right);
        let resumed = again.resume(user, &token, &[]);
        assert_eq!(resumed.error_code, code::SUCCESS);
        again.user_id = user;
        for request in &requests {
            let (id, answer_id) = (MessageId::FRIEND_CHAT, MessageId::FRIEND_CHAT_ANSWER);
            let answer: FriendChatResponse = again.request(id, request, answer_id);
            assert_eq!(answer.error_code, code::SUCCESS);
            sent.push(request.content.clone());
        }
        cluster.proxy(0).resume();
        assert_stays(&mut again, "the session that went on");
        assert_eq!(history(&mut friend, user), sent);
    }
}

#[test]
fn what_lies_in_stopped_servers_is_not_carried_out_after_its_answer() {
    let (cluster, system) = cluster();
    let (mut left, mut right) = suite::friends(&system);
    let (a, b) = (left.user_id, right.user_id);
    let mut other = WireClient::connect(system.right);
    let user = suite::new_user(&mut other);
    let token = suite::login(&mut other, user, true).session_token;
    let servers = [cluster.server(0), cluster.server(1)];

    // Longer than anybody waits.
    servers.iter().for_each(|server| server.pause());
    let mut late = [(); 2].map(|()| WireClient::connect(system.left));
    let login = suite::send_login(&mut late[0], user);
    let resume = late[1].send(MessageId::RESUME, &resume_request(user, &token));
    let first = left.chat(b, "told that it is not known");
    assert_eq!(first.error_code, code::UNCERTAIN, "{}", first.error_text);
    let recognised = left.chat_request(b, "to be tried again", 7);
    let (id, answer_id) = (MessageId::FRIEND_CHAT, MessageId::FRIEND_CHAT_ANSWER);
    let second: FriendChatResponse = left.request(id, &recognised, answer_id);
    assert_eq!(second.error_code, code::UNAVAILABLE);
    let group = left.create_group("told that it is not known").error_code;
    assert!(
        [code::UNCERTAIN, code::UNAVAILABLE].contains(&group),
        "{group}"
    );
    let answer: LoginResponse = late[0].answer(login, MessageId::LOGIN_ANSWER);
    assert_eq!(answer.error_code, code::UNAVAILABLE);
    let answer: LoginResponse = late[1].answer(resume, MessageId::RESUME_ANSWER);
    assert_eq!(answer.error_code, code::UNAVAILABLE);
    servers.iter().for_each(|server| server.resume());
    wait_serving(&system);
    assert_stays(&mut other, "the session that was there");
    let second: FriendChatResponse = left.request(id, &recognised, answer_id);
    assert_eq!(second.error_code, code::SUCCESS);
    assert_eq!(left.chat(b, "after").error_code, code::SUCCESS);
    for text in ["to be tried again", "after"] {
        let push: FriendChatRequest = right.push(MessageId::RECV_FRIEND);
        assert_eq!(push.content, text);
    }
    assert_eq!(history(&mut right, a), ["to be tried again", "after"]);
    let request = FetchGroupsRequest {
        user_id: a,
        ..Default::default()
    };
    let (id, answer_id) = (MessageId::FETCH_GROUPS, MessageId::FETCH_GROUPS_ANSWER);
    let groups: FetchGroupsResponse = left.request(id, &request, answer_id);
    assert!(groups.group_list.unwrap_or_default().groups.is_empty());

    // Shorter: all of it is done, in order.
    servers.iter().for_each(|server| server.pause());
    let requests = ["one", "two", "three"].map(|text| {
        let request = left.chat_request(b, text, 0);
        left.send(MessageId::FRIEND_CHAT, &request)
    });
    wait_out(SHORT);
    servers.iter().for_each(|server| server.resume());
    for request in requests {
        let answer: FriendChatResponse = left.answer(request, MessageId::FRIEND_CHAT_ANSWER);
        assert_eq!(answer.error_code, code::SUCCESS, "{}", answer.error_text);
    }
    assert_eq!(history(&mut right, a)[2..], ["one", "two", "three"]);
}

#[test]
fn while_redis_stands_still_a_newer_login_ends_what_the_older_session_may_do() {
    let (cluster, system) = cluster();
    let (mut older, mut friend) = suite::friends(&system);
    let user = older.user_id;
    for pause in [SHORT, LONG] {
        let began = Instant::now();
        cluster.redis().pause();
        let mut newer = WireClient::connect(system.right);
        suite::login(&mut newer, user, true);
        // The session looks for what it may have missed, and hears of the newer login from the store.
        let told = older.closed();
        let last = told.last().map(|frame| MessageId(frame.message_id));
        assert_eq!(last, Some(MessageId::SIGNED_OUT), "{told:?}");
        assert_eq!(newer.create_group("group").error_code, code::SUCCESS);
        let stored = newer.chat(friend.user_id, "by the newer session");
        assert_eq!(stored.error_code, code::SUCCESS);
        wait_out(pause.saturating_sub(began.elapsed()));
        cluster.redis().resume();
        let push: FriendChatRequest = friend.push(MessageId::RECV_FRIEND);
        assert_eq!(push.content, "by the newer session");
        assert_stays(&mut newer, "the newer session");
        older = newer;
    }
}
