//! What can be chosen about a provider.

use std::net::SocketAddr;
use std::time::Duration;

use nexus_net::ConnectionOptions;

use super::ConcurrencyLimit;
use crate::wire::Limits;

/// How a provider serves.
#[derive(Debug, Clone)]
pub struct ProviderOptions {
    /// Threads that run pooled handlers. Default 8.
    pub worker_threads: usize,
    /// Pooled calls that may wait for a thread; more are refused with
    /// [`ErrorCode::OVERLOADED`](crate::ErrorCode::OVERLOADED). Default 4096.
    pub worker_queue_max: usize,
    /// Calls in work at a time, over all connections; more are refused with
    /// [`ErrorCode::OVERLOADED`](crate::ErrorCode::OVERLOADED). Default 100,000.
    pub in_flight_max: usize,
    /// A limit below `in_flight_max` that may adapt itself. Default: none. A method can have one of its own:
    /// [`ProviderBuilder::limit`](crate::ProviderBuilder::limit).
    pub concurrency: ConcurrencyLimit,
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
            concurrency: ConcurrencyLimit::Unlimited,
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
