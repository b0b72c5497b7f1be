//! Logs out whose connection has closed, as often as it takes.
//!
//! One thread calls the service, a bounded number at a time. Where the service stays away the thread
//! makes the user offline on the bus itself, so that nobody stays online who has gone.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chat_bus::{Bus, NO_NUMBER, ProxyId, SessionRef};
use chat_proto::conversation::UserId;
use chat_proto::ids::code;
use chat_proto::messages::LogoutRequest;
use parking_lot::{Condvar, Mutex};

use crate::directory::SessionId;
use crate::services::Services;

/// Calls at a time.
const BATCH_MAX: usize = 256;
/// Calls for one session before the bus is asked instead.
const ATTEMPTS_MAX: u32 = 5;
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// So many may wait; doubtful ones beyond it are left to the next login of their user.
const DOUBTFUL_MAX: usize = 100_000;
/// Attempts on the bus after those on the service. Then the session is left to the next login.
const BUS_ATTEMPTS_MAX: u32 = 100;

/// The sessions to be logged out. From any thread.
#[derive(Default)]
pub(crate) struct Logouts {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Not bounded by itself, but for the doubtful ones: each is a session that was counted by the limit
    /// of connections.
    waiting: VecDeque<Logout>,
    in_work: usize,
    stop: bool,
}

#[derive(Clone)]
struct Logout {
    user: UserId,
    session: SessionId,
    /// What the session could be resumed with, if that is to end too; else empty.
    token: Bytes,
    attempts: u32,
    not_before: Instant,
}

impl Logouts {
    /// Logs the session out.
    pub(crate) fn add(&self, user: UserId, session: SessionId) {
        self.add_final(user, session, Bytes::new());
    }

    /// Logs a session out that is not to be resumed. Should the service stay away, its token is left to
    /// expire.
    pub(crate) fn add_final(&self, user: UserId, session: SessionId, token: Bytes) {
        self.insert(&mut self.state.lock(), Duration::ZERO, user, session, token);
    }

    /// Logs a session out whose login failed and may have made the user online all the same, or may do
    /// so within `delay`.
    pub(crate) fn add_doubtful(&self, delay: Duration, user: UserId, session: SessionId) {
        let mut state = self.state.lock();
        match state.waiting.len() < DOUBTFUL_MAX {
            true => self.insert(&mut state, delay, user, session, Bytes::new()),
            false => log::debug!("session {}: nobody makes sure that it is over", session.0),
        }
    }

    fn insert(
        &self,
        state: &mut State,
        delay: Duration,
        user: UserId,
        session: SessionId,
        token: Bytes,
    ) {
        state.waiting.push_back(Logout {
            user,
            session,
            token,
            attempts: 0,
            not_before: Instant::now() + delay,
        });
        self.changed.notify_all();
    }

    /// Starts the thread.
    pub(crate) fn start(
        self: &Arc<Self>,
        services: Arc<Services>,
        bus: Arc<dyn Bus>,
        proxy: ProxyId,
    ) -> std::io::Result<JoinHandle<()>> {
        let logouts = Arc::clone(self);
        thread::Builder::new()
            .name("proxy-logouts".to_owned())
            .spawn(move || logouts.run(&services, &*bus, proxy))
    }

    /// Waits until nothing is left, or until the deadline; returns how many are left.
    pub(crate) fn wait_idle(&self, deadline: Instant) -> usize {
        let mut state = self.state.lock();
        while state.left() > 0 {
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        state.left()
    }

    /// Ends the thread after what it is at.
    pub(crate) fn stop(&self) {
        self.state.lock().stop = true;
        self.changed.notify_all();
    }

    fn run(&self, services: &Services, bus: &dyn Bus, proxy: ProxyId) {
        let mut backoff = FIRST_BACKOFF;
        while let Some(batch) = self.take() {
            let failed = log_out(services, bus, proxy, batch);
            backoff = match failed.is_empty() {
                true => FIRST_BACKOFF,
                false => (backoff * 2).min(BACKOFF_MAX),
            };
            self.done(failed, backoff);
        }
    }

    /// The next ones that are due; `None`: the thread is to end.
    fn take(&self) -> Option<Vec<Logout>> {
        let mut state = self.state.lock();
        loop {
            if state.stop {
                return None;
            }
            let now = Instant::now();
            let mut batch = Vec::new();
            let mut next = None;
            state.waiting.retain(|logout| {
                let due = logout.not_before <= now && batch.len() < BATCH_MAX;
                match due {
                    true => batch.push(logout.clone()),
                    false => {
                        next = Some(
                            next.map_or(logout.not_before, |n: Instant| n.min(logout.not_before)),
                        )
                    }
                }
                !due
            });
            if !batch.is_empty() {
                state.in_work = batch.len();
                return Some(batch);
            }
            match next {
                Some(next) => {
                    self.changed.wait_until(&mut state, next);
                }
                None => self.changed.wait(&mut state),
            }
        }
    }

    fn done(&self, failed: Vec<Logout>, backoff: Duration) {
        let not_before = Instant::now() + backoff;
        let mut state = self.state.lock();
        state.in_work = 0;
        state
            .waiting
            .extend(failed.into_iter().map(|logout| Logout {
                attempts: logout.attempts + 1,
                not_before,
                ..logout
            }));
        self.changed.notify_all();
    }
}

impl State {
    fn left(&self) -> usize {
        self.waiting.len() + self.in_work
    }
}

/// Logs `batch` out; returns what is to be tried again.
fn log_out(services: &Services, bus: &dyn Bus, proxy: ProxyId, batch: Vec<Logout>) -> Vec<Logout> {
    let (by_service, by_bus): (Vec<_>, Vec<_>) = batch
        .into_iter()
        .partition(|logout| logout.attempts < ATTEMPTS_MAX);
    let calls: Vec<_> = by_service
        .into_iter()
        .map(|logout| {
            let user_id = logout.user.get();
            let options = services.session(user_id, logout.session, NO_NUMBER);
            let request = LogoutRequest {
                user_id,
                session_token: logout.token.clone(),
            };
            (logout, services.user.logout_with(&request, options))
        })
        .collect();
    let mut failed = Vec::new();
    for (logout, call) in calls {
        match call.wait() {
            Ok(reply) if reply.message.error_code == code::SUCCESS => {}
            Ok(_) | Err(_) => failed.push(logout),
        }
    }
    for logout in by_bus {
        let (user, session) = (logout.user.get(), logout.session.0);
        if let Err(error) = bus.release(user, SessionRef { proxy, session }) {
            if logout.attempts < ATTEMPTS_MAX + BUS_ATTEMPTS_MAX {
                failed.push(logout);
            } else {
                log::error!("session {session} cannot be logged out: {error}");
            }
        }
    }
    failed
}
