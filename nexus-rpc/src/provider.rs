//! The server side: a port, the services behind it, and their registration.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use nexus_net::{
    Accepted, Address, CloseReason, ConnHandle, Connection, ConnectionOptions, DrainReport,
    Handler, LoopContext, LoopGroup, ServerOptions, TcpServer, WorkerPool, on_loop_thread,
};

use crate::bounds::{deadline_after, with_room_for_frames};
use crate::registry::{MethodInfo, Provider, Registration, Registry};
use crate::service::{Execution, IncomingCall, MethodDescriptor, Service};
use crate::wire::{Frame, Limits, RpcMeta, decode, encode_payload};
use crate::{ErrorCode, RpcError};

/// How long a draining connection refuses calls before it may close: so long a caller that is just
/// calling has to hear the refusal and go elsewhere. A call that meets the close itself is lost.
const REFUSE_BEFORE_CLOSE: Duration = Duration::from_millis(100);

/// How a provider serves.
#[derive(Debug, Clone)]
pub struct ProviderOptions {
    /// Threads that run pooled handlers. Default 8.
    pub worker_threads: usize,
    /// Pooled calls that may wait for a thread; more are refused with
    /// [`ErrorCode::OVERLOADED`]. Default 4096.
    pub worker_queue_max: usize,
    /// Calls in work at a time, over all connections; more are refused with
    /// [`ErrorCode::OVERLOADED`]. Default 100,000.
    pub in_flight_max: usize,
    /// Frame sizes.
    pub limits: Limits,
    /// Limits of each connection. Those on bytes are raised to the largest frame where they are
    /// below it.
    pub connection: ConnectionOptions,
    /// The address to register when it is not the one listened on (a wildcard address, NAT).
    pub advertise: Option<SocketAddr>,
    /// What routing may want to know of this provider, registered with it.
    pub weight: u32,
    /// See `weight`.
    pub zone: String,
    /// See `weight`.
    pub version: String,
    /// How long a drain goes on serving after it has deregistered, so that callers notice.
    /// Default 500 ms.
    pub discovery_delay: Duration,
}

impl Default for ProviderOptions {
    fn default() -> Self {
        Self {
            worker_threads: 8,
            worker_queue_max: 4096,
            in_flight_max: 100_000,
            limits: Limits::default(),
            connection: ConnectionOptions::default(),
            advertise: None,
            weight: 1,
            zone: String::new(),
            version: String::new(),
            discovery_delay: Duration::from_millis(500),
        }
    }
}

