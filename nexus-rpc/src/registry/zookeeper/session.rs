//! One session with one ZooKeeper server, in which every operation has a deadline.
//!
//! This file is the only one that knows the `zookeeper` crate, and it trusts it with little. Its calls
//! can block for as long as a server is silent; after a lost connection its handle may be closed for
//! good, or connected again without the watches. So:
//!
//! - a thread of the session's own makes the calls, and whoever wants one waits for the result no
//!   longer than the deadline;
//! - at the first sign of trouble (a deadline, a lost connection, an expired session) the session
//!   is over: it is given up as a whole and never mended;
//! - the thread of a session that was given up closes it as soon as that is possible and ends. How many
//!   may hang at a time is limited ([`SESSIONS_MAX`]).

use std::cell::Cell;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use zookeeper::{Acl, CreateMode, Permission, WatchedEvent, ZkError, ZkResult, ZkState, ZooKeeper};

use super::ZooKeeperCredentials;
use super::refusal::Refusal;
use crate::registry::provider::with_token;

/// Sessions of one registry that may exist at a time: the present one and those that were given
/// up but hang in a call. When so many hang, no new one is begun until one of them ends.
pub(super) const SESSIONS_MAX: usize = 8;

/// Between two attempts to close a session whose connection is just being made again.
const CLOSE_RETRY_PAUSE: Duration = Duration::from_millis(200);

type Job = Box<dyn FnOnce(&ZooKeeper) + Send>;

/// What a session reports on its own account. Called on threads of the `zookeeper` crate: it must
/// not block.
pub(super) trait SessionEvents: Clone + Send + 'static {
    /// A node that is watched changed.
    fn changed(&self, path: String);
    /// The connection was lost; the session is of no use any more.
    fn lost(&self);
}

/// An operation did not succeed.
#[derive(Debug, thiserror::Error)]
pub(super) enum OperationError {
    /// The session is over: give it up.
    #[error("the session is lost: {0}")]
    Lost(String),
    /// The server answered, and this is what it said.
    #[error("{0}")]
    Refused(Refusal),
}

/// How the creation of a node went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Created {
    /// It is there now.
    New,
    /// There is one of that name already.
    Exists,
    /// The node above it is missing.
    NoParent,
}

/// What an operation is, and the permission that it needs, for whoever is refused it.
struct Operation<'a> {
    verb: &'static str,
    path: &'a str,
    permission: &'static str,
    /// The node that the permission is needed on.
    node: &'a str,
}

impl<'a> Operation<'a> {
    /// One that needs a permission on the node itself.
    fn on(verb: &'static str, path: &'a str, permission: &'static str) -> Self {
        let node = path;
        Self {
            verb,
            path,
            permission,
            node,
        }
    }

    /// One that needs a permission on the node above.
    fn above(verb: &'static str, path: &'a str, permission: &'static str) -> Self {
        let node = match parent(path) {
            "" => "/",
            parent => parent,
        };
        Self {
            verb,
            path,
            permission,
            node,
        }
    }
}

/// The parts of a node's status that are of use here.
pub(super) struct NodeStatus {
    /// The session that an ephemeral node belongs to; 0 for a persistent node.
    pub(super) owner: i64,
}

/// An open session. Dropping it gives it up; [`close`](Self::close) also waits.
pub(super) struct Session {
    jobs: Sender<Job>,
    ended: Receiver<()>,
    operation_deadline: Duration,
    /// Which session it is; not known before the first ephemeral node.
    id: Cell<Option<i64>>,
    /// What the nodes are created with.
    acl: Vec<Acl>,
    authenticated: bool,
}

impl Session {
    /// Begins a session. That it is established shows with the first operation.
    ///
    /// # Errors
    /// When too many sessions hang, or the system has no thread.
    pub(super) fn open(
        server: SocketAddr,
        session_timeout: Duration,
        operation_deadline: Duration,
        alive: &Arc<AtomicUsize>,
        events: impl SessionEvents,
    ) -> Result<Self, OperationError> {
        let slot = Slot::take(alive)?;
        let (jobs, queue) = bounded::<Job>(1);
        let (end, ended) = bounded(1);
        let work = move || {
            let _slot = slot;
            serve(server, session_timeout, queue, events);
            // The receiver may be gone: then nobody waits.
            let _ = end.send(());
        };
        thread::Builder::new()
            .name("nexus-zk-session".into())
            .spawn(work)
            .map_err(|error| OperationError::Lost(error.to_string()))?;
        Ok(Self {
            jobs,
            ended,
            operation_deadline,
            id: Cell::new(None),
            acl: Acl::open_unsafe().clone(),
            authenticated: false,
        })
    }

