//! What was committed, on its way to the recipients' proxies.
//!
//! One thread takes all that has queued up, looks up where the recipients are, and publishes one
//! message per proxy: two round trips to the bus for any number of pushes. While the bus is away the thread waits
//! for it, and with it what has queued up; a proxy that fetches it meanwhile drops what comes then. What finds the
//! queue full stays pending in the store, and proxies fetch it. Ends of sessions stand in a list of their own: they
//! go out first, and pushes that fill the queue cost none.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use chat_bus::{Bus, BusError, MESSAGE_BYTES_MAX, ProxyId, SessionRef};
use chat_proto::messages::{BusMessage, EndSession, Push};
use chat_store::{ConversationId, Store, StoreError, StoredMessage, UserId};
use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use prost::Message;

use crate::convert;
use crate::log_limit::LogLimit;

/// Jobs that may wait, and the bytes of their texts.
const QUEUE_MAX: usize = 65_536;
const QUEUE_BYTES_MAX: usize = 64 << 20;
/// Ends of sessions that may wait. Each comes of a claim that the bus has granted, so there are no more while it is
/// away.
const ENDS_MAX: usize = 65_536;
/// Jobs published together.
const BATCH_MAX: usize = 1024;
/// The pause before a batch is tried again that found bus or store away, and the longest one.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// A bus message is closed when it has grown beyond this; a push is smaller than the rest.
const BUS_MESSAGE_BYTES: usize = MESSAGE_BYTES_MAX / 2;

static QUEUE_IS_FULL: LogLimit = LogLimit::new();
static TOO_MANY_ENDS: LogLimit = LogLimit::new();
static NOT_PUBLISHED: LogLimit = LogLimit::new();

/// Something to tell to proxies.
pub(crate) enum Job {
    /// A committed message, to the sender's friend.
    Message(StoredMessage),
    /// A committed message, to these but for its sender: who was a member when it was committed.
    ToMembers(StoredMessage, Arc<[UserId]>),
    /// A message that was committed earlier, to be read from the store first.
    Stored(ConversationId, u64),
    /// There are ends of sessions.
    Ends,
    /// Everything before has been published.
    Flush(Sender<()>),
}

impl Job {
    /// What it takes in the queue.
    fn bytes(&self) -> usize {
        match self {
            Self::Message(message) | Self::ToMembers(message, _) => message.content.len(),
            Self::Stored(..) | Self::Ends | Self::Flush(_) => 0,
        }
    }
}

/// To what a session lost its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// A login with the password.
    NewerLogin,
    /// The same client, or one with the same token, on another connection.
    Resumed,
}

#[derive(Clone)]
pub(crate) struct Publisher {
    sender: Sender<Job>,
    queued: Arc<Queued>,
}

/// What the publishers and their thread share: it ends when it is the last to hold it.
#[derive(Default)]
struct Queued {
    bytes: AtomicUsize,
    ends: Mutex<Vec<(UserId, SessionRef, End)>>,
}

impl Publisher {
    /// Starts the thread; it ends when the publisher is dropped.
    pub(crate) fn start(store: Arc<dyn Store>, bus: Arc<dyn Bus>) -> std::io::Result<Self> {
        let (sender, jobs) = bounded(QUEUE_MAX);
        let queued = Arc::<Queued>::default();
        let worker = Worker {
            store,
            bus,
            jobs,
            queued: Arc::clone(&queued),
        };
        std::thread::Builder::new()
            .name("publisher".into())
            .spawn(move || worker.run())?;
        Ok(Self { sender, queued })
    }

    /// Queues a job. Never blocks.
    pub(crate) fn publish(&self, job: Job) {
        let bytes = job.bytes();
        let before = self.queued.bytes.fetch_add(bytes, Ordering::AcqRel);
        let fits = bytes == 0 || before + bytes <= QUEUE_BYTES_MAX;
        if !fits || self.sender.try_send(job).is_err() {
            self.queued.bytes.fetch_sub(bytes, Ordering::AcqRel);
            if QUEUE_IS_FULL.allows() {
                log::warn!("the publisher's queue is full; a push is left to be fetched");
            }
        }
    }

