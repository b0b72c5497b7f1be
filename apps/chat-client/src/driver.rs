//! Joins the [`State`] to a connection of nexus-net and to the application.
//!
//! ```text
//!   ChatClient ──► Shared::commands ──post──► Driver ◄── Link (the connection's handler)
//!   Pending, Receiver<Event> ◄────────────────┘
//! ```
//!
//! The driver is locked on the loop's thread only, so the lock is never contended; it is there
//! because the parts that live on the loop come and go: a handler for each connection, timers, tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use chat_proto::conversation::UserId;
use chat_proto::frame;
use chat_proto::messages::ResponseFrame;
use nexus_net::{CloseReason, ConnId, Connection, Handler, LoopContext, LoopHandle, TimerId};
use parking_lot::Mutex;

use crate::pending::Promise;
use crate::state::{Completion, Output, Request, State};
use crate::{ClientOptions, Event, Status};

/// How often an application that takes no events is asked whether it takes one now.
const FULL_RETRY: Duration = Duration::from_millis(20);

/// Takes events to the application.
pub(crate) type Sink = Box<dyn FnMut(Event) -> Handed + Send>;

/// What became of an event.
pub(crate) enum Handed {
    /// The application has it.
    Yes,
    /// There is no room for it at present.
    Full(Event),
    /// Nobody listens any more.
    Gone,
}

/// What other threads ask of the driver.
enum Command {
    Request(Request, Completion),
    Close(Promise<()>),
}

/// The parts of a client that its threads share.
pub(crate) struct Shared {
    handle: LoopHandle,
    /// `None` once closed: what comes then is dropped, and so completed.
    commands: Mutex<Option<Vec<Command>>>,
    driver: Mutex<Driver>,
    /// The signed-in user, or 0.
    user: AtomicI32,
    status: Mutex<Status>,
}

struct Driver {
    state: State,
    frame_bytes_max: usize,
    sink: Sink,
    conn: Option<ConnId>,
    /// An event that the application has no room for. The connection is not read meanwhile.
    stuck: Option<Event>,
    timer: Option<(Instant, TimerId)>,
    closing: Option<Promise<()>>,
}

impl Shared {
    pub(crate) fn new(handle: &LoopHandle, options: ClientOptions, sink: Sink) -> Arc<Self> {
        Arc::new(Self {
            handle: handle.clone(),
            commands: Mutex::new(Some(Vec::new())),
            driver: Mutex::new(Driver {
                frame_bytes_max: options.frame_bytes_max,
                state: State::new(options, rand::random_range(1..=u64::MAX)),
                sink,
                conn: None,
                stuck: None,
                timer: None,
                closing: None,
            }),
            user: AtomicI32::new(0),
            status: Mutex::new(Status::Connecting),
        })
    }

    pub(crate) fn user(&self) -> Option<UserId> {
        UserId::new(self.user.load(Ordering::Acquire))
    }

    pub(crate) fn status(&self) -> Status {
        *self.status.lock()
    }

    pub(crate) fn request(self: &Arc<Self>, request: Request, completion: Completion) {
        self.command(Command::Request(request, completion));
    }

    /// Completes once the connection is closed.
    pub(crate) fn close(self: &Arc<Self>, promise: Promise<()>) {
        self.command(Command::Close(promise));
    }

    /// The handler of a new connection.
    pub(crate) fn link(self: &Arc<Self>) -> Link {
        Link {
            shared: Arc::clone(self),
        }
    }

    fn command(self: &Arc<Self>, command: Command) {
        {
            let mut queue = self.commands.lock();
            let Some(commands) = queue.as_mut() else {
                return;
            };
            commands.push(command);
            if commands.len() > 1 {
                // The task that the first one posted takes them all.
                return;
            }
        }
        let shared = Arc::clone(self);
        let posted = self
            .handle
            .post(move |context| shared.run_commands(context));
        if posted.is_err() {
            // The loop is gone for good. Dropping commands completes them.
            self.commands.lock().take();
        }
    }

    fn run_commands(self: &Arc<Self>, context: &mut LoopContext<'_>) {
        let commands = match self.commands.lock().as_mut() {
            Some(commands) => std::mem::take(commands),
            None => return,
        };
        let mut driver = self.driver.lock();
        let now = Instant::now();
        for command in commands {
            match command {
                Command::Request(request, completion) => {
                    driver.state.request(now, request, completion);
                }
                Command::Close(promise) => {
                    self.commands.lock().take();
                    driver.state.handle_close(now);
                    driver.closing = Some(promise);
                }
            }
        }
        driver.run(self, context);
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("user", &self.user())
            .finish_non_exhaustive()
    }
}

