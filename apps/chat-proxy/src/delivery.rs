//! What one session may be shown next: every conversation in the order of its sequence, each message
//! once, nothing skipped.
//!
//! Pushes come from several servers and over a bus that may lose, repeat and reorder them, and between
//! them lie the user's own messages, which are answered instead of pushed. So each conversation has a
//! window:
//!
//! ```text
//!   1 2 3 4 5 │ 6   7 8   9 …
//!   ──────────┤     ───
//!      up_to ─┘      └ held: pushed, or the user's own, but 6 is missing
//! ```
//!
//! What is missing for longer than a moment is fetched from the services, whose answer is
//! authoritative: what lies between the messages in it are the user's own.
//!
//! Sans-IO: no socket, no clock and no call. `handle_*` takes what happened and appends what may be
//! shown to `out`; `start_*` says what is to be fetched.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use chat_proto::conversation::ConversationId;
use chat_proto::messages::{ConversationMark, FetchPendingRequest};

/// A message for the client, as the frame that is written to its socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) conversation: ConversationId,
    pub(crate) sequence: u64,
    pub(crate) frame: Bytes,
}

/// How much may be held for one session; beyond it all that is held is dropped and fetched instead.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeldLimits {
    pub(crate) messages_max: usize,
    pub(crate) bytes_max: usize,
}

/// What is known of a message that the user just sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OwnMessage {
    /// In a conversation that was there before.
    Continues,
    /// It made the conversation, or made the user part of it.
    Opens,
}

/// An answer of the services, made ready to be shown.
#[derive(Debug, Default)]
pub(crate) struct Fetched {
    /// Ascending within each conversation.
    pub(crate) arrivals: Vec<Arrival>,
    /// Where conversations stand after these.
    pub(crate) marks: Vec<ConversationMark>,
    /// Not everything fitted.
    pub(crate) more: bool,
}

/// The windows of one session.
#[derive(Debug)]
pub(crate) struct Delivery {
    limits: HeldLimits,
    /// The login was answered; until then everything is held.
    open: bool,
    /// Everything up to here was shown or is the user's own.
    up_to: HashMap<ConversationId, u64>,
    held: BTreeMap<(ConversationId, u64), Held>,
    held_bytes: usize,
    /// Known conversations of which something was dropped: to be fetched.
    lost: BTreeSet<ConversationId>,
    /// Anything may be missing: to be fetched for all conversations.
    all: bool,
    /// The conversations with a gap when the timer was armed, with their `up_to` then.
    watched: Option<Vec<(ConversationId, Option<u64>)>>,
    fetch: Option<Fetch>,
}

#[derive(Debug)]
enum Held {
    Own,
    Pushed(Bytes),
}

/// A fetch under way.
#[derive(Debug)]
struct Fetch {
    all: bool,
    lost: BTreeSet<ConversationId>,
    /// The newest message held of each conversation that was asked for. Each was committed before
    /// the fetch began, so the answer has no excuse for leaving a gap below it.
    asked: Vec<(ConversationId, u64)>,
}

impl Delivery {
    /// Windows of a session whose login is under way.
    pub(crate) fn new(limits: HeldLimits) -> Self {
        Self {
            limits,
            open: false,
            up_to: HashMap::new(),
            held: BTreeMap::new(),
            held_bytes: 0,
            lost: BTreeSet::new(),
            all: false,
            watched: None,
            fetch: None,
        }
    }

    /// Up to where a conversation was shown; `None` for one that is not known.
    pub(crate) fn up_to(&self, conversation: ConversationId) -> Option<u64> {
        self.up_to.get(&conversation).copied()
    }

    /// The login was answered with these marks.
    pub(crate) fn handle_login(&mut self, marks: &[ConversationMark], out: &mut Vec<Arrival>) {
        self.open = true;
        self.up_to = marks.iter().filter_map(read_mark).collect();
        for conversation in self.held_conversations() {
            self.show_held(conversation, out);
        }
    }

    /// A message was pushed.
    pub(crate) fn handle_push(&mut self, arrival: Arrival, out: &mut Vec<Arrival>) {
        let conversation = arrival.conversation;
        match self.up_to.get_mut(&conversation) {
            Some(up_to) if arrival.sequence <= *up_to => {}
            Some(up_to) if arrival.sequence - 1 == *up_to => {
                *up_to = arrival.sequence;
                out.push(arrival);
                self.show_held(conversation, out);
            }
            _ => self.hold(conversation, arrival.sequence, Held::Pushed(arrival.frame)),
        }
    }

    /// The user's own message was committed. Its answer should be written first.
    pub(crate) fn handle_own(
        &mut self,
        conversation: ConversationId,
        sequence: u64,
        message: OwnMessage,
        out: &mut Vec<Arrival>,
    ) {
        let opens = message == OwnMessage::Opens;
        match self.up_to(conversation) {
            Some(up_to) if sequence <= up_to => {}
            // What was said in a group before one joined it is not for one.
            _ if opens && conversation.as_group().is_some() => {
                self.advance(conversation, sequence, out);
            }
            // A friendship may have had a conversation before: what came of it meanwhile counts.
            None if opens && !self.holds_up_to(conversation, sequence) => {
                self.advance(conversation, sequence, out);
            }
            up_to if up_to.unwrap_or(0) + 1 == sequence => {
                self.advance(conversation, sequence, out);
            }
            _ => self.hold(conversation, sequence, Held::Own),
        }
    }

