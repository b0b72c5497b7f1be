//! Storing messages and acknowledgements.

use chat_store::*;

use super::{
    Servers, acked, acknowledge, add_friend, committed, create_group, join, pair, pending_kinds,
    register, send, text, with_id,
};

pub(crate) fn messages_get_the_next_sequences_in_order(servers: &Servers) {
    let (ann, bob, pair) = pair(&*servers.a);
    let group = create_group(&*servers.a, ann, "group", "").id;
    join(&*servers.a, bob, group);
    let group = ConversationId::group(group);
    let batch = [
        text(pair, ann, "one"),
        text(group, bob, "two"),
        text(pair, bob, "three"),
        text(pair, ann, "four"),
    ];
    let outcomes = servers.a.append(&batch, &[]).unwrap();
    let sequences: Vec<_> = outcomes.iter().map(|one| committed(one).sequence).collect();
    assert_eq!(sequences, [2, 2, 3, 4]);

    let names = servers.a.names(&[ann, bob]).unwrap();
    let created_at_ms = committed(&outcomes[0]).created_at_ms;
    assert!(created_at_ms > 1_700_000_000_000);
    for (outcome, message) in outcomes.iter().zip(&batch) {
        let AppendOutcome::Committed {
            stamp, sender_name, ..
        } = outcome
        else {
            unreachable!()
        };
        assert_eq!(stamp.created_at_ms, created_at_ms);
        assert_eq!(**sender_name, *names[&message.sender]);
        let stored = servers
            .b
            .history(message.conversation, stamp.sequence, 1)
            .unwrap();
        let kind = match message.conversation.as_group() {
            Some(_) => MessageKind::GroupChat,
            None => MessageKind::FriendChat,
        };
        let expected = StoredMessage {
            conversation: message.conversation,
            sequence: stamp.sequence,
            sender: message.sender,
            sender_name: sender_name.to_string(),
            kind,
            client_message_id: None,
            content: message.content.clone(),
            client_time: message.client_time.clone(),
            created_at_ms,
        };
        assert_eq!(stored, [expected]);
    }
}

pub(crate) fn one_refused_message_fails_no_other(servers: &Servers) {
    let (ann, bob, pair) = pair(&*servers.a);
    let carl = register(&*servers.a, "carl");
    let group = ConversationId::group(create_group(&*servers.a, bob, "group", "").id);
    let no_group = ConversationId::group(GroupId::new(i32::MAX).unwrap());
    let strangers = ConversationId::pair(ann, carl).unwrap();
    let long_time = NewMessage {
        client_time: "9".repeat(65),
        ..text(pair, ann, "")
    };
    let batch = [
        text(strangers, ann, "we have not met"),
        text(pair, ann, "first"),
        text(pair, carl, "not my conversation"),
        text(group, ann, "not my group"),
        text(no_group, ann, "nobody's group"),
        text(pair, ann, &"x".repeat(CONTENT_BYTES_MAX + 1)),
        long_time,
        text(group, bob, "second"),
        text(pair, bob, ""),
    ];
    let outcomes = servers.a.append(&batch, &[]).unwrap();
    assert_eq!(committed(&outcomes[1]).sequence, 2);
    assert_eq!(committed(&outcomes[7]).sequence, 1);
    assert_eq!(committed(&outcomes[8]).sequence, 3);
    let refused = [(0, 1), (2, 3)]
        .map(|(from, to)| outcomes[from..to].to_vec())
        .concat();
    assert_eq!(
        refused,
        [AppendOutcome::NotFriends, AppendOutcome::NotFriends]
    );
    assert_eq!(
        outcomes[3..5],
        [AppendOutcome::NotMember, AppendOutcome::NotMember]
    );
    assert_eq!(
        outcomes[5..7],
        [AppendOutcome::TooLong, AppendOutcome::TooLong]
    );
    assert!(servers.a.conversations(carl).unwrap().is_empty());
}