    /// Tells the proxy of `session` that it has lost its user to another one: before the pushes that wait. Never
    /// blocks. What finds the list full is left to the proxy, which compares its sessions with the bus.
    pub(crate) fn end_session(&self, user: UserId, session: SessionRef, end: End) {
        let mut ends = self.queued.ends.lock();
        if ends.len() >= ENDS_MAX {
            if TOO_MANY_ENDS.allows() {
                log::warn!("too many ends of sessions wait; one is left to be found");
            }
            return;
        }
        ends.push((user, session, end));
        drop(ends);
        // Full means that the thread is about to look anyway.
        let _ = self.sender.try_send(Job::Ends);
    }

    /// Waits until what was queued is published.
    pub(crate) fn finish(&self, deadline: Duration) {
        let (done, flushed) = bounded(1);
        if self.sender.send_timeout(Job::Flush(done), deadline).is_ok() {
            let _ = flushed.recv_timeout(deadline);
        }
    }
}

struct Worker {
    store: Arc<dyn Store>,
    bus: Arc<dyn Bus>,
    jobs: Receiver<Job>,
    queued: Arc<Queued>,
}

impl Worker {
    fn run(self) {
        while let Ok(first) = self.jobs.recv() {
            let mut batch = vec![first];
            batch.extend(self.jobs.try_iter().take(BATCH_MAX - 1));
            self.publish_when_possible(&batch);
            let bytes = batch.iter().map(Job::bytes).sum();
            self.queued.bytes.fetch_sub(bytes, Ordering::AcqRel);
            for job in batch {
                if let Job::Flush(done) = job {
                    let _ = done.send(());
                }
            }
        }
    }

