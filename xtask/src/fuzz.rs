//! `cargo xtask fuzz`: the fuzz targets of `fuzz/`, each for a bounded time.
//!
//! With the compiler that builds everything else: libFuzzer needs its coverage counters only, which a
//! stable compiler has too. cargo-fuzz runs the same targets, with a nightly one and sanitizers.
//!
//! Everything that is built or found stays below `target/fuzz`: the inputs worth keeping in
//! `corpus/TARGET`, so that the next run goes on from there, and those that failed in `failures`.
//!
//! Another target takes its file in `fuzz/fuzz_targets`, its name in `fuzz/Cargo.toml` and, if it does
//! not find its way in by itself, a few inputs in `fuzz/seeds/TARGET`.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use nexus_testkit::repository_root;
use serde_json::Value;

/// What cargo-fuzz hands the compiler, without a sanitizer.
const RUSTFLAGS: &str = "-Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Ccodegen-units=1 --cfg fuzzing";

/// A single input that takes longer than this is a failure.
const INPUT_SECONDS_MAX: u32 = 10;

/// The target that reads whole connections of baidu_std, and where some that were captured lie.
const CAPTURES: (&str, &str) = ("baidu_std", "nexus-rpc/tests/data/baidu_std");

/// What may be chosen about a run.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How long each target runs
    #[arg(long, default_value_t = 60, value_name = "N")]
    pub(crate) seconds: u32,
    /// Only this target
    pub(crate) target: Option<String>,
}

/// Why fuzzing did not end well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A folder, a file or a program cannot be used.
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// The targets do not compile; the compiler has said why.
    #[error("building the fuzz targets failed ({0})")]
    Build(ExitStatus),
    /// A capture is not hexadecimal.
    #[error("{} is not a capture: {source}", path.display())]
    Capture {
        path: PathBuf,
        source: hex::FromHexError,
    },
    /// An input that a target does not survive.
    #[error("fuzz target {target} failed; all it said is in {}", log.display())]
    Found { target: String, log: PathBuf },
}

/// Builds the targets and runs one after the other, up to the first that fails.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    let folder = folder();
    for binary in build(&folder, options.target.as_deref())? {
        let name = binary.file_name().unwrap_or_default().to_string_lossy();
        let target = Target {
            name: &name,
            binary: &binary,
            folder: &folder,
        };
        target.run(options.seconds)?;
    }
    Ok(())
}

fn folder() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| OsString::from("target"));
    repository_root().join(target).join("fuzz")
}

/// Returns the executables.
fn build(folder: &Path, target: Option<&str>) -> Result<Vec<PathBuf>, Error> {
    let mut command = nexus_testkit::cargo();
    // With a target of its own the flags do not reach build scripts.
    command
        .args(["build", "--release", "--locked", "--target", "host-tuple"])
        .arg("--message-format=json-render-diagnostics")
        .arg("--target-dir")
        .arg(folder)
        .current_dir(repository_root().join("fuzz"))
        .env("RUSTFLAGS", RUSTFLAGS)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    match target {
        Some(target) => command.args(["--bin", target]),
        None => command.arg("--bins"),
    };
    let output = command.output().map_err(at(Path::new("cargo")))?;
    if !output.status.success() {
        return Err(Error::Build(output.status));
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let mut binaries: Vec<PathBuf> = messages.lines().filter_map(executable).collect();
    binaries.sort();
    Ok(binaries)
}

/// The executable that one of cargo's messages tells of, if it tells of one.
fn executable(message: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    message.get("executable")?.as_str().map(PathBuf::from)
}

struct Target<'a> {
    name: &'a str,
    binary: &'a Path,
    folder: &'a Path,
}

