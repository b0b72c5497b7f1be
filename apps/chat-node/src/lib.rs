//! What the chat's programs share: configuration, logging, shutdown.
//!
//! | module | holds |
//! |---|---|
//! | [`config`] | a TOML file becomes a checked configuration, or a list of all that is wrong in it |
//! | [`cli`] | the command line of a node, and its exit codes |
//! | [`logging`] | where log lines go and how they look |
//! | [`drain`] | one value that says whether the program runs, drains or has stopped |
//! | [`reload`] | what is read again at SIGHUP |
//! | [`tls`] | certificates and keys |
//! | [`cluster`] | how proxies and chat servers know each other |
//! | [`secret`] | what proxies show to chat servers |
//!
//! The `main` of a node is then:
//!
//! ```no_run
//! use std::path::Path;
//! use std::process::ExitCode;
//! use std::time::Duration;
//!
//! use chat_node::config::{Address, ConfigError, Problems};
//! use chat_node::{cli, config, drain::Drain, logging, reload::Reload};
//!
//! #[derive(serde::Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Config {
//!     listen: Address,
//!     #[serde(with = "config::duration")]
//!     grace: Duration,
//! }
//!
//! fn load(file: &Path) -> Result<Config, ConfigError> {
//!     let config: Config = config::load(file)?;
//!     let mut problems = Problems::new(file);
//!     problems.require("grace", !config.grace.is_zero(), "expected more than 0s");
//!     problems.finish()?;
//!     Ok(config)
//! }
//!
//! fn serve(config: Config) -> std::io::Result<()> {
//!     logging::init("info");
//!     let drain = Drain::on_signals(config.grace, Reload::default())?;
//!     let listener = std::net::TcpListener::bind(config.listen.socket_addr())?;
//!     let _deadline = drain.wait();
//!     drop(listener);
//!     drain.stopped();
//!     Ok(())
//! }
//!
//! fn main() -> ExitCode {
//!     cli::run("chat-example", "Serves as an example", load, serve)
//! }
//! ```

pub mod cli;
pub mod cluster;
pub mod config;
pub mod drain;
pub mod logging;
pub mod reload;
pub mod secret;
pub mod tls;
