//! The folder that keeps everything: one program at a time, and nobody else on this machine looks into it.
//!
//! | file | holds |
//! |---|---|
//! | `chat.db` | users, groups and messages: SQLite |
//! | `chat.db-wal`, `chat.db-shm` | what was written last, while the chat runs |
//! | `chat.lock` | the process id of the program that uses the folder, which holds a lock on the file until it ends |

use std::fmt::Display;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::StartError;

const DATABASE: &str = "chat.db";
const LOCK: &str = "chat.lock";
/// Written at the start, and removed.
const ROOM: &str = "chat.room";
/// What has to be free at the start: enough for the files that SQLite makes at once.
const ROOM_BYTES: usize = 1 << 20;
/// A chat that is just ending may hold the lock for a moment longer: so does a child process between fork and exec.
const LOCK_WAIT: Duration = Duration::from_millis(500);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// A folder that this program, and no other, uses. The kernel ends the lock when the program ends, however it does.
pub(crate) struct DataFolder {
    path: PathBuf,
    _lock: File,
}

impl DataFolder {
    /// Makes the folder if it is missing, and takes it.
    ///
    /// # Errors
    /// Another program uses it, or it cannot be written; the text says what to do.
    pub(crate) fn open(path: &Path) -> Result<Self, StartError> {
        let cannot = |error: io::Error| cannot_use(path, &error, advice(error.kind()));
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(cannot)?;
        let lock = lock(path)?;
        keep_private(path);
        check_room(&path.join(ROOM)).map_err(cannot)?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    pub(crate) fn database(&self) -> PathBuf {
        database_in(&self.path)
    }
}

pub(crate) fn database_in(folder: &Path) -> PathBuf {
    folder.join(DATABASE)
}

pub(crate) fn cannot_use(path: &Path, error: &dyn Display, advice: &str) -> StartError {
    StartError(format!(
        "cannot use {} for the chat's data: {error}\n{advice}",
        path.display()
    ))
}

fn advice(error: ErrorKind) -> &'static str {
    match error {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "Make room on that disk, or choose another folder with --data PATH."
        }
        ErrorKind::ReadOnlyFilesystem => {
            "Mount that disk for writing, or choose another folder with --data PATH."
        }
        ErrorKind::PermissionDenied => {
            "Let this user write there, or choose another folder with --data PATH."
        }
        _ => "Choose another folder with --data PATH.",
    }
}

fn lock(folder: &Path) -> Result<File, StartError> {
    let cannot = |error: io::Error| cannot_use(folder, &error, advice(error.kind()));
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(folder.join(LOCK));
    let mut file = opened.map_err(cannot)?;
    let until = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if Instant::now() < until => thread::sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => return Err(in_use(folder, &mut file)),
            Err(TryLockError::Error(error)) => return Err(cannot(error)),
        }
    }
    let noted = file
        .set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()));
    noted.map_err(cannot)?;
    Ok(file)
}

fn in_use(folder: &Path, lock: &mut File) -> StartError {
    let mut text = String::new();
    // Empty for a moment, when the other one has only just locked it.
    let holder = lock
        .take(32)
        .read_to_string(&mut text)
        .ok()
        .and_then(|_| text.trim().parse::<u32>().ok());
    let (process, stop) = match holder {
        Some(id) => (format!("process {id}"), format!("kill {id}")),
        None => ("another process".to_owned(), "Ctrl-C there".to_owned()),
    };
    StartError(format!(
        "{} is in use by {process}.\nOne program at a time can use a folder: stop that one ({stop}), or choose another \
         folder with --data PATH.",
        folder.display()
    ))
}

/// A folder that holds nothing but a chat is closed to others. In any other folder somebody may have a reason to let
/// them in; the files of the chat are closed to them there as well.
fn keep_private(folder: &Path) {
    let Ok(found) = fs::metadata(folder) else {
        return;
    };
    let open = found.permissions().mode() & 0o077;
    if open == 0 {
        return;
    }
    let closed = holds_only_a_chat(folder)
        && fs::set_permissions(folder, Permissions::from_mode(0o700)).is_ok();
    let folder = folder.display();
    if closed {
        log::warn!("{folder} was open to others on this machine; now it is not");
    } else if open & 0o022 != 0 {
        log::warn!("others on this machine can remove files in {folder}: chmod 700 {folder}");
    }
}

fn holds_only_a_chat(folder: &Path) -> bool {
    let Ok(mut entries) = fs::read_dir(folder) else {
        return false;
    };
    entries.all(|entry| {
        let name = entry.map(|entry| entry.file_name());
        name.is_ok_and(|name| name.to_str().is_some_and(|name| name.starts_with("chat.")))
    })
}

/// What is not found now would be found by the first message.
fn check_room(path: &Path) -> io::Result<()> {
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| {
            file.write_all(&vec![0; ROOM_BYTES])?;
            file.sync_all()
        });
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => written.and(Err(error)),
        _ => written,
    }
}
