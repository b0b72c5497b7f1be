//! Reading messages: what a user has not received, and history.

use std::collections::BTreeMap;

use super::{
    conversations::{self, Standing},
    row::Row,
    session::{Session, Value},
};
use crate::{
    ConversationId, UserId,
    error::DbError,
    types::{Mark, MessageKind, PageLimit, PendingPage, PendingScope, StoredMessage},
};

const SELECT_MESSAGE: &str = "SELECT m.conversation_id, m.seq, m.sender_id, u.name, m.kind, \
     m.client_message_id, m.content, m.client_time, m.created_at_ms \
     FROM message m JOIN user u ON u.id = m.sender_id";

/// The most conversations that one statement reads.
const CONVERSATIONS_PER_READ: usize = 64;
/// The messages that the first statement of a page reads, and the most that a later one does. They bound what is read
/// for nothing where messages are long: 2 MiB, and 8 MiB where only later ones are.
const MESSAGES_PER_FIRST_READ: usize = 32;
const MESSAGES_PER_READ: usize = 128;

/// What is left to read of a conversation: the messages after `after`, up to `last`.
#[derive(Clone, Copy)]
struct Stretch {
    conversation: ConversationId,
    after: u64,
    last: u64,
}

/// Must run on one snapshot of the database. Also returns what it has read of the user's conversations.
pub(super) fn pending(
    s: &mut dyn Session,
    user: UserId,
    after: &[Mark],
    scope: PendingScope,
    limit: PageLimit,
) -> Result<(PendingPage, Vec<Standing>), DbError> {
    let named: BTreeMap<_, _> = after
        .iter()
        .map(|mark| (mark.conversation, mark.sequence))
        .collect();
    let standings = conversations::standings(s, user)?;
    let mut stretches = Vec::new();
    for standing in &standings {
        let (conversation, last) = (standing.conversation, standing.place.last_sequence);
        let after = match (named.get(&conversation), scope) {
            (Some(after), _) => (*after).min(last),
            (None, PendingScope::All) => standing.acked_sequence,
            (None, PendingScope::Named) => continue,
        };
        stretches.push(Stretch {
            conversation,
            after,
            last,
        });
    }

    let mut page = PendingPage::default();
    let mut room = Room::new(PageLimit {
        messages_max: limit.messages_max.max(1),
        ..limit
    });
    for some in stretches.chunks_mut(CONVERSATIONS_PER_READ) {
        if !page.more {
            read_stretches(s, user, some, &mut page, &mut room)?;
        }
        let marks = some.iter().map(|stretch| Mark {
            conversation: stretch.conversation,
            sequence: stretch.after,
        });
        page.marks.extend(marks);
    }
    Ok((page, standings))
}

pub(super) fn history(
    s: &mut dyn Session,
    conversation: ConversationId,
    first_sequence: u64,
    limit: PageLimit,
) -> Result<Vec<StoredMessage>, DbError> {
    let sql = format!(
        "{SELECT_MESSAGE} WHERE m.conversation_id = ? AND m.seq >= ? ORDER BY m.seq LIMIT ?"
    );
    let mut room = Room::new(limit);
    let mut messages: Vec<StoredMessage> = Vec::new();
    while room.messages > 0 {
        let first = match messages.last() {
            Some(last) => last.sequence.saturating_add(1),
            None => first_sequence,
        };
        let rows_max = room.rows_of_next_read().min(room.messages);
        let params = [conversation.into(), first.into(), Value::limit(rows_max)];
        let rows = s.query(&sql, &params)?;
        for row in &rows {
            let message = message(row)?;
            if !room.take(&message) {
                return Ok(messages);
            }
            messages.push(message);
        }
        if rows.len() < rows_max {
            break;
        }
    }
    Ok(messages)
}

/// What a page still has room for, and what it holds.
struct Room {
    messages: usize,
    bytes: usize,
    messages_taken: usize,
    bytes_taken: usize,
}

