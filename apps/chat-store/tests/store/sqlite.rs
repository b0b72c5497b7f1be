//! The suite on SQLite, in a file and in memory, and what only a file can show.

use std::sync::Arc;

use chat_store::*;

use crate::suite;

/// Two handles as two servers have them, though one is what SQLite is made for.
fn in_file() -> suite::Servers {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.db");
    let a = Arc::new(SqliteStore::open(&path).unwrap());
    let b = Arc::new(SqliteStore::open(&path).unwrap());
    suite::Servers {
        a,
        b,
        _folder: Some(folder),
    }
}

fn in_memory() -> suite::Servers {
    let store = Arc::new(SqliteStore::in_memory().unwrap());
    suite::Servers {
        a: Arc::clone(&store) as Arc<dyn Store>,
        b: store,
        _folder: None,
    }
}

mod in_a_file {
    crate::suite::conformance!(crate::sqlite::in_file);
}

mod in_the_memory {
    crate::suite::conformance!(crate::sqlite::in_memory);
}

#[test]
fn a_file_opened_again_has_everything() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.db");
    let (bob, conversation) = {
        let store = SqliteStore::open(&path).unwrap();
        let (ann, bob, conversation) = suite::pair(&store);
        suite::send(&store, conversation, ann, "kept");
        (bob, conversation)
    };
    let store = SqliteStore::open(&path).unwrap();
    let kinds = [
        (conversation, 1, MessageKind::AddFriend),
        (conversation, 2, MessageKind::FriendChat),
    ];
    assert_eq!(suite::pending_kinds(&store, bob), kinds);
}

#[test]
fn a_path_that_cannot_be_opened_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let error = SqliteStore::open(folder.path().join("no folder").join("chat.db"))
        .err()
        .unwrap();
    assert!(error.is_unavailable(), "{error}");
    let garbage = folder.path().join("garbage.db");
    std::fs::write(
        &garbage,
        "this is no database, and long enough to show it".repeat(100),
    )
    .unwrap();
    assert!(SqliteStore::open(garbage).is_err());
}
