//! What a channel and a call can be told.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nexus_net::{Backoff, ConnectionOptions};

use super::interceptor::{ClientInterceptor, Credentials};
use crate::policy::{BackupAfter, BreakerOptions, BudgetOptions, LoadBalancing, ZonePreference};
use crate::wire::{ChecksumType, CompressType, Limits};
use crate::{Metadata, MetadataKey, TraceContext};

/// How a channel calls.
///
/// Build it with `..ChannelOptions::default()`: features add fields.
#[derive(Clone)]
pub struct ChannelOptions {
    /// How long a call waits unless it says otherwise. Default 1 s; at most 24 days, which is what
    /// the protocol can say. With 0 every call fails without being sent. A call made inside of a handler
    /// waits no longer than the call that is being served.
    pub timeout: Duration,
    /// How a provider is picked. Default: round robin.
    pub load_balancing: LoadBalancing,
    /// Where the caller runs, to prefer providers of the same zone. Default: no preference.
    pub zone: Option<ZonePreference>,
    /// Connections to each provider. Default: one, shared by all calls.
    pub connections: Connections,
    /// How long a [pooled](Connections::Pooled) connection beside the first is kept without a call; it is closed
    /// between one and two times that. Default 60 s.
    pub pooled_idle_max: Duration,
    /// When a call is tried again.
    pub retry: RetryOptions,
    /// When, and how often at most, a second request is sent while the first is out. Default: never.
    pub backup: BackupOptions,
    /// When a provider that fails is left alone for a while. Default: see [`BreakerOptions`].
    pub breaker: BreakerOptions,
    /// What a call does while no provider is connected. Default: it fails at once.
    pub readiness: Readiness,
    /// Calls that wait for a provider at a time, per service; more fail with
    /// [`ErrorCode::SEND_QUEUE_FULL`](crate::ErrorCode::SEND_QUEUE_FULL). Default 10,000.
    pub waiting_max: usize,
    /// Calls in flight at a time to one provider; more fail with
    /// [`ErrorCode::SEND_QUEUE_FULL`](crate::ErrorCode::SEND_QUEUE_FULL). Default 65,536.
    pub in_flight_max: usize,
    /// Frame sizes, for requests and answers. Default: 64 MiB. A larger request fails with
    /// [`ErrorCode::BAD_REQUEST`](crate::ErrorCode::BAD_REQUEST), unsent; a larger answer ends its connection.
    pub limits: Limits,
    /// Limits of each connection. Its `connect_timeout` is 1 s by default here, and those on bytes
    /// are raised to the largest frame where they are below it.
    pub connection: ConnectionOptions,
    /// Delays between attempts to connect, doubling, with jitter. Default: those of [`Backoff`].
    pub backoff: Backoff,
    /// What runs around each call, the outermost first. Default: nothing.
    pub interceptors: Vec<Arc<dyn ClientInterceptor>>,
    /// Who the caller is. Default: nobody says.
    pub credentials: Option<Arc<dyn Credentials>>,
    /// TLS to every provider, and how they are known. Default: none.
    #[cfg(feature = "tls")]
    pub tls: Option<nexus_net::ClientTls>,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(1),
            load_balancing: LoadBalancing::default(),
            zone: None,
            connections: Connections::default(),
            pooled_idle_max: Duration::from_secs(60),
            retry: RetryOptions::default(),
            backup: BackupOptions::default(),
            breaker: BreakerOptions::default(),
            readiness: Readiness::default(),
            waiting_max: 10_000,
            in_flight_max: 65_536,
            limits: Limits::default(),
            connection: ConnectionOptions {
                connect_timeout: Duration::from_secs(1),
                ..ConnectionOptions::default()
            },
            backoff: Backoff::default(),
            interceptors: Vec::new(),
            credentials: None,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}

impl fmt::Debug for ChannelOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelOptions")
            .field("timeout", &self.timeout)
            .field("load_balancing", &self.load_balancing)
            .field("zone", &self.zone)
            .field("connections", &self.connections)
            .field("retry", &self.retry)
            .field("interceptors", &self.interceptors.len())
            .finish_non_exhaustive()
    }
}

/// How many connections a channel keeps to one provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Connections {
    /// One, with many calls in flight on it: answers and requests travel in large pieces.
    #[default]
    Shared,
    /// As many, each shared by many calls; a call takes the one with the fewest in flight. They are spread
    /// over the channel's loops. The provider is ready as long as one of them stands; those that are lost are
    /// made again beside it. 0 counts as 1.
    Several(usize),
    /// One for each call in flight, up to so many, and used again by later calls: large answers do not
    /// hold up small ones. Those that were
    /// [unused for a while](ChannelOptions::pooled_idle_max) are closed. Beyond it calls fail with
    /// [`ErrorCode::SEND_QUEUE_FULL`](crate::ErrorCode::SEND_QUEUE_FULL). 0 counts as 1.
    Pooled(usize),
}

