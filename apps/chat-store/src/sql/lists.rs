//! Friends, groups and members as lists, a page at a time.
//!
//! A page has a number of bytes at most. Whatever the lists have, little more is read for a page than it holds: friends
//! and members in pieces, in the order of their keys.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{
    conversations::{self, Standing},
    groups,
    memberships::{KnownGroup, Membership, Memberships},
    session::Session,
};
use crate::{
    ConversationId, GroupId, UserId,
    error::DbError,
    sql::Generation,
    types::{Friend, Group, Member, Page},
};

/// Conversations that are looked at together.
const CONVERSATIONS_PER_READ: usize = 256;
/// Groups whose members one statement reads, and of each the most that it reads.
const GROUPS_PER_READ: usize = 16;
const MEMBERS_PER_READ: usize = 256;
/// A smaller share for each group is not shared out after the first time.
const SHARE_BYTES_MIN: usize = 1024;

/// Where that comes from which the memory does not have.
enum Source<'a> {
    /// From nowhere: for connections of this generation, and memory alone.
    Memory(Generation),
    /// From the database. It must be seen as of the standings: in a snapshot.
    Database(&'a mut dyn Session),
}

impl Source<'_> {
    fn generation(&self) -> Generation {
        match self {
            Self::Memory(generation) => *generation,
            Self::Database(s) => s.generation(),
        }
    }
}

/// What becomes of a page that needs something which the memory does not have.
#[derive(Clone, Copy)]
pub(super) enum Misses {
    /// It comes to nothing.
    EndIt,
    /// That is read. The session must be a snapshot.
    AreRead,
}

impl Misses {
    fn source(self, s: &mut dyn Session) -> Source<'_> {
        match self {
            Self::EndIt => Source::Memory(s.generation()),
            Self::AreRead => Source::Database(s),
        }
    }
}

/// The lists are not all in the memory.
pub(super) struct NotKnown;

/// What an answer still has room for.
#[derive(Clone, Copy)]
struct Room(usize);

impl Room {
    /// Whether so much fits; if so, it is taken.
    fn take(&mut self, bytes: usize) -> bool {
        let fits = bytes <= self.0;
        if fits {
            self.0 -= bytes;
        }
        fits
    }
}

/// Where the conversations of friends begin after one of them, and where they end.
fn friends_after(user: UserId, after: Option<UserId>) -> (u64, u64) {
    let key = |friend| ConversationId::pair(user, friend).map(ConversationId::raw);
    let after = after.and_then(|after| {
        // Nobody is a friend of oneself, but everybody's own id lies between those of friends.
        key(after).or_else(|| UserId::new(after.get() - 1).and_then(key))
    });
    (after.unwrap_or(0), FIRST_GROUP)
}

/// Where the conversations of groups begin after one of them, and where they end.
fn groups_after(after: Option<GroupId>) -> (u64, u64) {
    let after = after.map_or(FIRST_GROUP, |after| ConversationId::group(after).raw());
    // SQLite keeps numbers with a sign.
    (after, i64::MAX.cast_unsigned())
}

/// Below the conversations of groups, and above those of friends.
const FIRST_GROUP: u64 = 1 << 62;

/// A user's friends and groups, as they are put together.
pub(super) struct Lists<'a> {
    memory: &'a Memberships,
    user: UserId,
    room: Room,
    room_of_groups: Room,
    friends: Page<Friend>,
    groups: Vec<ListedGroup>,
    more_groups: bool,
}

/// A group of which the first members are listed.
struct ListedGroup {
    group: Group,
    membership_sequence: u64,
    known: Option<Arc<KnownGroup>>,
    /// Of the members that were read, the sequences of their joining.
    joined: Vec<u64>,
}

impl<'a> Lists<'a> {
    /// Lists that take so many bytes at most.
    pub(super) fn new(memory: &'a Memberships, user: UserId, bytes_max: usize) -> Self {
        Self {
            memory,
            user,
            room: Room(bytes_max),
            room_of_groups: Room(bytes_max / 2),
            friends: Page::default(),
            groups: Vec::new(),
            more_groups: false,
        }
    }

