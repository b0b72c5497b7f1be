use std::cell::RefCell;
use std::collections::HashMap;
use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::super::mix::Seeded;
use super::*;

const POLICIES: [LoadBalancing; 6] = [
    LoadBalancing::RoundRobin,
    LoadBalancing::WeightedRoundRobin,
    LoadBalancing::Random,
    LoadBalancing::ConsistentHash { load_factor: 1.25 },
    LoadBalancing::ConsistentHash {
        load_factor: f64::INFINITY,
    },
    LoadBalancing::PowerOfTwo,
];

const UNBOUNDED: LoadBalancing = POLICIES[4];

fn member(index: usize, weight: u32) -> Member {
    let ip = Ipv4Addr::from_bits(0x0a00_0000 + index as u32);
    Member {
        address: SocketAddr::from((ip, 8000)),
        weight,
        zone: String::new(),
    }
}

fn members(weights: &[u32]) -> Vec<Member> {
    let weights = weights.iter().enumerate();
    weights
        .map(|(index, weight)| member(index, *weight))
        .collect()
}

fn picker(balancing: LoadBalancing, weights: &[u32]) -> Picker {
    Picker::new(&balancing, &members(weights), None, 7)
}

fn idle(_: usize) -> Load {
    Load::default()
}

/// How often each member was picked.
fn counts(
    picker: &Picker,
    count: usize,
    picks: usize,
    usable: &dyn Fn(usize) -> bool,
) -> Vec<usize> {
    let seeded = Seeded::new(count as u64);
    let mut counts = vec![0; count];
    for key in 0..picks {
        let picked = picker.pick(Some(key as u64), usable, &idle, &mut || seeded.next());
        counts[picked.expect("one is usable")] += 1;
    }
    counts
}

/// Whether `counts` are in proportion to `weights`, give or take a share of each.
fn proportional(counts: &[usize], weights: &[u32], tolerance: f64) -> bool {
    let picks: usize = counts.iter().sum();
    let total: u32 = weights.iter().sum();
    counts.iter().zip(weights).all(|(count, weight)| {
        let expected = picks as f64 * f64::from(*weight) / f64::from(total);
        (*count as f64 - expected).abs() <= tolerance * expected
    })
}

#[test]
fn round_robin_skips_the_unusable_without_favouring_their_neighbours() {
    let picker = picker(LoadBalancing::RoundRobin, &[1; 5]);
    let counts = counts(&picker, 5, 300, &|member| member != 1 && member != 2);
    assert_eq!(counts, [100, 0, 0, 100, 100]);
}

#[test]
fn clients_with_different_seeds_begin_at_different_members() {
    let first = |seed| {
        let picker = Picker::new(&LoadBalancing::RoundRobin, &members(&[1; 10]), None, seed);
        picker.pick(None, &|_| true, &idle, &mut || 0)
    };
    let firsts: std::collections::HashSet<_> = (0..100).map(first).collect();
    assert_eq!(firsts.len(), 10);
}

#[test]
fn the_smooth_cycle_is_that_of_nginx() {
    let picker = picker(LoadBalancing::WeightedRoundRobin, &[5, 1, 1]);
    let picks: Vec<usize> = (0..14)
        .filter_map(|_| picker.pick(None, &|_| true, &idle, &mut || 0))
        .collect();
    // Wherever it begins.
    let cycle = [0, 0, 1, 0, 2, 0, 0];
    assert!(picks.windows(7).any(|window| window == cycle), "{picks:?}");
    assert_eq!(picks[..7], picks[7..]);
}

#[test]
fn when_the_heavy_member_is_gone_the_light_ones_share_its_calls() {
    for balancing in [LoadBalancing::WeightedRoundRobin, LoadBalancing::Random] {
        let picker = picker(balancing, &[1000, 1, 1, 1]);
        let counts = counts(&picker, 4, 30_000, &|member| member != 0);
        assert!(proportional(&counts[1..], &[1; 3], 0.05), "{counts:?}");
    }
}

#[test]
fn huge_weights_keep_their_proportion() {
    let weights = [u32::MAX, u32::MAX / 2, u32::MAX / 4];
    for balancing in POLICIES {
        let picker = picker(balancing, &weights);
        if balancing != LoadBalancing::RoundRobin {
            let counts = counts(&picker, 3, 70_000, &|_| true);
            let proportional = |tolerance| {
                let shares = [4, 2, 1];
                counts[0] + counts[1] + counts[2] == 70_000
                    && (0..3).all(|member| {
                        let expected = f64::from(shares[member]) * 10_000.0;
                        (counts[member] as f64 - expected).abs() <= tolerance * expected
                    })
            };
            assert!(proportional(0.25), "{balancing:?}: {counts:?}");
        }
    }
}

