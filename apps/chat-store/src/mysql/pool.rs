//! A bounded pool of connections that are opened when they are needed.
//!
//! The driver has a pool too, but that one holds its lock while it connects, so that one slow
//! connect stops every worker; and returning a stalled connection to it waits for an answer.
//!
//! The connections are of one [`Generation`], until one of them breaks: then the next one begins, and those that are
//! left of the one before are closed when they are free. One that leads to another server than the first of its
//! generation (the address has moved on, and what was open before stays open) is used, but knows nothing.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use mysql::{Conn, Opts};
use parking_lot::{Condvar, Mutex};

use super::settings::{Settings, Unusable, Variables, which_server};
use crate::{
    error::DbError,
    sql::{Generation, Memberships},
};

pub(super) struct Pool {
    connector: Connector,
    memberships: Arc<Memberships>,
    connections_max: usize,
    wait_max: Duration,
    state: Mutex<State>,
    freed: Condvar,
}

/// A connection.
pub(super) struct Link {
    pub(super) conn: Conn,
    /// When it was opened.
    opened_in: Generation,
    /// Whose memory it may use.
    pub(super) generation: Generation,
}

struct State {
    /// The one used last is used next: it has the most statements prepared.
    idle: Vec<Link>,
    /// Connections in use, and those being opened.
    busy: usize,
    generation: Generation,
    /// Where the first of the generation leads to.
    server: Option<String>,
}

impl State {
    /// The generation of a connection to `server`, which was just opened.
    fn join(&mut self, server: String) -> Generation {
        match self.server.get_or_insert_with(|| server.clone()) == &server {
            true => self.generation,
            false => Generation::NONE,
        }
    }

    /// A connection broke that was opened in `generation`. Returns the new generation, if that begins one.
    fn broke(&mut self, generation: Generation) -> Option<Generation> {
        if generation != self.generation {
            return None;
        }
        self.generation = generation.next();
        self.server = None;
        Some(self.generation)
    }
}

impl Pool {
    /// `memberships` is told when a generation begins.
    pub(super) fn new(
        connector: Connector,
        connections_max: usize,
        wait_max: Duration,
        memberships: Arc<Memberships>,
    ) -> Self {
        Self {
            connector,
            memberships,
            connections_max: connections_max.max(1),
            wait_max,
            state: Mutex::new(State {
                idle: Vec::new(),
                busy: 0,
                generation: Generation::FIRST,
                server: None,
            }),
            freed: Condvar::new(),
        }
    }

    /// Runs work on a connection. One whose work ends with [`DbError::Lost`], [`DbError::Unavailable`] or
    /// [`DbError::Uncertain`] is thrown away, and so are all that are idle: whatever ended it, a restart or a
    /// fail-over as a rule, has ended them too.
    pub(super) fn with<T>(
        &self,
        work: impl FnOnce(&mut Link) -> Result<T, DbError>,
    ) -> Result<T, DbError> {
        let mut lease = self.lease()?;
        let link = match lease.link.as_mut() {
            Some(link) => link,
            None => lease.link.insert(self.open()?),
        };
        let opened_in = link.opened_in;
        let result = work(link);
        match &result {
            Err(DbError::Lost(_) | DbError::Unavailable(_) | DbError::Uncertain(_)) => {
                let idle = self.broke(opened_in);
                lease
                    .link
                    .take()
                    .into_iter()
                    .chain(idle)
                    .for_each(close_aside);
            }
            Ok(_)
            | Err(
                DbError::Conflict(_)
                | DbError::KeyTaken(_)
                | DbError::Interrupted(_)
                | DbError::NewerSchema { .. }
                | DbError::AlreadyMade(_)
                | DbError::TooLate
                | DbError::Displaced
                | DbError::Shrunk
                | DbError::Internal(_),
            ) => {
                lease.healthy = true;
            }
        }
        result
    }

