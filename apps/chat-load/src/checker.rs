//! What must hold of the messages of a load, sans-IO: told of each acknowledgement and each arrival, it
//! finds what was lost, repeated, out of order or damaged.
//!
//! | promise | found when |
//! |---|---|
//! | an acknowledged message reaches each recipient | at the end |
//! | one send is stored once, however often it was sent | a sender's number stands at two sequences |
//! | a recipient sees a conversation in order | an arrival that is new stands below one shown before |
//! | sequences have no gaps | at the end, below the newest that somebody saw |
//! | what arrives is what was sent | the checksum, or the number, does not fit |
//!
//! Arrivals are de-duplicated by conversation and sequence, as a client does; a repeated one is counted
//! and no fault. A send that was not acknowledged may be there or not.

use std::collections::{BTreeMap, HashMap, HashSet};

use chat_proto::conversation::{ConversationId, UserId};
use serde::{Deserialize, Serialize};

use crate::envelope::Envelope;
use crate::roster::Participants;

/// Violations that are kept in words.
const EXAMPLES_MAX: usize = 20;

/// What a checker found. All numbers but `repeated` and `unacknowledged` must be 0.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Verdict {
    /// Acknowledged messages that a recipient did not get, per recipient.
    pub lost: u64,
    /// Sends that stand at more than one place of their conversation.
    pub stored_twice: u64,
    /// Arrivals that stand before something that was shown already.
    pub out_of_order: u64,
    /// Sequences that somebody was shown the next of, but that nobody ever saw.
    pub gaps: u64,
    /// Texts that are not what was sent.
    pub corrupted: u64,
    /// Arrivals at somebody whom they are none of the business of, or at the sender.
    pub misdelivered: u64,
    /// Sessions that ended although their users neither logged in elsewhere nor logged out: signed out on their newest
    /// connection, or their token refused. The load itself counts these; a [`Checker`] sees no sessions.
    pub sessions_ended: u64,
    /// Arrivals that had been there before: allowed, since a client recognises them.
    pub repeated: u64,
    /// Sends without an answer at the end: allowed, and neither lost nor stored for certain.
    pub unacknowledged: u64,
    /// The first violations in words.
    pub examples: Vec<String>,
}

impl Verdict {
    /// Whether every promise was kept.
    pub fn is_clean(&self) -> bool {
        self.violations() == 0
    }

    /// How often a promise was broken.
    pub fn violations(&self) -> u64 {
        self.lost
            + self.stored_twice
            + self.out_of_order
            + self.gaps
            + self.corrupted
            + self.misdelivered
            + self.sessions_ended
    }

    /// Adds what another checker, of other conversations, found.
    pub fn merge(&mut self, other: Self) {
        self.lost += other.lost;
        self.stored_twice += other.stored_twice;
        self.out_of_order += other.out_of_order;
        self.gaps += other.gaps;
        self.corrupted += other.corrupted;
        self.misdelivered += other.misdelivered;
        self.sessions_ended += other.sessions_ended;
        self.repeated += other.repeated;
        self.unacknowledged += other.unacknowledged;
        let room = EXAMPLES_MAX.saturating_sub(self.examples.len());
        self.examples.extend(other.examples.into_iter().take(room));
    }

    fn note(&mut self, example: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(example());
        }
    }
}

/// What an arrival is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// The recipient has not seen it before.
    New(Envelope),
    /// The recipient has it already.
    Repeated,
    /// It is a violation.
    Wrong,
}

/// A send that has no answer yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OpenSend {
    /// Where it goes.
    pub conversation: ConversationId,
    /// Who sends it.
    pub sender: UserId,
}

/// Checks a number of conversations.
#[derive(Debug)]
pub struct Checker {
    run: u32,
    conversations: HashMap<ConversationId, Conversation>,
    found: Verdict,
    owed: u64,
}

#[derive(Debug)]
struct Conversation {
    /// The newest message before the load.
    last_sequence: u64,
    members: HashMap<UserId, Member>,
    /// What stands at `last_sequence` + 1 and so on, as far as anybody knows.
    messages: Vec<Option<Known>>,
    places: HashMap<(UserId, u64), u64>,
    /// So many of `messages`, from the first on, are acknowledged and have reached everybody ...
    settled: usize,
    /// ... and this is when the newest of them was due.
    settled_us: u64,
}

#[derive(Debug, Default)]
struct Member {
    seen: Bits,
    newest: u64,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    sender: UserId,
    number: u64,
    acknowledged: bool,
    /// Recipients who have it.
    seen_by: u32,
    /// When it was due; known once somebody has it.
    due_us: u64,
}

