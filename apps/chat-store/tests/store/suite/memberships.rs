//! Who belongs to a conversation: whatever a store keeps in memory, what it says must hold.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use chat_store::*;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{NO_LIMIT, Servers, befriend, create_group, join, register, send, text};

/// Tries again while the database is busy with others, as a SQLite file soon is.
fn patiently<T>(mut operation: impl FnMut() -> Result<T, StoreError>) -> T {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        match operation() {
            Err(error) if error.is_unavailable() && Instant::now() < until => {}
            result => return result.unwrap(),
        }
    }
}

/// The groups that a user is shown, in both ways.
fn shown_groups(store: &dyn Store, user: UserId) -> [Vec<Group>; 2] {
    [
        store.groups(user).unwrap(),
        store
            .overview(user, &[], NO_LIMIT, usize::MAX)
            .unwrap()
            .groups
            .items,
    ]
}

fn is_nowhere(store: &dyn Store, user: UserId) -> bool {
    shown_groups(store, user).iter().all(Vec::is_empty)
}

/// Whether a member is shown to a user, which must be the same in both ways.
fn is_shown(store: &dyn Store, user: UserId, group: GroupId, member: UserId) -> bool {
    let [listed, at_login] = shown_groups(store, user).map(|groups| {
        let group = groups.iter().find(|shown| shown.id == group);
        group.is_some_and(|group| group.members.iter().any(|shown| shown.id == member))
    });
    assert_eq!(listed, at_login);
    listed
}

fn members(outcome: &AppendOutcome) -> &[UserId] {
    match outcome {
        AppendOutcome::Committed {
            members: Some(members),
            ..
        } => members,
        other => panic!("{other:?}"),
    }
}

fn group_message(store: &dyn Store, group: GroupId, sender: UserId) -> AppendOutcome {
    let message = text(ConversationId::group(group), sender, "x");
    patiently(|| store.append(std::slice::from_ref(&message), &[])).remove(0)
}

pub(crate) fn a_change_at_one_server_holds_at_once_at_the_other(servers: &Servers) {
    let Servers { a, b, .. } = servers;
    let (ann, bob) = (register(&**a, "ann"), register(&**a, "bob"));
    let group = create_group(&**a, ann, "group", "about").id;
    for round in 0..3 {
        join(&**b, bob, group);
        for store in [a, b] {
            assert_eq!(members(&group_message(&**store, group, ann)), [ann, bob]);
            assert_eq!(members(&group_message(&**store, group, bob)), [ann, bob]);
            assert!(is_shown(&**store, ann, group, bob), "round {round}");
            assert!(is_shown(&**store, bob, group, bob), "round {round}");
        }
        let leaves = if round % 2 == 0 { a } else { b };
        leaves.leave_group(bob, group).unwrap();
        for store in [a, b] {
            assert_eq!(members(&group_message(&**store, group, ann)), [ann]);
            let refused = group_message(&**store, group, bob);
            assert_eq!(refused, AppendOutcome::NotMember);
            assert!(!is_shown(&**store, ann, group, bob), "round {round}");
            assert!(is_nowhere(&**store, bob), "round {round}");
        }
    }
    a.delete_group(ann, group).unwrap();
    for store in [a, b] {
        assert_eq!(
            group_message(&**store, group, ann),
            AppendOutcome::NotMember
        );
        assert!(is_nowhere(&**store, ann));
    }
}

pub(crate) fn an_heir_is_shown_as_admin_at_both_servers(servers: &Servers) {
    let Servers { a, b, .. } = servers;
    let (ann, bob) = (register(&**a, "ann"), register(&**a, "bob"));
    let group = create_group(&**a, ann, "group", "").id;
    join(&**a, bob, group);
    let role = |store: &dyn Store| {
        let [groups, at_login] = shown_groups(store, bob);
        assert_eq!(groups, at_login);
        let mut members = groups[0].members.iter();
        members.find(|member| member.id == bob).unwrap().role
    };
    assert_eq!((role(&**a), role(&**b)), (Role::Member, Role::Member));
    a.leave_group(ann, group).unwrap();
    assert_eq!((role(&**a), role(&**b)), (Role::Admin, Role::Admin));
}

