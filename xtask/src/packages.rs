//! The Debian packages the real servers come from.

use std::collections::BTreeSet;
use std::io;
use std::process::{Command, ExitStatus, Stdio};

use nexus_testkit::programs;

/// Why the packages are not installed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It takes root, and this is not root.
    #[error("Some programs are missing. To install them, run:\n\n    {0}\n\nand start again.")]
    NotAllowed(String),
    /// The command cannot be run.
    #[error("{command}: {source}")]
    NotRun { command: String, source: io::Error },
    /// The command failed.
    #[error("{command} failed ({status})")]
    Failed { command: String, status: ExitStatus },
    /// The command did well and yet something is missing.
    #[error("{program} is still missing after package {package} was installed")]
    StillMissing {
        program: &'static str,
        package: &'static str,
    },
}

/// Who may install packages.
enum Right {
    Root,
    /// Through sudo, without being asked for a password.
    Sudo,
    None,
}

/// Installs what is missing, if this user may; nothing is done when nothing is missing.
pub(crate) fn install_missing() -> Result<(), Error> {
    // Several programs come from one package.
    let packages: BTreeSet<&str> = programs::missing()
        .iter()
        .map(|requirement| requirement.package)
        .collect();
    if packages.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = packages.into_iter().collect();
    let sudo = match right() {
        Right::Root => false,
        Right::Sudo => true,
        Right::None => return Err(Error::NotAllowed(by_hand(&packages))),
    };
    println!("Installing {} ...", packages.join(" "));
    run(sudo, &["update", "--quiet"])?;
    // Not at the price of removing something: a MySQL server, say, that is in MariaDB's way.
    let install = [
        "install",
        "--quiet",
        "--yes",
        "--no-install-recommends",
        "--no-remove",
    ];
    run(sudo, &[&install, &packages[..]].concat())?;
    match programs::missing().first() {
        None => Ok(()),
        Some(missing) => Err(Error::StillMissing {
            program: missing.program,
            package: missing.package,
        }),
    }
}

fn right() -> Right {
    if succeeds("sh", &["-c", "[ \"$(id -u)\" = 0 ]"]) {
        Right::Root
    } else if succeeds("sudo", &["--non-interactive", "true"]) {
        Right::Sudo
    } else {
        Right::None
    }
}

fn succeeds(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Runs apt-get with these arguments, without questions.
fn run(sudo: bool, args: &[&str]) -> Result<(), Error> {
    let words: Vec<&str> = if sudo {
        vec!["sudo", "--non-interactive"]
    } else {
        Vec::new()
    };
    let words = [
        &words,
        &["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"][..],
        args,
    ]
    .concat();
    let command = words.join(" ");
    let (program, args) = words.split_first().expect("apt-get is there, at least");
    match Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .status()
    {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Error::Failed { command, status }),
        Err(source) => Err(Error::NotRun { command, source }),
    }
}

/// What a person types to install the packages.
fn by_hand(packages: &[&str]) -> String {
    format!(
        "sudo apt-get update && sudo apt-get install {}",
        packages.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_install_is_told_the_command() {
        let message = Error::NotAllowed(by_hand(&["nginx", "zookeeper"])).to_string();
        assert!(
            message.contains("sudo apt-get install nginx zookeeper"),
            "{message}"
        );
    }

    #[test]
    fn a_command_that_fails_or_does_not_exist_does_not_succeed() {
        assert!(succeeds("true", &[]));
        assert!(!succeeds("false", &[]));
        assert!(!succeeds("no-such-program", &[]));
    }
}
