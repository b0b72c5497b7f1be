//! The message writer, on SQLite; on a scripted store only where the store has to fail.

use std::{
    collections::HashMap,
    sync::{Arc, mpsc},
    time::Duration,
};

use chat_store::*;
use parking_lot::{Condvar, Mutex};

use crate::suite::{self, pair, text, with_id};

const WAIT_MAX: Duration = Duration::from_secs(20);

type Answer = Result<AppendOutcome, StoreError>;

fn start(store: Arc<dyn Store>, options: WriterOptions) -> MessageWriter {
    MessageWriter::start(store, options, Box::new(|| ())).unwrap()
}

/// Submits and returns where the answer arrives.
fn submit(writer: &MessageWriter, message: NewMessage) -> mpsc::Receiver<Answer> {
    let (answer, answers) = mpsc::channel();
    let on_done = move |result| answer.send(result).unwrap();
    writer.submit(message, Box::new(on_done)).unwrap();
    answers
}

/// The one answer, and the certainty that there is no second.
fn answer(answers: mpsc::Receiver<Answer>) -> Answer {
    let first = answers.recv_timeout(WAIT_MAX).expect("an answer");
    assert!(answers.recv_timeout(WAIT_MAX).is_err(), "a second answer");
    first
}

fn pong(conversation: ConversationId, sender: UserId) -> NewMessage {
    text(conversation, sender, "x")
}

/// A store that does nothing but `append`, as the test says.
struct Scripted {
    state: Mutex<Script>,
    changed: Condvar,
}

#[derive(Default)]
struct Script {
    /// Batches wait while it is set.
    held: bool,
    /// What the next batches fail with; then they succeed.
    failures: Vec<StoreError>,
    /// A batch with this content fails as a whole.
    poison: Option<&'static str>,
    panics: bool,
    /// What arrived: contents of messages, and acknowledgements.
    batches: Vec<(Vec<String>, Vec<Ack>)>,
}

impl Scripted {
    fn new(script: Script) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(script),
            changed: Condvar::new(),
        })
    }

    fn release(&self) {
        self.state.lock().held = false;
        self.changed.notify_all();
    }

    /// Waits until that many batches have arrived.
    fn arrived(&self, count: usize) -> Vec<(Vec<String>, Vec<Ack>)> {
        let mut state = self.state.lock();
        let missing = |state: &mut Script| state.batches.len() < count;
        let waited = self.changed.wait_while_for(&mut state, missing, WAIT_MAX);
        assert!(
            !waited.timed_out(),
            "{} of {count} batches came",
            state.batches.len()
        );
        state.batches.clone()
    }
}

impl Store for Scripted {
    fn append(&self, batch: &[NewMessage], acks: &[Ack]) -> Result<Vec<AppendOutcome>, StoreError> {
        let mut state = self.state.lock();
        let contents = batch
            .iter()
            .map(|message| message.content.clone())
            .collect();
        state.batches.push((contents, acks.to_vec()));
        self.changed.notify_all();
        self.changed.wait_while(&mut state, |state| state.held);
        assert!(!state.panics, "as the script says");
        if !state.failures.is_empty() {
            return Err(state.failures.remove(0));
        }
        if batch
            .iter()
            .any(|message| Some(message.content.as_str()) == state.poison)
        {
            return Err(StoreError::Internal("poison".into()));
        }
        Ok(vec![AppendOutcome::NotMember; batch.len()])
    }