pub(crate) fn who_is_no_friend_any_more_cannot_write_at_either_server(servers: &Servers) {
    let Servers { a, b, .. } = servers;
    let (ann, bob) = (register(&**a, "ann"), register(&**a, "bob"));
    let pair = ConversationId::pair(ann, bob).unwrap();
    for _ in 0..3 {
        befriend(&**a, ann, bob);
        send(&**a, pair, ann, "to bob");
        send(&**b, pair, bob, "to ann");
        assert_eq!(b.friends(ann).unwrap()[0].id, bob);
        b.delete_friend(bob, ann).unwrap();
        for (store, sender) in [(a, ann), (a, bob), (b, ann), (b, bob)] {
            let outcomes = store.append(&[text(pair, sender, "x")], &[]).unwrap();
            assert_eq!(outcomes, [AppendOutcome::NotFriends]);
            assert!(store.friends(sender).unwrap().is_empty());
            assert!(
                store
                    .overview(sender, &[], NO_LIMIT, usize::MAX)
                    .unwrap()
                    .friends
                    .items
                    .is_empty()
            );
        }
    }
}

/// Members come and go at both servers while all of them write. Afterwards the messages that tell of the changes
/// say who was a member at each place; exactly those must have been named, in the order they had joined.
pub(crate) fn a_message_goes_to_the_members_at_its_place(servers: &Servers) {
    const MEMBERS: u64 = 4;
    const ROUNDS: usize = 25;
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let owner = register(&*servers.a, "owner");
    let group = create_group(&*servers.a, owner, "group", "").id;
    let named: Mutex<BTreeMap<u64, Vec<UserId>>> = Mutex::default();
    let over = AtomicBool::new(false);
    let write = |store: &dyn Store, sender: UserId| match group_message(store, group, sender) {
        AppendOutcome::NotMember => false,
        outcome => {
            let sequence = super::committed(&outcome).sequence;
            let to = members(&outcome).to_vec();
            assert!(named.lock().unwrap().insert(sequence, to).is_none());
            true
        }
    };
    thread::scope(|scope| {
        let comings: Vec<_> = (0..MEMBERS)
            .map(|number| {
                let member = register(&*servers.a, "member");
                let write = &write;
                scope.spawn(move || {
                    let mut random = StdRng::seed_from_u64(seed.wrapping_add(number));
                    let mut any = || match random.random::<bool>() {
                        true => &*servers.a,
                        false => &*servers.b,
                    };
                    for _ in 0..ROUNDS {
                        let joined = patiently(|| any().join_group(member, group, 1000, 1000));
                        assert!(matches!(joined, JoinGroup::Joined { .. }));
                        assert!(write(any(), member), "a member may write");
                        assert!(is_shown(any(), member, group, member));
                        let left = patiently(|| any().leave_group(member, group));
                        assert!(matches!(left, LeaveGroup::Left { .. }));
                        // Nobody else changes this membership, so these hold whatever the others do.
                        assert!(!write(any(), member), "who left may not write");
                        assert!(!is_shown(any(), owner, group, member));
                        assert!(is_nowhere(any(), member));
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            for store in [&servers.a, &servers.b].into_iter().cycle() {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                assert!(write(&**store, owner), "the owner stays");
            }
        });
        let panicked = comings.into_iter().filter_map(|one| one.join().err());
        let panicked: Vec<_> = panicked.collect();
        over.store(true, Ordering::Relaxed);
        assert!(panicked.is_empty(), "a member's thread failed");
    });

    let conversation = ConversationId::group(group);
    let mut present = vec![owner];
    let mut chats = 0;
    for message in servers.a.history(conversation, 1, usize::MAX).unwrap() {
        match message.kind {
            MessageKind::JoinGroup => present.push(message.sender),
            MessageKind::LeaveGroup => present.retain(|member| *member != message.sender),
            MessageKind::GroupChat => {
                chats += 1;
                let named = named.lock().unwrap();
                assert_eq!(named[&message.sequence], present, "{}", message.sequence);
                assert!(present.contains(&message.sender), "{}", message.sequence);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(chats, named.lock().unwrap().len());
}
