//! Who belongs to which conversation, kept in memory and never out of date.
//!
//! Every change of who belongs to a conversation is a message of it, written in the same transaction and under the
//! conversation's lock; how many messages of another kind came after it, the row says (`unchanged_for`). So what was
//! read together with the sequence of the last change holds for as long as that sequence does:
//!
//! ```text
//!   (conversation, last_seq - unchanged_for) ──► friends or not │ the group with its members
//! ```
//!
//! Whoever wants to know reads the number, which is a column of a row that is read anyway, and takes from here
//! what belongs to exactly that number; everything else is a miss. Nothing is ever invalidated: there is no
//! message that could be lost and no time in which an old entry counts. Names never change, and need no number. (A
//! program that does not know the column leaves it as it is, and moves the difference with each of its messages: what was
//! known is a miss then. So several versions can run on one database.)
//!
//! That holds for one history of the database. One that took changes back (a fail-over to a copy that lagged) may give
//! out a number for a second time. So the memory belongs to the connections of one [`Generation`], which see the same
//! history: what others have read is not kept, they are told nothing, and the next generation begins with nothing.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::{RwLock, RwLockReadGuard};
use quick_cache::{Weighter, sync::Cache};

use super::{
    groups,
    session::{Session, Value},
    users,
};
use crate::{ConversationId, GroupId, Parties, UserId, error::DbError, types::Group};

/// What an entry takes beside its texts, about.
const ENTRY_BYTES: u64 = 100;
/// The entries that the tables are laid out for before they grow.
const ENTRIES_EXPECTED: usize = 10_000;

/// Who belongs to a conversation.
#[derive(Clone, Debug)]
pub(crate) enum Membership {
    /// The two are friends.
    Friends,
    /// The two are not.
    Strangers,
    /// The group and its members.
    Group(Arc<KnownGroup>),
    /// The group was deleted.
    NoGroup,
}

/// A group in both forms in which it is asked for.
#[derive(Debug)]
pub(crate) struct KnownGroup {
    /// With all members, by id.
    pub(crate) group: Group,
    /// In the order they joined.
    pub(crate) members: Arc<[UserId]>,
}

impl KnownGroup {
    /// A group with all its members, who have joined at these sequences.
    pub(super) fn new(group: Group, joined: &[u64]) -> Self {
        let ids = group.members.iter().map(|member| member.id);
        let mut members: Vec<(u64, UserId)> = joined.iter().copied().zip(ids).collect();
        members.sort_unstable();
        Self {
            group,
            members: members.into_iter().map(|(_, id)| id).collect(),
        }
    }

    /// The group without its members.
    pub(super) fn head(&self) -> Group {
        Group {
            id: self.group.id,
            name: self.group.name.clone(),
            description: self.group.description.clone(),
            members: Vec::new(),
            more_members: true,
        }
    }
}

/// The conversations that are wanted, each with its membership sequence.
pub(crate) type Wanted = BTreeMap<ConversationId, u64>;

/// Connections that see one history of the database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Generation(u64);

impl Generation {
    /// Of connections whose history is not known to be anybody else's: they use no memory.
    pub(crate) const NONE: Self = Self(0);
    /// The first one.
    pub(crate) const FIRST: Self = Self(1);

    /// The one after this.
    pub(crate) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// The memory. From any thread.
pub(crate) struct Memberships {
    /// Whose it is. Locked while something is looked up or kept, so that nothing is kept that a generation before
    /// has read.
    generation: RwLock<Generation>,
    conversations: Cache<ConversationId, (u64, Membership), Bytes>,
    names: Cache<UserId, Arc<str>, Bytes>,
}

impl Memberships {
    /// One that holds about so many bytes; what was not used for the longest time goes first.
    pub(crate) fn new(bytes_max: usize) -> Self {
        let bytes_max = u64::try_from(bytes_max).unwrap_or(u64::MAX);
        Self {
            generation: RwLock::new(Generation::FIRST),
            conversations: Cache::with_weighter(ENTRIES_EXPECTED, bytes_max / 4 * 3, Bytes),
            names: Cache::with_weighter(ENTRIES_EXPECTED, bytes_max / 4, Bytes),
        }
    }

    /// Forgets everything: what comes is of another generation.
    pub(crate) fn begin(&self, generation: Generation) {
        let mut current = self.generation.write();
        *current = generation;
        self.conversations.clear();
        self.names.clear();
    }

    /// `None` for connections that it does not belong to.
    fn open_to(&self, generation: Generation) -> Option<RwLockReadGuard<'_, Generation>> {
        Some(self.generation.read()).filter(|current| **current == generation)
    }

