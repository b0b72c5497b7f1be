use std::collections::HashSet;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_millis(500);

fn machine(now: Instant) -> Machine {
    Machine::new(MachineOptions::default(), now, 1)
}

fn connect(machine: &mut Machine, now: Instant) -> ConnectionId {
    match machine.decide(now) {
        Decision::Connect(id) => id,
        other => panic!("{other:?} instead of connecting"),
    }
}

fn ready(now: Instant) -> (Machine, ConnectionId) {
    let mut machine = machine(now);
    let id = connect(&mut machine, now);
    machine.connected(id, now);
    assert!(machine.usable());
    (machine, id)
}

fn time_out(machine: &mut Machine, id: ConnectionId, now: Instant, allowed: bool) {
    machine.outcome(id, now, Outcome::TimedOut, DEADLINE, &mut || allowed);
}

/// Isolated by two time-outs; when it may be probed.
fn isolated(now: Instant) -> (Machine, ConnectionId, Instant) {
    let (mut machine, id) = ready(now - 2 * DEADLINE);
    time_out(&mut machine, id, now - DEADLINE, true);
    time_out(&mut machine, id, now, true);
    let until = machine.isolated_until().expect("isolated");
    (machine, id, until)
}

#[test]
fn it_connects_at_once_and_then_waits() {
    let now = Instant::now();
    let mut machine = machine(now);
    assert_eq!(machine.state(), State::Idle);
    let id = connect(&mut machine, now);
    assert_eq!(machine.state(), State::Connecting);
    assert_eq!(machine.decide(now), Decision::Wait(Some(now + 5 * SECOND)));
    machine.connected(id, now);
    assert_eq!(machine.decide(now), Decision::Wait(None));
    assert!(machine.usable());
}

#[test]
fn failed_attempts_are_repeated_at_growing_intervals() {
    let mut now = Instant::now();
    let mut machine = machine(now);
    let mut pauses = Vec::new();
    for _ in 0..10 {
        let id = connect(&mut machine, now);
        machine.connection_lost(id, now);
        let Decision::Wait(Some(at)) = machine.decide(now) else {
            panic!("it does not wait");
        };
        pauses.push(at - now);
        now = at;
    }
    assert!(pauses[0] <= 100 * MS);
    assert!(pauses[9] >= 2500 * MS && pauses[9] <= 5 * SECOND);
}

#[test]
fn connections_that_are_lost_at_once_count_as_failed_attempts() {
    for (lived, longest) in [(MS, 5 * SECOND), (10 * SECOND, 100 * MS)] {
        let mut now = Instant::now();
        let mut machine = machine(now);
        let mut pause = Duration::ZERO;
        for _ in 0..10 {
            let id = connect(&mut machine, now);
            machine.connected(id, now);
            now += lived;
            machine.connection_lost(id, now);
            let Decision::Wait(Some(at)) = machine.decide(now) else {
                panic!("it does not wait");
            };
            pause = at - now;
            now = at;
        }
        assert!(longest / 2 <= pause && pause <= longest, "{pause:?}");
    }
}

#[test]
fn an_attempt_that_never_ends_is_given_up_and_closed() {
    let now = Instant::now();
    let mut machine = machine(now);
    let id = connect(&mut machine, now);
    let later = now + 5 * SECOND;
    assert_eq!(machine.decide(later), Decision::Close(id));
    machine.connected(id, later);
    assert_eq!(machine.state(), State::Idle, "too late");
    let next = connect(&mut machine, later + SECOND);
    assert_ne!(next, id);
}

#[test]
fn an_isolated_endpoint_is_probed_over_a_new_connection() {
    let now = Instant::now();
    let (mut machine, old, until) = isolated(now);
    assert!(!machine.usable());
    assert_eq!(machine.decide(now), Decision::Close(old));
    assert_eq!(machine.decide(now), Decision::Wait(Some(until)));

    let id = connect(&mut machine, until);
    assert_eq!(machine.state(), State::Probing);
    machine.connected(id, until);
    assert!(!machine.usable(), "connected is not enough");
    assert_eq!(machine.decide(until), Decision::Probe(id));
    machine.probe_answered(id, until + MS);
    assert!(machine.usable());
    assert_eq!(machine.decide(until + MS), Decision::Wait(None));
}

#[test]
fn a_black_hole_is_isolated_within_two_deadlines() {
    let now = Instant::now();
    let (mut machine, id) = ready(now);
    time_out(&mut machine, id, now + DEADLINE, true);
    time_out(&mut machine, id, now + 2 * DEADLINE, true);
    assert_eq!(machine.state(), State::Isolated);
}

