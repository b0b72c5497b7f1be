//! The short form of the fault program: some of each kind, on a whole cluster.

use std::time::Duration;

use chat_chaos::{Fault, Step};
use chat_chaos::{Form, Plan, Trial, TrialOptions, disk, plan};
use chat_load::Shape;
use nexus_testkit::{Profile, build_binaries};

/// "Within seconds", on a machine that runs other tests at the same time.
const WHOLE_WITHIN: Duration = Duration::from_secs(20);

/// The variable that sets the seed, to see again what a run has shown.
const SEED: &str = "CHAOS_SEED";

fn seed() -> u64 {
    let seed = std::env::var(SEED).map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("{SEED}={seed}");
    seed
}

fn options(shape: Shape) -> TrialOptions {
    TrialOptions {
        binaries: build_binaries(Profile::Dev).unwrap(),
        data_dir: None,
        shape,
        tls: false,
    }
}

#[test]
fn no_fault_loses_an_acknowledged_message_and_service_comes_back() {
    let seed = seed();
    let trial = Trial::start(&options(Shape {
        pairs: 12,
        friends: 1,
        groups: 2,
        group_members: 4,
        idle: 0,
    }))
    .unwrap();
    let faults = plan::sample(seed);
    let count = faults.len();
    for step in Plan::new(seed, Form::Short, faults).take(count) {
        let outcome = trial.suffer(step).unwrap();
        println!("{outcome}");
        assert!(outcome.is_good(), "{SEED}={seed}: {outcome:?}");
        let after = outcome.whole_after.unwrap();
        assert!(after < WHOLE_WITHIN, "{SEED}={seed}: {outcome}");
    }
    let verdict = trial.finish();
    assert!(verdict.is_clean(), "{SEED}={seed}: {verdict:?}");
    assert_eq!(verdict.unacknowledged, 0, "{SEED}={seed}: {verdict:?}");
}

#[test]
fn a_full_disk_loses_nothing_and_service_comes_back_with_the_space() {
    let step = Step {
        fault: Fault::FillDisk,
        calm: Duration::from_millis(500),
        hold: Duration::from_secs(3),
    };
    let outcome = disk::suffer(&options(Shape::default()), step).unwrap();
    println!("{outcome}");
    assert_eq!(outcome.whole_during, None, "the disk was full");
    assert!(outcome.is_good(), "{outcome:?}");
    assert!(outcome.whole_after.unwrap() < WHOLE_WITHIN, "{outcome}");
    assert_eq!(outcome.verdict.unacknowledged, 0);
}
