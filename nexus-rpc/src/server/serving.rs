//! What all connections of a provider share: the methods by name, and what stands before every call.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nexus_net::{Address, ByteBudget, LoopHandle, WorkerPool};
use rustc_hash::FxHashMap;

use super::auth;
use super::connections::Connections;
use super::json::{JsonMapping, pool_of};
use super::limit::Limiter;
use super::recent::Recent;
use super::stats::{MethodStats, Sample};
use super::{
    AuthContext, Authenticator, ConcurrencyLimit, HttpOptions, ProviderError, ServerInterceptor,
};
use crate::service::{MethodDescriptor, Service, ServiceDescriptor};
use crate::wire::Limits;
use crate::{ErrorCode, RpcError};

/// A method's place in [`Serving`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MethodId(usize);

/// A method that is served, and what has become of its calls.
pub(crate) struct MethodEntry {
    pub(crate) descriptor: &'static MethodDescriptor,
    pub(crate) service: Arc<dyn Service>,
    /// Its place in the service's descriptor.
    pub(crate) index: usize,
    pub(crate) stats: MethodStats,
    /// Counts its calls in work, and has a limit when one was set for the method.
    pub(crate) limiter: Limiter,
    /// `None` when the service came without its files.
    pub(crate) json: Option<JsonMapping>,
}

/// The parts of a provider that its connections use.
pub(crate) struct Serving {
    /// By full name, and by the name without its package where only one service has it. The hash is a fast
    /// one that keeps no secret: what is in the table is fixed from the start, so whoever sends names can
    /// make none of them collide more than they do.
    services: FxHashMap<&'static [u8], FxHashMap<&'static [u8], MethodId>>,
    methods: Vec<MethodEntry>,
    pub(crate) pool: WorkerPool,
    pub(crate) limits: Limits,
    pub(crate) receiving: ReceivingLimits,
    pub(crate) limiter: Limiter,
    pub(crate) interceptors: Vec<Arc<dyn ServerInterceptor>>,
    pub(crate) authenticator: Option<Arc<dyn Authenticator>>,
    pub(crate) http: HttpOptions,
    pub(crate) loops: Vec<LoopHandle>,
    pub(crate) started: Instant,
    pub(crate) connections: Connections,
    /// Counters as they were a while ago.
    pub(crate) recent: Recent,
    draining: AtomicBool,
    /// Somebody decides by `/health` where calls go.
    health_asked: AtomicBool,
}

/// What may come in, and how fast it has to.
pub(crate) struct ReceivingLimits {
    /// Of requests that are received and being answered, beyond 64 KiB each.
    pub(crate) budget: Arc<ByteBudget>,
    pub(crate) frame_timeout: Duration,
    pub(crate) authentication_timeout: Duration,
}

/// What a [`Serving`] is made of.
pub(super) struct Parts<'a> {
    pub(super) services: &'a [Arc<dyn Service>],
    pub(super) pool: WorkerPool,
    pub(super) limits: Limits,
    pub(super) receiving: ReceivingLimits,
    pub(super) limiter: Limiter,
    pub(super) http: HttpOptions,
    pub(super) loops: Vec<LoopHandle>,
    /// By `package.Service.Method`.
    pub(super) method_limits: Vec<(String, ConcurrencyLimit)>,
    pub(super) interceptors: Vec<Arc<dyn ServerInterceptor>>,
    pub(super) authenticator: Option<Arc<dyn Authenticator>>,
}

impl Serving {
    pub(super) fn new(parts: Parts<'_>) -> Result<Self, ProviderError> {
        let mut method_limits: HashMap<String, ConcurrencyLimit> =
            parts.method_limits.into_iter().collect();
        let now = Instant::now();
        let mut methods = Vec::new();
        let mut services = FxHashMap::default();
        for service in parts.services {
            let descriptor = service.descriptor();
            let mut by_name = FxHashMap::default();
            let pool = pool_of(descriptor);
            for (index, method) in descriptor.methods.iter().enumerate() {
                let name = format!("{}.{}", method.service, method.name);
                let limit = method_limits.remove(&name).unwrap_or_default();
                by_name.insert(method.name.as_bytes(), MethodId(methods.len()));
                methods.push(MethodEntry {
                    descriptor: method,
                    service: Arc::clone(service),
                    index,
                    stats: MethodStats::default(),
                    limiter: Limiter::new(&limit, usize::MAX, now),
                    json: pool
                        .as_ref()
                        .and_then(|pool| JsonMapping::new(pool, method)),
                });
            }
            if services
                .insert(descriptor.name.as_bytes(), by_name)
                .is_some()
            {
                return Err(ProviderError::DuplicateService(descriptor.name));
            }
        }
        if let Some(name) = method_limits.into_keys().next() {
            return Err(ProviderError::UnknownMethod(name));
        }
        add_short_names(&mut services, parts.services);
        Ok(Self {
            services,
            methods,
            pool: parts.pool,
            limits: parts.limits,
            receiving: parts.receiving,
            limiter: parts.limiter,
            interceptors: parts.interceptors,
            authenticator: parts.authenticator,
            http: parts.http,
            loops: parts.loops,
            started: now,
            connections: Connections::default(),
            recent: Recent::new(now),
            draining: AtomicBool::new(false),
            health_asked: AtomicBool::new(false),
        })
    }

