//! A MariaDB that is away, comes back, or stalls.

use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use chat_store::*;
use nexus_testkit::{MariaDb, free_port, wait_until};

use crate::suite;

const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
const IO_TIMEOUT: Duration = Duration::from_secs(2);
/// What the documentation of `MySqlStore` promises, and a little for a busy machine.
const OPERATION_MAX: Duration = Duration::from_secs(6);
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
