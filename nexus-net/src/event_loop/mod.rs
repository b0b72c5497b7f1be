//! The loop itself: the order of a turn.
//!
//! `reading`, `handshake` and `lifecycle` drive the connections in it; `waiting` knows what comes between two.

mod handshake;
mod lifecycle;
mod reading;
mod waiting;

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Poll};

pub use self::waiting::LoopOptions;
use self::waiting::Waiting;
use crate::connection::Phase;
use crate::core::{Core, Due, LoopContext, WAKER, listener_index};
use crate::handle::{Inbox, Task, mark_loop_thread};
use crate::{CloseReason, Connection, Error, Handler, LoopHandle};

const EVENTS_PER_POLL: usize = 1024;
/// Tasks run in one turn before the connections get theirs.
const TASKS_PER_TURN: usize = 4096;

/// One event loop. Not `Send`: it stays on the thread that made it.
///
/// A turn is, in this order: poll; read, connect and accept what is ready; run posted tasks (a
/// bounded number); fire timers; write what connections have queued, with vectored writes and a
/// bounded number of bytes each; free what has ended. Only a large answer to what was read is written
/// right behind its handler, while it is in the cache. A turn that leaves work behind is followed by
/// one that does not sleep.
pub struct EventLoop {
    poll: Poll,
    events: Events,
    waiting: Waiting,
    core: Core,
    /// By connection index; `None` while borrowed.
    handlers: Vec<Option<Box<dyn Handler>>>,
    tasks: Vec<Task>,
    /// Tasks taken from the inbox and left over from earlier turns.
    backlog: VecDeque<Task>,
    /// Makes the type neither `Send` nor `Sync`.
    _on_this_thread: std::marker::PhantomData<*const ()>,
}

impl EventLoop {
    /// A loop for the calling thread, with default options.
    ///
    /// # Errors
    /// [`Error::Loop`] when the system has no descriptors left for it.
    pub fn new() -> Result<Self, Error> {
        Self::with_options(&LoopOptions::default())
    }

