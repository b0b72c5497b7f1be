//! What was committed, on its way to the recipients' proxies.
//!
//! One thread takes all that has queued up, looks up where the recipients are, and publishes one
//! message per proxy: two round trips to the bus for any number of pushes. While the bus is away the thread waits
//! for it, and with it what has queued up; a proxy that fetches it meanwhile drops what comes then. What finds the
//! queue full stays pending in the store, and proxies fetch it. Ends of sessions stand in a list of their own: they
//! go out first, and pushes that fill the queue cost none.

mod queue;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chat_bus::{Bus, BusError, MESSAGE_BYTES_MAX, ProxyId, SessionRef};
use chat_proto::messages::{BusMessage, EndSession, Push};
use chat_store::{ConversationId, Store, StoreError, StoredMessage, UserId};
use prost::Message;

use crate::convert;
use crate::log_limit::LogLimit;
use queue::Queue;

/// Jobs published together.
const BATCH_MAX: usize = 1024;
/// The pause before a batch is tried again that found the bus away, and the longest one.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// A bus message is closed when it has grown beyond this; a push is smaller than the rest.
const BUS_MESSAGE_BYTES: usize = MESSAGE_BYTES_MAX / 2;

static NOT_PUBLISHED: LogLimit = LogLimit::once_a_minute();
static NOT_READ: LogLimit = LogLimit::new();

/// Something to tell to proxies.
pub(crate) enum Job {
    /// A committed message, to the sender's friend.
    Message(StoredMessage),
    /// A committed message, to these but for its sender: who was a member when it was committed.
    ToMembers(StoredMessage, Arc<[UserId]>),
    /// A message that was committed earlier, to be read from the store first.
    Stored(ConversationId, u64),
}

