//! A MariaDB that is away, comes back, or stalls.

use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use chat_store::*;
use mysql::prelude::Queryable;
use nexus_testkit::{MariaDb, Relay, free_port, wait_until};

use crate::suite;

const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
const IO_TIMEOUT: Duration = Duration::from_secs(2);
/// What the documentation of `MySqlStore` promises, and a little for a busy machine.
const OPERATION_MAX: Duration = Duration::from_secs(6);
/// So long that nothing in a test can be over because of it.
const LONG_IO_TIMEOUT: Duration = Duration::from_secs(20);
/// For the database to answer again.
const RETURN_MAX: Duration = Duration::from_secs(30);

fn store(url: String) -> MySqlStore {
    let options = MySqlOptions {
        connect_timeout: CONNECT_TIMEOUT,
        io_timeout: IO_TIMEOUT,
        connections_max: 4,
        ..MySqlOptions::new(url)
    };
    MySqlStore::new(options).unwrap()
}

fn unavailable<T: std::fmt::Debug>(what: &str, operation: impl FnOnce() -> Result<T, StoreError>) {
    let start = Instant::now();
    let result = operation();
    let took = start.elapsed();
    assert!(
        matches!(&result, Err(error) if error.is_unavailable()),
        "{what}: {result:?}"
    );
    assert!(took < OPERATION_MAX, "{what} took {took:?}");
}

#[test]
fn a_store_can_be_made_before_its_database_is_there() {
    let url = format!("mysql://root@127.0.0.1:{}/nexus", free_port());
    let store = store(url);
    unavailable("the schema", || store.prepare_schema());
    unavailable("a user", || store.user(UserId::new(1).unwrap()));
}

#[test]
fn a_database_that_was_killed_is_used_again_when_it_is_back() {
    let database = MariaDb::start().unwrap();
    let store = store(database.url());
    store.prepare_schema().unwrap();
    let (ann, bob, conversation) = suite::pair(&store);
    let message = suite::with_id(suite::text(conversation, ann, "before"), 7);
    let stamp = suite::committed(&store.append(std::slice::from_ref(&message), &[]).unwrap()[0]);

    database.kill();
    unavailable("reading", || store.friends(ann));
    unavailable("storing", || {
        store.append(std::slice::from_ref(&message), &[])
    });
    unavailable("changing", || store.delete_friend(ann, bob));

    database.restart().unwrap();
    // At once and without an error, although the pool had connections.
    assert_eq!(store.friends(ann).unwrap()[0].id, bob);
    let outcomes = store.append(&[message], &[]).unwrap();
    assert_eq!(outcomes, [AppendOutcome::Duplicate(stamp)]);
    assert_eq!(
        suite::send(&store, conversation, ann, "after").sequence,
        stamp.sequence + 1
    );
}

#[test]
fn a_restart_between_two_operations_is_not_noticed() {
    let database = MariaDb::start().unwrap();
    let store = store(database.url());
    store.prepare_schema().unwrap();
    let (ann, bob, conversation) = suite::pair(&store);
    for round in 2..5 {
        database.kill();
        database.restart().unwrap();
        // First a write, then a read, on what the pool believes to be live connections.
        assert_eq!(suite::send(&store, conversation, ann, "x").sequence, round);
        assert_eq!(store.friends(bob).unwrap().len(), 1);
    }
}

#[test]
fn a_stalled_database_holds_nobody_up_for_longer_than_the_timeouts() {
    let database = MariaDb::start().unwrap();
    let store = Arc::new(store(database.url()));
    store.prepare_schema().unwrap();
    let (ann, bob, conversation) = suite::pair(&*store);
    // A batch that does not fit into the socket's buffers.
    let long = suite::text(conversation, ann, &"x".repeat(CONTENT_BYTES_MAX));
    let large = vec![long; 400];

    database.pause();
    let (done, all_done) = mpsc::channel();
    // More threads than connections: some wait for a connection.
    for thread in 0..8 {
        let (store, done, large) = (Arc::clone(&store), done.clone(), large.clone());
        std::thread::spawn(move || {
            match thread % 4 {
                0 => unavailable("reading", || store.friends(ann)),
                1 => unavailable("pending", || store.pending_all(bob, suite::NO_LIMIT)),
                2 => unavailable("storing", || store.append(&large, &[])),
                _ => unavailable("changing", || store.delete_friend(ann, bob)),
            }
            done.send(()).unwrap();
        });
    }
    for _ in 0..8 {
        all_done
            .recv_timeout(OPERATION_MAX)
            .expect("every operation ends in time");
    }

    database.resume();
    wait_until("the database answers again", RETURN_MAX, || {
        store.friends(ann).is_ok()
    });
    suite::send(&*store, conversation, ann, "after the stall");
    let history = store.history(conversation, 1, usize::MAX).unwrap();
    let sequences: Vec<_> = history.iter().map(|message| message.sequence).collect();
    assert_eq!(sequences, (1..=history.len() as u64).collect::<Vec<_>>());
}