    /// Whether a timer is to be started for what is missing: at its end,
    /// [`start_overdue_fetch`](Self::start_overdue_fetch). At most one is asked for at a time.
    pub(crate) fn arm_timer(&mut self) -> bool {
        let missing = self.fetches_everything_now() || !self.held.is_empty();
        if !self.open || !missing || self.fetch.is_some() || self.watched.is_some() {
            return false;
        }
        let conversations = self.held_conversations();
        let gaps = conversations.into_iter().map(|c| (c, self.up_to(c)));
        self.watched = Some(gaps.collect());
        true
    }

    /// The timer's end: what has been missing since it was armed is to be fetched. A gap that has
    /// moved meanwhile is another gap, and gets another moment.
    pub(crate) fn start_overdue_fetch(&mut self) -> Option<FetchPendingRequest> {
        let watched = self.watched.take()?;
        let overdue: BTreeSet<ConversationId> = watched
            .into_iter()
            .filter(|&(c, up_to)| self.up_to(c) == up_to && self.first_held(c).is_some())
            .map(|(conversation, _)| conversation)
            .collect();
        self.start(overdue)
    }

    /// What is known to be lost is to be fetched, without waiting for a timer.
    pub(crate) fn start_fetch(&mut self) -> Option<FetchPendingRequest> {
        self.start(BTreeSet::new())
    }

    /// Everything may have been missed: the next fetch asks for all conversations.
    pub(crate) fn resync(&mut self) {
        self.all = true;
    }

    /// Whether [`start_fetch`](Self::start_fetch) has something to ask, once no fetch is under way.
    pub(crate) fn fetches_everything_now(&self) -> bool {
        self.all || !self.lost.is_empty()
    }

    /// The fetch was answered.
    pub(crate) fn handle_fetched(&mut self, fetched: Fetched, out: &mut Vec<Arrival>) {
        let Some(fetch) = self.fetch.take() else {
            return;
        };
        for arrival in fetched.arrivals {
            let (conversation, sequence) = (arrival.conversation, arrival.sequence);
            if self
                .up_to(conversation)
                .is_some_and(|up_to| sequence <= up_to)
                || sequence == 0
            {
                continue;
            }
            // Up to the one before: own messages, or such as are held and come first.
            self.advance(conversation, sequence - 1, out);
            if self.up_to(conversation) == Some(sequence - 1) {
                self.up_to.insert(conversation, sequence);
                out.push(arrival);
                self.show_held(conversation, out);
            }
        }
        for (conversation, sequence) in fetched.marks.iter().filter_map(read_mark) {
            self.advance(conversation, sequence, out);
        }
        if fetched.more {
            self.ask_again(fetch);
            return;
        }
        for (conversation, newest) in fetch.asked {
            self.close_gap(conversation, newest, out);
        }
    }

    /// The fetch failed; what it asked for is still missing.
    pub(crate) fn handle_fetch_failed(&mut self) {
        if let Some(fetch) = self.fetch.take() {
            self.ask_again(fetch);
        }
    }

    fn start(&mut self, overdue: BTreeSet<ConversationId>) -> Option<FetchPendingRequest> {
        if !self.open || self.fetch.is_some() {
            return None;
        }
        let all = self.all || overdue.iter().any(|c| !self.up_to.contains_key(c));
        if !all && overdue.is_empty() && self.lost.is_empty() {
            return None;
        }
        self.all = false;
        let lost = std::mem::take(&mut self.lost);
        let asked: Vec<ConversationId> = match all {
            true => self.held_conversations(),
            false => overdue.union(&lost).copied().collect(),
        };
        let mark = |(&conversation, &sequence): (&ConversationId, &u64)| ConversationMark {
            conversation_id: conversation.raw(),
            sequence,
        };
        let after = match all {
            true => self.up_to.iter().map(mark).collect(),
            false => asked
                .iter()
                .filter_map(|c| self.up_to.get_key_value(c))
                .map(mark)
                .collect(),
        };
        let newest = |c: ConversationId| Some((c, self.last_held(c)?));
        self.fetch = Some(Fetch {
            all,
            lost,
            asked: asked.into_iter().filter_map(newest).collect(),
        });
        Some(FetchPendingRequest {
            after,
            all_conversations: all,
        })
    }

    fn ask_again(&mut self, fetch: Fetch) {
        self.all |= fetch.all;
        self.lost.extend(fetch.lost);
        for (conversation, _) in fetch.asked {
            if self.up_to.contains_key(&conversation) && self.first_held(conversation).is_some() {
                self.lost.insert(conversation);
            }
        }
    }

