//! Users made in the store.

use std::collections::HashMap;
use std::num::NonZeroU64;

use argon2::password_hash::PasswordHasher;
use argon2::{Algorithm, Argon2, Params, Version};
use chat_store::{
    Ack, AddFriend, AppendOutcome, ConversationId, CreateGroup, CreateUser, JoinGroup,
    MySqlOptions, MySqlStore, NewMessage, Store, Terms, UserId,
};

use super::{PASSWORD, SetupError, THREADS, empty_roster, fresh_prefix, in_parallel};
use crate::roster::{Dealt, Participants, Roster, Shape};

/// Messages of one commit.
const BATCH: usize = 512;

/// Makes users, friendships and groups in the MySQL or MariaDB database at `url`, and a history of `stored`
/// messages, shared out among the conversations; the schema is brought up to date. What that has left
/// pending counts as received.
///
/// # Errors
/// See [`SetupError`].
pub fn seed(url: &str, shape: Shape, stored: usize) -> Result<Roster, SetupError> {
    seed_with(MySqlOptions::new(url), shape, stored)
}

/// [`seed`] for a database that is reached in another way than by default.
///
/// # Errors
/// See [`SetupError`].
pub fn seed_with(options: MySqlOptions, shape: Shape, stored: usize) -> Result<Roster, SetupError> {
    let store = MySqlStore::new(MySqlOptions {
        // The store keeps some of them for messages.
        connections_max: 2 * THREADS,
        ..options
    })?;
    store.prepare_schema()?;
    let (prefix, hash) = (fresh_prefix(), cheap_hash()?);
    let users = in_parallel(shape.users(), |index| {
        match store.create_user(&format!("{prefix} {index}"), &hash)? {
            CreateUser::Created(id) => Ok(id),
            CreateUser::NameTaken => Err(unexpected("a new user", "the name is taken")),
        }
    })?;
    let Dealt {
        pairs,
        groups,
        idle,
    } = shape.deal(users);
    let mut roster = empty_roster();
    roster.idle = idle.into_iter().map(UserId::get).collect();

    roster.conversations = in_parallel(pairs.len(), |index| {
        let (a, b) = pairs[index];
        match store.add_friend(a, b, usize::MAX)? {
            AddFriend::Added { stamp, .. } => Ok(Participants {
                group: None,
                members: vec![a.get(), b.get()],
                last_sequence: stamp.sequence,
            }),
            other => Err(unexpected("a friendship", &format!("{other:?}"))),
        }
    })?;
    let made = in_parallel(groups.len(), |index| {
        found_group(&store, &prefix, &groups[index])
    })?;
    roster.conversations.extend(made);
    let count = roster.conversations.len();
    if stored > 0 && count == 0 {
        return Err(unexpected("stored messages", "there is no conversation"));
    }
    let last = in_parallel(count, |index| {
        let share = stored / count + usize::from(index < stored % count);
        talk(&store, &roster.conversations[index], share)
    })?;
    for (conversation, last_sequence) in roster.conversations.iter_mut().zip(last) {
        conversation.last_sequence = last_sequence;
    }
    acknowledge_all(&store, &roster)?;
    Ok(roster)
}

fn found_group(
    store: &MySqlStore,
    prefix: &str,
    members: &[UserId],
) -> Result<Participants, SetupError> {
    let Some((&founder, others)) = members.split_first() else {
        return Err(unexpected("a group", "it would have no members"));
    };
    let group = match store.create_group(founder, prefix, "", usize::MAX)? {
        CreateGroup::Created(group) => group.id,
        other => return Err(unexpected("a group", &format!("{other:?}"))),
    };
    let mut last_sequence = 0;
    for &member in others {
        match store.join_group(member, group, members.len(), usize::MAX)? {
            JoinGroup::Joined { stamp, .. } => last_sequence = stamp.sequence,
            other => return Err(unexpected("a member", &format!("{other:?}"))),
        }
    }
    Ok(Participants {
        group: Some(group.get()),
        members: members.iter().map(|user| user.get()).collect(),
        last_sequence,
    })
}