impl Target<'_> {
    fn run(&self, seconds: u32) -> Result<(), Error> {
        let corpus = self.make_folder("corpus")?;
        let seeds = self.seeds()?;
        let failures = self.make_folder("failures")?;
        let log = failures.with_extension("log");
        let output = File::create(&log).map_err(at(&log))?;

        let start = Instant::now();
        let status = Command::new(self.binary)
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
            .arg(format!("-artifact_prefix={}/", failures.display()))
            .arg("-print_final_stats=1")
            // What is new is kept in the first one.
            .arg(&corpus)
            .args(&seeds)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            .status()
            .map_err(at(self.binary))?;
        let said = fs::read(&log).map_err(at(&log))?;
        let said = String::from_utf8_lossy(&said);
        if status.success() {
            println!("{}", self.summary(&said, start.elapsed()));
            return Ok(());
        }
        eprintln!("{}", self.failure(&said));
        Err(Error::Found {
            target: self.name.to_owned(),
            log,
        })
    }

    /// The folders of what to begin with.
    fn seeds(&self) -> Result<Vec<PathBuf>, Error> {
        let mut seeds = vec![repository_root().join("fuzz/seeds").join(self.name)];
        seeds.retain(|folder| folder.is_dir());
        if self.name == CAPTURES.0 {
            let unpacked = self.make_folder("captures")?;
            unpack_captures(&repository_root().join(CAPTURES.1), &unpacked)?;
            seeds.push(unpacked);
        }
        Ok(seeds)
    }

    /// `FOLDER/KIND/TARGET`.
    fn make_folder(&self, kind: &str) -> Result<PathBuf, Error> {
        let folder = self.folder.join(kind).join(self.name);
        fs::create_dir_all(&folder).map_err(at(&folder))?;
        Ok(folder)
    }

    fn summary(&self, said: &str, took: Duration) -> String {
        let stat = |name| said.lines().find_map(|line| stat(line, name)).unwrap_or(0);
        format!(
            "{:<16} {:>6.1} s {:>12} inputs {:>9}/s {:>6} kept",
            self.name,
            took.as_secs_f64(),
            stat("number_of_executed_units"),
            stat("average_exec_per_sec"),
            stat("new_units_added"),
        )
    }

    /// What the target said about the input, and how to see it again.
    fn failure(&self, said: &str) -> String {
        let panic = said.lines().skip_while(|line| !line.contains("panicked"));
        let panic: Vec<&str> = panic.take(4).collect();
        let input = said
            .lines()
            .find_map(|line| line.split_once("Test unit written to "));
        let again = match input {
            Some((_, input)) => format!(
                "The input is in {input}. To run it again:\n\n    {} {input}\n",
                self.binary.display()
            ),
            None => "It left no input behind.".to_owned(),
        };
        format!("{}\n{}\n\n{again}", self.name, panic.join("\n"))
    }
}

/// A line of libFuzzer's final statistics: `stat::NAME: VALUE`.
fn stat(line: &str, name: &str) -> Option<u64> {
    let (found, value) = line.strip_prefix("stat::")?.split_once(':')?;
    (found == name).then(|| value.trim().parse().ok())?
}

/// Writes captured connections as inputs: their bytes, and a last one for the size of a read.
fn unpack_captures(from: &Path, into: &Path) -> Result<(), Error> {
    const READ_BYTES: u8 = 7;
    for entry in fs::read_dir(from).map_err(at(from))? {
        let path = entry.map_err(at(from))?.path();
        let Some(name) = path
            .file_name()
            .filter(|_| path.extension() == Some("hex".as_ref()))
        else {
            continue;
        };
        let text = fs::read_to_string(&path).map_err(at(&path))?;
        let digits: String = text.lines().filter(|line| !line.starts_with('#')).collect();
        let mut input = hex::decode(digits).map_err(|source| Error::Capture {
            path: path.clone(),
            source,
        })?;
        input.push(READ_BYTES);
        let seed = into.join(name).with_extension("");
        fs::write(&seed, input).map_err(at(&seed))?;
    }
    Ok(())
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Io { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target<'static> {
        Target {
            name: "codec",
            binary: Path::new("/t/codec"),
            folder: Path::new("/t"),
        }
    }

    #[test]
    fn a_failure_names_the_input_and_how_to_run_it_again() {
        let said = "#5 NEW\nthread panicked at src/a.rs:1:1:\nno such frame\n\
            Test unit written to /t/failures/codec/crash-1\nBase64: AA==\n";
        let shown = target().failure(said);
        assert!(shown.contains("no such frame"), "{shown}");
        assert!(
            shown.contains("    /t/codec /t/failures/codec/crash-1\n"),
            "{shown}"
        );
    }

    #[test]
    fn the_statistics_are_read() {
        let said = "Done 10 runs\nstat::number_of_executed_units: 10\n\
            stat::average_exec_per_sec:     5\nstat::new_units_added:          2\n";
        let shown = target().summary(said, Duration::from_secs(2));
        let words: Vec<&str> = shown.split_whitespace().collect();
        assert_eq!(
            words,
            ["codec", "2.0", "s", "10", "inputs", "5/s", "2", "kept"]
        );
    }

    #[test]
    fn every_capture_becomes_an_input() {
        let into = tempfile::tempdir().unwrap();
        let from = repository_root().join(CAPTURES.1);
        unpack_captures(&from, into.path()).unwrap();
        let input = fs::read(into.path().join("echo_plain.req")).unwrap();
        assert!(input.starts_with(b"PRPC"));
        assert!(fs::read_dir(into.path()).unwrap().count() > 160);
    }
}
