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
//! Five files, each knowing only the ones below it:
//!
//! - this one: the [`Registry`] that users see; it only posts commands;
//! - `supervisor`: the one thread that wants things to be so in ZooKeeper, over any number of sessions;
//! - `wanted`: one node or list that it wants, and the operations that make it so;
//! - `session`: one session, in which every operation has a deadline. Only this file knows the
//!   `zookeeper` crate;
//! - `probe`: whether a server answers at all, asked before a session is begun.

mod probe;
mod session;
mod supervisor;
mod wanted;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, thread};

use crossbeam_channel::Sender;
use parking_lot::Mutex;

use self::supervisor::{Command, Event, Supervisor};
use super::observer::Observer;
use super::{
    MethodInfo, OnChange, OnServices, Provider, Registration, Registry, RegistryState,
    RegistryUrlError, Watch,
};

/// How to use a ZooKeeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZooKeeperOptions {
    /// The servers, each `host:port`. Names are looked up anew for every session.
    pub servers: Vec<String>,
    /// Below which node everything lies. Default `/nexus`.
    pub root: String,
    /// How long the providers of a process that died stay listed. ZooKeeper bounds it by its own
    /// limits (4 s to 40 s unless configured). Default 6 s.
    pub session_timeout: Duration,
    /// How long one operation may take before the session counts as dead. Default 3 s.
    pub operation_deadline: Duration,
    /// How often everything is read again without cause, as watches are not trusted alone.
    /// Default 10 s.
    pub reread_interval: Duration,
    /// How long, after a reconnect, a list that has become empty is not believed: whoever was in it
    /// lost its session too and is about to register again. Default 10 s; zero believes at once.
    pub empty_grace: Duration,
}

impl ZooKeeperOptions {
    /// Default options for these servers.
    pub fn new(servers: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            servers: servers.into_iter().map(Into::into).collect(),
            root: "/nexus".into(),
            session_timeout: Duration::from_secs(6),
            operation_deadline: Duration::from_secs(3),
            reread_interval: Duration::from_secs(10),
            empty_grace: Duration::from_secs(10),
        }
    }

    /// Default options for `host:port,host:port` with an optional `/root` behind it.
    ///
    /// # Errors
    /// See [`check`](Self::check).
    pub fn parse(text: &str) -> Result<Self, RegistryUrlError> {
        let (servers, root) = match text.find('/') {
            Some(slash) => text.split_at(slash),
            None => (text, ""),
        };
        let mut options = Self::new(servers.split(',').map(str::trim));
        if !root.is_empty() {
            options.root = root.to_owned();
        }
        options.check()?;
        Ok(options)
    }

    /// Whether the addresses and the root have the right form. Looks nothing up.
    ///
    /// # Errors
    /// [`RegistryUrlError::BadAddress`], [`RegistryUrlError::BadRoot`].
    pub fn check(&self) -> Result<(), RegistryUrlError> {
        let bad_address = |address: &str| RegistryUrlError::BadAddress {
            address: address.to_owned(),
            source: io::Error::new(io::ErrorKind::InvalidInput, "host:port is expected"),
        };
        if self.servers.is_empty() {
            return Err(bad_address(""));
        }
        for server in &self.servers {
            let parts = server.rsplit_once(':');
            match parts.map(|(host, port)| (host.is_empty(), port.parse::<u16>())) {
                Some((false, Ok(1..))) => {}
                _ => return Err(bad_address(server)),
            }
        }
        let good = |part: &str| !matches!(part, "" | "." | "..");
        match self.root.strip_prefix('/') {
            Some(path) if path.split('/').all(good) => Ok(()),
            _ => Err(RegistryUrlError::BadRoot {
                root: self.root.clone(),
            }),
        }
    }
}

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

    fn provider(&self, service: &str, address: SocketAddr) -> String {
        format!("{}/{address}", self.providers(service))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connect_string_may_have_a_root() {
        let options = ZooKeeperOptions::parse("a:2181, b:2182/chat/prod").expect("valid");
        assert_eq!(options.servers, ["a:2181", "b:2182"]);
        assert_eq!(options.root, "/chat/prod");
        let options = ZooKeeperOptions::parse("[::1]:2181").expect("valid");
        assert_eq!(
            (options.servers.len(), options.root.as_str()),
            (1, "/nexus")
        );
    }

    #[test]
    fn what_cannot_be_right_is_refused() {
        for text in ["", "a", "a:", ":2181", "a:0", "a:70000", "a:1,", "a:1,,b:2"] {
            let result = ZooKeeperOptions::parse(text);
            assert!(
                matches!(result, Err(RegistryUrlError::BadAddress { .. })),
                "{text:?} {result:?}"
            );
        }
        for text in ["a:1/", "a:1//x", "a:1/x/", "a:1/x/../y"] {
            let result = ZooKeeperOptions::parse(text);
            assert!(
                matches!(result, Err(RegistryUrlError::BadRoot { .. })),
                "{text:?} {result:?}"
            );
        }
    }
}
