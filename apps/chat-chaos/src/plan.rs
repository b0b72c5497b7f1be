//! Which faults come in which order, and when: a pure function of a seed.

use std::ops::Range;
use std::time::Duration;

use nexus_testkit::Link;
use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};

use crate::fault::{Fault, PROXIES, Part, SERVERS};

/// Longer than every timeout of a client, a proxy or a server: nobody waits any more for a part that goes on after
/// it, and everything that it still does is late.
const PAUSE_LONG_MS: Range<u64> = 61_000..75_000;

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// What is done.
    pub fault: Fault,
    /// How long the chat runs undisturbed before it.
    pub calm: Duration,
    /// How long it lasts.
    pub hold: Duration,
}

/// How long faults last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Longer than every timeout of the chat.
    Long,
    /// Long enough to be noticed.
    Short,
}

/// Steps without an end: all of `faults` in a random order, then all of them in another one.
#[derive(Debug, Clone)]
pub struct Plan {
    random: SmallRng,
    form: Form,
    faults: Vec<Fault>,
    round: Vec<Fault>,
}

impl Plan {
    /// The plan of this seed. Two plans of the same arguments are the same.
    pub fn new(seed: u64, form: Form, faults: Vec<Fault>) -> Self {
        Self {
            random: SmallRng::seed_from_u64(seed),
            form,
            faults,
            round: Vec::new(),
        }
    }

    fn hold(&mut self, fault: Fault) -> Duration {
        let range_ms = match (self.form, fault) {
            (Form::Long, Fault::Kill(_)) => 200..3_000,
            (Form::Long, Fault::Pause(_)) => PAUSE_LONG_MS,
            (Form::Long, _) => 15_000..15_001,
            (Form::Short, Fault::Kill(_)) => 200..1_500,
            // Until clients have noticed.
            (Form::Short, Fault::VanishClients) => 7_000..8_000,
            // Until calls have gone to another server.
            (Form::Short, _) => 2_000..3_000,
        };
        Duration::from_millis(self.random.random_range(range_ms))
    }
}

impl Iterator for Plan {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        if self.round.is_empty() {
            self.round.clone_from(&self.faults);
            self.round.shuffle(&mut self.random);
        }
        let fault = self.round.pop()?;
        let calm_ms = match self.form {
            Form::Long => 500..1_500,
            // A conversation has a message every 200 ms.
            Form::Short => 200..600,
        };
        Some(Step {
            fault,
            calm: Duration::from_millis(self.random.random_range(calm_ms)),
            hold: self.hold(fault),
        })
    }
}

/// Some of each kind, for a run that has to be short: every program is killed once, one is paused, one network
/// falls silent, and clients vanish.
pub fn sample(seed: u64) -> Vec<Fault> {
    // Another sequence than the plan's own.
    let mut random = SmallRng::seed_from_u64(!seed);
    let (proxy, server) = (
        random.random_range(0..PROXIES),
        random.random_range(0..SERVERS),
    );
    let killed = [
        Part::Proxy(proxy),
        Part::Server(server),
        Part::Redis,
        Part::ZooKeeper,
        Part::Nginx,
        Part::MariaDb,
    ];
    let mut faults: Vec<Fault> = killed.into_iter().map(Fault::Kill).collect();
    faults.extend(killed.choose(&mut random).map(|&part| Fault::Pause(part)));
    let silenced = [
        Link::NginxToProxy(proxy),
        Link::ProxiesToServer(server),
        Link::ServerToMariaDb(server),
        Link::ServerToRedis(server),
        Link::ProxyToRedis(proxy),
    ];
    faults.extend(
        silenced
            .choose(&mut random)
            .map(|&link| Fault::Silence(link)),
    );
    faults.push(Fault::VanishClients);
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_plan_is_a_function_of_its_seed(seed: u64) {
            let plan = || Plan::new(seed, Form::Long, Fault::all());
            let steps: Vec<Step> = plan().take(100).collect();
            prop_assert_eq!(&steps, &plan().take(100).collect::<Vec<_>>());
            prop_assert_eq!(sample(seed), sample(seed));
        }

        #[test]
        fn each_round_has_every_fault_once(seed: u64, rounds in 1..4_usize) {
            let all = Fault::all();
            let mut plan = Plan::new(seed, Form::Short, all.clone());
            for _ in 0..rounds {
                let mut round: Vec<Fault> = plan.by_ref().take(all.len()).map(|s| s.fault).collect();
                round.sort_unstable();
                let mut expected = all.clone();
                expected.sort_unstable();
                prop_assert_eq!(round, expected);
            }
        }

        #[test]
        fn a_short_run_kills_every_program_once_and_is_short(seed: u64) {
            let faults = sample(seed);
            let kills = faults.iter().filter(|fault| matches!(fault, Fault::Kill(_)));
            prop_assert_eq!(kills.count(), 6);
            let steps = Plan::new(seed, Form::Short, faults.clone()).take(faults.len());
            let time: Duration = steps.map(|step| step.calm + step.hold).sum();
            prop_assert!(time < Duration::from_secs(30), "{:?}", time);
        }
    }

    #[test]
    fn a_long_run_pauses_each_part_for_more_than_a_minute() {
        let all = Fault::all();
        let count = all.len();
        let pauses = Plan::new(1, Form::Long, all)
            .take(count)
            .filter(|step| matches!(step.fault, Fault::Pause(_)));
        let holds: Vec<Duration> = pauses.map(|step| step.hold).collect();
        assert_eq!(holds.len(), PROXIES + SERVERS + 4);
        assert!(
            holds.iter().all(|hold| *hold > Duration::from_secs(60)),
            "{holds:?}"
        );
    }

    #[test]
    fn seeds_differ() {
        let first = |seed| {
            Plan::new(seed, Form::Long, Fault::all())
                .take(20)
                .collect::<Vec<_>>()
        };
        assert_ne!(first(1), first(2));
    }

    #[test]
    fn a_plan_of_nothing_ends() {
        assert_eq!(Plan::new(1, Form::Long, Vec::new()).next(), None);
    }
}