    fn on(&self, _: Terms) -> Box<dyn Store + '_> {
        unreachable!()
    }
    fn prepare_schema(&self) -> Result<(), StoreError> {
        unreachable!()
    }
    fn create_user(&self, _: &str, _: &str) -> Result<CreateUser, StoreError> {
        unreachable!()
    }
    fn begin_login(&self, _: UserId, _: Option<&SessionToken>) -> Result<u64, StoreError> {
        unreachable!()
    }
    fn renew_login(&self, _: UserId, _: u64) -> Result<u64, StoreError> {
        unreachable!()
    }
    fn withdraw_login(&self, _: UserId, _: u64) -> Result<(), StoreError> {
        unreachable!()
    }
    fn token_owner(
        &self,
        _: UserId,
        _: &TokenHash,
        _: i64,
    ) -> Result<Option<TokenOwner>, StoreError> {
        unreachable!()
    }
    fn extend_token(&self, _: UserId, _: &TokenHash, _: i64) -> Result<(), StoreError> {
        unreachable!()
    }
    fn end_token(&self, _: UserId, _: &TokenHash) -> Result<(), StoreError> {
        unreachable!()
    }
    fn delete_expired_tokens(&self, _: i64, _: usize) -> Result<usize, StoreError> {
        unreachable!()
    }
    fn user(&self, _: UserId) -> Result<Option<User>, StoreError> {
        unreachable!()
    }
    fn user_named(&self, _: &str) -> Result<Option<UserId>, StoreError> {
        unreachable!()
    }
    fn names(&self, _: &[UserId]) -> Result<HashMap<UserId, String>, StoreError> {
        unreachable!()
    }
    fn set_last_offline(&self, _: UserId, _: i64) -> Result<(), StoreError> {
        unreachable!()
    }
    fn friends_page(
        &self,
        _: UserId,
        _: Option<UserId>,
        _: usize,
    ) -> Result<Page<Friend>, StoreError> {
        unreachable!()
    }
    fn add_friend(&self, _: UserId, _: UserId, _: usize) -> Result<AddFriend, StoreError> {
        unreachable!()
    }
    fn delete_friend(&self, _: UserId, _: UserId) -> Result<DeleteFriend, StoreError> {
        unreachable!()
    }
    fn create_group(
        &self,
        _: UserId,
        _: &str,
        _: &str,
        _: usize,
    ) -> Result<CreateGroup, StoreError> {
        unreachable!()
    }
    fn join_group(
        &self,
        _: UserId,
        _: GroupId,
        _: usize,
        _: usize,
    ) -> Result<JoinGroup, StoreError> {
        unreachable!()
    }
    fn leave_group(&self, _: UserId, _: GroupId) -> Result<LeaveGroup, StoreError> {
        unreachable!()
    }
    fn delete_group(&self, _: UserId, _: GroupId) -> Result<DeleteGroup, StoreError> {
        unreachable!()
    }
    fn groups_page(
        &self,
        _: UserId,
        _: Option<GroupId>,
        _: usize,
    ) -> Result<Page<Group>, StoreError> {
        unreachable!()
    }
    fn members_page(
        &self,
        _: GroupId,
        _: Option<UserId>,
        _: usize,
    ) -> Result<Page<Member>, StoreError> {
        unreachable!()
    }
    fn group_members_of(&self, _: &[GroupId]) -> Result<HashMap<GroupId, Vec<UserId>>, StoreError> {
        unreachable!()
    }
    fn conversations(&self, _: UserId) -> Result<Vec<ConversationState>, StoreError> {
        unreachable!()
    }
    fn conversation(
        &self,
        _: UserId,
        _: ConversationId,
    ) -> Result<Option<ConversationState>, StoreError> {
        unreachable!()
    }
    fn overview(
        &self,
        _: UserId,
        _: &[Mark],
        _: PageLimit,
        _: usize,
    ) -> Result<Overview, StoreError> {
        unreachable!()
    }
    fn pending(
        &self,
        _: UserId,
        _: &[Mark],
        _: PendingScope,
        _: PageLimit,
    ) -> Result<PendingPage, StoreError> {
        unreachable!()
    }
    fn history_page(
        &self,
        _: ConversationId,
        _: u64,
        _: PageLimit,
    ) -> Result<Vec<StoredMessage>, StoreError> {
        unreachable!()
    }
}

fn ids() -> (UserId, UserId, ConversationId) {
    let (ann, bob) = (UserId::new(1).unwrap(), UserId::new(2).unwrap());
    (ann, bob, ConversationId::pair(ann, bob).unwrap())
}

#[test]
fn messages_of_many_threads_are_all_stored_in_each_threads_order() {
    const THREADS: u64 = 8;
    const MESSAGES: u64 = 200;
    let store = Arc::new(SqliteStore::in_memory().unwrap());
    let (ann, bob, conversation) = pair(&*store);
    let writer = start(
        Arc::clone(&store) as Arc<dyn Store>,
        WriterOptions::default(),
    );
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let writer = &writer;
            scope.spawn(move || {
                let sender = if thread % 2 == 0 { ann } else { bob };
                let answers: Vec<_> = (0..MESSAGES)
                    .map(|n| with_id(pong(conversation, sender), thread * MESSAGES + n + 1))
                    .map(|message| submit(writer, message))
                    .collect();
                let sequences: Vec<_> = answers
                    .into_iter()
                    .map(|one| suite::committed(&answer(one).unwrap()).sequence)
                    .collect();
                assert!(sequences.is_sorted());
            });
        }
    });
    let history = store.history(conversation, 2, usize::MAX).unwrap();
    assert_eq!(history.len() as u64, THREADS * MESSAGES);
}

