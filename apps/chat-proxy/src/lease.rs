//! Keeps the proxy's lease on the bus, and with it its users online.
//!
//! One thread, as the bus may block. Whenever presence may have been lost or changed without this proxy hearing of it,
//! the bus is compared with the sessions here: entries without a session are removed, and all sessions are restored.
//! Those that began while the bus was away are restored as soon as it is there. Sessions whose users the bus gives to
//! others end, wherever they are: the bus puts logins in order.
//!
//! While the bus is away, pushes cannot arrive. The sessions then fetch what is pending once a second, or as often as
//! the services can take.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use chat_bus::{Bus, BusError, HeldSession, Lease, ProxyId, Restored, SessionRef};
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
    /// Sessions that the bus does not know; of a user the newest.
    unclaimed: HashMap<i32, SessionId>,
    /// Users of this proxy whom another proxy has on the bus, and since when.
    disputed: HashMap<i32, Instant>,
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
            disputed: HashMap::new(),
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
                    self.note_unclaimed(&mut due.unclaimed, user, session);
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
            // Meanwhile these users were perhaps offline for everybody, and got no pushes.
            due.now();
        }
        self.claim(&mut due.unclaimed)?;
        if due.restore_at <= Instant::now() {
            self.remove_ended()?;
            self.restore(&mut due.disputed)?;
            let interval = match due.disputed.is_empty() {
                true => RESTORE_INTERVAL,
                false => self.time_to_live / 4,
            };
            due.restore_at = Instant::now() + interval;
            // After the restore: from then on nothing more is missed.
            if std::mem::take(&mut due.resync) {
                self.resync.start(&self.directory);
            }
        }
        Ok(())
    }

    /// Of two logins of one user here the older is over.
    fn note_unclaimed(
        &self,
        unclaimed: &mut HashMap<i32, SessionId>,
        user: i32,
        session: SessionId,
    ) {
        let Some((held, mailbox)) = self.directory.held(user, session) else {
            return;
        };
        let before = unclaimed.get(&user);
        match before.and_then(|&before| self.directory.held(user, before)) {
            Some((before, _)) if before.login > held.login => return sign_out(&held, &mailbox),
            Some((before, mailbox)) => sign_out(&before, &mailbox),
            None => {}
        }
        unclaimed.insert(user, session);
    }

    /// Makes sessions known that began while the bus was away.
    fn claim(&self, unclaimed: &mut HashMap<i32, SessionId>) -> Result<(), BusError> {
        while !unclaimed.is_empty() {
            let some = unclaimed.iter().take(RESTORE_MAX);
            let some: Vec<_> = some.map(|(&user, &session)| (user, session)).collect();
            let here = some.iter().copied();
            let here = here.filter_map(|(user, session)| self.directory.held(user, session));
            let (held, mailboxes): (Vec<_>, Vec<_>) = here.unzip();
            let restored = self.restore_some(&held)?;
            let lost: HashSet<i32> = restored
                .taken
                .into_iter()
                .chain(restored.outdated)
                .collect();
            for (held, mailbox) in held.iter().zip(mailboxes) {
                match lost.contains(&held.user) {
                    true => sign_out(held, &mailbox),
                    // What was pushed before did not come here.
                    false => self.resync.add(SessionId(held.session), mailbox),
                }
            }
            for (user, _) in some {
                unclaimed.remove(&user);
            }
        }
        Ok(())
    }

    /// Removes the entries of sessions that have ended: the bus may have gone back to a state in which they had not. A
    /// login is in the directory before its session is claimed.
    fn remove_ended(&self) -> Result<(), BusError> {
        let directory = &self.directory;
        let is_held = |user, session| directory.session(user, SessionId(session)).is_some();
        let removed = self.bus.retain(self.proxy, &is_held)?;
        if removed > 0 {
            let proxy = self.proxy;
            log::info!("proxy {proxy}: {removed} users were online in sessions that have ended");
        }
        Ok(())
    }

    fn restore(&self, disputed: &mut HashMap<i32, Instant>) -> Result<(), BusError> {
        // Of a user with two sessions here, that of the newer login; the bus decides in the end.
        let sessions = self.directory.logged_in();
        let mut newest: HashMap<i32, HeldSession> = HashMap::new();
        let mut contested: HashSet<i32> = HashSet::new();
        for &(held, _) in &sessions {
            match newest.entry(held.user) {
                Entry::Vacant(vacant) => {
                    vacant.insert(held);
                }
                Entry::Occupied(mut other) => {
                    contested.insert(held.user);
                    if (held.login, held.session) > (other.get().login, other.get().session) {
                        other.insert(held);
                    }
                }
            }
        }
        let restoring: Vec<HeldSession> = newest.values().copied().collect();
        let mut outdated: HashSet<i32> = HashSet::new();
        for some in restoring.chunks(RESTORE_MAX) {
            let restored = self.restore_some(some)?;
            contested.extend(restored.taken);
            outdated.extend(restored.outdated);
        }
        for (held, mailbox) in &sessions {
            if outdated.contains(&held.user) && newest.get(&held.user) == Some(held) {
                sign_out(held, mailbox);
            }
        }
        self.end_replaced(contested, &sessions, disputed)
    }

    /// Restores sessions, and tells the proxies of those that lost their users to them.
    fn restore_some(&self, held: &[HeldSession]) -> Result<Restored, BusError> {
        let restored = self.bus.restore(self.proxy, held)?;
        self.end(&restored.replaced)?;
        self.release_those_that_left(held)?;
        Ok(restored)
    }

    /// Tells the proxies of sessions that their users have newer ones.
    fn end(&self, replaced: &[(i32, SessionRef)]) -> Result<(), BusError> {
        let mut messages: HashMap<ProxyId, BusMessage> = HashMap::new();
        for &(user_id, session) in replaced {
            let message = messages.entry(session.proxy).or_default();
            message.end_sessions.push(EndSession {
                user_id,
                session_id: session.session,
                resumed: false,
            });
        }
        let messages: Vec<_> = messages
            .into_iter()
            .map(|(proxy, message)| (proxy, message.encode_to_vec().into()))
            .collect();
        self.bus.publish(&messages)
    }

    /// A session that logged out while it was restored must not stay online.
    fn release_those_that_left(&self, restored: &[HeldSession]) -> Result<(), BusError> {
        for &HeldSession { user, session, .. } in restored {
            if self.directory.session(user, SessionId(session)).is_none() {
                let proxy = self.proxy;
                self.bus.release(user, SessionRef { proxy, session })?;
            }
        }
        Ok(())
    }

    /// Ends the sessions whose users others have. Another proxy has a user for good only when it still does after the
    /// life of a lease: right after the bus went back to an older state it may be one whose session has moved here since.
    /// By then that proxy has compared, or has no lease.
    fn end_replaced(
        &self,
        contested: HashSet<i32>,
        sessions: &[(HeldSession, SessionMailbox)],
        disputed: &mut HashMap<i32, Instant>,
    ) -> Result<(), BusError> {
        let users: Vec<i32> = contested.into_iter().collect();
        let places: HashMap<i32, Option<SessionRef>> = match users.is_empty() {
            true => HashMap::new(),
            false => users
                .iter()
                .copied()
                .zip(self.bus.locate(&users)?)
                .collect(),
        };
        let now = Instant::now();
        let is_elsewhere = |user: &i32| {
            let place = places.get(user).copied().flatten();
            place.is_some_and(|place| place.proxy != self.proxy)
        };
        disputed.retain(|user, _| is_elsewhere(user));
        for user in users.iter().filter(|user| is_elsewhere(user)) {
            disputed.entry(*user).or_insert(now);
        }
        for (held, mailbox) in sessions {
            let Some(&Some(current)) = places.get(&held.user) else {
                continue;
            };
            let own = SessionRef {
                proxy: self.proxy,
                session: held.session,
            };
            let for_good = match disputed.get(&held.user) {
                Some(&since) => now.saturating_duration_since(since) >= self.time_to_live,
                None => true,
            };
            if current != own && for_good {
                sign_out(held, mailbox);
            }
        }
        Ok(())
    }
}

fn sign_out(held: &HeldSession, mailbox: &SessionMailbox) {
    let _ = mailbox.send(ToSession::SignOut {
        session: SessionId(held.session),
        reason: SignOut::NewerLogin,
    });
}
