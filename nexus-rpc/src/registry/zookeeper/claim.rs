//! A provider's node: how a session makes it, keeps it, and gives it up.
//!
//! The node is ephemeral: it belongs to a session. A node of another session is either left over from a
//! crashed process, or belongs to a live process that advertises the same address by mistake. ZooKeeper cannot
//! tell the two cases apart, so a claim finds out:
//!
//! | standing | finds another session's node | finds no node |
//! |---|---|---|
//! | newcomer | takes its place, once | creates it, holds it |
//! | holder | takes its place | creates it again |
//! | holder that took another's place a moment ago | waits | waits |
//! | waiting | leaves it, looks again with growing pauses | creates it, holds it |
//!
//! A dead session does not answer, so a restarted process is registered at once. A live rival takes its node
//! back at once, and the newcomer waits from then on. The rival keeps the address, after four writes.

use std::time::{Duration, Instant};

use super::Tree;
use super::refusal::Trouble;
use super::session::{Created, OperationError, Session};
use crate::registry::{MethodInfo, RegistrationStatus};

/// Attempts at a node that others create or delete meanwhile.
const CONTENTION_MAX: usize = 3;

/// A node that is lost so soon after the claim took another session's place has a live rival. A rival
/// notices at once by its watch, or after `reread_interval` at the latest.
const RIVAL_ANSWERS_WITHIN: Duration = Duration::from_secs(30);

/// A node that should be there.
pub(super) struct Claim {
    pub(super) id: u64,
    pub(super) status: RegistrationStatus,
    /// When to look next whether it is there.
    pub(super) due: Instant,
    service: String,
    methods: Vec<MethodInfo>,
    content: Vec<u8>,
    /// The session that last created the node; `None` if none has.
    owner: Option<i64>,
    /// Whether the present session has created it.
    created: bool,
    standing: Standing,
    trouble: Trouble,
    publication: Publication,
}

/// Whether the claim may take the place of another session's node.
#[derive(Debug, Clone, Copy)]
enum Standing {
    Newcomer,
    Holder {
        /// When it last took a place.
        took_place_at: Option<Instant>,
    },
    Waiting,
}

/// The nodes of the methods, which are for people and tools: a provider is registered without them.
#[derive(Debug)]
enum Publication {
    Done,
    Due { at: Instant, trouble: Trouble },
}

impl Claim {
    pub(super) fn new(
        id: u64,
        service: String,
        methods: Vec<MethodInfo>,
        content: Vec<u8>,
        status: RegistrationStatus,
        now: Instant,
    ) -> Self {
        Self {
            id,
            status,
            due: now,
            service,
            methods,
            content,
            owner: None,
            created: false,
            standing: Standing::Newcomer,
            trouble: Trouble::default(),
            publication: Publication::due(now),
        }
    }

    /// The session is over, and whether the node is there is not known.
    pub(super) fn session_lost(&mut self) {
        self.created = false;
        self.status.pending();
    }

    /// Sees to it that the node is there and belongs to this session, or says why not and tries again with
    /// growing pauses. True when it was created just now.
    ///
    /// # Errors
    /// When the session is lost.
    pub(super) fn keep(
        &mut self,
        session: &Session,
        path: &str,
        tree: &Tree,
        interval: Duration,
    ) -> Result<bool, OperationError> {
        let now = Instant::now();
        self.due = now + interval;
        let why_not = match self.establish(session, path, tree) {
            Ok(Kept::Held) => {
                self.trouble.is_over();
                self.publish_methods(session, tree, now)?;
                return Ok(false);
            }
            Ok(Kept::New) => {
                self.trouble.is_over();
                log::info!("registered {path}");
                self.status.registered();
                // Whoever removed the node may have removed theirs.
                self.publication = Publication::due(now);
                self.publish_methods(session, tree, now)?;
                return Ok(true);
            }
            Ok(Kept::Rival(owner)) => format!(
                "a live process holds it in the session {owner:#x}; waiting until that process goes. Two \
                 providers must not advertise the same address"
            ),
            Ok(Kept::Contended) => "others create and delete it".into(),
            Err(OperationError::Refused(refusal)) => refusal.to_string(),
            Err(lost) => return Err(lost),
        };
        self.status.pending();
        let what = format!("{path} is not registered: {why_not}");
        self.due = self.trouble.note(&what, now);
        Ok(false)
    }

    /// The node to delete after a deregistration; `None` if no session is known to have created one. A node of
    /// a session that was lost meanwhile vanishes with that session.
    pub(super) fn into_removal(self, path: String) -> Option<Removal> {
        let Self { status, owner, .. } = self;
        let Some(owner) = owner else {
            status.gone();
            return None;
        };
        Some(Removal {
            path,
            owner,
            status,
            due: Instant::now(),
            trouble: Trouble::default(),
        })
    }