#[test]
fn what_queued_during_a_commit_goes_with_the_next() {
    let store = Scripted::new(Script {
        held: true,
        ..Script::default()
    });
    let (ann, _, conversation) = ids();
    let options = WriterOptions {
        batch_max: 5,
        ..WriterOptions::default()
    };
    let writer = start(Arc::clone(&store) as Arc<dyn Store>, options);
    let mut answers = vec![submit(&writer, pong(conversation, ann))];
    store.arrived(1);
    answers.extend((0..7).map(|_| submit(&writer, pong(conversation, ann))));
    assert_eq!(writer.queued(), 7);
    store.release();
    let sizes: Vec<_> = store
        .arrived(3)
        .iter()
        .map(|(messages, _)| messages.len())
        .collect();
    assert_eq!(sizes, [1, 5, 2]);
    assert!(
        answers
            .into_iter()
            .all(|one| answer(one) == Ok(AppendOutcome::NotMember))
    );
}

#[test]
fn commits_keep_their_distance_unless_they_are_full_or_the_last() {
    let store = Scripted::new(Script::default());
    let (ann, _, conversation) = ids();
    let options = WriterOptions {
        batch_max: 5,
        commit_interval: Duration::from_secs(3600),
        ..WriterOptions::default()
    };
    let writer = start(Arc::clone(&store) as Arc<dyn Store>, options);
    let mut answers = vec![submit(&writer, pong(conversation, ann))];
    store.arrived(1);
    // Many, since a writer that does not wait may find a full batch by chance.
    for batches in 2..100 {
        answers.extend((0..5).map(|_| submit(&writer, pong(conversation, ann))));
        store.arrived(batches);
    }
    answers.extend((0..2).map(|_| submit(&writer, pong(conversation, ann))));
    assert_eq!(writer.shutdown(WAIT_MAX), Shutdown::Drained);
    let batches = store.arrived(100);
    let sizes: Vec<_> = batches.iter().map(|(messages, _)| messages.len()).collect();
    assert_eq!((sizes[0], sizes[99]), (1, 2));
    assert!(sizes[1..99].iter().all(|&size| size == 5), "{sizes:?}");
    assert!(answers.into_iter().all(|one| answer(one).is_ok()));
}

#[test]
fn a_full_queue_refuses_and_never_blocks() {
    let store = Scripted::new(Script {
        held: true,
        ..Script::default()
    });
    let (ann, _, conversation) = ids();
    let options = WriterOptions {
        queue_max: 2,
        ..WriterOptions::default()
    };
    let writer = start(Arc::clone(&store) as Arc<dyn Store>, options);
    let mut answers = vec![submit(&writer, pong(conversation, ann))];
    store.arrived(1);
    answers.extend((0..2).map(|_| submit(&writer, pong(conversation, ann))));
    let never = Box::new(|_: Answer| panic!("a refused message was completed"));
    assert!(writer.submit(pong(conversation, ann), never).is_err());
    store.release();
    assert!(answers.into_iter().all(|one| answer(one).is_ok()));
}

#[test]
fn a_queue_that_is_full_of_bytes_refuses_until_they_are_stored() {
    let store = Scripted::new(Script {
        held: true,
        ..Script::default()
    });
    let (ann, _, conversation) = ids();
    let options = WriterOptions {
        queue_bytes_max: 10,
        batch_max: 1,
        ..WriterOptions::default()
    };
    let writer = start(Arc::clone(&store) as Arc<dyn Store>, options);
    let with = |content: &str| NewMessage {
        client_time: String::new(),
        ..text(conversation, ann, content)
    };
    let refuses = |message| {
        let never = Box::new(|_: Answer| panic!("a refused message was completed"));
        writer.submit(message, never).is_err()
    };
    let mut answers = vec![submit(&writer, with("12345"))];
    // What the store has does not count.
    store.arrived(1);
    answers.extend([
        submit(&writer, with("12345")),
        submit(&writer, with("12345")),
    ]);
    assert!(refuses(with("1")));
    assert!(!refuses(with("")));
    store.release();
    assert!(answers.into_iter().all(|one| answer(one).is_ok()));
    assert!(refuses(with("12345678901")));
    assert!(answer(submit(&writer, with("1234567890"))).is_ok());
}

