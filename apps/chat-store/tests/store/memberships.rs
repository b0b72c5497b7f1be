//! What a MySQL store keeps in memory: that it spares the database the reading, and when it must not count.

use chat_store::*;
use mysql::{Conn, Opts, prelude::Queryable};
use nexus_testkit::MariaDb;

use crate::suite::{self, NO_LIMIT, befriend, join, register, send, text};

struct Database {
    server: MariaDb,
    conn: Conn,
    store: MySqlStore,
}

impl Database {
    fn start() -> Self {
        let server = MariaDb::start().unwrap();
        let options = MySqlOptions {
            // One for the batches and one for everything else, so that none is opened on the way.
            connections_max: 2,
            ..MySqlOptions::new(server.url())
        };
        let store = MySqlStore::new(options).unwrap();
        store.prepare_schema().unwrap();
        let conn = Conn::new(Opts::from_url(&server.url()).unwrap()).unwrap();
        Self {
            server,
            conn,
            store,
        }
    }

    /// How many SELECTs `work` makes the store run.
    fn reads(&mut self, work: impl FnOnce(&MySqlStore)) -> u64 {
        let before = self.selects();
        work(&self.store);
        self.selects() - before
    }

    fn selects(&mut self) -> u64 {
        let sql = "SHOW GLOBAL STATUS LIKE 'Com_select'";
        let row: Option<(String, u64)> = self.conn.query_first(sql).unwrap();
        row.unwrap().1
    }
}

#[test]
fn what_is_known_is_not_read() {
    let mut database = Database::start();
    let store = &database.store;
    let (ann, bob, pair) = suite::pair(store);
    let carl = register(store, "carl");
    befriend(store, ann, carl);
    let group = suite::create_group(store, ann, "group", "").id;
    join(store, bob, group);
    let conversation = ConversationId::group(group);

    let send_both = |store: &MySqlStore| {
        let by = |user| Terms {
            login: Some(Login { user, number: 0 }),
            ..Terms::default()
        };
        let (a, b) = (text(pair, ann, "x"), text(conversation, bob, "y"));
        let batch = [a, b].map(|message| NewMessage {
            terms: by(message.sender),
            ..message
        });
        let outcomes = store.append(&batch, &[]).unwrap();
        outcomes.iter().for_each(|outcome| {
            suite::committed(outcome);
        });
    };
    let first = database.reads(send_both);
    assert!(first > 1, "{first}");
    // What is left is the reading of the sequences, with the lock, and in it the look at the senders' logins.
    let more = database.reads(|store| (0..10).for_each(|_| send_both(store)));
    assert_eq!(more, 10);

    let lists = |store: &MySqlStore| {
        assert_eq!(store.friends(ann).unwrap().len(), 2);
        assert_eq!(store.groups(ann).unwrap()[0].members.len(), 2);
    };
    lists(&database.store);
    assert_eq!(database.reads(lists), 2);
    // The conversations, and the pending messages.
    let overview = database.reads(|store| {
        let overview = store.overview(ann, &[], NO_LIMIT, usize::MAX).unwrap();
        assert_eq!(overview.friends.items.len(), 2);
        assert_eq!(overview.groups.items[0].members.len(), 2);
    });
    assert_eq!(overview, 2);

    // After a change the one conversation is read again.
    join(&database.store, carl, group);
    assert!(database.reads(send_both) > 1);
    assert_eq!(database.reads(send_both), 1);
}

