//! The way to all services that a registry names.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use nexus_net::{LoopGroup, on_loop_thread};
use parking_lot::{Mutex, RwLock};
use prost::Message;
use rustc_hash::FxHashMap;

use super::call::{Answer, Call};
use super::endpoint::{Endpoint, EndpointId, EndpointState};
use super::flight::{Fallback, Flight, Plan};
use super::interceptor::{CallHead, ClientInterceptor};
use super::options::{Backup, CallOptions, ChannelOptions, RawMessage};
use super::route::{Common, Route};
use crate::bounds::{deadline_after, timeout_ms};
use crate::current;
use crate::registry::{Provider, Registry};
use crate::service::MethodDescriptor;
use crate::wire::{EncodeError, Limits, RpcMeta, encode_frame, encode_payload};
use crate::{ErrorCode, RpcError};

/// Calls services, wherever the registry says they are. Cheap to clone; from any thread.
///
/// A service is watched from its first call on, and an address connected to when it is first named; a call
/// only looks them up. How a provider is picked, how many connections it gets, what is tried again, and
/// when a provider that fails is left alone, [`ChannelOptions`] say.
///
/// A connection that is no longer wanted, because its provider has deregistered or the last clone of the
/// channel is gone, is closed once its calls in flight have ended.
#[derive(Clone)]
pub struct RpcChannel {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Arc<dyn Registry>,
    common: Arc<Common>,
    interceptors: Option<Arc<[Arc<dyn ClientInterceptor>]>>,
    /// Names that the program itself chose: a fast hash will do.
    routes: RwLock<FxHashMap<&'static str, Arc<Route>>>,
    /// Shared by the services that one provider offers. A route's list keeps an endpoint alive.
    endpoints: Mutex<HashMap<SocketAddr, Weak<Endpoint>>>,
    next_endpoint: AtomicU64,
    isolating: Arc<Mutex<()>>,
    /// By the method's descriptor.
    fallbacks: ArcSwap<FxHashMap<usize, Arc<Fallback>>>,
}

/// A provider as a channel sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndpointInfo {
    /// Where it listens.
    pub address: SocketAddr,
    /// How it stands.
    pub state: EndpointState,
    /// Calls that were sent to it and are not over.
    pub in_flight: usize,
    /// What a call takes there lately: an average that rises at once and falls slowly. 0 before the first.
    pub latency: Duration,
}

impl RpcChannel {
    /// A channel to the services that `registry` names, with its connections on `loops`. Neither waits nor
    /// fails; it connects when a service is first called or looked at.
    pub fn new(
        registry: Arc<dyn Registry>,
        loops: Arc<LoopGroup>,
        options: ChannelOptions,
    ) -> Self {
        let interceptors =
            (!options.interceptors.is_empty()).then(|| Arc::from(options.interceptors.as_slice()));
        Self {
            inner: Arc::new(Inner {
                registry,
                common: Arc::new(Common::new(Arc::new(options), loops)),
                interceptors,
                routes: RwLock::default(),
                endpoints: Mutex::new(HashMap::new()),
                next_endpoint: AtomicU64::new(0),
                isolating: Arc::default(),
                fallbacks: ArcSwap::default(),
            }),
        }
    }

    /// Waits until a provider of the service is connected, at most for `deadline` from now; for starting up.
    /// `false`: none was. Others of its providers may still be connecting: see [`endpoints`](Self::endpoints).
    /// Blocks, except on an event loop's thread, where it only looks.
    pub fn wait_ready(&self, service: &'static str, deadline: Duration) -> bool {
        let until = deadline_after(deadline);
        let route = self.route(service);
        match on_loop_thread() {
            true => route.is_ready(),
            false => route.wait_ready(until),
        }
    }

    /// Whether a provider of the service is connected now. Looks, and does not wait; the first look
    /// starts to watch the service and to connect. From any thread.
    pub fn is_ready(&self, service: &'static str) -> bool {
        self.route(service).is_ready()
    }

    /// The present providers of the service, as they stand at this moment. From any thread; the first look
    /// starts to watch the service.
    pub fn endpoints(&self, service: &'static str) -> Vec<EndpointInfo> {
        let now = Instant::now();
        let info = |endpoint: &Arc<Endpoint>| EndpointInfo {
            address: endpoint.address(),
            state: endpoint.state(),
            in_flight: endpoint.in_flight(),
            latency: Duration::from_nanos(endpoint.latency_ns(now)),
        };
        self.route(service).endpoints().iter().map(info).collect()
    }

