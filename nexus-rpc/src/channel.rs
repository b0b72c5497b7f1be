//! The client side: finds providers, keeps connections to them, and sends calls.
//!
//! ```text
//!   call ─► route of the service (watched in the registry) ─► endpoint, round robin ─► connection
//! ```
//!
//! A route is made at the first call of a service and an endpoint at the first sight of an address;
//! a call only looks them up.
//!
//! A call that was not sent, because the connection was not there, or that a provider refused before it
//! ran (it is stopping, or overloaded) goes to another provider by itself, within its deadline and to at
//! most [`PROVIDERS_PER_CALL_MAX`] of them. A call that may have run is never sent twice.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::BytesMut;
use nexus_net::{Backoff, ConnectionOptions, LoopGroup, on_loop_thread};
use parking_lot::{Condvar, Mutex, RwLock};
use prost::Message;

use crate::bounds::{deadline_after, timeout_ms};
use crate::call::{Call, CallOptions, Completion};
use crate::endpoint::{Endpoint, EndpointState, Outgoing};
use crate::registry::{Provider, Registry, Watch};
use crate::service::MethodDescriptor;
use crate::wire::{Limits, RpcMeta, encode_frame};
use crate::{ErrorCode, RpcError};

/// Providers that one call is offered to before it fails with the last one's refusal.
const PROVIDERS_PER_CALL_MAX: usize = 3;

/// How a channel calls.
#[derive(Debug, Clone)]
pub struct ChannelOptions {
    /// How long a call waits unless it says otherwise. Default 1 s; at most 24 days, which is what
    /// the protocol can say. With 0 every call fails without being sent.
    pub timeout: Duration,
    /// Calls in flight at a time to one provider; more fail with
    /// [`ErrorCode::SEND_QUEUE_FULL`]. Default 65,536.
    pub in_flight_max: usize,
    /// Frame sizes.
    pub limits: Limits,
    /// Limits of each connection. Its `connect_timeout` is 1 s by default here, and those on bytes
    /// are raised to the largest frame where they are below it.
    pub connection: ConnectionOptions,
    /// Delays between attempts to connect.
    pub backoff: Backoff,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(1),
            in_flight_max: 65_536,
            limits: Limits::default(),
            connection: ConnectionOptions {
                connect_timeout: Duration::from_secs(1),
                ..ConnectionOptions::default()
            },
            backoff: Backoff::default(),
        }
    }
}

/// Calls services, wherever the registry says they are. Cheap to clone; from any thread.
///
/// All calls to one provider share one connection, on which many are in flight; it is made again when
/// it is lost. A connection that is no longer wanted, because its provider has deregistered or the last
/// clone of the channel is gone, is closed once its calls in flight have ended.
#[derive(Clone)]
pub struct RpcChannel {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Arc<dyn Registry>,
    loops: Arc<LoopGroup>,
    options: ChannelOptions,
    next_correlation_id: AtomicI64,
    routes: RwLock<HashMap<&'static str, Arc<Route>>>,
    /// Shared by the services that one provider offers. A route's list keeps an endpoint alive.
    endpoints: Mutex<HashMap<SocketAddr, Weak<Endpoint>>>,
}

