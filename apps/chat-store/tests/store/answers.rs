//! Answers of the database that pass by themselves: of others' locks, of operators, of limits, of fail-overs.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use chat_store::*;
use mysql::prelude::Queryable;
use nexus_testkit::{MariaDbOptions, Relay, wait_until};

use crate::{
    database::{Database, PATIENCE, lock},
    suite,
};

/// The statement with which a message waits for its conversation.
const LOCKING: &str = "%FROM conversation%FOR UPDATE%";

/// The texts of a conversation, which are stored without gaps.
fn contents(store: &dyn Store, conversation: ConversationId) -> Vec<String> {
    wait_until("the store is used again", PATIENCE, || !store.is_away());
    let stored = store.history(conversation, 2, usize::MAX).unwrap();
    let first = stored.iter().map(|message| message.sequence);
    assert!(first.eq(2..2 + stored.len() as u64), "gaps: {stored:?}");
    stored.into_iter().map(|message| message.content).collect()
}

fn unavailable<T: std::fmt::Debug>(what: &str, result: &Result<T, StoreError>) {
    assert!(
        matches!(result, Err(StoreError::Unavailable(_))),
        "{what}: {result:?}"
    );
}

#[test]
fn a_statement_that_is_killed_is_run_again() {
    let mut database = Database::start();
    let store = database.store();
    let (ann, _, conversation) = suite::pair(&store);
    let mut holder = database.connect();
    lock(&mut holder, conversation);
    thread::scope(|scope| {
        let sending = scope.spawn(|| suite::send(&store, conversation, ann, "once"));
        for _ in 0..3 {
            database.await_running(LOCKING);
            for id in database.running(LOCKING) {
                database.run(&format!("KILL QUERY {id}"));
            }
        }
        database.await_running(LOCKING);
        holder.query_drop("ROLLBACK").unwrap();
        assert_eq!(sending.join().unwrap().sequence, 2);
    });
    assert_eq!(contents(&store, conversation), ["once"]);
}

#[test]
fn a_statement_that_is_killed_each_time_is_unavailable_and_leaves_nothing() {
    let mut database = Database::start();
    let store = database.store();
    let (ann, _, conversation) = suite::pair(&store);
    let mut holder = database.connect();
    lock(&mut holder, conversation);
    let done = AtomicBool::new(false);
    let killed = thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let result = store.append(&[suite::text(conversation, ann, "never")], &[]);
            done.store(true, Ordering::Relaxed);
            result
        });
        while !done.load(Ordering::Relaxed) {
            for id in database.running(LOCKING) {
                database.run(&format!("KILL QUERY {id}"));
            }
        }
        sending.join().unwrap()
    });
    unavailable("killed", &killed);
    holder.query_drop("ROLLBACK").unwrap();
    wait_until("the store is used again", PATIENCE, || !store.is_away());
    suite::send(&store, conversation, ann, "afterwards");
    assert_eq!(contents(&store, conversation), ["afterwards"]);
}

#[test]
fn a_conversation_that_others_keep_locked_is_a_conflict_and_nobody_elses() {
    let database = Database::start();
    let store = database.store();
    let (ann, _, conversation) = suite::pair(&store);
    let (carl, _, beside) = suite::pair(&store);
    let mut holder = database.connect();
    lock(&mut holder, conversation);
    let locked = store.append(&[suite::text(conversation, ann, "never")], &[]);
    assert!(matches!(locked, Err(StoreError::Conflict(_))), "{locked:?}");
    wait_until("the store is used again", PATIENCE, || !store.is_away());
    suite::send(&store, beside, carl, "beside");
    holder.query_drop("ROLLBACK").unwrap();
    suite::send(&store, conversation, ann, "afterwards");
    assert_eq!(contents(&store, conversation), ["afterwards"]);
}

/// Stops a message between its last statement and its COMMIT, lets `meanwhile` happen, and returns what became of it.
fn at_commit(
    database: &mut Database,
    far: &MySqlStore,
    relay: &Relay,
    message: NewMessage,
    meanwhile: impl FnOnce(&mut Database),
    afterwards: impl FnOnce(&mut Database),
) -> Result<Vec<AppendOutcome>, StoreError> {
    // Its INSERT, which is the last statement, waits for one with the same key.
    let mut holder = database.connect();
    holder.query_drop("START TRANSACTION").unwrap();
    let id = message.client_message_id.unwrap();
    let sql = format!(
        "INSERT INTO message (conversation_id, seq, sender_id, kind, client_message_id, content, client_time, \
         created_at_ms) VALUES (1, 1, {}, 1, {id}, '', '', 0)",
        message.sender
    );
    holder.query_drop(sql).unwrap();
    thread::scope(|scope| {
        let sending = scope.spawn(move || far.append(&[message], &[]));
        database.await_running("INSERT INTO message%");
        // The answer to the INSERT does not arrive before the rest has happened.
        relay.silence();
        holder.query_drop("ROLLBACK").unwrap();
        wait_until("it is stored", PATIENCE, || {
            database.running("INSERT INTO message%").is_empty()
        });
        meanwhile(database);
        relay.open();
        afterwards(database);
        sending.join().unwrap()
    })
}