pub(crate) fn a_repeated_send_is_stored_once(servers: &Servers) {
    let (ann, bob, conversation) = pair(&*servers.a);
    let group = ConversationId::group(create_group(&*servers.a, ann, "group", "").id);
    let message = with_id(text(conversation, ann, "once"), u64::MAX);
    let batch = [
        message.clone(),
        text(conversation, ann, "between"),
        message.clone(),
    ];
    let outcomes = servers.a.append(&batch, &[]).unwrap();
    let stamp = committed(&outcomes[0]);
    assert_eq!((stamp.sequence, committed(&outcomes[1]).sequence), (2, 3));
    assert_eq!(outcomes[2], AppendOutcome::Duplicate(stamp));

    // Again, by another server, among others, and with the id used for something else.
    let elsewhere = with_id(text(group, ann, "reused"), u64::MAX);
    let of_bob = with_id(
        text(conversation, bob, "the same id of another sender"),
        u64::MAX,
    );
    let batch = [text(conversation, bob, "new"), message, elsewhere, of_bob];
    let outcomes = servers.b.append(&batch, &[]).unwrap();
    assert_eq!(committed(&outcomes[0]).sequence, 4);
    assert_eq!(
        outcomes[1..3],
        [AppendOutcome::Duplicate(stamp), AppendOutcome::IdInUse]
    );
    assert_eq!(committed(&outcomes[3]).sequence, 5);
    let twice = [
        with_id(text(conversation, ann, "here"), 7),
        with_id(text(group, ann, "and there"), 7),
    ];
    let outcomes = servers.b.append(&twice, &[]).unwrap();
    assert_eq!(committed(&outcomes[0]).sequence, 6);
    assert_eq!(outcomes[1], AppendOutcome::IdInUse);
    let stored = servers.a.history(conversation, 1, 100).unwrap();
    assert_eq!(stored.len(), 6);
    assert_eq!(stored[1].client_message_id.map(u64::from), Some(u64::MAX));
}

pub(crate) fn another_message_under_a_used_id_is_refused(servers: &Servers) {
    let (ann, bob, conversation) = pair(&*servers.a);
    let (carl, dora, elsewhere) = pair(&*servers.a);
    add_friend(&*servers.a, ann, carl);
    let other_friend = ConversationId::pair(ann, carl).unwrap();
    let group = ConversationId::group(create_group(&*servers.a, ann, "group", "").id);
    // Texts that a database may take for equal: by case, by accents, by spaces at the end, by what has no weight.
    let texts = ["caf\u{e9}", "", "\u{1f600}"];
    for (number, content) in texts.into_iter().enumerate() {
        let id = number as u64 + 1;
        let first = with_id(text(conversation, ann, content), id);
        let stamp = committed(&servers.a.append(std::slice::from_ref(&first), &[]).unwrap()[0]);
        let others: Vec<_> = [
            "Caf\u{e9}",
            "cafe\u{301}",
            "caf\u{e9} ",
            "caf\u{e9}\0",
            "\u{200b}",
            "\u{1f601}",
            "?",
        ]
        .into_iter()
        .map(|other| with_id(text(conversation, ann, other), id))
        .chain([
            NewMessage {
                client_time: format!("{} ", first.client_time),
                ..first.clone()
            },
            NewMessage {
                client_time: String::new(),
                ..first.clone()
            },
            with_id(text(other_friend, ann, content), id),
            with_id(text(group, ann, content), id),
        ])
        .collect();
        // Each alone, and all in one batch around the same message again.
        for other in &others {
            let outcomes = servers.b.append(std::slice::from_ref(other), &[]).unwrap();
            assert_eq!(outcomes, [AppendOutcome::IdInUse], "{other:?}");
        }
        let batch = [others.clone(), vec![first.clone(), first], others].concat();
        let outcomes = servers.b.append(&batch, &[]).unwrap();
        let middle = batch.len() / 2;
        for (index, outcome) in outcomes.into_iter().enumerate() {
            let expected = match index {
                _ if index == middle - 1 || index == middle => AppendOutcome::Duplicate(stamp),
                _ => AppendOutcome::IdInUse,
            };
            assert_eq!(outcome, expected, "{index}");
        }
    }
    // An id is the sender's own, and nothing of all this was stored.
    let of_others = [
        with_id(text(conversation, bob, "bob's"), 1),
        with_id(text(elsewhere, dora, "dora's"), 1),
    ];
    for outcome in servers.a.append(&of_others, &[]).unwrap() {
        committed(&outcome);
    }
    let stored = servers.a.history(conversation, 2, 100).unwrap();
    let stored: Vec<_> = stored.iter().map(|message| &*message.content).collect();
    assert_eq!(stored, ["caf\u{e9}", "", "\u{1f600}", "bob's"]);
    for untouched in [other_friend, group] {
        let stored = servers.a.history(untouched, 1, 100).unwrap();
        assert!(stored.iter().all(|one| one.client_message_id.is_none()));
    }
}