    /// Calls of the service that were handed to a connection and are not completed, over all its
    /// present providers. From any thread. An abandoned call counts until its answer, its deadline or the
    /// end of its connection. A provider of several services counts the calls of all of them.
    pub fn in_flight(&self, service: &'static str) -> usize {
        let endpoints = self.route(service).endpoints();
        endpoints.iter().map(|endpoint| endpoint.in_flight()).sum()
    }

    /// Has `fallback` answer calls of the method that fail for good, in place of their error: with a
    /// cached value, say, or a default. It gets the request and the error, and runs where the call ends:
    /// on a loop's thread, as a rule, where it must not block. The answer says so
    /// ([`Reply::degraded`](crate::Reply)). A further fallback of the method takes the place of the first.
    pub fn set_fallback<Q, A>(
        &self,
        method: &'static MethodDescriptor,
        fallback: impl Fn(Q, &RpcError) -> Result<A, RpcError> + Send + Sync + 'static,
    ) where
        Q: Message + Default,
        A: Message,
    {
        let fallback: Arc<Fallback> = Arc::new(move |request, error| {
            let request = Q::decode(request).map_err(|_| error.clone())?;
            Ok(Bytes::from(fallback(request, error)?.encode_to_vec()))
        });
        self.inner.fallbacks.rcu(|fallbacks| {
            let mut fallbacks = FxHashMap::clone(fallbacks);
            fallbacks.insert(key(method), Arc::clone(&fallback));
            fallbacks
        });
    }

    /// Calls a method. Generated clients come here. Never blocks; from any thread.
    ///
    /// With no provider that is connected or connecting the call fails at once, with
    /// [`ErrorCode::HOST_DOWN`], unless it [waits](crate::Readiness::WaitForReady); so does one made before
    /// the registry has named any. See [`wait_ready`](Self::wait_ready).
    pub fn call<Q, A>(
        &self,
        method: &'static MethodDescriptor,
        request: &Q,
        options: CallOptions,
    ) -> Call<A>
    where
        Q: Message,
        A: Answer,
    {
        let encode: Encode<'_> =
            &|meta, attachment, limits, out| encode_frame(meta, request, attachment, limits, out);
        let original = || Bytes::from(request.encode_to_vec());
        Call::new(self.send(method, options, encode, &original))
    }

