//! Conversations: their sequences, and how far each user has them.

use std::collections::BTreeMap;

use super::{
    row::Row,
    session::{ROWS_MAX, Session, Value, padded},
    users,
};
use crate::{
    ConversationId, UserId,
    error::DbError,
    terms::Login,
    types::{ConversationState, MessageKind, Stamp},
};

pub(super) const INSERT_MESSAGE: &str = "INSERT INTO message (conversation_id, seq, sender_id, \
     kind, client_message_id, content, client_time, created_at_ms)";

/// Makes the conversation if it is missing, locks it, and returns its newest sequence.
pub(super) fn create(s: &mut dyn Session, id: ConversationId) -> Result<u64, DbError> {
    let or_keep = s.dialect().or_keep("id", "last_seq");
    let sql = format!("INSERT INTO conversation (id, last_seq) VALUES (?, 0) {or_keep}");
    s.execute(&sql, &[id.into()])?;
    lock(s, id)?.ok_or_else(|| DbError::unexpected("absence of a new conversation"))
}

/// Where a conversation stands.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) last_sequence: u64,
    /// Who belongs to it has not changed with a later message. It grows with each change.
    pub(super) membership_sequence: u64,
}

impl Place {
    /// From the columns `last_seq` and `unchanged_for`.
    fn new(last_sequence: u64, unchanged_for: u64) -> Result<Self, DbError> {
        let membership_sequence = last_sequence
            .checked_sub(unchanged_for)
            .ok_or_else(|| DbError::unexpected("place of a conversation"))?;
        Ok(Self {
            last_sequence,
            membership_sequence,
        })
    }
}

/// Locks a conversation and returns its newest sequence; `None` if it is not there.
pub(super) fn lock(s: &mut dyn Session, id: ConversationId) -> Result<Option<u64>, DbError> {
    let place = lock_all(s, &[id])?.remove(&id);
    Ok(place.map(|place| place.last_sequence))
}

/// Locks conversations, whose ids must ascend, and returns where they stand; those that are not there
/// are left out.
pub(super) fn lock_all(
    s: &mut dyn Session,
    ids: &[ConversationId],
) -> Result<BTreeMap<ConversationId, Place>, DbError> {
    let keys: Vec<_> = ids.iter().map(|id| [(*id).into()]).collect();
    let order_and_lock = format!("ORDER BY id {}", s.dialect().for_update());
    let before = "SELECT id, last_seq, unchanged_for FROM conversation WHERE id";
    let rows = s.query_in(before, &keys, &order_and_lock)?;
    rows.iter().map(place).collect()
}

/// As [`lock_all`], in the same statements also the question whether any of some users has logged in again: it is
/// asked with each batch, and the answer is nearly always no.
pub(super) fn lock_for(
    s: &mut dyn Session,
    ids: &[ConversationId],
    logins: &[Login],
) -> Result<(BTreeMap<ConversationId, Place>, bool), DbError> {
    let (mut places, mut displaced) = (BTreeMap::new(), false);
    let mut logins = logins.chunks(ROWS_MAX);
    for ids in ids.chunks(ROWS_MAX) {
        let Some(logins) = logins.next() else {
            places.extend(lock_all(s, ids)?);
            continue;
        };
        let (ids, logins) = (padded(ids), padded(logins));
        let mut params: Vec<_> = users::displaced_params(&logins).collect();
        params.extend(ids.iter().map(|&id| Value::from(id)));
        let sql = format!(
            "SELECT id, last_seq, unchanged_for, (SELECT COUNT(*) FROM user WHERE {}) \
             FROM conversation WHERE id IN {} ORDER BY id {}",
            users::displaced(logins.len()),
            s.dialect().key_list(ids.len(), 1),
            s.dialect().for_update(),
        );
        for row in s.query(&sql, &params)? {
            displaced |= row.count(3)? > 0;
            let (id, place) = place(&row)?;
            places.insert(id, place);
        }
    }
    for logins in logins {
        displaced |= !users::find_displaced(s, logins)?.is_empty();
    }
    Ok((places, displaced))
}

/// From the columns `id`, `last_seq` and `unchanged_for`.
fn place(row: &Row) -> Result<(ConversationId, Place), DbError> {
    let place = Place::new(row.u64(1)?, row.u64(2)?)?;
    Ok((row.conversation(0)?, place))
}