impl RpcChannel {
    /// A channel to the services that `registry` names, with its connections on `loops`.
    pub fn new(
        registry: Arc<dyn Registry>,
        loops: Arc<LoopGroup>,
        options: ChannelOptions,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                registry,
                loops,
                options,
                next_correlation_id: AtomicI64::new(1),
                routes: RwLock::new(HashMap::new()),
                endpoints: Mutex::new(HashMap::new()),
            }),
        }
    }

    /// Waits until a provider of the service is connected; for starting up. `false`: none was by
    /// the deadline. Blocks, except on an event loop's thread, where it only looks.
    pub fn wait_ready(&self, service: &'static str, deadline: Duration) -> bool {
        let until = deadline_after(deadline);
        let route = self.route(service);
        if on_loop_thread() {
            return route.is_ready();
        }
        let mut guard = route.changed.lock.lock();
        while !route.is_ready() {
            if route
                .changed
                .condition
                .wait_until(&mut guard, until)
                .timed_out()
            {
                return route.is_ready();
            }
        }
        true
    }

    /// Whether a provider of the service is connected now. Looks, and does not wait; the first look
    /// starts to watch the service.
    pub fn is_ready(&self, service: &'static str) -> bool {
        self.route(service).is_ready()
    }

    /// Calls of the service that were handed to a connection and are not completed, over all its
    /// present providers.
    pub fn in_flight(&self, service: &'static str) -> usize {
        let route = self.route(service);
        let endpoints = route.endpoints.read();
        endpoints.iter().map(|endpoint| endpoint.in_flight()).sum()
    }

    /// Calls a method. Generated clients come here. Never blocks; from any thread.
    ///
    /// With no provider that is connected or connecting the call fails at once, with
    /// [`ErrorCode::HOST_DOWN`]; so does one made before the registry has named any. See
    /// [`wait_ready`](Self::wait_ready).
    pub fn call<Q, A>(
        &self,
        method: &'static MethodDescriptor,
        request: &Q,
        options: CallOptions,
    ) -> Call<A>
    where
        Q: Message,
        A: Message + Default,
    {
        let limits = self.inner.options.limits;
        let (call, completion) = Call::new(limits);
        if let Err((completion, error)) = self.send(method, request, options, completion) {
            completion.complete(Err(error));
        }
        call
    }

    fn send(
        &self,
        method: &'static MethodDescriptor,
        request: &impl Message,
        options: CallOptions,
        completion: Completion,
    ) -> Result<(), (Completion, RpcError)> {
        let timeout = options.timeout.unwrap_or(self.inner.options.timeout);
        if timeout == Duration::ZERO {
            let error = RpcError::new(ErrorCode::DEADLINE_EXCEEDED, "a timeout of 0");
            return Err((completion, error));
        }
        let correlation_id = self
            .inner
            .next_correlation_id
            .fetch_add(1, Ordering::Relaxed);
        let mut meta = RpcMeta::for_request(
            method.service.as_bytes(),
            method.name.as_bytes(),
            correlation_id,
        );
        meta.compress_type = Some(options.compression.number());
        meta.user_fields = options.user_fields;
        if let Some(request_meta) = &mut meta.request {
            request_meta.log_id = options.log_id;
            request_meta.timeout_ms = Some(timeout_ms(timeout));
        }
        let mut frame = BytesMut::new();
        let limits = &self.inner.options.limits;
        if let Err(error) =
            encode_frame(&mut meta, request, &options.attachment, limits, &mut frame)
        {
            return Err((completion, RpcError::bad_request(error.to_string())));
        }
        let route = self.route(method.service);
        let outgoing = Outgoing {
            correlation_id,
            frame: frame.freeze(),
            deadline: deadline_after(timeout),
            completion,
            route: Arc::downgrade(&route),
            refused_by: Vec::new(),
        };
        route
            .send(outgoing)
            .map_err(|(outgoing, error)| (outgoing.completion, error))
    }

    fn route(&self, service: &'static str) -> Arc<Route> {
        if let Some(route) = self.inner.routes.read().get(service) {
            return Arc::clone(route);
        }
        let route = Arc::new(Route {
            service,
            endpoints: RwLock::new(Vec::new()),
            next: AtomicUsize::new(0),
            changed: Arc::default(),
            watch: Mutex::new(None),
        });
        // Weak: the watch belongs to the route, which belongs to the channel.
        let for_watch = Arc::downgrade(&route);
        let inner = Arc::downgrade(&self.inner);
        let watch = self.inner.registry.watch(
            service,
            Box::new(move |providers| {
                if let (Some(route), Some(inner)) = (for_watch.upgrade(), inner.upgrade()) {
                    inner.update(&route, providers);
                }
            }),
        );
        *route.watch.lock() = Some(watch);
        // Only now, so that nobody finds a route that has not heard of its providers. Two threads
        // may get here; the second one's route ends again.
        let mut routes = self.inner.routes.write();
        let winner = Arc::clone(routes.entry(service).or_insert_with(|| Arc::clone(&route)));
        drop(routes);
        winner
    }
}

impl std::fmt::Debug for RpcChannel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RpcChannel").finish_non_exhaustive()
    }
}

