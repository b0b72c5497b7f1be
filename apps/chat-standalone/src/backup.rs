//! A copy of all users and messages, also while the chat runs.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use chat_store::SqliteStore;

use crate::StartError;
use crate::data_folder::database_in;

/// Copies what the folder `data` keeps, as it is at one moment, to `file`. A chat that uses the folder goes on meanwhile.
/// The file is a whole one when it appears, and this user's alone. Blocks, for as long as reading everything twice takes.
///
/// # Errors
/// There is no chat in the folder, there is such a file already, or it cannot be written; the text says what to do.
pub fn back_up(data: &Path, file: &Path) -> Result<(), StartError> {
    let from = database_in(data);
    if !from.is_file() {
        return Err(StartError(format!(
            "there is no chat in {}.\nName its folder with --data PATH.",
            data.display()
        )));
    }
    refuse_existing(file)?;
    let mut part = OsString::from(file);
    part.push(".part");
    let part = PathBuf::from(part);
    refuse_existing(&part)?;
    let copied = SqliteStore::back_up(&from, &part)
        .map_err(|error| cannot(file, &error))
        .and_then(|()| refuse_existing(file))
        .and_then(|()| publish(&part, file).map_err(|error| cannot(file, &error)));
    copied.inspect_err(|_| {
        // Half a copy is of no use; the error that counts is the first one.
        let _ = fs::remove_file(&part);
    })
}

fn cannot(file: &Path, error: &dyn std::fmt::Display) -> StartError {
    StartError(format!(
        "cannot back up to {}: {error}\nMake room and let this user write there, or choose another file.",
        file.display()
    ))
}

fn refuse_existing(file: &Path) -> Result<(), StartError> {
    match fs::symlink_metadata(file) {
        Ok(_) => Err(StartError(format!(
            "{} is there already, and is not overwritten.\nChoose another name, or remove it.",
            file.display()
        ))),
        Err(_) => Ok(()),
    }
}

/// Gives the copy its name, for good.
fn publish(part: &Path, file: &Path) -> io::Result<()> {
    fs::rename(part, file)?;
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder)?.sync_all()
}
