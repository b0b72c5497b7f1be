//! Building the chat's nodes.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::{Error, repository_root};

/// How to build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Quickly.
    Dev,
    /// For speed.
    Release,
}

/// Builds `chat-server`, `chat-proxy` and `chat-standalone` and returns the folder they are in. Cargo's own messages
/// go to standard error. When nothing has changed this takes a fraction of a second.
///
/// # Errors
///
/// [`Error::Io`] when cargo cannot be run, [`Error::CommandFailed`] when it fails.
pub fn build_binaries(profile: Profile) -> Result<PathBuf, Error> {
    // Set by cargo for what it runs; then the same toolchain is used.
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command
        .args(arguments(profile))
        .arg("--message-format=json-render-diagnostics")
        .current_dir(repository_root())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    let output = command.output().map_err(Error::io("running cargo build"))?;
    let messages = String::from_utf8_lossy(&output.stdout);
    let folder = messages.lines().filter_map(executable).next();
    match folder {
        Some(folder) if output.status.success() => Ok(folder),
        _ => Err(Error::CommandFailed {
            command: format!("cargo {}", arguments(profile).join(" ")),
            status: output.status,
            output: "what went wrong stands above".to_owned(),
        }),
    }
}

/// Cargo resolves features for what is built together. For tests that is all programs, as
/// `cargo xtask test` builds them, so that dependencies are not compiled once more.
fn arguments(profile: Profile) -> &'static [&'static str] {
    match profile {
        Profile::Dev => &["build", "--workspace", "--bins"],
        Profile::Release => &[
            "build",
            "--release",
            "--package",
            "chat-server",
            "--package",
            "chat-proxy",
            "--package",
            "chat-standalone",
        ],
    }
}

/// The folder of the executable that one of cargo's messages tells of, if it tells of one.
fn executable(message: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    let path = message.get("executable")?.as_str()?;
    Path::new(path).parent().map(Path::to_path_buf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_comes_from_the_message_that_names_an_executable() {
        let binary = r#"{"reason":"compiler-artifact","executable":"/t/debug/chat-server"}"#;
        assert_eq!(executable(binary), Some(PathBuf::from("/t/debug")));
        let library = r#"{"reason":"compiler-artifact","executable":null}"#;
        assert_eq!(executable(library), None);
        assert_eq!(executable("warning: not a message"), None);
    }
}
