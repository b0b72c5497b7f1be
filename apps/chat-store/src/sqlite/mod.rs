//! The store on SQLite: one file, and nothing to install.

mod backup;
mod private_file;
mod session;

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender};
use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode, TransactionBehavior};

pub(crate) use self::session::SqliteSession;
use self::session::classify;
use crate::{
    error::{DbError, StoreError},
    sql::{Backend, Dialect, Memberships, Retry, Session, migrations, now_ms},
};

/// Connections that read while another one writes.
const READERS: usize = 4;

/// The longest wait for a reader, and for another process that writes to the same file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// What is kept in memory of who belongs to which conversation, about.
const CACHE_BYTES: usize = 16 << 20;

/// More than there are different statements.
const STATEMENTS_MAX: usize = 256;

/// A [`Store`](crate::Store) in a SQLite file, or in memory.
///
/// Writes wait for each other; with a file, reads do not wait for them (write-ahead log). A commit
/// is synced to the disk before it returns.
pub struct SqliteStore {
    writer: Mutex<Connection>,
    /// `None` in memory, where every connection would have a database of its own.
    readers: Option<Readers>,
    memberships: Memberships,
}

impl SqliteStore {
    /// Opens a file, and makes it with its tables if it is not there. The file, and those that SQLite makes beside it, are
    /// for their owner alone; dropped, the last store of a file leaves that one file.
    ///
    /// # Errors
    /// The file cannot be opened or is no database of this chat.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        private_file::make(path).map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let writer = Connection::open(path).and_then(set_up).map_err(classify)?;
        let store = Self {
            writer: Mutex::new(writer),
            readers: Some(Readers::open(path)?),
            memberships: Memberships::new(CACHE_BYTES),
        };
        store.bring_up_to_date()?;
        private_file::close_to_others(path);
        Ok(store)
    }

    /// A store that is gone when it is dropped.
    ///
    /// # Errors
    /// SQLite cannot start.
    pub fn in_memory() -> Result<Self, StoreError> {
        let writer = Connection::open_in_memory()
            .and_then(set_up)
            .map_err(classify)?;
        let store = Self {
            writer: Mutex::new(writer),
            readers: None,
            memberships: Memberships::new(CACHE_BYTES),
        };
        store.bring_up_to_date()?;
        Ok(store)
    }

    fn run<T>(&self, mut attempt: impl FnMut() -> Result<T, DbError>) -> Result<T, StoreError> {
        let mut retry = Retry::new(BUSY_TIMEOUT);
        loop {
            match attempt() {
                Ok(done) => return Ok(done),
                Err(error) => retry.after(error)?,
            }
        }
    }
}

impl Backend for SqliteStore {
    type Plain = Self;

    fn plain(&self) -> &Self {
        self
    }

    fn bring_up_to_date(&self) -> Result<(), StoreError> {
        let migrations = migrations::migrations(Dialect::Sqlite);
        match self.read(|s| migrations::are_applied(s, migrations))? {
            true => Ok(()),
            false => self.write(|s| migrations::apply(s, migrations, now_ms())),
        }
    }

    fn memberships(&self) -> &Memberships {
        &self.memberships
    }

    fn read<T>(
        &self,
        work: impl FnMut(&mut dyn Session) -> Result<T, DbError>,
    ) -> Result<T, StoreError> {
        self.snapshot(work)
    }

    fn snapshot<T>(
        &self,
        mut work: impl FnMut(&mut dyn Session) -> Result<T, DbError>,
    ) -> Result<T, StoreError> {
        let behavior = TransactionBehavior::Deferred;
        self.run(|| match &self.readers {
            Some(readers) => readers.with(|conn| transaction(conn, behavior, &mut work)),
            None => transaction(&mut self.writer.lock(), behavior, &mut work),
        })
    }

    fn write<T>(
        &self,
        mut work: impl FnMut(&mut dyn Session) -> Result<T, DbError>,
    ) -> Result<T, StoreError> {
        let behavior = TransactionBehavior::Immediate;
        self.run(|| transaction(&mut self.writer.lock(), behavior, &mut work))
    }
}

/// Connections that only read, each handed to one thread at a time.
struct Readers {
    free: Receiver<Connection>,
    give_back: Sender<Connection>,
}

impl Readers {
    fn open(path: &Path) -> Result<Self, StoreError> {
        let (give_back, free) = crossbeam_channel::bounded(READERS);
        for _ in 0..READERS {
            let reader = Connection::open(path).and_then(set_up).map_err(classify)?;
            give_back.try_send(reader).map_err(|_| {
                StoreError::Internal("there are more readers than places for them".into())
            })?;
        }
        Ok(Self { free, give_back })
    }

    fn with<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, DbError>,
    ) -> Result<T, DbError> {
        let conn = self
            .free
            .recv_timeout(BUSY_TIMEOUT)
            .map_err(|_| DbError::Unavailable("all readers are in use".into()))?;
        let mut lease = ReaderLease {
            readers: self,
            conn: Some(conn),
        };
        match lease.conn.as_mut() {
            Some(conn) => work(conn),
            None => Err(DbError::Internal("a reader was taken twice".into())),
        }
    }
}

/// Gives a reader back also when the work on it panics.
struct ReaderLease<'a> {
    readers: &'a Readers,
    conn: Option<Connection>,
}

impl Drop for ReaderLease<'_> {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            // There is a place for each; it can only fail if there is none.
            let _ = self.readers.give_back.try_send(conn);
        }
    }
}

fn set_up(conn: Connection) -> rusqlite::Result<Connection> {
    conn.busy_timeout(BUSY_TIMEOUT)?;
    turn_on_log(&conn)?;
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(conn)
}

/// In a new file this needs the file alone, for which SQLite does not always wait by itself.
fn turn_on_log(conn: &Connection) -> rusqlite::Result<()> {
    let until = Instant::now() + BUSY_TIMEOUT;
    loop {
        match conn.pragma_update(None, "journal_mode", "WAL") {
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                    && Instant::now() < until =>
            {
                thread::sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}

/// Dropped without a commit, a transaction is rolled back.
fn transaction<T>(
    conn: &mut Connection,
    behavior: TransactionBehavior,
    work: &mut impl FnMut(&mut dyn Session) -> Result<T, DbError>,
) -> Result<T, DbError> {
    let transaction = conn.transaction_with_behavior(behavior).map_err(classify)?;
    let done = work(&mut SqliteSession(&transaction))?;
    transaction.commit().map_err(classify)?;
    Ok(done)
}
