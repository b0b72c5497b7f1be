//! The one trait behind which the databases stand.

use std::collections::HashMap;

use crate::{ConversationId, GroupId, UserId, error::StoreError, terms::Terms, types::*};

/// Users, friendships, groups and the messages of their conversations.
///
/// Every operation blocks until the database has answered or timed out, is one transaction, and is
/// durable when it returns; call it from a worker thread, from as many as there are. Whoever may
/// call an operation for whom is the caller's business.
///
/// A change that others have to learn of (a friend added, a group left) is itself a message of the
/// conversation concerned, written in the same transaction, so whoever is offline finds it among
/// the pending.
///
/// # Errors
///
/// Every operation fails with [`StoreError::Unavailable`] while the database is away, with
/// [`StoreError::Conflict`] when retrying did not get it past others' changes, and with
/// [`StoreError::Internal`] if the database holds what it never should. One that changes something fails with
/// [`StoreError::Uncertain`] if the answer to its commit was lost.
pub trait Store: Send + Sync {
    /// This store, whose changes are made on these terms: the operations that change something fail with
    /// [`StoreError::TooLate`] and [`StoreError::Displaced`] too. ([`append`](Self::append) has the terms of each message.)
    fn on(&self, terms: Terms) -> Box<dyn Store + '_>;

    /// Brings the schema up to date; succeeds once the database is ready for use. Several servers may
    /// call it at once: one of them makes the changes, which may take as long as the data is large.
    ///
    /// # Errors
    /// [`StoreError::NewerSchema`] besides those of all operations, and
    /// [`StoreError::Unavailable`] while another server makes changes.
    fn prepare_schema(&self) -> Result<(), StoreError>;

    /// Whether operations are refused at the moment because the database does not answer. Never
    /// blocks; any thread. A database in the process never is away.
    fn is_away(&self) -> bool {
        false
    }

    /// Calls `act` each time when [`is_away`](Self::is_away) turns true, on a thread of the store.
    fn on_away(&self, act: Box<dyn Fn() + Send + Sync>) {
        drop(act);
    }

    /// Registers a user. The store keeps `password_hash` as it is.
    ///
    /// # Errors
    /// [`StoreError::TooLong`] besides those of all operations.
    fn create_user(&self, name: &str, password_hash: &str) -> Result<CreateUser, StoreError>;

    /// A user by id.
    fn user(&self, id: UserId) -> Result<Option<User>, StoreError>;

    /// The id of the user of this name. Names are compared byte by byte.
    fn user_named(&self, name: &str) -> Result<Option<UserId>, StoreError>;

    /// The names of those of `ids` that exist.
    fn names(&self, ids: &[UserId]) -> Result<HashMap<UserId, String>, StoreError>;

    /// Notes when a user went offline (UTC, milliseconds since 1970).
    fn set_last_offline(&self, id: UserId, at_ms: i64) -> Result<(), StoreError>;

    /// Begins a login of `user`, which has the number that is returned, and makes `token` the one that its session can
    /// be resumed with, or none. The one before is no longer valid.
    fn begin_login(&self, user: UserId, token: Option<&SessionToken>) -> Result<u64, StoreError>;

    /// Gives the number of a new login, higher than `beyond`, to the user's session that is resumed.
    fn renew_login(&self, user: UserId, beyond: u64) -> Result<u64, StoreError>;

    /// Takes a number back that no session has got, if it is the latest.
    fn withdraw_login(&self, user: UserId, number: u64) -> Result<(), StoreError>;

    /// The user, if `token` is that user's and has not expired at `now_ms`.
    fn token_owner(
        &self,
        user: UserId,
        token: &TokenHash,
        now_ms: i64,
    ) -> Result<Option<TokenOwner>, StoreError>;

    /// Lets a token expire at another time. Does nothing if it is no longer that user's.
    fn extend_token(
        &self,
        user: UserId,
        token: &TokenHash,
        expires_at_ms: i64,
    ) -> Result<(), StoreError>;

    /// Ends a token, if it is (still) that user's.
    fn end_token(&self, user: UserId, token: &TokenHash) -> Result<(), StoreError>;

    /// Deletes at most so many tokens that have expired at `now_ms`; returns how many.
    fn delete_expired_tokens(&self, now_ms: i64, count_max: usize) -> Result<usize, StoreError>;

    /// A user's friends with higher ids than `after`: as many as take `bytes_max` by [`Friend::bytes`], but one always
    /// fits.
    fn friends_page(
        &self,
        user: UserId,
        after: Option<UserId>,
        bytes_max: usize,
    ) -> Result<Page<Friend>, StoreError>;

    /// All friends of a user, by id.
    fn friends(&self, user: UserId) -> Result<Vec<Friend>, StoreError> {
        Ok(self.friends_page(user, None, usize::MAX)?.items)
    }

    /// Makes two users friends, unless one of them has `friends_max` of them. Their conversation goes on
    /// where it stood if they were before.
    fn add_friend(
        &self,
        user: UserId,
        friend: UserId,
        friends_max: usize,
    ) -> Result<AddFriend, StoreError>;

    /// Ends a friendship. What was pending stays pending.
    fn delete_friend(&self, user: UserId, friend: UserId) -> Result<DeleteFriend, StoreError>;

    /// Creates a group with its creator as admin and only member, unless the creator is in `groups_max`
    /// groups. The creator must exist.
    ///
    /// # Errors
    /// [`StoreError::TooLong`] besides those of all operations.
    fn create_group(
        &self,
        creator: UserId,
        name: &str,
        description: &str,
        groups_max: usize,
    ) -> Result<CreateGroup, StoreError>;

