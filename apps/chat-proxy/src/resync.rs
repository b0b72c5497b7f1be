//! Has sessions fetch what they may have missed, a few at a time.
//!
//! All of them do while the bus is away, over and over, and once more when it is back; and each does now and then by
//! itself: a push may also be lost where no proxy notices, between the servers and the bus.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::directory::{Directory, SessionId, SessionMailbox};
use crate::session::ToSession;

/// Sessions that fetch at a time: enough to be quick, not so many that the services feel it.
const RUNNING_MAX: usize = 64;

/// The sessions that have yet to be resynced.
#[derive(Debug, Default)]
pub(crate) struct Resync {
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<(SessionId, SessionMailbox)>,
    running: usize,
}

/// Leave for one session to fetch; dropped when it has, or when it ends, which is when the next one
/// begins.
#[derive(Debug)]
pub(crate) struct Permit(Option<Arc<Resync>>);

impl Resync {
    /// Starts over with all sessions of `directory`.
    pub(crate) fn start(self: &Arc<Self>, directory: &Directory) {
        let sessions = directory.logged_in().into_iter();
        let all = sessions.map(|(held, mailbox)| (SessionId(held.session), mailbox));
        let all: VecDeque<_> = all.collect();
        let replaced = std::mem::replace(&mut self.queue.lock().waiting, all);
        // Not under the lock: a mailbox may hold a permit.
        drop(replaced);
        self.go_on();
    }

    /// Starts over, unless the last time is not over yet: then those who were last would never be served.
    pub(crate) fn start_if_idle(self: &Arc<Self>, directory: &Directory) {
        let idle = self.queue.lock().waiting.is_empty();
        if idle {
            self.start(directory);
        }
    }

    /// One session's turn has come. It must not ask again before it got its permit.
    pub(crate) fn add(self: &Arc<Self>, session: SessionId, mailbox: SessionMailbox) {
        self.queue.lock().waiting.push_back((session, mailbox));
        self.go_on();
    }

    fn go_on(self: &Arc<Self>) {
        while let Some((session, mailbox)) = self.next() {
            let permit = Permit(Some(Arc::clone(self)));
            if let Err(ToSession::Resync { mut permit, .. }) =
                mailbox.send(ToSession::Resync { session, permit })
            {
                // Given back here and not by its drop, which would come back in here.
                permit.0 = None;
                self.queue.lock().running -= 1;
            }
        }
    }

    fn next(&self) -> Option<(SessionId, SessionMailbox)> {
        let mut queue = self.queue.lock();
        if queue.running >= RUNNING_MAX {
            return None;
        }
        let next = queue.waiting.pop_front()?;
        queue.running += 1;
        Some(next)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(resync) = self.0.take() {
            resync.queue.lock().running -= 1;
            resync.go_on();
        }
    }
}
