//! HTTP/1.1 as a provider's port speaks it, sans-IO: bytes to requests, and answers to bytes.
//!
//! Nothing here knows a socket, a thread or a page. [`RequestParser`] gives the same requests however their
//! bytes were cut into reads. It reads strictly: where two readers might see the end of a request at different
//! places, it is an [`HttpError`], which is answered and ends the connection.

mod chunked;
mod head;
mod parser;
mod response;

pub use self::head::{HttpMethod, HttpRequest};
pub use self::parser::{HttpEvent, RequestParser};
pub use self::response::{HttpResponse, write_continue};

/// How large requests may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// The largest head: request line and fields. Also the most that may stand behind a chunked body.
    /// Default 16 KiB.
    pub head_bytes_max: usize,
    /// The largest body. Default 4 MiB.
    pub body_bytes_max: usize,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            head_bytes_max: 16 << 10,
            body_bytes_max: 4 << 20,
        }
    }
}

/// A request cannot be read. The caller's fault: it is answered with [`status`](Self::status), and as nobody
/// knows where the next one begins, the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// Not the grammar of HTTP.
    #[error("malformed request: {0}")]
    Malformed(&'static str),
    /// The head is larger than allowed, or has too many fields.
    #[error("the request's head is too large")]
    HeadTooLarge,
    /// The body is larger than allowed.
    #[error("the request's body is too large")]
    BodyTooLarge,
    /// An expectation other than `100-continue`.
    #[error("the expectation cannot be met")]
    Expectation,
    /// A transfer coding other than `chunked`.
    #[error("only the transfer coding chunked is known")]
    TransferCoding,
    /// A version other than 1.0 and 1.1.
    #[error("only HTTP/1.0 and HTTP/1.1 are spoken")]
    Version,
}

impl HttpError {
    /// The status of the answer.
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::BodyTooLarge => 413,
            Self::Expectation => 417,
            Self::HeadTooLarge => 431,
            Self::TransferCoding => 501,
            Self::Version => 505,
        }
    }
}