#[test]
fn a_probe_that_fails_in_any_way_isolates_longer() {
    type Fail = fn(&mut Machine, ConnectionId, Instant);
    let ways: [Fail; 4] = [
        |machine, id, now| machine.probe_failed(id, now),
        |machine, id, now| machine.connection_lost(id, now),
        |machine, id, now| machine.stopping(id, now),
        // No answer; the time is over.
        |_, _, _| {},
    ];
    for fail in ways {
        let (mut machine, old, until) = isolated(Instant::now());
        assert_eq!(machine.decide(until), Decision::Close(old));
        let id = connect(&mut machine, until);
        machine.connected(id, until);
        assert_eq!(machine.decide(until), Decision::Probe(id));
        let end = until + SECOND;
        fail(&mut machine, id, end);
        // A lost connection needs no closing.
        while let Decision::Close(closed) = machine.decide(end) {
            assert_eq!(closed, id);
        }
        assert!(machine.isolated_until().unwrap() - end >= 100 * MS);
    }
}

#[test]
fn a_stopping_provider_gets_no_calls_and_is_connected_to_when_it_is_back() {
    let now = Instant::now();
    let (mut machine, id) = ready(now);
    machine.stopping(id, now);
    assert!(!machine.usable());
    assert_eq!(machine.decide(now), Decision::Wait(Some(now + 30 * SECOND)));
    machine.connection_lost(id, now + SECOND);
    let next = connect(&mut machine, now + 2 * SECOND);
    machine.connected(next, now + 2 * SECOND);
    assert!(machine.usable());
}

#[test]
fn a_provider_that_stops_for_ever_is_connected_to_anew() {
    let now = Instant::now();
    let (mut machine, id) = ready(now);
    machine.stopping(id, now);
    let later = now + 30 * SECOND;
    assert_eq!(machine.decide(later), Decision::Close(id));
    connect(&mut machine, later);
}

#[test]
fn a_silent_connection_that_cannot_be_isolated_is_replaced() {
    let start = Instant::now();
    let (mut machine, id) = ready(start);
    // Not at once: it may be the provider that is slow.
    time_out(&mut machine, id, start + DEADLINE, false);
    time_out(&mut machine, id, start + 2 * DEADLINE, false);
    assert!(machine.usable());
    let now = start + 5 * SECOND;
    time_out(&mut machine, id, now, false);
    assert_eq!(machine.decide(now), Decision::Close(id));
    let next = connect(&mut machine, now);
    machine.connected(next, now);
    assert!(machine.usable());
}

#[test]
fn a_removed_endpoint_closes_its_connection_and_does_nothing_more() {
    let now = Instant::now();
    let (mut machine, id) = ready(now);
    machine.removed();
    assert_eq!(machine.decide(now), Decision::Close(id));
    machine.connection_lost(id, now);
    assert_eq!(machine.decide(now + 3600 * SECOND), Decision::Wait(None));
    assert_eq!(machine.state(), State::Removed);
}

/// With four links, all connected.
fn four_ready(now: Instant) -> (Machine, Vec<ConnectionId>) {
    let mut machine = machine(now);
    for _ in 0..3 {
        machine.add_link();
    }
    let ids: Vec<_> = (0..4).map(|_| connect(&mut machine, now)).collect();
    for id in &ids {
        machine.connected(*id, now);
    }
    assert_eq!(machine.decide(now), Decision::Wait(None));
    (machine, ids)
}

fn success(machine: &mut Machine, id: ConnectionId, now: Instant) {
    machine.outcome(id, now, Outcome::Success, MS, &mut || true);
}

#[test]
fn an_endpoint_is_ready_while_any_connection_stands() {
    let now = Instant::now();
    for left in 0..4 {
        let (mut machine, ids) = four_ready(now);
        for id in ids.iter().filter(|id| **id != ids[left]) {
            machine.connection_lost(*id, now);
            assert!(machine.usable());
        }
        machine.connection_lost(ids[left], now);
        assert_eq!(machine.state(), State::Idle);
    }
}

#[test]
fn a_lost_connection_is_made_again_beside_the_others_at_growing_intervals() {
    let mut now = Instant::now();
    let (mut machine, ids) = four_ready(now);
    machine.connection_lost(ids[2], now);
    let mut pauses = Vec::new();
    for _ in 0..10 {
        let Decision::Wait(Some(at)) = machine.decide(now) else {
            panic!("it does not wait");
        };
        pauses.push(at - now);
        now = at;
        let id = connect(&mut machine, now);
        assert_eq!(id.link, ids[2].link);
        // Answers of the others do not say that this one would be taken.
        success(&mut machine, ids[0], now);
        machine.connection_lost(id, now);
        assert!(machine.usable());
    }
    assert!(pauses[0] <= 100 * MS, "{pauses:?}");
    assert!(pauses[9] >= 2500 * MS, "{pauses:?}");
}

