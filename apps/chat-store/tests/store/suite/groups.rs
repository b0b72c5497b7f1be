//! Groups, their members and the notices of them.

use std::{collections::HashMap, thread};

use chat_store::*;

use super::{Servers, create_group, join, pending_kinds, register, send};

fn ids(group: &Group) -> Vec<(UserId, Role)> {
    group
        .members
        .iter()
        .map(|member| (member.id, member.role))
        .collect()
}

pub(crate) fn a_creator_is_the_admin_and_has_nothing_pending(servers: &Servers) {
    let ann = register(&*servers.a, "ann");
    let group = create_group(&*servers.a, ann, "Rust 中文 🦀", "");
    assert_eq!(
        (group.name.as_str(), group.description.as_str()),
        ("Rust 中文 🦀", "")
    );
    assert_eq!(ids(&group), [(ann, Role::Admin)]);
    assert_eq!(
        group.members[0].name,
        servers.a.names(&[ann]).unwrap()[&ann]
    );
    assert_eq!(servers.b.groups(ann).unwrap(), std::slice::from_ref(&group));
    let conversation = ConversationId::group(group.id);
    let state = ConversationState {
        conversation,
        acked_sequence: 0,
        last_sequence: 0,
    };
    assert_eq!(servers.b.conversations(ann).unwrap(), [state]);
    assert_eq!(pending_kinds(&*servers.b, ann), []);

    let nobody = UserId::new(i32::MAX).unwrap();
    assert!(
        servers
            .a
            .create_group(nobody, "of nobody", "", 1000)
            .is_err()
    );
    assert!(servers.a.groups(nobody).unwrap().is_empty());
}

pub(crate) fn joining_tells_the_others_and_leaves_the_past_behind(servers: &Servers) {
    let (ann, bob) = (register(&*servers.a, "ann"), register(&*servers.a, "bob"));
    let group = create_group(&*servers.a, ann, "group", "about");
    let conversation = ConversationId::group(group.id);
    send(&*servers.a, conversation, ann, "to myself");

    let JoinGroup::Joined {
        stamp,
        user_name,
        group,
        members,
    } = servers.b.join_group(bob, group.id, 10, 1000).unwrap()
    else {
        panic!("not joined");
    };
    assert_eq!(stamp.sequence, 2);
    assert_eq!(ids(&group), [(ann, Role::Admin), (bob, Role::Member)]);
    assert_eq!(members, [ann, bob]);
    assert_eq!(user_name, servers.a.names(&[bob]).unwrap()[&bob]);
    assert_eq!(group.description, "about");
    assert_eq!(
        pending_kinds(&*servers.a, ann),
        [(conversation, 2, MessageKind::JoinGroup)]
    );
    assert_eq!(pending_kinds(&*servers.a, bob), []);
    send(&*servers.a, conversation, ann, "welcome");
    assert_eq!(
        pending_kinds(&*servers.a, bob),
        [(conversation, 3, MessageKind::GroupChat)]
    );
}

pub(crate) fn joining_is_refused_with_the_reason(servers: &Servers) {
    let users = ["ann", "bob", "carl"].map(|name| register(&*servers.a, name));
    let group = create_group(&*servers.a, users[0], "group", "").id;
    let none = GroupId::new(i32::MAX).unwrap();
    let refused = |user, group| servers.b.join_group(user, group, 2, 1000).unwrap();
    assert_eq!(refused(users[1], none), JoinGroup::NoSuchGroup);
    assert_eq!(refused(users[0], group), JoinGroup::AlreadyMember);
    join(&*servers.a, users[1], group);
    assert_eq!(refused(users[1], group), JoinGroup::AlreadyMember);
    assert_eq!(refused(users[2], group), JoinGroup::Full);
    assert!(
        servers
            .a
            .join_group(UserId::new(i32::MAX).unwrap(), group, 9, 1000)
            .is_err()
    );
    assert_eq!(
        servers.a.group_members(group).unwrap(),
        [users[0], users[1]]
    );
    servers.a.delete_group(users[0], group).unwrap();
    assert_eq!(refused(users[2], group), JoinGroup::NoSuchGroup);
}