#[test]
fn while_a_database_stalls_operations_are_refused_at_once() {
    let database = MariaDb::start().unwrap();
    let options = MySqlOptions {
        io_timeout: LONG_IO_TIMEOUT,
        connections_max: 4,
        stalled_after: Duration::from_millis(200),
        ..MySqlOptions::new(database.url())
    };
    let store = Arc::new(MySqlStore::new(options).unwrap());
    store.prepare_schema().unwrap();
    let (ann, bob, conversation) = suite::pair(&*store);
    let (found_away, away) = mpsc::channel();
    store.on_away(Box::new(move || found_away.send(()).unwrap()));

    database.pause();
    let hanging: Vec<_> = (0..8)
        .map(|number| {
            let store = Arc::clone(&store);
            std::thread::spawn(move || match number {
                0 => store
                    .append(&[suite::text(conversation, ann, "x")], &[])
                    .err(),
                _ => store.friends(bob).err(),
            })
        })
        .collect();
    away.recv_timeout(RETURN_MAX).expect("it is found out");
    assert!(store.is_away());
    let start = Instant::now();
    for _ in 0..100 {
        unavailable("reading", || store.friends(ann));
        unavailable("changing", || store.delete_friend(ann, bob));
        let message = suite::text(conversation, ann, "never taken");
        unavailable("storing", || store.append(&[message], &[]));
    }
    assert!(
        start.elapsed() < LONG_IO_TIMEOUT / 2,
        "{:?}",
        start.elapsed()
    );
    assert!(!hanging[0].is_finished(), "it waits for the commit's fate");

    database.resume();
    wait_until("it is used again", RETURN_MAX, || !store.is_away());
    suite::send(&*store, conversation, ann, "after the stall");
    for one in hanging {
        one.join().unwrap();
    }
    let history = store.history(conversation, 1, usize::MAX).unwrap();
    assert!(
        history
            .iter()
            .all(|message| message.content != "never taken")
    );
}

#[test]
fn a_writer_gives_back_what_waits_behind_a_commit_that_hangs() {
    let database = MariaDb::start().unwrap();
    let options = MySqlOptions {
        io_timeout: LONG_IO_TIMEOUT,
        stalled_after: Duration::from_millis(200),
        ..MySqlOptions::new(database.url())
    };
    let store = Arc::new(MySqlStore::new(options).unwrap());
    store.prepare_schema().unwrap();
    let (ann, _, conversation) = suite::pair(&*store);
    let writer =
        MessageWriter::start(store.clone(), WriterOptions::default(), Box::new(|| ())).unwrap();
    let writer = Arc::new(writer);
    let to_fail = Arc::downgrade(&writer);
    store.on_away(Box::new(move || {
        if let Some(writer) = to_fail.upgrade() {
            writer.fail_waiting();
        }
    }));
    let (answer, answers) = mpsc::channel();
    let submit = |content: &str| {
        let (answer, content) = (answer.clone(), content.to_owned());
        let message = suite::text(conversation, ann, &content);
        let on_done = move |result: Result<_, _>| answer.send((content, result)).unwrap();
        writer.submit(message, Box::new(on_done)).unwrap();
    };

    database.pause();
    submit("hangs");
    wait_until("it is at work", RETURN_MAX, || writer.queued() == 0);
    (0..100).for_each(|_| submit("waits"));
    for _ in 0..100 {
        let (content, result) = answers.recv_timeout(LONG_IO_TIMEOUT / 2).unwrap();
        assert_eq!(content, "waits");
        assert!(result.is_err_and(|error| error.is_unavailable()));
    }
    assert_eq!(writer.queued(), 0);
    database.resume();
    let (content, fate) = answers.recv_timeout(RETURN_MAX).unwrap();
    assert_eq!(content, "hangs");
    wait_until("it is used again", RETURN_MAX, || {
        store.history(conversation, 2, usize::MAX).is_ok()
    });
    let stored = store.history(conversation, 2, usize::MAX).unwrap();
    if fate.is_ok() {
        assert_eq!(stored.len(), 1);
    }
    assert!(stored.iter().all(|message| message.content == "hangs"));
}

