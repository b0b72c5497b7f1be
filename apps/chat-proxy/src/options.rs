//! [`ProxyOptions`]: how a proxy serves, and every limit it keeps.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use chat_node::cluster::ProxySide;
use nexus_net::{ConnectionOptions, Placement, ProxyProtocol, ServerOptions, ServerTls};

use crate::ClientLimits;
use crate::delivery::HeldLimits;

/// Room beside the largest frame in what a connection may leave unconsumed.
const FRAME_SLACK_BYTES: usize = 4 << 10;

/// How a [`Proxy`](crate::Proxy) serves.
#[derive(Debug, Clone)]
pub struct ProxyOptions {
    /// Where clients connect; port 0 is any free port. Default 127.0.0.1:8001.
    pub listen: SocketAddr,
    /// TLS for all clients. Default: none.
    pub tls: Option<ServerTls>,
    /// Whether load balancers in front name the clients' addresses, and which. Default: clients connect
    /// themselves.
    pub proxy_protocol: ProxyProtocol,
    /// How it is known to the chat servers. Default: not at all.
    pub cluster: ProxySide,
    /// What one client may do.
    pub clients: ClientLimits,
    /// Connections at a time; more are closed as soon as they are accepted. Default 100,000.
    pub connections_max: usize,
    /// A client that has sent nothing for this long is closed and logged out; clients with nothing to say
    /// send a Heartbeat every third of it. Default 90 s.
    pub idle_timeout: Duration,
    /// The same for a client that has never sent a Heartbeat and does not acknowledge: an old one may
    /// have nothing to say for long. Default 30 min.
    pub idle_timeout_without_heartbeat: Duration,
    /// How long a connection that is being closed may take for its last bytes. Default 2 s.
    pub close_timeout: Duration,
    /// The longest frame of a client; a longer one ends its connection. Default 256 KiB.
    pub frame_bytes_max: usize,
    /// The longest frame of a client that has not logged in, except for a ResumeRequest, which may have
    /// `frame_bytes_max`: it names what the client has of each conversation. A longer one ends its connection.
    /// Default 4 KiB: a password has at most 1 KiB, a name at most 252 B.
    pub unauthenticated_frame_bytes_max: usize,
    /// Bytes that all connections on which nobody has logged in may hold together: beginnings of frames, long resumes
    /// that are being answered, answers that are not taken. A connection that would hold more is told so (104) and closed. Those
    /// that hold more than a frame of `unauthenticated_frame_bytes_max` get half of it. A frame that comes whole
    /// holds nothing. Default 64 MiB.
    pub unauthenticated_bytes_max: usize,
    /// Requests of one connection that are not answered yet; more are answered "rate limited".
    /// Default 64.
    pub requests_in_flight_per_session_max: usize,
    /// Above this many bytes that a client has not taken, no more is read of it. Default 1 MiB.
    pub output_high_bytes: usize,
    /// Below this many, reading goes on. Default 256 KiB.
    pub output_low_bytes: usize,
    /// A client that lets more than this pile up is closed; what it has not got stays pending. Default
    /// 16 MiB.
    pub output_bytes_max: usize,
    /// Messages held for a session because an earlier one is missing; beyond it all of them are
    /// fetched instead. Default 256.
    pub held_messages_max: usize,
    /// The same in bytes. Default 1 MiB.
    pub held_bytes_max: usize,
    /// How long a missing message is waited for before it is fetched. Default 30 ms.
    pub gap_timeout: Duration,
    /// How often each session asks for what it may have missed without any sign of it, as when a chat
    /// server died between a commit and its push. Default 60 s.
    pub resync_interval: Duration,
    /// How long a request may take, from when it reaches the proxy, before the client is told "unavailable", or that it is
    /// not known whether it was carried out. Default 5 s.
    pub request_timeout: Duration,
    /// After a proxy dies its users count as online for at most this long. The lease is renewed
    /// every third of it. Default 5 s.
    pub lease_ttl: Duration,
    /// Acknowledgements are collected for this long before they are sent. Default 100 ms.
    pub ack_interval: Duration,
}

impl Default for ProxyOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8001)),
            tls: None,
            proxy_protocol: ProxyProtocol::Off,
            cluster: ProxySide::default(),
            clients: ClientLimits::default(),
            connections_max: 100_000,
            idle_timeout: Duration::from_secs(90),
            idle_timeout_without_heartbeat: Duration::from_secs(30 * 60),
            close_timeout: Duration::from_secs(2),
            frame_bytes_max: 256 << 10,
            unauthenticated_frame_bytes_max: 4 << 10,
            unauthenticated_bytes_max: 64 << 20,
            requests_in_flight_per_session_max: 64,
            output_high_bytes: 1 << 20,
            output_low_bytes: 256 << 10,
            output_bytes_max: 16 << 20,
            held_messages_max: 256,
            held_bytes_max: 1 << 20,
            gap_timeout: Duration::from_millis(30),
            resync_interval: Duration::from_secs(60),
            request_timeout: Duration::from_secs(5),
            lease_ttl: Duration::from_secs(5),
            ack_interval: Duration::from_millis(100),
        }
    }
}

impl ProxyOptions {
    pub(crate) fn server(&self) -> ServerOptions {
        ServerOptions {
            connection: ConnectionOptions {
                input_bytes_max: self.frame_bytes_max.saturating_add(FRAME_SLACK_BYTES),
                output_high_bytes: self.output_high_bytes,
                output_low_bytes: self.output_low_bytes,
                output_bytes_max: self.output_bytes_max,
                // The sharper limit, for clients that send heartbeats, is the sessions'.
                idle_timeout: Some(self.idle_timeout_without_heartbeat),
                close_timeout: self.close_timeout,
                ..ConnectionOptions::default()
            },
            connections_max: self.connections_max,
            placement: Placement::LeastConnections,
            proxy_protocol: self.proxy_protocol.clone(),
            tls: self.tls.clone(),
            ..ServerOptions::default()
        }
    }

    pub(crate) fn held(&self) -> HeldLimits {
        HeldLimits {
            messages_max: self.held_messages_max,
            bytes_max: self.held_bytes_max,
        }
    }
}
