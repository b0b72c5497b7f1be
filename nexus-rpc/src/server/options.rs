//! What can be chosen about a provider.

use std::net::SocketAddr;
use std::time::Duration;

use nexus_net::ConnectionOptions;

use super::ConcurrencyLimit;
use crate::http::HttpLimits;
use crate::wire::Limits;

/// Where a provider shows its pages: `/health`, `/status`, `/connections`, `/metrics` and `/services`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pages {
    /// On the port of the calls. When the provider has an authenticator, pages other than `/health` are
    /// shown only to callers that it lets in by the field `authorization`.
    #[default]
    SamePort,
    /// On a port of their own (port 0: any free port), open to everybody who reaches it, and without TLS: for
    /// a loopback address or an inner network. The port of the calls shows none.
    InnerPort(SocketAddr),
    /// Nowhere.
    Off,
}

/// What a provider offers over HTTP/1.1 on the port of its calls.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// Where its pages are. Default: the same port.
    pub pages: Pages,
    /// Whether methods can be called by `POST /package.Service/Method`, with the content types
    /// `application/json` and `application/proto`. The field `x-timeout-ms` is the call's timeout,
    /// `traceparent` its trace, and `authorization` what an authenticator is shown.
    ///
    /// Metadata is in fields `Nexus-Meta-<name>`, of the request and of the answer, with percent-encoded
    /// values: at most [`head_bytes_max`](HttpLimits::head_bytes_max) of it, or the call fails. Attachments do not
    /// travel over HTTP: a handler sees an empty one, and one that it sets is left out; the answer's field
    /// `Nexus-Attachment-Left-Out` says how many bytes it had. Default: yes.
    pub calls: bool,
    /// How large requests may be.
    pub limits: HttpLimits,
    /// How long a caller may leave an open connection unused before it is closed. Default 60 s.
    pub idle_timeout: Duration,
    /// How long the head of a request may take from its first byte to its last; one that takes longer is answered
    /// 408, and the connection is closed. Default 10 s.
    pub head_timeout: Duration,
    /// The same for the body, from the end of the head. Default 60 s.
    pub body_timeout: Duration,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            pages: Pages::default(),
            calls: true,
            limits: HttpLimits::default(),
            idle_timeout: Duration::from_secs(60),
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(60),
        }
    }
}

/// How a provider serves.
///
/// Build it with `..ProviderOptions::default()`: features add fields.
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
    /// Bytes of requests that all connections together may be receiving, and having answered. One of at most 64 KiB does
    /// not count. A larger one takes its whole size as soon as that is known (a chunked body of HTTP: the largest that is
    /// allowed), so whoever has begun can finish; when there is no room, the call is refused with
    /// [`ErrorCode::OVERLOADED`](crate::ErrorCode::OVERLOADED), what comes of it is not kept, and the connection
    /// goes on (over HTTP it is answered 503 and closed). At least one largest frame has room. Default 256 MiB.
    pub request_bytes_max: usize,
    /// How long a frame may take from its first byte to its last; the connection of one that takes longer is closed. It
    /// counts also while a caller is not read because it does not take its answers. Default 60 s.
    pub frame_timeout: Duration,
    /// With an [`Authenticator`](crate::Authenticator): how long a connection may take until its first call has
    /// shown who the caller is. A [`Channel`](crate::Channel) without calls does that after 5 s. Default 15 s.
    ///
    /// Before that at most 16 KiB of a call's meta are kept, and nothing of what stands behind it.
    pub authentication_timeout: Duration,
    /// What is offered over HTTP.
    pub http: HttpOptions,
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
    /// TLS on every connection, and whether callers must show a certificate; not on the
    /// [port of the pages](Pages::InnerPort). Default: none.
    #[cfg(feature = "tls")]
    pub tls: Option<nexus_net::ServerTls>,
}

impl Default for ProviderOptions {
    fn default() -> Self {
        Self {
            worker_threads: 8,
            worker_queue_max: 4096,
            in_flight_max: 100_000,
            concurrency: ConcurrencyLimit::Unlimited,
            limits: Limits::default(),
            request_bytes_max: 256 << 20,
            frame_timeout: Duration::from_secs(60),
            authentication_timeout: Duration::from_secs(15),
            http: HttpOptions::default(),
            connection: ConnectionOptions::default(),
            advertise: None,
            weight: 1,
            zone: String::new(),
            version: String::new(),
            discovery_delay: Duration::from_millis(500),
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}
