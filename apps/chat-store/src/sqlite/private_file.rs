//! Files that only their owner may read and write, whatever the process's umask is.

use std::{
    ffi::OsString,
    fs::{self, OpenOptions, Permissions},
    io::{self, ErrorKind},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

const OWNER_ONLY: u32 = 0o600;

/// Makes the file if it is not there. One that is there is not opened: closing it would end the locks that SQLite holds
/// on it in this process.
pub(super) fn make(path: &Path) -> io::Result<()> {
    match make_new(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Makes a file that is not there.
pub(super) fn make_new(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(OWNER_ONLY);
    options.open(path).map(drop)
}

/// Closes a database and the files beside it to others; SQLite makes those with the mode of the database.
pub(super) fn close_to_others(database: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let mut path = OsString::from(database);
        path.push(suffix);
        let path = PathBuf::from(path);
        let Ok(found) = fs::metadata(&path) else {
            continue;
        };
        if found.permissions().mode() & 0o077 == 0 {
            continue;
        }
        let closed = fs::set_permissions(&path, Permissions::from_mode(OWNER_ONLY));
        let path = path.display();
        match closed {
            Ok(()) => log::warn!("{path} was open to others on this machine; now it is not"),
            Err(error) => log::warn!("others on this machine can read {path}: {error}"),
        }
    }
}