#[test]
fn an_unavailable_store_fails_everything_that_waits_with_its_error() {
    let down = StoreError::Unavailable("down".into());
    let script = Script {
        held: true,
        failures: vec![down.clone()],
        ..Script::default()
    };
    let store = Scripted::new(script);
    let (ann, _, conversation) = ids();
    let writer = start(
        Arc::clone(&store) as Arc<dyn Store>,
        WriterOptions::default(),
    );
    let mut answers = vec![submit(&writer, pong(conversation, ann))];
    store.arrived(1);
    answers.extend((0..3).map(|_| submit(&writer, pong(conversation, ann))));
    store.release();
    assert!(
        answers
            .into_iter()
            .all(|one| answer(one) == Err(down.clone()))
    );
    assert!(answer(submit(&writer, pong(conversation, ann))).is_ok());
}

#[test]
fn a_commit_of_unknown_fate_is_of_unknown_fate_for_its_own_messages_only() {
    let script = Script {
        held: true,
        failures: vec![StoreError::Uncertain("cut off".into())],
        ..Script::default()
    };
    let store = Scripted::new(script);
    let (ann, _, conversation) = ids();
    let writer = start(
        Arc::clone(&store) as Arc<dyn Store>,
        WriterOptions::default(),
    );
    let committing = submit(&writer, pong(conversation, ann));
    store.arrived(1);
    let waiting = submit(&writer, pong(conversation, ann));
    store.release();
    let fate = answer(committing);
    assert!(matches!(fate, Err(StoreError::Uncertain(_))), "{fate:?}");
    let fate = answer(waiting);
    assert!(matches!(fate, Err(StoreError::Unavailable(_))), "{fate:?}");
}

#[test]
fn one_message_that_the_store_chokes_on_fails_alone() {
    let store = Scripted::new(Script {
        held: true,
        poison: Some("bad"),
        ..Script::default()
    });
    let (ann, bob, conversation) = ids();
    let writer = start(
        Arc::clone(&store) as Arc<dyn Store>,
        WriterOptions::default(),
    );
    let first = submit(&writer, pong(conversation, ann));
    store.arrived(1);
    assert_eq!(
        writer.acknowledge([Ack {
            user: bob,
            conversation,
            sequence: 1
        }]),
        0
    );
    let contents = ["a", "b", "bad", "c", "d"];
    let answers: Vec<_> = contents
        .map(|content| submit(&writer, text(conversation, ann, content)))
        .into();
    store.release();
    assert!(answer(first).is_ok());
    for (content, one) in contents.iter().zip(answers) {
        assert_eq!(answer(one).is_err(), *content == "bad", "{content}");
    }
}

#[test]
fn a_panic_of_a_callback_or_of_the_store_does_not_end_the_writer() {
    let store = Scripted::new(Script::default());
    let (ann, _, conversation) = ids();
    let writer = start(
        Arc::clone(&store) as Arc<dyn Store>,
        WriterOptions::default(),
    );
    let panicking = Box::new(|_: Answer| panic!("as the test says"));
    writer.submit(pong(conversation, ann), panicking).unwrap();
    assert!(answer(submit(&writer, pong(conversation, ann))).is_ok());

    store.state.lock().panics = true;
    let failed = answer(submit(&writer, pong(conversation, ann)));
    assert!(matches!(failed, Err(StoreError::Internal(_))), "{failed:?}");
    store.state.lock().panics = false;
    assert!(answer(submit(&writer, pong(conversation, ann))).is_ok());
}

#[test]
fn acknowledgements_are_merged_and_stored_without_a_message() {
    let store = Scripted::new(Script::default());
    let (ann, bob, conversation) = ids();
    let writer = start(
        Arc::clone(&store) as Arc<dyn Store>,
        WriterOptions::default(),
    );
    let ack = |user, sequence| Ack {
        user,
        conversation,
        sequence,
    };
    assert_eq!(
        writer.acknowledge([ack(bob, 3), ack(bob, 9), ack(ann, 1), ack(bob, 5)]),
        0
    );
    let batches = store.arrived(1);
    let (messages, mut acks) = batches[0].clone();
    acks.sort_by_key(|ack| ack.user);
    assert!(messages.is_empty());
    assert_eq!(acks, [ack(ann, 1), ack(bob, 9)]);
}

