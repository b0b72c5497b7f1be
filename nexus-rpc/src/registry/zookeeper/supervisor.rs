//! The thread that keeps ZooKeeper as it should be.
//!
//! It owns what is wanted (registrations, watches, removals) and makes it so over any number of
//! sessions, one at a time:
//!
//! ```text
//!            ┌──────────── probe, open a session ◄───────────┐
//!            ▼                                               │ pause, growing and jittered
//!   everything is due again                                  │
//!            ▼                                               │
//!   do what is due ──► wait: command, change, next due time  │
//!            ▲                 │            │                │
//!            └─────────────────┘            └─ session lost ─┘
//! ```
//!
//! Nothing is remembered of a session but which ephemeral nodes it owns. So there is one way in which
//! a provider comes to be registered, whether it is new, its session was lost, or its node vanished.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use super::claim::{Claim, Removal};
use super::lists::{Watched, WatchedNames};
use super::session::{OperationError, Session, SessionEvents};
use super::{Shared, Tree, ZooKeeperOptions, probe};
use crate::registry::observer::Observer;
use crate::registry::{MethodInfo, Provider, RegistrationStatus, RegistryState};

/// How long a list may go on changing before it is read: a provider that comes back replaces its
/// old node by a new one, and nobody should see the moment between.
const SETTLE: Duration = Duration::from_millis(50);

/// The pause before the first new attempt to connect; doubled up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// How often the log repeats that ZooKeeper is not there.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(30);

/// What users of the registry want.
pub(super) enum Command {
    Register {
        id: u64,
        service: String,
        methods: Vec<MethodInfo>,
        provider: Provider,
        status: RegistrationStatus,
    },
    Deregister {
        id: u64,
    },
    Watch {
        id: u64,
        service: String,
        observer: Arc<Observer<Provider>>,
    },
    WatchServices {
        id: u64,
        observer: Arc<Observer<String>>,
    },
    Unwatch {
        id: u64,
    },
    Stop,
}

/// What the supervisor waits for.
///
/// Its queue has no limit of its own: commands are as many as handles that users hold, and changes as
/// many as watches that are set, each of which fires once.
pub(super) enum Event {
    Command(Command),
    /// A watched node changed, as session number `epoch` says.
    Changed {
        epoch: u64,
        path: String,
    },
    /// Session number `epoch` lost its connection.
    Lost {
        epoch: u64,
    },
}

pub(super) struct Supervisor {
    options: ZooKeeperOptions,
    tree: Tree,
    shared: Arc<Shared>,
    events: Receiver<Event>,
    sender: Sender<Event>,
    sessions_alive: Arc<AtomicUsize>,
    /// Counts sessions, so that what an earlier one still says is recognised.
    epoch: u64,
    session_lost: bool,
    /// When the present session was established.
    connected_at: Instant,
    stopped: bool,
    /// When the log last said that there is no session.
    complained_at: Option<Instant>,
    /// By the path of the node.
    registrations: BTreeMap<String, Claim>,
    removals: Vec<Removal>,
    /// Nodes that everybody may change, though this client shows credentials; the log has each once.
    open_to_all: BTreeSet<String>,
    /// By service.
    watched: BTreeMap<String, Watched>,
    /// The services' names; `None` while nobody watches them.
    names: Option<WatchedNames>,
}

impl Supervisor {
    pub(super) fn new(options: ZooKeeperOptions, shared: Arc<Shared>) -> (Self, Sender<Event>) {
        let (sender, events) = unbounded();
        let tree = Tree {
            root: options.root.clone(),
        };
        let supervisor = Self {
            options,
            tree,
            shared,
            events,
            sender: sender.clone(),
            sessions_alive: Arc::default(),
            epoch: 0,
            session_lost: false,
            connected_at: Instant::now(),
            stopped: false,
            complained_at: None,
            registrations: BTreeMap::new(),
            removals: Vec::new(),
            open_to_all: BTreeSet::new(),
            watched: BTreeMap::new(),
            names: None,
        };
        (supervisor, sender)
    }

    /// Runs until [`Command::Stop`].
    pub(super) fn run(mut self) {
        let mut pause = PAUSE_MIN;
        while !self.stopped {
            let started = Instant::now();
            match self.open_session() {
                Ok(session) => {
                    let end = self.serve(&session);
                    self.leave(&end);
                    if self.stopped {
                        session.close();
                        break;
                    }
                }
                Err(error) => self.leave(&Err(error)),
            }
            if started.elapsed() > PAUSE_MAX {
                pause = PAUSE_MIN;
            }
            self.wait(Instant::now() + jittered(pause));
            pause = (pause * 2).min(PAUSE_MAX);
        }
        self.end();
    }

