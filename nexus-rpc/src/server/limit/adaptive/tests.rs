//! The limit in front of a simulated server: some workers, a service time, and a queue that grows
//! without end unless the limit keeps calls out.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use proptest::prelude::*;

use super::*;

/// Workers and how long each takes for a call.
#[derive(Debug, Clone, Copy)]
struct Server {
    workers: usize,
    service: Duration,
}

impl Server {
    fn calls_per_second(&self) -> f64 {
        self.workers as f64 / self.service.as_secs_f64()
    }
}

/// Calls arrive evenly; each is refused or takes the worker that is free first.
struct Simulation {
    adaptive: Adaptive,
    now: Duration,
    /// When each worker is free.
    free_at: BinaryHeap<Reverse<Duration>>,
    /// End and arrival of the calls in work.
    in_work: BinaryHeap<Reverse<(Duration, Duration)>>,
    window: Window,
    latency_sum: Duration,
    seed: u64,
}

/// What a while of simulation came to.
#[derive(Debug)]
struct Report {
    completed_per_second: f64,
    latency: Duration,
    limit: usize,
}

const WINDOW: Duration = Duration::from_millis(100);

fn empty_window(at: Duration) -> Window {
    Window {
        began: at,
        ended: at,
        calls: 0,
        latency: Duration::ZERO,
        in_flight_peak: 0,
    }
}

impl Simulation {
    fn new(options: &AdaptiveLimit) -> Self {
        Self {
            adaptive: Adaptive::new(options, usize::MAX),
            now: Duration::ZERO,
            free_at: BinaryHeap::new(),
            in_work: BinaryHeap::new(),
            window: empty_window(Duration::ZERO),
            latency_sum: Duration::ZERO,
            seed: 1,
        }
    }

    /// Between 0.9 and 1.1, always the same ones.
    fn jitter(&mut self) -> f64 {
        self.seed = self
            .seed
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        0.9 + (self.seed >> 33) as f64 / (1u64 << 31) as f64 * 0.2
    }

    fn run(&mut self, server: Server, load: f64, time: Duration) -> Report {
        let until = self.now + time;
        let mut free: Vec<_> = std::mem::take(&mut self.free_at).into_sorted_vec();
        free.truncate(server.workers);
        free.resize(server.workers, Reverse(self.now));
        self.free_at = free.into();
        let gap = Duration::from_secs_f64(1.0 / load);
        let (mut completed, mut latencies) = (0u32, Duration::ZERO);
        while self.now < until {
            self.now += gap;
            while let Some(&Reverse((end, arrived))) = self.in_work.peek()
                && end <= self.now
            {
                self.in_work.pop();
                completed += 1;
                latencies += end - arrived;
                self.measured(end, end - arrived);
            }
            if self.in_work.len() >= self.adaptive.limit() {
                continue;
            }
            let Reverse(free_at) = self.free_at.pop().expect("a worker");
            let end = free_at.max(self.now) + server.service.mul_f64(self.jitter());
            self.free_at.push(Reverse(end));
            self.in_work.push(Reverse((end, self.now)));
            self.window.in_flight_peak = self.window.in_flight_peak.max(self.in_work.len());
        }
        Report {
            completed_per_second: f64::from(completed) / time.as_secs_f64(),
            latency: latencies / completed.max(1),
            limit: self.adaptive.limit(),
        }
    }

    fn measured(&mut self, at: Duration, latency: Duration) {
        self.window.calls += 1;
        self.latency_sum += latency;
        if self.window.calls >= WINDOW_CALLS_MIN && at >= self.window.began + WINDOW {
            self.window.ended = at;
            self.window.latency = self.latency_sum / u32::try_from(self.window.calls).unwrap();
            self.adaptive.observe(&self.window);
            assert!(self.adaptive.limit() >= 4, "below the floor");
            self.window = empty_window(at);
            self.latency_sum = Duration::ZERO;
        }
    }
}

const SERVER: Server = Server {
    workers: 16,
    service: Duration::from_millis(10),
};

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[track_caller]
fn assert_fits(report: &Report, server: Server) {
    assert!(
        report.completed_per_second > server.calls_per_second() * 0.9,
        "{report:?} {server:?}"
    );
    assert!(
        report.latency < server.service.mul_f64(1.6),
        "{report:?} {server:?}"
    );
}

#[test]
fn under_overload_it_finds_the_capacity_of_a_server() {
    for initial in [4, 16, 40, 1000] {
        let options = AdaptiveLimit {
            initial,
            ..AdaptiveLimit::default()
        };
        let mut simulation = Simulation::new(&options);
        simulation.run(SERVER, SERVER.calls_per_second() * 3.0, secs(30));
        let report = simulation.run(SERVER, SERVER.calls_per_second() * 3.0, secs(60));
        assert_fits(&report, SERVER);
        assert!(
            (14..32).contains(&report.limit),
            "from {initial}: {report:?}"
        );
    }
}

