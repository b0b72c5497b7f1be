//! `chat-standalone backup`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use chat_proto::ids::code;
use nexus_testkit::wait_until;

use crate::{PROGRAM, SOON, Talk, history, listens, said, start};

fn back_up(data: &Path, file: &Path) -> Output {
    Command::new(PROGRAM)
        .arg("backup")
        .arg(file)
        .arg("--data")
        .arg(data)
        .output()
        .unwrap()
}

#[test]
fn a_backup_under_load_is_a_chat_of_one_moment() {
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (folder.path().join("data"), folder.path().join("backup.db"));
    let mut program = start("127.0.0.1:0", &data);
    let mut talk = Talk::begin(listens(&mut program), "a");
    let (sent, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (before, after) = thread::scope(|scope| {
        let (talk, sent, done) = (&mut talk, &sent, &done);
        scope.spawn(move || {
            while done.load(Ordering::SeqCst) == 0 {
                let next = sent.load(Ordering::SeqCst) + 1;
                match talk.try_send(&next.to_string()) {
                    code::SUCCESS => sent.store(next, Ordering::SeqCst),
                    refused => assert_eq!(refused, code::RATE_LIMITED),
                }
            }
        });
        wait_until("messages are sent", SOON, || {
            sent.load(Ordering::SeqCst) > 10
        });
        let before = sent.load(Ordering::SeqCst);
        let backup = back_up(&data, &file);
        let after = sent.load(Ordering::SeqCst) + 1;
        done.store(1, Ordering::SeqCst);
        assert!(backup.status.success(), "{}", said(&backup));
        (before, after)
    });
    program.stop();
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let mut names: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["backup.db", "data"]);

    let restored = tempfile::tempdir().unwrap();
    fs::copy(&file, restored.path().join("chat.db")).unwrap();
    let mut program = start("127.0.0.1:0", restored.path());
    let address = listens(&mut program);
    // The first message is that they are friends.
    let texts = history(address, &talk).split_off(1);
    assert!(
        (before..=after).contains(&texts.len()),
        "{before} {} {after}",
        texts.len()
    );
    let expected: Vec<String> = (1..=texts.len()).map(|number| number.to_string()).collect();
    assert_eq!(texts, expected);
    // And it goes on.
    Talk::begin(address, "b").send("hello");
    program.stop();
}

#[test]
fn a_file_that_is_there_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let mut program = start("127.0.0.1:0", folder.path());
    listens(&mut program);
    let file = folder.path().join("of somebody");
    fs::write(&file, "precious").unwrap();
    let refused = back_up(folder.path(), &file);
    assert_eq!(refused.status.code(), Some(1));
    let text = said(&refused);
    assert!(
        text.contains("of somebody") && text.contains("another name"),
        "{text}"
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    program.stop();
}

#[test]
fn what_cannot_be_backed_up_is_named_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let refused = back_up(folder.path(), &folder.path().join("backup.db"));
    assert_eq!(refused.status.code(), Some(1));
    let text = said(&refused);
    assert!(
        text.contains("no chat") && text.contains("--data"),
        "{text}"
    );
    assert!(!folder.path().join("chat.db").exists());

    let data = folder.path().join("data");
    let mut program = start("127.0.0.1:0", &data);
    listens(&mut program);
    program.stop();
    let nowhere = folder.path().join("missing").join("backup.db");
    let refused = back_up(&data, &nowhere);
    assert_eq!(refused.status.code(), Some(1));
    let text = said(&refused);
    assert!(
        text.contains("missing") && text.contains("another file"),
        "{text}"
    );
    // No longer running, it can be backed up as well.
    let file = folder.path().join("backup.db");
    let backup = back_up(&data, &file);
    assert!(backup.status.success(), "{}", said(&backup));
    assert!(file.is_file());
}