impl Inner {
    fn update(&self, route: &Route, providers: &[Provider]) {
        let list: Vec<Arc<Endpoint>> = providers
            .iter()
            .filter_map(|provider| self.endpoint(provider.address, &route.changed))
            .collect();
        log::info!("{}: {} provider(s)", route.service, list.len());
        // What is no longer listed is dropped outside of the lock: it may close its connection.
        let _before = std::mem::replace(&mut *route.endpoints.write(), list);
        route.changed.signal();
    }

    fn endpoint(&self, address: SocketAddr, changed: &Arc<Changed>) -> Option<Arc<Endpoint>> {
        let mut endpoints = self.endpoints.lock();
        endpoints.retain(|_, endpoint| endpoint.strong_count() > 0);
        if let Some(endpoint) = endpoints.get(&address).and_then(Weak::upgrade) {
            endpoint.notify(changed);
            return Some(endpoint);
        }
        match Endpoint::start(self.loops.next(), address, &self.options) {
            Ok(endpoint) => {
                endpoint.notify(changed);
                endpoints.insert(address, Arc::downgrade(&endpoint));
                Some(endpoint)
            }
            Err(error) => {
                log::error!("{address}: cannot connect: {error}");
                None
            }
        }
    }
}

/// Signalled when an endpoint of a route changes its state, or the list does.
#[derive(Default)]
pub(crate) struct Changed {
    lock: Mutex<()>,
    condition: Condvar,
}

impl Changed {
    pub(crate) fn signal(&self) {
        // With the lock, so that it does not fall between a waiter's look and its wait.
        let _guard = self.lock.lock();
        self.condition.notify_all();
    }
}

/// The providers of one service.
pub(crate) struct Route {
    service: &'static str,
    endpoints: RwLock<Vec<Arc<Endpoint>>>,
    next: AtomicUsize,
    changed: Arc<Changed>,
    /// Dropped with the route, which ends it.
    watch: Mutex<Option<Watch>>,
}

impl Route {
    fn is_ready(&self) -> bool {
        let endpoints = self.endpoints.read();
        endpoints
            .iter()
            .any(|endpoint| endpoint.state() == EndpointState::Ready)
    }

    /// Sends a call that some provider did not take to another one; without another, it fails with
    /// `error`. On the loop's thread.
    pub(crate) fn send_again(&self, outgoing: Outgoing, error: RpcError) {
        if outgoing.refused_by.len() >= PROVIDERS_PER_CALL_MAX {
            outgoing.completion.complete(Err(error));
        } else if let Err((outgoing, _)) = self.send(outgoing) {
            outgoing.completion.complete(Err(error));
        }
    }

    /// Round robin over the endpoints that are connected; without one, over those that are
    /// connecting, where the call waits for the connection until its deadline; without such a one,
    /// over those that are stopping. Given back, the call was not sent.
    #[allow(
        clippy::result_large_err,
        reason = "gives the call back by move, which a box would only make slower"
    )]
    fn send(&self, mut outgoing: Outgoing) -> Result<(), (Outgoing, RpcError)> {
        // Nothing of the user's runs under this lock: a send only queues.
        let endpoints = self.endpoints.read();
        let mut error = None;
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        // Each round takes in the better states again: an endpoint may become ready between them.
        for worst in [
            EndpointState::Ready,
            EndpointState::Connecting,
            EndpointState::Stopping,
        ] {
            let (before, after) = endpoints.split_at(start % endpoints.len().max(1));
            for endpoint in after.iter().chain(before) {
                if endpoint.state() > worst || outgoing.refused_by.contains(&endpoint.address()) {
                    continue;
                }
                match endpoint.send(outgoing) {
                    Ok(()) => return Ok(()),
                    Err((returned, reason)) => {
                        outgoing = returned;
                        error = Some(reason);
                    }
                }
            }
        }
        let error = error.unwrap_or_else(|| {
            let what = match endpoints.is_empty() {
                true => format!("no provider of {}", self.service),
                false => format!("no provider of {} can be reached", self.service),
            };
            RpcError::new(ErrorCode::HOST_DOWN, what)
        });
        Err((outgoing, error))
    }
}
