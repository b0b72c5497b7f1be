//! What is read at login and later.

use std::{collections::BTreeMap, time::Instant};

use chat_store::*;
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

use super::{
    NO_LIMIT, Servers, acknowledge, befriend, create_group, join, pair, register, send, text,
};

fn contents(page: &PendingPage) -> Vec<&str> {
    page.messages
        .iter()
        .map(|message| message.content.as_str())
        .collect()
}

pub(crate) fn ones_own_messages_are_not_pending(servers: &Servers) {
    let (ann, bob, conversation) = pair(&*servers.a);
    for (sender, content) in [(ann, "a"), (bob, "b"), (ann, "c"), (bob, "d")] {
        send(&*servers.a, conversation, sender, content);
    }
    let page = servers.b.pending_all(ann, NO_LIMIT).unwrap();
    assert_eq!(contents(&page), ["b", "d"]);
    assert!(!page.more);
    assert_eq!(
        page.marks,
        [Mark {
            conversation,
            sequence: 5
        }]
    );
}

pub(crate) fn marks_pass_ones_own_messages(servers: &Servers) {
    let (ann, bob, conversation) = pair(&*servers.a);
    send(&*servers.a, conversation, bob, "b");
    send(&*servers.a, conversation, ann, "a");
    for limit in [
        NO_LIMIT,
        PageLimit {
            messages_max: 1,
            bytes_max: 1,
        },
    ] {
        let page = servers.a.pending_all(ann, limit).unwrap();
        assert_eq!(contents(&page), ["b"]);
        assert_eq!(
            page.marks,
            [Mark {
                conversation,
                sequence: 3
            }]
        );
        assert!(!page.more);
    }
    acknowledge(&*servers.a, ann, conversation, 3);
    let page = servers.b.pending_all(ann, NO_LIMIT).unwrap();
    assert_eq!((contents(&page), page.marks[0].sequence), (vec![], 3));
}

pub(crate) fn named_conversations_are_read_after_their_marks(servers: &Servers) {
    let (ann, bob, first) = pair(&*servers.a);
    let carl = register(&*servers.a, "carl");
    befriend(&*servers.a, carl, ann);
    let second = ConversationId::pair(ann, carl).unwrap();
    for content in ["2", "3", "4"] {
        send(&*servers.a, first, bob, content);
        send(&*servers.a, second, carl, content);
    }
    acknowledge(&*servers.a, ann, first, 4);
    acknowledge(&*servers.a, ann, second, 3);

    let not_mine = ConversationId::pair(bob, carl).unwrap();
    let after = [
        Mark {
            conversation: first,
            sequence: 2,
        },
        Mark {
            conversation: not_mine,
            sequence: 0,
        },
    ];
    let page = servers
        .b
        .pending(ann, &after, PendingScope::Named, NO_LIMIT)
        .unwrap();
    assert_eq!(contents(&page), ["3", "4"]);
    assert_eq!(
        page.marks,
        [Mark {
            conversation: first,
            sequence: 4
        }]
    );

    let page = servers
        .b
        .pending(ann, &after, PendingScope::All, NO_LIMIT)
        .unwrap();
    assert_eq!(contents(&page), ["3", "4", "4"]);
    let second_mark = Mark {
        conversation: second,
        sequence: 4,
    };
    assert_eq!(
        page.marks,
        [
            Mark {
                conversation: first,
                sequence: 4
            },
            second_mark
        ]
    );

    let beyond = [Mark {
        conversation: first,
        sequence: u64::MAX,
    }];
    let page = servers
        .b
        .pending(ann, &beyond, PendingScope::Named, NO_LIMIT)
        .unwrap();
    assert_eq!((contents(&page), page.marks[0].sequence), (vec![], 4));
    let page = servers
        .b
        .pending(ann, &[], PendingScope::Named, NO_LIMIT)
        .unwrap();
    assert_eq!(page, PendingPage::default());
}

pub(crate) fn pages_hold_everything_exactly_once(servers: &Servers) {
    let seed: u64 = rand::rng().next_u64();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let ann = register(&*servers.a, "ann");
    // More conversations and more messages than one statement reads.
    let talks: Vec<_> = (0..70)
        .map(|_| {
            let friend = register(&*servers.a, "friend");
            befriend(&*servers.a, friend, ann);
            (friend, ConversationId::pair(ann, friend).unwrap())
        })
        .collect();
    let mut batch = Vec::new();
    for _ in 0..900 {
        let (friend, conversation) = talks[random.random_range(0..talks.len())];
        let sender = if random.random_range(0..4) == 0 {
            ann
        } else {
            friend
        };
        batch.push(text(
            conversation,
            sender,
            &"x".repeat(random.random_range(0..40)),
        ));
    }
    servers.a.append(&batch, &[]).unwrap();
    let expected = servers.a.pending_all(ann, NO_LIMIT).unwrap();
    assert!(!expected.more);
    let of_others = batch.iter().filter(|message| message.sender != ann).count();
    assert_eq!(expected.messages.len(), of_others + talks.len());
    let order = |m: &StoredMessage| (m.conversation, m.sequence);
    assert!(expected.messages.is_sorted_by_key(order));

    let limits = [
        (1000, 500),
        (7, 3000),
        (32, usize::MAX),
        (31, usize::MAX),
        (33, 30_000),
        (128, usize::MAX),
        (200, 20_000),
    ];
    for (messages_max, bytes_max) in limits {
        let limit = PageLimit {
            messages_max,
            bytes_max,
        };
        let mut marks: BTreeMap<_, _> = BTreeMap::new();
        let mut read = Vec::new();
        loop {
            let after: Vec<_> = marks.into_values().collect();
            let page = servers
                .b
                .pending(ann, &after, PendingScope::All, limit)
                .unwrap();
            let bytes: usize = page.messages.iter().map(StoredMessage::bytes).sum();
            assert!(page.messages.len() <= messages_max && bytes <= bytes_max);
            assert_eq!(page.marks.len(), talks.len());
            marks = page
                .marks
                .into_iter()
                .map(|mark| (mark.conversation, mark))
                .collect();
            read.extend(page.messages);
            if !page.more {
                break;
            }
        }
        assert!(read == expected.messages, "limit {limit:?}");
        assert_eq!(marks.into_values().collect::<Vec<_>>(), expected.marks);
    }
}