#[test]
fn a_server_that_is_not_full_refuses_nothing() {
    let mut simulation = Simulation::new(&AdaptiveLimit::default());
    let load = SERVER.calls_per_second() * 0.7;
    let report = simulation.run(SERVER, load, secs(60));
    assert!(report.completed_per_second > load * 0.99, "{report:?}");
}

#[test]
fn after_the_load_drops_and_comes_back_it_serves_as_before() {
    let mut simulation = Simulation::new(&AdaptiveLimit::default());
    let overload = SERVER.calls_per_second() * 2.0;
    simulation.run(SERVER, overload, secs(60));
    let quiet = simulation.run(SERVER, 50.0, secs(60));
    assert!(quiet.completed_per_second > 49.0, "{quiet:?}");
    simulation.run(SERVER, overload, secs(5));
    assert_fits(&simulation.run(SERVER, overload, secs(60)), SERVER);
}

#[test]
fn it_follows_a_server_that_becomes_slower_faster_larger_and_smaller() {
    let mut simulation = Simulation::new(&AdaptiveLimit::default());
    let service = Duration::from_millis(10);
    for server in [
        SERVER,
        Server {
            workers: 16,
            service: service * 4,
        },
        Server {
            workers: 16,
            service: service / 2,
        },
        Server {
            workers: 64,
            service,
        },
        Server {
            workers: 8,
            service,
        },
    ] {
        let overload = server.calls_per_second() * 2.0;
        simulation.run(server, overload, secs(40));
        assert_fits(&simulation.run(server, overload, secs(60)), server);
    }
}

#[test]
fn it_leaves_the_floor_that_a_server_which_was_faster_once_has_brought_it_to() {
    let service = Duration::from_millis(1);
    let fast = Server {
        workers: 1,
        service,
    };
    let mut simulation = Simulation::new(&AdaptiveLimit::default());
    simulation.run(fast, fast.calls_per_second() * 1.34, secs(15));
    let overload = SERVER.calls_per_second() * 2.0;
    simulation.run(SERVER, overload, secs(60));
    assert_fits(&simulation.run(SERVER, overload, secs(60)), SERVER);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn it_is_never_stuck_whatever_came_before(
        before in proptest::collection::vec((1usize..64, 1u64..50, 0.05f64..5.0), 0..5),
        initial in 4usize..500,
    ) {
        let options = AdaptiveLimit { initial, ..AdaptiveLimit::default() };
        let mut simulation = Simulation::new(&options);
        for (workers, service_ms, load) in before {
            let service = Duration::from_millis(service_ms);
            let server = Server { workers, service };
            simulation.run(server, server.calls_per_second() * load, secs(15));
        }
        simulation.run(SERVER, SERVER.calls_per_second() * 2.0, secs(60));
        let report = simulation.run(SERVER, SERVER.calls_per_second() * 2.0, secs(60));
        prop_assert!(
            report.completed_per_second > SERVER.calls_per_second() * 0.85,
            "{:?}", report
        );
        prop_assert!(report.latency < SERVER.service * 2, "{:?}", report);
    }

    #[test]
    fn no_window_takes_it_out_of_its_bounds(
        windows in proptest::collection::vec(
            (0u64..1_000_000, 0u64..10_000_000_000, 0u64..10_000_000_000, 0usize..100_000), 0..200),
    ) {
        let options = AdaptiveLimit { min: 3, max: 500, ..AdaptiveLimit::default() };
        let mut adaptive = Adaptive::new(&options, usize::MAX);
        let mut at = Duration::ZERO;
        for (calls, took_ns, latency_ns, in_flight_peak) in windows {
            let began = at;
            at += Duration::from_nanos(took_ns);
            let latency = Duration::from_nanos(latency_ns);
            let limit = adaptive.observe(&Window { began, ended: at, calls, latency, in_flight_peak });
            prop_assert!((3..=500).contains(&limit), "{}", limit);
        }
    }
}

#[test]
fn latencies_that_differ_from_window_to_window_do_not_wear_the_limit_down() {
    // 10,000 calls/s of 10 ms each: about 100 in work. Windows are up to a third slower or faster than that,
    // as on a machine with other work to do.
    let mut adaptive = Adaptive::new(&AdaptiveLimit::default(), usize::MAX);
    let mut seed = 1u64;
    let mut limits = Vec::new();
    for began in (0..1200u32).map(|number| WINDOW * number) {
        seed = seed
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        let noise = 0.7 + (seed >> 33) as f64 / (1u64 << 31) as f64 * 0.6;
        let limit = adaptive.limit();
        let latency_s = f64::max(0.01, limit as f64 / 10_000.0) * noise;
        let rate = limit as f64 / latency_s;
        adaptive.observe(&Window {
            began,
            ended: began + WINDOW,
            calls: (rate * WINDOW.as_secs_f64()) as u64,
            latency: Duration::from_secs_f64(latency_s),
            in_flight_peak: limit,
        });
        limits.push(adaptive.limit());
    }
    let settled = &limits[limits.len() / 4..];
    let mean = settled.iter().sum::<usize>() / settled.len();
    assert!((80..200).contains(&mean), "{mean}: {settled:?}");
}
