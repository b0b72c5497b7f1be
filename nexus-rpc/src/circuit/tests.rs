use std::sync::atomic::AtomicUsize;
use std::sync::mpsc;

use nexus_testkit::wait_until;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);
/// Longer than any test.
const LONG: Duration = Duration::from_secs(600);

/// A dependency that answers probes while it is set.
fn circuit(adjust: impl FnOnce(&mut CircuitOptions)) -> (Circuit, Arc<AtomicBool>) {
    let mut options = CircuitOptions {
        stalled_after: LONG,
        wait_max: LONG,
        ..CircuitOptions::default()
    };
    options.breaker.isolation = Backoff {
        initial: Duration::from_millis(1),
        max: Duration::from_millis(5),
    };
    adjust(&mut options);
    let alive = Arc::new(AtomicBool::new(false));
    let probed = Arc::clone(&alive);
    let probe = move || probed.load(Ordering::Acquire);
    let circuit = Circuit::start("test", options, probe).expect("a thread");
    (circuit, alive)
}

fn fail(circuit: &Circuit, times: usize) {
    for _ in 0..times {
        circuit.enter().expect("closed").failed();
    }
}

#[test]
fn too_many_failures_open_it_until_a_probe_is_answered() {
    let (circuit, alive) = circuit(|_| {});
    fail(&circuit, 9);
    assert!(!circuit.is_open());
    fail(&circuit, 1);
    assert!(circuit.is_open());
    assert_eq!(circuit.enter().err(), Some(NoPassage::Open));
    assert_eq!(circuit.enter_at_once().err(), Some(NoPassage::Open));
    alive.store(true, Ordering::Release);
    wait_until("it closes", PATIENCE, || !circuit.is_open());
    circuit.enter().expect("closed").answered();
    // And again: what was before is forgotten.
    alive.store(false, Ordering::Release);
    fail(&circuit, 9);
    assert!(circuit.is_open());
}

#[test]
fn failures_among_many_answers_leave_it_closed() {
    let (circuit, _) = circuit(|_| {});
    for _ in 0..50 {
        circuit.enter().expect("closed").answered();
        circuit.enter().expect("closed").answered();
        circuit.enter().expect("closed").answered();
        circuit.enter().expect("closed").answered();
        circuit.enter().expect("closed").answered();
        fail(&circuit, 1);
    }
    assert!(!circuit.is_open());
}

#[test]
fn work_that_hangs_opens_it_while_it_hangs() {
    let (circuit, alive) = circuit(|options| options.stalled_after = Duration::from_millis(20));
    let hangs = circuit.enter().expect("closed");
    wait_until("it opens", PATIENCE, || circuit.is_open());
    assert_eq!(circuit.at_work(), 1);
    alive.store(true, Ordering::Release);
    wait_until("it closes", PATIENCE, || !circuit.is_open());
    // What hangs since before is no second sign, however it ends.
    hangs.failed();
    assert!(!circuit.is_open());
    assert_eq!(circuit.at_work(), 0);
}

#[test]
fn work_that_hangs_beside_work_that_is_answered_says_nothing() {
    let (circuit, _) = circuit(|options| options.stalled_after = Duration::from_millis(20));
    let hangs = circuit.enter().expect("closed");
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(200) {
        circuit.enter().expect("closed").answered();
        thread::yield_now();
    }
    assert!(!circuit.is_open());
    hangs.answered();
}

#[test]
fn more_than_may_be_at_work_wait_for_one_to_end() {
    let (circuit, _) = circuit(|options| options.at_work_max = 2);
    let first = circuit.enter().expect("closed");
    let second = circuit.enter().expect("closed");
    // One that does not count.
    let third = circuit.enter_at_once().expect("closed");
    thread::scope(|scope| {
        let (entered, has_entered) = mpsc::channel();
        let circuit = &circuit;
        scope.spawn(move || {
            circuit.enter().expect("closed").answered();
            entered.send(()).expect("heard");
        });
        assert!(has_entered.recv_timeout(Duration::from_millis(50)).is_err());
        third.answered();
        assert!(has_entered.recv_timeout(Duration::from_millis(50)).is_err());
        first.answered();
        has_entered.recv_timeout(PATIENCE).expect("entered");
    });
    drop(second);
}

#[test]
fn whoever_waits_is_refused_when_time_is_up_or_it_opens() {
    let (busy, _) = circuit(|options| {
        options.at_work_max = 1;
        options.wait_max = Duration::from_millis(10);
    });
    let _first = busy.enter().expect("closed");
    assert_eq!(busy.enter().err(), Some(NoPassage::Busy));

    let (opens, _) = circuit(|options| options.at_work_max = 1);
    let held = opens.enter().expect("closed");
    thread::scope(|scope| {
        let waits = scope.spawn(|| opens.enter().err());
        for _ in 0..10 {
            opens.enter_at_once().expect("closed").failed();
        }
        assert_eq!(waits.join().expect("no panic"), Some(NoPassage::Open));
    });
    held.failed();
}

#[test]
fn those_who_asked_are_told_once_of_each_opening() {
    let (circuit, alive) = circuit(|_| {});
    let told = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&told);
    circuit.on_open(move || {
        count.fetch_add(1, Ordering::AcqRel);
    });
    for round in 1..=3 {
        alive.store(false, Ordering::Release);
        fail(&circuit, 10);
        wait_until("told", PATIENCE, || told.load(Ordering::Acquire) == round);
        alive.store(true, Ordering::Release);
        wait_until("it closes", PATIENCE, || !circuit.is_open());
    }
    assert_eq!(told.load(Ordering::Acquire), 3);
}

#[test]
fn a_probe_that_panics_is_one_that_failed() {
    let options = CircuitOptions {
        breaker: BreakerOptions {
            isolation: Backoff {
                initial: Duration::from_millis(1),
                max: Duration::from_millis(1),
            },
            ..CircuitOptions::default().breaker
        },
        ..CircuitOptions::default()
    };
    let mut panics = 2;
    let probe = move || {
        panics -= 1;
        assert!(panics < 0, "as the test wants it");
        true
    };
    let circuit = Circuit::start("test", options, probe).expect("a thread");
    fail(&circuit, 10);
    assert!(circuit.is_open());
    wait_until("it closes", PATIENCE, || !circuit.is_open());
}
