//! The terminal program: reads commands, shows answers and what arrives.
//!
//! | module | owns |
//! |---|---|
//! | `command` | what can be typed, and how it is understood |
//! | `screen` | lines in and out, on a terminal or through pipes |
//! | `reach` | finding a server that answers |
//! | `tls` | TLS as the command line asks for it |
//! | `feed` | what arrives without being asked for |
//! | `phrases` | sentences in the user's language |
//! | `session` | carries commands out |
//! | `talk` | a chat, where what is typed is sent |
//! | `ask` | the arguments of a command, asked for where they are missing |
//! | `typed` | words, quotes, and whom a word names |
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
mod talk;
mod tls;
mod typed;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use chat_client::{ClientOptions, Language};
use clap::{Parser, ValueEnum};
use nexus_net::ClientTls;

use self::feed::Feed;
use self::screen::{Input, Screen};
use self::session::Session;

const EXAMPLES: &str = "\
Examples:
  chat-client 127.0.0.1 8000             menus, in a terminal
  chat-client chat.example.org 8000 --lang zh
  chat-client chat.example.org 8443 --tls
  printf 'login ann secret\\nto bob hello\\n' | chat-client 127.0.0.1 8000
                                         a script: one command a line, `help` lists them

Exit codes: 0 all went well, 1 a command failed or the server cannot be reached, 2 wrong usage.";

const EXIT_USAGE: u8 = 2;

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
    /// Speak TLS, with a server whose certificate this system trusts / 使用 TLS，信任系统的根证书
    #[arg(long)]
    tls: bool,
    /// Trust the certificates in this file (PEM) instead / 改为信任此文件中的证书
    #[arg(long, value_name = "FILE", requires = "tls")]
    ca: Option<PathBuf>,
    /// The name the certificate has to be for; by default HOST / 证书的名称，默认为 HOST
    #[arg(long, value_name = "NAME", requires = "tls")]
    server_name: Option<String>,
}

impl Arguments {
    fn tls(&self) -> Result<Option<ClientTls>, String> {
        if !self.tls {
            return Ok(None);
        }
        let name = self.server_name.as_ref().unwrap_or(&self.host);
        tls::client(self.ca.as_deref(), name).map(Some)
    }
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
    let tls = match arguments.tls() {
        Ok(tls) => tls,
        Err(error) => {
            eprintln!("chat-client: {error}");
            return ExitCode::from(EXIT_USAGE);
        }
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
        tls,
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

    #[test]
    fn what_belongs_to_tls_is_refused_without_it() {
        let line = ["chat-client", "localhost", "8000", "--ca", "ca.pem"];
        assert!(Arguments::try_parse_from(line).is_err());
        let arguments = Arguments::try_parse_from(line.into_iter().chain(["--tls"])).unwrap();
        assert!(arguments.tls().is_err_and(|error| error.contains("ca.pem")));
    }
}