#[test]
fn the_hash_is_the_same_everywhere_and_always() {
    // If this fails, clients of two versions disagree on where a key belongs.
    let picker = picker(UNBOUNDED, &[1, 2, 3, 4]);
    let picks: Vec<_> = (0..12)
        .filter_map(|key| picker.pick(Some(key), &|_| true, &idle, &mut || 0))
        .collect();
    assert_eq!(picks, [3, 1, 3, 2, 1, 0, 3, 0, 3, 3, 1, 3]);
}

#[test]
fn the_ring_is_shared_by_weight() {
    let weights = [1, 1, 2, 4];
    let counts = counts(&picker(UNBOUNDED, &weights), 4, 80_000, &|_| true);
    assert!(proportional(&counts, &weights, 0.25), "{counts:?}");
}

#[test]
fn the_keys_of_an_unusable_member_are_spread_over_all_others() {
    let picker = picker(UNBOUNDED, &[1; 10]);
    let mut moved = HashMap::new();
    for key in 0..10_000 {
        let pick = |usable: &dyn Fn(usize) -> bool| {
            picker.pick(Some(key), usable, &idle, &mut || 0).unwrap()
        };
        let (before, after) = (pick(&|_| true), pick(&|member| member != 3));
        if before == 3 {
            *moved.entry(after).or_insert(0) += 1;
        } else {
            assert_eq!(before, after, "a key moved that need not");
        }
    }
    assert_eq!(moved.len(), 9, "{moved:?}");
}

/// A client that has calls in flight: each pick adds one, and after `in_flight_max` the oldest ends.
struct Client {
    in_flight: RefCell<Vec<usize>>,
    latency_ns: Vec<u64>,
    seeded: Seeded,
}

impl Client {
    fn new(latency_ns: Vec<u64>) -> Self {
        Self {
            in_flight: RefCell::new(vec![0; latency_ns.len()]),
            latency_ns,
            seeded: Seeded::new(3),
        }
    }

    fn call(&self, picker: &Picker, key: Option<u64>, usable: &dyn Fn(usize) -> bool) -> usize {
        let load = |member: usize| Load {
            in_flight: self.in_flight.borrow()[member],
            latency_ns: self.latency_ns[member],
        };
        let picked = picker.pick(key, usable, &load, &mut || self.seeded.next());
        let picked = picked.expect("one is usable");
        self.in_flight.borrow_mut()[picked] += 1;
        picked
    }

    fn end(&self, member: usize) {
        self.in_flight.borrow_mut()[member] -= 1;
    }

    /// Every call takes as long as its member's latency; one begins each `interval_ns`.
    fn run(&self, picker: &Picker, calls: usize, interval_ns: u64) -> Vec<usize> {
        let mut counts = vec![0; self.latency_ns.len()];
        let mut ends: Vec<(u64, usize)> = Vec::new();
        for call in 0..calls {
            let now_ns = call as u64 * interval_ns;
            ends.retain(|(end, member)| {
                let over = *end <= now_ns;
                if over {
                    self.end(*member);
                }
                !over
            });
            let member = self.call(picker, None, &|_| true);
            counts[member] += 1;
            ends.push((now_ns + self.latency_ns[member], member));
        }
        counts
    }
}

#[test]
fn the_better_of_two_avoids_a_slow_member() {
    let picker = picker(LoadBalancing::PowerOfTwo, &[1; 5]);
    let client = Client::new(vec![10_000, 1000, 1000, 1000, 1000]);
    let counts = client.run(&picker, 10_000, 500);
    assert!(counts[0] < 300, "{counts:?}");
    assert!(proportional(&counts[1..], &[1; 4], 0.15), "{counts:?}");
}

#[test]
fn the_better_of_two_follows_the_weights_idle_and_busy() {
    let weights = [1, 2, 5];
    let picker = picker(LoadBalancing::PowerOfTwo, &weights);
    // Nothing, and a hundred calls in flight.
    for interval_ns in [2_000, 10] {
        let counts = Client::new(vec![1000; 3]).run(&picker, 30_000, interval_ns);
        assert!(proportional(&counts, &weights, 0.15), "{counts:?}");
    }
}

#[test]
fn a_new_member_gets_one_call_until_it_has_answered() {
    let picker = picker(LoadBalancing::PowerOfTwo, &[1; 3]);
    let client = Client::new(vec![1000, 1000, 0]);
    let picks = (0..1000).filter(|_| client.call(&picker, None, &|_| true) == 2);
    assert_eq!(picks.count(), 1);
}