#[test]
fn acknowledgements_that_could_not_be_stored_are_tried_again() {
    let down = || StoreError::Unavailable("down".into());
    let failures = vec![down(), down(), down()];
    let store = Scripted::new(Script {
        held: true,
        failures,
        ..Script::default()
    });
    let (_, bob, conversation) = ids();
    let options = WriterOptions {
        ack_flush: Duration::from_millis(1),
        ..WriterOptions::default()
    };
    let writer = start(Arc::clone(&store) as Arc<dyn Store>, options);
    let ack = |sequence| Ack {
        user: bob,
        conversation,
        sequence,
    };
    writer.acknowledge([ack(3)]);
    store.arrived(1);
    // A newer one that comes meanwhile is not undone by the one that failed.
    writer.acknowledge([ack(7)]);
    store.release();
    let acks: Vec<_> = store.arrived(4).into_iter().map(|(_, acks)| acks).collect();
    assert_eq!(
        acks,
        [vec![ack(3)], vec![ack(7)], vec![ack(7)], vec![ack(7)]]
    );
    assert_eq!(writer.shutdown(WAIT_MAX), Shutdown::Drained);
    assert_eq!(store.arrived(4).len(), 4);
}

#[test]
fn only_so_many_acknowledgements_wait() {
    let store = Scripted::new(Script::default());
    let (ann, bob, conversation) = ids();
    let options = WriterOptions {
        acks_max: 1,
        ack_flush: Duration::from_secs(3600),
        ..WriterOptions::default()
    };
    let writer = start(store, options);
    let ack = |user, sequence| Ack {
        user,
        conversation,
        sequence,
    };
    assert_eq!(
        writer.acknowledge([ack(bob, 3), ack(ann, 1), ack(bob, 4)]),
        1
    );
}

#[test]
fn shutdown_stores_what_was_taken_and_takes_no_more() {
    let store = Arc::new(SqliteStore::in_memory().unwrap());
    let (ann, bob, conversation) = pair(&*store);
    let options = WriterOptions {
        batch_max: 10,
        ack_flush: Duration::from_secs(3600),
        ..Default::default()
    };
    let writer = start(Arc::clone(&store) as Arc<dyn Store>, options);
    let answers: Vec<_> = (0..100)
        .map(|_| submit(&writer, pong(conversation, ann)))
        .collect();
    assert_eq!(
        writer.acknowledge([Ack {
            user: bob,
            conversation,
            sequence: 1
        }]),
        0
    );
    assert_eq!(writer.shutdown(WAIT_MAX), Shutdown::Drained);
    assert!(answers.into_iter().all(|one| answer(one).is_ok()));
    assert_eq!(suite::acked(&*store, bob, conversation), Some(1));

    let never = Box::new(|_: Answer| panic!("a refused message was completed"));
    assert!(writer.submit(pong(conversation, ann), never).is_err());
    assert_eq!(
        writer.acknowledge([Ack {
            user: bob,
            conversation,
            sequence: 2
        }]),
        1
    );
    assert_eq!(writer.shutdown(WAIT_MAX), Shutdown::Drained);
}

#[test]
fn a_shutdown_that_takes_too_long_fails_what_still_waits() {
    let store = Scripted::new(Script {
        held: true,
        ..Script::default()
    });
    let (ann, _, conversation) = ids();
    let writer = start(
        Arc::clone(&store) as Arc<dyn Store>,
        WriterOptions::default(),
    );
    let with_the_store = submit(&writer, pong(conversation, ann));
    store.arrived(1);
    let waiting = submit(&writer, pong(conversation, ann));
    assert_eq!(
        writer.shutdown(Duration::from_millis(10)),
        Shutdown::TimedOut
    );
    assert!(matches!(answer(waiting), Err(error) if error.is_unavailable()));
    store.release();
    assert!(answer(with_the_store).is_ok());
    assert_eq!(writer.shutdown(WAIT_MAX), Shutdown::Drained);
}

#[test]
fn a_dropped_writer_finishes_what_it_has() {
    let store = Scripted::new(Script {
        held: true,
        ..Script::default()
    });
    let (ann, _, conversation) = ids();
    let writer = start(
        Arc::clone(&store) as Arc<dyn Store>,
        WriterOptions::default(),
    );
    let first = submit(&writer, pong(conversation, ann));
    store.arrived(1);
    let second = submit(&writer, pong(conversation, ann));
    drop(writer);
    store.release();
    assert!(answer(first).is_ok());
    assert!(answer(second).is_ok());
}
