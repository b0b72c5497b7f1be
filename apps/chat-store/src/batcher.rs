//! The write path of messages: whatever queued up while the last commit ran is the next commit.
//!
//! ```text
//! submit ──────► queue ─┐
//!  (any thread)         ├─► writer thread: Store::append ──► each message's callback, once
//! acknowledge ─► acks ──┘    (one commit at a time)
//! ```
//!
//! A commit costs a sync of the disk and several statements however many rows it holds. So under load batches
//! grow by themselves until the database keeps up, and commits begin at a minimal distance from each other
//! (`commit_interval`): a chat that is idle commits each message at once, a busy one does not spend its
//! processors on commits of a few messages each. No thread waits for a commit but the writer.

mod queue;

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use self::queue::{Queue, Submitted};
use crate::{
    ConversationId, UserId,
    error::StoreError,
    store::Store,
    types::{Ack, AppendOutcome, NewMessage},
};

/// Limits of a [`MessageWriter`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WriterOptions {
    /// Messages that may wait; one more is refused. Default 65,536.
    pub queue_max: usize,
    /// Bytes of the texts that may wait; what would be more is refused. Default 64 MiB.
    pub queue_bytes_max: usize,
    /// Messages in one commit at most, and as many acknowledgements. Default 512.
    pub batch_max: usize,
    /// How long after the last commit began the next one begins at the earliest, unless `batch_max` messages
    /// wait. Default 5 ms.
    pub commit_interval: Duration,
    /// Acknowledgements that may wait, counted by user and conversation. Default 65,536.
    pub acks_max: usize,
    /// How long acknowledgements are gathered before they go with a commit: they cost it several
    /// statements, however few they are. Default 100 ms.
    pub ack_flush: Duration,
    /// The longest pause before acknowledgements that could not be stored are tried again; the
    /// first one is `ack_flush`, and each is twice the one before. Default 5 s.
    pub ack_retry_max: Duration,
}

impl WriterOptions {
    /// A batch holds at least one.
    fn count_max(&self) -> usize {
        self.batch_max.max(1)
    }
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            queue_max: 65_536,
            queue_bytes_max: 64 << 20,
            batch_max: 512,
            commit_interval: Duration::from_millis(5),
            acks_max: 65_536,
            ack_flush: Duration::from_millis(100),
            ack_retry_max: Duration::from_secs(5),
        }
    }
}

/// A message was not taken: too many wait, or the writer is shutting down. Its callback comes back
/// uncalled.
#[derive(thiserror::Error)]
#[error("the queue of messages to be stored is full or closed")]
pub struct QueueFull(pub OnDone);

impl fmt::Debug for QueueFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("QueueFull")
    }
}

/// How a shutdown ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shutdown {
    /// Everything that had been taken was given to the store.
    Drained,
    /// Time was up; what still waited is completed with [`StoreError::Unavailable`], and
    /// acknowledgements that still waited are lost, so those messages will be delivered again.
    TimedOut,
}

/// Called once with what became of a message, on the writer's thread: it must not block.
pub type OnDone = Box<dyn FnOnce(Result<AppendOutcome, StoreError>) + Send>;

/// Stores messages and acknowledgements in batches, on a thread of its own.
///
/// Dropped without [`shutdown`](Self::shutdown), it takes no more and finishes what it has in the
/// background.
pub struct MessageWriter {
    shared: Arc<Shared>,
}