impl Checker {
    /// For the messages of this run in these conversations; numbers that can be no ids are left out.
    pub fn new(run: u32, conversations: &[Participants]) -> Self {
        let conversation = |one: &Participants| {
            let members = one.members.iter().filter_map(|&id| UserId::new(id));
            let checked = Conversation {
                last_sequence: one.last_sequence,
                members: members.map(|user| (user, Member::default())).collect(),
                messages: Vec::new(),
                places: HashMap::new(),
                settled: 0,
                settled_us: 0,
            };
            Some((one.conversation()?, checked))
        };
        Self {
            run,
            conversations: conversations.iter().filter_map(conversation).collect(),
            found: Verdict::default(),
            owed: 0,
        }
    }

    /// The chat has acknowledged a send and named its place.
    pub fn acknowledged(&mut self, id: ConversationId, sender: UserId, number: u64, sequence: u64) {
        let Some(conversation) = self.conversations.get_mut(&id) else {
            return;
        };
        let recipients = conversation.members.len() as u64 - 1;
        let found = &mut self.found;
        if let Some(known) = conversation.learn(id, sequence, sender, number, found)
            && !known.acknowledged
        {
            known.acknowledged = true;
            self.owed += recipients.saturating_sub(known.seen_by.into());
            conversation.settle();
        }
    }

    /// A text has reached `recipient`.
    pub fn received(
        &mut self,
        id: ConversationId,
        recipient: UserId,
        sequence: u64,
        text: &str,
    ) -> Arrival {
        let found = &mut self.found;
        let Some(envelope) = Envelope::of_text(text).filter(|envelope| envelope.run == self.run)
        else {
            found.corrupted += 1;
            found.note(|| format!("{id}/{sequence} at {recipient}: not a text of this load"));
            return Arrival::Wrong;
        };
        let sender = UserId::new(envelope.sender);
        let (Some(conversation), Some(sender)) = (self.conversations.get_mut(&id), sender) else {
            found.misdelivered += 1;
            found.note(|| format!("{id}/{sequence} at {recipient}: not of its conversations"));
            return Arrival::Wrong;
        };
        let base = conversation.last_sequence;
        let is_member = conversation.members.contains_key(&sender) && sender != recipient;
        let Some(member) = conversation
            .members
            .get_mut(&recipient)
            .filter(|_| is_member)
        else {
            found.misdelivered += 1;
            found.note(|| format!("{id}/{sequence} at {recipient}: a message of {sender}"));
            return Arrival::Wrong;
        };
        let Some(index) = index_of(base, sequence) else {
            found.corrupted += 1;
            found.note(|| format!("{id}/{sequence}: the load began after {base}"));
            return Arrival::Wrong;
        };
        let is_new = member.seen.insert(index);
        if is_new && sequence < member.newest {
            let newest = member.newest;
            found.out_of_order += 1;
            found.note(|| format!("{id}/{sequence} at {recipient}: {newest} was before it"));
        }
        member.newest = member.newest.max(sequence);
        let Some(known) = conversation.learn(id, sequence, sender, envelope.number, found) else {
            return Arrival::Wrong;
        };
        if !is_new {
            found.repeated += 1;
            return Arrival::Repeated;
        }
        known.seen_by += 1;
        known.due_us = envelope.due_us;
        if known.acknowledged {
            self.owed -= 1;
        }
        conversation.settle();
        Arrival::New(envelope)
    }

    /// How many deliveries of acknowledged messages are still to come.
    pub fn owed(&self) -> u64 {
        self.owed
    }

    /// How far the slowest conversation is: everything that was due up to then, in microseconds, is
    /// acknowledged and has reached everybody, in every conversation. 0 while one has had nothing yet.
    pub fn settled_us(&self) -> u64 {
        let conversations = self.conversations.values();
        let settled = conversations.map(|conversation| conversation.settled_us);
        settled.min().unwrap_or(0)
    }

    /// Where recipients lack an acknowledged message: the first in each conversation, at most `max`.
    pub fn missing(&self, max: usize) -> Vec<(UserId, ConversationId, u64)> {
        if self.owed == 0 {
            return Vec::new();
        }
        let mut missing = Vec::new();
        for (&id, conversation) in &self.conversations {
            for (&user, member) in &conversation.members {
                let lacks = |(index, known): (usize, &Option<Known>)| {
                    let known = known.as_ref()?;
                    let lacks =
                        known.acknowledged && known.sender != user && !member.seen.contains(index);
                    lacks.then(|| conversation.last_sequence + 1 + index as u64)
                };
                let first = conversation.messages.iter().enumerate().find_map(lacks);
                missing.extend(first.map(|sequence| (user, id, sequence)));
                if missing.len() >= max {
                    return missing;
                }
            }
        }
        missing
    }

