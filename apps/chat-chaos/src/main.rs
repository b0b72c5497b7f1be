//! `chat-chaos`: the command line.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chat_chaos::outcome::HEADING;
use chat_chaos::{Error, Fault, Form, Plan, Summary, Trial, TrialOptions, disk};
use chat_load::Shape;
use clap::Parser;
use nexus_testkit::{Profile, build_binaries};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// The exit code when a second signal cuts the run short.
const EXIT_INTERRUPTED: i32 = 130;

/// Hurts a chat cluster under load, one fault after the other, and watches what becomes of it.
///
/// Starts a cluster of its own: two servers and two proxies behind nginx, on MariaDB, Redis and ZooKeeper,
/// with a relay on every way between them. Exits with 1 when an acknowledged message was lost, shown twice,
/// out of order or damaged, when service did not come back, or when a part fell that was not hurt; with 2 when it could not
/// be seen, or when a killed part did not start again.
///
/// Ctrl-C ends it as the end of its time does: a fault that has begun is seen to its end. A second one ends
/// it at once.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// How long; a fault that has begun is seen to its end
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_080))]
    minutes: u64,
    /// What the order and the times of the faults come from. Default: a random one, which is printed
    #[arg(long)]
    seed: Option<u64>,
    /// Only this fault; can be given several times
    #[arg(long, value_name = "NAME")]
    fault: Vec<Fault>,
    /// Pairs of friends
    #[arg(long, default_value_t = 48)]
    pairs: usize,
    /// Groups, of 8 members each
    #[arg(long, default_value_t = 4)]
    groups: usize,
    /// Encrypt everything between clients and parts, and between the parts (not the chat of `fill-disk`)
    #[arg(long)]
    tls: bool,
    /// Keep data and logs in this folder
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The folder of the chat's programs. Default: they are built
    #[arg(long, value_name = "DIR", conflicts_with = "debug")]
    programs: Option<PathBuf>,
    /// Build the chat without optimisation
    #[arg(long)]
    debug: bool,
}

fn main() -> ExitCode {
    match run(Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chat-chaos: {error}");
            ExitCode::from(2)
        }
    }
}

/// Whether every promise was kept.
fn run(options: Options) -> Result<bool, Error> {
    let seed = options.seed.unwrap_or_else(rand::random);
    println!("seed {seed}");
    let faults = match options.fault.is_empty() {
        true => Fault::all(),
        false => options.fault,
    };
    let binaries = match options.programs {
        Some(folder) => folder,
        None => build_binaries(match options.debug {
            true => Profile::Dev,
            false => Profile::Release,
        })?,
    };
    let interrupted = catch_signals()?;
    println!("Ctrl-C ends it after the present fault, once more at once.\nStarting ...");
    let trial_options = TrialOptions {
        binaries,
        data_dir: options.data,
        shape: Shape {
            pairs: options.pairs,
            friends: 1,
            groups: options.groups,
            group_members: 8,
            idle: 0,
        },
        tls: options.tls,
    };
    let trial = Trial::start(&trial_options)?;
    let until = Instant::now() + Duration::from_secs(60 * options.minutes);
    let mut summary = Summary::default();
    let mut failure = None;
    println!("\n{HEADING}");
    for step in Plan::new(seed, Form::Long, faults) {
        if Instant::now() >= until || interrupted.load(Ordering::Relaxed) {
            break;
        }
        let outcome = match step.fault {
            Fault::FillDisk => disk::suffer(&trial_options, step),
            _ => trial.suffer(step),
        };
        match outcome {
            Ok(outcome) => {
                println!("{outcome}");
                let is_good = outcome.is_good();
                summary.add(outcome);
                if !is_good {
                    break;
                }
            }
            Err(error) => {
                println!("{:<26} FAILED", step.fault);
                failure = Some(error);
                break;
            }
        }
    }
    if summary.is_empty() && failure.is_none() {
        return Err(Error::Interrupted);
    }
    println!("\nThe worst of each:\n\n{summary}");
    // What is left of the chat would be judged, not the chat.
    if let Some(error) = failure {
        return Err(error);
    }
    println!("Waiting for what is under way ...");
    let verdict = trial.finish();
    print!("At the end:\n{verdict}");
    Ok(summary.is_good() && verdict.is_clean() && verdict.unacknowledged == 0)
}

/// A flag the first signal sets. A second one ends this process at once, and with it all that it started.
fn catch_signals() -> io::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // In this order: the flag is not set yet when the first signal looks at it.
        flag::register_conditional_shutdown(signal, EXIT_INTERRUPTED, Arc::clone(&interrupted))?;
        flag::register(signal, Arc::clone(&interrupted))?;
    }
    Ok(interrupted)
}
