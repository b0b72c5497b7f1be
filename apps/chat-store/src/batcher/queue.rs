//! The messages that wait for the writer, bounded in number and in bytes.

use std::collections::VecDeque;

use super::{OnDone, WriterOptions};
use crate::types::NewMessage;

/// The messages that wait.
#[derive(Default)]
pub(super) struct Queue {
    messages: VecDeque<Submitted>,
    /// Of their texts.
    bytes: usize,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn has_room(&self, one: &Submitted, options: &WriterOptions) -> bool {
        let bytes = self.bytes.saturating_add(one.bytes());
        self.len() < options.queue_max && bytes <= options.queue_bytes_max
    }

    pub(super) fn push(&mut self, one: Submitted) {
        self.bytes += one.bytes();
        self.messages.push_back(one);
    }

    /// The first ones.
    pub(super) fn take(&mut self, count_max: usize) -> Vec<Submitted> {
        let count = self.len().min(count_max);
        let taken: Vec<Submitted> = self.messages.drain(..count).collect();
        self.bytes -= taken.iter().map(Submitted::bytes).sum::<usize>();
        taken
    }

    pub(super) fn take_all(&mut self) -> VecDeque<Submitted> {
        std::mem::take(self).messages
    }
}

/// A message, and who waits for what becomes of it.
pub(super) struct Submitted {
    pub(super) message: NewMessage,
    pub(super) on_done: OnDone,
}

impl Submitted {
    /// What it takes in the queue.
    fn bytes(&self) -> usize {
        self.message.content.len() + self.message.client_time.len()
    }
}