/// A server of the version before knows nothing of the column: it leaves it as it is.
#[test]
fn a_change_by_a_program_that_does_not_know_the_column_holds_at_once() {
    let mut database = Database::start();
    let store = &database.store;
    let (ann, bob, carl) = (
        register(store, "ann"),
        register(store, "bob"),
        register(store, "carl"),
    );
    let group = suite::create_group(store, ann, "group", "").id;
    join(store, bob, group);
    let conversation = ConversationId::group(group);
    for sender in [ann, bob, ann] {
        send(store, conversation, sender, "known now");
    }
    let raw = conversation.raw();
    let tell = |kind: i32, who: UserId| {
        format!(
            "UPDATE conversation SET last_seq = last_seq + 1 WHERE id = {raw}; \
             INSERT INTO message (conversation_id, seq, sender_id, kind, content, client_time, \
             created_at_ms) SELECT id, last_seq, {who}, {kind}, '', '', 0 FROM conversation \
             WHERE id = {raw};",
        )
    };
    // Bob leaves, Carl joins: as many members as before.
    let leave = format!(
        "BEGIN; {} DELETE FROM group_member WHERE group_id = {group} AND user_id = {bob}; COMMIT",
        tell(6, bob)
    );
    let join = format!(
        "BEGIN; {} INSERT INTO group_member (group_id, user_id, role, joined_seq) \
         SELECT {group}, {carl}, 0, last_seq FROM conversation WHERE id = {raw}; COMMIT",
        tell(5, carl)
    );
    for change in [leave, join] {
        let mut results = database.conn.query_iter(change).unwrap();
        while let Some(result) = results.iter() {
            result.for_each(|row| drop(row.unwrap()));
        }
    }
    let batch = [ann, bob, carl].map(|sender| text(conversation, sender, "x"));
    let outcomes = database.store.append(&batch, &[]).unwrap();
    for (outcome, allowed) in outcomes.iter().zip([true, false, true]) {
        match outcome {
            AppendOutcome::Committed { members, .. } if allowed => {
                assert_eq!(members.as_deref(), Some(&[ann, carl][..]));
            }
            AppendOutcome::NotMember if !allowed => {}
            other => panic!("{other:?}"),
        }
    }
}

/// A database that is another one after a break may give out the same sequences for another story.
#[test]
fn a_connection_after_a_break_knows_nothing_of_what_the_last_one_saw() {
    let mut database = Database::start();
    let (ann, bob, pair) = suite::pair(&database.store);
    send(&database.store, pair, ann, "known now");
    // The past is changed behind the store's back, as a copy that lagged would.
    let sql = format!("DELETE FROM friendship WHERE user_id IN ({ann}, {bob})");
    database.conn.query_drop(sql).unwrap();
    database.server.kill();
    database.server.restart().unwrap();
    let outcomes = database.store.append(&[text(pair, ann, "x")], &[]);
    assert_eq!(outcomes.unwrap(), [AppendOutcome::NotFriends]);
}

/// A primary that has become a copy answers that it is read-only; what was known of its history may not be that of
/// the next.
#[test]
fn a_database_that_has_become_read_only_makes_all_be_forgotten() {
    let mut database = Database::start();
    // Root may write all the same.
    for sql in [
        "CREATE USER chat@'%' IDENTIFIED BY 'chat'",
        "GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX ON *.* TO chat@'%'",
    ] {
        database.conn.query_drop(sql).unwrap();
    }
    let url = database.server.url();
    let (_, place) = url.split_once('@').unwrap();
    let options = MySqlOptions {
        connections_max: 3,
        ..MySqlOptions::new(format!("mysql://chat:chat@{place}"))
    };
    let store = MySqlStore::new(options).unwrap();
    store.prepare_schema().unwrap();
    let (ann, bob, pair) = suite::pair(&store);
    // Two connections at least: one waits for the lock, the other finds the friends.
    database.conn.query_drop("BEGIN").unwrap();
    let lock = format!(
        "SELECT 1 FROM conversation WHERE id = {} FOR UPDATE",
        pair.raw()
    );
    database.conn.query_drop(lock).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| send(&store, pair, ann, "known now"));
        // Not INNODB_TRX, which stands still while it is read more often than every 100 ms.
        let waits = "SELECT VARIABLE_VALUE FROM information_schema.global_status \
                     WHERE VARIABLE_NAME = 'INNODB_ROW_LOCK_CURRENT_WAITS'";
        nexus_testkit::wait_until("it waits", std::time::Duration::from_secs(20), || {
            let mut conn = Conn::new(Opts::from_url(&database.server.url()).unwrap()).unwrap();
            conn.query_first(waits).unwrap() == Some("1".to_owned())
        });
        assert_eq!(store.friends(ann).unwrap().len(), 1);
        database.conn.query_drop("COMMIT").unwrap();
    });

    database
        .conn
        .query_drop("SET GLOBAL read_only = 1")
        .unwrap();
    let batch = [text(pair, ann, "x")];
    let refused = store.append(&batch, &[]);
    assert!(
        matches!(&refused, Err(error) if error.is_unavailable()),
        "{refused:?}"
    );
    let sql = format!("DELETE FROM friendship WHERE user_id IN ({ann}, {bob})");
    database.conn.query_drop(sql).unwrap();
    database
        .conn
        .query_drop("SET GLOBAL read_only = 0")
        .unwrap();
    assert_eq!(
        store.append(&batch, &[]).unwrap(),
        [AppendOutcome::NotFriends]
    );
}
