//! Keeps the proxy's lease on the bus, and with it its users online.
//!
//! One thread, as the bus may block. Whenever presence may have been lost or changed without this proxy
//! hearing of it, all sessions are restored, and those that the bus gives to another session end.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use chat_bus::{Bus, BusError, Lease, ProxyId, SessionRef};

use crate::directory::{Directory, SessionId, SessionMailbox};
use crate::resync::Resync;
use crate::session::{SignOut, ToSession};

/// Presence is compared with the bus at least this often.
const RESTORE_INTERVAL: Duration = Duration::from_secs(120);
/// Sessions restored in one go.
const RESTORE_MAX: usize = 5_000;

/// What others tell the thread.
#[derive(Debug)]
pub(crate) enum ToLease {
    /// The subscription stands (again): presence may be lost, messages may have been missed.
    Connected,
    /// End, without giving up the lease.
    Stop,
}

/// The thread's state.
pub(crate) struct LeaseKeeper {
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) proxy: ProxyId,
    pub(crate) time_to_live: Duration,
    pub(crate) directory: Arc<Directory>,
    pub(crate) resync: Arc<Resync>,
    /// Whether the lease is held.
    pub(crate) held: Arc<AtomicBool>,
    pub(crate) inbox: Receiver<ToLease>,
}

/// What is to be done beside renewing.
struct Due {
    restore_at: Instant,
    resync: bool,
}

impl Due {
    fn now(&mut self) {
        self.restore_at = Instant::now();
        self.resync = true;
    }
}

impl LeaseKeeper {
    /// The thread.
    pub(crate) fn run(self) {
        let mut away = false;
        let mut due = Due {
            restore_at: Instant::now() + RESTORE_INTERVAL,
            resync: false,
        };
        loop {
            let now = Instant::now();
            match self.renew(&mut due) {
                Ok(()) if away => log::info!("the bus is back"),
                Err(error) if !away => log::warn!("proxy {}: {error}; trying on", self.proxy),
                Ok(()) | Err(_) => {}
            }
            away = !self.held.load(Ordering::Acquire);
            let pause = (self.time_to_live / 3).saturating_sub(now.elapsed());
            match self.inbox.recv_timeout(pause) {
                Ok(ToLease::Connected) => due.now(),
                Err(RecvTimeoutError::Timeout) => {}
                Ok(ToLease::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn renew(&self, due: &mut Due) -> Result<(), BusError> {
        let lease = self.bus.renew_lease(self.proxy, self.time_to_live);
        self.held.store(lease.is_ok(), Ordering::Release);
        if lease? == Lease::New {
            log::info!("proxy {}: the lease is new", self.proxy);
            // Meanwhile these users were offline for everybody, and got no pushes.
            due.now();
        }
        if due.restore_at <= Instant::now() {
            self.restore()?;
            due.restore_at = Instant::now() + RESTORE_INTERVAL;
        }
        // After the restore: from then on nothing more is missed.
        if std::mem::take(&mut due.resync) {
            self.resync.start(&self.directory);
        }
        Ok(())
    }

    fn restore(&self) -> Result<(), BusError> {
        // Of a user with two sessions here the newer is the likelier; the bus decides in the end.
        let sessions = self.directory.logged_in();
        let mut newest: HashMap<i32, SessionId> = HashMap::new();
        let mut disputed: HashSet<i32> = HashSet::new();
        for (user, session, _) in &sessions {
            if let Some(other) = newest.insert(*user, *session) {
                disputed.insert(*user);
                newest.insert(*user, other.max(*session));
            }
        }
        let newest: Vec<(i32, u64)> = newest.into_iter().map(|(u, s)| (u, s.0)).collect();
        for some in newest.chunks(RESTORE_MAX) {
            disputed.extend(self.bus.restore(self.proxy, some)?);
            self.release_those_that_left(some)?;
        }
        self.end_replaced(disputed, &sessions)
    }

    /// A session that logged out while it was restored must not stay online.
    fn release_those_that_left(&self, restored: &[(i32, u64)]) -> Result<(), BusError> {
        for &(user, session) in restored {
            if self.directory.session(user, SessionId(session)).is_none() {
                let proxy = self.proxy;
                self.bus.release(user, SessionRef { proxy, session })?;
            }
        }
        Ok(())
    }

    fn end_replaced(
        &self,
        disputed: HashSet<i32>,
        sessions: &[(i32, SessionId, SessionMailbox)],
    ) -> Result<(), BusError> {
        let users: Vec<i32> = disputed.into_iter().collect();
        if users.is_empty() {
            return Ok(());
        }
        let places: HashMap<i32, Option<SessionRef>> = users
            .iter()
            .copied()
            .zip(self.bus.locate(&users)?)
            .collect();
        for (user, session, mailbox) in sessions {
            let Some(&Some(current)) = places.get(user) else {
                continue;
            };
            let own = SessionRef {
                proxy: self.proxy,
                session: session.0,
            };
            if current != own {
                let _ = mailbox.send(ToSession::SignOut {
                    session: *session,
                    reason: SignOut::NewerLogin,
                });
            }
        }
        Ok(())
    }
}
