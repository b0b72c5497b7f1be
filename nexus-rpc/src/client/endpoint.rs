//! One provider as a channel sees it: its connections, its health, its latency.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use nexus_net::{LoopGroup, LoopHandle};
use parking_lot::Mutex;
use rand::RngExt;

use super::flight::Attempt;
use super::link::{ConnectOptions, InFlight, Link, LinkState};
use super::options::{ChannelOptions, Connections};
use super::pool::Pool;
use super::route::Route;
use crate::policy::BreakerOptions;
use crate::policy::balance::ewma::PeakEwma;
use crate::policy::breaker::Outcome;
use crate::policy::machine::{
    ConnectionId, Decision, FIRST_LINK, LinkId, Machine, MachineOptions, State,
};
use crate::{ErrorCode, RpcError};

/// How long a latency is remembered.
const LATENCY_DECAY: Duration = Duration::from_secs(10);

/// Links that are asked to take one call.
const LINKS_ASKED_MAX: usize = 3;

/// A probe is waited for at least so long.
const PROBE_TIMEOUT_MIN: Duration = Duration::from_millis(500);
/// Calls count from 1, and there is one probe at a time on a connection.
pub(super) const PROBE_CORRELATION_ID: i64 = 0;

/// Names an endpoint of a channel; never used again for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EndpointId(pub(crate) u64);

/// How a provider stands, as its caller sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndpointState {
    /// Not connected; the next attempt comes by itself.
    Idle,
    /// No connection stands and an attempt to connect runs; calls may wait for it.
    Connecting,
    /// A connection stands, of however many, and gets calls.
    Ready,
    /// Connected, and has said that it is stopping: gets calls only when there is no other.
    Stopping,
    /// It failed too often, and is left alone for a while.
    Isolated,
    /// It is being seen whether it is well again.
    Probing,
}

/// Whom to send to first. The order is that of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Availability {
    Ready,
    /// A call would wait for the connection.
    Connecting,
    Stopping,
    Down,
}

pub(crate) struct Endpoint {
    shared: Arc<Shared>,
    first: Arc<Link>,
    /// More, where a provider gets several.
    further: Arc<Pool>,
    loops: Arc<LoopGroup>,
    options: Arc<ChannelOptions>,
}

/// What the endpoint and its connections share.
pub(crate) struct Shared {
    pub(crate) id: EndpointId,
    pub(crate) address: SocketAddr,
    pub(crate) in_flight: AtomicUsize,
    latency: PeakEwma,
    machine: Mutex<Machine>,
    /// By their ids. Held while what the machine decided is done, so that it is done in order.
    links: Mutex<Vec<Weak<Link>>>,
    /// The machine's, for those who must not wait for it.
    state: AtomicU8,
    /// It did not want this side's certificate, and has answered nothing since.
    refuses: AtomicBool,
    breaker: BreakerOptions,
    /// Held while it is seen whether an endpoint may be isolated, by all of the channel.
    isolating: Arc<Mutex<()>>,
    connect: Arc<ConnectOptions>,
    timers: LoopHandle,
    /// When the machine is asked again.
    alarm: Mutex<Option<Instant>>,
    /// Told of every change of state.
    routes: Mutex<Vec<Weak<Route>>>,
}

