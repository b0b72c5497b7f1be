//! Members in the caller's zone first, as long as enough of them are usable.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::{LoadBalancing, Member, Members, Policy};

/// Members that are looked at per pick, on average, to know how many are usable.
const MEMBERS_PER_PICK: usize = 8;

/// Prefers providers nearby.
#[derive(Debug, Clone, PartialEq)]
pub struct ZonePreference {
    /// The caller's zone.
    pub zone: String,
    /// While at least this share of the zone's providers is usable, calls stay in the zone; below it they
    /// go to all providers, so that the few left are not overrun. 0.5 by default; with 0.0 they stay while there is
    /// one.
    pub usable_share_min: f64,
}

impl ZonePreference {
    /// Prefers the providers of `zone` while half of them are usable.
    pub fn new(zone: impl Into<String>) -> Self {
        Self {
            zone: zone.into(),
            usable_share_min: 0.5,
        }
    }
}

/// The policy for those of the members that are in the zone.
#[derive(Debug)]
pub(super) struct Nearby {
    policy: Policy,
    /// Their indices among all.
    members: Vec<usize>,
    usable_min: usize,
    picks: AtomicUsize,
    /// To count takes time, so it is done every so many picks; with few members, in each.
    picks_per_count: usize,
    enough: AtomicBool,
}

impl Nearby {
    /// `None`: it would make no difference, as none or all are in the zone.
    pub(super) fn new(
        balancing: &LoadBalancing,
        all: &[&Member],
        preference: &ZonePreference,
        seed: u64,
    ) -> Option<Self> {
        let members: Vec<usize> = (0..all.len())
            .filter(|member| all[*member].zone == preference.zone)
            .collect();
        if members.is_empty() || members.len() == all.len() {
            return None;
        }
        let local: Vec<&Member> = members.iter().map(|member| all[*member]).collect();
        let share = preference.usable_share_min.clamp(0.0, 1.0);
        Some(Self {
            policy: Policy::new(balancing, &local, seed),
            usable_min: ((members.len() as f64 * share).ceil() as usize).max(1),
            picks: AtomicUsize::new(0),
            picks_per_count: (members.len() / MEMBERS_PER_PICK).max(1),
            enough: AtomicBool::new(false),
            members,
        })
    }

    /// A member of the zone; `None`: not enough of them are usable.
    pub(super) fn pick(
        &self,
        hash_key: Option<u64>,
        members: Members<'_>,
        random: &mut dyn FnMut() -> u64,
    ) -> Option<usize> {
        if !self.has_enough(members.usable) {
            return None;
        }
        let local = Members {
            usable: &|member| (members.usable)(self.members[member]),
            load: &|member| (members.load)(self.members[member]),
        };
        let picked = self.policy.pick(hash_key, local, random)?;
        Some(self.members[picked])
    }

    fn has_enough(&self, usable: &dyn Fn(usize) -> bool) -> bool {
        let pick = self.picks.fetch_add(1, Ordering::Relaxed);
        if !pick.is_multiple_of(self.picks_per_count) {
            return self.enough.load(Ordering::Relaxed);
        }
        let usable = self.members.iter().filter(|member| usable(**member));
        let enough = usable.take(self.usable_min).count() == self.usable_min;
        self.enough.store(enough, Ordering::Relaxed);
        enough
    }
}
