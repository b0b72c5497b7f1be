//! The chat in a terminal: `chat-client HOST PORT`.

mod terminal;

use std::process::ExitCode;

fn main() -> ExitCode {
    terminal::run()
}
