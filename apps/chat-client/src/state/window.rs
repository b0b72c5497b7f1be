//! What a client has of one conversation, and what is missing.
//!
//! ```text
//!   1 … up_to │ gap │ held │ gap │ held … newest
//!   shown, or │     messages that came too early, and places
//!   one's own │     of one's own messages
//! ```

use std::collections::BTreeMap;
use std::time::Instant;

use super::HISTORY_MAX;
use crate::Message;

/// More messages are not held; they are fetched once what lies before them is there.
const HELD_MAX: usize = 1000;

/// One conversation's messages, put in order.
///
/// A login answer does not say where a conversation stands in which nothing waits. There the first
/// message that is pushed sets the beginning: the server pushes in order.
#[derive(Debug)]
pub(super) struct Window {
    /// Everything up to here was shown, or is the user's own. `None`: not known yet, and `held` has
    /// places of own messages only.
    up_to: Option<u64>,
    /// The highest sequence that is known to exist.
    newest: u64,
    held: BTreeMap<u64, Held>,
    /// The highest sequence that the application was handed.
    pub(super) handed: u64,
    pub(super) fill: Fill,
}

/// How far the filling of a gap has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fill {
    /// There is no gap.
    Idle,
    /// To be asked for then, after so many failures.
    Due(Instant, u32),
    /// Asked for, after so many failures.
    Asked(u32),
}

#[derive(Debug)]
enum Held {
    Own,
    Message(Message),
}

/// Whether a message was there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    Now,
    Before,
}

impl Window {
    pub(super) fn new() -> Self {
        Self {
            up_to: None,
            newest: 0,
            held: BTreeMap::new(),
            handed: 0,
            fill: Fill::Idle,
        }
    }

    /// A message was pushed. What can be shown now goes to `out`.
    pub(super) fn pushed(&mut self, message: Message, out: &mut Vec<Message>) -> Seen {
        let sequence = message.sequence;
        if self.up_to.is_none() {
            self.begin_at(sequence);
        }
        self.insert(sequence, Held::Message(message), out)
    }

    /// An answer told the sequence of a message of one's own. Answers may overtake pushes, so it says
    /// nothing about what lies before it.
    pub(super) fn own(&mut self, sequence: u64, out: &mut Vec<Message>) {
        if sequence == 1 && self.up_to.is_none() {
            self.begin_at(1);
        }
        self.insert(sequence, Held::Own, out);
    }

    /// A message of a login's list. The list has everything that waits, ascending: what it leaves out
    /// is the user's own.
    pub(super) fn listed(&mut self, message: Message, out: &mut Vec<Message>) -> Seen {
        if self.up_to.is_some_and(|up_to| message.sequence <= up_to) {
            return Seen::Before;
        }
        self.up_to = Some(message.sequence);
        self.newest = self.newest.max(message.sequence);
        out.push(message);
        Seen::Now
    }

    /// What lies before `sequence` is not for this user, who has just joined.
    pub(super) fn joined(&mut self, sequence: u64, out: &mut Vec<Message>) {
        if self.up_to.is_none_or(|up_to| up_to < sequence) {
            self.up_to = Some(sequence);
            self.newest = self.newest.max(sequence);
            self.held = self.held.split_off(&sequence.saturating_add(1));
            self.release(out);
        }
    }

    /// A new session: what was held comes again, in the login's list. Returns whether anything is
    /// left to be remembered.
    pub(super) fn begin_session(&mut self) -> bool {
        self.held.clear();
        self.newest = self.up_to.unwrap_or(0);
        self.fill = Fill::Idle;
        self.up_to.is_some()
    }

    /// The first sequence that is missing, and how many to fetch from there.
    pub(super) fn gap(&self) -> Option<(u64, u32)> {
        let up_to = self.up_to?;
        let missing = self.newest.checked_sub(up_to).filter(|&count| count > 0)?;
        let count = u32::try_from(missing).map_or(HISTORY_MAX, |count| count.min(HISTORY_MAX));
        Some((up_to.saturating_add(1), count))
    }

    /// The history answered for `count` sequences from `first` on. `own` tells the user's own
    /// messages. What the history leaves out is not for this user.
    pub(super) fn filled(
        &mut self,
        (first, count): (u64, u32),
        messages: Vec<Message>,
        own: impl Fn(&Message) -> bool,
        out: &mut Vec<Message>,
    ) {
        let asked = first.saturating_add(u64::from(count)).saturating_sub(1);
        // A page may be shorter than asked for; the next one is asked from its end on, until one
        // is empty.
        let covered = match messages.last() {
            Some(last) if messages.len() < count as usize => last.sequence.min(asked),
            _ => asked,
        };
        for message in messages {
            if (first..=covered).contains(&message.sequence) {
                let sequence = message.sequence;
                let held = if own(&message) {
                    Held::Own
                } else {
                    Held::Message(message)
                };
                self.held.entry(sequence).or_insert(held);
            }
        }
        self.settle(covered, out);
    }

    /// The gap cannot be filled: goes on behind it.
    pub(super) fn give_up(&mut self, out: &mut Vec<Message>) {
        let before_held = self.held.keys().next().map(|&first| first - 1);
        self.settle(before_held.unwrap_or(self.newest), out);
    }