impl Driver {
    /// Does what the state wants done, hands events over, and sets the timer.
    fn run(&mut self, shared: &Arc<Shared>, context: &mut LoopContext<'_>) {
        let user = self.state.user().map_or(0, UserId::get);
        shared.user.store(user, Ordering::Release);
        *shared.status.lock() = self.state.status();
        while let Some(output) = self.state.poll_output() {
            match output {
                Output::Frame(frame) => {
                    if let Some(mut conn) = self.connection(context) {
                        conn.write_with(|out| frame::encode(&frame, out));
                    }
                }
                Output::Complete(completion, result) => completion(result),
                Output::Reset => {
                    if let Some(mut conn) = self.connection(context) {
                        conn.abort();
                    }
                }
            }
        }
        self.hand_over(context);
        if self.closing.is_some() {
            self.end(context);
        } else {
            self.set_timer(shared, context);
        }
    }

    fn connection<'a>(&self, context: &'a mut LoopContext<'_>) -> Option<Connection<'a>> {
        context.connection(self.conn?)
    }

    /// Hands events over until none is left or there is no room.
    fn hand_over(&mut self, context: &mut LoopContext<'_>) {
        let was_stuck = self.stuck.is_some();
        while let Some(event) = self.stuck.take().or_else(|| self.state.poll_event()) {
            let message = match &event {
                Event::Message(message) => Some((message.conversation, message.sequence)),
                _ => None,
            };
            match (self.sink)(event) {
                Handed::Yes => {
                    if let Some(message) = message {
                        self.state.handle_handed(Instant::now(), message);
                    }
                }
                Handed::Full(event) => {
                    self.stuck = Some(event);
                    break;
                }
                Handed::Gone => {}
            }
        }
        let is_stuck = self.stuck.is_some();
        if is_stuck {
            // It may live, though nothing is heard of it.
            self.state.handle_life(Instant::now());
        }
        if was_stuck != is_stuck
            && let Some(mut conn) = self.connection(context)
        {
            if is_stuck {
                conn.pause_reading();
            } else {
                conn.resume_reading();
            }
        }
    }

    fn set_timer(&mut self, shared: &Arc<Shared>, context: &mut LoopContext<'_>) {
        let now = Instant::now();
        let retry = self.stuck.as_ref().map(|_| now + FULL_RETRY);
        let Some(next) = self.state.next_timeout().into_iter().chain(retry).min() else {
            return;
        };
        if let Some((at, timer)) = self.timer {
            // One that is early does no harm: it sets the next.
            if at <= next {
                return;
            }
            context.cancel_timer(timer);
        }
        let shared = Arc::clone(shared);
        let timer = context.after(next.saturating_duration_since(now), move |context| {
            let mut driver = shared.driver.lock();
            driver.timer = None;
            driver.state.handle_timeout(Instant::now());
            driver.run(&shared, context);
        });
        self.timer = Some((next, timer));
    }

    /// The client closes.
    fn end(&mut self, context: &mut LoopContext<'_>) {
        if let Some((_, timer)) = self.timer.take() {
            context.cancel_timer(timer);
        }
        match self.connection(context) {
            Some(mut conn) => conn.close(),
            None => {
                if let Some(promise) = self.closing.take() {
                    promise.complete(Ok(()));
                }
            }
        }
    }
}

/// The handler of one connection.
pub(crate) struct Link {
    shared: Arc<Shared>,
}

impl Handler for Link {
    fn opened(&mut self, conn: &mut Connection<'_>) {
        let mut driver = self.shared.driver.lock();
        driver.conn = Some(conn.id());
        if driver.stuck.is_some() {
            conn.pause_reading();
        }
        driver.state.handle_opened(Instant::now());
        driver.run(&self.shared, &mut conn.context());
    }

    fn data(&mut self, conn: &mut Connection<'_>, input: &mut BytesMut) {
        let mut driver = self.shared.driver.lock();
        let now = Instant::now();
        driver.state.handle_life(now);
        loop {
            match frame::decode::<ResponseFrame>(input, driver.frame_bytes_max) {
                Ok(Some(frame)) => driver.state.handle_frame(now, frame),
                Ok(None) => break,
                Err(error) => {
                    log::warn!("{}: {error}", conn.peer_addr());
                    driver.state.handle_garbage();
                    input.clear();
                    break;
                }
            }
        }
        driver.run(&self.shared, &mut conn.context());
    }

    fn closed(&mut self, context: &mut LoopContext<'_>, reason: CloseReason) {
        let mut driver = self.shared.driver.lock();
        driver.conn = None;
        driver.state.handle_closed(reason.to_string());
        if matches!(reason, CloseReason::LoopStopped) {
            self.shared.commands.lock().take();
            driver.state.handle_close(Instant::now());
        }
        driver.run(&self.shared, context);
    }
}