pub(crate) fn of_messages_under_one_id_in_a_batch_the_first_is_stored(servers: &Servers) {
    let (ann, bob, conversation) = pair(&*servers.a);
    let group = ConversationId::group(create_group(&*servers.a, ann, "group", "").id);
    let strangers = ConversationId::pair(ann, register(&*servers.a, "carl")).unwrap();
    let message = |conversation, content| with_id(text(conversation, ann, content), 9);
    let later = NewMessage {
        client_time: "2024-02-29 12:00:01".into(),
        ..message(conversation, "first")
    };
    let batch = [
        // Takes no id: it is not stored.
        message(strangers, "refused"),
        message(conversation, &"x".repeat(CONTENT_BYTES_MAX + 1)),
        message(conversation, "first"),
        message(conversation, "second"),
        message(group, "first"),
        later,
        message(conversation, "first"),
        text(conversation, bob, "between"),
        message(strangers, "refused"),
    ];
    let outcomes = servers.a.append(&batch, &[]).unwrap();
    let stamp = committed(&outcomes[2]);
    assert_eq!((stamp.sequence, committed(&outcomes[7]).sequence), (2, 3));
    let expected = [
        AppendOutcome::NotFriends,
        AppendOutcome::TooLong,
        outcomes[2].clone(),
        AppendOutcome::IdInUse,
        AppendOutcome::IdInUse,
        AppendOutcome::IdInUse,
        AppendOutcome::Duplicate(stamp),
        outcomes[7].clone(),
        AppendOutcome::NotFriends,
    ];
    assert_eq!(outcomes, expected);
    let stored = servers.b.history(conversation, 2, 100).unwrap();
    let stored: Vec<_> = stored.iter().map(|message| &*message.content).collect();
    assert_eq!(stored, ["first", "between"]);
    // The same batch again finds the id used.
    let outcomes = servers.b.append(&batch, &[]).unwrap();
    assert_eq!(outcomes[2], AppendOutcome::Duplicate(stamp));
    assert_eq!(outcomes[6], AppendOutcome::Duplicate(stamp));
    for index in [3, 4, 5] {
        assert_eq!(outcomes[index], AppendOutcome::IdInUse, "{index}");
    }
}

pub(crate) fn a_repeat_counts_even_where_writing_is_no_longer_allowed(servers: &Servers) {
    let (ann, bob, conversation) = pair(&*servers.a);
    let message = with_id(text(conversation, ann, "sent in time"), 1);
    let stamp = committed(
        &servers
            .a
            .append(std::slice::from_ref(&message), &[])
            .unwrap()[0],
    );
    servers.a.delete_friend(bob, ann).unwrap();
    let other = with_id(text(conversation, ann, "sent too late"), 2);
    let outcomes = servers
        .b
        .append(&[other.clone(), other, message.clone()], &[])
        .unwrap();
    assert_eq!(
        outcomes[..2],
        [AppendOutcome::NotFriends, AppendOutcome::NotFriends]
    );
    assert_eq!(outcomes[2], AppendOutcome::Duplicate(stamp));
}

pub(crate) fn acknowledgements_only_move_forward(servers: &Servers) {
    let (ann, bob, conversation) = pair(&*servers.a);
    for content in ["two", "three", "four"] {
        send(&*servers.a, conversation, ann, content);
    }
    acknowledge(&*servers.a, bob, conversation, 3);
    assert_eq!(acked(&*servers.b, bob, conversation), Some(3));
    assert_eq!(
        pending_kinds(&*servers.b, bob),
        [(conversation, 4, MessageKind::FriendChat)]
    );
    acknowledge(&*servers.b, bob, conversation, 2);
    assert_eq!(acked(&*servers.a, bob, conversation), Some(3));
    acknowledge(&*servers.b, bob, conversation, u64::MAX);
    assert_eq!(acked(&*servers.a, bob, conversation), Some(4));
    assert_eq!(acked(&*servers.a, ann, conversation), Some(0));
    send(&*servers.a, conversation, ann, "five");
    assert_eq!(
        pending_kinds(&*servers.b, bob),
        [(conversation, 5, MessageKind::FriendChat)]
    );
}