    fn open(&self) -> Result<Link, DbError> {
        let (conn, variables) = self.connector.connect()?;
        let mut state = self.state.lock();
        Ok(Link {
            conn,
            opened_in: state.generation,
            generation: state.join(which_server(&variables)),
        })
    }

    /// Returns what is to be closed beside the connection that broke.
    fn broke(&self, opened_in: Generation) -> Vec<Link> {
        let mut state = self.state.lock();
        match state.broke(opened_in) {
            Some(next) => {
                self.memberships.begin(next);
                std::mem::take(&mut state.idle)
            }
            // The others were closed then.
            None => Vec::new(),
        }
    }

    /// An idle connection, or leave to open one.
    fn lease(&self) -> Result<Lease<'_>, DbError> {
        let deadline = Instant::now() + self.wait_max;
        let mut state = self.state.lock();
        while state.busy >= self.connections_max {
            if self.freed.wait_until(&mut state, deadline).timed_out() {
                return Err(DbError::Unavailable("all connections are in use".into()));
            }
        }
        state.busy += 1;
        Ok(Lease {
            pool: self,
            link: state.idle.pop(),
            healthy: false,
        })
    }
}

/// How connections are made.
pub(super) struct Connector {
    opts: Opts,
    settings: Settings,
    /// Why the last connection was refused.
    refused: Mutex<Option<String>>,
}

impl Connector {
    pub(super) fn new(opts: Opts, settings: Settings) -> Self {
        Self {
            opts,
            settings,
            refused: Mutex::default(),
        }
    }

    /// Opens a connection and sets its session.
    pub(super) fn connect(&self) -> Result<(Conn, Variables), DbError> {
        let mut conn = Conn::new(self.opts.clone())
            .map_err(|error| DbError::Unavailable(format!("cannot connect: {error}")))?;
        match self.settings.apply(&mut conn) {
            Ok(variables) => {
                *self.refused.lock() = None;
                Ok((conn, variables))
            }
            Err(Unusable::Refused(reason)) => {
                self.note_refusal(&reason);
                Err(DbError::Unavailable(reason))
            }
            Err(Unusable::Failed(error)) => Err(error.in_context("setting a session")),
        }
    }

    /// Once, until it changes: somebody has to change the configuration.
    fn note_refusal(&self, reason: &str) {
        let mut noted = self.refused.lock();
        if noted.as_deref() != Some(reason) {
            log::error!("{reason}");
            *noted = Some(reason.to_owned());
        }
    }
}

/// One of the pool's connections, or leave to open one; given back when dropped.
struct Lease<'a> {
    pool: &'a Pool,
    link: Option<Link>,
    healthy: bool,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.state.lock();
        state.busy -= 1;
        let current = state.generation;
        let is_kept = |link: &mut Link| self.healthy && link.opened_in == current;
        state.idle.extend(self.link.take_if(is_kept));
        drop(state);
        self.pool.freed.notify_one();
        self.link.take().into_iter().for_each(close_aside);
    }
}

/// Closes a connection on a thread of its own: the driver says goodbye to each prepared statement,
/// and on a stalled connection each of these may wait for the write timeout.
fn close_aside(link: Link) {
    let closing = thread::Builder::new().name("mysql-close".into());
    if let Err(error) = closing.spawn(move || drop(link)) {
        log::warn!("no thread to close a broken database connection: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_ends_once_and_has_one_server() {
        let first = Generation::FIRST;
        let mut state = State {
            idle: Vec::new(),
            busy: 0,
            generation: first,
            server: None,
        };
        assert_eq!(state.join("1 a 3306".into()), first);
        assert_eq!(state.join("1 a 3306".into()), first);
        // The address leads elsewhere now, and nobody has noticed.
        assert_eq!(state.join("2 b 3306".into()), Generation::NONE);
        let second = state.broke(first).unwrap();
        assert_ne!(second, first);
        assert_eq!(state.join("2 b 3306".into()), second);
        // One more of those from before.
        assert_eq!(state.broke(first), None);
        assert_eq!(state.join("2 b 3306".into()), second);
    }
}
