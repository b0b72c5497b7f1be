//! Friendships and the notices of them.

use std::thread;

use chat_store::*;

use super::{Servers, befriend, pair, pending_kinds, register, send};

pub(crate) fn friends_see_each_other(servers: &Servers) {
    let (ann, bob) = (register(&*servers.a, "ann"), register(&*servers.a, "bob"));
    let conversation = ConversationId::pair(ann, bob).unwrap();
    assert!(!servers.a.is_participant(ann, conversation).unwrap());

    let bob_name = servers.a.names(&[bob]).unwrap().remove(&bob).unwrap();
    let AddFriend::Added { stamp, friend_name } = servers.a.add_friend(ann, bob).unwrap() else {
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
    assert_eq!(
        servers.a.add_friend(ann, bob).unwrap(),
        AddFriend::AlreadyFriends
    );
    assert_eq!(
        servers.b.add_friend(bob, ann).unwrap(),
        AddFriend::AlreadyFriends
    );
    assert_eq!(
        servers.a.add_friend(ann, nobody).unwrap(),
        AddFriend::NoSuchUser
    );
    assert_eq!(
        servers.a.add_friend(nobody, ann).unwrap(),
        AddFriend::NoSuchUser
    );
    assert_eq!(
        servers.a.add_friend(ann, ann).unwrap(),
        AddFriend::NoSuchUser
    );
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
            let one = scope.spawn(|| servers.a.add_friend(ann, bob).unwrap());
            let other = scope.spawn(|| servers.b.add_friend(bob, ann).unwrap());
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
