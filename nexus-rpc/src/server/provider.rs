//! A provider from its start to its end: a port, the services behind it, and their registration.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus_net::{
    ByteBudget, DrainReport, LoopGroup, ServerOptions, TcpServer, WorkerPool, on_loop_thread,
};

use super::connection::ProviderConnection;
use super::limit::Limiter;
use super::recent::keep_copying;
use super::serving::{Parts, ReceivingLimits, Serving};
use super::web::Offer;
use super::{Authenticator, ConcurrencyLimit, Pages, ProviderOptions, ServerInterceptor};
use crate::bounds::{deadline_after, with_room_for_frames};
use crate::registry::{MethodInfo, Provider, Registration, Registry};
use crate::service::{MethodDescriptor, Service};
use crate::wire::HEADER_BYTES;

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
    /// A limit was set for a method that no service has.
    #[error("a limit was set for {0}, which no service has: the name is package.Service.Method")]
    UnknownMethod(String),
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
    method_limits: Vec<(String, ConcurrencyLimit)>,
    interceptors: Vec<Arc<dyn ServerInterceptor>>,
    authenticator: Option<Arc<dyn Authenticator>>,
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

    /// Adds an interceptor inside those that were added before.
    #[must_use]
    pub fn interceptor(mut self, interceptor: impl ServerInterceptor) -> Self {
        self.interceptors.push(Arc::new(interceptor));
        self
    }

    /// Lets in only callers that this accepts. Without it everybody is let in.
    #[must_use]
    pub fn authenticator(mut self, authenticator: impl Authenticator) -> Self {
        self.authenticator = Some(Arc::new(authenticator));
        self
    }

    /// Shows the pages on a port of their own (port 0: any free port): see [`Pages::InnerPort`].
    #[must_use]
    pub fn pages_on(mut self, address: SocketAddr) -> Self {
        self.options.http.pages = Pages::InnerPort(address);
        self
    }

    /// Limits the calls in work of one method, named `package.Service.Method`, beside what limits the
    /// whole provider.
    #[must_use]
    pub fn limit(mut self, method: impl Into<String>, limit: ConcurrencyLimit) -> Self {
        self.method_limits.push((method.into(), limit));
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
        let serving = Arc::new(Serving::new(Parts {
            services: &self.services,
            pool,
            limits: options.limits,
            receiving: ReceivingLimits {
                budget: Arc::new(ByteBudget::new(
                    options.request_bytes_max.max(largest_request(&options)),
                )),
                frame_timeout: options.frame_timeout,
                authentication_timeout: options.authentication_timeout,
            },
            http: options.http.clone(),
            loops: loops.handles().to_vec(),
            limiter: Limiter::new(&options.concurrency, options.in_flight_max, Instant::now()),
            method_limits: self.method_limits,
            interceptors: self.interceptors,
            authenticator: self.authenticator,
        })?);
        let inner_options = ServerOptions {
            connection: with_room_for_frames(options.connection, &options.limits),
            ..ServerOptions::default()
        };
        let server_options = ServerOptions {
            #[cfg(feature = "tls")]
            tls: options.tls,
            ..inner_options.clone()
        };
        let serve = |address: SocketAddr, offer: Offer, options: ServerOptions| {
            let serving = Arc::clone(&serving);
            TcpServer::start(&loops, address, options, move |accepted| {
                Box::new(ProviderConnection::new(
                    Arc::clone(&serving),
                    offer,
                    accepted,
                ))
            })
        };
        let server = serve(
            address,
            Offer {
                frames: true,
                pages: options.http.pages == Pages::SamePort,
                calls: options.http.calls,
                asks_who: serving.authenticator.is_some(),
            },
            server_options,
        )?;
        let inner = match options.http.pages {
            Pages::InnerPort(address) => Some(serve(address, Offer::PAGES, inner_options)?),
            _ => None,
        };
        if options.http.pages != Pages::Off {
            let watched = Arc::downgrade(&serving);
            let _ = loops
                .next()
                .post(move |context| keep_copying(context, watched));
        }
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
            inner,
            serving: Ending(serving),
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
    /// The port of the pages, when they have one.
    inner: Option<TcpServer>,
    serving: Ending,
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

    /// The address of the pages, when they have a port of their own.
    pub fn pages_addr(&self) -> Option<SocketAddr> {
        self.inner.as_ref().map(tcp_addr)
    }

    /// Calls in work now.
    pub fn in_flight(&self) -> usize {
        self.serving.0.limiter.in_flight()
    }

    /// Whether all services are registered.
    pub fn is_registered(&self) -> bool {
        self.registrations.iter().all(Registration::is_registered)
    }

    /// Ends in order: `/health` says so, the services are deregistered, serving goes on for a moment so that
    /// callers notice, then calls in work finish while new ones are refused, and connections close. That
    /// moment is left out when nobody can notice: not registered, and `/health` never asked for. Calls that are still in work at the
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
        self.serving.0.start_draining();
        let was_registered = !self.registrations.is_empty();
        for registration in self.registrations.drain(..) {
            registration.deregister(until);
        }
        if was_registered || self.serving.0.is_watched() {
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

/// What must have room whatever was chosen.
fn largest_request(options: &ProviderOptions) -> usize {
    let frame_bytes_max = options.limits.body_bytes_max.saturating_add(HEADER_BYTES);
    frame_bytes_max.max(options.http.limits.body_bytes_max)
}

fn tcp_addr(server: &TcpServer) -> SocketAddr {
    server
        .local_addr()
        .as_tcp()
        .expect("started on a TCP address")
}

/// Ends the worker pool with the provider. The last owner of what connections share may be a loop,
/// which must not wait for the pool's threads.
struct Ending(Arc<Serving>);

impl Drop for Ending {
    fn drop(&mut self) {
        if !on_loop_thread() {
            self.0.pool.shutdown();
            return;
        }
        let serving = Arc::clone(&self.0);
        let spawned = std::thread::Builder::new()
            .name("rpc-worker-end".to_owned())
            .spawn(move || serving.pool.shutdown());
        if let Err(error) = spawned {
            log::error!("the worker pool is ended on a loop: {error}");
        }
    }
}

fn info(method: &MethodDescriptor) -> MethodInfo {
    MethodInfo {
        name: method.name.to_owned(),
        request_type: method.request_type.to_owned(),
        response_type: method.response_type.to_owned(),
    }
}
