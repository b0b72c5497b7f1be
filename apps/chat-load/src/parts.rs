//! CPU time and memory of the parts of a cluster, from /proc.

use std::collections::BTreeMap;

use nexus_testkit::Cluster;
use procfs::process::{Process, all_processes};

/// What the processes of one part have used.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// CPU seconds so far, in user mode and in the kernel.
    pub cpu_seconds: f64,
    /// Anonymous memory now: what the part itself has allocated.
    pub anonymous_bytes: u64,
}

/// What the parts of a cluster have used, by part: `chat-proxy`, `chat-server`, `mariadb` and so on. What
/// cannot be read (a process has ended) counts as nothing.
pub fn of_cluster(cluster: &Cluster) -> BTreeMap<String, Usage> {
    let mut parts: BTreeMap<String, Usage> = BTreeMap::new();
    for process in cluster.processes() {
        // `chat-proxy-2` is a chat-proxy.
        let part = process
            .name()
            .trim_end_matches(|c: char| c.is_ascii_digit() || c == '-');
        let usage = of_process(process.pid());
        let sum = parts.entry(part.to_owned()).or_default();
        sum.cpu_seconds += usage.cpu_seconds;
        sum.anonymous_bytes += usage.anonymous_bytes;
    }
    parts
}

/// What a process and its children (the workers of nginx) have used.
pub fn of_process(pid: u32) -> Usage {
    let mut usage = Usage::default();
    for process in all_processes().into_iter().flatten().flatten() {
        let Ok(stat) = process.stat() else {
            continue;
        };
        let belongs = stat.pid.unsigned_abs() == pid || stat.ppid.unsigned_abs() == pid;
        if belongs {
            let ticks = stat.utime + stat.stime;
            usage.cpu_seconds += ticks as f64 / procfs::ticks_per_second() as f64;
            usage.anonymous_bytes += anonymous_bytes(&process);
        }
    }
    usage
}

fn anonymous_bytes(process: &Process) -> u64 {
    let status = process.status().ok();
    status.and_then(|status| status.rssanon).unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_runs_has_memory_and_one_that_does_not_has_none() {
        assert!(of_process(std::process::id()).anonymous_bytes > 0);
        assert_eq!(of_process(u32::MAX), Usage::default());
    }
}
