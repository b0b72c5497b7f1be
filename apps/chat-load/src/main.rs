//! `chat-load`: the command line.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use chat_load::parts::{self, Usage};
use chat_load::processes::{Client, Order, run_client};
use chat_load::{LoadOptions, Pace, Progress, Report, Roster, Senders, Shape, setup};
use clap::{Args, Parser, Subcommand};
use nexus_testkit::{Cluster, ClusterOptions, Profile, build_binaries};

/// Puts a chat under load and checks what arrives. Exits with 1 when an acknowledged message was lost,
/// shown twice, out of order or damaged.
///
/// Without --connect it starts a cluster of its own (release builds, real servers, everything on this
/// machine), and makes its users straight in the database.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Role>,
    #[command(flatten)]
    options: CliOptions,
}

#[derive(Subcommand)]
enum Role {
    /// What this program runs of itself; takes its orders on standard input
    #[command(hide = true)]
    Client,
}

#[derive(Args)]
struct CliOptions {
    /// Where a chat is; can be given several times. Default: a cluster of its own
    #[arg(long)]
    connect: Vec<SocketAddr>,
    /// Of a cluster of its own: the folder of its programs. Default: they are built
    #[arg(long)]
    binaries: Option<PathBuf>,
    /// Of a cluster of its own: connect to the proxies, past nginx
    #[arg(long)]
    direct: bool,
    /// Of a cluster of its own: the event loops of each of its proxies and servers. All of them share this
    /// machine
    #[arg(long, default_value_t = 1)]
    loops: usize,
    /// The database to make users in, `mysql://user:password@host:port/database`. Default: that of a
    /// cluster of its own; at a chat that is there, users are registered over the protocol
    #[arg(long)]
    seed_store: Option<String>,
    /// Pairs of friends
    #[arg(long, default_value_t = 256)]
    pairs: usize,
    /// In how many pairs each of their users is
    #[arg(long, default_value_t = 1)]
    friends: usize,
    /// Groups
    #[arg(long, default_value_t = 0)]
    groups: usize,
    /// Members of each group
    #[arg(long, default_value_t = 100)]
    group_members: usize,
    /// Users who are logged in and do nothing
    #[arg(long, default_value_t = 0)]
    idle: usize,
    /// Messages that are stored before, dealt out to all conversations. Needs the database
    #[arg(long, default_value_t = 0)]
    stored: usize,
    /// Messages per second over all pairs, sent at their time whatever comes back
    #[arg(long)]
    rate: Option<f64>,
    /// The same over all groups. With neither: as fast as acknowledgements come
    #[arg(long)]
    group_rate: Option<f64>,
    /// Without rates: messages on the way per sender
    #[arg(long, default_value_t = 1)]
    in_flight: usize,
    /// All members send, not only the first of each pair and group
    #[arg(long)]
    all_send: bool,
    /// Bytes of a text
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// How long to measure
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How long to send before measuring
    #[arg(long, default_value_t = 2)]
    warm_up: u64,
    /// How long what is under way at the end may take to arrive
    #[arg(long, default_value_t = 90)]
    drain: u64,
    /// Client processes; a conversation is in one of them
    #[arg(long, default_value_t = 1)]
    processes: usize,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Some(Role::Client) => run_client().map(|()| true).map_err(Into::into),
        None => run(&cli.options),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chat-load: {error}");
            ExitCode::from(2)
        }
    }
}

/// Whether every promise was kept.
fn run(options: &CliOptions) -> Result<bool, Box<dyn Error>> {
    let cluster = match options.connect.is_empty() {
        true => {
            let binaries = match &options.binaries {
                Some(folder) => folder.clone(),
                None => build_binaries(Profile::Release)?,
            };
            Some(Cluster::start(ClusterOptions {
                loops: Some(options.loops),
                ..ClusterOptions::new(binaries)
            })?)
        }
        false => None,
    };
    let shape = Shape {
        pairs: options.pairs,
        friends: options.friends,
        groups: options.groups,
        group_members: options.group_members,
        idle: options.idle,
    };
    let addresses = addresses(options, cluster.as_ref());
    let memory_before = cluster.as_ref().map(parts::of_cluster);
    let started = Instant::now();
    let roster = roster(options, cluster.as_ref(), &addresses, shape)?;
    println!(
        "{} users made in {:.1} s",
        roster.users(),
        started.elapsed().as_secs_f64()
    );
    let mut clients = start_clients(options, addresses, roster)?;
    let started = Instant::now();
    for client in &clients {
        client.wait_entered()?;
    }
    println!("logged in within {:.1} s", started.elapsed().as_secs_f64());

    for client in &mut clients {
        client.begin()?;
    }
    watch(&clients, options.warm_up);
    let before = usage(cluster.as_ref(), &clients);
    let measured = Instant::now();
    watch(&clients, options.seconds);
    let seconds = measured.elapsed().as_secs_f64();
    let after = usage(cluster.as_ref(), &clients);
    for client in &mut clients {
        client.end()?;
    }
    let mut report = Report::default();
    for client in &mut clients {
        report.merge(client.report()?);
    }
    print!("{report}");
    print_cpu(&before, &after, seconds);
    if let Some(before) = memory_before {
        print_memory(&before, &after, shape.users());
    }
    Ok(report.is_clean())
}