    fn establish(
        &mut self,
        session: &Session,
        path: &str,
        tree: &Tree,
    ) -> Result<Kept, OperationError> {
        for _ in 0..CONTENTION_MAX {
            // Leaves a watch, by which a loss is noticed at once.
            let owner = session.exists(path)?.map(|node| node.owner);
            match owner {
                Some(_) if self.created && owner == session.id() => return Ok(Kept::Held),
                // An earlier session's own, which would vanish with that; or of an earlier registration.
                Some(_) if owner == self.owner || owner == session.id() => session.delete(path)?,
                Some(rival) => {
                    let was_ours = std::mem::take(&mut self.created);
                    if !self.may_take_place() {
                        self.standing = Standing::Waiting;
                        return Ok(Kept::Rival(rival));
                    }
                    if was_ours {
                        log::warn!("{path} was taken by another process; registering again");
                    }
                    session.delete(path)?;
                    let took_place_at = Some(Instant::now());
                    self.standing = Standing::Holder { took_place_at };
                }
                None if std::mem::take(&mut self.created) => {
                    if !self.may_take_place() {
                        // A rival is about to take it back.
                        self.standing = Standing::Waiting;
                        return Ok(Kept::Contended);
                    }
                    log::warn!("{path} vanished; registering again");
                }
                None => {}
            }
            self.created = false;
            match session.create_provider(path, &self.content)? {
                Created::New => {
                    if !matches!(self.standing, Standing::Holder { .. }) {
                        let took_place_at = None;
                        self.standing = Standing::Holder { took_place_at };
                    }
                    self.owner = session.id();
                    self.created = true;
                    // Again for the watch.
                    if session.exists(path)?.map(|node| node.owner) == self.owner {
                        return Ok(Kept::New);
                    }
                }
                Created::NoParent => session.create_path(&tree.providers(&self.service))?,
                Created::Exists => {}
            }
        }
        Ok(Kept::Contended)
    }

    fn may_take_place(&self) -> bool {
        match self.standing {
            Standing::Newcomer => true,
            Standing::Holder { took_place_at } => {
                took_place_at.is_none_or(|at| at.elapsed() > RIVAL_ANSWERS_WITHIN)
            }
            Standing::Waiting => false,
        }
    }

    fn publish_methods(
        &mut self,
        session: &Session,
        tree: &Tree,
        now: Instant,
    ) -> Result<(), OperationError> {
        let Publication::Due { at, trouble } = &mut self.publication else {
            return Ok(());
        };
        if *at > now {
            self.due = self.due.min(*at);
            return Ok(());
        }
        match put_methods(session, &tree.methods(&self.service), &self.methods) {
            Ok(()) => self.publication = Publication::Done,
            Err(OperationError::Refused(refusal)) => {
                let service = &self.service;
                let what = format!("the methods of {service} are not published: {refusal}");
                *at = trouble.note(&what, now);
            }
            Err(lost) => return Err(lost),
        }
        Ok(())
    }
}

/// What became of a claim.
enum Kept {
    /// It is there, as it was.
    Held,
    /// It was created.
    New,
    /// It belongs to this session of a live process.
    Rival(i64),
    /// It comes and goes.
    Contended,
}

impl Publication {
    fn due(at: Instant) -> Self {
        let trouble = Trouble::default();
        Self::Due { at, trouble }
    }
}

fn put_methods(
    session: &Session,
    parent: &str,
    methods: &[MethodInfo],
) -> Result<(), OperationError> {
    if methods.is_empty() {
        return Ok(());
    }
    session.create_path(parent)?;
    for method in methods {
        session.put(&format!("{parent}/{}", method.name), &method.to_node())?;
    }
    Ok(())
}

/// A node that should no longer be there.
pub(super) struct Removal {
    pub(super) path: String,
    pub(super) status: RegistrationStatus,
    /// When to try it.
    pub(super) due: Instant,
    owner: i64,
    trouble: Trouble,
}

impl Removal {
    /// Deletes the node, unless another process owns the node by now. False if ZooKeeper refuses: the removal is
    /// repeated, and the node vanishes with the session at the latest.
    ///
    /// # Errors
    /// When the session is lost.
    pub(super) fn carry_out(&mut self, session: &Session) -> Result<bool, OperationError> {
        let deleted = session.exists(&self.path).and_then(|node| match node {
            Some(node) if node.owner == self.owner => session.delete(&self.path),
            _ => Ok(()),
        });
        match deleted {
            Ok(()) => Ok(true),
            Err(OperationError::Refused(refusal)) => {
                let path = &self.path;
                let what = format!("{path} stays registered until the session ends: {refusal}");
                self.due = self.trouble.note(&what, Instant::now());
                Ok(false)
            }
            Err(lost) => Err(lost),
        }
    }
}
