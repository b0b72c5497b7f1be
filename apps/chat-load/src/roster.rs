//! Who takes part in a load: users, the pairs and groups they talk in, and who only listens.

use std::collections::{HashMap, HashSet};

use chat_proto::conversation::{ConversationId, GroupId, UserId};
use serde::{Deserialize, Serialize};

/// How many users a load has, and how they talk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Pairs of friends.
    pub pairs: usize,
    /// In how many pairs each of their users is, 1 or more; `pairs` is rounded up to a multiple of its
    /// square.
    pub friends: usize,
    /// Groups.
    pub groups: usize,
    /// Members of each group, at least 2 where there are groups.
    pub group_members: usize,
    /// Users who are logged in and do nothing.
    pub idle: usize,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            pairs: 0,
            friends: 1,
            groups: 0,
            group_members: 0,
            idle: 0,
        }
    }
}

impl Shape {
    /// All users.
    pub fn users(&self) -> usize {
        self.users_in_pairs() + self.groups * self.group_members + self.idle
    }

    /// Users are in circles: each of one half is a friend of each of the other half.
    fn circles(&self) -> usize {
        let friends = self.friends.max(1);
        self.pairs.div_ceil(friends * friends)
    }

    fn users_in_pairs(&self) -> usize {
        self.circles() * 2 * self.friends.max(1)
    }

    /// Deals users out: pairs, groups, and the rest.
    pub(crate) fn deal<T: Copy>(&self, users: Vec<T>) -> Dealt<T> {
        let friends = self.friends.max(1);
        let mut users = users.into_iter();
        let in_pairs: Vec<T> = users.by_ref().take(self.users_in_pairs()).collect();
        let mut pairs = Vec::with_capacity(self.pairs);
        for circle in in_pairs.chunks(2 * friends) {
            let (left, right) = circle.split_at(circle.len() / 2);
            for &a in left {
                pairs.extend(right.iter().map(|&b| (a, b)));
            }
        }
        let group = |_| users.by_ref().take(self.group_members).collect();
        let groups = (0..self.groups).map(group).collect();
        Dealt {
            pairs,
            groups,
            idle: users.collect(),
        }
    }
}

/// Who is a friend of whom, who is in which group.
pub(crate) struct Dealt<T> {
    pub(crate) pairs: Vec<(T, T)>,
    pub(crate) groups: Vec<Vec<T>>,
    pub(crate) idle: Vec<T>,
}

/// The users of a load as a chat knows them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Roster {
    /// The password of all users.
    pub password: String,
    /// Conversations, pairs first.
    pub conversations: Vec<Participants>,
    /// Users who are logged in and do nothing.
    pub idle: Vec<i32>,
}

/// A pair of friends or the members of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Participants {
    /// The group's id; `None` for a pair.
    pub group: Option<i32>,
    /// Two users, or the members.
    pub members: Vec<i32>,
    /// The newest message of the conversation before the load.
    pub last_sequence: u64,
}

impl Participants {
    /// The conversation; `None` if the numbers cannot be ids.
    pub fn conversation(&self) -> Option<ConversationId> {
        match (self.group, self.members.as_slice()) {
            (Some(group), _) => Some(ConversationId::group(GroupId::new(group)?)),
            (None, &[a, b]) => ConversationId::pair(UserId::new(a)?, UserId::new(b)?),
            (None, _) => None,
        }
    }
}

impl Roster {
    /// All users.
    pub fn users(&self) -> usize {
        let members = self.conversations.iter().flat_map(|one| &one.members);
        let users: HashSet<_> = members.chain(&self.idle).collect();
        users.len()
    }

    /// Deals it out to `count` processes. Neither a user nor a conversation is ever divided, so that each
    /// process can check its own by itself.
    pub fn split(self, count: usize) -> Vec<Self> {
        let count = count.max(1);
        let empty = || Self {
            password: self.password.clone(),
            ..Self::default()
        };
        let mut parts: Vec<_> = std::iter::repeat_with(empty).take(count).collect();
        let mut part_of: HashMap<i32, usize> = HashMap::new();
        let mut next = 0;
        for one in self.conversations {
            let known = one.members.iter().find_map(|user| part_of.get(user));
            let part = known.copied().unwrap_or_else(|| {
                next += 1;
                (next - 1) % count
            });
            part_of.extend(one.members.iter().map(|&user| (user, part)));
            parts[part].conversations.push(one);
        }
        for (index, user) in self.idle.into_iter().enumerate() {
            parts[index % count].idle.push(user);
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_with_several_friends_are_dealt_in_circles() {
        let shape = Shape {
            pairs: 5,
            friends: 2,
            groups: 1,
            group_members: 3,
            idle: 1,
        };
        let dealt = shape.deal((0..shape.users()).collect());
        let (first, second) = (
            [(0, 2), (0, 3), (1, 2), (1, 3)],
            [(4, 6), (4, 7), (5, 6), (5, 7)],
        );
        assert_eq!(dealt.pairs, [first, second].concat());
        assert_eq!(dealt.groups, [[8, 9, 10]]);
        assert_eq!(dealt.idle, [11]);
    }

    #[test]
    fn a_split_divides_no_circle() {
        let shape = Shape {
            pairs: 9 * 4,
            friends: 3,
            ..Shape::default()
        };
        let users: Vec<i32> = (1..).take(shape.users()).collect();
        let pair = |(a, b)| Participants {
            group: None,
            members: vec![a, b],
            last_sequence: 1,
        };
        let roster = Roster {
            conversations: shape.deal(users).pairs.into_iter().map(pair).collect(),
            ..Roster::default()
        };
        let parts = roster.split(2);
        assert_eq!(
            parts.iter().map(Roster::users).collect::<Vec<_>>(),
            [12, 12]
        );
    }

    #[test]
    fn a_split_keeps_everybody_and_divides_no_conversation() {
        let pair = |a, b| Participants {
            group: None,
            members: vec![a, b],
            last_sequence: 1,
        };
        let roster = Roster {
            password: "load".to_owned(),
            conversations: vec![pair(1, 2), pair(3, 4), pair(5, 6)],
            idle: vec![7, 8],
        };
        let all = roster.clone();
        let parts = roster.split(2);
        assert_eq!(parts.iter().map(Roster::users).sum::<usize>(), all.users());
        for one in &all.conversations {
            let holders = parts.iter().filter(|part| part.conversations.contains(one));
            assert_eq!(holders.count(), 1);
        }
    }
}