fn addresses(options: &CliOptions, cluster: Option<&Cluster>) -> Vec<SocketAddr> {
    match cluster {
        None => options.connect.clone(),
        Some(cluster) if options.direct => {
            let proxies = cluster.proxies().iter();
            proxies.map(|proxy| proxy.address()).collect()
        }
        Some(cluster) => vec![cluster.address()],
    }
}

fn roster(
    options: &CliOptions,
    cluster: Option<&Cluster>,
    addresses: &[SocketAddr],
    shape: Shape,
) -> Result<Roster, setup::SetupError> {
    let own = cluster.map(|cluster| cluster.mariadb().url());
    match options.seed_store.as_ref().or(own.as_ref()) {
        Some(url) => setup::seed(url, shape, options.stored),
        None if options.stored > 0 => Err(setup::SetupError::Refused {
            what: "--stored",
            answer: "it writes to the database: say where that is with --seed-store".to_owned(),
        }),
        None => setup::register(addresses, shape),
    }
}

fn start_clients(
    options: &CliOptions,
    connect: Vec<SocketAddr>,
    roster: Roster,
) -> Result<Vec<Client>, Box<dyn Error>> {
    let count = options.processes.max(1);
    let share = 1.0 / count as f64;
    let pace = match (options.rate, options.group_rate) {
        (None, None) => Pace::FlatOut {
            in_flight: options.in_flight,
        },
        (pairs, groups) => Pace::Open {
            pairs_per_s: pairs.unwrap_or(0.0) * share,
            groups_per_s: groups.unwrap_or(0.0) * share,
        },
    };
    let load = LoadOptions {
        size_bytes: options.size,
        senders: match options.all_send {
            true => Senders::All,
            false => Senders::First,
        },
        ..LoadOptions::new(connect, pace)
    };
    let start = |roster| {
        Client::start(&Order {
            options: load.clone(),
            roster,
            warm_up: Duration::from_secs(options.warm_up),
            enter_deadline: Duration::from_secs(300),
            drain_deadline: Duration::from_secs(options.drain),
        })
    };
    let parts = roster.split(count).into_iter();
    Ok(parts.map(start).collect::<Result<_, _>>()?)
}

/// Lets time pass, with a line every second.
fn watch(clients: &[Client], seconds: u64) {
    let sum = || {
        let mut sum = Progress::default();
        for progress in clients.iter().map(Client::progress) {
            sum.users += progress.users;
            sum.logged_in += progress.logged_in;
            sum.acknowledged += progress.acknowledged;
            sum.delivered += progress.delivered;
            sum.unacknowledged += progress.unacknowledged;
        }
        sum
    };
    let mut last = sum();
    for _ in 0..seconds {
        // Time is what is measured.
        std::thread::sleep(Duration::from_secs(1));
        let now = sum();
        println!(
            "{:>7} acknowledged/s {:>7} delivered/s {:>7} unanswered {:>6} of {} logged in",
            now.acknowledged - last.acknowledged,
            now.delivered - last.delivered,
            now.unacknowledged,
            now.logged_in,
            now.users
        );
        last = now;
    }
}

fn usage(cluster: Option<&Cluster>, clients: &[Client]) -> BTreeMap<String, Usage> {
    let mut parts = cluster.map(parts::of_cluster).unwrap_or_default();
    let load = parts.entry("chat-load".to_owned()).or_default();
    for client in clients {
        load.cpu_seconds += parts::of_process(client.pid()).cpu_seconds;
    }
    parts
}

fn print_cpu(before: &BTreeMap<String, Usage>, after: &BTreeMap<String, Usage>, seconds: f64) {
    let share = |name: &String, after: &Usage| {
        let before = before.get(name).copied().unwrap_or_default();
        100.0 * (after.cpu_seconds - before.cpu_seconds) / seconds
    };
    let parts = after
        .iter()
        .map(|(name, after)| format!("{name} {:.0}", share(name, after)));
    println!(
        "  CPU, % of one core: {}",
        parts.collect::<Vec<_>>().join(", ")
    );
}

fn print_memory(before: &BTreeMap<String, Usage>, after: &BTreeMap<String, Usage>, users: usize) {
    let anonymous = |parts: &BTreeMap<String, Usage>| {
        let proxies = parts.get("chat-proxy");
        proxies.map_or(0, |usage| usage.anonymous_bytes)
    };
    let (before, after) = (anonymous(before), anonymous(after));
    println!(
        "  memory of the proxies: {} KiB without clients, {} KiB with: {} B for each",
        before / 1024,
        after / 1024,
        after.saturating_sub(before) / users.max(1) as u64
    );
}