/// A store that reaches the database through a relay.
fn far(database: &Database) -> (MySqlStore, Relay) {
    let relay = Relay::start(database.server.address()).unwrap();
    let store = database.store_at(database.url_at(relay.address()));
    (store, relay)
}

#[test]
fn a_commit_that_a_lock_holds_up_is_a_conflict_and_leaves_nothing() {
    let mut database = Database::start();
    let (far, relay) = far(&database);
    let (ann, _, conversation) = suite::pair(&far);
    let message = suite::with_id(suite::text(conversation, ann, "once"), 1);
    let mut backup = database.connect();
    let refused = at_commit(
        &mut database,
        &far,
        &relay,
        message.clone(),
        |_| backup.query_drop("FLUSH TABLES WITH READ LOCK").unwrap(),
        |_| {},
    );
    assert!(
        matches!(refused, Err(StoreError::Conflict(_))),
        "{refused:?}"
    );
    backup.query_drop("UNLOCK TABLES").unwrap();
    assert!(contents(&far, conversation).is_empty());
    suite::committed(&far.append(&[message], &[]).unwrap()[0]);
    assert_eq!(contents(&far, conversation), ["once"]);
}

#[test]
fn a_commit_that_a_demoted_server_refuses_is_unavailable_and_leaves_nothing() {
    let mut database = Database::start();
    let (far, relay) = far(&database);
    let (ann, _, conversation) = suite::pair(&far);
    let message = suite::with_id(suite::text(conversation, ann, "once"), 1);
    let refused = at_commit(
        &mut database,
        &far,
        &relay,
        message.clone(),
        |database| database.run("SET GLOBAL read_only = ON"),
        |_| {},
    );
    unavailable("read only", &refused);
    // It still reads.
    assert!(contents(&far, conversation).is_empty());
    unavailable(
        "read only",
        &far.append(std::slice::from_ref(&message), &[]),
    );
    database.run("SET GLOBAL read_only = OFF");
    suite::committed(&far.append(&[message], &[]).unwrap()[0]);
    assert_eq!(contents(&far, conversation), ["once"]);
}

#[test]
fn a_commit_whose_answer_is_lost_is_uncertain() {
    let mut database = Database::start();
    let (far, relay) = far(&database);
    let (ann, _, conversation) = suite::pair(&far);
    let message = suite::with_id(suite::text(conversation, ann, "once"), 1);
    let mut backup = database.connect();
    let unknown = at_commit(
        &mut database,
        &far,
        &relay,
        message.clone(),
        |_| backup.query_drop("FLUSH TABLES WITH READ LOCK").unwrap(),
        |database| {
            database.await_running("COMMIT");
            relay.cut();
        },
    );
    assert!(
        matches!(unknown, Err(StoreError::Uncertain(_))),
        "{unknown:?}"
    );
    backup.query_drop("UNLOCK TABLES").unwrap();
    relay.open();
    wait_until("it is stored", PATIENCE, || {
        far.append(std::slice::from_ref(&message), &[]).is_ok()
    });
    assert_eq!(contents(&far, conversation), ["once"]);
}

#[test]
fn a_lock_of_all_tables_lets_reads_pass_and_writes_wait_for_a_bounded_time() {
    let database = Database::start();
    let store = database.store();
    let (ann, _, conversation) = suite::pair(&store);
    let mut backup = database.connect();
    backup.query_drop("FLUSH TABLES WITH READ LOCK").unwrap();
    let held_up = store.append(&[suite::text(conversation, ann, "never")], &[]);
    assert!(
        matches!(held_up, Err(StoreError::Conflict(_))),
        "{held_up:?}"
    );
    assert!(contents(&store, conversation).is_empty());
    backup.query_drop("UNLOCK TABLES").unwrap();
    suite::send(&store, conversation, ann, "afterwards");
    assert_eq!(contents(&store, conversation), ["afterwards"]);
}

