//! The folder: whose it is, and what becomes of it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use chat_proto::ids::code;

use crate::{PROGRAM, Talk, history, listens, said, start, start_by};

fn mode(path: &Path) -> u32 {
    let found = fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    found.permissions().mode() & 0o777
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn a_second_program_on_the_folder_is_refused_and_told_who_uses_it() {
    let data = tempfile::tempdir().unwrap();
    let mut first = start("127.0.0.1:0", data.path());
    listens(&mut first);
    let second = start("127.0.0.1:0", data.path()).output();
    assert_eq!(second.status.code(), Some(1));
    let text = said(&second);
    let holder = format!("process {}", first.id());
    assert!(text.contains(&holder) && text.contains("--data"), "{text}");
    // However the first one ends.
    first.kill();
    let mut third = start("127.0.0.1:0", data.path());
    listens(&mut third);
    third.stop();
}

#[test]
fn data_is_its_owners_alone_also_in_a_folder_that_was_open_to_others() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().join("new");
    for round in ["new", "open"] {
        let mut program = start_by("umask 0", "127.0.0.1:0", &folder);
        let mut talk = Talk::begin(listens(&mut program), round);
        talk.send("hello");
        assert_eq!(mode(&folder), 0o700, "{round}");
        let all = ["chat.db", "chat.db-shm", "chat.db-wal", "chat.lock"];
        assert_eq!(names(&folder), all, "{round}");
        for name in all {
            assert_eq!(mode(&folder.join(name)), 0o600, "{round}: {name}");
        }
        // Killed, so that all files are there next time.
        let text = said(&program.kill());
        // Closed after the fact is open for a moment.
        let closed = text.matches("was open to others on this machine").count();
        assert_eq!(closed, if round == "new" { 0 } else { 4 }, "{text}");
        fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
        for name in &all[..3] {
            fs::set_permissions(folder.join(name), Permissions::from_mode(0o666)).unwrap();
        }
    }
}

#[test]
fn a_folder_that_holds_more_than_a_chat_is_left_as_open_as_it_is() {
    let data = tempfile::tempdir().unwrap();
    fs::set_permissions(data.path(), Permissions::from_mode(0o755)).unwrap();
    fs::write(data.path().join("of somebody"), "").unwrap();
    let mut program = start("127.0.0.1:0", data.path());
    listens(&mut program);
    assert_eq!(mode(data.path()), 0o755);
    assert_eq!(mode(&data.path().join("chat.db")), 0o600);
    program.stop();
}

#[test]
fn a_clean_stop_leaves_one_file_that_can_be_copied() {
    let data = tempfile::tempdir().unwrap();
    let mut program = start("127.0.0.1:0", data.path());
    let mut talk = Talk::begin(listens(&mut program), "a");
    talk.send("kept");
    program.stop();
    assert_eq!(names(data.path()), ["chat.db", "chat.lock"]);

    let copy = tempfile::tempdir().unwrap();
    fs::copy(data.path().join("chat.db"), copy.path().join("chat.db")).unwrap();
    let mut program = start("127.0.0.1:0", copy.path());
    let texts = history(listens(&mut program), &talk);
    assert_eq!(texts.last().map(String::as_str), Some("kept"));
    program.stop();
}

#[test]
fn a_disk_that_becomes_full_refuses_and_loses_nothing_and_goes_on_when_there_is_room() {
    let data = tempfile::tempdir().unwrap();
    // Blocks of 512 bytes. A write beyond fails as one on a full disk does.
    let full = "trap '' XFSZ; ulimit -S -f 2048";
    let mut program = start_by(full, "127.0.0.1:0", data.path());
    let address = listens(&mut program);
    let mut talk = Talk::begin(address, "a");
    let text = "x".repeat(500);
    let mut stored = 0;
    let refused = loop {
        match talk.try_send(&format!("{stored} {text}")) {
            code::SUCCESS => stored += 1,
            refused => break refused,
        }
        assert!(stored < 2_000, "the disk does not become full");
    };
    assert_eq!(refused, code::UNAVAILABLE);
    assert_eq!(talk.try_send("still full"), code::UNAVAILABLE);

    let pid = program.id().to_string();
    let room = ["--fsize=unlimited", "--pid", &pid];
    assert!(
        Command::new("prlimit")
            .args(room)
            .status()
            .unwrap()
            .success()
    );
    nexus_testkit::wait_until("there is room", crate::SOON, || {
        talk.try_send("room again") == code::SUCCESS
    });
    program.stop();
    let mut program = start("127.0.0.1:0", data.path());
    let texts = history(listens(&mut program), &talk);
    program.stop();
    let of_stored: Vec<usize> = texts
        .iter()
        .filter_map(|text| text.split_once(" x")?.0.parse().ok())
        .collect();
    assert_eq!(of_stored, (0..stored).collect::<Vec<_>>());
    assert!(!texts.iter().any(|text| text == "still full"));
    assert_eq!(texts.last().map(String::as_str), Some("room again"));
}

#[test]
fn a_folder_that_cannot_be_written_is_named_with_the_remedy() {
    for folder in ["/proc/self", "/dev/null/chat"] {
        let refused = Command::new(PROGRAM)
            .args(["--listen", "127.0.0.1:0", "--data", folder])
            .output()
            .unwrap();
        assert_eq!(refused.status.code(), Some(1));
        let text = said(&refused);
        assert!(text.contains(folder) && text.contains("--data"), "{text}");
    }
}