/// The newest sequences of conversations, unlocked.
pub(super) fn last_sequences(
    s: &mut dyn Session,
    ids: &[ConversationId],
) -> Result<BTreeMap<ConversationId, u64>, DbError> {
    let keys: Vec<_> = ids.iter().map(|id| [(*id).into()]).collect();
    let rows = s.query_in("SELECT id, last_seq FROM conversation WHERE id", &keys, "")?;
    rows.iter()
        .map(|row| Ok((row.conversation(0)?, row.u64(1)?)))
        .collect()
}

/// Sets where conversations stand that are locked.
pub(super) fn set_places(
    s: &mut dyn Session,
    places: impl IntoIterator<Item = (ConversationId, Place)>,
) -> Result<(), DbError> {
    let rows: Vec<_> = places
        .into_iter()
        .map(|(id, place)| {
            let unchanged_for = place.last_sequence - place.membership_sequence;
            [id.into(), place.last_sequence.into(), unchanged_for.into()]
        })
        .collect();
    let or_replace = s.dialect().or_replace("id", &["last_seq", "unchanged_for"]);
    s.insert_rows(
        "INSERT INTO conversation (id, last_seq, unchanged_for)",
        &rows,
        &or_replace,
    )
}

/// Raises the newest sequences of conversations that are locked, each by the number of its new messages, none of
/// which changes who belongs to it.
/// Most have one, and those take one statement that says so, which costs the database less than to name
/// each sequence.
pub(super) fn raise_last_sequences(
    s: &mut dyn Session,
    new: &BTreeMap<ConversationId, u64>,
) -> Result<(), DbError> {
    let mut by_count: BTreeMap<u64, Vec<Value<'_>>> = BTreeMap::new();
    for (&id, &count) in new {
        by_count.entry(count).or_default().push(id.into());
    }
    let sql = "UPDATE conversation \
               SET last_seq = last_seq + ?, unchanged_for = unchanged_for + ? WHERE id";
    for (count, ids) in by_count {
        s.execute_in(sql, &[count.into(), count.into()], &ids)?;
    }
    Ok(())
}

/// A change that the others of a conversation have to learn of.
pub(super) struct Notice<'a> {
    pub(super) sender: UserId,
    pub(super) kind: MessageKind,
    pub(super) content: &'a str,
}

/// Writes a notice into a conversation that is locked and stands at `last_sequence`. Each tells of a change of who
/// belongs to it.
pub(super) fn notify(
    s: &mut dyn Session,
    conversation: ConversationId,
    last_sequence: u64,
    notice: &Notice<'_>,
    now_ms: i64,
) -> Result<Stamp, DbError> {
    let stamp = Stamp {
        sequence: last_sequence + 1,
        created_at_ms: now_ms,
    };
    let place = Place {
        last_sequence: stamp.sequence,
        membership_sequence: stamp.sequence,
    };
    set_places(s, [(conversation, place)])?;
    let row = [
        conversation.into(),
        stamp.sequence.into(),
        notice.sender.into(),
        Value::Int(notice.kind.number().into()),
        Value::Null,
        notice.content.into(),
        "".into(),
        stamp.created_at_ms.into(),
    ];
    s.insert_rows(INSERT_MESSAGE, &[row], "")?;
    Ok(stamp)
}

/// Lets a user take part in a conversation, with everything up to `acked` received; a user who took
/// part before stays where that was.
pub(super) fn open_cursor(
    s: &mut dyn Session,
    user: UserId,
    conversation: ConversationId,
    acked: u64,
) -> Result<(), DbError> {
    let or_keep = s.dialect().or_keep("user_id, conversation_id", "acked_seq");
    let row = [user.into(), conversation.into(), acked.into()];
    s.insert_rows(INSERT_CURSOR, &[row], &or_keep)
}

/// Ends a user's part in a conversation.
pub(super) fn close_cursor(
    s: &mut dyn Session,
    user: UserId,
    conversation: ConversationId,
) -> Result<(), DbError> {
    let sql = "DELETE FROM conversation_cursor WHERE user_id = ? AND conversation_id = ?";
    s.execute(sql, &[user.into(), conversation.into()])?;
    Ok(())
}

const INSERT_CURSOR: &str = "INSERT INTO conversation_cursor (user_id, conversation_id, acked_seq)";