/// A provider cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProviderError {
    /// The port or a thread could not be had.
    #[error(transparent)]
    Net(#[from] nexus_net::Error),
    /// Two services have the same name.
    #[error("service {0} was added twice")]
    DuplicateService(&'static str),
    /// The address listened on is no address that others could call.
    #[error("{0} cannot be registered: set `advertise` to an address that callers can reach")]
    NotAdvertisable(SocketAddr),
}

/// Puts a provider together. Made by [`RpcProvider::builder`].
#[derive(Default)]
pub struct ProviderBuilder {
    options: ProviderOptions,
    services: Vec<Arc<dyn Service>>,
    registry: Option<Arc<dyn Registry>>,
    loops: Option<Arc<LoopGroup>>,
}

impl ProviderBuilder {
    /// Replaces the options.
    #[must_use]
    pub fn options(mut self, options: ProviderOptions) -> Self {
        self.options = options;
        self
    }

    /// Adds a service.
    #[must_use]
    pub fn service(mut self, service: impl Service) -> Self {
        self.services.push(Arc::new(service));
        self
    }

    /// Registers the services here. Without it callers must know the address.
    #[must_use]
    pub fn registry(mut self, registry: Arc<dyn Registry>) -> Self {
        self.registry = Some(registry);
        self
    }

    /// Serves on these loops. Without it the provider starts two of its own.
    #[must_use]
    pub fn loops(mut self, loops: Arc<LoopGroup>) -> Self {
        self.loops = Some(loops);
        self
    }

    /// Listens on `address` (port 0: any free port), serves, and registers.
    ///
    /// # Errors
    /// See [`ProviderError`]. A registry that is away is no error: registration is retried.
    pub fn start(self, address: SocketAddr) -> Result<RpcProvider, ProviderError> {
        let loops = match self.loops {
            Some(loops) => loops,
            None => Arc::new(LoopGroup::start("rpc", 2)?),
        };
        let options = self.options;
        let reachable_at = options.advertise.unwrap_or(address);
        if self.registry.is_some() && reachable_at.ip().is_unspecified() {
            return Err(ProviderError::NotAdvertisable(reachable_at));
        }
        let pool = WorkerPool::start(
            "rpc-worker",
            options.worker_threads,
            options.worker_queue_max,
        )?;
        let shared = Arc::new(Shared {
            services: index_services(&self.services)?,
            pool,
            limits: options.limits,
            in_flight: AtomicUsize::new(0),
            in_flight_max: options.in_flight_max,
        });
        let server_options = ServerOptions {
            connection: with_room_for_frames(options.connection, &options.limits),
            ..ServerOptions::default()
        };
        let for_connections = Arc::clone(&shared);
        let server = TcpServer::start(&loops, address, server_options, move |accepted| {
            Box::new(ProviderConnection::new(
                Arc::clone(&for_connections),
                accepted,
            ))
        })?;
        let listens_on = tcp_addr(&server);
        let address = options.advertise.unwrap_or(listens_on);
        let mut registrations = Vec::new();
        if let Some(registry) = &self.registry {
            let provider = Provider {
                address,
                weight: options.weight,
                zone: options.zone,
                version: options.version,
                tags: Default::default(),
            };
            for service in &self.services {
                let descriptor = service.descriptor();
                let methods: Vec<MethodInfo> = descriptor.methods.iter().map(info).collect();
                registrations.push(registry.register(descriptor.name, &methods, &provider));
            }
        }
        Ok(RpcProvider {
            registrations,
            server,
            pool: Pool(shared),
            discovery_delay: options.discovery_delay,
            _loops: loops,
            _registry: self.registry,
        })
    }
}

/// A running provider. Dropping it deregisters, cuts its connections off, and waits for pooled handlers
/// to end (on an event loop's thread it does not wait); for an orderly end call [`drain`](Self::drain)
/// first. Responders that are still out then answer to nobody.
pub struct RpcProvider {
    // In the order in which they are to be dropped.
    registrations: Vec<Registration>,
    server: TcpServer,
    pool: Pool,
    discovery_delay: Duration,
    _loops: Arc<LoopGroup>,
    /// Registrations last as long as their registry.
    _registry: Option<Arc<dyn Registry>>,
}

impl RpcProvider {
    /// Starts to put a provider together.
    pub fn builder() -> ProviderBuilder {
        ProviderBuilder::default()
    }

    /// The address it listens on, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        tcp_addr(&self.server)
    }

    /// Calls in work now.
    pub fn in_flight(&self) -> usize {
        self.pool.0.in_flight.load(Ordering::Acquire)
    }

    /// Whether all services are registered.
    pub fn is_registered(&self) -> bool {
        self.registrations.iter().all(Registration::is_registered)
    }

    /// Ends in order: deregisters, goes on serving for a moment so that callers notice, then lets
    /// calls in work finish while refusing new ones, and closes. Calls that are still in work at the
    /// deadline are cut off. Blocks.
    ///
    /// # Panics
    /// On an event loop's thread, which would wait for itself.
    pub fn drain(&mut self, deadline: Duration) -> DrainReport {
        assert!(
            !on_loop_thread(),
            "RpcProvider::drain blocks and cannot be called on a loop thread"
        );
        let until = deadline_after(deadline);
        let left = || until.saturating_duration_since(Instant::now());
        let was_registered = !self.registrations.is_empty();
        for registration in self.registrations.drain(..) {
            registration.deregister(until);
        }
        if was_registered {
            std::thread::sleep(self.discovery_delay.min(left()));
        }
        self.server.drain(left())
    }
}

impl std::fmt::Debug for RpcProvider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RpcProvider")
            .field("address", &self.local_addr())
            .finish_non_exhaustive()
    }
}

fn tcp_addr(server: &TcpServer) -> SocketAddr {
    server
        .local_addr()
        .as_tcp()
        .expect("started on a TCP address")
}

/// Ends the worker pool with the provider. The last owner of what connections share may be a loop,
/// which must not wait for the pool's threads.
struct Pool(Arc<Shared>);

