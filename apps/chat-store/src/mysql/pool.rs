//! A bounded pool of connections that are opened when they are needed.
//!
//! The driver has a pool too, but that one holds its lock while it connects, so that one slow
//! connect stops every worker; and returning a stalled connection to it waits for an answer.

use std::{
    thread,
    time::{Duration, Instant},
};

use mysql::{Conn, Opts};
use parking_lot::{Condvar, Mutex};

use crate::error::DbError;

pub(super) struct Pool {
    opts: Opts,
    on_connect: Box<dyn Fn() + Send + Sync>,
    connections_max: usize,
    wait_max: Duration,
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Default)]
struct State {
    /// The one used last is used next: it has the most statements prepared.
    idle: Vec<Conn>,
    /// Connections in use, and those being opened.
    busy: usize,
}

impl Pool {
    /// `on_connect` is called with each connection that is opened, before its first use.
    pub(super) fn new(
        opts: Opts,
        connections_max: usize,
        wait_max: Duration,
        on_connect: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self {
            opts,
            on_connect: Box::new(on_connect),
            connections_max: connections_max.max(1),
            wait_max,
            state: Mutex::default(),
            freed: Condvar::new(),
        }
    }

    /// Runs work on a connection. One whose work ends with [`DbError::Lost`] or
    /// [`DbError::Unavailable`] is thrown away, and when it was lost so are all that are idle:
    /// whatever ended it, a restart as a rule, has ended them too.
    pub(super) fn with<T>(
        &self,
        work: impl FnOnce(&mut Conn) -> Result<T, DbError>,
    ) -> Result<T, DbError> {
        let mut lease = self.lease()?;
        let conn = match lease.conn.as_mut() {
            Some(conn) => conn,
            None => {
                let conn = connect(&self.opts)?;
                (self.on_connect)();
                lease.conn.insert(conn)
            }
        };
        let result = work(conn);
        match &result {
            Err(DbError::Lost(_)) => {
                let idle = std::mem::take(&mut self.state.lock().idle);
                lease
                    .conn
                    .take()
                    .into_iter()
                    .chain(idle)
                    .for_each(close_aside);
            }
            Err(DbError::Unavailable(_)) => lease.conn.take().into_iter().for_each(close_aside),
            Ok(_)
            | Err(
                DbError::Conflict(_)
                | DbError::NewerSchema { .. }
                | DbError::AlreadyMade(_)
                | DbError::Internal(_),
            ) => {
                lease.healthy = true;
            }
        }
        result
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
            conn: state.idle.pop(),
            healthy: false,
        })
    }
}

pub(super) fn connect(opts: &Opts) -> Result<Conn, DbError> {
    Conn::new(opts.clone())
        .map_err(|error| DbError::Unavailable(format!("cannot connect: {error}")))
}

/// One of the pool's connections, or leave to open one; given back when dropped.
struct Lease<'a> {
    pool: &'a Pool,
    conn: Option<Conn>,
    healthy: bool,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let conn = self.conn.take();
        let mut state = self.pool.state.lock();
        state.busy -= 1;
        if self.healthy {
            state.idle.extend(conn);
        }
        drop(state);
        self.pool.freed.notify_one();
    }
}

/// Closes a connection on a thread of its own: the driver says goodbye to each prepared statement,
/// and on a stalled connection each of these may wait for the write timeout.
fn close_aside(conn: Conn) {
    let closing = thread::Builder::new().name("mysql-close".into());
    if let Err(error) = closing.spawn(move || drop(conn)) {
        log::warn!("no thread to close a broken database connection: {error}");
    }
}