#[test]
fn a_connection_made_again_beside_others_answers_a_probe_before_it_gets_calls() {
    let start = Instant::now();
    for end in ["answered", "lost", "unanswered"] {
        let (mut machine, ids) = four_ready(start);
        machine.connection_lost(ids[2], start);
        let now = start + SECOND;
        let id = connect(&mut machine, now);
        assert!(!machine.connected(id, now), "it may get calls");
        assert_eq!(machine.decide(now), Decision::Probe(id));
        assert_eq!(machine.decide(now), Decision::Wait(Some(now + SECOND)));
        assert!(machine.usable(), "the others stand");
        match end {
            "answered" => {
                machine.probe_answered(id, now);
                assert_eq!(machine.decide(now), Decision::Wait(None));
                success(&mut machine, id, now);
                assert_eq!(machine.failures, 0);
            }
            "lost" => {
                machine.connection_lost(id, now);
                assert!(matches!(machine.decide(now), Decision::Wait(Some(_))));
                assert_eq!(machine.failures, 2);
            }
            _ => assert_eq!(machine.decide(now + SECOND), Decision::Close(id)),
        }
    }
}

#[test]
fn a_connection_is_not_probed_when_no_other_stands_or_nothing_has_failed() {
    let now = Instant::now();
    let (mut machine, ids) = four_ready(now);
    machine.add_link();
    let id = connect(&mut machine, now);
    assert!(machine.connected(id, now));
    for id in ids.iter().chain([&id]) {
        machine.connection_lost(*id, now);
    }
    let id = connect(&mut machine, now + SECOND);
    assert!(machine.connected(id, now + SECOND));
    assert!(machine.usable());
}

#[test]
fn connections_that_are_lost_together_are_one_failure_and_one_tries_for_all() {
    let now = Instant::now();
    let (mut machine, ids) = four_ready(now);
    for id in &ids {
        machine.connection_lost(*id, now);
    }
    let Decision::Wait(Some(at)) = machine.decide(now) else {
        panic!("it does not wait");
    };
    assert!(at - now <= 100 * MS, "{:?}", at - now);
    let first = connect(&mut machine, at);
    assert_eq!(machine.state(), State::Connecting);
    assert!(matches!(machine.decide(at), Decision::Wait(Some(_))));
    machine.connected(first, at);
    for _ in 0..3 {
        connect(&mut machine, at);
    }
    assert_eq!(machine.decide(at), Decision::Wait(Some(at + 5 * SECOND)));
}

#[test]
fn calls_lost_with_their_connection_do_not_isolate_the_others() {
    let now = Instant::now();
    let (mut machine, ids) = four_ready(now);
    machine.connection_lost(ids[1], now);
    for _ in 0..1000 {
        machine.outcome(ids[1], now, Outcome::Failure, MS, &mut || true);
    }
    assert!(machine.usable());
}

#[test]
fn an_isolated_endpoint_gives_up_all_connections_and_makes_them_again_after_the_probe() {
    let now = Instant::now();
    let (mut machine, ids) = four_ready(now);
    machine.connection_lost(ids[3], now);
    time_out(&mut machine, ids[1], now + DEADLINE, true);
    time_out(&mut machine, ids[2], now + DEADLINE, true);
    let until = machine.isolated_until().expect("isolated");
    for id in &ids[..3] {
        assert_eq!(machine.decide(now), Decision::Close(*id));
    }
    assert_eq!(machine.decide(now), Decision::Wait(Some(until)));
    let probe = connect(&mut machine, until);
    assert_eq!(probe.link, FIRST_LINK);
    machine.connected(probe, until);
    assert_eq!(machine.decide(until), Decision::Probe(probe));
    machine.probe_answered(probe, until);
    assert!(machine.usable());
    let mut links: Vec<_> = (0..3)
        .map(|_| connect(&mut machine, until).link.0)
        .collect();
    links.sort_unstable();
    assert_eq!(links, [1, 2, 3]);
}

#[test]
fn one_silent_connection_of_several_is_replaced() {
    let start = Instant::now();
    let (mut machine, ids) = four_ready(start);
    let now = start + 6 * SECOND;
    time_out(&mut machine, ids[1], now, true);
    success(&mut machine, ids[0], now);
    // One that answered while the call waited is slow, and not silent.
    success(&mut machine, ids[2], now);
    time_out(&mut machine, ids[2], now, true);
    time_out(&mut machine, ids[2], now, true);
    assert_eq!(machine.decide(now), Decision::Wait(None));
    time_out(&mut machine, ids[1], now, true);
    assert!(machine.usable());
    assert_eq!(machine.decide(now), Decision::Close(ids[1]));
    assert_eq!(connect(&mut machine, now).link, ids[1].link);
}