impl Endpoint {
    pub(crate) fn start(
        id: EndpointId,
        address: SocketAddr,
        loops: &Arc<LoopGroup>,
        options: &Arc<ChannelOptions>,
        isolating: &Arc<Mutex<()>>,
    ) -> Result<Arc<Self>, nexus_net::Error> {
        let now = Instant::now();
        let handle = loops.next();
        let machine = MachineOptions {
            breaker: options.breaker.clone(),
            backoff: options.backoff.clone(),
            // Longer, so that the connection's own time-out tells why.
            attempt_max: options.connection.connect_timeout.saturating_mul(2),
            probe_timeout: options.timeout.max(PROBE_TIMEOUT_MIN),
            ..MachineOptions::default()
        };
        options
            .connection
            .check()
            .map_err(nexus_net::Error::Options)?;
        let shared = Arc::new(Shared {
            id,
            address,
            in_flight: AtomicUsize::new(0),
            latency: PeakEwma::new(LATENCY_DECAY, now),
            machine: Mutex::new(Machine::new(machine, now, rand::rng().random())),
            links: Mutex::new(Vec::new()),
            state: AtomicU8::new(State::Connecting as u8),
            refuses: AtomicBool::new(false),
            breaker: options.breaker.clone(),
            isolating: Arc::clone(isolating),
            connect: Arc::new(ConnectOptions::new(options)),
            timers: handle.clone(),
            alarm: Mutex::new(None),
            routes: Mutex::new(Vec::new()),
        });
        let first = Arc::new(Link::new(handle, &shared, FIRST_LINK, options));
        shared.links.lock().push(Arc::downgrade(&first));
        let more = match options.connections {
            Connections::Several(count) => count.saturating_sub(1),
            Connections::Shared | Connections::Pooled(_) => 0,
        };
        let further = (0..more).map(|_| shared.add_link(loops.next(), options));
        let further = further.collect();
        shared.drive();
        Ok(Arc::new(Self {
            shared,
            first,
            further: Pool::new(further, options.pooled_idle_max, handle.clone()),
            loops: Arc::clone(loops),
            options: Arc::clone(options),
        }))
    }

    pub(crate) fn id(&self) -> EndpointId {
        self.shared.id
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Whether it does not want this side's certificate.
    pub(crate) fn refuses(&self) -> bool {
        self.shared.refuses.load(Ordering::Relaxed)
    }

    /// Calls that were handed to a connection and are not over there.
    pub(crate) fn in_flight(&self) -> usize {
        self.shared.in_flight.load(Ordering::Acquire)
    }

    /// What a call takes lately; 0 before the first.
    pub(crate) fn latency_ns(&self, now: Instant) -> u64 {
        self.shared.latency.value_ns(now)
    }

    pub(crate) fn availability(&self) -> Availability {
        match self.state() {
            EndpointState::Ready => Availability::Ready,
            EndpointState::Connecting => Availability::Connecting,
            EndpointState::Stopping => Availability::Stopping,
            EndpointState::Idle | EndpointState::Isolated | EndpointState::Probing => {
                Availability::Down
            }
        }
    }

    pub(crate) fn state(&self) -> EndpointState {
        self.shared.state()
    }

    /// Has the route told of every change of state.
    pub(crate) fn notify(&self, route: &Arc<Route>) {
        let mut routes = self.shared.routes.lock();
        routes.retain(|known| known.strong_count() > 0);
        let route = Arc::downgrade(route);
        if !routes.iter().any(|known| known.ptr_eq(&route)) {
            routes.push(route);
        }
    }

    /// Hands a call to a connection. Given back, it was not sent.
    #[allow(
        clippy::result_large_err,
        reason = "gives the call back by move, which a box would only make slower"
    )]
    pub(crate) fn send(&self, attempt: Attempt) -> Result<(), (Attempt, RpcError)> {
        if self.in_flight() >= self.options.in_flight_max {
            let what = "too many calls are in flight";
            let error = self.shared.error(ErrorCode::SEND_QUEUE_FULL, what);
            return Err((attempt, error));
        }
        if self.options.connections == Connections::Shared {
            return self.first.send(attempt, self.first.claim());
        }
        let mut returned = None;
        let mut attempt = attempt;
        // A connection may be lost between the choice and the sending; then another is chosen.
        for _ in 0..LINKS_ASKED_MAX {
            let Some((link, counted)) = self.choose() else {
                break;
            };
            match link.send(attempt, counted) {
                Ok(()) => return Ok(()),
                Err((given_back, error)) => {
                    attempt = given_back;
                    returned = Some(error);
                }
            }
        }
        let error = returned.unwrap_or_else(|| {
            let what = "all pooled connections are in use";
            self.shared.error(ErrorCode::SEND_QUEUE_FULL, what)
        });
        Err((attempt, error))
    }

    fn choose(&self) -> Option<(Arc<Link>, InFlight)> {
        let further = self.further.links();
        if let Connections::Pooled(max) = self.options.connections {
            return self
                .claim_idle(&further)
                .or_else(|| self.grow(max.saturating_sub(1)))
                .or_else(|| self.claim_idle_in(LinkState::Stopping, &further));
        }
        let rank = |link: &&Arc<Link>| (link.state(), link.in_flight());
        let links = std::iter::once(&self.first).chain(further.iter());
        let best = links.min_by_key(rank)?;
        Some((Arc::clone(best), best.claim()))
    }

    fn grow(&self, max: usize) -> Option<(Arc<Link>, InFlight)> {
        let start = || {
            let link = self.shared.add_link(self.loops.next(), &self.options);
            let counted = link.claim();
            (link, counted)
        };
        let claim = |further: &[Arc<Link>]| self.claim_idle(further);
        let (claimed, is_new) = self.further.claim_or_add(max, claim, start)?;
        if is_new {
            self.shared.drive();
        }
        Some(claimed)
    }

    /// A connection without a call: a connected one, or else one that is being made.
    fn claim_idle(&self, further: &[Arc<Link>]) -> Option<(Arc<Link>, InFlight)> {
        self.claim_idle_in(LinkState::Ready, further)
            .or_else(|| self.claim_idle_in(LinkState::Connecting, further))
    }

    fn claim_idle_in(
        &self,
        state: LinkState,
        further: &[Arc<Link>],
    ) -> Option<(Arc<Link>, InFlight)> {
        std::iter::once(&self.first)
            .chain(further)
            .filter(|link| link.state() == state)
            .find_map(|link| Some((Arc::clone(link), link.claim_idle()?)))
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        // The links close their connections by being dropped; only attempts are to end.
        self.shared.machine.lock().removed();
    }
}

