//! Providers in ZooKeeper.
//!
//! Under a root, `/nexus` by default:
//!
//! | node | kind | content |
//! |---|---|---|
//! | `ROOT/services/<pkg.Service>` | persistent | |
//! | `ROOT/services/<pkg.Service>/methods/<Method>` | persistent | `MethodMeta` |
//! | `ROOT/services/<pkg.Service>/providers/<host:port>` | ephemeral | `ServiceMeta` |
//!
//! The files, each knowing only the ones below it:
//!
//! - this one: the [`Registry`] that users see; it only posts commands;
//! - `supervisor`: the one thread that wants things to be so in ZooKeeper, over any number of sessions;
//! - `claim` and `lists`: one node or list that it wants, and the operations that make it so;
//! - `session`: one session, in which every operation has a deadline. Only this file calls the
//!   `zookeeper` crate;
//! - `refusal`: what ZooKeeper refuses, in words;
//! - `probe`: whether a server answers at all, asked before a session is begun;
//! - `options`: where ZooKeeper is, and who this client is.

mod claim;
mod lists;
mod options;
mod probe;
mod refusal;
mod session;
mod supervisor;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::thread::JoinHandle;

use crossbeam_channel::Sender;
use parking_lot::Mutex;

pub use self::options::{ZooKeeperCredentials, ZooKeeperOptions};
use self::supervisor::{Command, Event, Supervisor};
use super::observer::Observer;
use super::{
    MethodInfo, OnChange, OnServices, Provider, Registration, Registry, RegistryState,
    RegistryUrlError, Watch,
};

/// A registry in ZooKeeper.
///
/// A thread of its own keeps ZooKeeper as it should be: it connects, and after every loss connects
/// anew with a growing, jittered pause (at most 2 s), registers again what is registered here, and reads
/// again what is watched. Functions of watches run on that thread.
///
/// Dropping the registry ends its session, whereby its providers vanish from ZooKeeper at once, and
/// its thread; it waits for that at most about two operation deadlines.
pub struct ZooKeeperRegistry {
    events: Sender<Event>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the supervisor lets others see.
pub(super) struct Shared {
    state: Mutex<RegistryState>,
    last_id: Mutex<u64>,
}

impl ZooKeeperRegistry {
    /// Starts to connect, and returns without waiting for it.
    ///
    /// # Errors
    /// [`RegistryUrlError`] for options that cannot be right.
    ///
    /// # Panics
    /// When the system has no thread left.
    pub fn open(options: ZooKeeperOptions) -> Result<Self, RegistryUrlError> {
        options.check()?;
        let shared = Arc::new(Shared {
            state: Mutex::new(RegistryState::Connecting),
            last_id: Mutex::new(0),
        });
        let (supervisor, events) = Supervisor::new(options, Arc::clone(&shared));
        let thread = thread::Builder::new()
            .name("nexus-registry".into())
            .spawn(move || supervisor.run())
            .expect("a thread for the registry");
        let thread = Some(thread);
        Ok(Self {
            events,
            shared,
            thread,
        })
    }

    fn post(&self, command: Command) {
        post(&self.events, command);
    }

    /// The handle of a watch that was posted under this id.
    fn until_dropped<T>(&self, id: u64, observer: Arc<Observer<T>>) -> Watch
    where
        T: PartialEq + Send + Sync + 'static,
    {
        let events = self.events.clone();
        Watch::new(move || {
            observer.end();
            post(&events, Command::Unwatch { id });
        })
    }
}

impl Registry for ZooKeeperRegistry {
    fn register(&self, service: &str, methods: &[MethodInfo], provider: &Provider) -> Registration {
        let id = self.shared.next_id();
        let events = self.events.clone();
        let (registration, status) = Registration::new(move |status| {
            // The supervisor is gone when the registry was dropped; so is the provider then.
            if !post(&events, Command::Deregister { id }) {
                status.gone();
            }
        });
        self.post(Command::Register {
            id,
            service: service.to_owned(),
            methods: methods.to_vec(),
            provider: provider.clone(),
            status,
        });
        registration
    }

    fn watch(&self, service: &str, on_change: OnChange) -> Watch {
        let id = self.shared.next_id();
        let observer = Arc::new(Observer::new(on_change));
        self.post(Command::Watch {
            id,
            service: service.to_owned(),
            observer: Arc::clone(&observer),
        });
        self.until_dropped(id, observer)
    }

    fn watch_services(&self, on_change: OnServices) -> Watch {
        let id = self.shared.next_id();
        let observer = Arc::new(Observer::new(on_change));
        self.post(Command::WatchServices {
            id,
            observer: Arc::clone(&observer),
        });
        self.until_dropped(id, observer)
    }

    fn state(&self) -> RegistryState {
        *self.shared.state.lock()
    }
}

impl Drop for ZooKeeperRegistry {
    fn drop(&mut self) {
        self.post(Command::Stop);
        if let Some(thread) = self.thread.take()
            // The last owner may be a watch's function, which runs on that very thread.
            && thread.thread().id() != thread::current().id()
            && thread.join().is_err()
        {
            log::error!("the registry's thread panicked");
        }
    }
}

/// False when the supervisor has ended.
fn post(events: &Sender<Event>, command: Command) -> bool {
    events.send(Event::Command(command)).is_ok()
}

impl Shared {
    fn next_id(&self) -> u64 {
        let mut last_id = self.last_id.lock();
        *last_id += 1;
        *last_id
    }

    /// The state before.
    fn set_state(&self, state: RegistryState) -> RegistryState {
        std::mem::replace(&mut *self.state.lock(), state)
    }
}

/// Where the nodes of services lie.
#[derive(Clone, Debug)]
struct Tree {
    root: String,
}

impl Tree {
    fn services(&self) -> String {
        format!("{}/services", self.root)
    }

    fn methods(&self, service: &str) -> String {
        format!("{}/services/{service}/methods", self.root)
    }

    fn providers(&self, service: &str) -> String {
        format!("{}/services/{service}/providers", self.root)
    }

    /// The nodes above a provider's, from the root down.
    fn above<'a>(&self, provider: &'a str) -> impl Iterator<Item = &'a str> {
        let below_root = self.root.len();
        let ends = provider.match_indices('/').map(|(at, _)| at);
        ends.filter(move |at| *at >= below_root)
            .filter_map(|at| provider.get(..at))
    }

    fn provider(&self, service: &str, address: SocketAddr) -> String {
        format!("{}/{address}", self.providers(service))
    }
}
