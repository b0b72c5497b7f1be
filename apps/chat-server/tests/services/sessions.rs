//! Sessions: which login wins, and what a token resumes.

use std::time::Duration;

use bytes::Bytes;
use chat_bus::{Bus, LoginPolicy, SessionRef};
use chat_proto::ids::code;
use chat_proto::messages::*;
use chat_store::{TokenHash, UserId};
use sha2::{Digest, Sha256};

use super::{PATIENCE, PROXY, Setting, of, setting};

#[test]
fn the_older_login_wins_where_the_policy_says_so() {
    let setting = setting(|options| options.login_policy = LoginPolicy::OlderWins);
    let user = setting.register("a");
    assert_eq!(setting.login(user, 1).error_code, code::SUCCESS);
    assert_eq!(
        setting.login(user, 2).error_code,
        code::LOGIN_ALREADY_ONLINE
    );
    assert_eq!(setting.logout(user, &Bytes::new(), 1), code::SUCCESS);
    assert_eq!(setting.login(user, 2).error_code, code::SUCCESS);
}

#[test]
fn a_newer_login_ends_the_older_session_and_its_logout_changes_nothing() {
    let setting = setting(|_| {});
    let user = setting.register("a");
    setting.login(user, 1);
    setting.login(user, 2);
    let message = setting.published.recv_timeout(PATIENCE).unwrap();
    assert_eq!(
        message.end_sessions,
        [EndSession {
            user_id: user,
            session_id: 1,
            resumed: false,
        }]
    );
    setting.logout(user, &Bytes::new(), 1);
    assert_eq!(setting.session_of(user), Some(2));
}

#[test]
fn a_session_is_resumed_without_the_password_and_takes_the_place_of_its_old_connection() {
    // Whatever the policy: it is the same session.
    let setting = setting(|options| options.login_policy = LoginPolicy::OlderWins);
    let user = setting.register("a");
    let token = setting.login(user, 1).session_token;
    assert_eq!(token.len(), 32);
    for session in 2..4 {
        let answer = setting.resume(user, &token, session);
        assert_eq!(answer.error_code, code::SUCCESS);
        assert_eq!(answer.user.unwrap().user_name, "a");
        assert!(answer.session_token.is_empty());
        let ended = EndSession {
            user_id: user,
            session_id: session - 1,
            resumed: true,
        };
        // Older sessions may be told again before, in a message of their own.
        loop {
            let message = setting.published.recv_timeout(PATIENCE).unwrap();
            if message.end_sessions.contains(&ended) {
                break;
            }
        }
        assert_eq!(setting.session_of(user), Some(session));
    }
}

#[test]
fn a_login_that_was_given_up_changes_nothing_when_it_runs_at_last() {
    let setting = setting(|_| {});
    let user = setting.register("a");
    let token = setting.login(user, 1).session_token;
    // Their proxy has waited in vain, and made sure that they are over; then the server goes on.
    for session in [2, 3] {
        let place = SessionRef {
            proxy: PROXY,
            session,
        };
        assert_eq!(setting.bus.release(user, place), Ok(false));
    }
    assert_eq!(setting.login(user, 2).error_code, code::UNAVAILABLE);
    let resumed = setting.resume(user, &token, 3);
    assert_eq!(resumed.error_code, code::UNAVAILABLE);
    assert_eq!(setting.session_of(user), Some(1));
    // The token is still that of the session that is there.
    assert_eq!(setting.resume(user, &token, 4).error_code, code::SUCCESS);
}

#[test]
fn a_database_that_has_lost_the_last_logins_keeps_nobody_out() {
    let setting = setting(|_| {});
    let user = setting.register("a");
    let elsewhere = SessionRef {
        proxy: PROXY,
        session: 9,
    };
    let claim = |number: u64| {
        let claim = setting
            .bus
            .claim(user, elsewhere, number.into(), LoginPolicy::NewerWins);
        claim.unwrap();
    };
    claim(100);
    let token = setting.login(user, 1).session_token;
    assert_eq!(setting.session_of(user), Some(1));
    assert_eq!(login_number(&setting, user), 101);
    claim(200);
    assert_eq!(setting.resume(user, &token, 2).error_code, code::SUCCESS);
    assert_eq!(setting.session_of(user), Some(2));
    assert_eq!(login_number(&setting, user), 201);
}

