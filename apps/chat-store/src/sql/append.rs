//! The hot path: many messages and acknowledgements in one transaction.
//!
//! | step | statements, each for up to 256 rows |
//! |---|---|
//! | lock the conversations, read where they stand, and whether a sender has logged in again | 1 |
//! | find messages that were stored before (only after a conflict) | 1 |
//! | who may write where, and the senders' names, where [`Memberships`] does not know it | 1 for pairs, 2 for groups, 1 for names |
//! | find those of the refused that were stored before (if there are any) | 1 |
//! | write the new sequences | 1 for each number of messages that a conversation got |
//! | write the messages | 1, or 2 |
//! | read and move the cursors, if there are acknowledgements | 3 |

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    num::NonZeroU64,
    sync::Arc,
};

use super::{
    conversations::{self, INSERT_MESSAGE, Place},
    memberships::{Membership, Memberships},
    session::{ROWS_MAX, Session, Value},
    users,
};
use crate::{
    ConversationId, Parties, UserId,
    error::DbError,
    terms::Login,
    types::{
        Ack, AppendOutcome, CLIENT_TIME_BYTES_MAX, CONTENT_BYTES_MAX, MessageKind, NewMessage,
        Stamp,
    },
};

/// Whether to look for messages that were stored before. Sending again is rare, so the first
/// attempt leaves it to the unique key to find one, and what follows a conflict looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Duplicates {
    LeaveToKey,
    LookFor,
}

pub(super) fn append(
    s: &mut dyn Session,
    memory: &Memberships,
    batch: &[NewMessage],
    acks: &[Ack],
    now_ms: i64,
    duplicates: Duplicates,
) -> Result<Vec<AppendOutcome>, DbError> {
    let mut plan = Plan::new(batch);
    let (logins, ids) = (plan.logins(), plan.conversations());
    let (mut places, displaced) = conversations::lock_for(s, &ids, &logins)?;
    if displaced {
        plan.settle_displaced(&users::find_displaced(s, &logins)?);
    }
    if duplicates == Duplicates::LookFor {
        plan.settle_stored_before(s, Fate::is_open)?;
    }
    plan.settle_allowed(s, memory, &mut places, now_ms)?;
    // What is refused now may have been taken when it was sent first.
    plan.settle_stored_before(s, Fate::is_refused)?;
    plan.write(s)?;
    acknowledge(s, acks)?;
    plan.check_in_time()?;
    plan.outcomes()
}

/// What is decided of each message so far.
struct Plan<'a> {
    batch: &'a [NewMessage],
    fates: Vec<Fate>,
}

#[derive(Clone)]
enum Fate {
    Open,
    Settled(AppendOutcome),
}

impl Fate {
    fn is_open(&self) -> bool {
        matches!(self, Self::Open)
    }

    fn is_refused(&self) -> bool {
        use AppendOutcome::{Displaced, NotFriends, NotMember, TooLate};
        matches!(
            self,
            Self::Settled(NotFriends | NotMember | TooLate | Displaced)
        )
    }
}

type ClientKey = (UserId, NonZeroU64);

/// Two messages under one client message id are the same one if these are equal.
#[derive(PartialEq, Eq)]
struct Identity<'a> {
    conversation: ConversationId,
    kind: i32,
    content: &'a str,
    client_time: &'a str,
}

impl<'a> Identity<'a> {
    fn of(message: &'a NewMessage) -> Self {
        Self {
            conversation: message.conversation,
            kind: kind_of(message).number(),
            content: &message.content,
            client_time: &message.client_time,
        }
    }
}

impl<'a> Plan<'a> {
    /// Settles what needs no database.
    fn new(batch: &'a [NewMessage]) -> Self {
        let fates = batch.iter().map(|message| {
            if message.content.len() > CONTENT_BYTES_MAX
                || message.client_time.len() > CLIENT_TIME_BYTES_MAX
            {
                return Fate::Settled(AppendOutcome::TooLong);
            }
            if message.terms.is_late() {
                return Fate::Settled(AppendOutcome::TooLate);
            }
            Fate::Open
        });
        Self {
            fates: fates.collect(),
            batch,
        }
    }

