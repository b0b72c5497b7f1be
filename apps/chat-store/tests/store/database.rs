//! A MariaDB with an account for the store, and what an operator does to both.

use mysql::{Conn, Opts, prelude::Queryable};
use nexus_testkit::{MariaDb, MariaDbOptions};

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
        let address = self.server.address();
        format!("mysql://chat:chat@{address}/nexus")
    }
}