impl MessageWriter {
    /// Starts the writer thread, named `message-writer`. It calls `after_batch` when the callbacks of a batch, or
    /// of a part of one, have been called; that must not block either.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(
        store: Arc<dyn Store>,
        options: WriterOptions,
        after_batch: Box<dyn Fn() + Send>,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            options,
            state: Mutex::default(),
            changed: Condvar::new(),
            finished: Condvar::new(),
        });
        let writer = Writer {
            store,
            after_batch,
            shared: Arc::clone(&shared),
        };
        thread::Builder::new()
            .name("message-writer".into())
            .spawn(move || writer.run())?;
        Ok(Self { shared })
    }

    /// Queues a message; `on_done` is called once when it is stored, refused or failed. Never
    /// blocks; any thread. Messages of one thread are stored in the order they were submitted.
    ///
    /// # Errors
    /// [`QueueFull`], with `on_done`.
    pub fn submit(&self, message: NewMessage, on_done: OnDone) -> Result<(), QueueFull> {
        let submitted = Submitted { message, on_done };
        let mut state = self.shared.state.lock();
        if state.phase != Phase::Running || !state.queue.has_room(&submitted, &self.shared.options)
        {
            return Err(QueueFull(submitted.on_done));
        }
        state.queue.push(submitted);
        let queued = state.queue.len();
        drop(state);
        // Between the two the writer is at work, or waits for the time of the next commit.
        if queued == 1 || queued == self.shared.options.count_max() {
            self.shared.changed.notify_one();
        }
        Ok(())
    }

    /// Queues acknowledgements; of one user and conversation only the furthest is kept. Never
    /// blocks; any thread. Returns how many were not taken, because too many wait or the writer is
    /// shutting down: those messages will be delivered again.
    pub fn acknowledge(&self, acks: impl IntoIterator<Item = Ack>) -> usize {
        let mut refused = 0;
        let mut state = self.shared.state.lock();
        for ack in acks {
            let taken =
                state.phase == Phase::Running && state.acks.add(ack, self.shared.options.acks_max);
            refused += usize::from(!taken);
        }
        if !state.acks.waiting.is_empty() && state.acks.due.is_none() {
            state.acks.due = Some(Instant::now() + self.shared.options.ack_flush);
            self.shared.changed.notify_one();
        }
        refused
    }

    /// Completes the messages that wait with [`StoreError::Unavailable`]: for when the store is known to
    /// be away and the batch under way may hang until a time-out. That batch is not touched, and
    /// acknowledgements go on waiting. Any thread; the messages' callbacks run on it.
    pub fn fail_waiting(&self) {
        let waiting = self.shared.state.lock().queue.take_all();
        let reason = "it does not answer, and what waited was given back";
        fail_all(waiting, &StoreError::Unavailable(reason.into()));
    }

    /// How many messages wait for the store.
    pub fn queued(&self) -> usize {
        self.shared.state.lock().queue.len()
    }

    /// Takes no more, and waits until what was taken is stored or `within` has passed.
    pub fn shutdown(&self, within: Duration) -> Shutdown {
        let deadline = Instant::now() + within;
        let mut state = self.shared.state.lock();
        state.begin_drain();
        self.shared.changed.notify_one();
        while state.phase != Phase::Finished {
            if self
                .shared
                .finished
                .wait_until(&mut state, deadline)
                .timed_out()
            {
                break;
            }
        }
        if state.phase == Phase::Finished {
            return Shutdown::Drained;
        }
        let abandoned = state.abandon();
        drop(state);
        fail_all(
            abandoned,
            &StoreError::Unavailable("shut down before it was stored".into()),
        );
        Shutdown::TimedOut
    }
}

impl Drop for MessageWriter {
    fn drop(&mut self) {
        self.shared.state.lock().begin_drain();
        self.shared.changed.notify_one();
    }
}

struct Shared {
    options: WriterOptions,
    state: Mutex<State>,
    /// Something came in, or the phase changed.
    changed: Condvar,
    /// The writer is done.
    finished: Condvar,
}

#[derive(Default)]
struct State {
    queue: Queue,
    acks: WaitingAcks,
    phase: Phase,
    /// When the next batch may be taken though it is not full.
    next_commit: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    #[default]
    Running,
    Draining,
    Finished,
}

#[derive(Default)]
struct WaitingAcks {
    waiting: HashMap<(UserId, ConversationId), u64>,
    /// When they are to be stored; `None` while none wait.
    due: Option<Instant>,
    failures: u32,
}