impl Drop for Pool {
    fn drop(&mut self) {
        if !on_loop_thread() {
            self.0.pool.shutdown();
            return;
        }
        let shared = Arc::clone(&self.0);
        let spawned = std::thread::Builder::new()
            .name("rpc-worker-end".to_owned())
            .spawn(move || shared.pool.shutdown());
        if let Err(error) = spawned {
            log::error!("the worker pool is ended on a loop: {error}");
        }
    }
}

type ServiceIndex = HashMap<Bytes, ServiceEntry>;

struct ServiceEntry {
    service: Arc<dyn Service>,
    methods: HashMap<&'static [u8], usize>,
}

struct Shared {
    /// By full name, and by the name without its package where only one service has it.
    services: ServiceIndex,
    pool: WorkerPool,
    limits: Limits,
    in_flight: AtomicUsize,
    in_flight_max: usize,
}

impl Shared {
    /// Finds the method as brpc does: a full name that is unknown is reported as an unknown
    /// method, a short one as an unknown service.
    fn find(&self, service: &[u8], method: &[u8]) -> Result<(&ServiceEntry, usize), RpcError> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let Some(entry) = self.services.get(service) else {
            return Err(if service.contains(&b'.') {
                let what = format!("no method {}/{}", text(service), text(method));
                RpcError::new(ErrorCode::NO_METHOD, what)
            } else {
                RpcError::new(
                    ErrorCode::NO_SERVICE,
                    format!("no service {}", text(service)),
                )
            });
        };
        match entry.methods.get(method) {
            Some(&index) => Ok((entry, index)),
            None => {
                let what = format!("no method {}/{}", text(service), text(method));
                Err(RpcError::new(ErrorCode::NO_METHOD, what))
            }
        }
    }
}

fn index_services(services: &[Arc<dyn Service>]) -> Result<ServiceIndex, ProviderError> {
    let mut index = ServiceIndex::new();
    let mut short_names: HashMap<&'static str, usize> = HashMap::new();
    for service in services {
        *short_names
            .entry(short_name(service.descriptor().name))
            .or_default() += 1;
    }
    for service in services {
        let descriptor = service.descriptor();
        let entry = || ServiceEntry {
            service: Arc::clone(service),
            methods: (0..)
                .zip(descriptor.methods)
                .map(|(i, m)| (m.name.as_bytes(), i))
                .collect(),
        };
        let full = Bytes::from_static(descriptor.name.as_bytes());
        if index.insert(full, entry()).is_some() {
            return Err(ProviderError::DuplicateService(descriptor.name));
        }
        let short = short_name(descriptor.name);
        if short != descriptor.name && short_names.get(short) == Some(&1) {
            index
                .entry(Bytes::from_static(short.as_bytes()))
                .or_insert_with(entry);
        }
    }
    Ok(index)
}

fn short_name(full: &'static str) -> &'static str {
    full.rsplit('.').next().unwrap_or(full)
}

fn info(method: &MethodDescriptor) -> MethodInfo {
    MethodInfo {
        name: method.name.to_owned(),
        request_type: method.request_type.to_owned(),
        response_type: method.response_type.to_owned(),
    }
}

/// What a connection and the calls that came on it share: the way back, and how many are in work.
pub(crate) struct ConnectionCalls {
    conn: ConnHandle,
    peer: Address,
    shared: Arc<Shared>,
    in_flight: AtomicUsize,
    /// Close once nothing is in work.
    closing: AtomicBool,
}

impl ConnectionCalls {
    pub(crate) fn peer(&self) -> &Address {
        &self.peer
    }

    fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        self.shared.in_flight.fetch_add(1, Ordering::AcqRel);
    }

    /// Sends one call's answer; the last one of a closing connection closes it.
    pub(crate) fn answered(&self, frame: Bytes) {
        // First, so that whoever has the answer sees the count without it.
        self.shared.in_flight.fetch_sub(1, Ordering::AcqRel);
        let _ = self.conn.send(frame);
        // SeqCst with `close_when_idle` below: one of the two sees the other's write.
        if self.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 && self.closing.load(Ordering::SeqCst)
        {
            let _ = self.conn.close();
        }
    }

    /// Closes the connection once nothing is in work.
    fn close_when_idle(&self) {
        self.closing.store(true, Ordering::SeqCst);
        if self.in_flight.load(Ordering::SeqCst) == 0 {
            // Through the loop's queue, behind the answers that other threads have put there.
            let _ = self.conn.close();
        }
    }
}