    /// Who belongs to the conversations, from memory alone; `None` if not all are known.
    pub(super) fn known(
        &self,
        generation: Generation,
        wanted: &Wanted,
    ) -> Option<HashMap<ConversationId, Membership>> {
        let _open = self.open_to(generation)?;
        let known = wanted
            .iter()
            .map(|(&id, &as_of)| Some((id, self.find(id, as_of)?)));
        known.collect()
    }

    /// Who belongs to the conversations; what is not known is read. `s` must see the database as of these
    /// sequences: because the conversations are locked, or in a snapshot.
    pub(super) fn of(
        &self,
        s: &mut dyn Session,
        wanted: &Wanted,
    ) -> Result<HashMap<ConversationId, Membership>, DbError> {
        let mut found = HashMap::with_capacity(wanted.len());
        let (mut pairs, mut group_ids) = (Vec::new(), Vec::new());
        let open = self.open_to(s.generation());
        for (&id, &as_of) in wanted {
            let known = open.as_ref().and_then(|_| self.find(id, as_of));
            match (known, id.parties()) {
                (Some(membership), _) => {
                    found.insert(id, membership);
                }
                (None, Parties::Pair { .. }) => pairs.push(id),
                (None, Parties::Group(group)) => group_ids.push(group),
            }
        }
        drop(open);
        let mut read: HashMap<ConversationId, Membership> = friendships(s, &pairs)?;
        read.extend(all_groups(s, &group_ids)?);
        let open = self.open_to(s.generation());
        for (id, membership) in read {
            if let (Some(_), Some(&as_of)) = (&open, wanted.get(&id)) {
                self.conversations.insert(id, (as_of, membership.clone()));
            }
            found.insert(id, membership);
        }
        Ok(found)
    }

    /// Who belongs to a conversation, from memory alone.
    pub(super) fn known_one(
        &self,
        generation: Generation,
        id: ConversationId,
        as_of: u64,
    ) -> Option<Membership> {
        let _open = self.open_to(generation)?;
        self.find(id, as_of)
    }

    /// Keeps who belongs to a conversation, as a snapshot shows it that was read on connections of this generation.
    pub(super) fn keep(
        &self,
        generation: Generation,
        id: ConversationId,
        as_of: u64,
        membership: Membership,
    ) {
        if let Some(_open) = self.open_to(generation) {
            self.conversations.insert(id, (as_of, membership));
        }
    }

    fn find(&self, id: ConversationId, as_of: u64) -> Option<Membership> {
        let (known_as_of, membership) = self.conversations.get(&id)?;
        (known_as_of == as_of).then_some(membership)
    }

    /// The names of users, from memory alone; `None` if not all are known.
    pub(super) fn known_names(
        &self,
        generation: Generation,
        ids: impl IntoIterator<Item = UserId>,
    ) -> Option<HashMap<UserId, Arc<str>>> {
        let _open = self.open_to(generation)?;
        let known = ids.into_iter().map(|id| Some((id, self.names.get(&id)?)));
        known.collect()
    }

    /// The names of users; what is not known is read. Who does not exist is left out.
    pub(super) fn names(
        &self,
        s: &mut dyn Session,
        ids: impl IntoIterator<Item = UserId>,
    ) -> Result<HashMap<UserId, Arc<str>>, DbError> {
        let mut names = HashMap::new();
        let mut missing = Vec::new();
        let open = self.open_to(s.generation());
        for id in ids {
            match open.as_ref().and_then(|_| self.names.get(&id)) {
                Some(name) => {
                    names.insert(id, name);
                }
                None => missing.push(id),
            }
        }
        drop(open);
        if missing.is_empty() {
            return Ok(names);
        }
        missing.sort_unstable();
        missing.dedup();
        let read = users::names(s, &missing)?;
        let open = self.open_to(s.generation());
        for (id, name) in read {
            let name: Arc<str> = name.into();
            if open.is_some() {
                self.names.insert(id, Arc::clone(&name));
            }
            names.insert(id, name);
        }
        Ok(names)
    }
}