    /// What was found, with these sends left without an answer.
    pub fn verdict(&self, open: &[OpenSend]) -> Verdict {
        let mut verdict = self.found.clone();
        verdict.unacknowledged = open.len() as u64;
        let open: HashSet<_> = open.iter().copied().collect();
        // Sorted, so that the same faults give the same words.
        let sorted: BTreeMap<_, _> = self.conversations.iter().collect();
        for (&id, conversation) in sorted {
            conversation.judge(id, &open, &mut verdict);
        }
        verdict
    }
}

impl Conversation {
    /// Notes what stands at a sequence. `None` if that contradicts what was known.
    fn learn(
        &mut self,
        id: ConversationId,
        sequence: u64,
        sender: UserId,
        number: u64,
        found: &mut Verdict,
    ) -> Option<&mut Known> {
        let Some(index) = index_of(self.last_sequence, sequence) else {
            found.corrupted += 1;
            found.note(|| {
                format!(
                    "{id}/{sequence}: the load began after {}",
                    self.last_sequence
                )
            });
            return None;
        };
        let place = *self.places.entry((sender, number)).or_insert(sequence);
        if place != sequence {
            found.stored_twice += 1;
            found.note(|| format!("{id}: message {number} of {sender} at {place} and {sequence}"));
            return None;
        }
        if self.messages.len() <= index {
            self.messages.resize(index + 1, None);
        }
        let known = self.messages[index].get_or_insert(Known {
            sender,
            number,
            acknowledged: false,
            seen_by: 0,
            due_us: 0,
        });
        if (known.sender, known.number) != (sender, number) {
            found.corrupted += 1;
            found.note(|| format!("{id}/{sequence}: two messages at one place"));
            return None;
        }
        Some(known)
    }

    /// Counts what has become settled.
    fn settle(&mut self) {
        let recipients = self.members.len().saturating_sub(1);
        while let Some(Some(known)) = self.messages.get(self.settled)
            && known.acknowledged
            && known.seen_by as usize >= recipients
        {
            self.settled += 1;
            self.settled_us = known.due_us.max(self.settled_us);
        }
    }

    fn judge(&self, id: ConversationId, open: &HashSet<OpenSend>, verdict: &mut Verdict) {
        let last = self.last_sequence + self.messages.len() as u64;
        for (sequence, (index, known)) in
            (self.last_sequence + 1..=last).zip(self.messages.iter().enumerate())
        {
            let lacking = |sender: UserId| {
                let members = self.members.iter();
                members
                    .filter(move |(user, member)| **user != sender && !member.seen.contains(index))
            };
            match known {
                Some(known) if known.acknowledged => {
                    for (user, _) in lacking(known.sender) {
                        verdict.lost += 1;
                        verdict.note(|| format!("{id}/{sequence}: lost for {user}"));
                    }
                }
                Some(known) => {
                    for (user, _) in
                        lacking(known.sender).filter(|(_, member)| member.newest > sequence)
                    {
                        verdict.gaps += 1;
                        verdict.note(|| format!("{id}/{sequence}: skipped for {user}"));
                    }
                }
                None => {
                    // It can be the unanswered send of the only one who was shown more than that.
                    let mut beyond = self.members.iter().filter(|(_, m)| m.newest > sequence);
                    let excused = match (beyond.next(), beyond.next()) {
                        (None, _) => true,
                        (Some((&sender, _)), None) => open.contains(&OpenSend {
                            conversation: id,
                            sender,
                        }),
                        _ => false,
                    };
                    if !excused {
                        verdict.gaps += 1;
                        verdict.note(|| format!("{id}/{sequence}: nobody ever saw it"));
                    }
                }
            }
        }
    }
}

/// The most messages that one conversation of a load can have, so that a damaged sequence cannot ask for
/// all memory.
const SEQUENCES_MAX: u64 = 100_000_000;

fn index_of(last_sequence: u64, sequence: u64) -> Option<usize> {
    let index = sequence.checked_sub(last_sequence + 1)?;
    (index < SEQUENCES_MAX).then_some(index as usize)
}

/// A set of small numbers.
#[derive(Debug, Default)]
struct Bits(Vec<u64>);

impl Bits {
    /// Whether it was not in before.
    fn insert(&mut self, index: usize) -> bool {
        let (word, bit) = (index / 64, 1 << (index % 64));
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let is_new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        is_new
    }

    fn contains(&self, index: usize) -> bool {
        let word = self.0.get(index / 64).copied().unwrap_or(0);
        word >> (index % 64) & 1 == 1
    }
}

#[cfg(test)]
mod tests;