    /// Tries until bus and store are there; gives up when the server has ended.
    fn publish_when_possible(&self, batch: &[Job]) {
        let mut pause = PAUSE_MIN;
        while let Err(error) = self.publish_ends().and_then(|()| self.publish(batch)) {
            let again = error.is_unavailable() && Arc::strong_count(&self.queued) > 1;
            if NOT_PUBLISHED.allows() {
                let then = if again {
                    "wait"
                } else {
                    "are left to be fetched"
                };
                log::warn!("pushes {then}: {error}");
            }
            if !again {
                return;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Those that could not be told because the bus is away go on waiting.
    fn publish_ends(&self) -> Result<(), NotPublished> {
        let ends = self.queued.ends.lock().clone();
        if ends.is_empty() {
            return Ok(());
        }
        let mut outgoing = Outgoing::default();
        for &(user, session, end) in &ends {
            outgoing.end_session(user, session, end);
        }
        let published = self
            .bus
            .publish(&outgoing.finish())
            .map_err(NotPublished::from);
        if !published.as_ref().is_err_and(NotPublished::is_unavailable) {
            self.queued.ends.lock().drain(..ends.len());
        }
        published
    }

    fn publish(&self, batch: &[Job]) -> Result<(), NotPublished> {
        let mut outgoing = Outgoing::default();
        let mut pushes: Vec<(Cow<'_, StoredMessage>, Vec<UserId>)> = Vec::new();
        for job in batch {
            match job {
                Job::Message(message) => {
                    pushes.push((Cow::Borrowed(message), audience(message, &[])));
                }
                Job::ToMembers(message, members) => {
                    pushes.push((Cow::Borrowed(message), audience(message, members)));
                }
                Job::Stored(conversation, sequence) => {
                    let found = self.store.history(*conversation, *sequence, 1)?;
                    let found = found.into_iter().find(|found| found.sequence == *sequence);
                    if let Some(message) = found {
                        let members = match conversation.as_group() {
                            Some(group) => self.store.group_members(group)?,
                            None => Vec::new(),
                        };
                        let recipients = audience(&message, &members);
                        pushes.push((Cow::Owned(message), recipients));
                    }
                }
                Job::Ends | Job::Flush(_) => {}
            }
        }
        let users: BTreeSet<i32> = pushes
            .iter()
            .flat_map(|(_, users)| users.iter().map(|user| user.get()))
            .collect();
        let users: Vec<i32> = users.into_iter().collect();
        let places: HashMap<i32, ProxyId> = users
            .iter()
            .zip(self.bus.locate(&users)?)
            .filter_map(|(&user, place)| Some((user, place?.proxy)))
            .collect();
        for (message, recipients) in &pushes {
            let mut by_proxy: BTreeMap<ProxyId, Vec<i32>> = BTreeMap::new();
            for user in recipients {
                if let Some(&proxy) = places.get(&user.get()) {
                    by_proxy.entry(proxy).or_default().push(user.get());
                }
            }
            if by_proxy.is_empty() {
                continue;
            }
            // Encoded once, whatever the number of proxies.
            let push = convert::push(message, Vec::new());
            for (proxy, user_ids) in by_proxy {
                outgoing.push(
                    proxy,
                    Push {
                        user_ids,
                        ..push.clone()
                    },
                );
            }
        }
        let messages = outgoing.finish();
        if !messages.is_empty() {
            self.bus.publish(&messages)?;
        }
        Ok(())
    }
}

/// Why a batch did not go out.
#[derive(Debug, thiserror::Error)]
enum NotPublished {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Bus(#[from] BusError),
}

impl NotPublished {
    fn is_unavailable(&self) -> bool {
        match self {
            Self::Store(error) => error.is_unavailable(),
            Self::Bus(error) => matches!(error, BusError::Unavailable { .. }),
        }
    }
}

/// Everybody in the message's conversation but its sender; in a group, that is the others of its members.
fn audience(message: &StoredMessage, members: &[UserId]) -> Vec<UserId> {
    match message.conversation.other(message.sender) {
        Some(friend) => vec![friend],
        None => {
            let members = members.iter().copied();
            members.filter(|&member| member != message.sender).collect()
        }
    }
}

/// What goes out, by proxy and in order, in messages of bounded size.
#[derive(Default)]
struct Outgoing {
    open: BTreeMap<ProxyId, (BusMessage, usize)>,
    closed: Vec<(ProxyId, Bytes)>,
}

impl Outgoing {
    fn push(&mut self, proxy: ProxyId, push: Push) {
        let bytes = push.encoded_len();
        self.entry(proxy, bytes).pushes.push(push);
    }

    fn end_session(&mut self, user: UserId, session: SessionRef, end: End) {
        let end = EndSession {
            user_id: user.get(),
            session_id: session.session,
            resumed: end == End::Resumed,
        };
        let bytes = end.encoded_len();
        self.entry(session.proxy, bytes).end_sessions.push(end);
    }

    /// The proxy's present message, with room for `bytes` more.
    fn entry(&mut self, proxy: ProxyId, bytes: usize) -> &mut BusMessage {
        let (message, size) = self.open.entry(proxy).or_default();
        if *size > 0 && *size + bytes > BUS_MESSAGE_BYTES {
            self.closed
                .push((proxy, std::mem::take(message).encode_to_vec().into()));
            *size = 0;
        }
        *size += bytes;
        message
    }

    fn finish(mut self) -> Vec<(ProxyId, Bytes)> {
        for (proxy, (message, _)) in self.open {
            self.closed.push((proxy, message.encode_to_vec().into()));
        }
        self.closed
    }
}

#[cfg(test)]
mod tests {
    use chat_bus::{BusEvent, LoginPolicy, RedisBus, RedisConfig};
    use chat_store::SqliteStore;
    use nexus_testkit::Redis;

    use super::*;

    /// From user 1 to user 2.
    fn message(content: String) -> Job {
        let (a, b) = (UserId::new(1).unwrap(), UserId::new(2).unwrap());
        Job::Message(StoredMessage {
            conversation: ConversationId::pair(a, b).unwrap(),
            sequence: 1,
            sender: a,
            sender_name: String::new(),
            kind: chat_store::MessageKind::FriendChat,
            client_message_id: None,
            content,
            client_time: String::new(),
            created_at_ms: 0,
        })
    }

    #[test]
    fn the_queue_is_bounded_in_jobs_and_in_bytes() {
        let (sender, jobs) = bounded(QUEUE_MAX);
        let publisher = Publisher {
            sender,
            queued: Arc::default(),
        };
        const LARGE: usize = 64 << 10;
        for _ in 0..QUEUE_BYTES_MAX / LARGE + 10 {
            publisher.publish(message("x".repeat(LARGE)));
        }
        assert_eq!(jobs.len(), QUEUE_BYTES_MAX / LARGE);
        // Full of bytes, not of jobs.
        for _ in 0..QUEUE_MAX {
            publisher.publish(message(String::new()));
        }
        assert_eq!(jobs.len(), QUEUE_MAX);
        let bytes = publisher.queued.bytes.load(Ordering::Acquire);
        assert_eq!(bytes, QUEUE_BYTES_MAX);
    }

    #[test]
    fn ends_of_sessions_go_first_when_the_bus_is_back_and_the_queue_is_full() {
        const FAR: Duration = Duration::from_secs(600);
        let (proxy, user) = (ProxyId::from_u64(7), UserId::new(2).unwrap());
        let session = |session| SessionRef { proxy, session };
        let redis = Redis::start().unwrap();
        let mut config = RedisConfig::new(redis.url());
        config.ping_interval = FAR;
        let bus = Arc::new(RedisBus::new(config).unwrap());
        let (heard, events) = crossbeam_channel::unbounded();
        let _subscription = bus.subscribe(proxy, Box::new(move |event| drop(heard.send(event))));
        let next = || events.recv_timeout(Duration::from_secs(30));
        assert_eq!(next(), Ok(BusEvent::Connected));
        bus.renew_lease(proxy, FAR).unwrap();
        bus.claim(user.get(), session(1), 1, LoginPolicy::NewerWins)
            .unwrap();
        let (sender, jobs) = bounded(QUEUE_MAX);
        let publisher = Publisher {
            sender,
            queued: Arc::default(),
        };
        let worker = Worker {
            store: Arc::new(SqliteStore::in_memory().unwrap()),
            bus,
            jobs,
            queued: Arc::clone(&publisher.queued),
        };

        redis.pause();
        for _ in 0..QUEUE_MAX {
            publisher.publish(message(String::new()));
        }
        publisher.end_session(user, session(1), End::NewerLogin);
        let worker = std::thread::spawn(move || worker.run());
        redis.resume();

        // What was not answered in time is told twice.
        let mut told = Vec::new();
        let pushes = loop {
            match next() {
                Ok(BusEvent::Message(bytes)) => {
                    let message = BusMessage::decode(bytes).unwrap();
                    told.extend(message.end_sessions.iter().map(|end| end.session_id));
                    if !message.pushes.is_empty() {
                        break message.pushes;
                    }
                }
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(
            (told.first(), pushes[0].user_ids.as_slice()),
            (Some(&1), &[2][..])
        );
        assert!(publisher.queued.ends.lock().is_empty());
        drop((publisher, redis));
        worker.join().unwrap();
    }

    #[test]
    fn ends_of_sessions_are_bounded() {
        let (sender, _jobs) = bounded(1);
        let publisher = Publisher {
            sender,
            queued: Arc::default(),
        };
        let proxy = ProxyId::from_u64(7);
        for session in 0..=ENDS_MAX as u64 {
            let session = SessionRef { proxy, session };
            publisher.end_session(UserId::new(1).unwrap(), session, End::Resumed);
        }
        assert_eq!(publisher.queued.ends.lock().len(), ENDS_MAX);
    }

    #[test]
    fn large_batches_are_split_and_keep_their_order() {
        let proxy = ProxyId::from_u64(7);
        let mut outgoing = Outgoing::default();
        for sequence in 1..=40 {
            let content = Bytes::from(vec![0; 60_000]);
            outgoing.push(
                proxy,
                Push {
                    sequence,
                    content,
                    ..Default::default()
                },
            );
        }
        let messages = outgoing.finish();
        assert!(messages.len() > 1);
        let mut sequences = Vec::new();
        for (to, bytes) in messages {
            assert_eq!(to, proxy);
            assert!(bytes.len() <= MESSAGE_BYTES_MAX, "{}", bytes.len());
            let message = BusMessage::decode(bytes).unwrap();
            sequences.extend(message.pushes.iter().map(|push| push.sequence));
        }
        assert_eq!(sequences, (1..=40).collect::<Vec<_>>());
    }
}