#[test]
fn an_account_that_is_changed_or_used_up_is_unavailable_until_it_is_given_back() {
    let mut database = Database::start();
    for (taken, given_back) in [
        // 1045, 1044, 1142, 4151.
        (
            "ALTER USER chat@'127.0.0.1' IDENTIFIED BY 'rotated'",
            "ALTER USER chat@'127.0.0.1' IDENTIFIED BY 'chat'",
        ),
        (
            "REVOKE ALL ON nexus.* FROM chat@'127.0.0.1'",
            "GRANT ALL ON nexus.* TO chat@'127.0.0.1'",
        ),
        (
            "REVOKE INSERT, UPDATE ON nexus.* FROM chat@'127.0.0.1'",
            "GRANT ALL ON nexus.* TO chat@'127.0.0.1'",
        ),
        (
            "ALTER USER chat@'127.0.0.1' ACCOUNT LOCK",
            "ALTER USER chat@'127.0.0.1' ACCOUNT UNLOCK",
        ),
        // 1226.
        (
            "ALTER USER chat@'127.0.0.1' WITH MAX_QUERIES_PER_HOUR 1",
            "ALTER USER chat@'127.0.0.1' WITH MAX_QUERIES_PER_HOUR 0",
        ),
        (
            "ALTER USER chat@'127.0.0.1' WITH MAX_USER_CONNECTIONS 1",
            "ALTER USER chat@'127.0.0.1' WITH MAX_USER_CONNECTIONS 0",
        ),
    ] {
        let store = database.store();
        let (ann, _, conversation) = suite::pair(&store);
        let own = mysql::Conn::new(mysql::Opts::from_url(&database.url()).unwrap()).unwrap();
        database.run(taken);
        // What is open stays open.
        let sql = "SELECT ID FROM information_schema.PROCESSLIST WHERE USER = 'chat' AND ID <> ?";
        let open: Vec<u64> = database.operator.exec(sql, (own.connection_id(),)).unwrap();
        for id in open {
            // One that was being closed is gone.
            let _ = database.operator.query_drop(format!("KILL {id}"));
        }
        // The one connection that there may be, if there may be any.
        let _other = mysql::Conn::new(mysql::Opts::from_url(&database.url()).unwrap());
        let message = [suite::text(conversation, ann, "afterwards")];
        for _ in 0..3 {
            unavailable(taken, &store.append(&message, &[]));
        }
        database.run(given_back);
        wait_until(given_back, PATIENCE, || store.append(&message, &[]).is_ok());
        assert_eq!(contents(&store, conversation), ["afterwards"], "{taken}");
    }
}

#[test]
fn a_server_without_a_connection_left_is_unavailable() {
    let mut database = Database::start();
    let store = database.store();
    let (ann, _, conversation) = suite::pair(&store);
    // The least there can be; the operator has one more.
    database.run("SET GLOBAL max_connections = 10");
    database.run("CREATE USER other@'127.0.0.1'");
    let other = format!("mysql://other@{}", database.server.address());
    let opts = mysql::Opts::from_url(&other).unwrap();
    let sql = "SELECT ID FROM information_schema.PROCESSLIST WHERE USER = 'chat'";
    let own: Vec<u64> = database.operator.query(sql).unwrap();
    for id in own {
        database.run(&format!("KILL {id}"));
    }
    let mut others = Vec::new();
    wait_until("no connection is left", PATIENCE, || {
        match mysql::Conn::new(opts.clone()) {
            Ok(conn) => others.push(conn),
            Err(_) => return true,
        }
        false
    });
    let message = [suite::text(conversation, ann, "afterwards")];
    unavailable("full", &store.append(&message, &[]));
    drop(others);
    wait_until("there is room again", PATIENCE, || {
        store.append(&message, &[]).is_ok()
    });
    assert_eq!(contents(&store, conversation), ["afterwards"]);
}

/// A node of Galera without quorum, and one that is told to reject queries.
#[test]
fn a_galera_node_out_of_service_is_unavailable_until_it_serves_again() {
    let mut database = Database::start_with(MariaDbOptions {
        galera: true,
        ..MariaDbOptions::default()
    });
    let store = database.store();
    let (ann, _, conversation) = suite::pair(&store);
    for (number, (out_of_service, in_service)) in [
        (
            // To a group that nobody is in.
            "SET GLOBAL wsrep_cluster_address = 'gcomm://127.0.0.1:1?pc.wait_prim=no'",
            "SET GLOBAL wsrep_provider_options = 'pc.bootstrap=true'",
        ),
        (
            "SET GLOBAL wsrep_reject_queries = ALL",
            "SET GLOBAL wsrep_reject_queries = NONE",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let message = suite::text(conversation, ann, &number.to_string());
        let message = [suite::with_id(message, number as u64 + 1)];
        database.run(out_of_service);
        wait_until("it is asked no more", PATIENCE, || {
            unavailable(out_of_service, &store.append(&message, &[]));
            unavailable(out_of_service, &store.friends(ann));
            store.is_away()
        });
        database.run(in_service);
        wait_until("it serves again", PATIENCE, || {
            store.append(&message, &[]).is_ok()
        });
    }
    assert_eq!(contents(&store, conversation), ["0", "1"]);
}

/// The node leaves such a transaction open: whatever is sent on its connection next must not commit it.
#[test]
fn a_commit_that_a_galera_node_refuses_is_never_made() {
    let mut database = Database::start_with(MariaDbOptions {
        galera: true,
        ..MariaDbOptions::default()
    });
    let (far, relay) = far(&database);
    let (ann, _, conversation) = suite::pair(&far);
    let refused = at_commit(
        &mut database,
        &far,
        &relay,
        suite::with_id(suite::text(conversation, ann, "never"), 1),
        |database| database.run("SET GLOBAL wsrep_reject_queries = ALL"),
        |_| {},
    );
    unavailable("refused", &refused);
    database.run("SET GLOBAL wsrep_reject_queries = NONE");
    wait_until("it serves again", PATIENCE, || {
        far.append(&[suite::text(conversation, ann, "afterwards")], &[])
            .is_ok()
    });
    assert_eq!(contents(&far, conversation), ["afterwards"]);
}