    /// A loop for the calling thread.
    ///
    /// # Errors
    /// [`Error::Loop`] when the system has no descriptors left for it.
    pub fn with_options(options: &LoopOptions) -> Result<Self, Error> {
        let poll = Poll::new().map_err(Error::Loop)?;
        let waker = mio::Waker::new(poll.registry(), WAKER).map_err(Error::Loop)?;
        let registry = poll.registry().try_clone().map_err(Error::Loop)?;
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS_PER_POLL),
            waiting: Waiting::new(options),
            core: Core::new(registry, Arc::new(Inbox::new(waker))),
            handlers: Vec::new(),
            tasks: Vec::new(),
            backlog: VecDeque::new(),
            _on_this_thread: std::marker::PhantomData,
        })
    }

    /// A way into this loop for other threads.
    pub fn handle(&self) -> LoopHandle {
        self.core.handle()
    }

    /// The loop, to connect or to start timers before it runs.
    pub fn context(&mut self) -> LoopContext<'_> {
        LoopContext {
            core: &mut self.core,
        }
    }

    /// Runs until [`LoopHandle::stop`]; then every connection is closed.
    ///
    /// # Errors
    /// [`Error::Loop`] when polling fails, which the kernel does only for a broken descriptor.
    pub fn run(mut self) -> Result<(), Error> {
        mark_loop_thread(true);
        let result = loop {
            if let Err(error) = self.poll() {
                break Err(Error::Loop(error));
            }
            self.turn();
            if self.core.inbox.stopping() {
                break Ok(());
            }
        };
        self.stop();
        mark_loop_thread(false);
        result
    }

    // ---- the phases of a turn ----

    fn poll(&mut self) -> io::Result<()> {
        if self.has_work() {
            return self.poll_for(Some(Duration::ZERO));
        }
        if !self.waiting.may_look() {
            return self.sleep();
        }
        let began = Instant::now();
        if !self.look_around(began)? {
            self.sleep()?;
        }
        self.waiting.waited(began.elapsed());
        Ok(())
    }

    /// Polls again and again for as long as that is likely to find something; whether it has.
    fn look_around(&mut self, began: Instant) -> io::Result<bool> {
        let look_for = self.waiting.look_for();
        let mut now = began;
        while now.saturating_duration_since(began) < look_for {
            self.poll_for(Some(Duration::ZERO))?;
            // Nobody wakes the loop for what is posted now.
            if !self.events.is_empty() || self.core.inbox.has_work() {
                return Ok(true);
            }
            let before = now;
            std::thread::yield_now();
            now = Instant::now();
            if now.saturating_duration_since(before) > look_for {
                self.waiting.gave_way();
                break;
            }
        }
        Ok(false)
    }

    fn sleep(&mut self) -> io::Result<()> {
        // In this order: while there is work nobody needs to wake the loop.
        let timeout = match self.core.inbox.may_sleep() {
            true => self.core.until_next_timer(),
            false => Some(Duration::ZERO),
        };
        let result = self.poll_for(timeout);
        self.core.inbox.woke();
        result
    }

    fn poll_for(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.events.clear();
                Ok(())
            }
            other => other,
        }
    }

    fn has_work(&self) -> bool {
        !(self.core.ready.is_empty()
            && self.core.dirty.is_empty()
            && self.core.dead.is_empty()
            && self.core.births.is_empty()
            && self.core.ready_listeners.is_empty()
            && self.backlog.is_empty())
    }

    fn turn(&mut self) {
        self.core
            .inbox
            .metrics
            .turn_begins(self.events.iter().count());
        self.note_events();
        self.adopt_births();
        self.run_ready();
        self.run_tasks();
        self.fire_timers();
        self.adopt_births();
        self.flush_dirty();
        self.reap_dead();
        self.core.inbox.metrics.set_timers(self.core.timers.len());
        self.core.inbox.metrics.turn_ends();
    }

    fn note_events(&mut self) {
        for event in &self.events {
            let token = event.token();
            if token == WAKER {
                continue;
            }
            if let Some(index) = listener_index(token) {
                self.core.ready_listeners.push(index);
                continue;
            }
            // An index is freed at the end of a turn only, so within one it names one connection;
            // a closed socket sends no further events.
            let Some(state) = self.core.conns.get_mut(token.0) else {
                continue;
            };
            if event.is_writable() {
                state.writable = true;
            }
            state.peer_closed |= event.is_read_closed();
            // An error is fetched by a read, too.
            state.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
            let connecting = state.phase == Phase::Connecting;
            let to_write = state.writable && !connecting && state.has_output();
            if state.readable || connecting {
                self.core.mark_ready(token.0);
            }
            if to_write {
                self.core.mark_dirty(token.0);
            }
        }
    }

    fn run_ready(&mut self) {
        for index in std::mem::take(&mut self.core.ready_listeners) {
            self.accept(index);
        }
        self.adopt_births();
        let mut ready = std::mem::take(&mut self.core.ready);
        for &index in &ready {
            let index = index as usize;
            let Some(state) = self.core.conns.get_mut(index) else {
                continue;
            };
            state.in_ready = false;
            match state.phase {
                Phase::Connecting => self.finish_connecting(index),
                Phase::Handshaking => self.shake_hands(index),
                Phase::Open => self.read_open(index),
                Phase::Closing | Phase::Lingering => self.discard_input(index),
                Phase::Dead => {}
            }
        }
        ready.clear();
        // Keep the larger of the two allocations.
        if self.core.ready.is_empty() {
            self.core.ready = ready;
        }
    }

    fn run_tasks(&mut self) {
        self.core.inbox.take(&mut self.tasks);
        if self.backlog.is_empty() && self.tasks.len() <= TASKS_PER_TURN {
            let mut tasks = std::mem::take(&mut self.tasks);
            self.core.inbox.metrics.ran_tasks(tasks.len());
            for task in tasks.drain(..) {
                self.run_task(task);
            }
            self.tasks = tasks;
            return;
        }
        self.backlog.extend(self.tasks.drain(..));
        let count = self.backlog.len().min(TASKS_PER_TURN);
        self.core.inbox.metrics.ran_tasks(count);
        for _ in 0..count {
            if let Some(task) = self.backlog.pop_front() {
                self.run_task(task);
            }
        }
    }

    fn run_task(&mut self, task: Task) {
        match task {
            Task::Run(task) => {
                let context = &mut LoopContext {
                    core: &mut self.core,
                };
                if catch_unwind(AssertUnwindSafe(|| task(context))).is_err() {
                    log::error!("a task posted to an event loop panicked");
                }
                self.adopt_births();
            }
            Task::Send(id, bytes) => {
                if let Some(index) = self.core.index_of(id) {
                    Connection {
                        core: &mut self.core,
                        index,
                    }
                    .send(bytes);
                }
            }
            Task::Wake(id) => {
                if let Some(index) = self.core.index_of(id) {
                    self.call(index, |handler, conn| handler.woken(conn));
                }
            }
            Task::Close(id) => {
                if let Some(index) = self.core.index_of(id) {
                    Connection {
                        core: &mut self.core,
                        index,
                    }
                    .close();
                }
            }
            Task::Abort(id) => {
                if let Some(index) = self.core.index_of(id) {
                    self.core.abort(index, CloseReason::Aborted);
                }
            }
        }
    }

    fn fire_timers(&mut self) {
        self.core.timers.expire(self.core.now_ms());
        // One by one: a timer that fires may cancel the next.
        while let Some(due) = self.core.timers.pop_due() {
            match due {
                Due::Handler(id, token) => {
                    if let Some(index) = self.core.index_of(id) {
                        self.call(index, |handler, conn| handler.timer(conn, token));
                    }
                }
                Due::Idle(id) => self.check_idle(id),
                Due::Phase(id) => {
                    if let Some(index) = self.core.index_of(id) {
                        self.phase_timed_out(index);
                    }
                }
                Due::Accept(index) => self.core.ready_listeners.push(index),
                Due::Task(task) => {
                    let context = &mut LoopContext {
                        core: &mut self.core,
                    };
                    if catch_unwind(AssertUnwindSafe(|| task(context))).is_err() {
                        log::error!("a timer's task on an event loop panicked");
                    }
                    self.adopt_births();
                }
            }
        }
    }

    fn flush_dirty(&mut self) {
        let mut dirty = std::mem::take(&mut self.core.dirty);
        for &index in &dirty {
            let index = index as usize;
            if let Some(state) = self.core.conns.get_mut(index) {
                state.in_dirty = false;
                self.flush(index);
            }
        }
        dirty.clear();
        if self.core.dirty.is_empty() {
            self.core.dirty = dirty;
        }
    }

    fn reap_dead(&mut self) {
        // What handlers do in `closed` may end further connections; those wait for the next turn.
        for index in std::mem::take(&mut self.core.dead) {
            self.reap(index as usize);
        }
    }

    // ---- the end ----

    /// Ends every connection. Afterwards nothing is accepted, posted or connected any more.
    fn stop(&mut self) {
        let last = self.core.inbox.close();
        self.backlog.extend(last);
        // Closes and drains that were asked for still count; bounded by what was queued.
        while let Some(task) = self.backlog.pop_front() {
            self.run_task(task);
        }
        self.flush_dirty();
        // A handler that connects again in `closed` is refused from here on, so this ends.
        self.core.stopping = true;
        let indices: Vec<usize> = self.core.conns.iter().map(|(index, _)| index).collect();
        for index in indices {
            self.core.abort(index, CloseReason::LoopStopped);
        }
        while !self.core.dead.is_empty() {
            self.reap_dead();
        }
        self.core.acceptors.clear();
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        // Does nothing after `run`; a loop that was never run must not leave handles behind that
        // queue for nobody, nor handlers that do not hear `closed`.
        self.stop();
    }
}
