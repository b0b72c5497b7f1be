//! The provider seen over HTTP: pages to look at, and methods called with JSON.
//!
//! | path | shows |
//! |---|---|
//! | `/health` | 200 while serving, 503 while draining |
//! | `/status` (and `/`) | methods with calls, errors, latencies and limits |
//! | `/connections` | who is connected |
//! | `/metrics` | counters in the text format of OpenMetrics, which Prometheus reads |
//! | `/services` | services, methods and messages; `?format=descriptor` gives the `.proto` files |
//! | `POST /package.Service/Method` | calls the method; metadata in fields `Nexus-Meta-<name>`, no attachments |
//!
//! | module | owns |
//! |---|---|
//! | `connection` | one caller's connection: a request at a time, answers in order |
//! | `call` | a method call's body, its status, and its way back |
//! | `metadata` | what goes along beside messages, as fields of HTTP |
//! | `pages` | which page is meant, and in which form |
//! | `status`, `services`, `metrics` | what they say |

mod call;
mod connection;
mod metadata;
mod metrics;
mod pages;
mod services;
mod status;

pub(super) use self::call::{Content, WebAnswer, WebReply};
pub(super) use self::connection::WebConnection;

/// What a port offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Offer {
    /// Calls by baidu_std.
    pub(super) frames: bool,
    pub(super) pages: bool,
    /// Calls over HTTP.
    pub(super) calls: bool,
    /// Pages are shown only to callers that the provider's authenticator lets in.
    pub(super) asks_who: bool,
}

impl Offer {
    /// The port that shows only pages, to everybody.
    pub(super) const PAGES: Self = Self {
        frames: false,
        pages: true,
        calls: false,
        asks_who: false,
    };

    /// Whether the port speaks HTTP at all.
    pub(super) fn http(self) -> bool {
        self.pages || self.calls
    }
}

/// Whether a connection that begins with these bytes speaks HTTP; `None` while they are too few.
pub(super) fn speaks_http(begin: &[u8]) -> Option<bool> {
    const METHODS: [&[u8]; 9] = [
        b"GET ",
        b"HEAD ",
        b"POST ",
        b"PUT ",
        b"DELETE ",
        b"OPTIONS ",
        b"PATCH ",
        b"TRACE ",
        b"CONNECT ",
    ];
    // Empty lines before a request are skipped.
    if matches!(begin, [b'\r' | b'\n', ..])
        || METHODS.iter().any(|method| begin.starts_with(method))
    {
        return Some(true);
    }
    match METHODS.iter().any(|method| method.starts_with(begin)) {
        true => None,
        false => Some(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protocol_is_known_with_the_first_byte_that_tells() {
        for undecided in ["", "P", "G", "PO", "POST", "GET"] {
            assert_eq!(speaks_http(undecided.as_bytes()), None, "{undecided}");
        }
        for http in ["GET /", "POST ", "HEAD / HTTP/1.1", "\r\nGET /", "\n"] {
            assert_eq!(speaks_http(http.as_bytes()), Some(true), "{http}");
        }
        for other in ["PR", "PRPC", "X", "get /", "POSTX", "\u{16}\u{3}\u{1}"] {
            assert_eq!(speaks_http(other.as_bytes()), Some(false), "{other}");
        }
    }
}
