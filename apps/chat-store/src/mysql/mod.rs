//! The store on MySQL 8 or MariaDB 10.11.

mod errors;
mod pool;
mod session;

use std::{
    fmt,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use mysql::{ClientIdentity, Conn, Opts, OptsBuilder, SslOpts, prelude::Queryable};

use self::{
    errors::{classify, classify_commit},
    pool::Pool,
    session::MySqlSession,
};
use crate::{
    error::{DbError, StoreError},
    sql::{Backend, Dialect, Retry, Session, migrations, now_ms},
};

/// More than there are different statements, so that a connection prepares each once.
const STATEMENTS_MAX: usize = 256;

/// How long a server waits for another one that changes the schema, before it says so.
const SCHEMA_LOCK_WAIT_S: u32 = 10;

const SCHEMA_KEEPALIVE_MS: u32 = 10_000;

/// How to reach a database.
#[derive(Clone)]
pub struct MySqlOptions {
    /// `mysql://user:password@host:port/database`. The driver tries the first address of a host
    /// name only, so rather name an address.
    pub url: String,
    /// TLS, and how the database is known. Default: none.
    pub tls: Option<MySqlTls>,
    /// Connections at most; they are opened when they are needed. Default 16.
    pub connections_max: usize,
    /// The longest that connecting may take, and waiting for a connection when all are in use.
    /// Default 2 s.
    pub connect_timeout: Duration,
    /// The longest that one answer of the database may take. Default 5 s.
    pub io_timeout: Duration,
}

impl MySqlOptions {
    /// This database, everything else by default.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            tls: None,
            connections_max: 16,
            connect_timeout: Duration::from_secs(2),
            io_timeout: Duration::from_secs(5),
        }
    }
}

/// What TLS with a database needs: files in PEM. They are read for each connection, so renewed ones are
/// taken up by themselves, and broken ones make connecting fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MySqlTls {
    /// The database's certificate is signed by one of these, or by one of the public authorities that
    /// browsers trust; it is for the host of the URL.
    pub ca: PathBuf,
    /// Certificate and key to show when the database asks.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl MySqlTls {
    fn ssl_opts(&self) -> SslOpts {
        let identity = self.identity.as_ref();
        let identity = identity
            .map(|(certificate, key)| ClientIdentity::new(certificate.clone(), key.clone()));
        SslOpts::default()
            .with_root_cert_path(Some(self.ca.clone()))
            .with_client_identity(identity)
    }
}

/// Leaves the URL out, because the password is in it.
impl fmt::Debug for MySqlOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MySqlOptions")
            .field("connections_max", &self.connections_max)
            .field("connect_timeout", &self.connect_timeout)
            .field("io_timeout", &self.io_timeout)
            .finish_non_exhaustive()
    }
}

/// The URL of a database cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a usable database URL: {0}")]
pub struct InvalidUrl(String);

/// A [`Store`](crate::Store) on MySQL or MariaDB.
///
/// The database may be away when this is made and at any time later: operations then fail with
/// [`StoreError::Unavailable`], and work again once it is back. If it stalls, an operation ends
/// with that error after two `connect_timeout` and two `io_timeout` at the latest, save that changes
/// of the schema are waited for. Until [`prepare_schema`](crate::Store::prepare_schema) has succeeded,
/// every other operation fails with that error as well.
///
/// Transactions run at READ COMMITTED, so a binary log must not be in the STATEMENT format.
pub struct MySqlStore {
    pool: Pool,
    /// Of connections that change the schema.
    schema_opts: Opts,
    /// The schema was seen to be up to date: nothing touches the tables before.
    is_prepared: AtomicBool,
    retry_time_max: Duration,
}

impl MySqlStore {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// The URL is wrong or names no database.
    pub fn new(options: MySqlOptions) -> Result<Self, InvalidUrl> {
        let opts = Opts::from_url(&options.url).map_err(|error| InvalidUrl(error.to_string()))?;
        if opts.get_db_name().is_none_or(str::is_empty) {
            return Err(InvalidUrl("it names no database".into()));
        }
        // Below the IO timeout, so that a lock that is waited for too long is told by the database
        // and does not cost the connection.
        let lock_wait_s = (options.io_timeout.as_secs() / 2).max(1);
        let opts = OptsBuilder::from_opts(opts)
            .tcp_connect_timeout(Some(options.connect_timeout))
            .read_timeout(Some(options.io_timeout))
            .write_timeout(Some(options.io_timeout))
            .ssl_opts(options.tls.as_ref().map(MySqlTls::ssl_opts))
            // Asking for the Unix socket behind a loopback address would be one more way to fail.
            .prefer_socket(false)
            .stmt_cache_size(STATEMENTS_MAX)
            .init(vec![
                "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED".to_owned(),
                format!(
                    "SET SESSION innodb_lock_wait_timeout = {lock_wait_s}, \
                     sql_mode = 'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION'"
                ),
            ]);
        // A change to a large table takes its time. A machine that is gone shows by TCP alone.
        let schema_opts = opts
            .clone()
            .read_timeout(None)
            .write_timeout(None)
            .tcp_keepalive_time_ms(Some(SCHEMA_KEEPALIVE_MS));
        Ok(Self {
            pool: Pool::new(
                opts.into(),
                options.connections_max,
                options.connect_timeout,
            ),
            schema_opts: schema_opts.into(),
            is_prepared: AtomicBool::new(false),
            retry_time_max: options.io_timeout,
        })
    }