    /// Calls a method with a request that is encoded already. Otherwise as [`call`](Self::call).
    pub fn call_raw(
        &self,
        method: &'static MethodDescriptor,
        request: &RawMessage,
        options: CallOptions,
    ) -> Call<RawMessage> {
        let encode: Encode<'_> = &|meta, attachment, limits, out| {
            let compression =
                crate::wire::CompressType::from_number(meta.compress_type()).unwrap_or_default();
            let payload = crate::wire::compress(compression, request.0.clone())?;
            encode_payload(meta, &payload, attachment, limits, out)
        };
        Call::new(self.send(method, options, encode, &|| request.0.clone()))
    }

    fn send(
        &self,
        method: &'static MethodDescriptor,
        mut options: CallOptions,
        encode: Encode<'_>,
        original: &dyn Fn() -> Bytes,
    ) -> Arc<Flight> {
        let common = &self.inner.common;
        let started = Instant::now();
        let mut timeout = options.timeout.unwrap_or(common.options.timeout);
        let deadline = self.inherit(&mut options, started, timeout);
        timeout = deadline.saturating_duration_since(started);
        let (passed, refused) = self.intercept(method, &mut options, &mut timeout);
        let route = self.route(method.service);
        let idempotent = options.idempotent.unwrap_or(method.idempotent);
        let backup = match options.backup {
            Backup::Channel if !idempotent => Backup::Never,
            backup => backup,
        };
        let flight = Flight::new(Plan {
            method,
            started,
            deadline: started + timeout,
            hash_key: options.hash_key,
            idempotent,
            readiness: options.readiness.unwrap_or(common.options.readiness),
            attempts_max: common.options.retry.attempts_max.max(1),
            limits: common.options.limits,
            interceptors: self.inner.interceptors.clone(),
            interceptors_passed: passed,
            backup_timer: match backup {
                Backup::Channel => route.backup_timer(method),
                Backup::Never | Backup::After(_) => None,
            },
            fallback: self.fallback(method, original),
        });
        if let Some(error) = refused {
            flight.finish(Err(error));
            return flight;
        }
        if timeout.is_zero() {
            let what = "no time is left for the call";
            flight.finish(Err(RpcError::new(ErrorCode::DEADLINE_EXCEEDED, what)));
            return flight;
        }
        let correlation_id = common.correlation_id();
        match request_frame(
            method,
            correlation_id,
            timeout,
            options,
            encode,
            &flight.plan.limits,
        ) {
            Ok(frame) => {
                let attempt = flight.first(&route, correlation_id, frame);
                route.begin(&flight, attempt, backup);
            }
            Err(error) => flight.finish(Err(RpcError::bad_request(error.to_string()))),
        }
        flight
    }

    /// A call made by a handler belongs to the call that the handler serves: it has no more time, and is
    /// of the same trace. Returns its deadline.
    fn inherit(&self, options: &mut CallOptions, started: Instant, timeout: Duration) -> Instant {
        let deadline = started + timeout.min(crate::bounds::TIMEOUT_MAX);
        let inherited = current::inherited();
        let trace = match &options.trace {
            Some(trace) => Some(trace.child()),
            None => inherited
                .as_ref()
                .and_then(|from| Some(from.trace.as_ref()?.child())),
        };
        if let Some(trace) = trace {
            trace.write_to(&mut options.metadata);
        }
        match inherited.and_then(|from| from.deadline) {
            Some(served) => deadline.min(served),
            None => deadline,
        }
    }

    /// Runs the interceptors: how many the call has passed, and what one of them refused it with.
    fn intercept(
        &self,
        method: &'static MethodDescriptor,
        options: &mut CallOptions,
        timeout: &mut Duration,
    ) -> (usize, Option<RpcError>) {
        let Some(interceptors) = &self.inner.interceptors else {
            return (0, None);
        };
        for (passed, interceptor) in interceptors.iter().enumerate() {
            let mut head = CallHead {
                method,
                metadata: &mut options.metadata,
                timeout,
            };
            if let Err(error) = interceptor.before(&mut head) {
                return (passed, Some(error));
            }
        }
        *timeout = (*timeout).min(crate::bounds::TIMEOUT_MAX);
        (interceptors.len(), None)
    }

    fn fallback(
        &self,
        method: &'static MethodDescriptor,
        original: &dyn Fn() -> Bytes,
    ) -> Option<(Arc<Fallback>, Bytes)> {
        let fallbacks = self.inner.fallbacks.load();
        if fallbacks.is_empty() {
            return None;
        }
        let fallback = fallbacks.get(&key(method))?;
        Some((Arc::clone(fallback), original()))
    }

    fn route(&self, service: &'static str) -> Arc<Route> {
        if let Some(route) = self.inner.routes.read().get(service) {
            return Arc::clone(route);
        }
        let route = Route::new(service, Arc::clone(&self.inner.common));
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
        route.set_watch(watch);
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
    fn update(&self, route: &Arc<Route>, providers: &[Provider]) {
        let endpoints = providers
            .iter()
            .filter_map(|provider| self.endpoint(provider.address, route))
            .collect();
        route.update(endpoints, providers);
    }

    fn endpoint(&self, address: SocketAddr, route: &Arc<Route>) -> Option<Arc<Endpoint>> {
        let mut endpoints = self.endpoints.lock();
        endpoints.retain(|_, endpoint| endpoint.strong_count() > 0);
        if let Some(endpoint) = endpoints.get(&address).and_then(Weak::upgrade) {
            endpoint.notify(route);
            return Some(endpoint);
        }
        let id = EndpointId(self.next_endpoint.fetch_add(1, Ordering::Relaxed));
        let Common { loops, options, .. } = &*self.common;
        match Endpoint::start(id, address, loops, options, &self.isolating) {
            Ok(endpoint) => {
                endpoint.notify(route);
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

/// Writes a request's frame: meta and attachment in, bytes appended.
type Encode<'a> =
    &'a dyn Fn(&mut RpcMeta, &[u8], &Limits, &mut BytesMut) -> Result<(), EncodeError>;

fn request_frame(
    method: &'static MethodDescriptor,
    correlation_id: i64,
    timeout: Duration,
    options: CallOptions,
    encode: Encode<'_>,
    limits: &Limits,
) -> Result<Bytes, EncodeError> {
    let mut meta = RpcMeta::for_request(
        method.service.as_bytes(),
        method.name.as_bytes(),
        correlation_id,
    );
    meta.compress_type = Some(options.compression.number());
    meta.checksum_type = Some(options.checksum.number());
    meta.user_fields = options.metadata.into_fields();
    if let Some(request) = &mut meta.request {
        request.log_id = options.log_id;
        request.timeout_ms = Some(timeout_ms(timeout));
    }
    let mut frame = BytesMut::new();
    encode(&mut meta, &options.attachment, limits, &mut frame)?;
    Ok(frame.freeze())
}

/// A method's identity: there is one descriptor of it in the process.
fn key(method: &'static MethodDescriptor) -> usize {
    std::ptr::from_ref(method) as usize
}