    fn open(&self) -> impl Iterator<Item = &'a NewMessage> {
        let open = |(fate, message): (&Fate, _)| fate.is_open().then_some(message);
        self.fates.iter().zip(self.batch).filter_map(open)
    }

    /// Where the open messages go, ascending.
    fn conversations(&self) -> Vec<ConversationId> {
        let distinct: BTreeSet<_> = self.open().map(|message| message.conversation).collect();
        distinct.into_iter().collect()
    }

    /// Of which logins the open messages are.
    fn logins(&self) -> Vec<Login> {
        let distinct: BTreeSet<_> = self.open().filter_map(|one| one.terms.login).collect();
        distinct.into_iter().collect()
    }

    /// Refuses the messages of users who have logged in again since. `latest`: some users' latest logins.
    fn settle_displaced(&mut self, latest: &[(UserId, u64)]) {
        let latest: HashMap<UserId, u64> = latest.iter().copied().collect();
        let is_displaced = |login: Login| latest.get(&login.user) > Some(&login.number);
        for (fate, message) in self.fates.iter_mut().zip(self.batch) {
            if fate.is_open() && message.terms.login.is_some_and(is_displaced) {
                *fate = Fate::Settled(AppendOutcome::Displaced);
            }
        }
    }

    /// Right before the commit: nobody is told that it was too late for what is stored all the same.
    fn check_in_time(&self) -> Result<(), DbError> {
        let mut both = self.fates.iter().zip(self.batch);
        let is_stored =
            |fate: &Fate| matches!(fate, Fate::Settled(AppendOutcome::Committed { .. }));
        match both.any(|(fate, message)| is_stored(fate) && message.terms.is_late()) {
            true => Err(DbError::Shrunk),
            false => Ok(()),
        }
    }

    /// Settles the messages of a certain fate whose client message id is stored: a repeat of the stored message is
    /// a duplicate, anything else has taken a used id.
    ///
    /// The texts are compared here, byte by byte: a database compares them by its collation.
    fn settle_stored_before(
        &mut self,
        s: &mut dyn Session,
        concerned: fn(&Fate) -> bool,
    ) -> Result<(), DbError> {
        let mut of_key: BTreeMap<ClientKey, Vec<usize>> = BTreeMap::new();
        for (index, (fate, message)) in self.fates.iter().zip(self.batch).enumerate() {
            if let Some(key) = client_key(message).filter(|_| concerned(fate)) {
                of_key.entry(key).or_default().push(index);
            }
        }
        let keys: Vec<_> = of_key
            .keys()
            .map(|(sender, id)| [(*sender).into(), id.get().into()])
            .collect();
        // The stored texts of one statement at a time are in memory.
        for keys in keys.chunks(ROWS_MAX) {
            let rows = s.query_in(
                "SELECT sender_id, client_message_id, conversation_id, seq, created_at_ms, kind, \
                 content, client_time FROM message WHERE (sender_id, client_message_id)",
                keys,
                "",
            )?;
            for row in rows {
                let Some(id) = row.optional_u64(1)? else {
                    continue;
                };
                let stamp = Stamp {
                    sequence: row.u64(3)?,
                    created_at_ms: row.i64(4)?,
                };
                let (content, client_time) = (row.text(6)?, row.text(7)?);
                let stored = Identity {
                    conversation: row.conversation(2)?,
                    kind: row.i32(5)?,
                    content: &content,
                    client_time: &client_time,
                };
                for &index in of_key.get(&(row.user(0)?, id)).into_iter().flatten() {
                    let (Some(fate), Some(message)) =
                        (self.fates.get_mut(index), self.batch.get(index))
                    else {
                        continue;
                    };
                    let is_repeat = Identity::of(message) == stored;
                    *fate = Fate::Settled(repeat(is_repeat, stamp));
                }
            }
        }
        Ok(())
    }

    /// Refuses what the sender may not write, and gives the rest the next sequences.
    fn settle_allowed(
        &mut self,
        s: &mut dyn Session,
        memory: &Memberships,
        places: &mut BTreeMap<ConversationId, Place>,
        now_ms: i64,
    ) -> Result<(), DbError> {
        // What was settled meanwhile asks for nobody.
        let open = self.open().map(|message| message.conversation);
        let wanted = open
            .filter_map(|id| Some((id, places.get(&id)?.membership_sequence)))
            .collect();
        let memberships = memory.of(s, &wanted)?;
        let chatting = self.open().filter(|message| {
            let membership = memberships.get(&message.conversation);
            matches!(membership, Some(Membership::Friends))
        });
        let names = memory.names(s, chatting.map(|message| message.sender))?;
        let mut first_of = HashMap::new();
        for (fate, message) in self.fates.iter_mut().zip(self.batch) {
            if !fate.is_open() {
                continue;
            }
            let allowed = memberships
                .get(&message.conversation)
                .and_then(|membership| allowed(membership, message, &names));
            let place = places.get_mut(&message.conversation);
            let outcome = match (allowed, place, message.conversation.parties()) {
                (Some(allowed), Some(place), _) => {
                    take_place(place, message, allowed, &mut first_of, now_ms)
                }
                (_, _, Parties::Pair { .. }) => AppendOutcome::NotFriends,
                (_, _, Parties::Group(_)) => AppendOutcome::NotMember,
            };
            *fate = Fate::Settled(outcome);
        }
        Ok(())
    }

    fn write(&self, s: &mut dyn Session) -> Result<(), DbError> {
        let mut rows = Vec::with_capacity(self.batch.len());
        let mut grown: BTreeMap<ConversationId, u64> = BTreeMap::new();
        for (fate, message) in self.fates.iter().zip(self.batch) {
            let Fate::Settled(AppendOutcome::Committed { stamp, .. }) = fate else {
                continue;
            };
            *grown.entry(message.conversation).or_default() += 1;
            rows.push([
                message.conversation.into(),
                stamp.sequence.into(),
                message.sender.into(),
                Value::Int(kind_of(message).number().into()),
                message
                    .client_message_id
                    .map_or(Value::Null, |id| id.get().into()),
                message.content.as_str().into(),
                message.client_time.as_str().into(),
                stamp.created_at_ms.into(),
            ]);
        }
        conversations::raise_last_sequences(s, &grown)?;
        s.insert_rows(INSERT_MESSAGE, &rows, "")
    }

    fn outcomes(self) -> Result<Vec<AppendOutcome>, DbError> {
        let outcome = |fate| match fate {
            Fate::Settled(outcome) => Ok(outcome),
            Fate::Open => Err(DbError::Internal("a message was not settled".into())),
        };
        self.fates.into_iter().map(outcome).collect()
    }
}