#[test]
fn a_link_that_stops_leaves_the_calls_to_the_others() {
    let now = Instant::now();
    let (mut machine, ids) = four_ready(now);
    for id in &ids[..3] {
        machine.stopping(*id, now);
        assert!(machine.usable());
    }
    machine.stopping(ids[3], now);
    assert_eq!(machine.state(), State::Stopping);
    machine.connection_lost(ids[0], now);
    assert_eq!(machine.state(), State::Stopping);
}

#[test]
fn the_place_of_a_removed_link_is_used_again_and_old_news_changes_nothing() {
    let now = Instant::now();
    let (mut machine, ids) = four_ready(now);
    machine.remove_link(ids[2].link);
    assert_eq!(machine.decide(now), Decision::Wait(None));
    assert_eq!(machine.add_link(), ids[2].link);
    let id = connect(&mut machine, now);
    assert_ne!(id, ids[2]);
    machine.connection_lost(ids[2], now);
    machine.connected(id, now);
    assert_eq!(machine.decide(now), Decision::Wait(None));
}

#[derive(Debug, Clone)]
enum Event {
    Pass(Duration),
    Decide,
    Connected(Which),
    Lost(Which),
    Stopping(Which),
    Answered(Which),
    Failed(Which),
    Outcome(Which, u8, Duration, bool),
    AddLink,
    RemoveLink(Index),
}

/// The connection that is current, or any there ever was.
#[derive(Debug, Clone)]
enum Which {
    Last,
    Any(Index),
}

fn event() -> impl Strategy<Value = Event> {
    let which = || {
        prop_oneof![
            3 => Just(Which::Last),
            1 => any::<Index>().prop_map(Which::Any),
        ]
    };
    let time = || (0..4000_u64).prop_map(Duration::from_millis);
    prop_oneof![
        2 => time().prop_map(Event::Pass),
        6 => Just(Event::Decide),
        3 => which().prop_map(Event::Connected),
        1 => which().prop_map(Event::Lost),
        1 => which().prop_map(Event::Stopping),
        2 => which().prop_map(Event::Answered),
        1 => which().prop_map(Event::Failed),
        6 => (which(), 0..3_u8, time(), any::<bool>())
            .prop_map(|(id, o, t, may)| Event::Outcome(id, o, t, may)),
        1 => Just(Event::AddLink),
        1 => any::<Index>().prop_map(Event::RemoveLink),
    ]
}

/// Drives a machine, and checks what must hold at every step.
struct Driver {
    machine: Machine,
    now: Instant,
    /// All there ever were.
    known: Vec<ConnectionId>,
    /// How many links there are, removed ones included.
    links: usize,
    removed: HashSet<usize>,
    /// Attempts that have neither succeeded nor ended.
    attempts: HashSet<ConnectionId>,
    /// Probes that are sent and not answered.
    probes: HashSet<ConnectionId>,
    isolated: bool,
}

impl Driver {
    fn new(probes: u32) -> Self {
        let now = Instant::now();
        let options = MachineOptions {
            breaker: BreakerOptions {
                probes,
                ..BreakerOptions::default()
            },
            ..MachineOptions::default()
        };
        Self {
            machine: Machine::new(options, now, 1),
            now,
            known: Vec::new(),
            links: 1,
            removed: HashSet::new(),
            attempts: HashSet::new(),
            probes: HashSet::new(),
            isolated: false,
        }
    }

    fn decide(&mut self) -> Decision {
        let decision = self.machine.decide(self.now);
        match decision {
            Decision::Connect(id) => {
                let same_link = |other: &ConnectionId| other.link == id.link;
                assert!(!self.attempts.iter().any(same_link), "two attempts at once");
                assert!(
                    !self.removed.contains(&id.link.0),
                    "for a link that is gone"
                );
                assert!(!self.known.contains(&id));
                self.attempts.insert(id);
                self.known.push(id);
            }
            Decision::Probe(id) => {
                let is_tried = matches!(self.machine.phase_of(id), Some(Phase::Trying { .. }));
                assert!(self.isolated || is_tried, "a probe of what is well");
                self.probes.insert(id);
            }
            Decision::Close(id) => {
                self.attempts.remove(&id);
                self.probes.remove(&id);
            }
            Decision::Wait(_) => {}
        }
        self.check();
        decision
    }

