//! The command line of a node: `program -i FILE [--check]`, and its exit codes.
//!
//! | code | when |
//! |---|---|
//! | 0 | the node ran and drained, or `--check` found the configuration good |
//! | 1 | the node failed while starting or running |
//! | 2 | the command line or the configuration is wrong |
//! | 130 | a second signal ended the drain (see [`drain`](crate::drain)) |

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser};

use crate::config::ConfigError;

const EXIT_FAILED: u8 = 1;
const EXIT_CONFIG: u8 = 2;

/// Runs a node from the command line of this process.
///
/// `load` reads and checks the configuration file; `serve` gets the result and returns when the
/// node has drained. Errors of both are written to standard error.
pub fn run<C, E: Display>(
    program: &'static str,
    about: &'static str,
    load: impl FnOnce(&Path) -> Result<C, ConfigError>,
    serve: impl FnOnce(C) -> Result<(), E>,
) -> ExitCode {
    let options = match parse(program, about, std::env::args_os()) {
        Ok(options) => options,
        Err(error) => error.exit(),
    };
    ExitCode::from(run_with(
        &options,
        load,
        serve,
        &mut io::stdout(),
        &mut io::stderr(),
    ))
}

#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// The configuration file (TOML)
    #[arg(short = 'i', long = "config", value_name = "FILE")]
    config: PathBuf,
    /// Only check the configuration
    #[arg(long)]
    check: bool,
}

fn parse(
    program: &'static str,
    about: &'static str,
    args: impl IntoIterator<Item = OsString>,
) -> Result<Options, clap::Error> {
    let mut command = Options::command().name(program).about(about);
    let matches = command.try_get_matches_from_mut(args)?;
    Options::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

fn run_with<C, E: Display>(
    options: &Options,
    load: impl FnOnce(&Path) -> Result<C, ConfigError>,
    serve: impl FnOnce(C) -> Result<(), E>,
    out: &mut impl Write,
    err: &mut impl Write,
) -> u8 {
    // Where nobody reads a line, the exit code still tells.
    let config = match load(&options.config) {
        Ok(config) => config,
        Err(error) => {
            let _ = writeln!(err, "{error}");
            return EXIT_CONFIG;
        }
    };
    if options.check {
        let _ = writeln!(out, "configuration is good");
        return 0;
    }
    match serve(config) {
        Ok(()) => 0,
        Err(error) => {
            let _ = writeln!(err, "{error}");
            EXIT_FAILED
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Problems;

    fn parsed(args: &[&str]) -> Result<Options, clap::Error> {
        let args = ["chat-example"].iter().chain(args).map(OsString::from);
        parse("chat-example", "Serves as an example", args)
    }

    /// Exit code, standard output, standard error.
    fn outcome(
        args: &[&str],
        load: impl FnOnce(&Path) -> Result<u8, ConfigError>,
        serve: impl FnOnce(u8) -> Result<(), &'static str>,
    ) -> (u8, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = run_with(
            &parsed(args).expect("parsed"),
            load,
            serve,
            &mut out,
            &mut err,
        );
        let text = |bytes| String::from_utf8(bytes).expect("text");
        (code, text(out), text(err))
    }

    #[test]
    fn a_good_configuration_is_served() {
        let load = |file: &Path| Ok(u8::from(file == Path::new("a.toml")));
        let served = outcome(&["-i", "a.toml"], load, |config| {
            if config == 1 {
                Ok(())
            } else {
                Err("another file")
            }
        });
        assert_eq!(served, (0, String::new(), String::new()));
    }

    #[test]
    fn a_check_does_not_serve() {
        let checked = outcome(&["--check", "-i", "a"], |_| Ok(1), |_| Err("served"));
        assert_eq!(
            checked,
            (0, "configuration is good\n".to_owned(), String::new())
        );
    }

    #[test]
    fn a_wrong_configuration_ends_with_its_problems_and_code_2() {
        for args in [&["-i", "a.toml"][..], &["-i", "a.toml", "--check"]] {
            let load = |file: &Path| {
                let mut problems = Problems::new(file);
                problems.add("listen", "expected host:port");
                problems.finish().map(|()| 1)
            };
            let message = "a.toml: key \"listen\": expected host:port\n".to_owned();
            assert_eq!(outcome(args, load, |_| Ok(())), (2, String::new(), message));
        }
    }

    #[test]
    fn a_node_that_fails_ends_with_code_1() {
        let failed = outcome(&["-i", "a"], |_| Ok(1), |_| Err("the port is taken"));
        assert_eq!(failed, (1, String::new(), "the port is taken\n".to_owned()));
    }

    #[test]
    fn a_wrong_command_line_points_to_the_help_and_has_code_2() {
        for args in [&[][..], &["-i"], &["a.toml"], &["-i", "a", "--unknown"]] {
            let error = parsed(args).expect_err("refused");
            assert_eq!(error.exit_code(), 2, "{args:?}");
            assert!(error.to_string().contains("--help"), "{error}");
        }
    }

    #[test]
    fn help_explains_the_options() {
        let help = parsed(&["--help"]).expect_err("help");
        assert_eq!(help.exit_code(), 0);
        let text = help.to_string();
        for part in ["Serves as an example", "-i, --config <FILE>", "--check"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
