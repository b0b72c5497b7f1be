//! `cargo xtask test`: all set-up and all tests.

use std::fmt::Display;
use std::time::Instant;

use nexus_testkit::{Profile, build_binaries};

use crate::{fuzz, packages};

/// Enough to find what a change has broken; a search for what was always broken takes longer.
const FUZZ_SECONDS: u32 = 10;

/// At least one step failed; the summary has been printed.
#[derive(Debug, thiserror::Error)]
#[error("The tests failed.")]
pub(crate) struct Failed;

/// Runs the steps one after the other, stops at the first that fails and prints how each went.
pub(crate) fn run() -> Result<(), Failed> {
    let steps: [(&str, Step); 4] = [
        ("install what is missing", packages_step),
        ("build all programs", programs_step),
        // All targets' tests and the examples in the documentation.
        ("run all tests", || {
            cargo(&["test", "--workspace", "--all-features", "--no-fail-fast"])
        }),
        ("fuzz the codecs", fuzz_step),
    ];
    let mut summary = String::new();
    let mut failed = false;
    for (name, step) in steps {
        let line = if failed {
            format!("skipped          {name}\n")
        } else {
            println!("==> {name}");
            let start = Instant::now();
            let outcome = step();
            failed = outcome.is_err();
            let verdict = if failed { "FAILED " } else { "ok     " };
            let because = outcome
                .err()
                .map(|error| format!(": {error}"))
                .unwrap_or_default();
            format!(
                "{verdict} {:>6.1} s  {name}{because}\n",
                start.elapsed().as_secs_f64()
            )
        };
        summary.push_str(&line);
    }
    println!("\n{summary}");
    if failed { Err(Failed) } else { Ok(()) }
}

/// Says what went wrong.
type Step = fn() -> Result<(), String>;

fn packages_step() -> Result<(), String> {
    packages::install_missing().map_err(text)
}

/// As the tests do it, which then have nothing to build.
fn programs_step() -> Result<(), String> {
    build_binaries(Profile::Dev).map(drop).map_err(text)
}

fn fuzz_step() -> Result<(), String> {
    let options = fuzz::Options {
        seconds: FUZZ_SECONDS,
        target: None,
    };
    fuzz::run(&options).map_err(text)
}

fn cargo(args: &[&str]) -> Result<(), String> {
    let status = nexus_testkit::cargo().args(args).status().map_err(text)?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("cargo {}: {status}", args.join(" ")))
    }
}

fn text(error: impl Display) -> String {
    error.to_string()
}