    fn happen(&mut self, event: Event) {
        let nobody = ConnectionId {
            link: FIRST_LINK,
            attempt: 0,
        };
        let known = self.known.clone();
        let id = |which: Which| match which {
            Which::Last => known.last().copied().unwrap_or(nobody),
            Which::Any(_) if known.is_empty() => nobody,
            Which::Any(index) => *index.get(&known),
        };
        match event {
            Event::Pass(time) => self.now += time,
            Event::Decide => {
                self.decide();
            }
            Event::Connected(which) => self.connected(id(which)),
            Event::Lost(which) => {
                self.attempts.remove(&id(which.clone()));
                self.probes.remove(&id(which.clone()));
                self.machine.connection_lost(id(which), self.now);
            }
            Event::Stopping(which) => self.machine.stopping(id(which), self.now),
            Event::Answered(which) => self.answered(id(which)),
            Event::Failed(which) => {
                self.probes.remove(&id(which.clone()));
                self.machine.probe_failed(id(which), self.now);
            }
            Event::AddLink => {
                let link = self.machine.add_link();
                self.removed.remove(&link.0);
                self.links = self.links.max(link.0 + 1);
            }
            Event::RemoveLink(index) if self.links > 1 => {
                let link = 1 + index.index(self.links - 1);
                self.machine.remove_link(LinkId(link));
                self.attempts.retain(|id| id.link.0 != link);
                self.removed.insert(link);
            }
            Event::RemoveLink(_) => {}
            Event::Outcome(which, outcome, latency, may_isolate) => {
                let outcome = match outcome {
                    0 => Outcome::Success,
                    1 => Outcome::Failure,
                    _ => Outcome::TimedOut,
                };
                self.machine
                    .outcome(id(which), self.now, outcome, latency, &mut || may_isolate);
            }
        }
        self.check();
    }

    fn connected(&mut self, id: ConnectionId) {
        self.attempts.remove(&id);
        self.machine.connected(id, self.now);
    }

    fn answered(&mut self, id: ConnectionId) {
        let was_sent = self.probes.remove(&id);
        self.machine.probe_answered(id, self.now);
        if was_sent && self.machine.usable() {
            self.isolated = false;
        }
    }

    fn check(&mut self) {
        self.isolated |= self.machine.state() == State::Isolated;
        let usable = self.machine.usable();
        assert!(!(usable && self.isolated), "calls without a probe");
        assert_eq!(usable, self.machine.state() == State::Ready);
    }

    /// From now on the network is well; what was begun before may have got lost.
    fn recover(&mut self, begun_is_lost: bool) -> (usize, Duration) {
        let began = self.now;
        if !begun_is_lost {
            for id in self.attempts.clone() {
                self.connected(id);
            }
            for id in self.probes.clone() {
                self.answered(id);
            }
        }
        for step in 0..100 {
            if self.machine.usable() {
                return (step, self.now - began);
            }
            match self.decide() {
                Decision::Connect(id) => self.connected(id),
                Decision::Probe(id) => self.answered(id),
                Decision::Close(_) => {}
                Decision::Wait(Some(at)) => self.now = self.now.max(at),
                Decision::Wait(None) => break,
            }
            self.check();
        }
        panic!("stuck in {:?}", self.machine);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn after_any_history_a_healthy_network_leads_to_ready(
        history in prop::collection::vec(event(), 0..200),
        begun_is_lost: bool,
        probes in 1..4_u32,
    ) {
        let mut driver = Driver::new(probes);
        for event in history {
            driver.happen(event);
        }
        let (steps, time) = driver.recover(begun_is_lost);
        let options = MachineOptions::default();
        // The longest way: what was begun is given up, then one isolation or one backoff.
        let given_up = options.attempt_max.max(options.probe_timeout).max(options.stopping_max);
        let waited = options.breaker.isolation.max.max(options.backoff.max);
        prop_assert!(time <= given_up + waited, "{time:?}");
        // A closing and an attempt of each link, at most.
        prop_assert!(steps <= 12 + 2 * driver.links, "{steps} steps");
    }

    #[test]
    fn after_removal_nothing_begins(history in prop::collection::vec(event(), 0..100)) {
        let mut driver = Driver::new(1);
        for event in history.clone() {
            driver.happen(event);
        }
        driver.machine.removed();
        for event in history {
            driver.happen(event);
            let begun = driver.decide();
            prop_assert!(matches!(begun, Decision::Wait(None) | Decision::Close(_)), "{begun:?}");
        }
        prop_assert!(driver.attempts.is_empty());
    }
}