pub(crate) fn one_message_fits_whatever_the_limit(servers: &Servers) {
    let (ann, bob, conversation) = pair(&*servers.a);
    acknowledge(&*servers.a, bob, conversation, 1);
    send(&*servers.a, conversation, ann, "longer than nothing");
    send(&*servers.a, conversation, ann, "one more");
    let limit = PageLimit {
        messages_max: 0,
        bytes_max: 0,
    };
    let page = servers.a.pending_all(bob, limit).unwrap();
    assert_eq!(contents(&page), ["longer than nothing"]);
    assert!(page.more);
    assert_eq!(
        page.marks,
        [Mark {
            conversation,
            sequence: 2
        }]
    );
}

pub(crate) fn history_has_all_sides_in_order(servers: &Servers) {
    let (ann, bob, conversation) = pair(&*servers.a);
    for (sender, content) in [(ann, "2"), (bob, "3"), (ann, "4")] {
        send(&*servers.a, conversation, sender, content);
    }
    acknowledge(&*servers.a, bob, conversation, 4);
    let read = |first, count| {
        let messages = servers.b.history(conversation, first, count).unwrap();
        messages
            .iter()
            .map(|message| message.sequence)
            .collect::<Vec<_>>()
    };
    assert_eq!(read(0, 100), [1, 2, 3, 4]);
    assert_eq!(read(3, usize::MAX), [3, 4]);
    assert_eq!(read(2, 2), [2, 3]);
    assert!(read(5, 100).is_empty());
    assert!(read(1, 0).is_empty());
}

pub(crate) fn pages_of_a_history_hold_everything_exactly_once(servers: &Servers) {
    let (ann, bob, conversation) = pair(&*servers.a);
    // As long as can be, after such that let more of them be expected.
    let short = vec![text(conversation, bob, "short"); 40];
    let long = vec![text(conversation, ann, &"\u{1F600}".repeat(16 * 1024)); 20];
    let batch = [short.clone(), long, short].concat();
    servers.a.append(&batch, &[]).unwrap();
    let all = servers.b.history(conversation, 1, usize::MAX).unwrap();
    assert_eq!(all.len(), 1 + batch.len());

    for (messages_max, bytes_max) in [(500, 300_000), (500, 1), (7, usize::MAX), (33, 200_000)] {
        let limit = PageLimit {
            messages_max,
            bytes_max,
        };
        let mut read = Vec::new();
        loop {
            let first = read.len() as u64 + 1;
            let page = servers.b.history_page(conversation, first, limit).unwrap();
            let bytes: usize = page.iter().map(StoredMessage::bytes).sum();
            assert!(page.len() <= messages_max);
            assert!(bytes <= bytes_max || page.len() == 1, "{bytes} bytes");
            if page.is_empty() {
                break;
            }
            read.extend(page);
        }
        assert!(read == all, "limit {limit:?}");
    }
}

/// Compares times of one run, generously: reading what was received before would take a hundred
/// times as long.
pub(crate) fn a_long_history_is_not_read_for_a_few_pending(servers: &Servers) {
    const LENGTH: u64 = 20_000;
    let (ann, bob, conversation) = pair(&*servers.a);
    for _ in 0..LENGTH / 500 {
        servers
            .a
            .append(&vec![text(conversation, ann, "x"); 500], &[])
            .unwrap();
    }
    let timed = |limit| {
        let start = Instant::now();
        let page = servers.a.pending_all(bob, limit).unwrap();
        (page.messages.len() as u64, start.elapsed())
    };
    let (all, long) = timed(NO_LIMIT);
    assert_eq!(all, LENGTH + 1);
    acknowledge(&*servers.a, bob, conversation, LENGTH - 9);
    timed(NO_LIMIT);
    let (few, short) = timed(NO_LIMIT);
    assert_eq!(few, 10);
    assert!(short < long / 5, "{short:?} for {few}, {long:?} for {all}");

    // And of a conversation in which one is a late member.
    let group = create_group(&*servers.a, ann, "group", "").id;
    join(&*servers.a, bob, group);
    assert_eq!(timed(NO_LIMIT).0, 10);
}