    /// Shows who this client is. From here on nodes are created so that only the same user may change them.
    ///
    /// # Errors
    /// Never for a wrong password, which the server does not recognise: that lacks permissions later.
    pub(super) fn authenticate(
        &mut self,
        credentials: &ZooKeeperCredentials,
    ) -> Result<(), OperationError> {
        let ZooKeeperCredentials { user, password } = credentials;
        let token = format!("{user}:{password}").into_bytes();
        let what = Operation::on("take credentials for", "/", "READ");
        let taken = self.run(what, |zookeeper| {
            match zookeeper.add_auth("digest", token) {
                Ok(()) => Ok(true),
                Err(ZkError::AuthFailed) => Ok(false),
                Err(error) => Err(error),
            }
        })?;
        if !taken {
            return Err(OperationError::Lost(format!(
                "the server refuses the credentials of {user:?} (AuthFailed); \
                 is its digest authentication switched off?"
            )));
        }
        // "auth" stands for whoever has authenticated in this session.
        self.acl = [&Acl::creator_all()[..], Acl::read_unsafe()].concat();
        self.authenticated = true;
        Ok(())
    }

    /// Whether it has [authenticated](Self::authenticate).
    pub(super) fn is_authenticated(&self) -> bool {
        self.authenticated
    }

    /// The status of a node, or `None`; leaves a watch in either case.
    pub(super) fn exists(&self, path: &str) -> Result<Option<NodeStatus>, OperationError> {
        let owned = path.to_owned();
        let stat = self.run(Operation::on("look at", path, "READ"), move |zookeeper| {
            zookeeper.exists(&owned, true)
        })?;
        Ok(stat.map(|stat| NodeStatus {
            owner: stat.ephemeral_owner,
        }))
    }

