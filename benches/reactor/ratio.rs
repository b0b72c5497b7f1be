//! Both sides of each bench and their ratio, from the estimates that criterion has written.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;
use std::{fs, io};

use serde::Deserialize;

#[derive(Deserialize)]
struct Benchmark {
    group_id: String,
    function_id: Option<String>,
    value_str: Option<String>,
}

#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Deserialize)]
struct Estimate {
    point_estimate: f64,
}

/// Median times in ns, of nexus and of tokio.
type Pair = [Option<f64>; 2];

/// Prints the pairs that were measured since `started`.
pub(crate) fn print(output: &Path, started: SystemTime) {
    let mut pairs = BTreeMap::new();
    if let Err(error) = collect(output, started, &mut pairs) {
        eprintln!("cannot read what criterion has written: {error}");
    }
    println!("\n| bench | nexus µs | tokio µs | tokio / nexus |");
    println!("|---|--:|--:|--:|");
    for (name, pair) in pairs {
        if let [Some(nexus), Some(tokio)] = pair {
            println!(
                "| {name} | {:.2} | {:.2} | {:.2} |",
                nexus / 1000.0,
                tokio / 1000.0,
                tokio / nexus
            );
        }
    }
}

fn collect(
    folder: &Path,
    started: SystemTime,
    pairs: &mut BTreeMap<String, Pair>,
) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if !path.is_dir() {
            continue;
        }
        let estimates = path.join("new/estimates.json");
        if !estimates.exists() {
            collect(&path, started, pairs)?;
        } else if fs::metadata(&estimates)?.modified()? >= started {
            let benchmark: Benchmark = read(&path.join("new/benchmark.json"))?;
            let estimates: Estimates = read(&estimates)?;
            add(pairs, benchmark, estimates.median.point_estimate);
        }
    }
    Ok(())
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

fn add(pairs: &mut BTreeMap<String, Pair>, benchmark: Benchmark, median_ns: f64) {
    let side = match benchmark.function_id.as_deref() {
        Some("nexus") => 0,
        Some("tokio") => 1,
        _ => return,
    };
    let name = match benchmark.value_str {
        Some(value) => format!("{}, {value}", benchmark.group_id),
        None => benchmark.group_id,
    };
    pairs.entry(name).or_default()[side] = Some(median_ns);
}
