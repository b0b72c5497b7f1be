//! The load itself: all users on one loop.
//!
//! ```text
//!   Load (any thread) ── lock ──► State ◄── lock ── UserConnection, one per connection (the loop)
//!                                   ▲
//!                                   └────── lock ── tick, every millisecond (the loop)
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | [`Load`]: the handle |
//! | `state` | what is known and decided: turns, who connects when; `heard`: what frames tell |
//! | `user` | one user's letters and acknowledgements |
//! | `connection` | the handler of one connection, and the tick |
//!
//! The lock is taken by the loop's thread, and by the handle to look. Who needs more than one core for the
//! load runs several processes; a conversation never spans two.

mod connection;
mod state;
mod user;

use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus_net::{ClientTls, LoopGroup};
use parking_lot::Mutex;

use self::state::{Phase, State};
use crate::checker::Verdict;
use crate::options::LoadOptions;
use crate::report::Report;
use crate::roster::Roster;
use crate::tally::Timeline;

/// A load cannot be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// No address to connect to.
    #[error("no address to connect to")]
    NoAddress,
    /// The loop cannot be started, or has stopped.
    #[error(transparent)]
    Net(#[from] nexus_net::Error),
}

/// How far a load is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Progress {
    /// All users.
    pub users: usize,
    /// Users who are logged in now.
    pub logged_in: usize,
    /// Messages acknowledged so far.
    pub acknowledged: u64,
    /// Arrivals of messages at recipients who had not seen them.
    pub delivered: u64,
    /// Messages that are due and not acknowledged.
    pub unacknowledged: usize,
    /// For how long the oldest of them has been due.
    pub oldest_unacknowledged: Duration,
    /// Deliveries of acknowledged messages that are still to come.
    pub owed: u64,
    /// Connections that ended and were made anew.
    pub reconnects: u64,
}

/// A running load. Dropping it closes all connections.
///
/// ```text
/// start ─► wait_entered ─► begin ─► … ─► end_sending ─► drain ─► report
/// ```
pub struct Load {
    shared: Arc<Shared>,
    _loops: LoopGroup,
}

/// What the loop and the handle share.
struct Shared {
    epoch: Instant,
    tls: Option<ClientTls>,
    state: Mutex<State>,
}

impl Shared {
    fn now_us(&self) -> u64 {
        self.epoch.elapsed().as_micros() as u64
    }
}

impl Load {
    /// Starts to connect and log in all users. Sends nothing yet.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn start(options: LoadOptions, roster: &Roster) -> Result<Self, LoadError> {
        if options.connect.is_empty() {
            return Err(LoadError::NoAddress);
        }
        let shared = Arc::new(Shared {
            epoch: Instant::now(),
            tls: options.tls.clone(),
            state: Mutex::new(State::new(options, roster)),
        });
        let loops = LoopGroup::start("load", 1)?;
        let on_loop = Arc::clone(&shared);
        loops
            .next()
            .post(move |context| connection::tick(on_loop, context))
            .map_err(|_| nexus_net::Error::LoopGone)?;
        Ok(Self {
            shared,
            _loops: loops,
        })
    }

    /// The moment that times in a [`Timeline`] count from.
    pub fn epoch(&self) -> Instant {
        self.shared.epoch
    }

    /// Waits until every user is logged in; `false` when that takes longer than `deadline`.
    pub fn wait_entered(&self, deadline: Duration) -> bool {
        self.wait(deadline, |progress| progress.logged_in == progress.users)
    }

    /// Begins to send. What is due after `warm_up` is measured.
    pub fn begin(&self, warm_up: Duration) {
        let now_us = self.shared.now_us();
        let mut state = self.shared.state.lock();
        state.begin(now_us, now_us + warm_up.as_micros() as u64);
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        let now_us = self.shared.now_us();
        self.shared.state.lock().progress(now_us)
    }

    /// How far the slowest conversation is, counted from the epoch: everything that was due up to then is
    /// acknowledged and has reached everybody. Zero while a conversation has had nothing yet.
    pub fn settled(&self) -> Duration {
        Duration::from_micros(self.shared.state.lock().settled_us())
    }

    /// Ends the sending of new messages, and the measuring.
    pub fn end_sending(&self) {
        let now_us = self.shared.now_us();
        self.shared.state.lock().end_sending(now_us);
    }

    /// Waits until every message that was due is acknowledged and everything acknowledged has arrived;
    /// `false` when that takes longer than `deadline`.
    pub fn drain(&self, deadline: Duration) -> bool {
        self.wait(deadline, |progress| {
            progress.unacknowledged == 0 && progress.owed == 0
        })
    }

    /// What the checker has found so far.
    pub fn verdict(&self) -> Verdict {
        self.shared.state.lock().verdict()
    }

    /// When what was acknowledged and delivered.
    pub fn timeline(&self) -> Timeline {
        self.shared.state.lock().tally.timeline.clone()
    }

    /// Everything that was counted and found.
    pub fn report(&self) -> Report {
        self.shared.state.lock().report()
    }

    fn wait(&self, deadline: Duration, is_done: impl Fn(&Progress) -> bool) -> bool {
        let until = Instant::now() + deadline;
        loop {
            if is_done(&self.progress()) {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.state.lock().phase = Phase::Over;
    }
}
