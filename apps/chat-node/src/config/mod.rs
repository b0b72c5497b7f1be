//! A TOML file becomes a checked configuration, or a list of all that is wrong in it.
//!
//! In two steps: [`load`] reads the file into a struct of the caller (with
//! `#[serde(deny_unknown_fields)]`, and types that check themselves: [`Address`], [`ByteSize`], a
//! `Duration` with `#[serde(with = "chat_node::config::duration")]`). Then the caller checks what
//! no type can say, with [`Problems`]. No port is opened before both are done.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

mod address;
mod parse;

pub use address::Address;
/// A size with its unit: `"64 KiB"`, `"1 MiB"`; a bare number is bytes.
pub use bytesize::ByteSize;
/// For `#[serde(with = "chat_node::config::duration")]`: a duration with its unit, `"500ms"` or
/// `"1m 30s"`.
pub use humantime_serde as duration;

/// The largest configuration file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Reads the TOML file at `path` into a `T`.
///
/// # Errors
/// Lists what is wrong: a file that cannot be read; every syntax error; every unknown key and
/// wrong value, as long as the rest can still be understood without it.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let mut problems = Problems::new(path);
    match read(path) {
        Ok(text) => {
            if let Some(value) = parse::parse(&text, &mut problems) {
                problems.finish()?;
                return Ok(value);
            }
        }
        Err(error) => problems.push(None, None, format!("cannot be read: {error}")),
    }
    // In the order of the file; what has no line comes last.
    problems
        .found
        .sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
    Err(ConfigError { problems })
}

/// Collects what is wrong with a configuration, so that it is reported all at once.
#[derive(Debug)]
pub struct Problems {
    file: PathBuf,
    found: Vec<Problem>,
}

impl Problems {
    /// No problem yet in `file`.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self {
            file: file.into(),
            found: Vec::new(),
        }
    }

    /// Notes that the value of `key` (dotted: `store.url`) is wrong. The message should say what
    /// it is and what was expected.
    pub fn add(&mut self, key: &str, message: impl fmt::Display) {
        self.push(None, Some(key.to_owned()), message.to_string());
    }

    /// Notes `message` about `key` unless `condition` holds.
    pub fn require(&mut self, key: &str, condition: bool, message: impl fmt::Display) {
        if !condition {
            self.add(key, message);
        }
    }

    /// The value of `result`; its error is noted about `key`.
    pub fn accept<T>(&mut self, key: &str, result: Result<T, impl fmt::Display>) -> Option<T> {
        result.map_err(|error| self.add(key, error)).ok()
    }

    /// # Errors
    /// All that was noted, if anything was.
    pub fn finish(self) -> Result<(), ConfigError> {
        if self.found.is_empty() {
            Ok(())
        } else {
            Err(ConfigError { problems: self })
        }
    }

    fn push(&mut self, line: Option<usize>, key: Option<String>, message: String) {
        self.found.push(Problem { line, key, message });
    }
}

/// What is wrong with a configuration; shows one line per problem, each with file and key.
#[derive(Debug)]
pub struct ConfigError {
    problems: Problems,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.found.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{}", self.problems.file.display())?;
            if let Some(line) = problem.line {
                write!(f, ":{line}")?;
            }
            if let Some(key) = &problem.key {
                write!(f, ": key \"{key}\"")?;
            }
            write!(f, ": {}", problem.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

#[derive(Debug)]
struct Problem {
    /// From 1.
    line: Option<usize>,
    key: Option<String>,
    message: String,
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!(
            "larger than {FILE_BYTES_MAX} bytes"
        )));
    }
    Ok(text)
}