pub(crate) fn who_left_reads_nothing_more(servers: &Servers) {
    let (ann, bob) = (register(&*servers.a, "ann"), register(&*servers.a, "bob"));
    let group = create_group(&*servers.a, ann, "group", "").id;
    let conversation = ConversationId::group(group);
    assert_eq!(
        servers.a.leave_group(bob, group).unwrap(),
        LeaveGroup::NotMember
    );
    let none = GroupId::new(i32::MAX).unwrap();
    assert_eq!(
        servers.a.leave_group(bob, none).unwrap(),
        LeaveGroup::NotMember
    );
    join(&*servers.a, bob, group);
    send(&*servers.a, conversation, ann, "pending for bob");

    let left = servers.b.leave_group(bob, group).unwrap();
    let LeaveGroup::Left {
        stamp,
        members,
        new_admin,
    } = left
    else {
        panic!("{left:?}")
    };
    assert_eq!((stamp.sequence, members, new_admin), (3, vec![ann], None));
    assert_eq!(pending_kinds(&*servers.a, bob), []);
    assert!(!servers.a.is_participant(bob, conversation).unwrap());
    let told = [
        (conversation, 1, MessageKind::JoinGroup),
        (conversation, 3, MessageKind::LeaveGroup),
    ];
    assert_eq!(pending_kinds(&*servers.a, ann), told);

    // A late acknowledgement does not bring the leaver back.
    super::acknowledge(&*servers.a, bob, conversation, 2);
    assert!(!servers.a.is_participant(bob, conversation).unwrap());
    assert_eq!(join(&*servers.a, bob, group).sequence, 4);
    assert_eq!(pending_kinds(&*servers.a, bob), []);
}

pub(crate) fn an_admin_who_leaves_hands_over_to_the_longest_standing(servers: &Servers) {
    // Ids against the order of joining.
    let users = ["ann", "bob", "carl"].map(|name| register(&*servers.a, name));
    let group = create_group(&*servers.a, users[2], "group", "").id;
    join(&*servers.a, users[1], group);
    join(&*servers.a, users[0], group);
    let left = servers.b.leave_group(users[2], group).unwrap();
    let LeaveGroup::Left {
        members, new_admin, ..
    } = left
    else {
        panic!("{left:?}")
    };
    assert_eq!(
        (members, new_admin),
        (vec![users[1], users[0]], Some(users[1]))
    );
    let now = servers.a.groups(users[0]).unwrap().remove(0);
    assert_eq!(
        ids(&now),
        [(users[0], Role::Member), (users[1], Role::Admin)]
    );
    let deleted = servers.a.delete_group(users[1], group).unwrap();
    assert!(
        matches!(deleted, DeleteGroup::Deleted { .. }),
        "{deleted:?}"
    );
}

pub(crate) fn the_last_to_leave_takes_the_group_along(servers: &Servers) {
    let (ann, bob) = (register(&*servers.a, "ann"), register(&*servers.a, "bob"));
    let group = create_group(&*servers.a, ann, "group", "").id;
    let left = servers.a.leave_group(ann, group).unwrap();
    let LeaveGroup::Left {
        members, new_admin, ..
    } = left
    else {
        panic!("{left:?}")
    };
    assert_eq!((members, new_admin), (vec![], None));
    assert_eq!(
        servers.b.join_group(bob, group, 10, 1000).unwrap(),
        JoinGroup::NoSuchGroup
    );
    assert_eq!(
        servers.b.delete_group(ann, group).unwrap(),
        DeleteGroup::NoSuchGroup
    );
    let next = create_group(&*servers.a, ann, "next", "").id;
    assert!(next > group, "an id was given out again");
}

pub(crate) fn only_the_admin_deletes(servers: &Servers) {
    let users = ["ann", "bob", "carl"].map(|name| register(&*servers.a, name));
    let group = create_group(&*servers.a, users[0], "group", "").id;
    join(&*servers.a, users[1], group);
    let delete = |user, group| servers.b.delete_group(user, group).unwrap();
    assert_eq!(delete(users[1], group), DeleteGroup::NotAdmin);
    assert_eq!(delete(users[2], group), DeleteGroup::NotMember);
    assert_eq!(
        delete(users[0], GroupId::new(i32::MAX).unwrap()),
        DeleteGroup::NoSuchGroup
    );
    let deleted = delete(users[0], group);
    let DeleteGroup::Deleted { stamp, members } = deleted else {
        panic!("{deleted:?}")
    };
    assert_eq!((stamp.sequence, members), (2, users[..2].to_vec()));
    assert_eq!(delete(users[0], group), DeleteGroup::NoSuchGroup);
    for user in users {
        assert!(servers.a.groups(user).unwrap().is_empty());
    }
    assert!(servers.a.group_members(group).unwrap().is_empty());
}

