//! A MariaDB with an account for the store, and what an operator does to both.

use std::time::Duration;

use chat_store::*;
use mysql::{Conn, Opts, prelude::Queryable};
use nexus_testkit::{MariaDb, MariaDbOptions, wait_until};

/// For what the database does by itself.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A server, and an operator's connection to it.
pub(crate) struct Database {
    pub(crate) server: MariaDb,
    pub(crate) operator: Conn,
}

impl Database {
    pub(crate) fn start_with(options: MariaDbOptions) -> Self {
        let server = MariaDb::start_with(options).unwrap();
        let mut operator = Conn::new(Opts::from_url(&server.url()).unwrap()).unwrap();
        for sql in [
            "CREATE USER chat@'127.0.0.1' IDENTIFIED BY 'chat'",
            "GRANT ALL ON nexus.* TO chat@'127.0.0.1'",
        ] {
            operator.query_drop(sql).unwrap();
        }
        Self { server, operator }
    }

    pub(crate) fn start() -> Self {
        Self::start_with(MariaDbOptions::default())
    }

    pub(crate) fn run(&mut self, sql: &str) {
        if let Err(error) = self.operator.query_drop(sql) {
            panic!("{sql}: {error}");
        }
    }

    /// One more connection of the operator.
    pub(crate) fn connect(&self) -> Conn {
        Conn::new(Opts::from_url(&self.server.url()).unwrap()).unwrap()
    }

    /// How the store's account, which has no rights beyond its database, reaches it.
    pub(crate) fn url(&self) -> String {
        self.url_at(self.server.address())
    }

    pub(crate) fn url_at(&self, address: std::net::SocketAddr) -> String {
        format!("mysql://chat:chat@{address}/nexus")
    }

    /// A store with short time limits, whose schema is there.
    pub(crate) fn store_at(&self, url: String) -> MySqlStore {
        let options = MySqlOptions {
            io_timeout: Duration::from_secs(2),
            connections_max: 4,
            ..MySqlOptions::new(url)
        };
        let store = MySqlStore::new(options).unwrap();
        store.prepare_schema().unwrap();
        store
    }

    pub(crate) fn store(&self) -> MySqlStore {
        self.store_at(self.url())
    }

    /// Ids of the account's connections that run such a statement.
    pub(crate) fn running(&mut self, statement: &str) -> Vec<u64> {
        let sql =
            "SELECT ID FROM information_schema.PROCESSLIST WHERE USER = 'chat' AND INFO LIKE ?";
        self.operator.exec(sql, (statement,)).unwrap()
    }

    /// Waits until a connection of the account runs such a statement.
    pub(crate) fn await_running(&mut self, statement: &str) {
        wait_until(statement, PATIENCE, || !self.running(statement).is_empty());
    }
}

/// Locks the row of a conversation until the transaction of the connection ends.
pub(crate) fn lock(conn: &mut Conn, conversation: ConversationId) {
    conn.query_drop("START TRANSACTION").unwrap();
    let raw = conversation.raw();
    let sql = format!("SELECT last_seq FROM conversation WHERE id = {raw} FOR UPDATE");
    conn.query_drop(sql).unwrap();
}
