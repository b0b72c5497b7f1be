//! What the clients of this proxy have received, on its way to the store.
//!
//! Acknowledgements of all sessions meet in one map, of which only the newest per user and
//! conversation counts, and leave a few times a second in one call. A lost one costs a second delivery
//! after the next login; so what failed is kept and sent again, as long as there is room.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use chat_proto::conversation::{ConversationId, UserId};
use chat_proto::ids::code;
use chat_proto::messages::{AcknowledgeRequest, UserAck};
use parking_lot::{Condvar, Mutex};

use crate::services::Services;

/// Entries of one call; so many do not wait for the interval either.
const CALL_MAX: usize = 1_000;
/// Entries that are kept while the service is away; what comes beyond stays unacknowledged.
const KEPT_MAX: usize = 1_000_000;
/// The pause after a call that failed.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

type Key = (UserId, ConversationId);

/// The acknowledgements of all sessions. From any thread.
#[derive(Debug, Default)]
pub(crate) struct Acks {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: HashMap<Key, u64>,
    dropped: u64,
    stop: bool,
}

impl Acks {
    /// `user` has everything of the conversation up to `sequence`.
    pub(crate) fn add(&self, user: UserId, conversation: ConversationId, sequence: u64) {
        let mut state = self.state.lock();
        state.add((user, conversation), sequence);
        if matches!(state.waiting.len(), 1 | CALL_MAX) {
            self.changed.notify_one();
        }
    }

    /// Starts the thread that sends them.
    pub(crate) fn start(
        self: &Arc<Self>,
        services: Arc<Services>,
        interval: Duration,
    ) -> std::io::Result<JoinHandle<()>> {
        let acks = Arc::clone(self);
        thread::Builder::new()
            .name("proxy-acks".to_owned())
            .spawn(move || acks.run(&services, interval))
    }

    /// Ends the thread after one more attempt to send what there is.
    pub(crate) fn stop(&self) {
        self.state.lock().stop = true;
        self.changed.notify_one();
    }

    fn run(&self, services: &Services, interval: Duration) {
        loop {
            let (batch, stop) = self.collect(interval);
            let failed = send(services, batch);
            if stop {
                return;
            }
            if !failed.is_empty() {
                self.keep(failed);
                let mut state = self.state.lock();
                if !state.stop {
                    self.changed.wait_for(&mut state, RETRY_INTERVAL);
                }
            }
        }
    }

    /// Waits for something to send and takes it.
    fn collect(&self, interval: Duration) -> (Vec<UserAck>, bool) {
        let mut state = self.state.lock();
        while state.waiting.is_empty() && !state.stop {
            self.changed.wait(&mut state);
        }
        let until = Instant::now() + interval;
        while state.waiting.len() < CALL_MAX && !state.stop {
            if self.changed.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        let batch = std::mem::take(&mut state.waiting).into_iter();
        (
            batch.map(|(key, sequence)| ack(key, sequence)).collect(),
            state.stop,
        )
    }

    fn keep(&self, failed: Vec<UserAck>) {
        let mut state = self.state.lock();
        let dropped_before = state.dropped;
        for ack in failed {
            if let (Some(user), Some(conversation)) = (
                UserId::new(ack.user_id),
                ConversationId::from_raw(ack.conversation_id),
            ) {
                state.add((user, conversation), ack.sequence);
            }
        }
        let dropped = state.dropped - dropped_before;
        if dropped > 0 {
            log::warn!("{dropped} acknowledgement(s) dropped: too many wait for the service");
        }
    }
}

impl State {
    fn add(&mut self, key: Key, sequence: u64) {
        let full = self.waiting.len() >= KEPT_MAX;
        match self.waiting.entry(key) {
            Entry::Occupied(mut entry) => {
                let newest = sequence.max(*entry.get());
                entry.insert(newest);
            }
            Entry::Vacant(_) if full => self.dropped += 1,
            Entry::Vacant(entry) => {
                entry.insert(sequence);
            }
        }
    }
}

/// Sends all of `batch`; returns what failed.
fn send(services: &Services, batch: Vec<UserAck>) -> Vec<UserAck> {
    let calls: Vec<_> = batch
        .chunks(CALL_MAX)
        .map(|acks| {
            let acks = acks.to_vec();
            let request = AcknowledgeRequest { acks };
            let call = services.user.acknowledge_with(&request, services.own());
            (request, call)
        })
        .collect();
    let mut failed = Vec::new();
    for (request, call) in calls {
        match call.wait() {
            Ok(reply) if reply.message.error_code == code::SUCCESS => {}
            Ok(reply) => {
                log::debug!("acknowledging: code {}", reply.message.error_code);
                failed.extend(request.acks);
            }
            Err(error) => {
                log::debug!("acknowledging: {error}");
                failed.extend(request.acks);
            }
        }
    }
    failed
}

fn ack((user, conversation): Key, sequence: u64) -> UserAck {
    UserAck {
        user_id: user.get(),
        conversation_id: conversation.raw(),
        sequence,
    }
}

#[cfg(test)]
mod tests {
    use chat_proto::conversation::GroupId;

    use super::*;

    #[test]
    fn only_the_newest_of_a_conversation_is_kept() {
        let acks = Acks::default();
        let user = UserId::new(1).expect("positive");
        let group = |id| ConversationId::group(GroupId::new(id).expect("positive"));
        for sequence in [4, 7, 5] {
            acks.add(user, group(1), sequence);
        }
        acks.add(user, group(2), 1);
        let (mut batch, stop) = acks.collect(Duration::ZERO);
        batch.sort_by_key(|ack| ack.conversation_id);
        assert!(!stop);
        assert_eq!(batch, [ack((user, group(1)), 7), ack((user, group(2)), 1)]);
        // What failed does not undo what came meanwhile.
        acks.add(user, group(1), 9);
        acks.keep(batch);
        let (mut batch, _) = acks.collect(Duration::ZERO);
        batch.sort_by_key(|ack| ack.conversation_id);
        assert_eq!(batch, [ack((user, group(1)), 9), ack((user, group(2)), 1)]);
    }
}
