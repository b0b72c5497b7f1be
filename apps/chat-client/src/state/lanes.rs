//! What adds a message to a conversation goes out one after the other, so that the order holds
//! whatever becomes of the first: a send that the server cannot take at the moment is sent again, and
//! those behind it wait. Different conversations go side by side.

use std::collections::VecDeque;
use std::time::Instant;

use chat_proto::ids::code;

use super::wire::{Effect, Request};
use super::{Call, Link, State};
use crate::model::Answer;
use crate::{ChatError, Conversation};

/// The calls of one conversation. There while it has any.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// The first one is under way, or waits for its next attempt.
    queue: VecDeque<u64>,
    /// Attempts of the first one that were refused.
    failures: u32,
    retry_at: Option<Instant>,
}

impl State {
    /// A call may go out; those with a lane take their turn in it.
    pub(super) fn send_in_turn(&mut self, now: Instant, id: u64, lane: Option<Conversation>) {
        if let Some(conversation) = lane {
            let lane = self.lanes.entry(conversation).or_default();
            lane.queue.push_back(id);
            if lane.queue.len() > 1 {
                return;
            }
        }
        self.send(now, id);
    }

    /// A call with a lane has its result. Gives the call back if that is final; else it is sent again
    /// later, up to its deadline.
    pub(super) fn leave_lane(
        &mut self,
        now: Instant,
        call: Call,
        conversation: Conversation,
        result: &Result<(Answer, Effect), ChatError>,
    ) -> Option<Call> {
        let Some(lane) = self.lanes.get_mut(&conversation) else {
            return Some(call);
        };
        let is_first = lane.queue.front() == Some(&call.id);
        if is_first && matches!(call.request, Request::Send { .. }) && may_pass(result) {
            lane.failures = lane.failures.saturating_add(1);
            // Who talks at which moment is random already.
            let at = now + self.options.backoff.delay(lane.failures, 1.0);
            lane.retry_at = Some(at);
            self.retries.insert((at, conversation));
            self.deadlines.insert((call.deadline, call.id));
            self.calls.insert(call.id, call);
            return None;
        }
        lane.queue.retain(|&id| id != call.id);
        if is_first {
            lane.failures = 0;
            if let Some(at) = lane.retry_at.take() {
                self.retries.remove(&(at, conversation));
            }
            let is_up = matches!(self.link, Link::Up { ending: None, .. });
            match lane.queue.front().copied() {
                Some(next) if is_up => self.send(now, next),
                // Once there is a link again.
                Some(_) => {}
                None => {
                    self.lanes.remove(&conversation);
                }
            }
        }
        Some(call)
    }

    /// Makes the attempts that are due.
    pub(super) fn retry(&mut self, now: Instant) {
        while let Some(&(at, conversation)) = self.retries.first()
            && at <= now
        {
            self.retries.pop_first();
            if let Some(lane) = self.lanes.get_mut(&conversation) {
                lane.retry_at = None;
                if let Some(&first) = lane.queue.front() {
                    self.send(now, first);
                }
            }
        }
    }

    /// There is no session: what is left waits for the next, in the order in which it was made.
    pub(super) fn clear_lanes(&mut self) {
        self.lanes.clear();
        self.retries.clear();
    }
}

/// Whether the server may take later what it has refused now.
fn may_pass(result: &Result<(Answer, Effect), ChatError>) -> bool {
    matches!(
        result,
        Err(ChatError::Refused {
            // A send has an id: it is stored once, however often it comes.
            code: code::UNAVAILABLE | code::RATE_LIMITED | code::UNCERTAIN,
            ..
        })
    )
}