pub(crate) fn acknowledgements_go_alone_and_with_messages(servers: &Servers) {
    let (ann, bob, conversation) = pair(&*servers.a);
    let carl = register(&*servers.a, "carl");
    let unknown = ConversationId::group(GroupId::new(i32::MAX).unwrap());
    let acks = [
        Ack {
            user: bob,
            conversation,
            sequence: 1,
        },
        Ack {
            user: bob,
            conversation,
            sequence: 2,
        },
        Ack {
            user: bob,
            conversation,
            sequence: 1,
        },
        Ack {
            user: carl,
            conversation,
            sequence: 2,
        },
        Ack {
            user: bob,
            conversation: unknown,
            sequence: 2,
        },
    ];
    let outcomes = servers
        .a
        .append(&[text(conversation, ann, "two")], &acks)
        .unwrap();
    assert_eq!(committed(&outcomes[0]).sequence, 2);
    assert_eq!(acked(&*servers.b, bob, conversation), Some(2));
    assert!(servers.b.conversations(carl).unwrap().is_empty());
    assert_eq!(acked(&*servers.b, bob, unknown), None);
}

pub(crate) fn a_batch_may_be_larger_than_a_statement(servers: &Servers) {
    const COUNT: u64 = 600;
    let (ann, bob, conversation) = pair(&*servers.a);
    let batch: Vec<_> = (0..COUNT)
        .map(|n| {
            with_id(
                text(conversation, if n % 3 == 0 { bob } else { ann }, ""),
                n + 1,
            )
        })
        .collect();
    let sequences = |outcomes: Vec<AppendOutcome>| -> Vec<_> {
        outcomes.iter().map(|one| committed(one).sequence).collect()
    };
    let first = sequences(servers.a.append(&batch, &[]).unwrap());
    assert_eq!(first, (2..COUNT + 2).collect::<Vec<_>>());
    // All of it again, with one that is new.
    let mut again = batch;
    again.push(with_id(text(conversation, ann, "new"), COUNT + 1));
    let mut outcomes = servers.b.append(&again, &[]).unwrap();
    assert_eq!(committed(&outcomes.pop().unwrap()).sequence, COUNT + 2);
    for (outcome, sequence) in outcomes.iter().zip(first) {
        assert!(matches!(outcome, AppendOutcome::Duplicate(stamp) if stamp.sequence == sequence));
    }
}

pub(crate) fn texts_of_all_sizes_and_scripts_come_back(servers: &Servers) {
    let (ann, _, conversation) = pair(&*servers.a);
    let texts = [
        String::new(),
        " ends with spaces  ".into(),
        "你好，世界 🌏 👩‍👩‍👧‍👦 𝕏 \u{10ffff}".into(),
        "zero\0inside, quotes ' \" ` \\ and\r\nlines".into(),
        "🦀".repeat(CONTENT_BYTES_MAX / 4),
    ];
    let mut batch: Vec<_> = texts
        .iter()
        .map(|one| text(conversation, ann, one))
        .collect();
    // Together far more than one statement may carry.
    batch.extend(vec![
        text(conversation, ann, &"x".repeat(CONTENT_BYTES_MAX));
        64
    ]);
    servers.a.append(&batch, &[]).unwrap();
    let stored = servers.b.history(conversation, 2, 100).unwrap();
    assert_eq!(stored.len(), batch.len());
    for (stored, sent) in stored.iter().zip(&batch) {
        assert!(
            stored.content == sent.content,
            "sequence {}",
            stored.sequence
        );
    }
}

pub(crate) fn an_empty_batch_is_nothing(servers: &Servers) {
    assert!(servers.a.append(&[], &[]).unwrap().is_empty());
}
