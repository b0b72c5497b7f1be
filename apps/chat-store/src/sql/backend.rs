//! What a database has to offer, and the store that every such database thereby is.

use std::{
    collections::HashMap,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::{
    append::{self, Duplicates},
    conversations::{self, Standing},
    friends,
    groups::{self, JoinLimits},
    lists::{self, Lists, Misses, NotKnown},
    memberships::Memberships,
    on_terms::OnTerms,
    pending,
    session::Session,
    tokens, users,
};
use crate::{
    ConversationId, GroupId, UserId,
    error::{DbError, StoreError},
    store::Store,
    terms::Terms,
    types::*,
};

/// A database that can run pieces of work. A piece may be run several times, but has an effect at
/// most once; it must change nothing outside the database that a second run could not meet.
pub(crate) trait Backend: Send + Sync {
    /// The store without any [`Terms`].
    type Plain: Backend<Plain = Self::Plain>;

    /// See [`Plain`](Self::Plain).
    fn plain(&self) -> &Self::Plain;

    /// Applies the [migrations](super::migrations) that are missing, alone among all servers.
    fn bring_up_to_date(&self) -> Result<(), StoreError>;

    /// Who belongs to which conversation, as far as it is known.
    fn memberships(&self) -> &Memberships;

    /// See [`Store::is_away`].
    fn is_away(&self) -> bool {
        false
    }

    /// See [`Store::on_away`].
    fn on_away(&self, act: Box<dyn Fn() + Send + Sync>) {
        drop(act);
    }

    /// Runs statements that read, each on a state of the database of its own.
    fn read<T>(
        &self,
        work: impl FnMut(&mut dyn Session) -> Result<T, DbError>,
    ) -> Result<T, StoreError>;

    /// Runs statements that read, all of them on the same state of the database.
    fn snapshot<T>(
        &self,
        work: impl FnMut(&mut dyn Session) -> Result<T, DbError>,
    ) -> Result<T, StoreError>;

    /// Runs a transaction, durable once this returns; on an error nothing of it has happened, save
    /// that after [`StoreError::Uncertain`] it may have.
    fn write<T>(
        &self,
        work: impl FnMut(&mut dyn Session) -> Result<T, DbError>,
    ) -> Result<T, StoreError>;

    /// As [`write`](Self::write), for a few callers who do the work of many and wait for nobody's.
    fn write_batch<T>(
        &self,
        work: impl FnMut(&mut dyn Session) -> Result<T, DbError>,
    ) -> Result<T, StoreError> {
        self.write(work)
    }
}

/// Counts the attempts of one operation and says whether there may be another.
pub(crate) struct Retry {
    started: Instant,
    time_max: Duration,
    conflicts: u32,
    lost: bool,
}

impl Retry {
    /// A key that is still taken then was not taken just now.
    const KEY_TAKEN_MAX: u32 = 8;
    const PAUSE_MAX: Duration = Duration::from_millis(64);

    /// For an operation that starts now and is not tried again once `time_max` has passed.
    pub(crate) fn new(time_max: Duration) -> Self {
        Self {
            started: Instant::now(),
            time_max,
            conflicts: 0,
            lost: false,
        }
    }

    /// Returns when the next attempt may start, or the error if there shall be none.
    pub(crate) fn after(&mut self, error: DbError) -> Result<(), StoreError> {
        let in_time = self.started.elapsed() < self.time_max;
        match error {
            // Once: a second connection that breaks at once is no accident of a restart.
            DbError::Lost(_) if in_time && !self.lost => self.lost = true,
            // Each time there is less to do.
            DbError::Shrunk => {}
            DbError::KeyTaken(_) if in_time && self.conflicts < Self::KEY_TAKEN_MAX => self.pause(),
            // Busy conversations meet several in a row on two nodes of Galera.
            DbError::Conflict(_) | DbError::Interrupted(_) if in_time => self.pause(),
            error => return Err(error.into()),
        }
        Ok(())
    }

    fn pause(&mut self) {
        let pause = Duration::from_millis(2_u64.saturating_pow(self.conflicts));
        std::thread::sleep(pause.min(Self::PAUSE_MAX));
        self.conflicts = self.conflicts.saturating_add(1);
    }
}

impl<B: Backend> Store for B {
    fn on(&self, terms: Terms) -> Box<dyn Store + '_> {
        let store = self.plain();
        Box::new(OnTerms { store, terms })
    }

    fn prepare_schema(&self) -> Result<(), StoreError> {
        self.bring_up_to_date()
    }

    fn is_away(&self) -> bool {
        Backend::is_away(self)
    }

    fn on_away(&self, act: Box<dyn Fn() + Send + Sync>) {
        Backend::on_away(self, act);
    }

    fn create_user(&self, name: &str, password_hash: &str) -> Result<CreateUser, StoreError> {
        within("user name", name, NAME_BYTES_MAX)?;
        within("password hash", password_hash, PASSWORD_HASH_BYTES_MAX)?;
        self.write(|s| users::create(s, name, password_hash))
    }

    fn user(&self, id: UserId) -> Result<Option<User>, StoreError> {
        self.read(|s| users::find(s, id))
    }

    fn user_named(&self, name: &str) -> Result<Option<UserId>, StoreError> {
        self.read(|s| users::named(s, name))
    }

    fn names(&self, ids: &[UserId]) -> Result<HashMap<UserId, String>, StoreError> {
        self.read(|s| users::names(s, ids))
    }

    fn set_last_offline(&self, id: UserId, at_ms: i64) -> Result<(), StoreError> {
        self.write(|s| users::set_last_offline(s, id, at_ms))
    }

    fn begin_login(&self, user: UserId, token: Option<&SessionToken>) -> Result<u64, StoreError> {
        self.write(|s| {
            let login = users::next_login(s, user, 0)?;
            tokens::replace(s, user, token)?;
            Ok(login)
        })
    }

    fn renew_login(&self, user: UserId, beyond: u64) -> Result<u64, StoreError> {
        self.write(|s| users::next_login(s, user, beyond))
    }

    fn withdraw_login(&self, user: UserId, number: u64) -> Result<(), StoreError> {
        self.write(|s| users::withdraw_login(s, user, number))
    }

    fn token_owner(
        &self,
        user: UserId,
        token: &TokenHash,
        now_ms: i64,
    ) -> Result<Option<TokenOwner>, StoreError> {
        self.read(|s| tokens::owner(s, user, token, now_ms))
    }

    fn extend_token(
        &self,
        user: UserId,
        token: &TokenHash,
        expires_at_ms: i64,
    ) -> Result<(), StoreError> {
        self.write(|s| tokens::extend(s, user, token, expires_at_ms))
    }

    fn end_token(&self, user: UserId, token: &TokenHash) -> Result<(), StoreError> {
        self.write(|s| tokens::end(s, user, token))
    }

    fn delete_expired_tokens(&self, now_ms: i64, count_max: usize) -> Result<usize, StoreError> {
        self.write(|s| tokens::delete_expired(s, now_ms, count_max))
    }

    fn friends_page(
        &self,
        user: UserId,
        after: Option<UserId>,
        bytes_max: usize,
    ) -> Result<Page<Friend>, StoreError> {
        page(self, |s, misses| {
            lists::friends_page(self.memberships(), s, misses, user, after, bytes_max)
        })
    }

    fn add_friend(
        &self,
        user: UserId,
        friend: UserId,
        friends_max: usize,
    ) -> Result<AddFriend, StoreError> {
        self.write(|s| friends::add(s, user, friend, friends_max, now_ms()))
    }

    fn delete_friend(&self, user: UserId, friend: UserId) -> Result<DeleteFriend, StoreError> {
        self.write(|s| friends::delete(s, user, friend, now_ms()))
    }

    fn create_group(
        &self,
        creator: UserId,
        name: &str,
        description: &str,
        groups_max: usize,
    ) -> Result<CreateGroup, StoreError> {
        within("group name", name, NAME_BYTES_MAX)?;
        within("group description", description, DESCRIPTION_BYTES_MAX)?;
        self.write(|s| groups::create(s, creator, name, description, groups_max))
    }

    fn join_group(
        &self,
        user: UserId,
        group: GroupId,
        members_max: usize,
        groups_max: usize,
    ) -> Result<JoinGroup, StoreError> {
        let limits = JoinLimits {
            members_max,
            groups_max,
        };
        self.write(|s| groups::join(s, user, group, limits, now_ms()))
    }

    fn leave_group(&self, user: UserId, group: GroupId) -> Result<LeaveGroup, StoreError> {
        self.write(|s| groups::leave(s, user, group, now_ms()))
    }

    fn delete_group(&self, user: UserId, group: GroupId) -> Result<DeleteGroup, StoreError> {
        self.write(|s| groups::delete(s, user, group, now_ms()))
    }

    fn groups_page(
        &self,
        user: UserId,
        after: Option<GroupId>,
        bytes_max: usize,
    ) -> Result<Page<Group>, StoreError> {
        page(self, |s, misses| {
            lists::groups_page(self.memberships(), s, misses, user, after, bytes_max)
        })
    }

    fn members_page(
        &self,
        group: GroupId,
        after: Option<UserId>,
        bytes_max: usize,
    ) -> Result<Page<Member>, StoreError> {
        self.read(|s| lists::members(s, group, after, bytes_max))
    }

    fn group_members_of(
        &self,
        groups: &[GroupId],
    ) -> Result<HashMap<GroupId, Vec<UserId>>, StoreError> {
        self.read(|s| groups::members_of(s, groups))
    }

    fn conversations(&self, user: UserId) -> Result<Vec<ConversationState>, StoreError> {
        let standings = self.read(|s| conversations::standings(s, user))?;
        Ok(standings.iter().map(Standing::state).collect())
    }

    fn conversation(
        &self,
        user: UserId,
        conversation: ConversationId,
    ) -> Result<Option<ConversationState>, StoreError> {
        let standing = self.read(|s| conversations::standing_in(s, user, conversation))?;
        Ok(standing.as_ref().map(Standing::state))
    }

    fn pending(
        &self,
        user: UserId,
        after: &[Mark],
        scope: PendingScope,
        limit: PageLimit,
    ) -> Result<PendingPage, StoreError> {
        self.snapshot(|s| Ok(pending::pending(s, user, after, scope, limit)?.0))
    }

    fn overview(
        &self,
        user: UserId,
        after: &[Mark],
        limit: PageLimit,
        lists_bytes_max: usize,
    ) -> Result<Overview, StoreError> {
        self.snapshot(|s| {
            let (pending, standings) = pending::pending(s, user, after, PendingScope::All, limit)?;
            let lists = Lists::new(self.memberships(), user, lists_bytes_max);
            let (friends, groups) = lists.of_all(s, &standings)?;
            Ok(Overview {
                pending,
                friends,
                groups,
            })
        })
    }

    fn history_page(
        &self,
        conversation: ConversationId,
        first_sequence: u64,
        limit: PageLimit,
    ) -> Result<Vec<StoredMessage>, StoreError> {
        // Messages do not change, so several statements show the same as one.
        self.read(|s| pending::history(s, conversation, first_sequence, limit))
    }

    fn append(&self, batch: &[NewMessage], acks: &[Ack]) -> Result<Vec<AppendOutcome>, StoreError> {
        let mut duplicates = Duplicates::LeaveToKey;
        self.write_batch(|s| {
            let done = append::append(s, self.memberships(), batch, acks, now_ms(), duplicates);
            duplicates = Duplicates::LookFor;
            done
        })
    }
}

/// A page of a list: from the memory if all is known, else once more in a snapshot.
fn page<B: Backend, T>(
    store: &B,
    mut read: impl FnMut(&mut dyn Session, Misses) -> Result<Result<T, NotKnown>, DbError>,
) -> Result<T, StoreError> {
    if let Ok(known) = store.read(|s| read(s, Misses::EndIt))? {
        return Ok(known);
    }
    let page = store.snapshot(|s| read(s, Misses::AreRead))?;
    page.map_err(|NotKnown| StoreError::Internal("what was read is not known".into()))
}

fn within(field: &'static str, text: &str, bytes_max: usize) -> Result<(), StoreError> {
    if text.len() > bytes_max {
        return Err(StoreError::TooLong { field, bytes_max });
    }
    Ok(())
}

/// UTC, milliseconds since 1970; a clock that is set before that reads as 0.
pub(crate) fn now_ms() -> i64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}