impl State {
    fn begin_drain(&mut self) {
        if self.phase == Phase::Running {
            self.phase = Phase::Draining;
        }
    }

    /// Leaves the writer nothing to do.
    fn abandon(&mut self) -> VecDeque<Submitted> {
        self.acks = WaitingAcks::default();
        self.queue.take_all()
    }
}

impl WaitingAcks {
    /// Whether there was room.
    fn add(&mut self, ack: Ack, acks_max: usize) -> bool {
        let full = self.waiting.len() >= acks_max;
        match self.waiting.entry((ack.user, ack.conversation)) {
            Entry::Occupied(mut waiting) => {
                let furthest = ack.sequence.max(*waiting.get());
                waiting.insert(furthest);
            }
            Entry::Vacant(_) if full => return false,
            Entry::Vacant(vacant) => {
                vacant.insert(ack.sequence);
            }
        }
        true
    }

    /// Takes some out.
    fn take(&mut self, count_max: usize, now: Instant) -> Vec<Ack> {
        let keys: Vec<_> = self.waiting.keys().copied().take(count_max).collect();
        let ack = |key @ (user, conversation)| {
            let sequence = self.waiting.remove(&key)?;
            Some(Ack {
                user,
                conversation,
                sequence,
            })
        };
        let acks = keys.into_iter().filter_map(ack).collect();
        self.due = (!self.waiting.is_empty()).then_some(now);
        acks
    }

    fn stored(&mut self) {
        self.failures = 0;
    }

    /// Takes back what could not be stored. (There was room for it before.)
    fn failed(&mut self, acks: Vec<Ack>, options: &WriterOptions, now: Instant) {
        for ack in acks {
            self.add(ack, usize::MAX);
        }
        let factor = 2_u32.saturating_pow(self.failures);
        let pause = options
            .ack_flush
            .saturating_mul(factor)
            .min(options.ack_retry_max);
        self.failures = self.failures.saturating_add(1);
        self.due = Some(now + pause);
    }
}

/// The thread.
struct Writer {
    store: Arc<dyn Store>,
    after_batch: Box<dyn Fn() + Send>,
    shared: Arc<Shared>,
}

impl Writer {
    fn run(self) {
        while let Some((messages, acks)) = self.next() {
            self.store_batch(messages, acks);
            (self.after_batch)();
        }
        self.shared.finished.notify_all();
    }

    /// Waits for something to store; `None` when there is and will be nothing.
    fn next(&self) -> Option<(Vec<Submitted>, Vec<Ack>)> {
        let options = &self.shared.options;
        let count_max = options.count_max();
        let mut state = self.shared.state.lock();
        loop {
            let now = Instant::now();
            let draining = state.phase != Phase::Running;
            let acks_due = state.acks.due.is_some_and(|due| draining || due <= now);
            if !state.queue.is_empty() || acks_due {
                let too_early = state.next_commit.filter(|&next| now < next);
                if let Some(next) = too_early
                    && state.queue.len() < count_max
                    && !draining
                {
                    self.shared.changed.wait_until(&mut state, next);
                    continue;
                }
                state.next_commit = Some(now + options.commit_interval);
                let messages = state.queue.take(count_max);
                let acks = match acks_due {
                    true => state.acks.take(count_max, now),
                    false => Vec::new(),
                };
                return Some((messages, acks));
            }
            if draining {
                state.phase = Phase::Finished;
                return None;
            }
            match state.acks.due {
                Some(due) => {
                    self.shared.changed.wait_until(&mut state, due);
                }
                None => self.shared.changed.wait(&mut state),
            }
        }
    }

