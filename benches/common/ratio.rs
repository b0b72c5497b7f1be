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

/// Median times in ns, of nexus and of the other.
type Pair = [Option<f64>; 2];

/// Prints the pairs of `nexus` and `other`, as the benches call their sides, that were measured since
/// `started`.
pub fn print(output: &Path, started: SystemTime, other: &str) {
    let mut pairs = BTreeMap::new();
    if let Err(error) = collect(output, started, other, &mut pairs) {
        eprintln!("cannot read what criterion has written: {error}");
    }
    println!("\n| bench | nexus µs | {other} µs | {other} / nexus |");
    println!("|---|--:|--:|--:|");
    for (name, pair) in pairs {
        if let [Some(nexus), Some(other)] = pair {
            println!(
                "| {name} | {:.2} | {:.2} | {:.2} |",
                nexus / 1000.0,
                other / 1000.0,
                other / nexus
            );
        }
    }
}

fn collect(
    folder: &Path,
    started: SystemTime,
    other: &str,
    pairs: &mut BTreeMap<String, Pair>,
) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if !path.is_dir() {
            continue;
        }
        let estimates = path.join("new/estimates.json");
        if !estimates.exists() {
            collect(&path, started, other, pairs)?;
        } else if fs::metadata(&estimates)?.modified()? >= started {
            let benchmark: Benchmark = read(&path.join("new/benchmark.json"))?;
            let estimates: Estimates = read(&estimates)?;
            add(pairs, benchmark, other, estimates.median.point_estimate);
        }
    }
    Ok(())
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

fn add(pairs: &mut BTreeMap<String, Pair>, benchmark: Benchmark, other: &str, median_ns: f64) {
    let side = match benchmark.function_id.as_deref() {
        Some("nexus") => 0,
        Some(name) if name == other => 1,
        _ => return,
    };
    let name = match benchmark.value_str {
        Some(value) => format!("{}, {value}", benchmark.group_id),
        None => benchmark.group_id,
    };
    pairs.entry(name).or_default()[side] = Some(median_ns);
}