impl Room {
    fn new(limit: PageLimit) -> Self {
        Self {
            messages: limit.messages_max,
            bytes: limit.bytes_max,
            messages_taken: 0,
            bytes_taken: 0,
        }
    }

    /// Whether a message fits; the first one of a page always does.
    fn take(&mut self, message: &StoredMessage) -> bool {
        let bytes = message.bytes();
        let fits = self.messages > 0 && (bytes <= self.bytes || self.messages_taken == 0);
        if fits {
            self.messages -= 1;
            self.bytes = self.bytes.saturating_sub(bytes);
            self.messages_taken += 1;
            self.bytes_taken = self.bytes_taken.saturating_add(bytes);
        }
        fits
    }

    /// About as many as have room if they are as long as those before, and one that shows whether there is more.
    fn rows_of_next_read(&self) -> usize {
        let fitting = match self.bytes_taken.checked_div(self.messages_taken) {
            Some(average) => self.bytes / average.max(1),
            None => return MESSAGES_PER_FIRST_READ.min(self.messages.saturating_add(1)),
        };
        fitting
            .min(self.messages)
            .saturating_add(1)
            .min(MESSAGES_PER_READ)
    }
}

/// Reads stretches, which ascend by conversation, into the page until they or its room end. What
/// was read is taken off them.
fn read_stretches(
    s: &mut dyn Session,
    user: UserId,
    stretches: &mut [Stretch],
    page: &mut PendingPage,
    room: &mut Room,
) -> Result<(), DbError> {
    loop {
        let unread: Vec<_> = stretches
            .iter()
            .filter(|stretch| stretch.after < stretch.last)
            .copied()
            .collect();
        let rows_max = room.rows_of_next_read();
        let rows = read(s, user, &unread, rows_max)?;
        for row in &rows {
            let message = message(row)?;
            for stretch in stretches.iter_mut() {
                if stretch.conversation < message.conversation {
                    stretch.after = stretch.last;
                }
            }
            if !room.take(&message) {
                page.more = true;
                return Ok(());
            }
            let mut places = stretches.iter_mut();
            if let Some(place) = places.find(|place| place.conversation == message.conversation) {
                place.after = message.sequence;
            }
            page.messages.push(message);
        }
        if rows.len() < rows_max {
            // Whatever else stands in them, the user wrote.
            for stretch in stretches.iter_mut() {
                stretch.after = stretch.last;
            }
            return Ok(());
        }
    }
}

/// The first messages of others in these stretches. Each is a range of the primary key, so nothing
/// is read that was received before, however long the conversation.
fn read(
    s: &mut dyn Session,
    user: UserId,
    unread: &[Stretch],
    rows_max: usize,
) -> Result<Vec<Row>, DbError> {
    let Some(last) = unread.last() else {
        return Ok(Vec::new());
    };
    let width = unread.len().next_power_of_two();
    let padded = unread
        .iter()
        .chain(std::iter::repeat_n(last, width - unread.len()));
    let mut params: Vec<Value<'_>> = padded
        .flat_map(|stretch| [stretch.conversation.into(), stretch.after.into()])
        .collect();
    params.extend([user.into(), Value::limit(rows_max)]);

    let ranges = vec!["(m.conversation_id = ? AND m.seq > ?)"; width].join(" OR ");
    let sql = format!(
        "{SELECT_MESSAGE} WHERE ({ranges}) AND m.sender_id <> ? \
         ORDER BY m.conversation_id, m.seq LIMIT ?"
    );
    s.query(&sql, &params)
}

fn message(row: &Row) -> Result<StoredMessage, DbError> {
    Ok(StoredMessage {
        conversation: row.conversation(0)?,
        sequence: row.u64(1)?,
        sender: row.user(2)?,
        sender_name: row.text(3)?,
        kind: MessageKind::from_number(row.i32(4)?)
            .ok_or_else(|| DbError::unexpected("message kind"))?,
        client_message_id: row.optional_u64(5)?,
        content: row.text(6)?,
        client_time: row.text(7)?,
        created_at_ms: row.i64(8)?,
    })
}