impl Job {
    /// What it takes in the queue.
    fn bytes(&self) -> usize {
        match self {
            Self::Message(message) | Self::ToMembers(message, _) => message.content.len(),
            Self::Stored(..) => 0,
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

/// The way to the publisher's thread, which ends with the last of these.
#[derive(Clone)]
pub(crate) struct Publisher {
    owner: Arc<Owner>,
}

struct Owner {
    queue: Arc<Queue>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl Publisher {
    /// Starts the thread.
    pub(crate) fn start(store: Arc<dyn Store>, bus: Arc<dyn Bus>) -> std::io::Result<Self> {
        let publisher = Self::on(Arc::default());
        let worker = Worker {
            store,
            bus,
            queue: Arc::clone(&publisher.owner.queue),
        };
        std::thread::Builder::new()
            .name("publisher".into())
            .spawn(move || worker.run())?;
        Ok(publisher)
    }

    fn on(queue: Arc<Queue>) -> Self {
        Self {
            owner: Arc::new(Owner { queue }),
        }
    }

    /// Queues a job. Never blocks.
    pub(crate) fn publish(&self, job: Job) {
        self.hold(job);
        self.release();
    }

    /// Queues a job that is one of many: it goes out after [`release`](Self::release) at the latest. Never blocks.
    pub(crate) fn hold(&self, job: Job) {
        self.owner.queue.add(job);
    }

    /// Has what was held published.
    pub(crate) fn release(&self) {
        self.owner.queue.wake();
    }

    /// Tells the proxy of `session` that it has lost its user to another one: before the pushes that wait. Never
    /// blocks. What finds the list full is left to the proxy, which compares its sessions with the bus.
    pub(crate) fn end_session(&self, user: UserId, session: SessionRef, end: End) {
        self.owner.queue.add_end(user, session, end);
        self.owner.queue.wake();
    }

    /// Waits until what was queued is published.
    pub(crate) fn finish(&self, deadline: Duration) {
        self.release();
        self.owner.queue.wait_idle(deadline);
    }
}

struct Worker {
    store: Arc<dyn Store>,
    bus: Arc<dyn Bus>,
    queue: Arc<Queue>,
}

impl Worker {
    fn run(self) {
        while let Some(batch) = self.queue.take(BATCH_MAX) {
            self.publish_when_possible(&batch);
            self.queue.done(&batch);
        }
    }

    /// Tries until the bus is there; gives up when the server has ended.
    fn publish_when_possible(&self, batch: &[Job]) {
        let mut pause = PAUSE_MIN;
        while let Err(error) = self.publish_ends().and_then(|()| self.publish(batch)) {
            let again = is_unavailable(&error) && !self.queue.is_closed();
            if NOT_PUBLISHED.allows() {
                let then = if again {
                    "wait"
                } else {
                    "are left to be fetched"
                };
                log::warn!("pushes {then}: {error}");
            }
            if !again {
                if self.queue.is_closed() {
                    self.queue.told(usize::MAX);
                }
                return;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Those that could not be told because the bus is away go on waiting.
    fn publish_ends(&self) -> Result<(), BusError> {
        let ends = self.queue.ends();
        if ends.is_empty() {
            return Ok(());
        }
        let mut outgoing = Outgoing::default();
        for &(user, session, end) in &ends {
            outgoing.end_session(user, session, end);
        }
        let published = self.bus.publish(&outgoing.finish());
        if !published.as_ref().is_err_and(is_unavailable) {
            self.queue.told(ends.len());
        }
        published
    }

    /// A message that was committed earlier, and its recipients as they are now.
    fn stored(
        &self,
        conversation: ConversationId,
        sequence: u64,
    ) -> Result<Option<(StoredMessage, Vec<UserId>)>, StoreError> {
        let found = self.store.history(conversation, sequence, 1)?;
        let Some(message) = found.into_iter().find(|found| found.sequence == sequence) else {
            return Ok(None);
        };
        let members = match conversation.as_group() {
            Some(group) => self.store.group_members(group)?,
            None => Vec::new(),
        };
        let recipients = audience(&message, &members);
        Ok(Some((message, recipients)))
    }

    fn publish(&self, batch: &[Job]) -> Result<(), BusError> {
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
                    match self.stored(*conversation, *sequence) {
                        Ok(Some((message, recipients))) => {
                            pushes.push((Cow::Owned(message), recipients));
                        }
                        Ok(None) => {}
                        // Not waited for: others are behind it, and it is in the store.
                        Err(error) if NOT_READ.allows() => {
                            log::warn!("a push is left to be fetched: {error}");
                        }
                        Err(_) => {}
                    }
                }
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

fn is_unavailable(error: &BusError) -> bool {
    matches!(error, BusError::Unavailable { .. })
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

    use super::queue::{ENDS_MAX, QUEUE_BYTES_MAX, QUEUE_MAX};
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
        let queue = Arc::<Queue>::default();
        let publisher = Publisher::on(Arc::clone(&queue));
        const LARGE: usize = 64 << 10;
        for _ in 0..QUEUE_BYTES_MAX / LARGE + 10 {
            publisher.publish(message("x".repeat(LARGE)));
        }
        let waiting = queue.waiting();
        assert_eq!(waiting, (QUEUE_BYTES_MAX / LARGE, QUEUE_BYTES_MAX, 0));
        // Full of bytes, not of jobs.
        for _ in 0..QUEUE_MAX {
            publisher.publish(message(String::new()));
        }
        assert_eq!(queue.waiting(), (QUEUE_MAX, QUEUE_BYTES_MAX, 0));
        let batch = queue.take(10).unwrap();
        queue.done(&batch);
        let left = (QUEUE_MAX - 10, QUEUE_BYTES_MAX - 10 * LARGE, 0);
        assert_eq!(queue.waiting(), left);
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
        bus.claim(user.get(), session(1), 1.into(), LoginPolicy::NewerWins)
            .unwrap();
        let queue = Arc::<Queue>::default();
        let publisher = Publisher::on(Arc::clone(&queue));
        let worker = Worker {
            store: Arc::new(SqliteStore::in_memory().unwrap()),
            bus,
            queue: Arc::clone(&queue),
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
        assert_eq!(queue.waiting().2, 0);
        drop((publisher, redis));
        worker.join().unwrap();
    }

    #[test]
    fn ends_of_sessions_are_bounded() {
        let queue = Arc::<Queue>::default();
        let publisher = Publisher::on(Arc::clone(&queue));
        let proxy = ProxyId::from_u64(7);
        for session in 0..=ENDS_MAX as u64 {
            let session = SessionRef { proxy, session };
            publisher.end_session(UserId::new(1).unwrap(), session, End::Resumed);
        }
        assert_eq!(queue.waiting(), (0, 0, ENDS_MAX));
    }

    #[test]
    fn what_is_held_goes_out_together() {
        let queue = Arc::<Queue>::default();
        let publisher = Publisher::on(Arc::clone(&queue));
        let thread = std::thread::spawn(move || {
            let mut sizes = Vec::new();
            while let Some(batch) = queue.take(BATCH_MAX) {
                sizes.push(batch.len());
                queue.done(&batch);
            }
            sizes
        });
        for _ in 0..100 {
            for _ in 0..5 {
                publisher.hold(message(String::new()));
            }
            publisher.finish(Duration::from_secs(30));
        }
        drop(publisher);
        assert_eq!(thread.join().unwrap(), [5; 100]);
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
