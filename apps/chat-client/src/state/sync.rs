//! Messages on their way to the application: in order, once, acknowledged.

use std::time::{Duration, Instant};

use bytes::Bytes;
use chat_proto::ids::{MessageId, code};
use chat_proto::messages as proto;
use prost::Message as _;

use super::session::Session;
use super::window::{Fill, Seen, Window};
use super::wire::{Effect, Request};
use super::{CONVERSATIONS_MAX, Origin, RECEIVED_MAX, State, signed_out, wire};
use crate::model::Answer;
use crate::{ChatError, Conversation, Event, Message};

/// The longest time between attempts to fill a gap.
const FILL_DELAY_MAX: Duration = Duration::from_secs(5);

impl State {
    /// The application has a message.
    pub(crate) fn handle_handed(&mut self, now: Instant, message: (Conversation, u64)) {
        let (conversation, sequence) = message;
        if let Some(window) = self.windows.get_mut(&conversation) {
            window.handed = window.handed.max(sequence);
            self.want_ack(now, conversation);
        }
    }

    pub(super) fn receive(&mut self, now: Instant, message: Message) {
        if !matches!(self.session, Session::In | Session::Leaving) {
            log::debug!("a message was pushed to nobody");
            return;
        }
        let conversation = message.conversation;
        let mut out = Vec::new();
        let seen = match self.window(&message) {
            Some(window) => window.pushed(message, &mut out),
            None => {
                out.push(message);
                Seen::Now
            }
        };
        if seen == Seen::Before {
            self.want_ack(now, conversation);
        }
        self.show(out);
        self.look_for_gap(now, conversation);
    }

    pub(super) fn apply(&mut self, now: Instant, effect: Effect) {
        match effect {
            Effect::None | Effect::More => {}
            Effect::SignedIn(list) => self.begin_sync(now, list),
            Effect::SignedOut => self.end_session(&signed_out(String::new())),
            Effect::Left(group) => {
                self.windows.remove(&Conversation::Group(group));
            }
            Effect::Own(conversation, sequence) => {
                self.place(now, conversation, sequence, Window::own);
            }
            Effect::Joined(group, sequence) => {
                let conversation = Conversation::Group(group);
                self.place(now, conversation, sequence, Window::joined);
            }
        }
    }

    /// An answer told a place in a conversation.
    fn place(
        &mut self,
        now: Instant,
        conversation: Conversation,
        sequence: u64,
        set: impl FnOnce(&mut Window, u64, &mut Vec<Message>),
    ) {
        if sequence == 0 {
            return;
        }
        let known =
            self.windows.len() < CONVERSATIONS_MAX || self.windows.contains_key(&conversation);
        if known {
            let mut out = Vec::new();
            let window = self.windows.entry(conversation).or_insert_with(Window::new);
            set(window, sequence, &mut out);
            self.show(out);
            self.look_for_gap(now, conversation);
        }
    }

    /// The user is signed in, and this is what waited.
    fn begin_sync(&mut self, now: Instant, list: Vec<Message>) {
        let user = self.user();
        if self.windows_of != user {
            self.windows.clear();
            self.windows_of = user;
        }
        self.windows.retain(|_, window| window.begin_session());
        let mut out = Vec::new();
        for message in list {
            let conversation = message.conversation;
            match self.window(&message) {
                Some(window) => {
                    if window.listed(message, &mut out) == Seen::Before {
                        // The acknowledgement was lost.
                        self.want_ack(now, conversation);
                    }
                }
                None => out.push(message),
            }
        }
        self.show(out);
    }

    /// Nothing is acknowledged or fetched without a session; the next one's list begins at what was
    /// acknowledged.
    pub(super) fn stop_sync(&mut self) {
        self.acks.clear();
        self.ack_at = None;
        self.fills.clear();
        for window in self.windows.values_mut() {
            window.fill = Fill::Idle;
        }
    }

    fn show(&mut self, messages: Vec<Message>) {
        self.events.extend(messages.into_iter().map(Event::Message));
    }

    /// The window that a message goes through; `None` for one that has no place, or when there are
    /// too many.
    fn window(&mut self, message: &Message) -> Option<&mut Window> {
        let conversation = message.conversation;
        let full = self.windows.len() >= CONVERSATIONS_MAX;
        if message.sequence == 0 || full && !self.windows.contains_key(&conversation) {
            return None;
        }
        Some(self.windows.entry(conversation).or_insert_with(Window::new))
    }