/// When a call is tried again.
///
/// A call that was certainly not run (it was not sent, or was refused by a provider that is stopping or
/// overloaded) goes to another provider at once, and that costs neither an attempt nor budget: of those that
/// refuse a call, at most 16 are asked so. Once there is nobody left to ask, the refusals count as one attempt, and
/// further ones come after a delay, within the budget. One that may have run is repeated only if its method is
/// declared idempotent (`option idempotency_level` of the `.proto`) or the call says so, and only within
/// the budget.
#[derive(Debug, Clone)]
pub struct RetryOptions {
    /// Attempts of one call. Default 3; 1 means never again.
    pub attempts_max: u32,
    /// How many retries the calls pay for, so that retries cannot multiply the load of a service that
    /// fails. What another provider has refused unrun goes elsewhere without it. Per service. Default:
    /// [`BudgetOptions::retries`].
    pub budget: BudgetOptions,
    /// Delays before a call goes to a provider that has had it already. Default 10 ms doubling to
    /// 250 ms, with jitter.
    pub backoff: Backoff,
}

impl Default for RetryOptions {
    fn default() -> Self {
        Self {
            attempts_max: 3,
            budget: BudgetOptions::retries(),
            backoff: Backoff {
                initial: Duration::from_millis(10),
                max: Duration::from_millis(250),
            },
        }
    }
}

/// When a second request is sent while the first is out, to another provider where there is one. The
/// first answer counts. Only for methods that are declared idempotent.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// After how long. Default: never.
    pub after: Option<BackupAfter>,
    /// How many the calls pay for. Also for calls that choose a delay of their own. Per service. Default:
    /// [`BudgetOptions::backups`].
    pub budget: BudgetOptions,
}

impl Default for BackupOptions {
    fn default() -> Self {
        Self {
            after: None,
            budget: BudgetOptions::backups(),
        }
    }
}

/// What a call does while no provider is connected or connecting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Readiness {
    /// It fails, with [`ErrorCode::HOST_DOWN`](crate::ErrorCode::HOST_DOWN).
    #[default]
    FailFast,
    /// It waits for one until its deadline.
    WaitForReady,
}

/// When one call sends a second request while the first is out. The first answer counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backup {
    /// As the channel's [`backup`](ChannelOptions::backup) says, if the method is idempotent.
    #[default]
    Channel,
    /// Never.
    Never,
    /// After so long. The call declares thereby that running it twice does no harm.
    After(Duration),
}

/// What a call may differ in from the channel's defaults.
#[derive(Debug, Clone, Default)]
pub struct CallOptions {
    /// How long the caller waits. Default: the channel's, whose bounds hold here too.
    pub timeout: Option<Duration>,
    /// Bytes to go out beside the request, neither encoded nor compressed. Default: none.
    pub attachment: Bytes,
    /// What goes along beside the request; the provider's handler sees it in
    /// [`CallContext::metadata`](crate::CallContext::metadata). Default: nothing.
    pub metadata: Metadata,
    /// A number for the provider's log. Default: none.
    pub log_id: Option<i64>,
    /// How the request is compressed. The provider chooses for its answer. Default: not at all.
    pub compression: CompressType,
    /// What protects the request against damage on the way. Default: nothing beyond TCP.
    pub checksum: ChecksumType,
    /// What the consistent hash picks by: calls of one key go to one provider, as long as it is there
    /// and not overloaded. Means something to
    /// [`LoadBalancing::ConsistentHash`](crate::LoadBalancing::ConsistentHash) only. `None`: a provider at random.
    pub hash_key: Option<u64>,
    /// Running it twice does no more than running it once, whatever the method's declaration.
    /// `None`: as declared.
    pub idempotent: Option<bool>,
    /// What the call does while no provider is connected. `None`: as the channel.
    pub readiness: Option<Readiness>,
    /// When a second request is sent. Default: as the channel says.
    pub backup: Backup,
    /// What trace the call belongs to. `None`: that of the call being served by this thread, if any.
    pub trace: Option<TraceContext>,
}

impl CallOptions {
    /// Default options with this timeout.
    pub fn timeout(timeout: Duration) -> Self {
        Self {
            timeout: Some(timeout),
            ..Self::default()
        }
    }

    /// Puts a value into the metadata.
    #[must_use]
    pub fn with_metadata<T: fmt::Display>(mut self, key: MetadataKey<T>, value: T) -> Self {
        self.metadata.set(key, value);
        self
    }

    /// Lets the call wait for a provider until its deadline.
    #[must_use]
    pub fn wait_for_ready(mut self) -> Self {
        self.readiness = Some(Readiness::WaitForReady);
        self
    }
}

/// A message as bytes, encoded already or not to be decoded: for tools that know types only when they
/// run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RawMessage(pub Bytes);
