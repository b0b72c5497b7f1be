//! Many threads on two servers at once.

use std::{collections::HashMap, sync::Mutex, thread};

use chat_store::*;
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

use super::{Servers, add_friend, befriend, create_group, join, pair, register, text, with_id};

/// A stamp that a send got, and whether that send is the one that was stored.
type Seen = (Stamp, bool);

pub(crate) fn sequences_have_no_gaps_under_eight_writers(servers: &Servers) {
    const BATCHES: u64 = 15;
    let seed: u64 = rand::rng().next_u64();
    println!("seed {seed}");
    let users: Vec<_> = (0..6).map(|_| register(&*servers.a, "user")).collect();
    let group = create_group(&*servers.a, users[0], "group", "").id;
    let mut conversations = vec![ConversationId::group(group)];
    for (index, user) in users.iter().enumerate().skip(1) {
        join(&*servers.a, *user, group);
        for friend in &users[..index] {
            befriend(&*servers.a, *friend, *user);
            conversations.extend(ConversationId::pair(*friend, *user));
        }
    }

    // Each message is sent by several threads, as by clients that lost the answer.
    let stamps: Mutex<HashMap<(UserId, u64), Vec<Seen>>> = Mutex::default();
    thread::scope(|scope| {
        for thread in 0..8_u64 {
            let (stamps, users, conversations) = (&stamps, &users, &conversations);
            let store = if thread % 2 == 0 {
                &servers.a
            } else {
                &servers.b
            };
            scope.spawn(move || {
                let mut random = StdRng::seed_from_u64(seed ^ thread);
                for batch in 0..BATCHES {
                    let messages: Vec<_> = (0..random.random_range(1..40))
                        .map(|_| {
                            let id = batch * 20 + random.random_range(1..40_u64);
                            // The same id always means the same message.
                            let sender = users[id as usize % users.len()];
                            let mine: Vec<_> = conversations
                                .iter()
                                .filter(|c| c.as_group().is_some() || c.other(sender).is_some())
                                .collect();
                            let conversation = *mine[id as usize % mine.len()];
                            with_id(text(conversation, sender, &id.to_string()), id)
                        })
                        .collect();
                    let acks: Vec<_> = messages
                        .iter()
                        .filter_map(|message| {
                            let user = message.conversation.other(message.sender)?;
                            Some(Ack {
                                user,
                                conversation: message.conversation,
                                sequence: batch,
                            })
                        })
                        .collect();
                    let outcomes = store.append(&messages, &acks).unwrap();
                    let mut stamps = stamps.lock().unwrap();
                    for (message, outcome) in messages.iter().zip(outcomes) {
                        let id = message.client_message_id.unwrap().get();
                        let seen = match outcome {
                            AppendOutcome::Committed { stamp, .. } => (stamp, true),
                            AppendOutcome::Duplicate(stamp) => (stamp, false),
                            other => panic!("{other:?}"),
                        };
                        stamps.entry((message.sender, id)).or_default().push(seen);
                    }
                }
            });
        }
    });

    let stamps = stamps.into_inner().unwrap();
    for (message, seen) in &stamps {
        let commits = seen.iter().filter(|(_, committed)| *committed).count();
        assert_eq!(commits, 1, "{message:?} was committed {commits} times");
        assert!(
            seen.iter().all(|(stamp, _)| *stamp == seen[0].0),
            "{message:?}: {seen:?}"
        );
    }
    let mut chats = 0;
    for conversation in conversations {
        let history = servers.a.history(conversation, 1, usize::MAX).unwrap();
        let sequences: Vec<_> = history.iter().map(|message| message.sequence).collect();
        assert_eq!(
            sequences,
            (1..=history.len() as u64).collect::<Vec<_>>(),
            "{conversation}"
        );
        chats += history
            .iter()
            .filter(|message| message.client_message_id.is_some())
            .count();
    }
    assert_eq!(chats, stamps.len());
}

pub(crate) fn changes_and_messages_at_once_keep_the_sequence(servers: &Servers) {
    const ROUNDS: usize = 20;
    let (ann, bob, pair) = pair(&*servers.a);
    let group = create_group(&*servers.a, ann, "group", "").id;
    let group_talk = ConversationId::group(group);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..ROUNDS {
                servers.b.delete_friend(bob, ann).unwrap();
                add_friend(&*servers.b, bob, ann);
            }
        });
        scope.spawn(|| {
            for _ in 0..ROUNDS {
                servers.a.join_group(bob, group, 10, 1000).unwrap();
                servers.a.leave_group(bob, group).unwrap();
            }
        });
        for store in [&servers.a, &servers.b] {
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    let batch = [
                        text(group_talk, ann, "to the group"),
                        text(group_talk, bob, "when I am in it"),
                        text(pair, ann, "when we are friends"),
                    ];
                    let ack = Ack {
                        user: bob,
                        conversation: group_talk,
                        sequence: u64::MAX,
                    };
                    store.append(&batch, &[ack]).unwrap();
                }
            });
        }
    });

    assert!(!servers.a.is_participant(bob, group_talk).unwrap());
    for (conversation, opened, closed) in [
        (pair, MessageKind::AddFriend, MessageKind::DeleteFriend),
        (group_talk, MessageKind::JoinGroup, MessageKind::LeaveGroup),
    ] {
        let history = servers.a.history(conversation, 1, usize::MAX).unwrap();
        let sequences: Vec<_> = history.iter().map(|message| message.sequence).collect();
        assert_eq!(
            sequences,
            (1..=history.len() as u64).collect::<Vec<_>>(),
            "{conversation}"
        );
        // Nobody is heard between going and coming back.
        let mut open = false;
        for message in history {
            match message.kind {
                kind if kind == opened => open = true,
                kind if kind == closed => open = false,
                _ if conversation == pair || message.sender == bob => {
                    assert!(
                        open,
                        "{conversation}: {} was written outside",
                        message.sequence
                    );
                }
                _ => {}
            }
        }
    }
}
