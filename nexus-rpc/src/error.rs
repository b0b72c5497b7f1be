//! What a call fails with: [`ErrorCode`], the number both sides know, and [`RpcError`], the number
//! with a text for people.
//!
//! The numbers are those of baidu_std. They tell whose fault a failure is:
//!
//! | who | codes |
//! |---|---|
//! | the caller: it asked for something wrong | [`NO_SERVICE`], [`NO_METHOD`], [`BAD_REQUEST`], [`UNAUTHENTICATED`] |
//! | the provider: it could not, or not now | [`INTERNAL`], [`BAD_RESPONSE`], [`STOPPING`], [`OVERLOADED`], [`REJECTED`] |
//! | neither: the way between them | [`DEADLINE_EXCEEDED`], [`CONNECTION_FAILED`], [`CONNECTION_CLOSED`], [`SEND_QUEUE_FULL`], [`HOST_DOWN`] |
//! | the caller, who wants it no longer | [`CANCELED`] |
//! | the application: every other number | chosen by the handler |
//!
//! [`NO_SERVICE`]: ErrorCode::NO_SERVICE
//! [`NO_METHOD`]: ErrorCode::NO_METHOD
//! [`BAD_REQUEST`]: ErrorCode::BAD_REQUEST
//! [`UNAUTHENTICATED`]: ErrorCode::UNAUTHENTICATED
//! [`INTERNAL`]: ErrorCode::INTERNAL
//! [`BAD_RESPONSE`]: ErrorCode::BAD_RESPONSE
//! [`STOPPING`]: ErrorCode::STOPPING
//! [`OVERLOADED`]: ErrorCode::OVERLOADED
//! [`REJECTED`]: ErrorCode::REJECTED
//! [`DEADLINE_EXCEEDED`]: ErrorCode::DEADLINE_EXCEEDED
//! [`CONNECTION_FAILED`]: ErrorCode::CONNECTION_FAILED
//! [`CONNECTION_CLOSED`]: ErrorCode::CONNECTION_CLOSED
//! [`SEND_QUEUE_FULL`]: ErrorCode::SEND_QUEUE_FULL
//! [`HOST_DOWN`]: ErrorCode::HOST_DOWN
//! [`CANCELED`]: ErrorCode::CANCELED

use std::borrow::Cow;
use std::fmt;

/// Why a call failed, as the number that travels on the wire.
///
/// Any number but 0 is an error code: a handler may choose its own, also a negative one or an
/// errno. The constants name those the protocol gives a meaning to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ErrorCode(i32);

