//! Where log lines go and how they look: standard error, one line per record.
//!
//! ```text
//! 2026-02-03T04:05:06.789Z INFO  bus-subscriber chat_bus::redis_bus::subscriber: subscribed to nexus:to:…
//! time, UTC                level thread         target                message
//! ```

use std::fmt::Display;
use std::io::{self, Write};
use std::thread;

use env_logger::{Builder, Env, Target};
use log::Record;

/// Starts logging. `default_filter` (`info`, `warn,chat_proxy=debug`) applies unless the
/// environment variable `RUST_LOG` is set. Only the first call in a process has an effect.
pub fn init(default_filter: &str) {
    let mut builder = Builder::from_env(Env::default().default_filter_or(default_filter));
    builder.target(Target::Stderr);
    builder.format(|line, record| {
        let time = line.timestamp_millis();
        write_line(line, time, record)
    });
    // Fails if there is a logger already, as in a test that starts two nodes.
    let _ = builder.try_init();
}

fn write_line(out: &mut impl Write, time: impl Display, record: &Record<'_>) -> io::Result<()> {
    let thread = thread::current();
    writeln!(
        out,
        "{time} {level:<5} {thread} {target}: {message}",
        level = record.level(),
        thread = thread.name().unwrap_or("unnamed"),
        target = record.target(),
        message = record.args(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_time_level_thread_target_and_message() {
        let write = || {
            let mut line = Vec::new();
            let mut record = Record::builder();
            record.level(log::Level::Warn).target("here");
            write_line(
                &mut line,
                "now",
                &record.args(format_args!("low on tea")).build(),
            )
            .expect("written");
            String::from_utf8(line).expect("text")
        };
        let thread = thread::Builder::new()
            .name("worker-1".to_owned())
            .spawn(write);
        let line = thread.expect("started").join().expect("no panic");
        assert_eq!(line, "now WARN  worker-1 here: low on tea\n");
    }

    #[test]
    fn starting_twice_does_no_harm() {
        init("off");
        init("off");
    }
}