#[test]
fn a_server_that_falls_silent_in_a_transaction_does_not_keep_its_locks() {
    let database = MariaDb::start().unwrap();
    let relay = Relay::start(database.address()).unwrap();
    let near = store(database.url());
    near.prepare_schema().unwrap();
    let (ann, _, conversation) = suite::pair(&near);
    let behind_relay = database.url().replace(
        &database.address().to_string(),
        &relay.address().to_string(),
    );
    let far = store(behind_relay);
    far.prepare_schema().unwrap();
    // Somebody has the conversation locked, so that the far store waits for the lock in its transaction ...
    let mut holder = mysql::Conn::new(mysql::Opts::from_url(&database.url()).unwrap()).unwrap();
    holder.query_drop("START TRANSACTION").unwrap();
    let raw = conversation.raw();
    holder
        .query_drop(format!(
            "SELECT last_seq FROM conversation WHERE id = {raw} FOR UPDATE"
        ))
        .unwrap();
    let sending = std::thread::spawn({
        let message = [suite::text(conversation, ann, "far")];
        move || far.append(&message, &[])
    });
    let mut observer = mysql::Conn::new(mysql::Opts::from_url(&database.url()).unwrap()).unwrap();
    wait_until("the far store waits for the lock", RETURN_MAX, || {
        let waiting = "SELECT COUNT(*) FROM information_schema.PROCESSLIST \
                       WHERE INFO LIKE '%FOR UPDATE%' AND ID <> CONNECTION_ID()";
        observer.query_first::<u64, _>(waiting).unwrap() > Some(0)
    });
    // ... and when it gets it, its network is gone.
    relay.silence();
    holder.query_drop("ROLLBACK").unwrap();
    let message = [suite::text(conversation, ann, "near")];
    wait_until("the conversation is free again", OPERATION_MAX, || {
        near.append(&message, &[]).is_ok()
    });
    assert!(sending.join().unwrap().is_err());
}

#[test]
fn a_deadline_that_passes_while_a_batch_is_written_takes_its_message_out_of_it() {
    let database = MariaDb::start().unwrap();
    let options = MySqlOptions {
        io_timeout: LONG_IO_TIMEOUT,
        ..MySqlOptions::new(database.url())
    };
    let store = MySqlStore::new(options).unwrap();
    store.prepare_schema().unwrap();
    let (ann, bob, conversation) = suite::pair(&store);
    let mut holder = mysql::Conn::new(mysql::Opts::from_url(&database.url()).unwrap()).unwrap();
    holder.query_drop("START TRANSACTION").unwrap();
    let lock = format!(
        "SELECT last_seq FROM conversation WHERE id = {} FOR UPDATE",
        conversation.raw()
    );
    let last: u64 = holder.query_first(lock).unwrap().unwrap();
    let deadline = Instant::now() + Duration::from_secs(1);
    let late = NewMessage {
        terms: Terms {
            deadline: Some(deadline),
            login: None,
        },
        ..suite::text(conversation, ann, "late")
    };
    let batch = [late, suite::text(conversation, bob, "has time")];
    let outcomes = std::thread::scope(|scope| {
        let appending = scope.spawn(|| store.append(&batch, &[]));
        // Time itself is what is tested.
        while Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        holder.query_drop("COMMIT").unwrap();
        appending.join().unwrap().unwrap()
    });
    assert_eq!(outcomes[0], AppendOutcome::TooLate);
    assert_eq!(suite::committed(&outcomes[1]).sequence, last + 1);
    let stored = store.history(conversation, last + 1, 10).unwrap();
    assert_eq!(stored.len(), 1);
}

#[test]
fn a_commit_without_an_answer_is_uncertain_and_all_before_it_is_not() {
    let database = MariaDb::start().unwrap();
    let relay = Relay::start(database.address()).unwrap();
    let behind_relay = database.url().replace(
        &database.address().to_string(),
        &relay.address().to_string(),
    );
    let near = store(database.url());
    near.prepare_schema().unwrap();
    let (ann, bob, conversation) = suite::pair(&near);
    let far = store(behind_relay);
    far.prepare_schema().unwrap();

    // A backup at this stage keeps commits waiting, and nothing before them.
    let mut holder = mysql::Conn::new(mysql::Opts::from_url(&database.url()).unwrap()).unwrap();
    let mut observer = mysql::Conn::new(mysql::Opts::from_url(&database.url()).unwrap()).unwrap();
    holder.query_drop("BACKUP STAGE START").unwrap();
    holder.query_drop("BACKUP STAGE BLOCK_COMMIT").unwrap();
    let fate = std::thread::scope(|scope| {
        let message = [suite::text(conversation, ann, "x")];
        let sending = scope.spawn({
            let far = &far;
            move || far.append(&message, &[])
        });
        wait_until("it waits for its commit", RETURN_MAX, || {
            let waiting = "SELECT COUNT(*) FROM information_schema.PROCESSLIST \
                           WHERE INFO LIKE 'COMMIT%'";
            observer.query_first::<u64, _>(waiting).unwrap() > Some(0)
        });
        relay.cut();
        sending.join().unwrap()
    });
    assert!(matches!(fate, Err(StoreError::Uncertain(_))), "{fate:?}");
    holder.query_drop("BACKUP STAGE END").unwrap();

    // With the network gone nothing is committed, and that is certain.
    let refused = far.delete_friend(ann, bob);
    assert!(
        matches!(refused, Err(StoreError::Unavailable(_))),
        "{refused:?}"
    );
}