    /// Finds a server and establishes a session with it.
    fn open_session(&mut self) -> Result<Session, OperationError> {
        let options = &self.options;
        let server = probe::find_server(&options.servers, options.operation_deadline)
            .map_err(|error| OperationError::Lost(error.to_string()))?;
        self.epoch += 1;
        self.session_lost = false;
        let mut session = Session::open(
            server,
            options.session_timeout,
            options.operation_deadline,
            &self.sessions_alive,
            Reporter {
                epoch: self.epoch,
                sender: self.sender.clone(),
            },
        )?;
        if let Some(credentials) = &options.credentials {
            session.authenticate(credentials)?;
        }
        session.ping()?;
        log::info!("connected to ZooKeeper at {server}");
        Ok(session)
    }

    /// Keeps everything as wanted until the session is lost or the registry stops.
    fn serve(&mut self, session: &Session) -> Result<(), OperationError> {
        self.connected_at = Instant::now();
        self.complained_at = None;
        self.make_everything_due(self.connected_at);
        self.shared.set_state(RegistryState::Connected);
        let ping_interval = self.options.session_timeout / 3;
        let mut next_ping = self.connected_at + ping_interval;
        loop {
            self.remove(session)?;
            self.register(session)?;
            self.read(session)?;
            if Instant::now() >= next_ping {
                session.ping()?;
                next_ping = Instant::now() + ping_interval;
            }
            self.wait(self.next_due().map_or(next_ping, |due| due.min(next_ping)));
            if self.stopped {
                return Ok(());
            }
            if self.session_lost {
                return Err(OperationError::Lost("the connection was lost".into()));
            }
        }
    }

    /// After a session, or the attempt to begin one: nothing is certain any more.
    fn leave(&mut self, end: &Result<(), OperationError>) {
        for claim in self.registrations.values_mut() {
            claim.session_lost();
        }
        for watched in self.watched.values_mut() {
            watched.confirmed = false;
        }
        let before = *self.shared.state.lock();
        if before == RegistryState::Connected {
            self.shared.set_state(RegistryState::Away);
        }
        match end {
            Ok(()) => {}
            Err(error) if before == RegistryState::Connected => {
                log::warn!("ZooKeeper is away, the last known providers stay: {error}");
            }
            Err(error) if self.may_complain() => {
                log::warn!("no session with ZooKeeper, trying again: {error}");
            }
            Err(error) => log::debug!("no session with ZooKeeper: {error}"),
        }
    }

    /// At the first failure in a row, and then now and again.
    fn may_complain(&mut self) -> bool {
        let now = Instant::now();
        let may = self
            .complained_at
            .is_none_or(|last| now - last >= COMPLAINT_INTERVAL);
        if may {
            self.complained_at = Some(now);
        }
        may
    }

    /// When the registry stopped: no handle waits in vain.
    fn end(self) {
        self.shared.set_state(RegistryState::Away);
        for wanted in self.registrations.values() {
            wanted.status.gone();
        }
        for removal in &self.removals {
            removal.status.gone();
        }
        // What was posted after the stop, and raced with it.
        for event in self.events.try_iter() {
            if let Event::Command(Command::Register { status, .. }) = event {
                status.gone();
            }
        }
    }