    /// After a complete answer. What it did not mention of a known conversation cannot be had, and
    /// waiting for it would stop the conversation for good; an unknown one is none of the user's.
    fn close_gap(&mut self, conversation: ConversationId, newest: u64, out: &mut Vec<Arrival>) {
        // An own message that the services do not have here is none: a client message id that was used
        // before is answered with the place that the first one got, in whatever conversation.
        self.held.retain(|&(c, sequence), held| {
            !(c == conversation && sequence <= newest && matches!(held, Held::Own))
        });
        if !self.holds_up_to(conversation, newest) {
            return;
        }
        if self.up_to.contains_key(&conversation) {
            log::warn!("{conversation}: the services do not know what lies before {newest}");
            self.advance(conversation, newest, out);
        } else {
            self.drop_held(conversation, newest);
        }
    }

    /// Everything up to `sequence` is there: shows what is held of it, and what now follows.
    fn advance(&mut self, conversation: ConversationId, sequence: u64, out: &mut Vec<Arrival>) {
        match self.up_to.get_mut(&conversation) {
            Some(up_to) => {
                if sequence < *up_to {
                    return;
                }
                while let Some((next, held)) = self.take_held(conversation, sequence) {
                    show(conversation, next, held, self.up_to(conversation), out);
                }
            }
            // The first word on it comes from the services: what is held from before is older.
            None => self.drop_held(conversation, sequence),
        }
        self.up_to.insert(conversation, sequence);
        self.show_held(conversation, out);
    }

    /// Shows what is held and fits.
    fn show_held(&mut self, conversation: ConversationId, out: &mut Vec<Arrival>) {
        while let Some(up_to) = self.up_to(conversation)
            && let Some((sequence, held)) = self.take_held(conversation, up_to.saturating_add(1))
        {
            if sequence > up_to {
                self.up_to.insert(conversation, sequence);
            }
            show(conversation, sequence, held, Some(up_to), out);
        }
    }

    fn hold(&mut self, conversation: ConversationId, sequence: u64, message: Held) {
        let key = (conversation, sequence);
        if sequence == 0 || self.held.contains_key(&key) {
            return;
        }
        let bytes = self.held_bytes + message.bytes();
        if self.held.len() >= self.limits.messages_max || bytes > self.limits.bytes_max {
            self.drop_all_held(conversation);
            return;
        }
        self.held_bytes = bytes;
        self.held.insert(key, message);
    }

    fn drop_all_held(&mut self, also: ConversationId) {
        let mut dropped = self.held_conversations();
        dropped.push(also);
        self.held.clear();
        self.held_bytes = 0;
        for conversation in dropped {
            match self.up_to.contains_key(&conversation) {
                true => {
                    self.lost.insert(conversation);
                }
                false => self.all = true,
            }
        }
    }

    fn drop_held(&mut self, conversation: ConversationId, up_to: u64) {
        while self.take_held(conversation, up_to).is_some() {}
    }

    /// Takes out the oldest that is held, if it is not above `up_to`.
    fn take_held(&mut self, conversation: ConversationId, up_to: u64) -> Option<(u64, Held)> {
        let sequence = self.first_held(conversation)?;
        if sequence > up_to {
            return None;
        }
        let held = self.held.remove(&(conversation, sequence))?;
        self.held_bytes -= held.bytes();
        Some((sequence, held))
    }

    fn holds_up_to(&self, conversation: ConversationId, sequence: u64) -> bool {
        self.first_held(conversation)
            .is_some_and(|first| first <= sequence)
    }

    fn first_held(&self, conversation: ConversationId) -> Option<u64> {
        self.held_of(conversation).next()
    }

    fn last_held(&self, conversation: ConversationId) -> Option<u64> {
        self.held_of(conversation).next_back()
    }

    fn held_of(&self, conversation: ConversationId) -> impl DoubleEndedIterator<Item = u64> {
        self.held
            .range((conversation, 0)..=(conversation, u64::MAX))
            .map(|(&(_, sequence), _)| sequence)
    }

    fn held_conversations(&self) -> Vec<ConversationId> {
        let mut conversations: Vec<_> = self.held.keys().map(|&(c, _)| c).collect();
        conversations.dedup();
        conversations
    }
}

impl Held {
    fn bytes(&self) -> usize {
        match self {
            Self::Own => 0,
            Self::Pushed(frame) => frame.len(),
        }
    }
}

/// Appends a message that was held, unless it is the user's own or was shown already.
fn show(
    conversation: ConversationId,
    sequence: u64,
    held: Held,
    up_to: Option<u64>,
    out: &mut Vec<Arrival>,
) {
    match held {
        Held::Pushed(frame) if up_to.is_none_or(|up_to| sequence > up_to) => out.push(Arrival {
            conversation,
            sequence,
            frame,
        }),
        Held::Pushed(_) | Held::Own => {}
    }
}

fn read_mark(mark: &ConversationMark) -> Option<(ConversationId, u64)> {
    Some((
        ConversationId::from_raw(mark.conversation_id)?,
        mark.sequence,
    ))
}

#[cfg(test)]
mod tests;
