//! What sessions are resumed with.

use std::thread;

use chat_store::*;
use rand::RngExt;

use super::{Servers, register};

/// Far from the times of other cases, which may share the database.
const NOW: i64 = 2_000_000_000_000;

fn token(expires_at_ms: i64) -> SessionToken {
    SessionToken {
        hash: TokenHash(rand::rng().random()),
        expires_at_ms,
    }
}

fn is_valid(store: &dyn Store, user: UserId, token: &SessionToken) -> bool {
    store.token_owner(user, &token.hash, NOW).unwrap().is_some()
}

pub(crate) fn a_token_leads_to_its_user_until_it_expires(servers: &Servers) {
    let (ann, bob) = (register(&*servers.a, "ann"), register(&*servers.a, "bob"));
    let token = token(NOW + 1);
    servers.a.begin_login(ann, Some(&token)).unwrap();
    let owner = servers.b.token_owner(ann, &token.hash, NOW).unwrap();
    let expected = TokenOwner {
        user: servers.a.user(ann).unwrap().unwrap(),
        expires_at_ms: NOW + 1,
    };
    assert_eq!(owner, Some(expected));
    // Not for another user, nor for another token.
    assert!(!is_valid(&*servers.b, bob, &token));
    assert!(!is_valid(&*servers.b, ann, &super::tokens::token(NOW + 1)));

    let at = |now| servers.b.token_owner(ann, &token.hash, now).unwrap();
    assert_eq!(at(NOW + 1), None);
    servers.b.extend_token(ann, &token.hash, NOW + 100).unwrap();
    assert_eq!(at(NOW + 99).unwrap().expires_at_ms, NOW + 100);
    assert_eq!(at(NOW + 100), None);
}

pub(crate) fn each_login_has_a_higher_number_than_those_before(servers: &Servers) {
    let (ann, bob) = (register(&*servers.a, "ann"), register(&*servers.a, "bob"));
    let last = |user| servers.b.user(user).unwrap().unwrap().last_login;
    assert_eq!(last(ann), 0);
    let token = token(NOW + 1);
    assert_eq!(servers.a.begin_login(ann, None), Ok(1));
    assert_eq!(servers.b.begin_login(ann, Some(&token)), Ok(2));
    assert_eq!(servers.a.begin_login(bob, None), Ok(1));
    let owner = servers.b.token_owner(ann, &token.hash, NOW).unwrap();
    assert_eq!(owner.unwrap().user.last_login, 2);
    // The token stays.
    assert_eq!(servers.a.renew_login(ann, 1), Ok(3));
    assert_eq!(servers.b.renew_login(ann, 30), Ok(31));
    assert!(is_valid(&*servers.a, ann, &token));
    assert_eq!((last(ann), last(bob)), (31, 1));
    // Only the latest number can be taken back.
    servers.a.withdraw_login(ann, 30).unwrap();
    assert_eq!(last(ann), 31);
    assert_eq!(servers.b.renew_login(ann, 0), Ok(32));
    servers.a.withdraw_login(ann, 32).unwrap();
    assert_eq!((last(ann), last(bob)), (31, 1));
    let mut numbers: Vec<u64> = thread::scope(|scope| {
        let logins: Vec<_> = (0..8)
            .map(|number| {
                let store = if number % 2 == 0 {
                    &servers.a
                } else {
                    &servers.b
                };
                scope.spawn(move || store.begin_login(ann, None).unwrap())
            })
            .collect();
        logins
            .into_iter()
            .map(|login| login.join().unwrap())
            .collect()
    });
    numbers.sort_unstable();
    assert_eq!(numbers, (32..40).collect::<Vec<u64>>());
}

pub(crate) fn a_newer_token_takes_the_place_of_the_older(servers: &Servers) {
    let ann = register(&*servers.a, "ann");
    let (older, newer) = (token(NOW + 1), token(NOW + 1));
    servers.a.begin_login(ann, Some(&older)).unwrap();
    servers.b.begin_login(ann, Some(&newer)).unwrap();
    assert!(!is_valid(&*servers.a, ann, &older));
    assert!(is_valid(&*servers.a, ann, &newer));
    // A late word about the older does nothing to the newer.
    servers.a.extend_token(ann, &older.hash, NOW + 50).unwrap();
    servers.a.end_token(ann, &older.hash).unwrap();
    let owner = servers.a.token_owner(ann, &newer.hash, NOW).unwrap();
    assert_eq!(owner.unwrap().expires_at_ms, NOW + 1);
    servers.b.begin_login(ann, None).unwrap();
    assert!(!is_valid(&*servers.a, ann, &newer));
    servers.b.begin_login(ann, None).unwrap();
}

pub(crate) fn a_token_ends_for_its_own_user_only(servers: &Servers) {
    let (ann, bob) = (register(&*servers.a, "ann"), register(&*servers.a, "bob"));
    let token = token(NOW + 1);
    servers.a.begin_login(ann, Some(&token)).unwrap();
    servers.b.end_token(bob, &token.hash).unwrap();
    assert!(is_valid(&*servers.b, ann, &token));
    servers.b.end_token(ann, &token.hash).unwrap();
    assert!(!is_valid(&*servers.b, ann, &token));
    servers.b.end_token(ann, &token.hash).unwrap();
}

pub(crate) fn expired_tokens_are_deleted_a_few_at_a_time(servers: &Servers) {
    // Before the times of all other cases.
    const EARLY: i64 = 1_000;
    let users: Vec<_> = (0..5).map(|_| register(&*servers.a, "user")).collect();
    for (user, expires_at_ms) in users.iter().zip([1, 2, 3, EARLY, EARLY + 1]) {
        let token = token(expires_at_ms);
        servers.a.begin_login(*user, Some(&token)).unwrap();
    }
    let delete =
        |store: &dyn Store, count_max| store.delete_expired_tokens(EARLY, count_max).unwrap();
    assert_eq!(delete(&*servers.a, 3), 3);
    assert_eq!(delete(&*servers.b, 3), 1);
    assert_eq!(delete(&*servers.b, 3), 0);
    servers.a.begin_login(users[4], None).unwrap();
}

pub(crate) fn tokens_replaced_at_once_leave_one(servers: &Servers) {
    let ann = register(&*servers.a, "ann");
    let tokens: Vec<_> = (0..8).map(|_| token(NOW + 1)).collect();
    thread::scope(|scope| {
        for (index, token) in tokens.iter().enumerate() {
            let store = [&servers.a, &servers.b][index % 2];
            scope.spawn(move || store.begin_login(ann, Some(token)).unwrap());
        }
    });
    let valid = tokens
        .iter()
        .filter(|token| is_valid(&*servers.a, ann, token));
    assert_eq!(valid.count(), 1);
}
