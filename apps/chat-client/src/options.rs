//! Limits and times of a client.

use std::net::SocketAddr;
use std::time::Duration;

use nexus_net::{Backoff, ClientTls, ConnectionOptions};

/// How a [`ChatClient`](crate::ChatClient) behaves.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Other addresses of the same chat. When an attempt fails or a connection is lost, the next one is
    /// tried, in a circle. Default: none.
    pub more_addresses: Vec<SocketAddr>,
    /// Limits of the connection.
    pub connection: ConnectionOptions,
    /// TLS, and which server to expect. Default: none, and passwords and messages travel as they are.
    pub tls: Option<ClientTls>,
    /// Delays between attempts to connect, and to resume the session.
    pub backoff: Backoff,
    /// How long a request may take, waiting for a connection included. Default 10 s.
    pub request_timeout: Duration,
    /// The same for a message that is sent, which is sent again when the connection was lost.
    /// Default 60 s.
    pub send_timeout: Duration,
    /// When nothing was written for this long a heartbeat is. Default 15 s.
    pub heartbeat_interval: Duration,
    /// When nothing was heard for this long, though heartbeats were sent, the connection is given
    /// up and made again. Default 40 s.
    pub silence_max: Duration,
    /// How long acknowledgements wait for others to go with. Default 50 ms.
    pub ack_delay: Duration,
    /// How long a message that came too early waits for those before it, until they are fetched
    /// from the history. Default 200 ms.
    pub gap_delay: Duration,
    /// The largest frame that is taken. A larger one ends the connection. Default 16 MiB, at least
    /// [`RESPONSE_FRAME_BYTES_MIN`](chat_proto::frame::RESPONSE_FRAME_BYTES_MIN).
    pub frame_bytes_max: usize,
    /// Friends, groups and members that one answer of [`ChatClient`](crate::ChatClient) may have. A longer list is an
    /// error, and in the answers to a login and to a joining it is cut. Default 1,000,000.
    pub list_entries_max: usize,
    /// Requests that may be unanswered at a time. More complete at once with
    /// [`ChatError::Busy`](crate::ChatError::Busy). Default 10,000.
    pub calls_max: usize,
    /// Events that may wait in the receiver of [`ChatClient::connect`](crate::ChatClient::connect).
    /// When they are so many, the connection is not read until some were taken. Default 10,000.
    pub events_max: usize,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            more_addresses: Vec::new(),
            connection: ConnectionOptions::default(),
            tls: None,
            backoff: Backoff::default(),
            request_timeout: Duration::from_secs(10),
            send_timeout: Duration::from_secs(60),
            heartbeat_interval: Duration::from_secs(15),
            silence_max: Duration::from_secs(40),
            ack_delay: Duration::from_millis(50),
            gap_delay: Duration::from_millis(200),
            frame_bytes_max: 16 << 20,
            list_entries_max: 1_000_000,
            calls_max: 10_000,
            events_max: 10_000,
        }
    }
}
