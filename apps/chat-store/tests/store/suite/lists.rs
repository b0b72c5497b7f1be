//! Friends, groups and members in pages.

use chat_store::*;

use super::{NO_LIMIT, Servers, befriend, create_group, join, register};

/// How much room a page has in these tests: less than any entry takes, a few entries, all of them.
const BYTES: [usize; 5] = [0, 60, 150, 400, usize::MAX];

/// Reads all pages; `next` reads the one after an entry.
fn all_pages<T: Clone>(
    bytes_max: usize,
    bytes: fn(&T) -> usize,
    next: impl Fn(Option<&T>) -> Page<T>,
) -> Vec<T> {
    let mut all: Vec<T> = Vec::new();
    loop {
        let page = next(all.last());
        let taken: usize = page.items.iter().map(bytes).sum();
        assert!(taken <= bytes_max || page.items.len() == 1, "{taken} bytes");
        all.extend(page.items);
        if !page.more {
            return all;
        }
    }
}

fn members(store: &dyn Store, group: GroupId, bytes_max: usize) -> Vec<Member> {
    all_pages(bytes_max, Member::bytes, |last: Option<&Member>| {
        store
            .members_page(group, last.map(|member| member.id), bytes_max)
            .unwrap()
    })
}

pub(crate) fn pages_of_friends_hold_everybody_exactly_once(servers: &Servers) {
    let mut friends: Vec<UserId> = (0..5).map(|_| register(&*servers.a, "older")).collect();
    let ann = register(&*servers.a, "ann");
    friends.extend((0..6).map(|_| register(&*servers.a, "younger")));
    for &friend in &friends {
        befriend(&*servers.a, friend, ann);
    }
    servers.a.delete_friend(ann, friends.remove(7)).unwrap();
    servers.a.delete_friend(ann, friends.remove(2)).unwrap();
    let expected = servers.b.friends(ann).unwrap();
    let ids: Vec<UserId> = expected.iter().map(|friend| friend.id).collect();
    assert_eq!(ids, friends);

    // Of each store once what it has to read, and then what it knows.
    for store in [&*servers.a, &*servers.a, &*servers.b] {
        for bytes_max in BYTES {
            let read = all_pages(bytes_max, Friend::bytes, |last: Option<&Friend>| {
                store
                    .friends_page(ann, last.map(|friend| friend.id), bytes_max)
                    .unwrap()
            });
            assert_eq!(read, expected);
        }
        let after = |after| store.friends_page(ann, Some(after), usize::MAX).unwrap();
        assert_eq!(after(ann).items, expected[4..]);
        assert_eq!(after(friends[8]), Page::default());
        assert_eq!(after(UserId::new(i32::MAX).unwrap()), Page::default());
    }
}

pub(crate) fn pages_of_groups_and_members_hold_everything_exactly_once(servers: &Servers) {
    let users: Vec<UserId> = (0..7).map(|_| register(&*servers.a, "user")).collect();
    let ann = users[3];
    let groups: Vec<GroupId> = (0..5)
        .map(|number| create_group(&*servers.a, ann, &format!("group {number}"), "about").id)
        .collect();
    for &group in &groups[1..] {
        for &user in users.iter().filter(|&&user| user != ann) {
            join(&*servers.a, user, group);
        }
    }
    servers.a.leave_group(ann, groups[4]).unwrap();
    servers.a.delete_group(ann, groups[2]).unwrap();

    let expected = servers.b.groups(ann).unwrap();
    let shown: Vec<_> = expected
        .iter()
        .map(|group| (group.id, group.members.len()))
        .collect();
    assert_eq!(shown, [(groups[0], 1), (groups[1], 7), (groups[3], 7)]);
    assert!(expected.iter().all(|group| !group.more_members));
    assert!(
        expected
            .iter()
            .all(|group| group.members.is_sorted_by_key(|member| member.id))
    );

    for store in [&*servers.a, &*servers.a, &*servers.b] {
        for bytes_max in BYTES {
            let total = |group: &Group| {
                group.bytes() + group.members.iter().map(Member::bytes).sum::<usize>()
            };
            let read = all_pages(bytes_max, total, |last: Option<&Group>| {
                store
                    .groups_page(ann, last.map(|group| group.id), bytes_max)
                    .unwrap()
            });
            assert_eq!(read.len(), expected.len());
            for (mut group, expected) in read.into_iter().zip(&expected) {
                assert_eq!(
                    group.more_members,
                    group.members.len() < expected.members.len()
                );
                let last = group.members.last().map(|member| member.id);
                let rest = store.members_page(group.id, last, usize::MAX).unwrap();
                group.members.extend(rest.items);
                group.more_members = rest.more;
                assert_eq!(group, *expected);
                assert_eq!(members(store, group.id, bytes_max), expected.members);
            }
        }
        let none = store.members_page(groups[2], None, usize::MAX).unwrap();
        assert_eq!(none, Page::default());
    }
}

