//! What is wanted in ZooKeeper, one piece at a time, and how a session makes it so.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use super::Tree;
use super::session::{OperationError, Session};
use crate::registry::observer::Observer;
use crate::registry::{MethodInfo, Provider, RegistrationStatus};

/// Attempts at a node that somebody else creates or deletes meanwhile.
const CONTENTION_MAX: usize = 3;

/// A node that should be there.
pub(super) struct Wanted {
    pub(super) id: u64,
    pub(super) service: String,
    pub(super) methods: Vec<MethodInfo>,
    pub(super) content: Vec<u8>,
    pub(super) status: RegistrationStatus,
    /// The session that owned the node when it was last looked at; `None` if it never was there.
    pub(super) owner: Option<i64>,
    /// When to look next whether it is there.
    pub(super) due: Instant,
    /// Whether the present session has created it.
    pub(super) created: bool,
}

impl Wanted {
    /// Sees to it that the node is there and belongs to this session. A node of the same name that
    /// was there before is an earlier session's, ours or that of a process that had this address
    /// before: it is replaced, as it would vanish when that session expires.
    pub(super) fn establish(
        &mut self,
        session: &Session,
        path: &str,
        tree: &Tree,
    ) -> Result<(), OperationError> {
        if self.created {
            match session.exists(path)? {
                Some(node) if Some(node.owner) == self.owner => return Ok(()),
                Some(_) => log::warn!("{path} was taken by another process; registering again"),
                None => log::warn!("{path} vanished; registering again"),
            }
            self.created = false;
        }
        session.create_path(&tree.providers(&self.service))?;
        let mut attempts = 0;
        while !session.create_ephemeral(path, &self.content)? {
            attempts += 1;
            if attempts > CONTENTION_MAX {
                return Err(OperationError::Lost(format!("{path} is created by others")));
            }
            session.delete(path)?;
        }
        // Learns the owner, and leaves a watch by which a loss is noticed at once.
        self.owner = session.exists(path)?.map(|node| node.owner);
        self.created = true;
        log::info!("registered {path}");
        self.status.registered();
        self.publish_methods(session, tree)
    }

    fn publish_methods(&self, session: &Session, tree: &Tree) -> Result<(), OperationError> {
        if self.methods.is_empty() {
            return Ok(());
        }
        let parent = tree.methods(&self.service);
        session.create_path(&parent)?;
        for method in &self.methods {
            session.put(&format!("{parent}/{}", method.name), &method.to_node())?;
        }
        Ok(())
    }
}

/// A node that should no longer be there.
pub(super) struct Removal {
    pub(super) path: String,
    pub(super) owner: i64,
    pub(super) status: RegistrationStatus,
}

impl Removal {
    /// Deletes the node if it is still the one that was registered, and not another process's.
    pub(super) fn carry_out(&self, session: &Session) -> Result<(), OperationError> {
        match session.exists(&self.path)? {
            Some(node) if node.owner == self.owner => session.delete(&self.path),
            _ => Ok(()),
        }
    }
}

/// The names of the services, when somebody watches them.
pub(super) struct WatchedNames {
    pub(super) observers: Vec<(u64, Arc<Observer<String>>)>,
    /// The names that were read last. Their nodes are persistent: no loss of a session takes any away.
    pub(super) known: Option<Vec<String>>,
    /// When to read them next.
    pub(super) due: Instant,
}

impl WatchedNames {
    /// Reads the names, leaves a watch for their next change, and tells.
    pub(super) fn refresh(&mut self, session: &Session, path: &str) -> Result<(), OperationError> {
        let names = names_below(session, path)?;
        for (_, observer) in &self.observers {
            observer.note_names(names.iter().cloned());
        }
        self.known = Some(names);
        for (_, observer) in &self.observers {
            observer.tell();
        }
        Ok(())
    }
}

/// The names below a node, none if it is not there. Leaves a watch in either case.
fn names_below(session: &Session, path: &str) -> Result<Vec<String>, OperationError> {
    let mut names = session.children(path)?;
    // A node that is not there is watched by asking whether it is; it may appear in between.
    if names.is_none() && session.exists(path)?.is_some() {
        names = session.children(path)?;
    }
    Ok(names.unwrap_or_default())
}

/// A list that somebody watches.
pub(super) struct Watched {
    pub(super) observers: Vec<(u64, Arc<Observer<Provider>>)>,
    /// The last list that was believed.
    pub(super) known: Option<Vec<Provider>>,
    /// Whether the present session has shown `known`; otherwise it is from before a reconnect.
    pub(super) confirmed: bool,
    /// When to read it next.
    pub(super) due: Instant,
    /// Nodes that hold no provider and were complained about.
    pub(super) complained: BTreeSet<String>,
}

impl Watched {
    /// Reads the list, leaves a watch for its next change, and tells what is new. Until `doubtful_until`
    /// a list that has become empty over a reconnect is not believed.
    pub(super) fn refresh(
        &mut self,
        session: &Session,
        path: &str,
        doubtful_until: Instant,
    ) -> Result<(), OperationError> {
        let providers = self.fetch(session, path)?;
        if providers.is_empty() && self.remembers_some() && Instant::now() < doubtful_until {
            log::info!("{path} is empty right after a reconnect: not believed yet");
            self.due = self.due.min(doubtful_until);
            return Ok(());
        }
        for (_, observer) in &self.observers {
            observer.note(providers.iter().cloned());
        }
        self.known = Some(providers);
        self.confirmed = true;
        for (_, observer) in &self.observers {
            observer.tell();
        }
        Ok(())
    }

    /// Whether providers are known, but only from an earlier session.
    fn remembers_some(&self) -> bool {
        !self.confirmed && self.known.as_ref().is_some_and(|known| !known.is_empty())
    }

    fn fetch(&mut self, session: &Session, path: &str) -> Result<Vec<Provider>, OperationError> {
        let names = names_below(session, path)?;
        self.complained.retain(|name| names.contains(name));
        let mut providers = Vec::with_capacity(names.len());
        for name in names {
            // It may have gone since the names were read.
            let Some(content) = session.content(&format!("{path}/{name}"))? else {
                continue;
            };
            match Provider::from_node(&content) {
                Ok(provider) => providers.push(provider),
                Err(error) => {
                    if self.complained.insert(name.clone()) {
                        log::warn!("{path}/{name} is skipped: {error}");
                    }
                }
            }
        }
        Ok(providers)
    }
}
