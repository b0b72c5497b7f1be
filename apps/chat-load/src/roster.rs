//! Who takes part in a load: users, the pairs and groups they talk in, and who only listens.

use chat_proto::conversation::{ConversationId, GroupId, UserId};
use serde::{Deserialize, Serialize};

/// How many users a load has, and how they talk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Shape {
    /// Pairs of friends, of two users each.
    pub pairs: usize,
    /// Groups.
    pub groups: usize,
    /// Members of each group, at least 2 where there are groups.
    pub group_members: usize,
    /// Users who are logged in and do nothing.
    pub idle: usize,
}

impl Shape {
    /// All users.
    pub fn users(&self) -> usize {
        2 * self.pairs + self.groups * self.group_members + self.idle
    }
}

/// The users of a load as a chat knows them. Every user is in one conversation, or in none.
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
        let members = self.conversations.iter().map(|one| one.members.len());
        members.sum::<usize>() + self.idle.len()
    }

    /// Deals it out to `count` processes. A conversation is never divided, so that each process can check
    /// its own by itself.
    pub fn split(self, count: usize) -> Vec<Self> {
        let count = count.max(1);
        let empty = || Self {
            password: self.password.clone(),
            ..Self::default()
        };
        let mut parts: Vec<_> = std::iter::repeat_with(empty).take(count).collect();
        for (index, one) in self.conversations.into_iter().enumerate() {
            parts[index % count].conversations.push(one);
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
