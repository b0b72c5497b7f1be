//! Which sessions of this proxy may get what is pushed to a user.
//!
//! A user has one session, except for a moment: between a newer login and the word that the older
//! session has ended, and while logins are under way, both get what is pushed.

use std::collections::HashMap;
use std::sync::Arc;

use chat_bus::{HeldSession, LoginNumber, NO_NUMBER};
use nexus_net::Mailbox;
use parking_lot::RwLock;

use crate::session::ToSession;

/// One login on one connection. Never used twice, not even for two logins on the same connection, so
/// that a late word about an earlier login cannot be taken for one about a later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SessionId(pub(crate) u64);

pub(crate) type SessionMailbox = Arc<Mailbox<ToSession>>;

/// The sessions of this proxy, by user. From any thread.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    users: RwLock<HashMap<i32, Vec<Entry>>>,
}

#[derive(Debug)]
struct Entry {
    session: SessionId,
    stage: Stage,
    /// Not known while the login is under way.
    login: LoginNumber,
    mailbox: SessionMailbox,
}

impl Entry {
    fn held_by(&self, user: i32) -> HeldSession {
        HeldSession {
            user,
            session: self.session.0,
            login: self.login,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    LoggingIn,
    LoggedIn,
}

impl Directory {
    /// From here on `user`'s pushes go to this session too, whose login is under way.
    pub(crate) fn insert(&self, user: i32, session: SessionId, mailbox: &SessionMailbox) {
        let entry = Entry {
            session,
            stage: Stage::LoggingIn,
            login: NO_NUMBER,
            mailbox: Arc::clone(mailbox),
        };
        self.users.write().entry(user).or_default().push(entry);
    }

    /// The login succeeded.
    pub(crate) fn confirm(&self, user: i32, session: SessionId, login: LoginNumber) {
        let mut users = self.users.write();
        let entries = users.get_mut(&user).into_iter().flatten();
        for entry in entries.filter(|entry| entry.session == session) {
            entry.stage = Stage::LoggedIn;
            entry.login = login;
        }
    }

    /// The session gets nothing any more.
    pub(crate) fn remove(&self, user: i32, session: SessionId) {
        let mut users = self.users.write();
        if let Some(entries) = users.get_mut(&user) {
            entries.retain(|entry| entry.session != session);
            if entries.is_empty() {
                users.remove(&user);
            }
        }
    }

    /// Appends the sessions that get what is pushed to these users.
    pub(crate) fn find(&self, users: &[i32], found: &mut Vec<(SessionId, SessionMailbox)>) {
        let known = self.users.read();
        let entries = users.iter().filter_map(|user| known.get(user)).flatten();
        found.extend(entries.map(|entry| (entry.session, Arc::clone(&entry.mailbox))));
    }

    /// The mailbox of one session, if it is (still) that of `user`.
    pub(crate) fn session(&self, user: i32, session: SessionId) -> Option<SessionMailbox> {
        Some(self.held(user, session)?.1)
    }

    /// As [`session`](Self::session), and the session as the bus is to know it.
    pub(crate) fn held(
        &self,
        user: i32,
        session: SessionId,
    ) -> Option<(HeldSession, SessionMailbox)> {
        let users = self.users.read();
        let mut entries = users.get(&user)?.iter();
        let entry = entries.find(|entry| entry.session == session)?;
        Some((entry.held_by(user), Arc::clone(&entry.mailbox)))
    }

    /// All sessions that are logged in.
    pub(crate) fn logged_in(&self) -> Vec<(HeldSession, SessionMailbox)> {
        let users = self.users.read();
        let entries = users
            .iter()
            .flat_map(|(&user, entries)| entries.iter().map(move |entry| (user, entry)));
        entries
            .filter(|(_, entry)| entry.stage == Stage::LoggedIn)
            .map(|(user, entry)| (entry.held_by(user), Arc::clone(&entry.mailbox)))
            .collect()
    }

    /// How many sessions are logged in.
    pub(crate) fn len(&self) -> usize {
        let users = self.users.read();
        let entries = users.values().flatten();
        entries
            .filter(|entry| entry.stage == Stage::LoggedIn)
            .count()
    }
}