    /// Nothing up to `covered` is missing any more.
    fn settle(&mut self, covered: u64, out: &mut Vec<Message>) {
        let up_to = self.up_to.unwrap_or(0);
        if covered <= up_to {
            return;
        }
        let rest = self.held.split_off(&covered.saturating_add(1));
        let ready = std::mem::replace(&mut self.held, rest);
        out.extend(ready.into_iter().filter_map(|(sequence, held)| match held {
            Held::Message(message) if sequence > up_to => Some(message),
            _ => None,
        }));
        self.up_to = Some(covered);
        self.release(out);
    }

    fn begin_at(&mut self, sequence: u64) {
        let before = sequence.saturating_sub(1);
        self.up_to = Some(before);
        self.held = self.held.split_off(&sequence);
        self.newest = self.held.keys().next_back().copied().unwrap_or(before);
    }

    fn insert(&mut self, sequence: u64, held: Held, out: &mut Vec<Message>) -> Seen {
        if self.up_to.is_some_and(|up_to| sequence <= up_to) {
            return Seen::Before;
        }
        self.newest = self.newest.max(sequence);
        let seen = match self.held.insert(sequence, held) {
            None => Seen::Now,
            Some(_) => Seen::Before,
        };
        self.release(out);
        if self.held.len() > HELD_MAX {
            // Known places that are forgotten cost a fetch, nothing else.
            match self.up_to {
                Some(_) => self.held.pop_last(),
                None => self.held.pop_first(),
            };
        }
        seen
    }

    fn release(&mut self, out: &mut Vec<Message>) {
        let Some(mut up_to) = self.up_to else {
            return;
        };
        while let Some(entry) = self.held.first_entry()
            && *entry.key() == up_to.saturating_add(1)
        {
            up_to = *entry.key();
            if let Held::Message(message) = entry.remove() {
                out.push(message);
            }
        }
        self.up_to = Some(up_to);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::text_message;
    use super::*;

    /// Feeds pushes, and own sequences as negative numbers; returns what was shown.
    fn shown(window: &mut Window, arrivals: &[i64]) -> Vec<u64> {
        let mut out = Vec::new();
        for &arrival in arrivals {
            let sequence = arrival.unsigned_abs();
            if arrival > 0 {
                window.pushed(text_message(sequence), &mut out);
            } else {
                window.own(sequence, &mut out);
            }
        }
        out.iter().map(|message| message.sequence).collect()
    }

    #[test]
    fn the_first_push_sets_the_beginning_of_an_unknown_conversation() {
        let mut window = Window::new();
        assert_eq!(shown(&mut window, &[41, 42]), [41, 42]);
        assert_eq!(window.gap(), None);
    }

    #[test]
    fn an_answer_that_overtakes_a_push_does_not_hide_it() {
        let mut window = Window::new();
        assert_eq!(shown(&mut window, &[-8, 7, 9]), [7, 9]);
        assert_eq!(window.gap(), None);
    }

    #[test]
    fn what_comes_too_early_is_held_and_what_comes_twice_is_dropped() {
        let mut window = Window::new();
        assert_eq!(shown(&mut window, &[1, 4, 4, 3]), [1]);
        assert_eq!(window.gap(), Some((2, 3)));
        assert_eq!(shown(&mut window, &[2, 2, 1]), [2, 3, 4]);
        assert_eq!(window.gap(), None);
    }

    #[test]
    fn a_filled_gap_shows_others_messages_and_passes_over_own_ones_and_holes() {
        let mut window = Window::new();
        assert_eq!(shown(&mut window, &[1, 6]), [1]);
        let mut out = Vec::new();
        let page = [2, 3, 5].map(text_message).to_vec();
        window.filled((2, 5), page, |message| message.sequence == 3, &mut out);
        assert_eq!(window.gap(), None);
        let sequences: Vec<u64> = out.iter().map(|message| message.sequence).collect();
        assert_eq!(sequences, [2, 5, 6]);
    }

    #[test]
    fn a_page_without_anything_ends_a_gap() {
        let mut window = Window::new();
        assert_eq!(shown(&mut window, &[1, 6]), [1]);
        let mut out = Vec::new();
        window.filled((2, 5), Vec::new(), |_| false, &mut out);
        assert_eq!(out, [text_message(6)]);
        assert_eq!(window.gap(), None);
    }

    #[test]
    fn giving_up_a_gap_goes_on_behind_it() {
        let mut window = Window::new();
        assert_eq!(shown(&mut window, &[1, 6, 9]), [1]);
        let mut out = Vec::new();
        window.give_up(&mut out);
        assert_eq!(out, [text_message(6)]);
        assert_eq!(window.gap(), Some((7, 3)));
    }

    #[test]
    fn more_than_may_be_held_is_fetched_later() {
        let mut window = Window::new();
        let last = 3 + HELD_MAX as u64;
        let arrivals: Vec<i64> = std::iter::once(1).chain(3..=last as i64).collect();
        assert_eq!(shown(&mut window, &arrivals), [1]);
        assert_eq!(window.held.len(), HELD_MAX);
        assert_eq!(shown(&mut window, &[2]).len(), 1 + HELD_MAX);
        assert_eq!(window.gap(), Some((last, 1)));
    }

    #[test]
    fn the_highest_number_there_is_does_no_harm() {
        let mut window = Window::new();
        assert_eq!(shown(&mut window, &[1, i64::MAX]), [1]);
        let mut out = Vec::new();
        window.pushed(text_message(u64::MAX), &mut out);
        assert_eq!(window.gap(), Some((2, HISTORY_MAX)));
        window.joined(u64::MAX, &mut out);
        assert_eq!(window.gap(), None);
        assert_eq!(window.pushed(text_message(5), &mut out), Seen::Before);
    }
}