pub(crate) fn who_comes_and_goes_between_pages_moves_nobody_else(servers: &Servers) {
    let users: Vec<UserId> = (0..8).map(|_| register(&*servers.a, "user")).collect();
    let group = create_group(&*servers.a, users[1], "group", "").id;
    for &user in &users[2..7] {
        join(&*servers.a, user, group);
    }
    let room = 3 * (40 + 32);
    let first = servers.a.members_page(group, None, room).unwrap();
    assert!(first.more);
    let last = first.items.last().unwrap().id;
    let place = users.iter().position(|&user| user == last).unwrap();
    // Before the page's end and after it: one goes and one comes.
    servers.b.leave_group(users[1], group).unwrap();
    servers.b.leave_group(users[6], group).unwrap();
    join(&*servers.b, users[0], group);
    join(&*servers.b, users[7], group);
    let rest = servers
        .a
        .members_page(group, Some(last), usize::MAX)
        .unwrap();
    let rest: Vec<UserId> = rest.items.iter().map(|member| member.id).collect();
    let mut expected = users[place + 1..6].to_vec();
    expected.push(users[7]);
    assert_eq!(rest, expected);
}

pub(crate) fn small_groups_are_whole_where_large_ones_are_cut(servers: &Servers) {
    let users: Vec<UserId> = (0..20).map(|_| register(&*servers.a, "user")).collect();
    let ann = users[0];
    let [large, small, huge] =
        ["large", "small", "huge"].map(|name| create_group(&*servers.a, ann, name, "").id);
    join(&*servers.a, users[1], small);
    for &user in &users[1..15] {
        join(&*servers.a, user, large);
    }
    for &user in &users[1..] {
        join(&*servers.a, user, huge);
    }
    let a_member = 32 + "user 1000000".len();
    for store in [&*servers.a, &*servers.b, &*servers.a] {
        let page = store
            .groups_page(ann, None, 3 * 40 + 20 * a_member)
            .unwrap();
        let of = |id: GroupId| page.items.iter().find(|group| group.id == id).unwrap();
        assert_eq!(
            (of(small).members.len(), of(small).more_members),
            (2, false)
        );
        for group in [of(large), of(huge)] {
            // An even share of what the small one leaves over, as far as whole members have room in it.
            assert!(
                (6..=12).contains(&group.members.len()),
                "{}",
                group.members.len()
            );
            assert!(group.more_members);
        }
        // What was cut is no less known whole.
        store.groups(ann).unwrap();
    }
}

pub(crate) fn a_login_takes_no_more_than_its_bytes(servers: &Servers) {
    let users: Vec<UserId> = (0..12).map(|_| register(&*servers.a, "user")).collect();
    let ann = users[0];
    for &friend in &users[1..] {
        befriend(&*servers.a, friend, ann);
    }
    for _ in 0..6 {
        let group = create_group(&*servers.a, ann, "group", "about").id;
        for &user in &users[1..] {
            join(&*servers.a, user, group);
        }
    }
    let groups = servers.b.groups(ann).unwrap();
    let friends = servers.b.friends(ann).unwrap();
    for store in [&*servers.a, &*servers.b, &*servers.a] {
        for bytes_max in [0, 200, 500, 1000, 2000, usize::MAX] {
            let seen = store.overview(ann, &[], NO_LIMIT, bytes_max).unwrap();
            let of_groups = seen.groups.items.iter();
            let of_groups: usize = of_groups
                .map(|group| group.bytes() + group.members.iter().map(Member::bytes).sum::<usize>())
                .sum();
            let taken = of_groups + seen.friends.items.iter().map(Friend::bytes).sum::<usize>();
            assert!(
                taken <= bytes_max || bytes_max == 0,
                "{taken} of {bytes_max} bytes"
            );
            assert_eq!(seen.friends.items, friends[..seen.friends.items.len()]);
            assert!(!seen.friends.items.is_empty() && !seen.groups.items.is_empty());
            assert_eq!(seen.friends.more, seen.friends.items.len() < friends.len());
            assert_eq!(seen.groups.more, seen.groups.items.len() < groups.len());
            assert_eq!(seen.pending.marks.len(), 17);
        }
        let all = store.overview(ann, &[], NO_LIMIT, usize::MAX).unwrap();
        assert_eq!(all.groups.items, groups);
    }
}