fn friendships(
    s: &mut dyn Session,
    pairs: &[ConversationId],
) -> Result<HashMap<ConversationId, Membership>, DbError> {
    let mut found: HashMap<_, _> = pairs
        .iter()
        .map(|pair| (*pair, Membership::Strangers))
        .collect();
    // Of the two rows of a friendship, that of the lower id.
    let keys: Vec<[Value<'_>; 2]> = pairs
        .iter()
        .filter_map(|pair| match pair.parties() {
            Parties::Pair { low, high } => Some([low.into(), high.into()]),
            Parties::Group(_) => None,
        })
        .collect();
    let rows = s.query_in(
        "SELECT user_id, friend_id FROM friendship WHERE (user_id, friend_id)",
        &keys,
        "",
    )?;
    for row in rows {
        if let Some(pair) = ConversationId::pair(row.user(0)?, row.user(1)?) {
            found.insert(pair, Membership::Friends);
        }
    }
    Ok(found)
}

fn all_groups(
    s: &mut dyn Session,
    ids: &[GroupId],
) -> Result<HashMap<ConversationId, Membership>, DbError> {
    let mut found: HashMap<_, _> = ids
        .iter()
        .map(|id| (ConversationId::group(*id), Membership::NoGroup))
        .collect();
    for known in groups::find_all(s, ids)? {
        let id = ConversationId::group(known.group.id);
        found.insert(id, Membership::Group(Arc::new(known)));
    }
    Ok(found)
}

/// Weighs entries by the memory that they take, about.
#[derive(Clone)]
struct Bytes;

impl Weighter<ConversationId, (u64, Membership)> for Bytes {
    fn weight(&self, _: &ConversationId, (_, membership): &(u64, Membership)) -> u64 {
        let texts = match membership {
            Membership::Friends | Membership::Strangers | Membership::NoGroup => 0,
            Membership::Group(known) => {
                let group = &known.group;
                let members = group.members.iter();
                let members: usize = members
                    .map(|member| size_of_val(member) + size_of::<UserId>() + member.name.len())
                    .sum();
                members + group.name.len() + group.description.len()
            }
        };
        ENTRY_BYTES + texts as u64
    }
}

impl Weighter<UserId, Arc<str>> for Bytes {
    fn weight(&self, _: &UserId, name: &Arc<str>) -> u64 {
        ENTRY_BYTES + name.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{Cell, Dialect, Executed, Row};

    /// A connection to a database in which users 1 and 2 are friends.
    struct Friends<'a> {
        generation: Generation,
        queries: usize,
        /// Comes between the reading and the keeping.
        meanwhile: &'a dyn Fn(),
    }

    impl Session for Friends<'_> {
        fn dialect(&self) -> Dialect {
            Dialect::Sqlite
        }

        fn generation(&self) -> Generation {
            self.generation
        }

        fn query(&mut self, sql: &str, _: &[Value<'_>]) -> Result<Vec<Row>, DbError> {
            self.queries += 1;
            (self.meanwhile)();
            let second = match sql.contains("friendship") {
                true => Cell::Int(2),
                false => Cell::Text("ann".into()),
            };
            Ok(vec![Row(vec![Cell::Int(1), second])])
        }

        fn execute(&mut self, _: &str, _: &[Value<'_>]) -> Result<Executed, DbError> {
            unreachable!()
        }
    }

    fn ids() -> (UserId, Wanted) {
        let (ann, bob) = (UserId::new(1).unwrap(), UserId::new(2).unwrap());
        let pair = ConversationId::pair(ann, bob).unwrap();
        (ann, Wanted::from([(pair, 7)]))
    }

    /// Asks for a membership and a name, and says in how many queries they were found.
    fn queries(memory: &Memberships, generation: Generation, meanwhile: &dyn Fn()) -> usize {
        let (ann, wanted) = ids();
        let mut session = Friends {
            generation,
            queries: 0,
            meanwhile,
        };
        let found = memory.of(&mut session, &wanted).unwrap();
        assert!(found.values().all(|one| matches!(one, Membership::Friends)));
        assert_eq!(&*memory.names(&mut session, [ann]).unwrap()[&ann], "ann");
        session.queries
    }

    fn is_known(memory: &Memberships, generation: Generation) -> bool {
        let (ann, wanted) = ids();
        let membership = memory.known(generation, &wanted).is_some();
        assert_eq!(membership, memory.known_names(generation, [ann]).is_some());
        membership
    }

    #[test]
    fn a_generation_is_told_what_it_has_read_and_no_other_is() {
        let memory = Memberships::new(1 << 20);
        let (first, second) = (Generation::FIRST, Generation::FIRST.next());
        assert_eq!(queries(&memory, first, &|| {}), 2);
        assert_eq!(queries(&memory, first, &|| {}), 0);
        assert!(is_known(&memory, first));
        for other in [Generation::NONE, second] {
            assert!(!is_known(&memory, other));
            assert_eq!(queries(&memory, other, &|| {}), 2);
        }
        memory.begin(second);
        assert!(!is_known(&memory, second));
        // Late.
        assert_eq!(queries(&memory, first, &|| {}), 2);
        assert!(!is_known(&memory, second));
    }

    #[test]
    fn what_was_read_before_the_next_generation_began_is_not_kept_after() {
        let memory = Memberships::new(1 << 20);
        let (first, second) = (Generation::FIRST, Generation::FIRST.next());
        assert_eq!(queries(&memory, first, &|| memory.begin(second)), 2);
        assert!(!is_known(&memory, second));
        assert_eq!(queries(&memory, second, &|| {}), 2);
    }
}
