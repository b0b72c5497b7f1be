//! The shipped files show every key, with its default.

use std::io::Write;
use std::path::PathBuf;

use nexus_testkit::assert_keys_stand;

use super::*;

const FILES: [&str; 2] = ["server-1.toml", "server-2.toml"];

/// What has no default.
const REQUIRED: &str = "[server]\nlisten = \"127.0.0.1:1\"\n\
                        [store]\nurl = \"mysql://nexus@127.0.0.1:3306/nexus\"\n\
                        [redis]\nurl = \"redis://127.0.0.1:6379\"\n\
                        [registry]\nurl = \"zookeeper://127.0.0.1:2181/nexus\"\n";

fn shipped(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    folder.join(name)
}

fn read(text: &str) -> Result<Raw, ConfigError> {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(text.as_bytes()).expect("written");
    config::load(file.path())
}

#[test]
fn the_shipped_files_show_every_key_and_no_other() {
    for name in FILES {
        let text = std::fs::read_to_string(shipped(name)).expect("read");
        assert_keys_stand(&text, |text| match read(text) {
            Ok(_) => panic!("{text} was taken"),
            Err(error) => error.to_string(),
        });
    }
}

#[test]
fn the_shipped_files_spell_out_the_defaults() {
    let defaults = read(REQUIRED).unwrap_or_else(|error| panic!("{error}"));
    for name in FILES {
        let mut raw: Raw = config::load(&shipped(name)).unwrap_or_else(|error| panic!("{error}"));
        raw.server.listen = "127.0.0.1:1".to_owned().try_into().expect("an address");
        assert_eq!(format!("{raw:#?}"), format!("{defaults:#?}"), "{name}");
    }
}
