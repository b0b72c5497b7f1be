//! The store on MySQL 8 or MariaDB 10.11.
//!
//! Every operation passes a circuit breaker: while the database is slow or away, it is refused at once instead of
//! holding its thread until a time-out. The number of threads that can be at the database at a time is limited
//! as well, so that there is always a worker left to say no.

mod errors;
mod pool;
mod session;
mod settings;

use std::{
    fmt, io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use mysql::{ClientIdentity, Conn, Opts, OptsBuilder, SslOpts, prelude::Queryable};
use nexus_rpc::{Circuit, CircuitOptions, NoPassage, Passage};

use self::{
    errors::{classify, classify_boundary, classify_commit},
    pool::{Connector, Link, Pool},
    session::MySqlSession,
    settings::Settings,
};
use crate::{
    error::{DbError, StoreError},
    sql::{Backend, Dialect, Memberships, Retry, Session, migrations, now_ms},
};

/// Connections that only batches of messages may use: they carry everybody's.
const CONNECTIONS_FOR_BATCHES: usize = 2;

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
    /// Connections at most; they are opened when they are needed. Two of them are kept for batches of messages. Default
    /// 16.
    pub connections_max: usize,
    /// The longest that connecting may take, and waiting for a connection when all are in use.
    /// Default 2 s.
    pub connect_timeout: Duration,
    /// The longest that one answer of the database may take. Default 5 s.
    pub io_timeout: Duration,
    /// An operation that takes so long counts as a sign that the database is away, though it is waited for; two
    /// such signs in a row, and others are refused at once. Default 1 s.
    pub stalled_after: Duration,
    /// What is kept in memory of who belongs to which conversation, in bytes, about. Default 64 MiB.
    pub cache_bytes: usize,
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
            stalled_after: Duration::from_secs(1),
            cache_bytes: 64 << 20,
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
            .field("stalled_after", &self.stalled_after)
            .field("cache_bytes", &self.cache_bytes)
            .finish_non_exhaustive()
    }
}

/// The store cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MySqlError {
    /// The URL is wrong or names no database.
    #[error("not a usable database URL: {0}")]
    InvalidUrl(String),
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] io::Error),
}

/// A [`Store`](crate::Store) on MySQL or MariaDB.
///
/// The database may be away when this is made and at any time later: operations then fail with
/// [`StoreError::Unavailable`], and work again once it is back, which a thread of the store finds
/// out. If it stalls, an operation that is under way ends with that error after two `connect_timeout` and
/// two `io_timeout` at the latest, save that changes of the schema are waited for; those that come after
/// `stalled_after` end with it at once. Until [`prepare_schema`](crate::Store::prepare_schema) has succeeded,
/// every other operation fails with that error as well.
///
/// A transaction that stands still for half of `io_timeout` is ended by MariaDB, and its locks are free. MySQL
/// has no such limit: there, what a server has locked when its network falls silent stays locked until the
/// database gives the connection up (`wait_timeout`).
///
/// Each connection sets its own session: character set, `sql_mode`, isolation level, time limits and what else
/// statements depend on. Defaults of the server and `init_connect` do not matter. A connection whose session stays
/// otherwise is not used: operations fail with [`StoreError::Unavailable`], and the log names the setting once. So is a server
/// with a binary log in the STATEMENT format, which takes no changes at READ COMMITTED, and one with a
/// `max_allowed_packet` below 4 MiB.
pub struct MySqlStore {
    pool: Arc<Pool>,
    circuit: Circuit,
    memberships: Arc<Memberships>,
    /// Of connections that change the schema.
    schema_connector: Connector,
    /// The schema was seen to be up to date: nothing touches the tables before.
    is_prepared: AtomicBool,
    retry_time_max: Duration,
}

impl MySqlStore {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// See [`MySqlError`].
    pub fn new(options: MySqlOptions) -> Result<Self, MySqlError> {
        let opts = Opts::from_url(&options.url)
            .map_err(|error| MySqlError::InvalidUrl(error.to_string()))?;
        if opts.get_db_name().is_none_or(str::is_empty) {
            return Err(MySqlError::InvalidUrl("it names no database".into()));
        }
        let opts = OptsBuilder::from_opts(opts)
            .tcp_connect_timeout(Some(options.connect_timeout))
            .read_timeout(Some(options.io_timeout))
            .write_timeout(Some(options.io_timeout))
            .ssl_opts(options.tls.as_ref().map(MySqlTls::ssl_opts))
            // Asking for the Unix socket behind a loopback address would be one more way to fail.
            .prefer_socket(false)
            .stmt_cache_size(STATEMENTS_MAX);
        // A change to a large table takes its time. A machine that is gone shows by TCP alone.
        let schema_opts = opts
            .clone()
            .read_timeout(None)
            .write_timeout(None)
            .tcp_keepalive_time_ms(Some(SCHEMA_KEEPALIVE_MS));
        let memberships = Arc::new(Memberships::new(options.cache_bytes));
        let pool = Arc::new(Pool::new(
            Connector::new(opts.into(), Settings::new(options.io_timeout)),
            options.connections_max,
            options.connect_timeout,
            Arc::clone(&memberships),
        ));
        let limits = CircuitOptions {
            stalled_after: options.stalled_after,
            at_work_max: options
                .connections_max
                .saturating_sub(CONNECTIONS_FOR_BATCHES)
                .max(1),
            ..CircuitOptions::default()
        };
        let probed = Arc::clone(&pool);
        Ok(Self {
            circuit: Circuit::start("database", limits, move || answers(&probed))?,
            pool,
            memberships,
            schema_connector: Connector::new(
                schema_opts.into(),
                Settings::of_schema_changes(options.io_timeout),
            ),
            is_prepared: AtomicBool::new(false),
            retry_time_max: options.io_timeout,
        })
    }