impl Shared {
    pub(crate) fn error(&self, code: ErrorCode, what: impl std::fmt::Display) -> RpcError {
        RpcError::new(code, format!("{}: {what}", self.address))
    }

    fn state(&self) -> EndpointState {
        let state = self.state.load(Ordering::Acquire);
        match state {
            _ if state == State::Connecting as u8 => EndpointState::Connecting,
            _ if state == State::Ready as u8 => EndpointState::Ready,
            _ if state == State::Stopping as u8 => EndpointState::Stopping,
            _ if state == State::Isolated as u8 => EndpointState::Isolated,
            _ if state == State::Probing as u8 => EndpointState::Probing,
            _ => EndpointState::Idle,
        }
    }

    /// One more place for a connection, which the next [`drive`](Self::drive) makes.
    fn add_link(self: &Arc<Self>, handle: &LoopHandle, options: &ChannelOptions) -> Arc<Link> {
        // Held, so that nobody does what the machine decides for the link before it is there.
        let mut links = self.links.lock();
        let id = self.machine.lock().add_link();
        let link = Arc::new(Link::new(handle, self, id, options));
        if links.len() <= id.0 {
            links.resize_with(id.0 + 1, Weak::new);
        }
        if let Some(place) = links.get_mut(id.0) {
            *place = Arc::downgrade(&link);
        }
        link
    }

    /// The link is no more, and its connection closes by itself.
    pub(super) fn link_removed(&self, link: LinkId) {
        self.machine.lock().remove_link(link);
    }

    /// A connection has changed its state.
    pub(crate) fn link_changed(&self) {
        let routes = self.routes.lock().clone();
        for route in routes.iter().filter_map(Weak::upgrade) {
            route.endpoint_changed();
        }
    }

    /// A call is over there.
    pub(crate) fn call_over(&self) {
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
    }

    // ---- what the machine hears ----

    /// Whether calls may be sent on the connection now, or only once a probe is answered.
    pub(crate) fn connected(self: &Arc<Self>, id: ConnectionId) -> bool {
        let takes_calls = self.machine.lock().connected(id, Instant::now());
        self.drive();
        takes_calls
    }