/// Defines the named codes once: constant, number and the protocol's own name.
macro_rules! error_codes {
    ($($(#[$doc:meta])* $constant:ident = $number:literal, $name:literal;)*) => {
        impl ErrorCode {
            $(
                $(#[$doc])*
                #[doc = concat!("\n\nOn the wire ", stringify!($number), ", `", $name, "`.")]
                pub const $constant: ErrorCode = ErrorCode($number);
            )*

            /// The protocol's name of this code (`ENOMETHOD`); `None` for an application's own.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some($name),)*
                    _ => None,
                }
            }
        }
    };
}

error_codes! {
    /// No provider is known, or none can be reached; the call was not sent.
    HOST_DOWN = 112, "EHOSTDOWN";
    /// The caller canceled the call. Set by the caller's own side; whether the handler ran is not known.
    CANCELED = 125, "ECANCELED";
    /// The provider does not know the service.
    NO_SERVICE = 1001, "ENOSERVICE";
    /// The provider does not know the method. brpc answers this also for an unknown service
    /// whose name has a dot.
    NO_METHOD = 1002, "ENOMETHOD";
    /// The request cannot be read: undecodable, damaged, wrongly compressed, attachment too long.
    /// A client uses it too, for an answer that it cannot decode.
    BAD_REQUEST = 1003, "EREQUEST";
    /// The caller did not authenticate, or not well enough.
    UNAUTHENTICATED = 1004, "ERPCAUTH";
    /// Too many of the calls that this call consists of failed.
    TOO_MANY_FAILURES = 1005, "ETOOMANYFAILS";
    /// Internal to brpc's combined channels.
    PARALLEL_FINISHED = 1006, "EPCHANFINISH";
    /// Internal to the client: time for a backup request.
    BACKUP_REQUEST = 1007, "EBACKUPREQUEST";
    /// The deadline passed. Set by the caller's own side; whether the handler ran is not known.
    DEADLINE_EXCEEDED = 1008, "ERPCTIMEDOUT";
    /// The connection could not be made or broke.
    CONNECTION_FAILED = 1009, "EFAILEDSOCKET";
    /// A call over HTTP failed.
    HTTP = 1010, "EHTTP";
    /// Too many bytes wait to be written to the connection; the call was not sent.
    SEND_QUEUE_FULL = 1011, "EOVERCROWDED";
    /// RTMP only.
    RTMP_PUBLISHABLE = 1012, "ERTMPPUBLISHABLE";
    /// RTMP only.
    RTMP_CREATE_STREAM = 1013, "ERTMPCREATESTREAM";
    /// The peer closed the connection before it answered.
    CONNECTION_CLOSED = 1014, "EEOF";
    /// The connection was not needed.
    CONNECTION_UNUSED = 1015, "EUNUSED";
    /// TLS failed.
    TLS = 1016, "ESSL";
    /// HTTP/2 only: no stream ids are left on the connection.
    HTTP2_STREAMS_EXHAUSTED = 1017, "EH2RUNOUTSTREAMS";
    /// The request was refused before it ran.
    REJECTED = 1018, "EREJECT";
    /// Reading a progressive answer took too long.
    PROGRESSIVE_READ_TIMED_OUT = 1019, "EPROGREADTIMEOUT";
    /// The handler failed and chose no code.
    INTERNAL = 2001, "EINTERNAL";
    /// The answer could not be written, or (at the client) its frame contradicts itself.
    BAD_RESPONSE = 2002, "ERESPONSE";
    /// The provider is stopping and takes no new calls.
    STOPPING = 2003, "ELOGOFF";
    /// The provider has as many calls in work as it allows.
    OVERLOADED = 2004, "ELIMIT";
    /// The connection was closed on purpose.
    CLOSED_ON_PURPOSE = 2005, "ECLOSE";
    /// The ITP protocol only.
    ITP = 2006, "EITP";
    /// The sending side of the connection is shut.
    WRITE_SHUT_DOWN = 2007, "ESHUTDOWNWRITE";
    /// RDMA only.
    RDMA = 3001, "ERDMA";
    /// RDMA only.
    RDMA_MEMORY = 3002, "ERDMAMEM";
}

impl ErrorCode {
    /// The code with this number; [`INTERNAL`](Self::INTERNAL) for 0, which means success, and
    /// for −1, which in brpc stands for a handler that failed without a code.
    pub const fn new(number: i32) -> Self {
        match number {
            0 | -1 => Self::INTERNAL,
            number => Self(number),
        }
    }

    /// The code in an answer: `None` for 0, success.
    pub const fn from_wire(number: i32) -> Option<Self> {
        match number {
            0 => None,
            number => Some(Self(number)),
        }
    }

    /// The number; never 0.
    pub const fn number(self) -> i32 {
        self.0
    }

    /// The condition may be gone at another provider or a moment later: the connection failed or
    /// closed, the provider is stopping or overloaded, or the code is an errno of that kind
    /// (`ENOENT`, `EPIPE`, `ENODATA`, `ECONNREFUSED`, `ECONNRESET`, `ETIMEDOUT`, `EHOSTDOWN`, by
    /// their Linux numbers). These are the codes after which brpc's client tries again.
    ///
    /// It says nothing about whether the handler ran: after a lost connection nobody knows. See
    /// [`never_ran`](Self::never_ran).
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::CONNECTION_FAILED
                | Self::SEND_QUEUE_FULL
                | Self::CONNECTION_CLOSED
                | Self::HTTP2_STREAMS_EXHAUSTED
                | Self::STOPPING
                | Self::OVERLOADED
        ) || matches!(self.0, 2 | 32 | 61 | 104 | 110 | 111 | 112)
    }

    /// The framework refused the call before any handler ran, so sending it again cannot make
    /// anything happen twice. A handler that returns one of these codes itself breaks the promise.
    pub const fn never_ran(self) -> bool {
        matches!(
            self,
            Self::NO_SERVICE
                | Self::NO_METHOD
                | Self::UNAUTHENTICATED
                | Self::SEND_QUEUE_FULL
                | Self::REJECTED
                | Self::STOPPING
                | Self::OVERLOADED
        )
    }
}

impl fmt::Display for ErrorCode {
    /// `ENOMETHOD (1002)`, or `E12345` for a number without a name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.0),
            None => write!(f, "E{}", self.0),
        }
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A failed call: the code for programs, the text for people.
///
/// Handlers return it, callers get it. The text travels to the caller: it holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {text}")]
#[non_exhaustive]
pub struct RpcError {
    code: ErrorCode,
    text: Cow<'static, str>,
}

impl RpcError {
    /// An error with this code and text.
    pub fn new(code: ErrorCode, text: impl Into<Cow<'static, str>>) -> Self {
        let text = text.into();
        Self { code, text }
    }

    /// [`ErrorCode::INTERNAL`]: the handler failed.
    pub fn internal(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::INTERNAL, text)
    }

    /// [`ErrorCode::BAD_REQUEST`]: the request makes no sense.
    pub fn bad_request(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::BAD_REQUEST, text)
    }

    /// Why the call failed, for programs.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// Why the call failed, for people.
    pub fn text(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_shows_its_name_number_and_text() {
        let error = RpcError::new(ErrorCode::NO_METHOD, "no method Echo");
        assert_eq!(error.to_string(), "ENOMETHOD (1002): no method Echo");
        let own = RpcError::new(ErrorCode::new(-7), "asked to fail");
        assert_eq!(own.to_string(), "E-7: asked to fail");
    }

    #[test]
    fn zero_and_minus_one_are_never_sent() {
        assert_eq!(ErrorCode::new(0), ErrorCode::INTERNAL);
        assert_eq!(ErrorCode::new(-1), ErrorCode::INTERNAL);
        assert_eq!(ErrorCode::from_wire(0), None);
        assert_eq!(ErrorCode::from_wire(-1).map(ErrorCode::number), Some(-1));
    }

    #[test]
    fn retryable_codes_are_those_that_brpc_retries() {
        let retried: Vec<i32> = (-10..4000)
            .filter(|&number| ErrorCode::from_wire(number).is_some_and(ErrorCode::is_retryable))
            .collect();
        assert_eq!(
            retried,
            [
                2, 32, 61, 104, 110, 111, 112, 1009, 1011, 1014, 1017, 2003, 2004
            ]
        );
    }
}
