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
    build_binaries_with(profile, &[])
}

/// [`build_binaries`], and in the same folder the programs of further packages. At once, since what they have in
/// common would otherwise be compiled for each selection of packages.
///
/// # Errors
///
/// As [`build_binaries`].
pub fn build_binaries_with(profile: Profile, further: &[&str]) -> Result<PathBuf, Error> {
    let arguments = arguments(profile, further);
    let mut command = cargo();
    command
        .args(&arguments)
        .arg("--message-format=json-render-diagnostics")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    let output = command.output().map_err(Error::io("running cargo build"))?;
    let messages = String::from_utf8_lossy(&output.stdout);
    let folder = messages.lines().filter_map(program_folder).next();
    match folder {
        Some(folder) if output.status.success() => Ok(folder),
        _ => Err(Error::CommandFailed {
            command: format!("cargo {}", arguments.join(" ")),
            status: output.status,
            output: "what went wrong stands above".to_owned(),
        }),
    }
}

/// Cargo in the repository's top folder, as if called by hand, whoever calls it.
///
/// Cargo tells what it runs which package that is of. A cargo below it would pass that on to build scripts, and
/// those that look at it (ring's does) would run again, and all that depends on them be compiled again, for each
/// package that calls cargo.
pub fn cargo() -> Command {
    // Set by cargo for what it runs; then the same toolchain is used.
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    let of_package = |name: &OsString| {
        let name = name.to_string_lossy();
        name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
    };
    for name in env::vars_os().map(|(name, _)| name).filter(of_package) {
        command.env_remove(name);
    }
    command.current_dir(repository_root());
    command
}

/// Cargo resolves features for what is built together, the dependencies of tests included if there are any. In tests
/// it is what a test run builds anyway, and the example stands for the tests: then nothing is compiled for this.
fn arguments<'a>(profile: Profile, further: &[&'a str]) -> Vec<&'a str> {
    match profile {
        Profile::Dev => vec![
            "build",
            "--workspace",
            "--all-features",
            "--bins",
            "--example",
            "discard",
        ],
        Profile::Release => {
            let nodes = ["chat-server", "chat-proxy", "chat-standalone"];
            let packages = nodes.iter().chain(further);
            let mut arguments = vec!["build", "--release"];
            arguments.extend(packages.flat_map(|&package| ["--package", package]));
            arguments
        }
    }
}

/// The folder of the program that one of cargo's messages tells of, if it tells of one. (Examples have another.)
fn program_folder(message: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    let kinds = message.get("target")?.get("kind")?.as_array()?;
    if !kinds.iter().any(|kind| kind == "bin") {
        return None;
    }
    let path = message.get("executable")?.as_str()?;
    Path::new(path).parent().map(Path::to_path_buf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_is_not_told_which_package_calls_it() {
        assert!(env::var_os("CARGO_PKG_NAME").is_some());
        let cargo = cargo();
        let removed: Vec<_> = cargo
            .get_envs()
            .filter(|(_, value)| value.is_none())
            .map(|(name, _)| name)
            .collect();
        for name in ["CARGO_PKG_NAME", "CARGO_PKG_VERSION", "CARGO_MANIFEST_DIR"] {
            assert!(
                removed.iter().any(|one| *one == name),
                "{name}: {removed:?}"
            );
        }
    }

    #[test]
    fn the_folder_comes_from_the_message_that_names_a_program() {
        let program = r#"{"target":{"kind":["bin"]},"executable":"/t/debug/chat-server"}"#;
        assert_eq!(program_folder(program), Some(PathBuf::from("/t/debug")));
        let example = r#"{"target":{"kind":["example"]},"executable":"/t/debug/examples/discard"}"#;
        assert_eq!(program_folder(example), None);
        let library = r#"{"target":{"kind":["lib"]},"executable":null}"#;
        assert_eq!(program_folder(library), None);
        assert_eq!(program_folder("warning: not a message"), None);
    }
}
