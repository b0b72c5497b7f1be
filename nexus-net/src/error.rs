//! What can go wrong, and why a connection ended.

use std::io;

use crate::Address;

/// Errors of starting something: a loop, a server, a pool.
///
/// What happens to a connection later is no error but a [`CloseReason`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to make a loop (descriptors, memory).
    #[error("cannot make an event loop: {0}")]
    Loop(#[source] io::Error),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address that was asked for.
        address: Address,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A thread could not be started.
    #[error("cannot start thread {name}: {source}")]
    Thread {
        /// The thread's name.
        name: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A number in the options is outside its range.
    #[error("invalid option: {0}")]
    Options(&'static str),
    /// The loop has already stopped.
    #[error("the event loop has stopped")]
    LoopGone,
    /// Certificates, keys or names that TLS cannot use.
    #[cfg(feature = "tls")]
    #[error("TLS: {what}: {source}")]
    Tls {
        /// The file or the name.
        what: String,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

#[cfg(feature = "tls")]
impl Error {
    pub(crate) fn tls(
        what: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Tls {
            what: what.into(),
            source: source.into(),
        }
    }
}

/// Why a connection ended. Handed to [`Handler::closed`](crate::Handler::closed), once.
#[derive(Debug)]
#[non_exhaustive]
pub enum CloseReason {
    /// This side closed it, after what was to be written was handed to the kernel.
    Local,
    /// This side cut it off with [`Connection::abort`](crate::Connection::abort).
    Aborted,
    /// The peer closed before this side did.
    Peer,
    /// Reading or writing failed: reset, unreachable, timed out.
    Io(io::Error),
    /// The connection was never made.
    ConnectFailed(io::Error),
    /// Nothing was read for [`idle_timeout`](crate::ConnectionOptions::idle_timeout).
    Idle,
    /// The handler left more than [`input_bytes_max`](crate::ConnectionOptions::input_bytes_max)
    /// unconsumed.
    InputLimit,
    /// The peer reads too slowly: more than
    /// [`output_bytes_max`](crate::ConnectionOptions::output_bytes_max) waited to be written.
    OutputLimit,
    /// It was closing, and the peer did not take the rest in time; output was lost.
    CloseTimeout,
    /// A method of the handler panicked.
    HandlerPanicked,
    /// The loop stopped.
    LoopStopped,
}

#[cfg(feature = "tls")]
impl CloseReason {
    /// Whether the peer ended the connection with an alert of TLS that refuses this side: its certificate, or
    /// that it showed none. With TLS 1.3 a client hears of that only when it believes the handshake done.
    pub fn is_refused_by_tls(&self) -> bool {
        use rustls::AlertDescription as Alert;
        let (Self::Io(error) | Self::ConnectFailed(error)) = self else {
            return false;
        };
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
        matches!(
            cause,
            Some(rustls::Error::AlertReceived(
                Alert::HandshakeFailure
                    | Alert::NoCertificate
                    | Alert::BadCertificate
                    | Alert::UnsupportedCertificate
                    | Alert::CertificateRevoked
                    | Alert::CertificateExpired
                    | Alert::CertificateUnknown
                    | Alert::UnknownCA
                    | Alert::AccessDenied
                    | Alert::DecryptError
                    | Alert::CertificateRequired
            ))
        )
    }
}

impl std::fmt::Display for CloseReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Local => f.write_str("closed by this side"),
            Self::Aborted => f.write_str("aborted by this side"),
            Self::Peer => f.write_str("closed by the peer"),
            Self::Io(error) => write!(f, "I/O error: {error}"),
            Self::ConnectFailed(error) => write!(f, "cannot connect: {error}"),
            Self::Idle => f.write_str("idle for too long"),
            Self::InputLimit => f.write_str("an incomplete frame outgrew the input limit"),
            Self::OutputLimit => f.write_str("the peer reads too slowly"),
            Self::CloseTimeout => f.write_str("the peer did not take the rest in time"),
            Self::HandlerPanicked => f.write_str("the handler panicked"),
            Self::LoopStopped => f.write_str("the event loop stopped"),
        }
    }
}