/// Moves cursors forward, never back and never beyond the newest message. There must be one
/// acknowledgement per user and conversation at most.
pub(super) fn acknowledge(
    s: &mut dyn Session,
    acks: &BTreeMap<(UserId, ConversationId), u64>,
) -> Result<(), DbError> {
    let mut ids: Vec<_> = acks.keys().map(|(_, conversation)| *conversation).collect();
    ids.sort_unstable();
    ids.dedup();
    let last_sequences = last_sequences(s, &ids)?;

    // The cursors are locked and read before they are written, so that none is written for a user
    // who has just left.
    let keys: Vec<_> = acks
        .keys()
        .map(|(user, conversation)| [(*user).into(), (*conversation).into()])
        .collect();
    let order_and_lock = format!(
        "ORDER BY user_id, conversation_id {}",
        s.dialect().for_update()
    );
    let rows = s.query_in(
        "SELECT user_id, conversation_id, acked_seq FROM conversation_cursor \
         WHERE (user_id, conversation_id)",
        &keys,
        &order_and_lock,
    )?;
    let mut forward = Vec::new();
    for row in rows {
        let (user, conversation, old) = (row.user(0)?, row.conversation(1)?, row.u64(2)?);
        let asked = acks.get(&(user, conversation)).copied().unwrap_or(0);
        let newest = last_sequences.get(&conversation).copied().unwrap_or(0);
        let new = asked.min(newest);
        if new > old {
            forward.push([user.into(), conversation.into(), new.into()]);
        }
    }
    let or_replace = s
        .dialect()
        .or_replace("user_id, conversation_id", &["acked_seq"]);
    s.insert_rows(INSERT_CURSOR, &forward, &or_replace)
}

/// Where a user stands in a conversation, and it in itself.
pub(super) struct Standing {
    pub(super) conversation: ConversationId,
    pub(super) acked_sequence: u64,
    pub(super) place: Place,
}

impl Standing {
    /// The conversation with its membership sequence.
    pub(super) fn membership(&self) -> (ConversationId, u64) {
        (self.conversation, self.place.membership_sequence)
    }

    pub(super) fn state(&self) -> ConversationState {
        ConversationState {
            conversation: self.conversation,
            acked_sequence: self.acked_sequence,
            last_sequence: self.place.last_sequence,
        }
    }
}

/// Where a user stands everywhere, by conversation.
pub(super) fn standings(s: &mut dyn Session, user: UserId) -> Result<Vec<Standing>, DbError> {
    let sql = format!("{SELECT_STANDING} WHERE c.user_id = ? ORDER BY c.conversation_id");
    let rows = s.query(&sql, &[user.into()])?;
    rows.iter().map(standing).collect()
}

/// Where a user stands in the first conversations whose numbers lie between the two, by conversation.
pub(super) fn standings_between(
    s: &mut dyn Session,
    user: UserId,
    (after, before): (u64, u64),
    rows_max: usize,
) -> Result<Vec<Standing>, DbError> {
    let sql = format!(
        "{SELECT_STANDING} WHERE c.user_id = ? AND c.conversation_id > ? AND c.conversation_id < ? \
         ORDER BY c.conversation_id LIMIT ?"
    );
    let limit = Value::limit(rows_max);
    let rows = s.query(&sql, &[user.into(), after.into(), before.into(), limit])?;
    rows.iter().map(standing).collect()
}

/// Where a user stands in a conversation; `None` for one who has no part in it.
pub(super) fn standing_in(
    s: &mut dyn Session,
    user: UserId,
    conversation: ConversationId,
) -> Result<Option<Standing>, DbError> {
    let sql = format!("{SELECT_STANDING} WHERE c.user_id = ? AND c.conversation_id = ?");
    let row = s.first(&sql, &[user.into(), conversation.into()])?;
    row.as_ref().map(standing).transpose()
}

const SELECT_STANDING: &str = "SELECT c.conversation_id, c.acked_seq, v.last_seq, v.unchanged_for \
     FROM conversation_cursor c JOIN conversation v ON v.id = c.conversation_id";

fn standing(row: &Row) -> Result<Standing, DbError> {
    Ok(Standing {
        conversation: row.conversation(0)?,
        acked_sequence: row.u64(1)?,
        place: Place::new(row.u64(2)?, row.u64(3)?)?,
    })
}