#[test]
fn only_the_last_logins_token_resumes_and_only_its_users_session() {
    let setting = setting(|_| {});
    let (user, other) = (setting.register("a"), setting.register("b"));
    let first = setting.login(user, 1).session_token;
    let second = setting.login(user, 2).session_token;
    let mut changed = second.to_vec();
    changed[31] ^= 1;
    let refused = [
        (user, first),
        (user, Bytes::from(changed)),
        (user, second.slice(..31)),
        (user, Bytes::new()),
        (other, second.clone()),
        (i32::MAX, second.clone()),
        (0, second.clone()),
    ];
    for (user, token) in refused {
        let answer = setting.resume(user, &token, 3);
        assert_eq!(answer.error_code, code::SESSION_ENDED);
        assert_eq!(answer.user, None);
    }
    assert_eq!(setting.session_of(user), Some(2));
    assert_eq!(setting.resume(user, &second, 3).error_code, code::SUCCESS);
}

#[test]
fn a_logout_with_the_token_ends_it_and_one_without_does_not() {
    let setting = setting(|_| {});
    let user = setting.register("a");
    let token = setting.login(user, 1).session_token;
    assert_eq!(setting.logout(user, &Bytes::new(), 1), code::SUCCESS);
    assert_eq!(setting.resume(user, &token, 2).error_code, code::SUCCESS);
    assert_eq!(setting.logout(user, &token, 2), code::SUCCESS);
    assert_eq!(
        setting.resume(user, &token, 3).error_code,
        code::SESSION_ENDED
    );
    assert_eq!(setting.session_of(user), None);
}

#[test]
fn a_login_that_wants_no_token_leaves_none() {
    let setting = setting(|_| {});
    let user = setting.register("a");
    let token = setting.login(user, 1).session_token;
    let request = LoginRequest {
        user_id: user,
        user_password: Bytes::from_static(b"secret"),
        ..Default::default()
    };
    let call = setting.users().login_with(&request, of(user, 2));
    let answer = call.wait().unwrap().message.response.unwrap();
    assert_eq!(answer.error_code, code::SUCCESS);
    assert!(answer.session_token.is_empty());
    assert_eq!(
        setting.resume(user, &token, 3).error_code,
        code::SESSION_ENDED
    );
}

#[test]
fn a_token_that_has_expired_resumes_nothing() {
    let setting = setting(|options| options.session_ttl = Duration::ZERO);
    let user = setting.register("a");
    let token = setting.login(user, 1).session_token;
    assert_eq!(
        setting.resume(user, &token, 2).error_code,
        code::SESSION_ENDED
    );
}

#[test]
fn a_token_that_is_used_lasts_longer_and_is_not_written_each_time() {
    let setting = setting(|_| {});
    let id = setting.register("a");
    let token = setting.login(id, 1).session_token;
    let user = UserId::new(id).unwrap();
    let hash = TokenHash(Sha256::digest(&token).into());
    let expiry = || {
        let owner = setting.store.token_owner(user, &hash, 0).unwrap();
        owner.expect("the token's hash is stored").expires_at_ms
    };
    let at_login = expiry();
    // As if most of a day had passed, and then a week.
    let day_ms = 24 * 3600 * 1000;
    for (earlier_ms, is_extended) in [(day_ms, false), (7 * day_ms, true)] {
        let earlier = at_login - earlier_ms;
        setting.store.extend_token(user, &hash, earlier).unwrap();
        assert_eq!(setting.resume(id, &token, 2).error_code, code::SUCCESS);
        match is_extended {
            true => assert!(expiry() >= at_login),
            false => assert_eq!(expiry(), earlier),
        }
    }
}

#[test]
fn a_resume_brings_what_the_client_lacks_and_no_more() {
    let setting = setting(|_| {});
    let (a, b) = (setting.register("a"), setting.register("b"));
    setting.befriend(a, b);
    let token = setting.login(b, 1).session_token;
    let last = (1..=3)
        .map(|id| setting.chat(a, b, "hi", id).sequence)
        .last();
    let waiting = |sequence: u64| {
        let received = ConversationAck {
            conversation: Some(Conversation {
                friend_id: a,
                group_id: 0,
            }),
            sequence,
        };
        let answer = setting.resume_with(b, &token, 2, vec![received]);
        let list = answer.offline_message_list.unwrap().messages;
        list.iter()
            .map(|message| message.sequence)
            .collect::<Vec<_>>()
    };
    // The friendship is the first message, and three chats follow.
    assert_eq!(last, Some(4));
    assert_eq!(waiting(2), [3, 4]);
    assert_eq!(waiting(4), Vec::<u64>::new());
    assert_eq!(waiting(1000), Vec::<u64>::new());
    let all = setting.resume(b, &token, 2).offline_message_list.unwrap();
    assert_eq!(all.messages.len(), 4);
}

fn login_number(setting: &Setting, user: i32) -> u64 {
    let user = UserId::new(user).unwrap();
    setting.store.user(user).unwrap().unwrap().last_login
}
