//! The client side: finds providers, keeps connections to them, and sends calls.
//!
//! ```text
//!   call ─► route of the service (watched in the registry) ─► endpoint, round robin ─► connection
//! ```
//!
//! A route is made at the first call of a service and an endpoint at the first sight of an address;
//! a call only looks them up.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use nexus_net::{Backoff, ConnectionOptions, LoopGroup};
use parking_lot::{Condvar, Mutex, RwLock};
use prost::Message;

use crate::call::{Call, CallOptions, Completion};
use crate::endpoint::{Endpoint, EndpointState, Outgoing};
use crate::registry::{Provider, Registry, Watch};
use crate::service::MethodDescriptor;
use crate::wire::{Limits, RpcMeta, encode_frame};
use crate::{ErrorCode, RpcError};

/// How a channel calls.
#[derive(Debug, Clone)]
pub struct ChannelOptions {
    /// How long a call waits unless it says otherwise. Default 1 s.
    pub timeout: Duration,
    /// Calls in flight at a time to one provider; more fail with
    /// [`ErrorCode::SEND_QUEUE_FULL`]. Default 65,536.
    pub in_flight_max: usize,
    /// Frame sizes.
    pub limits: Limits,
    /// Limits of each connection. Its `connect_timeout` is 1 s by default here.
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
    /// the deadline. Blocks.
    pub fn wait_ready(&self, service: &'static str, deadline: Duration) -> bool {
        let until = Instant::now() + deadline;
        let route = self.route(service);
        let mut guard = route.changed.0.lock();
        while !route
            .endpoints
            .read()
            .iter()
            .any(|e| e.state() == EndpointState::Ready)
        {
            if route.changed.1.wait_until(&mut guard, until).timed_out() {
                return false;
            }
        }
        true
    }

    /// Whether a provider of the service is connected now. Looks, and does not wait; the first look
    /// starts to watch the service.
    pub fn is_ready(&self, service: &'static str) -> bool {
        self.route(service)
            .endpoints
            .read()
            .iter()
            .any(|e| e.state() == EndpointState::Ready)
    }

    /// Calls a method. Generated clients come here. Never blocks.
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
            // Rounded up: 0 would mean no deadline.
            let timeout_ms = timeout.as_nanos().div_ceil(1_000_000).max(1);
            request_meta.timeout_ms = Some(i32::try_from(timeout_ms).unwrap_or(i32::MAX));
        }
        let mut frame = BytesMut::new();
        let limits = &self.inner.options.limits;
        if let Err(error) =
            encode_frame(&mut meta, request, &options.attachment, limits, &mut frame)
        {
            return Err((completion, RpcError::bad_request(error.to_string())));
        }
        let outgoing = Outgoing {
            correlation_id,
            frame: frame.freeze(),
            deadline: Instant::now() + timeout,
            completion,
        };
        self.route(method.service).send(outgoing)
    }

    fn route(&self, service: &'static str) -> Arc<Route> {
        if let Some(route) = self.inner.routes.read().get(service) {
            return Arc::clone(route);
        }
        let mut routes = self.inner.routes.write();
        if let Some(route) = routes.get(service) {
            return Arc::clone(route);
        }
        let route = Arc::new(Route {
            service,
            endpoints: RwLock::new(Vec::new()),
            next: AtomicUsize::new(0),
            changed: Arc::default(),
            watch: Mutex::new(None),
        });
        routes.insert(service, Arc::clone(&route));
        drop(routes);
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
        route
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
        // What is no longer listed is dropped outside of the lock: it fails what it has in flight.
        let _before = std::mem::replace(&mut *route.endpoints.write(), list);
        let _guard = route.changed.0.lock();
        route.changed.1.notify_all();
    }

    fn endpoint(&self, address: SocketAddr, changed: &Changed) -> Option<Arc<Endpoint>> {
        let mut endpoints = self.endpoints.lock();
        endpoints.retain(|_, endpoint| endpoint.strong_count() > 0);
        if let Some(endpoint) = endpoints.get(&address).and_then(Weak::upgrade) {
            endpoint.notify(Arc::clone(changed));
            return Some(endpoint);
        }
        match Endpoint::start(self.loops.next(), address, &self.options) {
            Ok(endpoint) => {
                endpoint.notify(Arc::clone(changed));
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
pub(crate) type Changed = Arc<(Mutex<()>, Condvar)>;

/// The providers of one service.
struct Route {
    service: &'static str,
    endpoints: RwLock<Vec<Arc<Endpoint>>>,
    next: AtomicUsize,
    changed: Changed,
    /// Dropped with the route, which ends it.
    watch: Mutex<Option<Watch>>,
}

impl Route {
    /// Round robin over the endpoints that are connected; without one, over those that are
    /// connecting, where the call waits for the connection until its deadline.
    fn send(&self, mut outgoing: Outgoing) -> Result<(), (Completion, RpcError)> {
        let endpoints = self.endpoints.read();
        let mut error = RpcError::new(
            ErrorCode::HOST_DOWN,
            format!("no provider of {}", self.service),
        );
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        for wanted in [EndpointState::Ready, EndpointState::Connecting] {
            for offset in 0..endpoints.len() {
                let endpoint = &endpoints[(start.wrapping_add(offset)) % endpoints.len()];
                if endpoint.state() != wanted {
                    continue;
                }
                match endpoint.send(outgoing) {
                    Ok(()) => return Ok(()),
                    Err((returned, reason)) => {
                        outgoing = returned;
                        error = reason;
                    }
                }
            }
        }
        if !endpoints.is_empty() && error.code() == ErrorCode::HOST_DOWN {
            error = RpcError::new(
                ErrorCode::HOST_DOWN,
                format!("no provider of {} can be reached", self.service),
            );
        }
        Err((outgoing.completion, error))
    }
}