    /// Adds those of the conversations, which ascend, that are of friends, until there is no room.
    fn add_friends(
        &mut self,
        source: &mut Source<'_>,
        standings: &[Standing],
    ) -> Result<Result<(), NotKnown>, DbError> {
        for some in standings.chunks(CONVERSATIONS_PER_READ) {
            let wanted = some.iter().map(Standing::membership).collect();
            let memberships = match source {
                Source::Memory(generation) => self.memory.known(*generation, &wanted),
                Source::Database(s) => Some(self.memory.of(*s, &wanted)?),
            };
            let Some(memberships) = memberships else {
                return Ok(Err(NotKnown));
            };
            let is_friend = |standing: &&Standing| {
                let membership = memberships.get(&standing.conversation);
                matches!(membership, Some(Membership::Friends))
            };
            let friends = some.iter().filter(is_friend);
            let friends: Vec<UserId> = friends
                .filter_map(|standing| standing.conversation.other(self.user))
                .collect();
            let ids = friends.iter().copied();
            let names = match source {
                Source::Memory(generation) => self.memory.known_names(*generation, ids),
                Source::Database(s) => Some(self.memory.names(*s, ids)?),
            };
            let Some(names) = names else {
                return Ok(Err(NotKnown));
            };
            for id in friends {
                let name = names
                    .get(&id)
                    .ok_or_else(|| DbError::unexpected("friend"))?;
                let name = name.to_string();
                let friend = Friend { id, name };
                if !self.room.take(friend.bytes()) && !self.friends.items.is_empty() {
                    self.friends.more = true;
                    return Ok(Ok(()));
                }
                self.friends.items.push(friend);
            }
        }
        Ok(Ok(()))
    }

    /// Adds those of the conversations, which ascend, that are of groups, until half of the room is taken. The members come
    /// with [`add_members`](Self::add_members).
    fn add_groups(
        &mut self,
        source: &mut Source<'_>,
        standings: &[Standing],
    ) -> Result<Result<(), NotKnown>, DbError> {
        for some in standings.chunks(CONVERSATIONS_PER_READ) {
            let mut known = HashMap::new();
            let mut not_known = Vec::new();
            for standing in some {
                let (id, as_of) = standing.membership();
                let membership = self.memory.known_one(source.generation(), id, as_of);
                match (membership, id.as_group()) {
                    (Some(membership), _) => {
                        known.insert(id, membership);
                    }
                    (None, Some(group)) => not_known.push(group),
                    (None, None) => {}
                }
            }
            let mut read = match source {
                _ if not_known.is_empty() => BTreeMap::new(),
                Source::Memory(_) => return Ok(Err(NotKnown)),
                Source::Database(s) => groups::heads(*s, &not_known)?,
            };
            for standing in some {
                let (id, membership_sequence) = standing.membership();
                let (group, known) = match known.remove(&id) {
                    Some(Membership::Group(known)) => (known.head(), Some(known)),
                    Some(_) => continue,
                    None => match id.as_group().and_then(|group| read.remove(&group)) {
                        Some(group) => (group, None),
                        None => {
                            let none = Membership::NoGroup;
                            let generation = source.generation();
                            self.memory.keep(generation, id, membership_sequence, none);
                            continue;
                        }
                    },
                };
                let bytes = group.bytes();
                if !self.room_of_groups.take(bytes) && !self.groups.is_empty() {
                    self.more_groups = true;
                    return Ok(Ok(()));
                }
                self.room.take(bytes);
                self.groups.push(ListedGroup {
                    group,
                    membership_sequence,
                    known,
                    joined: Vec::new(),
                });
            }
        }
        Ok(Ok(()))
    }

    /// Shares the room that is left out among the groups, for their members. What some do not need is shared out again.
    fn add_members(&mut self, source: &mut Source<'_>) -> Result<(), DbError> {
        let mut share_min = 0;
        loop {
            let mut open: Vec<&mut ListedGroup> = self
                .groups
                .iter_mut()
                .filter(|listed| listed.group.more_members)
                .collect();
            let share = self.room.0.checked_div(open.len());
            let Some(share) = share.filter(|&share| share >= share_min) else {
                return Ok(());
            };
            let before = self.room.0;
            for some in open.chunks_mut(GROUPS_PER_READ) {
                let taken = add_share(source, some, share)?;
                self.room.0 = self.room.0.saturating_sub(taken);
            }
            if self.room.0 == before {
                return Ok(());
            }
            share_min = SHARE_BYTES_MIN;
        }
    }

    /// The lists of a user who stands so in all conversations, which ascend, as a snapshot shows them.
    pub(super) fn of_all(
        mut self,
        s: &mut dyn Session,
        standings: &[Standing],
    ) -> Result<(Page<Friend>, Page<Group>), DbError> {
        let generation = s.generation();
        let first_group = standings.partition_point(|one| one.conversation.raw() < FIRST_GROUP);
        let (pairs, groups) = standings.split_at(first_group);
        let mut source = Source::Database(s);
        // All of it is read that is not known.
        let _ = self.add_groups(&mut source, groups)?;
        let _ = self.add_friends(&mut source, pairs)?;
        self.add_members(&mut source)?;
        Ok(self.into_pages(generation))
    }

    /// The lists. Of groups whose members are all there, the memory keeps what was read.
    fn into_pages(self, generation: Generation) -> (Page<Friend>, Page<Group>) {
        let keep = |listed: ListedGroup| {
            let ListedGroup {
                group,
                membership_sequence: as_of,
                known,
                joined,
            } = listed;
            if known.is_none() && !group.more_members {
                let id = ConversationId::group(group.id);
                let known = Membership::Group(Arc::new(KnownGroup::new(group.clone(), &joined)));
                self.memory.keep(generation, id, as_of, known);
            }
            group
        };
        let groups = Page {
            items: self.groups.into_iter().map(keep).collect(),
            more: self.more_groups,
        };
        (self.friends, groups)
    }
}

