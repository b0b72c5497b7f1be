//! Consistent hash with bounded load (Mirrokni, Thorup, Zadimoghaddam 2017).
//!
//! Every member has points on a ring of 64-bit numbers; a key belongs to the member of the first point at
//! or after its hash. A member with more than its bound of calls in flight is passed over, and
//! the walk goes on to the next point: so its further keys are spread over all the others.
//!
//! A ring rather than one of the tables: a jump hash can only lose its last member, and Maglev moves a
//! few keys between members that stay. Here a member's points depend on nothing but its address and
//! weight, so exactly the keys move that must. Many points to a member cost memory, and the search costs
//! nothing: the points are spread evenly, so an index of their upper bits leads to the right place.
//!
//! The bound needs the sum of all calls in flight. It is taken anew every few picks, and each pick since
//! adds one. That errs on the high side, and by less than one call to a member.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::super::mix::mix;
use super::{Member, Members};

/// Points of the heaviest member. The shares of the ring then differ by some 6% between members of one
/// weight.
const POINTS_MAX: usize = 256;
/// Its points when there are very many members.
const POINTS_MIN: usize = 16;
/// Where points begin to become fewer.
const RING_POINTS_MAX: usize = 1 << 20;

/// The sum of calls in flight is taken this many times as often as all members would be looked at by
/// a pick that takes it every time.
const MEMBERS_PER_PICK: usize = 8;

#[derive(Debug)]
pub(super) struct Ring {
    /// Sorted by the hash.
    points: Vec<Point>,
    /// For each value of the upper bits, the first point that has it or a higher one.
    index: Vec<u32>,
    index_shift: u32,
    weights: Vec<usize>,
    bound: Option<Bound>,
}

#[derive(Debug, Clone, Copy)]
struct Point {
    hash: u64,
    member: u32,
}

#[derive(Debug)]
struct Bound {
    load_factor: f64,
    picks: AtomicUsize,
    picks_per_count: usize,
    /// Of the usable members, when they were last counted.
    in_flight: AtomicUsize,
    weight: AtomicU64,
}

impl Ring {
    pub(super) fn new(members: &[&Member], load_factor: f64) -> Self {
        let weights: Vec<usize> = members.iter().map(|member| member.weight()).collect();
        let mut points: Vec<Point> = members
            .iter()
            .zip(point_counts(&weights))
            .zip(0..)
            .flat_map(|((member, count), index)| {
                let hash = hash_of(member.address);
                (0..count as u64).map(move |point| Point {
                    hash: mix(hash ^ mix(point)),
                    member: index,
                })
            })
            .collect();
        points.sort_unstable_by_key(|point| point.hash);

        let bits = points.len().max(2).next_power_of_two().ilog2();
        let index_shift = u64::BITS - bits;
        let mut next = 0;
        let index = (0..1_u64 << bits)
            .map(|upper| {
                while points
                    .get(next)
                    .is_some_and(|p| p.hash >> index_shift < upper)
                {
                    next += 1;
                }
                u32::try_from(next).unwrap_or(u32::MAX)
            })
            .collect();
        Self {
            points,
            index,
            index_shift,
            bound: Bound::new(load_factor, members.len()),
            weights,
        }
    }

    pub(super) fn pick(&self, key: u64, members: Members<'_>) -> Option<usize> {
        let hash = mix(key);
        let count = self.weights.len();
        let allowed = self
            .bound
            .as_ref()
            .map(|bound| bound.calls_per_weight(&self.weights, members));
        let takes_one_more = |member: usize| {
            allowed.is_none_or(|per_weight| {
                let calls_max = (per_weight * self.weights[member] as f64).ceil();
                ((members.load)(member).in_flight as f64) < calls_max
            })
        };
        let mut home = None;
        let start = self.first_point_from(hash);
        // So long a walk meets nearly every member.
        let steps = self.points.len().min(4 * count + 16);
        for step in 0..steps {
            let member = self.points[(start + step) % self.points.len()].member as usize;
            if !(members.usable)(member) {
                continue;
            }
            if takes_one_more(member) {
                return Some(member);
            }
            home = home.or(Some(member));
        }
        // Hardly anyone is usable, or the counts have moved on under us.
        let start = (hash % count.max(1) as u64) as usize;
        let others = || {
            (start..count)
                .chain(0..start)
                .filter(|member| (members.usable)(*member))
        };
        others()
            .find(|member| takes_one_more(*member))
            .or(home)
            .or_else(|| others().next())
    }

    fn first_point_from(&self, hash: u64) -> usize {
        let mut at = self.index[(hash >> self.index_shift) as usize] as usize;
        while self.points.get(at).is_some_and(|point| point.hash < hash) {
            at += 1;
        }
        // After the last comes the first.
        if at < self.points.len() { at } else { 0 }
    }
}

impl Bound {
    /// `None`: there is no bound.
    fn new(load_factor: f64, members: usize) -> Option<Self> {
        // `max` also takes 1.0 instead of what is not a number.
        let load_factor = load_factor.max(1.0);
        load_factor.is_finite().then(|| Self {
            load_factor,
            picks: AtomicUsize::new(0),
            picks_per_count: (members / MEMBERS_PER_PICK).max(1),
            in_flight: AtomicUsize::new(0),
            weight: AtomicU64::new(1),
        })
    }

    /// What a usable member may have in flight for each unit of its weight, this call included.
    fn calls_per_weight(&self, weights: &[usize], members: Members<'_>) -> f64 {
        let pick = self.picks.fetch_add(1, Ordering::Relaxed);
        let since_count = pick % self.picks_per_count;
        if since_count == 0 {
            self.count(weights, members);
        }
        let in_flight = self.in_flight.load(Ordering::Relaxed) + since_count + 1;
        let weight = self.weight.load(Ordering::Relaxed).max(1);
        self.load_factor * in_flight as f64 / weight as f64
    }

    fn count(&self, weights: &[usize], members: Members<'_>) {
        let (mut in_flight, mut usable_weight) = (0, 0);
        for (member, weight) in weights.iter().enumerate() {
            if (members.usable)(member) {
                in_flight += (members.load)(member).in_flight;
                usable_weight += *weight as u64;
            }
        }
        self.in_flight.store(in_flight, Ordering::Relaxed);
        self.weight.store(usable_weight, Ordering::Relaxed);
    }
}

/// The points of each member. They are relative to a power of two, not to the heaviest or to the sum, so that
/// members that stay keep theirs when others come and go.
fn point_counts(weights: &[usize]) -> impl Iterator<Item = usize> {
    let heaviest = weights.iter().copied().max().unwrap_or(1);
    let full_weight = heaviest.next_power_of_two() as u64;
    let full = RING_POINTS_MAX / weights.len().max(1).next_power_of_two();
    let full = full.clamp(POINTS_MIN, POINTS_MAX) as u64;
    weights
        .iter()
        .map(move |weight| (*weight as u64 * full).div_ceil(full_weight) as usize)
}

/// The same in every process, see [`mix`](super::super::mix).
fn hash_of(address: SocketAddr) -> u64 {
    let ip = match address {
        SocketAddr::V4(v4) => v4.ip().to_ipv6_mapped().to_bits(),
        SocketAddr::V6(v6) => v6.ip().to_bits(),
    };
    let (upper, lower) = ((ip >> 64) as u64, ip as u64);
    mix(mix(mix(upper) ^ lower) ^ u64::from(address.port()))
}