    /// Runs work on a connection, if the schema is there and the circuit lets it through.
    fn run<T>(
        &self,
        enter: impl FnOnce(&Circuit) -> Result<Passage<'_>, NoPassage>,
        work: impl FnMut(&mut Link) -> Result<T, DbError>,
    ) -> Result<T, StoreError> {
        if !self.is_prepared.load(Ordering::Acquire) {
            let reason = "its schema has not been prepared yet";
            return Err(StoreError::Unavailable(reason.into()));
        }
        let passage =
            enter(&self.circuit).map_err(|reason| StoreError::Unavailable(reason.to_string()))?;
        let result = self.run_unguarded(work);
        match &result {
            Err(error) if error.is_unavailable() => passage.failed(),
            // A conflict, or nonsense, is an answer too.
            Ok(_) | Err(_) => passage.answered(),
        }
        result
    }

    /// Runs work on a connection until it succeeds or is not to be retried.
    fn run_unguarded<T>(
        &self,
        mut work: impl FnMut(&mut Link) -> Result<T, DbError>,
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

/// The circuit's probe. A connection from before a restart is no sign; the second one is new. It reads a table: a
/// Galera node without quorum still answers what needs none.
fn answers(pool: &Pool) -> bool {
    let sql = "SELECT MAX(version) FROM schema_version";
    let ask = || pool.with(|link| link.conn.query_drop(sql).map_err(classify));
    let answer = match ask() {
        Err(DbError::Lost(_)) => ask(),
        answer => answer,
    };
    !matches!(
        answer,
        Err(DbError::Lost(_)
            | DbError::Unavailable(_)
            | DbError::Uncertain(_)
            | DbError::Interrupted(_))
    )
}

impl Backend for MySqlStore {
    type Plain = Self;

    fn plain(&self) -> &Self {
        self
    }

    fn bring_up_to_date(&self) -> Result<(), StoreError> {
        let migrations = migrations::migrations(Dialect::MySql);
        let up_to_date = self.run_unguarded(|link| {
            migrations::are_applied(&mut MySqlSession::new(link), migrations)
        })?;
        if !up_to_date {
            let (mut conn, _) = self.schema_connector.connect()?;
            lock_schema(&mut conn)?;
            migrations::apply(&mut MySqlSession::alone(&mut conn), migrations, now_ms())?;
        }
        self.is_prepared.store(true, Ordering::Release);
        Ok(())
    }

    fn memberships(&self) -> &Memberships {
        &self.memberships
    }

    fn is_away(&self) -> bool {
        self.circuit.is_open()
    }

    fn on_away(&self, act: Box<dyn Fn() + Send + Sync>) {
        self.circuit.on_open(act);
    }

    fn read<T>(
        &self,
        mut work: impl FnMut(&mut dyn Session) -> Result<T, DbError>,
    ) -> Result<T, StoreError> {
        self.run(Circuit::enter, |link| work(&mut MySqlSession::new(link)))
    }

    fn snapshot<T>(
        &self,
        mut work: impl FnMut(&mut dyn Session) -> Result<T, DbError>,
    ) -> Result<T, StoreError> {
        self.run(Circuit::enter, |link| {
            let level = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ";
            link.conn.query_drop(level).map_err(classify_boundary)?;
            let start = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";
            // It has changed nothing, so the fate of its end does not matter.
            transaction(link, start, &mut work, classify_boundary)
        })
    }

    fn write<T>(
        &self,
        mut work: impl FnMut(&mut dyn Session) -> Result<T, DbError>,
    ) -> Result<T, StoreError> {
        self.run(Circuit::enter, |link| {
            transaction(link, "START TRANSACTION", &mut work, classify_commit)
        })
    }

    fn write_batch<T>(
        &self,
        mut work: impl FnMut(&mut dyn Session) -> Result<T, DbError>,
    ) -> Result<T, StoreError> {
        self.run(Circuit::enter_at_once, |link| {
            transaction(link, "START TRANSACTION", &mut work, classify_commit)
        })
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
///
/// Whatever an error has undone, nothing is left open: the next START TRANSACTION would commit it.
fn transaction<T>(
    link: &mut Link,
    start: &str,
    work: &mut impl FnMut(&mut dyn Session) -> Result<T, DbError>,
    classify_commit: fn(mysql::Error) -> DbError,
) -> Result<T, DbError> {
    link.conn.query_drop(start).map_err(classify_boundary)?;
    let committed = work(&mut MySqlSession::new(link)).and_then(|done| {
        link.conn.query_drop("COMMIT").map_err(classify_commit)?;
        Ok(done)
    });
    match committed {
        Ok(done) => Ok(done),
        Err(error @ (DbError::Lost(_) | DbError::Unavailable(_) | DbError::Uncertain(_))) => {
            Err(error)
        }
        Err(error) => {
            link.conn
                .query_drop("ROLLBACK")
                .map_err(classify_boundary)?;
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
