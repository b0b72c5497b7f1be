//! Which member of a service gets the next call.
//!
//! ```text
//!   list of members changes ─► Picker::new     builds the tables of its policy, once
//!   each call ──────────────► Picker::pick     a few reads, no lock, no allocation
//! ```
//!
//! A [`Picker`] never changes; what moves on from call to call are counters, which threads share. Whether
//! a member can take a call now, and how busy it is, the caller tells.
//!
//! | file | policy |
//! |---|---|
//! | `cycle` | round robin, plain and smoothly weighted |
//! | `draw` | weighted random |
//! | `two` | the better of two, by latency and calls in flight |
//! | `ring` | consistent hash with bounded load |
//! | `zone` | members nearby first |
//! | [`ewma`] | the latency that `two` goes by |
//!
//! While few members are unusable, a pick looks at a few members, however many there are. It looks at
//! all before it says that there is none.

mod cycle;
mod draw;
pub(crate) mod ewma;
mod ring;
mod two;
mod zone;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;

pub use zone::ZonePreference;

use cycle::Cycle;
use draw::Draw;
use ring::Ring;
use two::BetterOfTwo;
use zone::Nearby;

/// How calls are spread over the providers of a service.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub enum LoadBalancing {
    /// One after the other, all the same whatever their weights. The default.
    #[default]
    RoundRobin,
    /// One after the other, each in proportion to its weight, and the turns of a heavy one spread
    /// evenly among the others' (as nginx does).
    WeightedRoundRobin,
    /// At random, in proportion to the weights.
    Random,
    /// The same key goes to the same provider, as long as that one is there and not overloaded. When a
    /// provider comes or goes, only the keys that it gains or had move. Calls without a key are spread
    /// at random.
    ConsistentHash {
        /// How far above the average (relative to the weights) a provider's calls in flight may rise before
        /// further keys go to the next one: 1.25 for a quarter. At least 1.0;
        /// [`f64::INFINITY`] for no bound.
        load_factor: f64,
    },
    /// The better of two that are drawn by weight: the one with the lower product of recent latency and
    /// calls in flight. Moves load away from slow providers, without all callers running to
    /// the same fast one.
    PowerOfTwo,
}

/// One of those who can take a call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Member {
    pub(crate) address: SocketAddr,
    /// 0 counts as 1.
    pub(crate) weight: u32,
    pub(crate) zone: String,
}

impl Member {
    fn weight(&self) -> usize {
        self.weight.max(1) as usize
    }
}

/// How busy a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Load {
    /// Calls that it has and this client waits for.
    pub(crate) in_flight: usize,
    /// What a call takes, [`ewma::PeakEwma`]; 0: unknown.
    pub(crate) latency_ns: u64,
}

/// What a pick may ask about the members, by their index in the list.
#[derive(Clone, Copy)]
struct Members<'a> {
    usable: &'a dyn Fn(usize) -> bool,
    load: &'a dyn Fn(usize) -> Load,
}

/// Picks members of a list that does not change. Shared by threads.
#[derive(Debug)]
pub(crate) struct Picker {
    nearby: Option<Nearby>,
    all: Policy,
}

impl Picker {
    /// `seed` is where the turns begin, so that many clients do not all begin with the first member;
    /// the hash does not depend on it.
    pub(crate) fn new(
        balancing: &LoadBalancing,
        members: &[Member],
        zone: Option<&ZonePreference>,
        seed: u64,
    ) -> Self {
        let all: Vec<&Member> = members.iter().collect();
        Self {
            nearby: zone.and_then(|zone| Nearby::new(balancing, &all, zone, seed)),
            all: Policy::new(balancing, &all, seed),
        }
    }

    /// The index of the member that gets the call; `None`: none is usable. `hash_key` means something to
    /// [`LoadBalancing::ConsistentHash`] only.
    pub(crate) fn pick(
        &self,
        hash_key: Option<u64>,
        usable: &dyn Fn(usize) -> bool,
        load: &dyn Fn(usize) -> Load,
        random: &mut dyn FnMut() -> u64,
    ) -> Option<usize> {
        let members = Members { usable, load };
        self.nearby
            .as_ref()
            .and_then(|nearby| nearby.pick(hash_key, members, random))
            .or_else(|| self.all.pick(hash_key, members, random))
    }
}

/// The tables of a policy for some members.
#[derive(Debug)]
enum Policy {
    Cycle(Cycle),
    Draw(Draw),
    Two(BetterOfTwo),
    Ring(Ring),
}

impl Policy {
    fn new(balancing: &LoadBalancing, members: &[&Member], seed: u64) -> Self {
        let weights = || members.iter().map(|member| member.weight());
        match *balancing {
            LoadBalancing::RoundRobin => Self::Cycle(Cycle::plain(members.len(), seed)),
            LoadBalancing::WeightedRoundRobin => {
                Self::Cycle(Cycle::smooth(&weights().collect::<Vec<_>>(), seed))
            }
            LoadBalancing::Random => Self::Draw(Draw::new(weights().collect())),
            LoadBalancing::PowerOfTwo => Self::Two(BetterOfTwo::new(weights().collect())),
            LoadBalancing::ConsistentHash { load_factor } => {
                Self::Ring(Ring::new(members, load_factor))
            }
        }
    }

    fn pick(
        &self,
        hash_key: Option<u64>,
        members: Members<'_>,
        random: &mut dyn FnMut() -> u64,
    ) -> Option<usize> {
        match self {
            Self::Cycle(cycle) => cycle.pick(members.usable),
            Self::Draw(draw) => draw.pick(members.usable, random),
            Self::Two(two) => two.pick(members, random),
            Self::Ring(ring) => ring.pick(hash_key.unwrap_or_else(random), members),
        }
    }
}