    // ---- acknowledging ----

    /// What the application has, for a resume: the answer begins after it, and an acknowledgement that
    /// was lost is made up for. Of further conversations some may come again; they are not shown.
    pub(super) fn received(&self) -> Vec<(Conversation, u64)> {
        let handed = self.windows.iter().filter(|(_, window)| window.handed > 0);
        handed
            .map(|(&conversation, window)| (conversation, window.handed))
            .take(RECEIVED_MAX)
            .collect()
    }

    fn want_ack(&mut self, now: Instant, conversation: Conversation) {
        let handed = self
            .windows
            .get(&conversation)
            .map_or(0, |window| window.handed);
        if handed > 0 && matches!(self.session, Session::In | Session::Leaving) {
            self.acks.insert(conversation, handed);
            self.ack_at.get_or_insert(now + self.options.ack_delay);
        }
    }

    pub(super) fn acknowledge(&mut self, now: Instant) {
        self.ack_at = None;
        let acks = wire::acks(std::mem::take(&mut self.acks));
        if !acks.is_empty() {
            let content: Bytes = proto::DeliveryAck { acks }.encode_to_vec().into();
            self.write(now, MessageId::DELIVERY_ACK, content, 0);
        }
    }

    // ---- gaps ----

    fn look_for_gap(&mut self, now: Instant, conversation: Conversation) {
        if let Some(window) = self.windows.get_mut(&conversation) {
            match (window.gap(), window.fill) {
                (Some(_), Fill::Idle) => {
                    let at = now + self.options.gap_delay;
                    window.fill = Fill::Due(at, 0);
                    self.fills.insert((at, conversation));
                }
                (None, Fill::Due(at, _)) => {
                    window.fill = Fill::Idle;
                    self.fills.remove(&(at, conversation));
                }
                _ => {}
            }
        }
    }

    /// A gap has lasted: asks for what is missing.
    pub(super) fn fill(&mut self, now: Instant, conversation: Conversation) {
        let Some(window) = self.windows.get_mut(&conversation) else {
            return;
        };
        let (Some(range), Fill::Due(_, failures)) = (window.gap(), window.fill) else {
            window.fill = Fill::Idle;
            return;
        };
        window.fill = Fill::Asked(failures);
        let request = Request::History {
            conversation,
            first: range.0,
            count_max: range.1,
        };
        self.call(now, request, Origin::Fill(conversation, range));
        self.flush(now);
    }

    pub(super) fn filled(
        &mut self,
        now: Instant,
        conversation: Conversation,
        range: (u64, u32),
        result: Result<Answer, ChatError>,
    ) {
        let user = self.user();
        // The group may have been left meanwhile.
        let Some(window) = self.windows.get_mut(&conversation) else {
            return;
        };
        let Fill::Asked(failures) = window.fill else {
            return;
        };
        let mut out = Vec::new();
        let failures = match result {
            Ok(Answer::History(page)) => {
                let own = |message: &Message| Some(message.sender) == user;
                window.filled(range, page.messages, own, &mut out);
                failures
            }
            Ok(_) => failures,
            Err(ChatError::Refused { code, .. }) if !may_pass(code) => {
                log::warn!("a gap in the messages of {conversation} stays: code {code}");
                window.give_up(&mut out);
                failures
            }
            Err(_) => failures,
        };
        window.fill = match window.gap() {
            None => Fill::Idle,
            // On to the next piece.
            Some((first, _)) if first > range.0 => Fill::Due(now, 0),
            Some(_) => {
                let delay = self.options.gap_delay * (1 << failures.min(10));
                Fill::Due(now + delay.min(FILL_DELAY_MAX), failures.saturating_add(1))
            }
        };
        if let Fill::Due(at, _) = window.fill {
            self.fills.insert((at, conversation));
        }
        self.show(out);
    }
}

/// Whether a fetch that was refused with this code may succeed later.
fn may_pass(code: i32) -> bool {
    matches!(
        code,
        code::RATE_LIMITED | code::UNAVAILABLE | code::INTERNAL
    )
}