    fn store_batch(&self, submitted: Vec<Submitted>, acks: Vec<Ack>) {
        let (messages, callbacks): (Vec<_>, Vec<_>) = submitted
            .into_iter()
            .map(|one| (one.message, one.on_done))
            .unzip();
        let result = self.append(&messages, &acks);
        let had_acks = !acks.is_empty();
        self.settle_acks(acks, result.as_ref().err());
        match result {
            Ok(outcomes) => complete_all(callbacks, outcomes.into_iter().map(Ok)),
            Err(error @ StoreError::Internal(_)) if had_acks || messages.len() > 1 => {
                log::error!(
                    "a batch of {} messages is tried in parts: {error}",
                    messages.len()
                );
                self.store_in_parts(messages, callbacks);
            }
            Err(error) => self.fail(callbacks, &error),
        }
    }

    /// What the database cannot stomach shall not keep what was queued beside it from being stored.
    fn store_in_parts(&self, messages: Vec<NewMessage>, mut callbacks: Vec<OnDone>) {
        let mut rest = messages.as_slice();
        let mut part_len = rest.len().div_ceil(2);
        while !rest.is_empty() {
            let (part, later) = rest.split_at(part_len.min(rest.len()));
            match self.append(part, &[]) {
                Err(StoreError::Internal(_)) if part.len() > 1 => {
                    part_len = part.len().div_ceil(2);
                    continue;
                }
                Ok(outcomes) => {
                    complete_all(callbacks.drain(..part.len()), outcomes.into_iter().map(Ok));
                    (self.after_batch)();
                }
                Err(error) => self.fail(callbacks.drain(..part.len()), &error),
            }
            rest = later;
        }
    }

    /// The store's answer, with one outcome for each message; a panic of it is an error.
    fn append(
        &self,
        messages: &[NewMessage],
        acks: &[Ack],
    ) -> Result<Vec<AppendOutcome>, StoreError> {
        if messages.is_empty() && acks.is_empty() {
            return Ok(Vec::new());
        }
        let outcomes = catch_unwind(AssertUnwindSafe(|| self.store.append(messages, acks)))
            .unwrap_or_else(|_| Err(StoreError::Internal("the store panicked".into())))?;
        if outcomes.len() != messages.len() {
            return Err(StoreError::Internal(
                "not every message has an outcome".into(),
            ));
        }
        Ok(outcomes)
    }

    fn settle_acks(&self, acks: Vec<Ack>, error: Option<&StoreError>) {
        if acks.is_empty() {
            return;
        }
        let mut state = self.shared.state.lock();
        match error {
            None => state.acks.stored(),
            Some(error) if state.phase != Phase::Running => {
                log::warn!("{} acknowledgements are lost: {error}", acks.len());
            }
            Some(_) => state
                .acks
                .failed(acks, &self.shared.options, Instant::now()),
        }
    }

    /// Completes messages with an error. While the database is away, whatever else waits fails as well: each batch
    /// might take a timeout to fail by itself.
    fn fail(&self, callbacks: impl IntoIterator<Item = OnDone>, error: &StoreError) {
        let waiting = match error.is_unavailable() {
            true => self.shared.state.lock().queue.take_all(),
            false => VecDeque::new(),
        };
        complete_all(callbacks, std::iter::repeat_with(|| Err(error.clone())));
        // Of what was not given to the store the fate is known.
        let known = match error {
            StoreError::Uncertain(reason) => StoreError::Unavailable(reason.clone()),
            error => error.clone(),
        };
        fail_all(waiting, &known);
    }
}

fn fail_all(submitted: VecDeque<Submitted>, error: &StoreError) {
    let callbacks = submitted.into_iter().map(|one| one.on_done);
    complete_all(callbacks, std::iter::repeat_with(|| Err(error.clone())));
}

/// Calls each callback; one that panics takes nobody with it.
fn complete_all(
    callbacks: impl IntoIterator<Item = OnDone>,
    results: impl Iterator<Item = Result<AppendOutcome, StoreError>>,
) {
    for (on_done, result) in callbacks.into_iter().zip(results) {
        if catch_unwind(AssertUnwindSafe(|| on_done(result))).is_err() {
            log::error!("a callback of the message writer panicked");
        }
    }
}