#[test]
fn a_hot_key_overflows_to_others_beyond_the_bound() {
    let picker = picker(LoadBalancing::ConsistentHash { load_factor: 1.25 }, &[1; 4]);
    let client = Client::new(vec![1000; 4]);
    for calls in 1..=400_usize {
        client.call(&picker, Some(42), &|_| true);
        let busiest = client.in_flight.borrow().iter().copied().max().unwrap_or(0);
        let bound = (1.25 * calls as f64 / 4.0).ceil() as usize;
        assert!(busiest <= bound, "{busiest} of {calls}");
    }
    // While hardly anything is in flight, the key stays where it belongs.
    let client = Client::new(vec![1000; 4]);
    let home = client.call(&picker, Some(42), &|_| true);
    client.end(home);
    for _ in 0..100 {
        assert_eq!(client.call(&picker, Some(42), &|_| true), home);
        client.end(home);
    }
}

fn zoned(zones: &[&str]) -> Vec<Member> {
    let mut members = members(&vec![1; zones.len()]);
    for (member, zone) in members.iter_mut().zip(zones) {
        member.zone = (*zone).to_owned();
    }
    members
}

#[test]
fn calls_stay_in_the_zone_while_enough_of_it_is_usable() {
    let members = zoned(&["a", "b", "a", "b", "a", "b"]);
    let zone = ZonePreference::new("a");
    for balancing in POLICIES {
        let picker = Picker::new(&balancing, &members, Some(&zone), 7);
        let all = counts(&picker, 6, 600, &|_| true);
        assert_eq!(all[1] + all[3] + all[5], 0, "{balancing:?}");
        // Two of three are half; one is not.
        let two = counts(&picker, 6, 600, &|member| member != 0);
        assert_eq!(two[0] + two[1] + two[3] + two[5], 0, "{balancing:?}");
        let one = counts(&picker, 6, 600, &|member| member > 2);
        assert!(one[3] > 100 && one[4] > 100 && one[5] > 100, "{one:?}");
    }
}

#[test]
fn a_zone_without_members_makes_no_difference() {
    let zone = ZonePreference::new("c");
    let picker = Picker::new(
        &LoadBalancing::RoundRobin,
        &zoned(&["a", "b"]),
        Some(&zone),
        7,
    );
    assert_eq!(counts(&picker, 2, 100, &|_| true), [50, 50]);
}

#[test]
fn in_a_large_zone_a_change_is_noticed_within_a_few_picks() {
    let zones: Vec<&str> = (0..200).map(|i| if i < 160 { "a" } else { "b" }).collect();
    let zone = ZonePreference::new("a");
    let picker = Picker::new(&LoadBalancing::RoundRobin, &zoned(&zones), Some(&zone), 7);
    assert_eq!(counts(&picker, 200, 320, &|_| true)[160..], [0; 40]);
    let most_are_gone = |member: usize| member >= 100;
    counts(&picker, 200, 20, &most_are_gone);
    let after = counts(&picker, 200, 500, &most_are_gone);
    assert_eq!(after[100..], [5; 100]);
}

#[test]
fn without_members_there_is_nothing_to_pick() {
    let zone = ZonePreference::new("a");
    for balancing in POLICIES {
        let picker = Picker::new(&balancing, &[], Some(&zone), 7);
        assert_eq!(picker.pick(Some(1), &|_| true, &idle, &mut || 0), None);
    }
}

#[test]
fn threads_share_the_turns_evenly() {
    let picker = picker(LoadBalancing::RoundRobin, &[1; 3]);
    let total = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| counts(&picker, 3, 3_000, &|_| true)))
            .collect();
        threads.into_iter().fold([0; 3], |mut total, thread| {
            for (total, count) in total.iter_mut().zip(thread.join().unwrap()) {
                *total += count;
            }
            total
        })
    });
    assert_eq!(total, [4_000; 3]);
}

fn weights(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(0..20_u32, count)
}

