//! What the process has logged.

use std::sync::Once;

use log::{Level, LevelFilter, Log, Metadata, Record};
use parking_lot::Mutex;

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps what is logged from now on, and prints it.
pub(crate) fn start() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        log::set_logger(&Keeper).expect("the first logger");
        log::set_max_level(LevelFilter::Trace);
    });
}

/// The lines, of all tests, that contain each of these.
pub(crate) fn lines_with(parts: &[&str]) -> Vec<String> {
    let lines = LINES.lock();
    let has_all = |line: &&String| parts.iter().all(|part| line.contains(part));
    lines.iter().filter(has_all).cloned().collect()
}

struct Keeper;

impl Log for Keeper {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let line = format!("{} {}: {}", record.level(), record.target(), record.args());
        // The crate's own are many: they are only looked through for what must not be there.
        let is_ours = record.target().starts_with("nexus") && record.level() <= Level::Info;
        if is_ours {
            println!("{line}");
        }
        if is_ours || line.contains(SECRET) {
            LINES.lock().push(line);
        }
    }

    fn flush(&self) {}
}

/// In every password of these tests.
pub(crate) const SECRET: &str = "s3cret";
