//! One provider as a channel sees it: its connections, its health, its latency.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use nexus_net::LoopGroup;
use parking_lot::Mutex;

use super::flight::Attempt;
use super::link::{InFlight, Link, LinkState};
use super::options::{ChannelOptions, Connections};
use super::route::Route;
use crate::policy::balance::ewma::PeakEwma;
use crate::{ErrorCode, RpcError};

/// How long a latency is remembered.
const LATENCY_DECAY: Duration = Duration::from_secs(10);

/// Names an endpoint of a channel; never used again for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EndpointId(pub(crate) u64);

/// How a provider stands, as its caller sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndpointState {
    /// A connection is being made, the first or a further one.
    Connecting,
    /// Connected, and gets calls.
    Ready,
    /// Connected, and has said that it is stopping: gets calls only when there is no other.
    Stopping,
    /// Not connected; the next attempt comes by itself.
    Down,
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
    links: ArcSwap<Vec<Arc<Link>>>,
    /// Held while a pooled connection is added.
    growing: Mutex<()>,
    loops: Arc<LoopGroup>,
    options: Arc<ChannelOptions>,
}

/// What the endpoint and its connections share.
pub(crate) struct Shared {
    pub(crate) id: EndpointId,
    pub(crate) address: SocketAddr,
    pub(crate) in_flight: AtomicUsize,
    latency: PeakEwma,
    /// Told of every change of state.
    routes: Mutex<Vec<Weak<Route>>>,
}

impl Endpoint {
    pub(crate) fn start(
        id: EndpointId,
        address: SocketAddr,
        loops: &Arc<LoopGroup>,
        options: &Arc<ChannelOptions>,
    ) -> Result<Arc<Self>, nexus_net::Error> {
        let now = Instant::now();
        let shared = Arc::new(Shared {
            id,
            address,
            in_flight: AtomicUsize::new(0),
            latency: PeakEwma::new(LATENCY_DECAY, now),
            routes: Mutex::new(Vec::new()),
        });
        let first = match options.connections {
            Connections::Several(count) => count.max(1),
            Connections::Shared | Connections::Pooled(_) => 1,
        };
        let links = (0..first)
            .map(|_| Link::start(loops.next(), &shared, options).map(Arc::new))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Arc::new(Self {
            shared,
            links: ArcSwap::from_pointee(links),
            growing: Mutex::new(()),
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

    /// Calls that were handed to a connection and are not over there.
    pub(crate) fn in_flight(&self) -> usize {
        self.shared.in_flight.load(Ordering::Acquire)
    }

    /// What a call takes lately; 0 before the first.
    pub(crate) fn latency_ns(&self, now: Instant) -> u64 {
        self.shared.latency.value_ns(now)
    }

    pub(crate) fn availability(&self) -> Availability {
        match self.link_state() {
            LinkState::Ready => Availability::Ready,
            LinkState::Connecting => Availability::Connecting,
            LinkState::Stopping => Availability::Stopping,
            LinkState::Down => Availability::Down,
        }
    }

    pub(crate) fn state(&self) -> EndpointState {
        match self.link_state() {
            LinkState::Ready => EndpointState::Ready,
            LinkState::Connecting => EndpointState::Connecting,
            LinkState::Stopping => EndpointState::Stopping,
            LinkState::Down => EndpointState::Down,
        }
    }

    fn link_state(&self) -> LinkState {
        let links = self.links.load();
        let best = links.iter().map(|link| link.state()).min();
        best.unwrap_or(LinkState::Down)
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
        let Some((link, counted)) = self.choose() else {
            let what = "all pooled connections are in use";
            let error = self.shared.error(ErrorCode::SEND_QUEUE_FULL, what);
            return Err((attempt, error));
        };
        link.send(attempt, counted)
    }

    fn choose(&self) -> Option<(Arc<Link>, InFlight)> {
        let links = self.links.load();
        if let Connections::Pooled(max) = self.options.connections {
            return claim_idle(&links).or_else(|| self.grow(max.max(1)));
        }
        let best = match &links[..] {
            [only] => only,
            several => several
                .iter()
                .min_by_key(|link| (link.state(), link.in_flight()))?,
        };
        Some((Arc::clone(best), best.claim()))
    }

    fn grow(&self, max: usize) -> Option<(Arc<Link>, InFlight)> {
        let _growing = self.growing.lock();
        let links = self.links.load();
        if let Some(claimed) = claim_idle(&links) {
            return Some(claimed);
        }
        if links.len() >= max {
            return None;
        }
        let link = match Link::start(self.loops.next(), &self.shared, &self.options) {
            Ok(link) => Arc::new(link),
            Err(error) => {
                log::error!("{}: cannot connect: {error}", self.shared.address);
                return None;
            }
        };
        let claimed = (Arc::clone(&link), link.claim());
        let mut more = Vec::clone(&links);
        more.push(link);
        self.links.store(Arc::new(more));
        Some(claimed)
    }
}

/// A connection without a call: a connected one, or else one that is being made.
fn claim_idle(links: &[Arc<Link>]) -> Option<(Arc<Link>, InFlight)> {
    [LinkState::Ready, LinkState::Connecting]
        .into_iter()
        .find_map(|state| {
            links
                .iter()
                .filter(|link| link.state() == state)
                .find_map(|link| Some((Arc::clone(link), link.claim_idle()?)))
        })
}

impl Shared {
    pub(crate) fn error(&self, code: ErrorCode, what: impl std::fmt::Display) -> RpcError {
        RpcError::new(code, format!("{}: {what}", self.address))
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

    /// A call took so long there. On the loop of its connection.
    pub(crate) fn took(&self, latency: Duration, now: Instant) {
        self.latency.observe(latency, now);
    }
}
