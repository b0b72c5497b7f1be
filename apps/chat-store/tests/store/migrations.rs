//! The schema on its way: empty databases, older ones, newer ones, and several servers at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Barrier,
    thread,
};

use chat_store::*;
use mysql::{Conn, Opts, prelude::Queryable};
use nexus_testkit::MariaDb;
use rusqlite::Connection;

use crate::suite::{self, unused_name};

const SCHEMA: &str = include_str!("../../../../schema.sql");
const FIRST_MYSQL: &str = include_str!("../../migrations/mysql/V1__tables.sql");
const FIRST_SQLITE: &str = include_str!("../../migrations/sqlite/V1__tables.sql");

/// A database server with a database of that name for each test, and a connection to it.
struct Database {
    server: MariaDb,
    conn: Conn,
}

impl Database {
    fn start() -> Self {
        let server = MariaDb::start().unwrap();
        let conn = Conn::new(Opts::from_url(&server.url()).unwrap()).unwrap();
        Self { server, conn }
    }

    fn store(&self) -> MySqlStore {
        MySqlStore::new(MySqlOptions::new(self.server.url())).unwrap()
    }

    fn run_file(&mut self, sql: &str) {
        let mut result = self.conn.query_iter(sql).unwrap();
        while let Some(one) = result.iter() {
            one.for_each(|row| drop(row.unwrap()));
        }
    }

    /// Empties the database.
    fn clear(&mut self) {
        self.run_file("DROP DATABASE nexus; CREATE DATABASE nexus; USE nexus");
    }

    /// How each table is made, without the ids that it will give out next.
    fn tables(&mut self) -> BTreeMap<String, String> {
        let names: Vec<String> = self.conn.query("SHOW TABLES").unwrap();
        let mut tables = BTreeMap::new();
        for name in names {
            let made: Option<(String, String)> = self
                .conn
                .query_first(format!("SHOW CREATE TABLE {name}"))
                .unwrap();
            let made = made.unwrap().1;
            let words = made
                .split(' ')
                .filter(|word| !word.starts_with("AUTO_INCREMENT="));
            tables.insert(name, words.collect::<Vec<_>>().join(" "));
        }
        tables
    }

    fn versions(&mut self) -> Vec<(i64, String)> {
        let sql = "SELECT version, name FROM schema_version ORDER BY version";
        self.conn.query(sql).unwrap()
    }

    /// Table, column, whether it may be null.
    fn columns(&mut self) -> BTreeSet<(String, String, bool)> {
        let sql = "SELECT table_name, column_name, is_nullable = 'YES'
                   FROM information_schema.columns WHERE table_schema = DATABASE()";
        let columns: Vec<_> = self.conn.query(sql).unwrap();
        columns.into_iter().collect()
    }
}

#[test]
fn the_migrations_make_what_the_schema_file_says() {
    let mut database = Database::start();
    database.store().prepare_schema().unwrap();
    let (tables, versions) = (database.tables(), database.versions());
    let columns = database.columns();

    database.clear();
    database.run_file(SCHEMA);
    assert_eq!(database.tables(), tables);
    assert_eq!(database.versions(), versions);
    // A server that must not change tables can use what was made by hand.
    database.run_file(
        "CREATE USER reader@127.0.0.1;
         GRANT SELECT, INSERT, UPDATE, DELETE ON nexus.* TO reader@127.0.0.1",
    );
    let url = database.server.url().replace("root@", "reader@");
    let store = MySqlStore::new(MySqlOptions::new(url)).unwrap();
    store.prepare_schema().unwrap();
    suite::register(&store, "ann");

    // SQLite has the same tables with the same columns.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.db");
    drop(SqliteStore::open(&path).unwrap());
    assert_eq!(sqlite_columns(&path), columns);
}

fn sqlite_columns(path: &std::path::Path) -> BTreeSet<(String, String, bool)> {
    let conn = Connection::open(path).unwrap();
    let sql = "SELECT t.name, c.name, c.\"notnull\" = 0 AND c.pk = 0
               FROM pragma_table_list t JOIN pragma_table_info(t.name) c
               WHERE t.type = 'table' AND t.schema = 'main' AND t.name NOT LIKE 'sqlite_%'";
    let mut statement = conn.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    rows.unwrap().map(Result::unwrap).collect()
}