    /// Finds the method as brpc does: a full name that is unknown is reported as an unknown
    /// method, a short one as an unknown service.
    pub(super) fn find(&self, service: &[u8], method: &[u8]) -> Result<MethodId, RpcError> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let no_method = || {
            let what = format!("no method {}/{}", text(service), text(method));
            RpcError::new(ErrorCode::NO_METHOD, what)
        };
        match self.services.get(service) {
            Some(methods) => methods.get(method).copied().ok_or_else(no_method),
            None if service.contains(&b'.') => Err(no_method()),
            None => {
                let what = format!("no service {}", text(service));
                Err(RpcError::new(ErrorCode::NO_SERVICE, what))
            }
        }
    }

    /// The method; an id is only ever made by this value.
    pub(crate) fn method(&self, id: MethodId) -> &MethodEntry {
        &self.methods[id.0]
    }

    /// All methods, service by service.
    pub(crate) fn methods(&self) -> &[MethodEntry] {
        &self.methods
    }

    /// The services, in the order they were added; those without methods are not seen.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = &'static ServiceDescriptor> {
        let first = self.methods.iter().filter(|method| method.index == 0);
        first.map(|method| method.service.descriptor())
    }

    /// Who the caller is; `None` when nobody asks.
    pub(super) fn verify(
        &self,
        data: &[u8],
        peer: &Address,
    ) -> Result<Option<Arc<AuthContext>>, RpcError> {
        match &self.authenticator {
            Some(authenticator) => auth::verify(authenticator.as_ref(), data, peer).map(Some),
            None => Ok(None),
        }
    }

    /// Counts a call in, or says why it is refused.
    pub(super) fn admit(&self, id: MethodId) -> Result<(), RpcError> {
        let method = self.method(id);
        let refuse = |what| {
            method.stats.refuse();
            Err(RpcError::new(ErrorCode::OVERLOADED, what))
        };
        if !self.limiter.enter() {
            return refuse("too many calls are in work");
        }
        if !method.limiter.enter() {
            self.limiter.leave(Instant::now(), None);
            return refuse("too many calls of the method are in work");
        }
        Ok(())
    }

    /// Counts a call out that was let in and has run, until `now`.
    pub(super) fn finished(&self, id: MethodId, now: Instant, sample: &Sample) {
        self.method(id).stats.record(sample);
        let latency = (!sample.failed).then_some(sample.latency);
        self.leave(id, now, latency);
    }

    /// Counts a call out that was let in and did not get to run.
    pub(super) fn turned_away(&self, id: MethodId) {
        self.method(id).stats.refuse();
        self.leave(id, Instant::now(), None);
    }

    fn leave(&self, id: MethodId, now: Instant, latency: Option<Duration>) {
        self.method(id).limiter.leave(now, latency);
        self.limiter.leave(now, latency);
    }

    pub(super) fn start_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    pub(super) fn health_was_asked(&self) {
        self.health_asked.store(true, Ordering::Relaxed);
    }

    /// Whether somebody has ever asked `/health`.
    pub(super) fn is_watched(&self) -> bool {
        self.health_asked.load(Ordering::Relaxed)
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}

fn add_short_names(
    services: &mut FxHashMap<&'static [u8], FxHashMap<&'static [u8], MethodId>>,
    all: &[Arc<dyn Service>],
) {
    let short_name = |service: &Arc<dyn Service>| {
        let full = service.descriptor().name;
        full.rsplit('.').next().unwrap_or(full)
    };
    for service in all {
        let short = short_name(service);
        let owners = all.iter().filter(|other| short_name(other) == short);
        if owners.count() == 1
            && let Some(methods) = services.get(service.descriptor().name.as_bytes())
        {
            let methods = methods.clone();
            services.entry(short.as_bytes()).or_insert(methods);
        }
    }
}
