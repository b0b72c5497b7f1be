//! How a load runs.

use std::net::SocketAddr;
use std::time::Duration;

use nexus_net::ClientTls;
use serde::{Deserialize, Serialize};

/// How a load runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LoadOptions {
    /// Where users connect, in turn; at least one.
    pub connect: Vec<SocketAddr>,
    /// TLS, and which server to expect. Only for a load in this process: it is not passed on. Default: none.
    #[serde(skip)]
    pub tls: Option<ClientTls>,
    /// How fast messages are sent.
    pub pace: Pace,
    /// Who sends in a conversation. Default: the first member.
    pub senders: Senders,
    /// Bytes of a text at least. Default 64.
    pub size_bytes: usize,
    /// Messages that one user has on the way at most; more wait their turn. Default 32.
    pub window: usize,
    /// Users who are connecting or logging in at a time. Default 128.
    pub entering_max: usize,
    /// Messages that are due and wait, over all users; what is due beyond that is not sent and is counted.
    /// Default 1,000,000.
    pub waiting_max: usize,
    /// How often a client acknowledges what it has received. Default 250 ms.
    pub ack_interval: Duration,
    /// How often a client that hears nothing sends a heartbeat. Default 20 s.
    pub heartbeat_interval: Duration,
    /// A client that waits for an answer and hears nothing for this long connects anew. Default 10 s.
    pub silence_max: Duration,
    /// Whether clients come back with the token of their session, and with the password only when it is refused.
    /// Default: always with the password.
    pub resumes: bool,
    /// What has not arrived this long after the last message was sent is asked for. Default 5 s.
    pub fetch_after: Duration,
}

/// How fast messages are sent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Pace {
    /// So many per second over all pairs and over all groups, whatever comes back. Latencies count from
    /// when a message was due.
    Open {
        /// Messages per second over all pairs.
        pairs_per_s: f64,
        /// Messages per second over all groups.
        groups_per_s: f64,
    },
    /// As fast as acknowledgements come, with this many on the way per sender.
    FlatOut {
        /// Messages on the way per sender.
        in_flight: usize,
    },
}

/// Who sends in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Senders {
    /// The first member.
    First,
    /// All members; in turn, with [`Pace::Open`].
    All,
}

impl LoadOptions {
    /// The defaults, at these addresses.
    pub fn new(connect: Vec<SocketAddr>, pace: Pace) -> Self {
        Self {
            connect,
            tls: None,
            pace,
            senders: Senders::First,
            size_bytes: 64,
            window: 32,
            entering_max: 128,
            waiting_max: 1_000_000,
            ack_interval: Duration::from_millis(250),
            heartbeat_interval: Duration::from_secs(20),
            silence_max: Duration::from_secs(10),
            resumes: false,
            fetch_after: Duration::from_secs(5),
        }
    }
}