/// One caller's connection.
struct ProviderConnection {
    shared: Arc<Shared>,
    calls: Arc<ConnectionCalls>,
    /// New calls are refused.
    draining: bool,
}

impl ProviderConnection {
    fn new(shared: Arc<Shared>, accepted: Accepted) -> Self {
        let calls = Arc::new(ConnectionCalls {
            conn: accepted.conn,
            peer: accepted.peer,
            shared: Arc::clone(&shared),
            in_flight: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
        });
        Self {
            shared,
            calls,
            draining: false,
        }
    }

    fn serve(&self, frame: Frame, received: Instant) -> Result<(), (i64, RpcError)> {
        let correlation_id = frame.meta.correlation_id();
        let refuse = |error| Err((correlation_id, error));
        let Some(request) = &frame.meta.request else {
            return refuse(RpcError::new(
                ErrorCode::NO_SERVICE,
                "the frame names no service",
            ));
        };
        let (entry, index) = match self
            .shared
            .find(request.service_name(), request.method_name())
        {
            Ok(found) => found,
            Err(error) => return refuse(error),
        };
        let Some(method) = entry.service.descriptor().methods.get(index) else {
            return refuse(RpcError::internal(
                "the method index does not fit the descriptor",
            ));
        };
        if self.draining {
            let what = "the provider is stopping";
            return refuse(RpcError::new(ErrorCode::STOPPING, what));
        }
        if self.shared.in_flight.load(Ordering::Acquire) >= self.shared.in_flight_max {
            let what = "too many calls are in work";
            return refuse(RpcError::new(ErrorCode::OVERLOADED, what));
        }
        self.calls.begin();
        let calls = Arc::clone(&self.calls);
        let call = IncomingCall::new(method, frame, self.shared.limits, received, calls);
        match method.execution {
            Execution::Inline | Execution::Responder => {
                // Its call is answered by being dropped; the connection's other calls go on.
                let run = AssertUnwindSafe(|| entry.service.call(index, call));
                if catch_unwind(run).is_err() {
                    log::error!("the handler of {}/{} panicked", method.service, method.name);
                }
            }
            Execution::Pooled => {
                let service = Arc::clone(&entry.service);
                // Refused, the call is dropped and thereby answered.
                let _ = self.shared.pool.execute(move || service.call(index, call));
            }
        }
        Ok(())
    }
}

impl Handler for ProviderConnection {
    fn data(&mut self, conn: &mut Connection<'_>, input: &mut BytesMut) {
        let received = Instant::now();
        loop {
            match decode(input, &self.shared.limits) {
                Ok(None) => return,
                Ok(Some(frame)) => {
                    if let Err((correlation_id, error)) = self.serve(frame, received) {
                        let mut meta = RpcMeta::for_failure(correlation_id, &error);
                        let limits = &self.shared.limits;
                        let result =
                            conn.write_with(|out| encode_payload(&mut meta, &[], &[], limits, out));
                        if let Err(error) = result {
                            log::error!("an error answer cannot be written: {error}");
                        }
                    }
                }
                Err(error) => {
                    log::warn!("{}: {error}; the connection is closed", conn.peer_addr());
                    // Calls that came before are answered as far as they are ready.
                    conn.close();
                    return;
                }
            }
        }
    }

    fn eof(&mut self, _conn: &mut Connection<'_>) {
        // The caller may only have shut its sending side: answers in work still go out.
        self.calls.close_when_idle();
    }

    fn draining(&mut self, conn: &mut Connection<'_>) {
        self.draining = true;
        conn.set_timer(REFUSE_BEFORE_CLOSE, 0);
    }

    fn timer(&mut self, _conn: &mut Connection<'_>, _token: u64) {
        self.calls.close_when_idle();
    }

    fn closed(&mut self, _context: &mut LoopContext<'_>, reason: CloseReason) {
        match reason {
            CloseReason::Local | CloseReason::Peer | CloseReason::LoopStopped => {}
            other => log::debug!("{}: connection ended: {other}", self.calls.peer),
        }
    }
}