/// Gives a message the next sequence, unless an earlier one of the batch has its client message id.
fn take_place<'a>(
    place: &mut Place,
    message: &'a NewMessage,
    allowed: Allowed,
    first_of: &mut HashMap<ClientKey, (Identity<'a>, Stamp)>,
    now_ms: i64,
) -> AppendOutcome {
    let stamp = Stamp {
        sequence: place.last_sequence + 1,
        created_at_ms: now_ms,
    };
    if let Some(key) = client_key(message) {
        match first_of.entry(key) {
            Entry::Occupied(first) => {
                let (first, stamp) = first.get();
                return repeat(*first == Identity::of(message), *stamp);
            }
            Entry::Vacant(vacant) => {
                vacant.insert((Identity::of(message), stamp));
            }
        }
    }
    place.last_sequence = stamp.sequence;
    AppendOutcome::Committed {
        stamp,
        sender_name: allowed.sender_name,
        members: allowed.members,
    }
}

/// What becomes of a message whose client message id another one had first.
fn repeat(is_the_same: bool, first: Stamp) -> AppendOutcome {
    match is_the_same {
        true => AppendOutcome::Duplicate(first),
        false => AppendOutcome::IdInUse,
    }
}

/// Of a message that its sender may write.
struct Allowed {
    sender_name: Arc<str>,
    /// In a group.
    members: Option<Arc<[UserId]>>,
}

/// `None` if the sender may not write the message.
fn allowed(
    membership: &Membership,
    message: &NewMessage,
    names: &HashMap<UserId, Arc<str>>,
) -> Option<Allowed> {
    match membership {
        Membership::Friends => {
            // Names the pair's other one only for one of the two.
            message.conversation.other(message.sender)?;
            Some(Allowed {
                sender_name: Arc::clone(names.get(&message.sender)?),
                members: None,
            })
        }
        Membership::Group(known) => {
            let mut members = known.group.members.iter();
            let sender = members.find(|member| member.id == message.sender)?;
            Some(Allowed {
                sender_name: sender.name.as_str().into(),
                members: Some(Arc::clone(&known.members)),
            })
        }
        Membership::Strangers | Membership::NoGroup => None,
    }
}

fn acknowledge(s: &mut dyn Session, acks: &[Ack]) -> Result<(), DbError> {
    let mut furthest = BTreeMap::new();
    for ack in acks {
        let sequence = furthest
            .entry((ack.user, ack.conversation))
            .or_insert(ack.sequence);
        *sequence = ack.sequence.max(*sequence);
    }
    conversations::acknowledge(s, &furthest)
}

fn client_key(message: &NewMessage) -> Option<ClientKey> {
    message.client_message_id.map(|id| (message.sender, id))
}

fn kind_of(message: &NewMessage) -> MessageKind {
    match message.conversation.parties() {
        Parties::Pair { .. } => MessageKind::FriendChat,
        Parties::Group(_) => MessageKind::GroupChat,
    }
}