    /// Takes in what happens until `deadline`, at least until the first thing that happens.
    fn wait(&mut self, deadline: Instant) {
        let first = match self.events.recv_deadline(deadline) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
        };
        self.take(first);
        while let Ok(event) = self.events.try_recv() {
            self.take(event);
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Command(command) => self.obey(command),
            Event::Changed { epoch, path } if epoch == self.epoch => self.changed(&path),
            Event::Lost { epoch } if epoch == self.epoch => self.session_lost = true,
            // An earlier session's.
            Event::Changed { .. } | Event::Lost { .. } => {}
        }
    }

    fn obey(&mut self, command: Command) {
        let now = Instant::now();
        match command {
            Command::Register {
                id,
                service,
                methods,
                provider,
                status,
            } => {
                let path = self.tree.provider(&service, provider.address);
                let content = provider.to_node();
                let claim = Claim::new(id, service, methods, content, status, now);
                if let Some(replaced) = self.registrations.insert(path, claim) {
                    replaced.status.gone();
                }
            }
            Command::Deregister { id } => self.deregister(id),
            Command::Watch {
                id,
                service,
                observer,
            } => self.watch(id, service, observer, now),
            Command::WatchServices { id, observer } => self.watch_names(id, observer, now),
            Command::Unwatch { id } => self.unwatch(id),
            Command::Stop => self.stopped = true,
        }
    }

    fn deregister(&mut self, id: u64) {
        let mut registrations = self.registrations.iter();
        let found = registrations.find(|(_, claim)| claim.id == id);
        let Some(path) = found.map(|(path, _)| path.clone()) else {
            return;
        };
        if let Some(claim) = self.registrations.remove(&path) {
            self.removals.extend(claim.into_removal(path));
        }
    }

    fn watch(&mut self, id: u64, service: String, observer: Arc<Observer<Provider>>, now: Instant) {
        let watched = self.watched.entry(service);
        let watched = watched.or_insert_with(|| Watched::new(now));
        if let Some(known) = &watched.known {
            observer.note(known.iter().cloned());
        }
        watched.observers.push((id, Arc::clone(&observer)));
        observer.tell();
    }

    fn watch_names(&mut self, id: u64, observer: Arc<Observer<String>>, now: Instant) {
        let names = self.names.get_or_insert_with(|| WatchedNames::new(now));
        if let Some(known) = &names.known {
            observer.note_names(known.iter().cloned());
        }
        names.observers.push((id, Arc::clone(&observer)));
        observer.tell();
    }

    fn unwatch(&mut self, id: u64) {
        self.watched.retain(|_, watched| {
            watched.observers.retain(|(known, _)| *known != id);
            !watched.observers.is_empty()
        });
        if let Some(names) = &mut self.names {
            names.observers.retain(|(known, _)| *known != id);
        }
        self.names.take_if(|names| names.observers.is_empty());
    }

    /// A node changed: what depends on it is looked at soon.
    fn changed(&mut self, path: &str) {
        let now = Instant::now();
        if let Some(claim) = self.registrations.get_mut(path) {
            claim.due = now;
        }
        for (service, watched) in &mut self.watched {
            if self.tree.providers(service) == path {
                watched.due = watched.due.min(now + SETTLE);
            }
        }
        if let Some(names) = &mut self.names
            && self.tree.services() == path
        {
            names.due = names.due.min(now + SETTLE);
        }
    }

    fn make_everything_due(&mut self, now: Instant) {
        for claim in self.registrations.values_mut() {
            claim.due = now;
        }
        for removal in &mut self.removals {
            removal.due = now;
        }
        for watched in self.watched.values_mut() {
            watched.due = now;
        }
        if let Some(names) = &mut self.names {
            names.due = now;
        }
    }

    fn next_due(&self) -> Option<Instant> {
        let registrations = self.registrations.values().map(|claim| claim.due);
        let removals = self.removals.iter().map(|removal| removal.due);
        let watched = self.watched.values().map(|watched| watched.due);
        let names = self.names.iter().map(|names| names.due);
        let all = registrations.chain(removals).chain(watched).chain(names);
        all.min()
    }

    /// Deletes the nodes of what was deregistered, if they are still ours.
    fn remove(&mut self, session: &Session) -> Result<(), OperationError> {
        let now = Instant::now();
        let mut at = 0;
        while let Some(removal) = self.removals.get_mut(at) {
            // Wanted again at the same place: the new registration replaces the node.
            let replaced = self.registrations.contains_key(&removal.path);
            if !replaced && (removal.due > now || !removal.carry_out(session)?) {
                at += 1;
                continue;
            }
            self.removals.swap_remove(at).status.gone();
        }
        Ok(())
    }

    /// Creates the nodes that are due and not there, or there but not ours.
    fn register(&mut self, session: &Session) -> Result<(), OperationError> {
        let now = Instant::now();
        for (path, claim) in &mut self.registrations {
            let interval = self.options.reread_interval;
            let is_new = claim.due <= now && claim.keep(session, path, &self.tree, interval)?;
            if is_new && session.is_authenticated() {
                warn_of_open_nodes(session, &self.tree, path, &mut self.open_to_all)?;
            }
        }
        Ok(())
    }

    /// Reads the lists that are due, and tells what changed.
    fn read(&mut self, session: &Session) -> Result<(), OperationError> {
        let now = Instant::now();
        let interval = self.options.reread_interval;
        let doubtful_until = self.connected_at + self.options.empty_grace;
        for (service, watched) in &mut self.watched {
            if watched.due <= now {
                let path = self.tree.providers(service);
                watched.refresh(session, &path, interval, doubtful_until)?;
            }
        }
        if let Some(names) = self.names.as_mut().filter(|names| names.due <= now) {
            names.refresh(session, &self.tree.services(), interval)?;
        }
        Ok(())
    }
}

/// Says which of the nodes above a provider's everybody may change. They were there before, and are left as
/// they are: whose they are, only people know.
fn warn_of_open_nodes(
    session: &Session,
    tree: &Tree,
    provider: &str,
    known: &mut BTreeSet<String>,
) -> Result<(), OperationError> {
    let mut open = Vec::new();
    for node in tree.above(provider) {
        if session.is_open_to_all(node)? == Some(true) && known.insert(node.to_owned()) {
            open.push(node);
        }
    }
    if !open.is_empty() {
        let (nodes, root) = (open.join(", "), &tree.root);
        log::warn!(
            "everybody may change {nodes}, though this client has credentials: others can replace providers. \
             To close them, in zkCli.sh: addauth digest USER:PASSWORD; setAcl -R {root} \
             auth::cdrwa,world:anyone:r"
        );
    }
    Ok(())
}

/// Between half and the whole of the pause.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..=1.0))
}

/// The present session's reports, with its number.
#[derive(Clone)]
struct Reporter {
    epoch: u64,
    sender: Sender<Event>,
}

impl SessionEvents for Reporter {
    fn changed(&self, path: String) {
        let epoch = self.epoch;
        // Nobody waits when the registry was dropped.
        let _ = self.sender.send(Event::Changed { epoch, path });
    }

    fn lost(&self) {
        let epoch = self.epoch;
        let _ = self.sender.send(Event::Lost { epoch });
    }
}
