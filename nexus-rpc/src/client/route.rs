//! The providers of one service: picking one for a call, and waiting for one.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use nexus_net::LoopGroup;
use parking_lot::{Condvar, Mutex, RwLock};
use rand::RngExt;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::endpoint::{Availability, Endpoint, EndpointId, EndpointState};
use super::flight::{Attempt, Fate, Flight};
use super::options::{Backup, ChannelOptions, Readiness};
use super::waiting::Waiting;
use crate::policy::backup::BackupTimer;
use crate::policy::balance::{Load, Member, Picker};
use crate::policy::budget::Budget;
use crate::policy::{BreakerOptions, LoadBalancing};
use crate::registry::{Provider, Watch};
use crate::{ErrorCode, MethodDescriptor, RpcError};

/// Endpoints of one rank that are asked for one call, before those of the next rank are.
const ASKED_PER_RANK_MAX: usize = 8;

/// What all routes of a channel share.
pub(crate) struct Common {
    pub(crate) options: Arc<ChannelOptions>,
    pub(crate) loops: Arc<LoopGroup>,
    next_correlation_id: AtomicI64,
    retries: Budget,
    backups: Budget,
}

impl Common {
    pub(crate) fn new(options: Arc<ChannelOptions>, loops: Arc<LoopGroup>) -> Self {
        let now = Instant::now();
        Self {
            retries: Budget::new(&options.retry.budget, now),
            backups: Budget::new(&options.backup.budget, now),
            options,
            loops,
            next_correlation_id: AtomicI64::new(1),
        }
    }

    pub(crate) fn correlation_id(&self) -> i64 {
        // Positive for longer than a process lives.
        self.next_correlation_id.fetch_add(1, Ordering::Relaxed)
    }
}

pub(crate) struct Route {
    pub(crate) service: &'static str,
    /// Dropped first: who waits hears of the end while the loops are there.
    waiting: Waiting,
    pub(crate) common: Arc<Common>,
    snapshot: ArcSwap<Snapshot>,
    lock: Mutex<()>,
    changed: Condvar,
    /// How long calls of each method take, for those that may be sent twice; by descriptor.
    backup_timers: RwLock<FxHashMap<usize, Arc<BackupTimer>>>,
    /// Dropped with the route, which ends it.
    watch: Mutex<Option<Watch>>,
}

/// The providers as last heard of. Replaced as a whole, so that a call reads it without a lock.
struct Snapshot {
    endpoints: Vec<Arc<Endpoint>>,
    picker: Picker,
    /// For attempts after the first, where calls take turns: a second attempt that took a turn would
    /// shift those of the calls after it.
    elsewhere: Option<Picker>,
}

impl Route {
    pub(crate) fn new(service: &'static str, common: Arc<Common>) -> Arc<Self> {
        let snapshot = Snapshot::new(&common.options, Vec::new(), &[]);
        Arc::new(Self {
            service,
            common,
            snapshot: ArcSwap::from_pointee(snapshot),
            waiting: Waiting::default(),
            lock: Mutex::new(()),
            changed: Condvar::new(),
            backup_timers: RwLock::default(),
            watch: Mutex::new(None),
        })
    }

    pub(crate) fn set_watch(&self, watch: Watch) {
        *self.watch.lock() = Some(watch);
    }

    // ---- what is known ----

    /// The providers, as the registry has just named them.
    pub(crate) fn update(&self, endpoints: Vec<Arc<Endpoint>>, providers: &[Provider]) {
        log::info!("{}: {} provider(s)", self.service, endpoints.len());
        let snapshot = Snapshot::new(&self.common.options, endpoints, providers);
        self.snapshot.store(Arc::new(snapshot));
        self.endpoint_changed();
    }