    /// Runs work on a connection until it succeeds or is not to be retried.
    fn run<T>(&self, work: impl FnMut(&mut Conn) -> Result<T, DbError>) -> Result<T, StoreError> {
        if !self.is_prepared.load(Ordering::Acquire) {
            let reason = "its schema has not been prepared yet";
            return Err(StoreError::Unavailable(reason.into()));
        }
        self.run_unprepared(work)
    }

    fn run_unprepared<T>(
        &self,
        mut work: impl FnMut(&mut Conn) -> Result<T, DbError>,
    ) -> Result<T, StoreError> {
        let mut retry = Retry::new(self.retry_time_max);
        loop {
            match self.pool.with(&mut work) {
                Ok(done) => return Ok(done),
                Err(error) => retry.after(error)?,
            }
        }
    }
}

impl Backend for MySqlStore {
    fn bring_up_to_date(&self) -> Result<(), StoreError> {
        let migrations = migrations::migrations(Dialect::MySql);
        let up_to_date = self
            .run_unprepared(|conn| migrations::are_applied(&mut MySqlSession(conn), migrations))?;
        if !up_to_date {
            let mut conn = pool::connect(&self.schema_opts)?;
            lock_schema(&mut conn)?;
            migrations::apply(&mut MySqlSession(&mut conn), migrations, now_ms())?;
        }
        self.is_prepared.store(true, Ordering::Release);
        Ok(())
    }

    fn read<T>(
        &self,
        mut work: impl FnMut(&mut dyn Session) -> Result<T, DbError>,
    ) -> Result<T, StoreError> {
        self.run(|conn| work(&mut MySqlSession(conn)))
    }

    fn snapshot<T>(
        &self,
        mut work: impl FnMut(&mut dyn Session) -> Result<T, DbError>,
    ) -> Result<T, StoreError> {
        self.run(|conn| {
            let level = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ";
            conn.query_drop(level).map_err(classify)?;
            let start = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";
            transaction(conn, start, &mut work)
        })
    }

    fn write<T>(
        &self,
        mut work: impl FnMut(&mut dyn Session) -> Result<T, DbError>,
    ) -> Result<T, StoreError> {
        self.run(|conn| transaction(conn, "START TRANSACTION", &mut work))
    }
}

/// Waits until no other server changes the schema. The lock ends with the connection; its name is
/// known to the whole database server, so that of the database is part of it.
fn lock_schema(conn: &mut Conn) -> Result<(), DbError> {
    let sql = "SELECT GET_LOCK(CONCAT('chat-schema-', SHA1(DATABASE())), ?)";
    let locked: Option<Option<i64>> = conn
        .exec_first(sql, (SCHEMA_LOCK_WAIT_S,))
        .map_err(classify)?;
    match locked {
        Some(Some(1)) => Ok(()),
        _ => Err(DbError::Unavailable(
            "another server is changing the schema".into(),
        )),
    }
}

/// The driver's own transaction is not used: dropped on a stalled connection, it would wait for the
/// answer to a ROLLBACK. Such a connection is thrown away, which rolls back as well.
fn transaction<T>(
    conn: &mut Conn,
    start: &str,
    work: &mut impl FnMut(&mut dyn Session) -> Result<T, DbError>,
) -> Result<T, DbError> {
    conn.query_drop(start).map_err(classify)?;
    match work(&mut MySqlSession(conn)) {
        Ok(done) => {
            conn.query_drop("COMMIT").map_err(classify_commit)?;
            Ok(done)
        }
        Err(error @ (DbError::Lost(_) | DbError::Unavailable(_))) => Err(error),
        Err(error) => {
            conn.query_drop("ROLLBACK").map_err(classify)?;
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_cannot_work_are_refused_at_once() {
        for url in [
            "",
            "nonsense",
            "http://127.0.0.1/chat",
            "mysql://u@127.0.0.1:3306",
        ] {
            assert!(MySqlStore::new(MySqlOptions::new(url)).is_err(), "{url}");
        }
    }

    #[test]
    fn printed_options_show_no_password() {
        let options = MySqlOptions::new("mysql://user:secret@127.0.0.1/chat");
        assert!(!format!("{options:?}").contains("secret"));
    }
}