pub(crate) fn a_deleted_group_is_still_told_of(servers: &Servers) {
    let (ann, bob) = (register(&*servers.a, "ann"), register(&*servers.a, "bob"));
    let group = create_group(&*servers.a, ann, "the name", "").id;
    let conversation = ConversationId::group(group);
    join(&*servers.a, bob, group);
    send(&*servers.a, conversation, ann, "the last word");
    servers.b.delete_group(ann, group).unwrap();

    let page = servers.a.pending_all(bob, super::NO_LIMIT).unwrap();
    let told: Vec<_> = page
        .messages
        .iter()
        .map(|m| (m.kind, m.content.as_str()))
        .collect();
    let expected = [
        (MessageKind::GroupChat, "the last word"),
        (MessageKind::DeleteGroup, "the name"),
    ];
    assert_eq!(told, expected);
    super::acknowledge(&*servers.a, bob, conversation, 3);
    assert_eq!(pending_kinds(&*servers.a, bob), []);
    assert_eq!(servers.a.conversations(ann).unwrap(), []);
    let outcomes = servers
        .a
        .append(&[super::text(conversation, bob, "anybody there?")], &[])
        .unwrap();
    assert_eq!(outcomes, [AppendOutcome::NotMember]);
}

pub(crate) fn all_groups_come_with_all_members(servers: &Servers) {
    let users = ["ann", "bob", "carl"].map(|name| register(&*servers.a, name));
    let one = create_group(&*servers.a, users[0], "one", "1").id;
    let two = create_group(&*servers.a, users[1], "two", "2").id;
    let three = create_group(&*servers.a, users[2], "three", "3").id;
    join(&*servers.a, users[1], one);
    join(&*servers.a, users[2], one);
    join(&*servers.a, users[0], two);

    let groups = servers.b.groups(users[0]).unwrap();
    let seen: Vec<_> = groups.iter().map(|group| (group.id, ids(group))).collect();
    let (admin, member) = (Role::Admin, Role::Member);
    let expected = [
        (
            one,
            vec![(users[0], admin), (users[1], member), (users[2], member)],
        ),
        (two, vec![(users[0], member), (users[1], admin)]),
    ];
    assert_eq!(seen, expected);

    let none = GroupId::new(i32::MAX).unwrap();
    let members = servers
        .b
        .group_members_of(&[three, one, none, one])
        .unwrap();
    let expected = HashMap::from([(one, users.to_vec()), (three, vec![users[2]])]);
    assert_eq!(members, expected);
    assert!(servers.b.group_members_of(&[]).unwrap().is_empty());
}

pub(crate) fn a_full_group_stays_full_when_many_join_at_once(servers: &Servers) {
    const MEMBERS_MAX: usize = 4;
    let ann = register(&*servers.a, "ann");
    let group = create_group(&*servers.a, ann, "group", "").id;
    let others: Vec<_> = (0..8).map(|_| register(&*servers.a, "other")).collect();
    thread::scope(|scope| {
        for (index, user) in others.into_iter().enumerate() {
            let store = if index % 2 == 0 {
                &servers.a
            } else {
                &servers.b
            };
            scope.spawn(move || store.join_group(user, group, MEMBERS_MAX, 1000).unwrap());
        }
    });
    assert_eq!(servers.a.group_members(group).unwrap().len(), MEMBERS_MAX);
    let history = servers
        .a
        .history(ConversationId::group(group), 1, 100)
        .unwrap();
    let sequences: Vec<_> = history.iter().map(|message| message.sequence).collect();
    assert_eq!(sequences, [1, 2, 3]);
}

pub(crate) fn nobody_is_in_more_groups_than_allowed(servers: &Servers) {
    let (ann, bob) = (register(&*servers.a, "ann"), register(&*servers.a, "bob"));
    let group = create_group(&*servers.a, bob, "of bob", "").id;
    let other = create_group(&*servers.a, bob, "another", "").id;
    join(&*servers.a, ann, group);
    create_group(&*servers.a, ann, "of ann", "");
    assert_eq!(
        servers.b.join_group(ann, other, 10, 2).unwrap(),
        JoinGroup::TooManyGroups
    );
    assert_eq!(
        servers.b.create_group(ann, "one more", "", 2).unwrap(),
        CreateGroup::TooManyGroups
    );
    assert_eq!(servers.a.groups(ann).unwrap().len(), 2);
    servers.a.leave_group(ann, group).unwrap();
    assert!(matches!(
        servers.b.join_group(ann, other, 10, 2).unwrap(),
        JoinGroup::Joined { .. }
    ));

    // However many at once.
    thread::scope(|scope| {
        for index in 0..6 {
            let store = if index % 2 == 0 {
                &servers.a
            } else {
                &servers.b
            };
            scope.spawn(move || store.create_group(ann, "more", "", 4).unwrap());
        }
    });
    assert_eq!(servers.a.groups(ann).unwrap().len(), 4);
}
