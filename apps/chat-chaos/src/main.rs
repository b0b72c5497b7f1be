//! `chat-chaos`: the command line.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use chat_chaos::outcome::HEADING;
use chat_chaos::{Error, Fault, Form, Plan, Summary, Trial, TrialOptions, disk};
use chat_load::Shape;
use clap::Parser;
use nexus_testkit::{Profile, build_binaries};

/// Hurts a chat cluster under load, one fault after the other, and watches what becomes of it.
///
/// Starts a cluster of its own: two servers and two proxies behind nginx, on MariaDB, Redis and ZooKeeper,
/// with a relay on every way between them. Exits with 1 when an acknowledged message was lost, shown twice,
/// out of order or damaged, or when service did not come back.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// How long; a fault that has begun is seen to its end
    #[arg(long, default_value_t = 10)]
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
    /// Keep data and logs in this folder
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
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
    let profile = match options.debug {
        true => Profile::Dev,
        false => Profile::Release,
    };
    let trial_options = TrialOptions {
        binaries: build_binaries(profile)?,
        data_dir: options.data,
        shape: Shape {
            pairs: options.pairs,
            friends: 1,
            groups: options.groups,
            group_members: 8,
            idle: 0,
        },
    };
    let trial = Trial::start(&trial_options)?;
    let until = Instant::now() + Duration::from_secs(60 * options.minutes);
    let mut summary = Summary::default();
    let mut is_good = true;
    println!("{HEADING}");
    for step in Plan::new(seed, Form::Long, faults) {
        if Instant::now() >= until || !is_good {
            break;
        }
        let outcome = match step.fault {
            Fault::FillDisk => disk::suffer(&trial_options.binaries, step)?,
            _ => trial.suffer(step)?,
        };
        println!("{outcome}");
        is_good = outcome.is_good();
        summary.add(outcome);
    }
    let verdict = trial.finish();
    println!("\nThe worst of each:\n\n{summary}");
    for example in &verdict.examples {
        println!("    {example}");
    }
    println!("At the end: {verdict:?}");
    Ok(is_good && verdict.is_clean())
}