/// Stores `count` messages of the first member; returns the newest sequence.
fn talk(store: &MySqlStore, talk: &Participants, count: usize) -> Result<u64, SetupError> {
    // Those of the load count from 1.
    const FIRST_ID: u64 = 1 << 62;
    let first = talk.members.first().and_then(|&id| UserId::new(id));
    let (Some(conversation), Some(sender)) = (talk.conversation(), first) else {
        return Err(unexpected("a message", "it would have no conversation"));
    };
    let message = |_| NewMessage {
        conversation,
        sender,
        // A user may be the first of several conversations.
        client_message_id: NonZeroU64::new(FIRST_ID | rand::random_range(0..FIRST_ID)),
        content: text(),
        client_time: String::new(),
        terms: Terms::default(),
    };
    let mut last_sequence = talk.last_sequence;
    for begun in (0..count).step_by(BATCH) {
        let batch: Vec<_> = (begun..count.min(begun + BATCH)).map(message).collect();
        for outcome in store.append(&batch, &[])? {
            match outcome {
                AppendOutcome::Committed { stamp, .. } => last_sequence = stamp.sequence,
                other => return Err(unexpected("a message", &format!("{other:?}"))),
            }
        }
    }
    Ok(last_sequence)
}

fn text() -> String {
    "x".repeat(64)
}

/// Otherwise every login would begin with the news of its own group.
fn acknowledge_all(store: &MySqlStore, roster: &Roster) -> Result<(), SetupError> {
    let mut acks: HashMap<(UserId, ConversationId), u64> = HashMap::new();
    for one in &roster.conversations {
        if let Some(conversation) = one.conversation() {
            let members = one.members.iter().filter_map(|&id| UserId::new(id));
            acks.extend(members.map(|user| ((user, conversation), one.last_sequence)));
        }
    }
    let ack = |((user, conversation), sequence)| Ack {
        user,
        conversation,
        sequence,
    };
    let acks: Vec<_> = acks.into_iter().map(ack).collect();
    for some in acks.chunks(BATCH) {
        store.append(&[], some)?;
    }
    Ok(())
}

fn cheap_hash() -> Result<String, SetupError> {
    let failed = |error: &dyn std::fmt::Display| unexpected("a password hash", &error.to_string());
    let params = Params::new(Params::MIN_M_COST, 1, 1, None).map_err(|error| failed(&error))?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash = argon2.hash_password(PASSWORD.as_bytes());
    hash.map(|hash| hash.to_string())
        .map_err(|error| failed(&error))
}

fn unexpected(what: &'static str, answer: &str) -> SetupError {
    SetupError::Refused {
        what,
        answer: answer.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use chat_store::PageLimit;
    use nexus_testkit::MariaDb;

    use super::*;

    #[test]
    fn a_history_is_shared_out_and_counts_as_received() {
        let database = MariaDb::start().unwrap();
        let shape = Shape {
            pairs: 2,
            groups: 1,
            group_members: 3,
            ..Shape::default()
        };
        // More than a commit each, and not the same for all.
        let stored = 3 * BATCH + 2;
        let roster = seed(&database.url(), shape, stored).unwrap();
        let store = MySqlStore::new(MySqlOptions::new(database.url())).unwrap();
        store.prepare_schema().unwrap();
        let limit = PageLimit {
            messages_max: 10,
            bytes_max: 1 << 20,
        };
        let mut texts = 0;
        for talk in &roster.conversations {
            let conversation = talk.conversation().unwrap();
            let history = store.history(conversation, 1, usize::MAX).unwrap();
            let newest = history.last().map(|message| message.sequence);
            assert_eq!(newest, Some(talk.last_sequence));
            texts += history.iter().filter(|one| one.content == text()).count();
            for &member in &talk.members {
                let user = UserId::new(member).unwrap();
                let pending = store.pending_all(user, limit).unwrap();
                assert!(pending.messages.is_empty(), "{member}");
            }
        }
        assert_eq!(texts, stored);
        let nobody = Shape {
            idle: 1,
            ..Shape::default()
        };
        assert!(seed(&database.url(), nobody, 1).is_err());
    }
}
