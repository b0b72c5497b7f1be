//! Friendships and the notices of them.

use std::thread;

use chat_store::*;

use super::{Servers, add_friend, befriend, pair, pending_kinds, register, send};

pub(crate) fn friends_see_each_other(servers: &Servers) {
    let (ann, bob) = (register(&*servers.a, "ann"), register(&*servers.a, "bob"));
    let conversation = ConversationId::pair(ann, bob).unwrap();
    assert!(!servers.a.is_participant(ann, conversation).unwrap());

    let bob_name = servers.a.names(&[bob]).unwrap().remove(&bob).unwrap();
    let AddFriend::Added { stamp, friend_name } = add_friend(&*servers.a, ann, bob) else {
        panic!("not added");
    };
    assert_eq!((stamp.sequence, &friend_name), (1, &bob_name));
    assert_eq!(
        servers.b.friends(ann).unwrap(),
        [Friend {
            id: bob,
            name: bob_name
        }]
    );
    assert_eq!(servers.b.friends(bob).unwrap()[0].id, ann);
    for user in [ann, bob] {
        assert!(servers.b.is_participant(user, conversation).unwrap());
        let state = ConversationState {
            conversation,
            acked_sequence: 0,
            last_sequence: stamp.sequence,
        };
        assert_eq!(servers.b.conversations(user).unwrap(), [state]);
    }
    let told = [(conversation, 1, MessageKind::AddFriend)];
    assert_eq!(pending_kinds(&*servers.b, bob), told);
    assert_eq!(pending_kinds(&*servers.b, ann), []);
}

pub(crate) fn friends_are_made_once_and_of_others_who_exist(servers: &Servers) {
    let (ann, bob, conversation) = pair(&*servers.a);
    let nobody = UserId::new(i32::MAX).unwrap();
    assert_eq!(add_friend(&*servers.a, ann, bob), AddFriend::AlreadyFriends);
    assert_eq!(add_friend(&*servers.b, bob, ann), AddFriend::AlreadyFriends);
    assert_eq!(add_friend(&*servers.a, ann, nobody), AddFriend::NoSuchUser);
    assert_eq!(add_friend(&*servers.a, nobody, ann), AddFriend::NoSuchUser);
    assert_eq!(add_friend(&*servers.a, ann, ann), AddFriend::NoSuchUser);
    assert_eq!(servers.a.conversations(ann).unwrap()[0].last_sequence, 1);
    assert_eq!(
        pending_kinds(&*servers.a, bob),
        [(conversation, 1, MessageKind::AddFriend)]
    );
}

pub(crate) fn ending_a_friendship_tells_the_other_one(servers: &Servers) {
    let (ann, bob, conversation) = pair(&*servers.a);
    let carl = register(&*servers.a, "carl");
    let nobody = UserId::new(i32::MAX).unwrap();
    assert_eq!(
        servers.a.delete_friend(ann, carl).unwrap(),
        DeleteFriend::NotFriends
    );
    assert_eq!(
        servers.a.delete_friend(ann, nobody).unwrap(),
        DeleteFriend::NoSuchUser
    );
    assert_eq!(
        servers.a.delete_friend(ann, ann).unwrap(),
        DeleteFriend::NoSuchUser
    );

    send(&*servers.a, conversation, bob, "before the end");
    let DeleteFriend::Deleted(stamp) = servers.b.delete_friend(bob, ann).unwrap() else {
        panic!("not deleted");
    };
    assert_eq!(stamp.sequence, 3);
    assert!(servers.a.friends(ann).unwrap().is_empty());
    assert!(servers.a.friends(bob).unwrap().is_empty());
    assert_eq!(
        servers.a.delete_friend(ann, bob).unwrap(),
        DeleteFriend::NotFriends
    );
    // What was written before still arrives, and may be read again.
    let told = [
        (conversation, 2, MessageKind::FriendChat),
        (conversation, 3, MessageKind::DeleteFriend),
    ];
    assert_eq!(pending_kinds(&*servers.a, ann), told);
    assert!(servers.a.is_participant(ann, conversation).unwrap());
}

pub(crate) fn a_renewed_friendship_goes_on_with_the_sequence(servers: &Servers) {
    let (ann, bob, conversation) = pair(&*servers.a);
    super::acknowledge(&*servers.a, bob, conversation, 1);
    servers.a.delete_friend(ann, bob).unwrap();
    assert_eq!(befriend(&*servers.b, ann, bob).sequence, 3);
    assert_eq!(send(&*servers.a, conversation, bob, "again").sequence, 4);
    let told = [
        (conversation, 2, MessageKind::DeleteFriend),
        (conversation, 3, MessageKind::AddFriend),
    ];
    assert_eq!(pending_kinds(&*servers.a, bob), told);
}

pub(crate) fn two_who_add_each_other_at_once_become_friends_once(servers: &Servers) {
    for _ in 0..10 {
        let (ann, bob) = (register(&*servers.a, "ann"), register(&*servers.a, "bob"));
        let outcomes: Vec<_> = thread::scope(|scope| {
            let one = scope.spawn(|| add_friend(&*servers.a, ann, bob));
            let other = scope.spawn(|| add_friend(&*servers.b, bob, ann));
            [one, other].map(|thread| thread.join().unwrap()).into()
        });
        let already = outcomes
            .iter()
            .filter(|one| **one == AddFriend::AlreadyFriends)
            .count();
        assert_eq!(already, 1, "{outcomes:?}");
        assert_eq!(servers.a.conversations(ann).unwrap()[0].last_sequence, 1);
    }
}

pub(crate) fn nobody_has_more_friends_than_allowed(servers: &Servers) {
    let users = ["ann", "bob", "carl", "dora"].map(|name| register(&*servers.a, name));
    let [ann, bob, carl, dora] = users;
    befriend(&*servers.a, ann, bob);
    befriend(&*servers.a, carl, ann);
    for (user, friend) in [(ann, dora), (dora, ann)] {
        assert_eq!(
            servers.b.add_friend(user, friend, 2).unwrap(),
            AddFriend::TooManyFriends { of: ann }
        );
    }
    // Those who are friends are told that first, and one who goes makes room.
    assert_eq!(
        servers.b.add_friend(ann, bob, 2).unwrap(),
        AddFriend::AlreadyFriends
    );
    servers.a.delete_friend(bob, ann).unwrap();
    assert!(matches!(
        servers.b.add_friend(ann, dora, 2).unwrap(),
        AddFriend::Added { .. }
    ));
}

pub(crate) fn however_many_are_added_at_once_there_are_no_more_friends_than_allowed(
    servers: &Servers,
) {
    const FRIENDS_MAX: usize = 3;
    let ann = register(&*servers.a, "ann");
    let others: Vec<UserId> = (0..8).map(|_| register(&*servers.a, "other")).collect();
    thread::scope(|scope| {
        for (index, &other) in others.iter().enumerate() {
            let store = if index % 2 == 0 {
                &servers.a
            } else {
                &servers.b
            };
            // From either side.
            let (user, friend) = if index % 4 < 2 {
                (ann, other)
            } else {
                (other, ann)
            };
            scope.spawn(move || store.add_friend(user, friend, FRIENDS_MAX).unwrap());
        }
    });
    assert_eq!(servers.a.friends(ann).unwrap().len(), FRIENDS_MAX);
}
