//! Changes that are made on terms.

use std::time::{Duration, Instant};

use chat_store::*;

use super::{Servers, befriend, committed, create_group, join, pair, register, send, text};

fn until(deadline: Instant) -> Terms {
    Terms {
        deadline: Some(deadline),
        login: None,
    }
}

fn by(user: UserId, number: u64) -> Terms {
    Terms {
        deadline: None,
        login: Some(Login { user, number }),
    }
}

fn on(terms: Terms, message: NewMessage) -> NewMessage {
    NewMessage { terms, ..message }
}

/// Each operation that changes something fails with `refused`, and changes nothing.
fn assert_changes_nothing(servers: &Servers, user: UserId, terms: Terms, refused: &StoreError) {
    let store = &*servers.a;
    let (carl, dora) = (register(store, "carl"), register(store, "dora"));
    befriend(store, user, carl);
    let own = create_group(store, user, "own", "").id;
    let other = create_group(store, carl, "other", "").id;
    let joined = create_group(store, carl, "joined", "").id;
    join(store, user, joined);
    let seen = || {
        let number = servers.b.user(user).unwrap().unwrap().last_login;
        let conversations = servers.b.conversations(user).unwrap();
        let (friends, groups) = (servers.b.friends(user), servers.b.groups(user));
        (number, conversations, friends, groups)
    };
    let before = seen();

    let changes = store.on(terms);
    let refused = || refused.clone();
    assert_eq!(changes.begin_login(user, None), Err(refused()));
    assert_eq!(changes.renew_login(user, 7), Err(refused()));
    assert_eq!(changes.add_friend(user, dora, 10), Err(refused()));
    assert_eq!(changes.delete_friend(user, carl), Err(refused()));
    assert_eq!(changes.create_group(user, "new", "", 10), Err(refused()));
    assert_eq!(changes.join_group(user, other, 10, 10), Err(refused()));
    assert_eq!(changes.leave_group(user, joined), Err(refused()));
    assert_eq!(changes.delete_group(user, own), Err(refused()));
    assert_eq!(seen(), before);
}

pub(crate) fn a_change_after_its_deadline_is_not_made(servers: &Servers) {
    let ann = register(&*servers.a, "ann");
    assert_changes_nothing(servers, ann, until(Instant::now()), &StoreError::TooLate);
    let late = servers.a.on(until(Instant::now()));
    let name = super::unused_name("late");
    assert_eq!(late.create_user(&name, "hash"), Err(StoreError::TooLate));
    let in_time = until(Instant::now() + Duration::from_secs(60));
    let created = servers.b.on(in_time).create_user(&name, "hash");
    assert!(matches!(created, Ok(CreateUser::Created(_))));
}

pub(crate) fn a_login_changes_nothing_once_there_is_a_later_one(servers: &Servers) {
    let ann = register(&*servers.a, "ann");
    let first = servers.a.begin_login(ann, None).unwrap();
    let second = servers.b.begin_login(ann, None).unwrap();
    assert_changes_nothing(servers, ann, by(ann, first), &StoreError::Displaced);
    // Nor is it told what it could have been told before.
    let displaced = servers.a.on(by(ann, first));
    assert_eq!(displaced.friends(ann), Err(StoreError::Displaced));
    let pending = displaced.pending_all(ann, super::NO_LIMIT);
    assert_eq!(pending, Err(StoreError::Displaced));
    let bob = register(&*servers.a, "bob");
    let added = servers.a.on(by(ann, second)).add_friend(ann, bob, 10);
    assert!(matches!(added, Ok(AddFriend::Added { .. })));
}

pub(crate) fn a_batch_stores_only_what_meets_its_terms(servers: &Servers) {
    let (ann, bob, pair) = pair(&*servers.a);
    let first = servers.a.begin_login(ann, None).unwrap();
    let second = servers.b.begin_login(ann, None).unwrap();
    let bobs = servers.b.begin_login(bob, None).unwrap();
    let last = send(&*servers.a, pair, ann, "before").sequence;
    let later = Instant::now() + Duration::from_secs(60);
    let batch = [
        on(by(ann, first), text(pair, ann, "displaced")),
        on(until(Instant::now()), text(pair, bob, "late")),
        on(by(ann, second), text(pair, ann, "by the latest")),
        on(by(bob, bobs), text(pair, bob, "by the other")),
        on(until(later), text(pair, bob, "in time")),
    ];
    let outcomes = servers.a.append(&batch, &[]).unwrap();
    assert_eq!(
        outcomes[..2],
        [AppendOutcome::Displaced, AppendOutcome::TooLate]
    );
    for (sequence, outcome) in (last + 1..).zip(&outcomes[2..]) {
        assert_eq!(committed(outcome).sequence, sequence);
    }
    assert_eq!(servers.b.history(pair, last + 1, 10).unwrap().len(), 3);
}

pub(crate) fn what_was_stored_in_time_stays_stored_when_it_comes_again(servers: &Servers) {
    let (ann, _, pair) = pair(&*servers.a);
    let first = servers.a.begin_login(ann, None).unwrap();
    let message = super::with_id(on(by(ann, first), text(pair, ann, "once")), 7);
    let stored = servers.a.append(std::slice::from_ref(&message), &[]);
    let stamp = committed(&stored.unwrap()[0]);
    servers.b.begin_login(ann, None).unwrap();
    let late = on(until(Instant::now()), message.clone());
    for again in [message, late] {
        let outcomes = servers.b.append(&[again], &[]).unwrap();
        assert_eq!(outcomes, [AppendOutcome::Duplicate(stamp)]);
    }
}

pub(crate) fn many_logins_of_many_users_are_looked_at(servers: &Servers) {
    const USERS: usize = 300;
    let store = &*servers.a;
    let users: Vec<_> = (0..USERS).map(|_| register(store, "one of many")).collect();
    let group = create_group(store, users[0], "all", "").id;
    for &user in &users[1..] {
        join(store, user, group);
    }
    for &user in &users {
        assert_eq!(servers.b.begin_login(user, None), Ok(1));
    }
    // The last one of the second statement.
    let displaced = users[USERS - 1];
    servers.b.begin_login(displaced, None).unwrap();
    let message = |&user| on(by(user, 1), text(ConversationId::group(group), user, "x"));
    let batch: Vec<_> = users.iter().map(message).collect();
    for (&user, outcome) in users.iter().zip(store.append(&batch, &[]).unwrap()) {
        let is_refused = outcome == AppendOutcome::Displaced;
        assert_eq!(is_refused, user == displaced, "{user}: {outcome:?}");
    }
}