    /// Makes a user a member, unless the group has `members_max` of them or the user is in `groups_max`
    /// groups. What was written before is not pending for the new member.
    fn join_group(
        &self,
        user: UserId,
        group: GroupId,
        members_max: usize,
        groups_max: usize,
    ) -> Result<JoinGroup, StoreError>;

    /// Takes a user out of a group, with what was pending there. An admin who leaves hands the role
    /// to the longest-standing member; when the last member leaves, the group is deleted.
    fn leave_group(&self, user: UserId, group: GroupId) -> Result<LeaveGroup, StoreError>;

    /// Deletes a group; only its admin may. What was pending for the others stays pending.
    fn delete_group(&self, user: UserId, group: GroupId) -> Result<DeleteGroup, StoreError>;

    /// The groups that a user is a member of, with higher ids than `after`: as many as take half of `bytes_max` by
    /// [`Group::bytes`], but one always fits. The rest of `bytes_max` is shared out evenly among their members, and what
    /// small groups leave over among those of large groups.
    fn groups_page(
        &self,
        user: UserId,
        after: Option<GroupId>,
        bytes_max: usize,
    ) -> Result<Page<Group>, StoreError>;

    /// All groups that a user is a member of, by id, each with all its members.
    fn groups(&self, user: UserId) -> Result<Vec<Group>, StoreError> {
        Ok(self.groups_page(user, None, usize::MAX)?.items)
    }

    /// The members of a group with higher ids than `after`: as many as take `bytes_max` by [`Member::bytes`], but one
    /// always fits. None if the group is not there.
    fn members_page(
        &self,
        group: GroupId,
        after: Option<UserId>,
        bytes_max: usize,
    ) -> Result<Page<Member>, StoreError>;

    /// The members of several groups, in the order they joined; a group that is not there is not
    /// in the answer.
    fn group_members_of(
        &self,
        groups: &[GroupId],
    ) -> Result<HashMap<GroupId, Vec<UserId>>, StoreError>;

    /// The members of one group, in the order they joined; none if it is not there.
    fn group_members(&self, group: GroupId) -> Result<Vec<UserId>, StoreError> {
        Ok(self
            .group_members_of(&[group])?
            .remove(&group)
            .unwrap_or_default())
    }

    /// Where a user stands in each of the user's conversations, by id. Also those of friends and
    /// groups that were deleted: what is pending there still has to arrive.
    fn conversations(&self, user: UserId) -> Result<Vec<ConversationState>, StoreError>;

    /// Where a user stands in a conversation; `None` for a user who may not read it. Those may who are or were friends, and
    /// members of a group that is or was there. Who left a group may not.
    fn conversation(
        &self,
        user: UserId,
        conversation: ConversationId,
    ) -> Result<Option<ConversationState>, StoreError>;

    /// Whether a user may read a conversation.
    fn is_participant(
        &self,
        user: UserId,
        conversation: ConversationId,
    ) -> Result<bool, StoreError> {
        Ok(self.conversation(user, conversation)?.is_some())
    }

    /// The messages of others that `user` does not have: after the marks in the conversations that
    /// are named, and with [`PendingScope::All`] also after the acknowledgements in all others.
    /// Conversations that the user has no part in are left out.
    ///
    /// A mark counts, not the acknowledgement: who names an older place gets those messages again.
    fn pending(
        &self,
        user: UserId,
        after: &[Mark],
        scope: PendingScope,
        limit: PageLimit,
    ) -> Result<PendingPage, StoreError>;

    /// What a login needs: everything pending but what the marks say is there, friends and groups. Both lists together take
    /// `lists_bytes_max` at most, beside one group and one friend that always fit: first the groups, up to half of it,
    /// then the friends, and then the members as in [`groups_page`](Self::groups_page).
    fn overview(
        &self,
        user: UserId,
        after: &[Mark],
        limit: PageLimit,
        lists_bytes_max: usize,
    ) -> Result<Overview, StoreError>;

    /// Everything pending, with a mark for every conversation.
    fn pending_all(&self, user: UserId, limit: PageLimit) -> Result<PendingPage, StoreError> {
        self.pending(user, &[], PendingScope::All, limit)
    }

    /// Messages of all sides, from `first_sequence` on, ascending: as many as the limit allows.
    fn history_page(
        &self,
        conversation: ConversationId,
        first_sequence: u64,
        limit: PageLimit,
    ) -> Result<Vec<StoredMessage>, StoreError>;

    /// At most `messages_max` messages of all sides, whatever their size, from `first_sequence` on, ascending.
    fn history(
        &self,
        conversation: ConversationId,
        first_sequence: u64,
        messages_max: usize,
    ) -> Result<Vec<StoredMessage>, StoreError> {
        let limit = PageLimit {
            messages_max,
            bytes_max: usize::MAX,
        };
        self.history_page(conversation, first_sequence, limit)
    }

    /// Stores a batch of messages and acknowledgements in one transaction and says what became of
    /// each message, in the batch's order; messages of one conversation get their sequences in that
    /// order. A message that is refused fails none of the others.
    ///
    /// Acknowledgements are cumulative: one that is older than what is stored changes nothing, one
    /// beyond the newest message counts up to it, one for a conversation that the user has no part
    /// in is ignored.
    ///
    /// On an error no message of the batch can be taken as stored. Those with a client message id
    /// may simply be sent again.
    fn append(&self, batch: &[NewMessage], acks: &[Ack]) -> Result<Vec<AppendOutcome>, StoreError>;
}
