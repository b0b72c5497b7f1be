//! The ids that travel through the whole chat: users, groups and conversations.
//!
//! Proxies, servers and stores use the same types; nothing here knows any of them.
//!
//! # A conversation id
//!
//! | bits | pair of users | group |
//! |---|---|---|
//! | 63..62 | 0 | 1 |
//! | 61..31 | the lower user id | 0 |
//! | 30..0 | the higher user id | the group id |
//!
//! So an id names its own parties, no table has to be asked, and both users of a pair compute the
//! same one. Only these two kinds exist, hence bit 63 is never set and the id also fits an `i64`.

use std::fmt;

const KIND_SHIFT: u32 = 62;
const KIND_PAIR: u64 = 0;
const KIND_GROUP: u64 = 1;
const PARTY_BITS: u32 = 31;
const PARTY_MASK: u64 = (1 << PARTY_BITS) - 1;

macro_rules! positive_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(i32);

        impl $name {
            /// The id with this number, if it is one: ids are positive.
            pub const fn new(raw: i32) -> Option<Self> {
                if raw > 0 { Some(Self(raw)) } else { None }
            }

            /// The number, always positive.
            pub const fn get(self) -> i32 {
                self.0
            }

            /// The number as it is packed into a conversation id.
            const fn bits(self) -> u64 {
                self.0.unsigned_abs() as u64
            }

            /// Back from a conversation id; only the lowest 31 bits may be set.
            fn from_bits(bits: u64) -> Option<Self> {
                i32::try_from(bits).ok().and_then(Self::new)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

positive_id! {
    /// A registered user.
    UserId
}

positive_id! {
    /// A group. Ids of deleted groups are not given out again.
    GroupId
}

/// A pair of friends or a group: what a message belongs to and what has a sequence.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConversationId(u64);

/// Who takes part in a conversation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parties {
    /// Two users.
    Pair {
        /// The one with the lower id.
        low: UserId,
        /// The one with the higher id.
        high: UserId,
    },
    /// The members of a group.
    Group(GroupId),
}

impl ConversationId {
    /// The conversation of two users, in either order; `None` for a user with oneself.
    pub fn pair(a: UserId, b: UserId) -> Option<Self> {
        let (low, high) = (a.min(b), a.max(b));
        (low != high)
            .then(|| Self(KIND_PAIR << KIND_SHIFT | low.bits() << PARTY_BITS | high.bits()))
    }

    /// The conversation of a group.
    pub const fn group(group: GroupId) -> Self {
        Self(KIND_GROUP << KIND_SHIFT | group.bits())
    }

    /// The conversation with this number, if there can be one.
    pub fn from_raw(raw: u64) -> Option<Self> {
        decode(raw).map(|_| Self(raw))
    }

    /// The number, for the wire and for a database.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// Who takes part.
    pub fn parties(self) -> Parties {
        decode(self.0).expect("checked when it was made")
    }

    /// The group, if this is a group's conversation.
    pub fn as_group(self) -> Option<GroupId> {
        match self.parties() {
            Parties::Group(group) => Some(group),
            Parties::Pair { .. } => None,
        }
    }

    /// The one that `user` talks to here; `None` in a group, and for a user who is not of the pair.
    pub fn other(self, user: UserId) -> Option<UserId> {
        match self.parties() {
            Parties::Pair { low, high } if user == low => Some(high),
            Parties::Pair { low, high } if user == high => Some(low),
            Parties::Pair { .. } | Parties::Group(_) => None,
        }
    }
}

impl fmt::Debug for ConversationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parties() {
            Parties::Pair { low, high } => write!(f, "pair({low}, {high})"),
            Parties::Group(group) => write!(f, "group({group})"),
        }
    }
}

impl fmt::Display for ConversationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

fn decode(raw: u64) -> Option<Parties> {
    let upper = raw >> PARTY_BITS & PARTY_MASK;
    let lower = raw & PARTY_MASK;
    match raw >> KIND_SHIFT {
        KIND_PAIR if upper < lower => Some(Parties::Pair {
            low: UserId::from_bits(upper)?,
            high: UserId::from_bits(lower)?,
        }),
        KIND_GROUP if upper == 0 => Some(Parties::Group(GroupId::from_bits(lower)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(raw: i32) -> UserId {
        UserId::new(raw).unwrap()
    }

    #[test]
    fn only_positive_numbers_are_ids() {
        assert_eq!(UserId::new(0), None);
        assert_eq!(UserId::new(-1), None);
        assert_eq!(GroupId::new(i32::MIN), None);
        assert_eq!(user(i32::MAX).get(), i32::MAX);
    }

    #[test]
    fn both_users_of_a_pair_compute_the_same_id() {
        let pair = ConversationId::pair(user(7), user(3)).unwrap();
        assert_eq!(Some(pair), ConversationId::pair(user(3), user(7)));
        assert_eq!(pair.raw(), 3 << 31 | 7);
        assert_eq!(
            pair.parties(),
            Parties::Pair {
                low: user(3),
                high: user(7)
            }
        );
        assert_eq!(pair.other(user(3)), Some(user(7)));
        assert_eq!(pair.other(user(7)), Some(user(3)));
        assert_eq!(pair.other(user(8)), None);
        assert_eq!(pair.as_group(), None);
    }

    #[test]
    fn nobody_is_a_pair_with_oneself() {
        assert_eq!(ConversationId::pair(user(5), user(5)), None);
    }

    #[test]
    fn every_id_survives_its_number() {
        let edges = [1, 2, 1000, i32::MAX - 1, i32::MAX];
        for a in edges {
            let group = ConversationId::group(GroupId::new(a).unwrap());
            assert_eq!(ConversationId::from_raw(group.raw()), Some(group));
            assert!(i64::try_from(group.raw()).is_ok());
            for b in edges.into_iter().filter(|b| *b != a) {
                let pair = ConversationId::pair(user(a), user(b)).unwrap();
                assert_eq!(ConversationId::from_raw(pair.raw()), Some(pair));
                assert!(i64::try_from(pair.raw()).is_ok());
            }
        }
    }

    #[test]
    fn numbers_that_name_no_conversation_are_refused() {
        let group = 1_u64 << 62;
        let refused = [
            0,                   // a pair of nobody
            7,                   // a pair without its lower user
            7 << 31 | 7,         // a user with oneself
            7 << 31 | 3,         // the wrong order
            3 << 31,             // a pair without its higher user
            group,               // group 0
            group | 1 << 31 | 5, // a group with something above it
            2 << 62 | 5,         // kinds that do not exist
            3 << 62 | 5,
            u64::MAX,
        ];
        for raw in refused {
            assert_eq!(ConversationId::from_raw(raw), None, "{raw:#x}");
        }
    }
}
