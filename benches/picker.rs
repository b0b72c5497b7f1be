//! What it costs to choose a provider: `cargo bench -p nexus-benches --bench picker`.
//!
//! Each policy with 3, 30 and 300 members, all of them usable and with calls in flight, and with every tenth
//! unusable. Before that, it is checked that a pick allocates nothing.

use std::alloc::System;
use std::cell::Cell;
use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use policy::balance::{Load, Member, Picker};
use policy::{LoadBalancing, ZonePreference};

// A picker is no part of nexus-rpc's API, and would be for nothing but this.
#[allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "the modules are made for the crate that they are part of"
)]
#[path = "../nexus-rpc/src/policy/mod.rs"]
mod policy;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const POLICIES: [(&str, LoadBalancing); 6] = [
    ("round robin", LoadBalancing::RoundRobin),
    ("weighted round robin", LoadBalancing::WeightedRoundRobin),
    ("random", LoadBalancing::Random),
    (
        "consistent hash",
        LoadBalancing::ConsistentHash {
            load_factor: f64::INFINITY,
        },
    ),
    (
        "consistent hash, bounded",
        LoadBalancing::ConsistentHash { load_factor: 1.25 },
    ),
    ("power of two", LoadBalancing::PowerOfTwo),
];

fn main() {
    let mut criterion = Criterion::default()
        .without_plots()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500))
        .configure_from_args();
    for (name, balancing) in POLICIES {
        let mut group = criterion.benchmark_group(name);
        for count in [3, 30, 300] {
            for one_in in [None, Some(10)] {
                let bench = Bench::new(balancing, count, one_in, None);
                bench.check_that_nothing_is_allocated();
                let parameter = match one_in {
                    None => format!("{count}"),
                    Some(_) => format!("{count}, a tenth unusable"),
                };
                group.bench_function(BenchmarkId::from_parameter(parameter), |bencher| {
                    bencher.iter(|| black_box(bench.pick()));
                });
            }
        }
        let zone = ZonePreference::new("near");
        let bench = Bench::new(balancing, 300, None, Some(&zone));
        group.bench_function(BenchmarkId::from_parameter("300, half near"), |bencher| {
            bencher.iter(|| black_box(bench.pick()));
        });
    }
    criterion.final_summary();
}

/// A picker, and what it asks about.
struct Bench {
    picker: Picker,
    usable: Vec<bool>,
    loads: Vec<Load>,
    random: Cell<u64>,
}

impl Bench {
    fn new(
        balancing: LoadBalancing,
        count: usize,
        one_in: Option<usize>,
        zone: Option<&ZonePreference>,
    ) -> Self {
        let members: Vec<Member> = (0..count)
            .map(|index| Member {
                address: SocketAddr::from((Ipv4Addr::from_bits(index as u32), 8000)),
                weight: 1 + index as u32 % 4,
                zone: ["near", "far"][index % 2].to_owned(),
            })
            .collect();
        let unusable = |index: usize| one_in.is_some_and(|n| index % n == 1);
        let load = |index: usize| Load {
            in_flight: index % 3,
            latency_ns: 1_000_000 + index as u64,
        };
        Self {
            picker: Picker::new(&balancing, &members, zone, 7),
            usable: (0..count).map(|index| !unusable(index)).collect(),
            loads: (0..count).map(load).collect(),
            random: Cell::new(1),
        }
    }

    fn pick(&self) -> Option<usize> {
        let mut random = || {
            // xorshift64: next to nothing, as it is the picker that is measured.
            let mut x = self.random.get();
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            self.random.set(x);
            x
        };
        let key = random();
        self.picker.pick(
            Some(key),
            &|member| self.usable[member],
            &|member| self.loads[member],
            &mut random,
        )
    }

    fn check_that_nothing_is_allocated(&self) {
        let region = Region::new(ALLOCATOR);
        for _ in 0..10_000 {
            assert!(self.pick().is_some());
        }
        let allocations = region.change().allocations;
        assert_eq!(allocations, 0, "a pick allocates");
    }
}