/// Adds so many bytes of members to each of the groups, and returns how many bytes that took.
fn add_share(
    source: &mut Source<'_>,
    some: &mut [&mut ListedGroup],
    share: usize,
) -> Result<usize, DbError> {
    let rows_max = MEMBERS_PER_READ.min(share / Member::BYTES_MIN + 1);
    let unknown: Vec<groups::Stretch> = some
        .iter()
        .filter(|listed| listed.known.is_none())
        .map(|listed| groups::Stretch {
            group: listed.group.id,
            after: listed.group.members.last().map(|member| member.id),
        })
        .collect();
    let mut read = match source {
        Source::Database(s) if !unknown.is_empty() => groups::members_in(*s, &unknown, rows_max)?,
        _ => HashMap::new(),
    };
    let mut taken = 0;
    for listed in some.iter_mut() {
        let listed: &mut ListedGroup = listed;
        let mut room = Room(share);
        let group = &mut listed.group;
        let mut all_taken = true;
        match &listed.known {
            Some(known) => {
                let rest = known.group.members.iter().skip(group.members.len());
                for member in rest {
                    all_taken = room.take(member.bytes());
                    if !all_taken {
                        break;
                    }
                    group.members.push(member.clone());
                }
                group.more_members = !all_taken;
            }
            None => {
                let members = read.remove(&group.id).unwrap_or_default();
                let is_last = members.len() < rows_max;
                for (member, joined) in members {
                    all_taken = room.take(member.bytes());
                    if !all_taken {
                        break;
                    }
                    group.members.push(member);
                    listed.joined.push(joined);
                }
                group.more_members = !(all_taken && is_last);
            }
        }
        taken += share - room.0;
    }
    Ok(taken)
}

/// The members of a group after one of them.
pub(super) fn members(
    s: &mut dyn Session,
    group: GroupId,
    mut after: Option<UserId>,
    bytes_max: usize,
) -> Result<Page<Member>, DbError> {
    let mut room = Room(bytes_max);
    let mut page = Page::default();
    loop {
        let rows_max = MEMBERS_PER_READ.min(room.0 / Member::BYTES_MIN + 1);
        let mut read = groups::members_in(s, &[groups::Stretch { group, after }], rows_max)?;
        let members = read.remove(&group).unwrap_or_default();
        let is_last = members.len() < rows_max;
        for (member, _) in members {
            if !room.take(member.bytes()) && !page.items.is_empty() {
                page.more = true;
                return Ok(page);
            }
            after = Some(member.id);
            page.items.push(member);
        }
        if is_last {
            return Ok(page);
        }
    }
}

/// A user's friends after one of them.
pub(super) fn friends_page(
    memory: &Memberships,
    s: &mut dyn Session,
    misses: Misses,
    user: UserId,
    after: Option<UserId>,
    bytes_max: usize,
) -> Result<Result<Page<Friend>, NotKnown>, DbError> {
    let mut lists = Lists::new(memory, user, bytes_max);
    let (mut from, to) = friends_after(user, after);
    loop {
        let standings =
            conversations::standings_between(s, user, (from, to), CONVERSATIONS_PER_READ)?;
        let mut source = misses.source(s);
        if let Err(NotKnown) = lists.add_friends(&mut source, &standings)? {
            return Ok(Err(NotKnown));
        }
        match standings.last() {
            Some(last) if !lists.friends.more && standings.len() == CONVERSATIONS_PER_READ => {
                from = last.conversation.raw();
            }
            _ => return Ok(Ok(lists.friends)),
        }
    }
}

/// A user's groups after one of them.
pub(super) fn groups_page(
    memory: &Memberships,
    s: &mut dyn Session,
    misses: Misses,
    user: UserId,
    after: Option<GroupId>,
    bytes_max: usize,
) -> Result<Result<Page<Group>, NotKnown>, DbError> {
    let generation = s.generation();
    let mut lists = Lists::new(memory, user, bytes_max);
    let (mut from, to) = groups_after(after);
    loop {
        let standings =
            conversations::standings_between(s, user, (from, to), CONVERSATIONS_PER_READ)?;
        let mut source = misses.source(s);
        if let Err(NotKnown) = lists.add_groups(&mut source, &standings)? {
            return Ok(Err(NotKnown));
        }
        match standings.last() {
            Some(last) if !lists.more_groups && standings.len() == CONVERSATIONS_PER_READ => {
                from = last.conversation.raw();
            }
            _ => {
                lists.add_members(&mut source)?;
                return Ok(Ok(lists.into_pages(generation).1));
            }
        }
    }
}