    /// Asks for something cheap, to see whether the server answers.
    pub(super) fn ping(&self) -> Result<(), OperationError> {
        match self.is_there("/") {
            Ok(_) | Err(OperationError::Refused(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The names below a node, or `None` if there is no such node. A node that exists is watched.
    pub(super) fn children(&self, path: &str) -> Result<Option<Vec<String>>, OperationError> {
        let owned = path.to_owned();
        self.run(Operation::on("list", path, "READ"), move |zookeeper| {
            none_if_absent(zookeeper.get_children(&owned, true))
        })
    }

    /// A node's content, or `None` if there is no such node.
    pub(super) fn content(&self, path: &str) -> Result<Option<Vec<u8>>, OperationError> {
        let owned = path.to_owned();
        let found = self.run(Operation::on("read", path, "READ"), move |zookeeper| {
            none_if_absent(zookeeper.get_data(&owned, false))
        })?;
        Ok(found.map(|(content, _)| content))
    }

    /// Whether everybody may do more with a node than read it; `None` if there is no such node, or its ACL
    /// may not be read.
    pub(super) fn is_open_to_all(&self, path: &str) -> Result<Option<bool>, OperationError> {
        let owned = path.to_owned();
        let acl = self.run(
            Operation::on("read the ACL of", path, "READ"),
            move |zookeeper| none_if_absent(zookeeper.get_acl(&owned)),
        );
        let acl = match acl {
            Ok(Some((acl, _))) => acl,
            Ok(None) | Err(OperationError::Refused(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let open = |entry: &Acl| {
            entry.scheme == "world" && (entry.perms & Permission::READ) != entry.perms
        };
        Ok(Some(acl.iter().any(open)))
    }

    /// Which session it is. Known once it has created an ephemeral node.
    pub(super) fn id(&self) -> Option<i64> {
        self.id.get()
    }

    /// Creates a provider's node, which is ephemeral.
    pub(super) fn create_provider(
        &self,
        path: &str,
        content: &[u8],
    ) -> Result<Created, OperationError> {
        if self.id.get().is_some() {
            return self.create(path, content, CreateMode::Ephemeral);
        }
        // The crate does not tell the session's id. The node's owner is it, if the node is this one: another
        // process may have replaced it by now.
        let signed = with_token(content);
        let created = self.create(path, &signed, CreateMode::Ephemeral)?;
        if created != Created::New {
            return Ok(created);
        }
        let owned = path.to_owned();
        let found = self.run(Operation::on("read", path, "READ"), move |zookeeper| {
            none_if_absent(zookeeper.get_data(&owned, false))
        })?;
        match found {
            Some((found, stat)) if found == signed => self.id.set(Some(stat.ephemeral_owner)),
            _ => return Ok(Created::Exists),
        }
        self.write(path, content)?;
        Ok(Created::New)
    }

    /// Creates the persistent nodes down to `path`, as far as they are missing. It asks from the bottom, so
    /// nodes that exist need no permission.
    pub(super) fn create_path(&self, path: &str) -> Result<(), OperationError> {
        let mut missing = Vec::new();
        let mut at = path;
        while !at.is_empty() && !self.is_there(at)? {
            missing.push(at);
            at = parent(at);
        }
        for part in missing.into_iter().rev() {
            match self.create(part, &[], CreateMode::Persistent) {
                // Without its parent: somebody deletes the tree. The next attempt begins anew.
                Ok(_) => {}
                // The server looks at permissions before it looks whether the node exists.
                Err(OperationError::Refused(_)) if self.is_there(part)? => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sees to it that a persistent node, whose parent exists, has this content.
    pub(super) fn put(&self, path: &str, content: &[u8]) -> Result<(), OperationError> {
        if self.content(path)?.as_deref() == Some(content) {
            return Ok(());
        }
        if self.create(path, content, CreateMode::Persistent)? != Created::Exists {
            return Ok(());
        }
        self.write(path, content)
    }

    /// Deletes a node; that there is none is fine.
    pub(super) fn delete(&self, path: &str) -> Result<(), OperationError> {
        let owned = path.to_owned();
        self.run(
            Operation::above("delete", path, "DELETE"),
            move |zookeeper| none_if_absent(zookeeper.delete(&owned, None)),
        )
        .map(drop)
    }

    /// Closes the session, whereby its ephemeral nodes vanish, and waits for that at most one
    /// operation deadline.
    pub(super) fn close(self) {
        let deadline = Instant::now() + self.operation_deadline;
        drop(self.jobs);
        if self.ended.recv_deadline(deadline).is_err() {
            log::warn!("ZooKeeper does not answer; the session is left to expire");
        }
    }

    /// Whether there is a node. Leaves no watch.
    fn is_there(&self, path: &str) -> Result<bool, OperationError> {
        let owned = path.to_owned();
        let found = self.run(Operation::on("look at", path, "READ"), move |zookeeper| {
            zookeeper.exists(&owned, false)
        })?;
        Ok(found.is_some())
    }

    /// Replaces a node's content; that there is no node is fine.
    fn write(&self, path: &str, content: &[u8]) -> Result<(), OperationError> {
        let (owned, content) = (path.to_owned(), content.to_vec());
        self.run(Operation::on("write", path, "WRITE"), move |zookeeper| {
            none_if_absent(zookeeper.set_data(&owned, content, None))
        })
        .map(drop)
    }

    fn create(
        &self,
        path: &str,
        content: &[u8],
        mode: CreateMode,
    ) -> Result<Created, OperationError> {
        let (owned, content, acl) = (path.to_owned(), content.to_vec(), self.acl.clone());
        self.run(
            Operation::above("create", path, "CREATE"),
            move |zookeeper| match zookeeper.create(&owned, content, acl, mode) {
                Ok(_) => Ok(Created::New),
                Err(ZkError::NodeExists) => Ok(Created::Exists),
                Err(ZkError::NoNode) => Ok(Created::NoParent),
                Err(error) => Err(error),
            },
        )
    }

    /// Runs one operation on the session's thread and waits for its result until the deadline.
    fn run<T: Send + 'static>(
        &self,
        what: Operation<'_>,
        operation: impl FnOnce(&ZooKeeper) -> ZkResult<T> + Send + 'static,
    ) -> Result<T, OperationError> {
        let deadline = Instant::now() + self.operation_deadline;
        let lost = |why: &str| OperationError::Lost(why.to_owned());
        let (answer, result) = bounded(1);
        let job: Job = Box::new(move |zookeeper| {
            // Whoever asked may have stopped waiting.
            let _ = answer.send(operation(zookeeper));
        });
        self.jobs
            .send_deadline(job, deadline)
            .map_err(|_| lost("its thread is busy or gone"))?;
        let result = result
            .recv_deadline(deadline)
            .map_err(|_| lost("no answer within the operation deadline"))?;
        result.map_err(|error| match error {
            ZkError::NotReadOnly => lost("the server is read-only, as it has lost the quorum"),
            ZkError::ConnectionLoss
            | ZkError::SessionExpired
            | ZkError::SessionMoved
            | ZkError::OperationTimeout
            | ZkError::MarshallingError
            | ZkError::AuthFailed => OperationError::Lost(error.to_string()),
            error => OperationError::Refused(Refusal {
                operation: format!("{} {}", what.verb, what.path),
                permission: what.permission,
                node: what.node.to_owned(),
                error,
                authenticated: self.authenticated,
            }),
        })
    }
}

/// The node above; empty for those directly below `/`.
fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// A node that is not there is an answer and no failure.
fn none_if_absent<T>(result: ZkResult<T>) -> ZkResult<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(ZkError::NoNode) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The session's thread: connects, makes the calls, closes.
fn serve(
    server: SocketAddr,
    session_timeout: Duration,
    queue: Receiver<Job>,
    events: impl SessionEvents,
) {
    let on_change = {
        let events = events.clone();
        move |event: WatchedEvent| {
            if let Some(path) = event.path {
                events.changed(path);
            }
        }
    };
    // Connecting panics when the system refuses the socket. The probe before makes that rare; and
    // the panic's message is the process's to print, as its panic hook is.
    let connect = || ZooKeeper::connect(&server.to_string(), session_timeout, on_change);
    let zookeeper = match catch_unwind(AssertUnwindSafe(connect)) {
        Ok(Ok(zookeeper)) => zookeeper,
        Ok(Err(error)) => {
            log::warn!("cannot begin a session with {server}: {error}");
            return;
        }
        Err(_) => {
            log::warn!("cannot begin a session with {server}: the client panicked");
            return;
        }
    };
    let connection = Arc::new(Connection::default());
    zookeeper.add_listener({
        let connection = Arc::clone(&connection);
        move |state| {
            if state != ZkState::Connected {
                connection.lost.store(true, Ordering::Release);
                connection
                    .closed
                    .store(state == ZkState::Closed, Ordering::Release);
                events.lost();
            }
        }
    });
    for job in queue {
        job(&zookeeper);
    }
    if connection.lost.load(Ordering::Acquire) {
        close_lost(&zookeeper, &connection, session_timeout);
    }
    // Dropping the handle closes a session that is well.
}

/// What the `zookeeper` crate said about its connection.
#[derive(Default)]
struct Connection {
    lost: AtomicBool,
    closed: AtomicBool,
}

/// Closes a session whose connection was lost, until it is closed. One attempt is not enough: while the
/// connection is being made again the request is thrown away, and a handle that is dropped then
/// leaves a session alive that nobody owns.
fn close_lost(zookeeper: &ZooKeeper, connection: &Connection, session_timeout: Duration) {
    // By then the crate has given up by itself.
    let deadline = Instant::now() + session_timeout * 2;
    while !connection.closed.load(Ordering::Acquire) && zookeeper.close().is_err() {
        if Instant::now() >= deadline {
            return;
        }
        thread::sleep(CLOSE_RETRY_PAUSE);
    }
}

/// One of the sessions that may exist.
struct Slot(Arc<AtomicUsize>);

impl Slot {
    fn take(alive: &Arc<AtomicUsize>) -> Result<Self, OperationError> {
        let slot = Self(Arc::clone(alive));
        match alive.fetch_add(1, Ordering::AcqRel) {
            0..SESSIONS_MAX => Ok(slot),
            _ => Err(OperationError::Lost("too many sessions hang".into())),
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
