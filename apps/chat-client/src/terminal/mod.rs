//! The terminal program: reads commands, shows answers and what arrives.
//!
//! | module | owns |
//! |---|---|
//! | `command` | what can be typed, and how it is understood |
//! | `screen` | lines in and out, on a terminal or through pipes |
//! | `reach` | finding a server that answers |
//! | `feed` | what arrives without being asked for |
//! | `phrases` | sentences in the user's language |
//! | `session` | carries commands out |
//! | `ask` | asks for what a command still needs |
//!
//! | exit code | when |
//! |---|---|
//! | 0 | the user left, or the script ended and all of it succeeded |
//! | 1 | a script's command failed, or its server could not be reached |
//! | 2 | the command line is wrong |

mod ask;
mod command;
mod feed;
mod phrases;
mod reach;
mod screen;
mod session;

use std::process::ExitCode;
use std::time::Duration;

use chat_client::{ClientOptions, Language};
use clap::{Parser, ValueEnum};

use self::feed::Feed;
use self::screen::{Input, Screen};
use self::session::Session;

const EXAMPLES: &str = "\
Examples:
  chat-client 127.0.0.1 8000             menus, in a terminal
  chat-client chat.example.org 8000 --lang zh
  printf 'login 1 secret\\nto 2 hello\\n' | chat-client 127.0.0.1 8000
                                         a script: one command a line, `help` lists them

Exit codes: 0 all went well, 1 a command failed or the server cannot be reached, 2 wrong usage.";

/// Chats from a terminal, or from a script. / 终端聊天客户端，也可由脚本驱动。
#[derive(Debug, Parser)]
#[command(name = "chat-client", version, after_help = EXAMPLES)]
struct Arguments {
    /// The server: a name or an address / 服务器名称或地址
    host: String,
    /// Its port / 端口
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// The language; by default that of the LANG variable / 界面语言，默认取自 LANG
    #[arg(long, value_enum)]
    lang: Option<Lang>,
    /// How long to wait for answers, and in a script for the server / 等待应答的秒数
    #[arg(long, value_name = "SECONDS", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Lang {
    Zh,
    En,
}

/// Runs the program.
pub(crate) fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let language = match arguments.lang {
        Some(Lang::Zh) => Language::Chinese,
        Some(Lang::En) => Language::English,
        None => language_of_system(),
    };
    let (screen, announcer, input) = match Screen::open() {
        Ok(opened) => opened,
        Err(error) => {
            eprintln!("chat-client: cannot use this terminal: {error}");
            return ExitCode::FAILURE;
        }
    };
    let timeout = Duration::from_secs(arguments.timeout);
    let mut options = ClientOptions {
        request_timeout: timeout,
        ..ClientOptions::default()
    };
    if let Input::Script(_) = input {
        options.send_timeout = timeout;
    }
    let place = (arguments.host.as_str(), arguments.port);
    let started = reach::reach(place, &options, screen, language).and_then(|(client, events)| {
        let feed = Feed::start(events, announcer, language).map_err(|error| error.to_string())?;
        Ok(Session::new(client, feed, screen, language, timeout))
    });
    match started {
        Ok(session) => session.run(input),
        Err(error) => {
            screen.error(&error);
            ExitCode::FAILURE
        }
    }
}

/// As other programs do: the first of these variables that is set decides.
fn language_of_system() -> Language {
    let value = ["LC_ALL", "LC_MESSAGES", "LANG"]
        .into_iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|value| !value.is_empty());
    match value {
        Some(value) if value.to_ascii_lowercase().starts_with("zh") => Language::Chinese,
        _ => Language::English,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn host_and_port_are_needed_and_port_0_is_none() {
        for wrong in [
            &["chat-client"][..],
            &["chat-client", "localhost"],
            &["chat-client", "localhost", "0"],
            &["chat-client", "localhost", "http"],
        ] {
            assert!(Arguments::try_parse_from(wrong).is_err(), "{wrong:?}");
        }
        assert!(Arguments::try_parse_from(["chat-client", "localhost", "8000"]).is_ok());
    }
}
