//! Users made in the store.

use std::collections::HashMap;

use argon2::password_hash::PasswordHasher;
use argon2::{Algorithm, Argon2, Params, Version};
use chat_store::{
    Ack, AddFriend, ConversationId, CreateGroup, CreateUser, JoinGroup, MySqlOptions, MySqlStore,
    Store, UserId,
};

use super::{PASSWORD, SetupError, THREADS, empty_roster, fresh_prefix, in_parallel};
use crate::roster::{Dealt, Participants, Roster, Shape};

/// Makes users, friendships and groups in the MySQL or MariaDB database at `url`; its schema is brought up to
/// date. What their making has left pending counts as received.
///
/// # Errors
/// See [`SetupError`].
pub fn seed(url: &str, shape: Shape) -> Result<Roster, SetupError> {
    seed_with(MySqlOptions::new(url), shape)
}

/// [`seed`] for a database that is reached in another way than by default.
///
/// # Errors
/// See [`SetupError`].
pub fn seed_with(options: MySqlOptions, shape: Shape) -> Result<Roster, SetupError> {
    let store = MySqlStore::new(MySqlOptions {
        connections_max: THREADS,
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
    for some in acks.chunks(512) {
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
