//! Keeps the proxy's lease on the bus, and with it its users online.
//!
//! One thread, as the bus may block. Whenever presence may have been lost or changed without this proxy
//! hearing of it, all sessions are restored, and those that the bus gives to another session end.
//!
//! While the bus is away, pushes cannot arrive. The sessions then fetch what is pending once a second, or as often as
//! the services can take.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use chat_bus::{Bus, BusError, Claim, Lease, LoginPolicy, ProxyId, SessionRef};
use chat_proto::messages::{BusMessage, EndSession};
use prost::Message as _;

use crate::directory::{Directory, SessionId, SessionMailbox};
use crate::resync::Resync;
use crate::session::{SignOut, ToSession};

/// Presence is compared with the bus at least this often.
const RESTORE_INTERVAL: Duration = Duration::from_secs(120);
/// Sessions restored in one go.
const RESTORE_MAX: usize = 5_000;
/// A restore that failed is not tried again before.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// How often sessions fetch while the bus is away.
const FETCH_INTERVAL: Duration = Duration::from_secs(1);

/// What others tell the thread.
#[derive(Debug)]
pub(crate) enum ToLease {
    /// The subscription stands (again): presence may be lost, messages may have been missed.
    Connected,
    /// The subscription is lost: no message arrives.
    Lost,
    /// A session began that its server could not make known to the bus.
    Unclaimed {
        /// The session's user.
        user: i32,
        /// Which one.
        session: SessionId,
    },
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
    /// Sessions that the bus does not know; of a user the newest. No more than there are connections.
    unclaimed: HashMap<i32, SessionId>,
    /// With the next restore.
    resync: bool,
    /// The subscription stands.
    hears: bool,
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
            unclaimed: HashMap::new(),
            resync: false,
            hears: false,
        };
        let mut fetch_at = Instant::now();
        loop {
            let began = Instant::now();
            match self.renew(&mut due) {
                Ok(()) if away => log::info!("the bus is back"),
                Err(error) if !away => log::warn!("proxy {}: {error}; trying on", self.proxy),
                Ok(()) | Err(_) => {}
            }
            away = !self.held.load(Ordering::Acquire);
            let now = Instant::now();
            let mut pause = (self.time_to_live / 3).saturating_sub(now - began);
            if away || !due.hears {
                if fetch_at <= now {
                    self.resync.start_if_idle(&self.directory);
                    fetch_at = now + FETCH_INTERVAL;
                }
                pause = pause.min(FETCH_INTERVAL);
            } else {
                let restore_in = due.restore_at.saturating_duration_since(now);
                pause = pause.min(restore_in.max(RETRY_PAUSE));
            }
            match self.inbox.recv_timeout(pause) {
                Ok(ToLease::Connected) => {
                    due.hears = true;
                    due.now();
                }
                Ok(ToLease::Lost) => due.hears = false,
                Ok(ToLease::Unclaimed { user, session }) => {
                    due.unclaimed.insert(user, session);
                }
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
        // Before the restore, to which what others have is another's.
        self.claim(&mut due.unclaimed)?;
        if due.restore_at <= Instant::now() {
            self.restore()?;
            due.restore_at = Instant::now() + RESTORE_INTERVAL;
            // After the restore: from then on nothing more is missed.
            if std::mem::take(&mut due.resync) {
                self.resync.start(&self.directory);
            }
        }
        Ok(())
    }

    /// Makes sessions known that began while the bus was away. Each is newer than what the bus knows of its user,
    /// or as good as: two that began while it was away cannot be put in order.
    fn claim(&self, unclaimed: &mut HashMap<i32, SessionId>) -> Result<(), BusError> {
        while let Some((&user, &session)) = unclaimed.iter().next() {
            if let Some(mailbox) = self.directory.session(user, session) {
                let place = SessionRef {
                    proxy: self.proxy,
                    session: session.0,
                };
                let claim = self.bus.claim(user, place, LoginPolicy::NewerWins)?;
                if let Claim::Granted {
                    previous: Some(previous),
                } = claim
                {
                    self.end(user, previous)?;
                }
                self.release_those_that_left(&[(user, session.0)])?;
                // What was pushed before did not come here.
                self.resync.add(session, mailbox);
            }
            unclaimed.remove(&user);
        }
        Ok(())
    }

    /// Tells the proxy of a session that the user has a newer one.
    fn end(&self, user_id: i32, replaced: SessionRef) -> Result<(), BusError> {
        let message = BusMessage {
            end_sessions: vec![EndSession {
                user_id,
                session_id: replaced.session,
                resumed: false,
            }],
            ..Default::default()
        };
        let message = message.encode_to_vec().into();
        self.bus.publish(&[(replaced.proxy, message)])
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