#[test]
fn servers_that_start_at_once_share_an_empty_database() {
    let mut database = Database::start();
    for servers in [2, 8] {
        database.clear();
        let start = Barrier::new(servers);
        thread::scope(|scope| {
            for _ in 0..servers {
                scope.spawn(|| {
                    let store = database.store();
                    start.wait();
                    store.prepare_schema().unwrap();
                    suite::pair(&store);
                });
            }
        });
        let versions: Vec<_> = database.versions().iter().map(|one| one.0).collect();
        assert_eq!(versions, (1..=versions.len() as i64).collect::<Vec<_>>());
    }
}

#[test]
fn servers_that_start_at_once_share_an_empty_file() {
    for servers in [2, 8] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chat.db");
        let start = Barrier::new(servers);
        thread::scope(|scope| {
            for _ in 0..servers {
                scope.spawn(|| {
                    start.wait();
                    suite::pair(&SqliteStore::open(&path).unwrap());
                });
            }
        });
    }
}

#[test]
fn a_database_from_before_there_were_versions_is_taken_up() {
    let mut database = Database::start();
    database.run_file(FIRST_MYSQL);
    database.run_file("INSERT INTO user (name, password_hash) VALUES ('old', 'hash')");
    let store = database.store();
    store.prepare_schema().unwrap();
    let old = store.user(UserId::new(1).unwrap()).unwrap().unwrap();
    assert_eq!(old.name, "old");
    let tables = database.tables();
    database.clear();
    database.store().prepare_schema().unwrap();
    assert_eq!(database.tables(), tables);
}

#[test]
fn a_file_from_before_there_were_versions_is_taken_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.db");
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch(FIRST_SQLITE).unwrap();
    let sql = "INSERT INTO user (name, password_hash) VALUES ('old', 'hash')";
    conn.execute(sql, []).unwrap();
    let store = SqliteStore::open(&path).unwrap();
    let old = store.user(UserId::new(1).unwrap()).unwrap().unwrap();
    assert_eq!(old.name, "old");
    suite::pair(&store);
}

#[test]
fn changes_whose_record_was_not_made_are_passed_over() {
    let mut database = Database::start();
    database.store().prepare_schema().unwrap();
    let (tables, versions) = (database.tables(), database.versions());
    // As when the server died between a change and its record.
    for version in (1..=versions.len()).rev() {
        database.run_file(&format!(
            "DELETE FROM schema_version WHERE version >= {version}"
        ));
        database.store().prepare_schema().unwrap();
        assert_eq!(database.versions(), versions);
        assert_eq!(database.tables(), tables);
    }
}

#[test]
fn a_newer_database_is_refused_and_left_alone() {
    let newer = "INSERT INTO schema_version (version, name, applied_at_ms) VALUES (1000, 'x', 0)";
    let is_newer = |result: Result<(), StoreError>| {
        let error = result.unwrap_err();
        assert!(
            matches!(error, StoreError::NewerSchema { found: 1000, known } if known < 1000),
            "{error}"
        );
        assert!(error.to_string().contains("1000"), "{error}");
    };

    let mut database = Database::start();
    let running = database.store();
    running.prepare_schema().unwrap();
    database.run_file(newer);
    let store = database.store();
    is_newer(store.prepare_schema());
    let refused = store.create_user(&unused_name("ann"), "hash");
    assert!(refused.is_err_and(|error| error.is_unavailable()));
    // One that runs already goes on: the newer one left it what it needs.
    suite::pair(&running);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.db");
    drop(SqliteStore::open(&path).unwrap());
    Connection::open(&path).unwrap().execute(newer, []).unwrap();
    is_newer(SqliteStore::open(&path).map(drop));
}

#[test]
fn a_server_waits_for_the_one_that_changes_the_schema() {
    let mut database = Database::start();
    let lock = "SELECT GET_LOCK(CONCAT('chat-schema-', SHA1(DATABASE())), 0)";
    assert_eq!(database.conn.query_first(lock).unwrap(), Some(1));
    let store = database.store();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| store.prepare_schema());
        let sql = "SELECT COUNT(*) FROM information_schema.processlist WHERE state = 'User lock'";
        nexus_testkit::wait_until("it waits", std::time::Duration::from_secs(10), || {
            database.conn.query_first(sql).unwrap() == Some(1)
        });
        assert!(database.tables().is_empty());
        database.run_file("SELECT RELEASE_ALL_LOCKS()");
        waiting.join().unwrap().unwrap();
    });
    suite::pair(&store);
}