proptest! {
    // Each case builds several rings, which is what takes the time.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_only_usable_member_is_found(
        weights in weights(1..40), one: prop::sample::Index, seed: u64, key: Option<u64>,
    ) {
        let one = one.index(weights.len());
        for balancing in POLICIES {
            let picker = Picker::new(&balancing, &members(&weights), None, seed);
            let seeded = Seeded::new(seed);
            let mut random = || seeded.next();
            let busy = |_| Load { in_flight: 100, latency_ns: 100 };
            for _ in 0..3 {
                prop_assert_eq!(picker.pick(key, &|m| m == one, &busy, &mut random), Some(one));
                prop_assert_eq!(picker.pick(key, &|_| false, &busy, &mut random), None);
            }
        }
    }

    #[test]
    fn only_usable_members_are_picked(
        weights in weights(1..40), usable in prop::collection::vec(any::<bool>(), 40),
        local in prop::collection::vec(any::<bool>(), 40), share in 0.0..1.0_f64, seed: u64,
    ) {
        let mut members = members(&weights);
        for (member, local) in members.iter_mut().zip(&local) {
            member.zone = local.to_string();
        }
        let zone = ZonePreference { zone: "true".to_owned(), usable_share_min: share };
        let any_usable = usable[..weights.len()].contains(&true);
        for balancing in POLICIES {
            let picker = Picker::new(&balancing, &members, Some(&zone), seed);
            let seeded = Seeded::new(seed);
            for key in 0..20 {
                let load = |member| Load { in_flight: member, latency_ns: 100 };
                let picked =
                    picker.pick(Some(key), &|m| usable[m], &load, &mut || seeded.next());
                prop_assert_eq!(picked.is_some(), any_usable);
                prop_assert!(picked.is_none_or(|member| usable[member]));
            }
        }
    }

    #[test]
    fn round_robin_is_fair(count in 1..50_usize, rounds in 1..10_usize, seed: u64) {
        let picker = Picker::new(&LoadBalancing::RoundRobin, &members(&vec![9; count]), None, seed);
        prop_assert_eq!(counts(&picker, count, count * rounds, &|_| true), vec![rounds; count]);
    }

    #[test]
    fn the_smooth_cycle_is_exact_and_never_far_from_the_ideal(
        weights in prop::collection::vec(1..20_u32, 1..8), seed: u64,
    ) {
        let balancing = LoadBalancing::WeightedRoundRobin;
        let picker = Picker::new(&balancing, &members(&weights), None, seed);
        let total: u32 = weights.iter().sum();
        let mut counts = vec![0_u32; weights.len()];
        for pick in 1..=2 * total {
            let picked = picker.pick(None, &|_| true, &idle, &mut || 0).unwrap();
            counts[picked] += 1;
            for (count, weight) in counts.iter().zip(&weights) {
                let ideal = f64::from(pick * weight) / f64::from(total);
                prop_assert!((f64::from(*count) - ideal).abs() < 3.0, "{counts:?} of {weights:?}");
            }
        }
        prop_assert_eq!(counts, weights.iter().map(|weight| 2 * weight).collect::<Vec<_>>());
    }

    #[test]
    fn random_picks_follow_the_weights(
        weights in prop::collection::vec(1..20_u32, 1..10), seed: u64,
    ) {
        let picker = Picker::new(&LoadBalancing::Random, &members(&weights), None, seed);
        let seeded = Seeded::new(seed);
        let mut counts = vec![0_u32; weights.len()];
        let picks = 20_000;
        for _ in 0..picks {
            counts[picker.pick(None, &|_| true, &idle, &mut || seeded.next()).unwrap()] += 1;
        }
        let total: u32 = weights.iter().sum();
        for (count, weight) in counts.iter().zip(&weights) {
            let share = f64::from(*weight) / f64::from(total);
            let deviation = (f64::from(picks) * share * (1.0 - share)).sqrt();
            let off = (f64::from(*count) - f64::from(picks) * share).abs();
            prop_assert!(off <= 6.0 * deviation + 1.0, "{counts:?} of {weights:?}");
        }
    }

    #[test]
    fn only_the_keys_of_a_member_that_goes_move(
        weights in weights(2..20), gone: prop::sample::Index, keys: [u64; 32],
    ) {
        // The heaviest stays, as a change of the scale of weights moves more.
        let mut before = members(&weights);
        before.push(member(1000, 20));
        let mut after = before.clone();
        let gone = after.remove(gone.index(weights.len()));
        let (with, without) = (
            Picker::new(&UNBOUNDED, &before, None, 1),
            Picker::new(&UNBOUNDED, &after, None, 2),
        );
        for key in keys {
            let old = &before[with.pick(Some(key), &|_| true, &idle, &mut || 0).unwrap()];
            let new = &after[without.pick(Some(key), &|_| true, &idle, &mut || 0).unwrap()];
            prop_assert!(old == new || *old == gone);
        }
    }

    #[test]
    fn no_member_exceeds_its_bound(
        weights in prop::collection::vec(1..5_u32, 1..60),
        load_factor in 1.0..2.0_f64,
        keys in prop::collection::vec(0..8_u64, 1..500),
    ) {
        let picker = picker(LoadBalancing::ConsistentHash { load_factor }, &weights);
        let client = Client::new(vec![1000; weights.len()]);
        let total: u32 = weights.iter().sum();
        for (calls, key) in (1..).zip(keys) {
            let picked = client.call(&picker, Some(key), &|_| true);
            let share = f64::from(weights[picked]) / f64::from(total);
            let bound = (load_factor * f64::from(calls) * share).ceil() as usize;
            // The sum may be taken for higher than it is, by less than a call to a member.
            prop_assert!(client.in_flight.borrow()[picked] <= bound + 1);
        }
    }
}