    pub(crate) fn connection_lost(self: &Arc<Self>, id: ConnectionId) {
        self.machine.lock().connection_lost(id, Instant::now());
        self.drive();
    }

    /// It does not want this side's certificate.
    pub(crate) fn refused(&self) {
        self.refuses.store(true, Ordering::Relaxed);
    }

    pub(crate) fn stopping(self: &Arc<Self>, id: ConnectionId) {
        self.machine.lock().stopping(id, Instant::now());
        self.drive();
    }

    pub(crate) fn probe_answered(self: &Arc<Self>, id: ConnectionId) {
        self.refuses.store(false, Ordering::Relaxed);
        self.machine.lock().probe_answered(id, Instant::now());
        self.drive();
    }

    /// How a call over this connection went. On its loop.
    pub(crate) fn outcome(
        self: &Arc<Self>,
        id: ConnectionId,
        now: Instant,
        outcome: Outcome,
        latency: Duration,
    ) {
        if outcome != Outcome::Failure {
            self.latency.observe(latency, now);
            if self.refuses.load(Ordering::Relaxed) {
                self.refuses.store(false, Ordering::Relaxed);
            }
        }
        // Dropped after the machine is let go: the last of a route takes endpoints with it, and such a one locks
        // its machine.
        let mut asked = Vec::new();
        let mut may_isolate = || {
            asked = self
                .routes
                .lock()
                .iter()
                .filter_map(Weak::upgrade)
                .collect();
            self.may_be_isolated(&asked)
        };
        let mut machine = self.machine.lock();
        let changed = machine.outcome(id, now, outcome, latency, &mut may_isolate);
        drop(machine);
        if changed {
            log::warn!("{}: fails too often, or is silent", self.address);
            self.drive();
        }
    }

    /// Whether enough others are left to each service. If so, it counts as isolated from here on.
    fn may_be_isolated(&self, routes: &[Arc<Route>]) -> bool {
        let _one_at_a_time = self.isolating.lock();
        let may = routes
            .iter()
            .all(|route| route.can_spare_one(&self.breaker));
        if may {
            self.state.store(State::Isolated as u8, Ordering::Release);
        }
        may
    }

    /// Does what the machine decides, until that is to wait.
    fn drive(self: &Arc<Self>) {
        let now = Instant::now();
        let before = self.state();
        let links = self.links.lock();
        loop {
            let mut machine = self.machine.lock();
            let decision = machine.decide(now);
            self.state.store(machine.state() as u8, Ordering::Release);
            drop(machine);
            let link = |id: ConnectionId| links.get(id.link.0).and_then(Weak::upgrade);
            // A link that is gone has closed what it had.
            match decision {
                Decision::Wait(at) => {
                    if let Some(at) = at {
                        self.set_alarm(at, now);
                    }
                    break;
                }
                Decision::Connect(id) => {
                    if let Some(link) = link(id) {
                        link.connect(id, Arc::clone(&self.connect));
                    }
                }
                Decision::Probe(id) => {
                    if let Some(link) = link(id) {
                        link.probe(PROBE_CORRELATION_ID);
                    }
                }
                Decision::Close(id) => {
                    if let Some(link) = link(id) {
                        link.close();
                    }
                }
            }
        }
        drop(links);
        if self.state() != before {
            self.link_changed();
        }
    }

    fn set_alarm(self: &Arc<Self>, at: Instant, now: Instant) {
        let mut alarm = self.alarm.lock();
        if alarm.is_some_and(|earlier| earlier <= at) {
            return;
        }
        *alarm = Some(at);
        drop(alarm);
        let shared = Arc::downgrade(self);
        let delay = at.saturating_duration_since(now);
        // Refused, the loop has gone, and with it the connection.
        let _ = self.timers.post_after(delay, move |_| {
            let Some(shared) = shared.upgrade() else {
                return;
            };
            let mut alarm = shared.alarm.lock();
            if *alarm == Some(at) {
                *alarm = None;
            }
            drop(alarm);
            shared.drive();
        });
    }
}
