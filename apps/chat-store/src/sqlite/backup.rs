//! Copying a database that is in use.

use std::{
    fs::File,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rusqlite::{
    Connection, OpenFlags,
    backup::{Backup, StepResult},
};

use super::{BUSY_TIMEOUT, SqliteStore, private_file, session::classify};
use crate::error::StoreError;

/// Between two tries to begin.
const PAUSE: Duration = Duration::from_millis(20);
/// All pages in one step, so within one read transaction: the copy is of one moment.
const ALL_PAGES: i32 = -1;

impl SqliteStore {
    /// Copies the database in the file `from` to the new file `to`, as it is at one moment, and checks the copy. Whoever
    /// uses `from` goes on meanwhile; its log of writes grows for as long as this takes. `to` is a whole database by
    /// itself, and its owner's alone.
    ///
    /// # Errors
    /// There is no database, `to` is there already or cannot be written (half of it may be left), or the copy is damaged.
    pub fn back_up(from: &Path, to: &Path) -> Result<(), StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let source = Connection::open_with_flags(from, flags).map_err(classify)?;
        source.busy_timeout(BUSY_TIMEOUT).map_err(classify)?;
        private_file::make_new(to)
            .map_err(|error| StoreError::Unavailable(format!("{}: {error}", to.display())))?;
        let mut copy = Connection::open(to).map_err(classify)?;
        copy_all(&source, &mut copy)?;
        // The source's mode came with its first page, and with that mode the log would be a second file.
        copy.pragma_update(None, "journal_mode", "DELETE")
            .map_err(classify)?;
        let verdict: String = copy
            .query_row("PRAGMA integrity_check(1)", (), |row| row.get(0))
            .map_err(classify)?;
        if verdict != "ok" {
            return Err(StoreError::Internal(format!(
                "the copy is damaged: {verdict}"
            )));
        }
        copy.close().map_err(|(_, error)| classify(error))?;
        File::open(to)
            .and_then(|file| file.sync_all())
            .map_err(|error| StoreError::Unavailable(error.to_string()))
    }
}

fn copy_all(source: &Connection, copy: &mut Connection) -> Result<(), StoreError> {
    let backup = Backup::new(source, copy).map_err(classify)?;
    let until = Instant::now() + BUSY_TIMEOUT;
    loop {
        match backup.step(ALL_PAGES).map_err(classify)? {
            StepResult::Done => return Ok(()),
            _ if Instant::now() < until => thread::sleep(PAUSE),
            _ => return Err(StoreError::Unavailable("it is in use for too long".into())),
        }
    }
}