    pub(crate) fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.snapshot.load().endpoints.clone()
    }

    pub(crate) fn is_ready(&self) -> bool {
        let snapshot = self.snapshot.load();
        snapshot
            .endpoints
            .iter()
            .any(|endpoint| endpoint.availability() == Availability::Ready)
    }

    /// Whether one more of the providers may be left alone.
    pub(crate) fn can_spare_one(&self, breaker: &BreakerOptions) -> bool {
        let snapshot = self.snapshot.load();
        let alone = |endpoint: &&Arc<Endpoint>| {
            matches!(
                endpoint.state(),
                EndpointState::Isolated | EndpointState::Probing
            )
        };
        let isolated = snapshot.endpoints.iter().filter(alone).count();
        breaker.may_isolate(snapshot.endpoints.len(), isolated)
    }

    /// Waits until a provider is ready. `false`: none was by then. Blocks.
    pub(crate) fn wait_ready(&self, until: Instant) -> bool {
        let mut guard = self.lock.lock();
        while !self.is_ready() {
            if self.changed.wait_until(&mut guard, until).timed_out() {
                return self.is_ready();
            }
        }
        true
    }

    /// An endpoint has changed its state, or the list has changed.
    pub(crate) fn endpoint_changed(&self) {
        {
            // With the lock, so that it does not fall between a waiter's look and its wait.
            let _guard = self.lock.lock();
            self.changed.notify_all();
        }
        self.waiting.changed();
        self.serve_waiting();
    }

    // ---- sending ----

    /// Sends the first attempt of a call.
    pub(crate) fn begin(self: &Arc<Self>, flight: &Arc<Flight>, attempt: Attempt, backup: Backup) {
        self.common.retries.deposit();
        if let Err(error) = self.dispatch(attempt, SmallVec::new()) {
            self.unsent(flight, error);
            return;
        }
        let delay = match backup {
            Backup::Never => None,
            Backup::After(delay) => Some(delay),
            Backup::Channel => flight.plan.backup_timer.as_ref().and_then(|t| t.delay()),
        };
        let Some(delay) = delay else {
            return;
        };
        self.common.backups.deposit();
        let (route, flight) = (Arc::downgrade(self), Arc::downgrade(flight));
        // Refused, the loop has gone, and the call fails by itself.
        let _ = self.common.loops.next().post_after(delay, move |_| {
            if let (Some(route), Some(flight)) = (route.upgrade(), flight.upgrade()) {
                route.back_up(&flight);
            }
        });
    }

    /// An attempt has failed, and the call may be tried again.
    pub(crate) fn again(self: &Arc<Self>, flight: &Arc<Flight>, error: RpcError, fate: Fate) {
        let may_have_run = matches!(fate, Fate::Unknown | Fate::Answered);
        if may_have_run && !self.common.retries.withdraw(Instant::now()) {
            flight.finish(Err(error));
            return;
        }
        if let Some(attempt) = flight.another(self.common.correlation_id())
            && self.dispatch(attempt, flight.tried()).is_ok()
        {
            return;
        }
        if fate == Fate::NotSent {
            // Its connection has ended before it was sent. The provider may have others.
            let may_return = error.code() == ErrorCode::CONNECTION_FAILED && self.is_ready();
            if may_return
                && flight.may_return()
                && let Some(attempt) = flight.another(self.common.correlation_id())
                && self.dispatch(attempt, SmallVec::new()).is_ok()
            {
                return;
            }
            self.unsent(flight, error);
        } else if may_have_run
            || (flight.spend_refusals() && self.common.retries.withdraw(Instant::now()))
        {
            self.later(flight, error);
        } else {
            flight.finish(Err(error));
        }
    }

    /// Everybody has had the call: after a moment it goes to anybody.
    fn later(self: &Arc<Self>, flight: &Arc<Flight>, error: RpcError) {
        let delay = self
            .common
            .options
            .retry
            .backoff
            .delay(flight.attempts(), rand::rng().random());
        if Instant::now() + delay >= flight.plan.deadline {
            flight.finish(Err(error));
            return;
        }
        let (route, again) = (Arc::clone(self), Arc::clone(flight));
        let failure = error.clone();
        let posted = self.common.loops.next().post_after(delay, move |_| {
            let sent = match again.another(route.common.correlation_id()) {
                Some(attempt) => route.dispatch(attempt, SmallVec::new()).is_ok(),
                None => false,
            };
            if !sent {
                again.finish(Err(failure));
            }
        });
        if posted.is_err() {
            flight.finish(Err(error));
        }
    }

    /// Sends a second request of a call that has no answer yet.
    fn back_up(&self, flight: &Arc<Flight>) {
        if flight.is_over() || !flight.is_out() || !self.common.backups.withdraw(Instant::now()) {
            return;
        }
        let attempt = flight.another(self.common.correlation_id());
        // To another provider first: whatever holds the one up may hold up all that it is sent.
        let sent = attempt.is_some_and(|attempt| {
            self.dispatch(attempt, flight.tried()).is_ok()
                || flight
                    .another(self.common.correlation_id())
                    .is_some_and(|attempt| self.dispatch(attempt, SmallVec::new()).is_ok())
        });
        if !sent {
            self.common.backups.refund();
        }
    }

    /// Picks a provider that is not in `excluded`, the best rank first, and hands it the attempt. Failed,
    /// nothing was sent and the attempt is no more.
    fn dispatch(
        &self,
        mut attempt: Attempt,
        mut excluded: SmallVec<[EndpointId; 4]>,
    ) -> Result<(), RpcError> {
        let snapshot = self.snapshot.load();
        let endpoints = &snapshot.endpoints;
        let load = |index: usize| snapshot.load_of(index, Instant::now());
        let mut random = || rand::rng().random();
        let picker = match &snapshot.elsewhere {
            Some(elsewhere) if !excluded.is_empty() => elsewhere,
            _ => &snapshot.picker,
        };
        let mut error = None;
        for worst in [
            Availability::Ready,
            Availability::Connecting,
            Availability::Stopping,
        ] {
            for _ in 0..ASKED_PER_RANK_MAX {
                // Each rank takes in the better ones again: an endpoint may have become ready.
                let usable = |index: usize| {
                    endpoints.get(index).is_some_and(|endpoint| {
                        endpoint.availability() <= worst && !excluded.contains(&endpoint.id())
                    })
                };
                let key = attempt.flight().plan.hash_key;
                let picked = picker.pick(key, &usable, &load, &mut random);
                let Some(endpoint) = picked.and_then(|index| endpoints.get(index)) else {
                    break;
                };
                attempt.flight().note_tried(endpoint.id());
                match endpoint.send(attempt) {
                    Ok(()) => return Ok(()),
                    Err((returned, reason)) => {
                        attempt = returned;
                        error = Some(reason);
                        excluded.push(endpoint.id());
                    }
                }
            }
        }
        attempt.retract();
        Err(error.unwrap_or_else(|| {
            let service = self.service;
            let refused = endpoints.iter().filter(|endpoint| endpoint.refuses());
            let (code, what) = match (endpoints.len(), refused.count()) {
                (0, _) => (ErrorCode::HOST_DOWN, format!("no provider of {service}")),
                (all, refused) if refused == all => (
                    ErrorCode::TLS,
                    format!(
                        "every provider of {service} refuses this side's certificate, or wants one"
                    ),
                ),
                _ => (
                    ErrorCode::HOST_DOWN,
                    format!("no provider of {service} can be reached"),
                ),
            };
            RpcError::new(code, what)
        }))
    }

    // ---- waiting for a provider ----

    /// Nobody took the call: it waits, if it is to, or fails.
    fn unsent(self: &Arc<Self>, flight: &Arc<Flight>, error: RpcError) {
        let nobody = matches!(
            error.code(),
            ErrorCode::HOST_DOWN | ErrorCode::CONNECTION_FAILED
        );
        if flight.plan.readiness == Readiness::FailFast || !nobody {
            flight.finish(Err(error));
            return;
        }
        flight.forget_tried();
        if !self.waiting.push(flight, self.common.options.waiting_max) {
            let what = format!("too many calls wait for a provider of {}", self.service);
            flight.finish(Err(RpcError::new(ErrorCode::SEND_QUEUE_FULL, what)));
            return;
        }
        let left = flight
            .plan
            .deadline
            .saturating_duration_since(Instant::now());
        let (route, late) = (Arc::downgrade(self), Arc::downgrade(flight));
        let posted = self.common.loops.next().post_after(left, move |_| {
            let Some(late) = late.upgrade() else {
                return;
            };
            if let Some(route) = route.upgrade() {
                route.waiting.remove(&late);
            }
            let what = "no provider could be reached in time";
            late.finish(Err(RpcError::new(ErrorCode::DEADLINE_EXCEEDED, what)));
        });
        if posted.is_err() {
            flight.finish(Err(error));
        } else if self.is_ready() {
            // It became so before the call was in the queue.
            self.serve_waiting();
        }
    }

    /// Sends what waits, as far as there is somebody to send to.
    fn serve_waiting(&self) {
        let usable = |endpoint: &Arc<Endpoint>| endpoint.availability() <= Availability::Connecting;
        let is_anybody = || self.snapshot.load().endpoints.iter().any(usable);
        self.waiting.serve(is_anybody, |flight| {
            let Some(attempt) = flight.another(self.common.correlation_id()) else {
                return true;
            };
            match self.dispatch(attempt, SmallVec::new()) {
                Ok(()) => true,
                Err(error) if error.code() == ErrorCode::SEND_QUEUE_FULL => {
                    flight.finish(Err(error));
                    true
                }
                Err(_) => false,
            }
        });
    }

    // ---- backup requests ----

    /// What knows when a call of the method is late; `None` when none is ever sent twice.
    pub(crate) fn backup_timer(
        &self,
        method: &'static MethodDescriptor,
    ) -> Option<Arc<BackupTimer>> {
        let after = self.common.options.backup.after?;
        let key = std::ptr::from_ref(method) as usize;
        if let Some(timer) = self.backup_timers.read().get(&key) {
            return Some(Arc::clone(timer));
        }
        let mut timers = self.backup_timers.write();
        let timer = timers
            .entry(key)
            .or_insert_with(|| Arc::new(BackupTimer::new(after, Instant::now())));
        Some(Arc::clone(timer))
    }
}

impl Snapshot {
    fn new(
        options: &ChannelOptions,
        endpoints: Vec<Arc<Endpoint>>,
        providers: &[Provider],
    ) -> Self {
        let members: Vec<Member> = endpoints
            .iter()
            .map(|endpoint| {
                let provider = providers.iter().find(|p| p.address == endpoint.address());
                Member {
                    address: endpoint.address(),
                    weight: provider.map_or(1, |p| p.weight),
                    zone: provider.map(|p| p.zone.clone()).unwrap_or_default(),
                }
            })
            .collect();
        let zone = options.zone.as_ref();
        let picker = |by| Picker::new(by, &members, zone, rand::rng().random());
        let take_turns = matches!(
            options.load_balancing,
            LoadBalancing::RoundRobin | LoadBalancing::WeightedRoundRobin
        );
        Self {
            picker: picker(&options.load_balancing),
            elsewhere: take_turns.then(|| picker(&LoadBalancing::Random)),
            endpoints,
        }
    }

    fn load_of(&self, index: usize, now: Instant) -> Load {
        let Some(endpoint) = self.endpoints.get(index) else {
            return Load::default();
        };
        Load {
            in_flight: endpoint.in_flight(),
            latency_ns: endpoint.latency_ns(now),
        }
    }
}
