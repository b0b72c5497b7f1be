//! Cuts requests out of a connection's bytes.

use bytes::{Buf, BytesMut};

use super::chunked::Chunked;
use super::head::{Framing, Head, HttpRequest, read_head};
use super::{HttpError, HttpLimits};

/// What comes next of a connection.
#[derive(Clone, Debug, PartialEq)]
pub enum HttpEvent {
    /// The caller waits for [`write_continue`](super::write_continue) before it sends the body.
    Continue,
    /// A whole request.
    Request(HttpRequest),
}

/// Empty lines that are skipped before a request. RFC 9112 (2.2) asks for one at least.
const BLANK_LINES_MAX: usize = 8;

/// The requests of one connection, one after the other.
#[derive(Debug)]
pub struct RequestParser {
    limits: HttpLimits,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The first bytes hold no end of a head.
    Head {
        searched_bytes: usize,
        blank_lines: usize,
    },
    Body {
        request: HttpRequest,
        bytes: usize,
    },
    Chunks {
        request: HttpRequest,
        chunked: Chunked,
    },
    Failed(HttpError),
}

impl RequestParser {
    /// A parser for a new connection.
    pub fn new(limits: HttpLimits) -> Self {
        Self {
            limits,
            state: State::START,
        }
    }

    /// Takes the next event off `input`; `Ok(None)`: read more.
    ///
    /// # Errors
    /// [`HttpError`], again and again: the connection is over.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<HttpEvent>, HttpError> {
        let result = self.advance(input);
        if let Err(error) = result {
            self.state = State::Failed(error);
        }
        result
    }

    /// Whether a request has begun and is not complete.
    pub fn is_within_request(&self, input: &[u8]) -> bool {
        !matches!(self.state, State::Head { .. }) || !input.is_empty()
    }

    /// The head of a request whose body is still to come, and how many bytes that has or, chunked, may have.
    pub fn awaited_body(&self) -> Option<(&HttpRequest, usize)> {
        match &self.state {
            State::Body { request, bytes } => Some((request, *bytes)),
            State::Chunks { request, .. } => Some((request, self.limits.body_bytes_max)),
            State::Head { .. } | State::Failed(_) => None,
        }
    }

    fn advance(&mut self, input: &mut BytesMut) -> Result<Option<HttpEvent>, HttpError> {
        if let State::Head {
            searched_bytes,
            blank_lines,
        } = &mut self.state
        {
            if *searched_bytes == 0 {
                skip_blank_lines(input, blank_lines)?;
            }
            let Some(head_bytes) = find_head(input, searched_bytes, self.limits.head_bytes_max)?
            else {
                return Ok(None);
            };
            let head = input.split_to(head_bytes);
            let Head {
                request,
                framing,
                expects_continue,
            } = read_head(&head, &self.limits)?;
            self.state = match framing {
                Framing::Length(bytes) => State::Body { request, bytes },
                Framing::Chunked => State::Chunks {
                    request,
                    chunked: Chunked::default(),
                },
            };
            if expects_continue {
                return Ok(Some(HttpEvent::Continue));
            }
        }
        let whole = match &mut self.state {
            State::Failed(error) => return Err(*error),
            State::Head { .. } => false,
            State::Body { bytes, request } => {
                let whole = input.len() >= *bytes;
                if whole {
                    request.body = input.split_to(*bytes).freeze();
                }
                whole
            }
            State::Chunks { chunked, request } => {
                let whole = chunked.read(input, &self.limits)?;
                if whole {
                    request.body = std::mem::take(&mut chunked.body).freeze();
                }
                whole
            }
        };
        if !whole {
            return Ok(None);
        }
        match std::mem::replace(&mut self.state, State::START) {
            State::Body { request, .. } | State::Chunks { request, .. } => {
                Ok(Some(HttpEvent::Request(request)))
            }
            State::Head { .. } | State::Failed(_) => Ok(None),
        }
    }
}

impl State {
    const START: Self = Self::Head {
        searched_bytes: 0,
        blank_lines: 0,
    };
}

/// Takes empty lines off, which some clients send behind a body. Their CR may be missing.
fn skip_blank_lines(input: &mut BytesMut, blank_lines: &mut usize) -> Result<(), HttpError> {
    loop {
        let line_bytes = match **input {
            [b'\n', ..] => 1,
            [b'\r', b'\n', ..] => 2,
            _ => return Ok(()),
        };
        *blank_lines += 1;
        if *blank_lines > BLANK_LINES_MAX {
            return Err(HttpError::Malformed(
                "too many empty lines before a request",
            ));
        }
        input.advance(line_bytes);
    }
}

/// The length of the head that `input` begins with. No byte is searched
/// twice, so that a head that comes a byte at a time costs no more than one that comes at once.
fn find_head(
    input: &mut BytesMut,
    searched_bytes: &mut usize,
    bytes_max: usize,
) -> Result<Option<usize>, HttpError> {
    if *searched_bytes == 0 && **input == *b"\r" {
        return Ok(None);
    }
    // An end may have begun in what was searched.
    let from = searched_bytes.saturating_sub(3);
    let searched = input.get(..bytes_max).unwrap_or(input);
    let found = searched
        .get(from..)
        .and_then(|bytes| bytes.windows(4).position(|end| end == b"\r\n\r\n"));
    match found {
        Some(at) => Ok(Some(from + at + 4)),
        None if input.len() >= bytes_max => Err(HttpError::HeadTooLarge),
        None => {
            *searched_bytes = input.len();
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::HttpMethod;
    use super::*;

    const LIMITS: HttpLimits = HttpLimits {
        head_bytes_max: 256,
        body_bytes_max: 64,
    };

    type Read = (Vec<HttpEvent>, Result<usize, HttpError>);

    /// All events, and how many bytes are left or what ended it.
    fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Read {
        let mut parser = RequestParser::new(LIMITS);
        let mut input = BytesMut::new();
        let mut events = Vec::new();
        for piece in pieces {
            input.extend_from_slice(piece);
            loop {
                match parser.next(&mut input) {
                    Ok(Some(event)) => events.push(event),
                    Ok(None) => break,
                    Err(error) => return (events, Err(error)),
                }
            }
        }
        (events, Ok(input.len()))
    }

    fn whole(bytes: &str) -> Read {
        read([bytes.as_bytes()].into_iter())
    }

    fn requests(bytes: &str) -> Vec<HttpRequest> {
        let (events, end) = whole(bytes);
        assert_eq!(end, Ok(0), "{bytes:?}");
        let requests = events.into_iter().filter_map(|event| match event {
            HttpEvent::Request(request) => Some(request),
            HttpEvent::Continue => None,
        });
        requests.collect()
    }

    fn error(bytes: &str) -> u16 {
        whole(bytes).1.expect_err(bytes).status()
    }

    #[test]
    fn pipelined_requests_with_and_without_bodies_come_out_in_order() {
        let all = requests(
            "GET /status?format=json&x=1 HTTP/1.1\r\nHost: a\r\n\r\n\
             \r\nPOST /a.B/C HTTP/1.1\r\nhost: a\r\nContent-Length: 2\r\n\r\n{}\
             POST /a.B/C HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
             3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: 1\r\n\r\n\
             HEAD http://a/health HTTP/1.0\r\n\r\n",
        );
        let [status, with_length, chunked, head] = &all[..] else {
            panic!("{all:?}")
        };
        assert_eq!(
            (status.method, status.path.as_str()),
            (HttpMethod::Get, "/status")
        );
        assert_eq!(status.query_value("format"), Some("json"));
        assert_eq!(with_length.body, "{}");
        assert_eq!(chunked.body, "abcde");
        assert_eq!(
            (head.method, head.path.as_str()),
            (HttpMethod::Head, "/health")
        );
        assert!(status.keep_alive && !head.keep_alive);
    }

    #[test]
    fn a_connection_stays_open_as_version_and_field_say() {
        let keeps = |version: &str, field: &str| {
            let request = format!("GET / HTTP/{version}\r\nHost: a\r\n{field}\r\n");
            requests(&request).remove(0).keep_alive
        };
        assert!(keeps("1.1", ""));
        assert!(!keeps("1.1", "Connection: x, Close\r\n"));
        assert!(!keeps("1.0", ""));
        assert!(keeps("1.0", "connection: Keep-Alive\r\n"));
    }

    #[test]
    fn who_expects_to_be_told_to_continue_is_told() {
        let head =
            "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n";
        assert_eq!(whole(head).0, [HttpEvent::Continue]);
        assert_eq!(requests(&format!("{head}x")).len(), 1);
        assert_eq!(error(&head.replace("100-Continue", "more")), 417);
    }

    #[test]
    fn what_two_readers_might_read_differently_is_refused() {
        let with = |fields: &str| error(&format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        assert_eq!(with("Content-Length: 1\r\nContent-Length: 1\r\n"), 400);
        assert_eq!(
            with("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"),
            400
        );
        assert_eq!(with("Content-Length: +1\r\n"), 400);
        assert_eq!(with("Content-Length: 1, 1\r\n"), 400);
        assert_eq!(with("Content-Length : 1\r\n"), 400);
        assert_eq!(with("Transfer-Encoding: gzip, chunked\r\n"), 501);
        assert_eq!(with("Host: b\r\n"), 400);
        assert_eq!(with("A: b\r\n folded\r\n"), 400);
        assert_eq!(error("POST / HTTP/1.1\r\n\r\n"), 400);
        assert_eq!(
            error("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
            400
        );
        assert_eq!(error("POST nowhere HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
        assert_eq!(error("POST / HTTP/2.0\r\nHost: a\r\n\r\n"), 505);
        let chunks = |chunks: &str| {
            error(&format!(
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
            ))
        };
        assert_eq!(chunks("1\r\nab\r\n"), 400);
        assert_eq!(chunks("1\na\r\n"), 400);
        assert_eq!(chunks("-1\r\n"), 400);
        assert_eq!(chunks("0x1\r\n"), 400);
        assert_eq!(chunks("ffffffffffffffffff\r\n"), 413);
    }

    #[test]
    fn sizes_at_the_limit_pass_and_one_over_is_refused_at_once() {
        let post = "POST / HTTP/1.1\r\nHost: a\r\n";
        let body = "x".repeat(64);
        assert_eq!(
            requests(&format!("{post}Content-Length: 64\r\n\r\n{body}")).len(),
            1
        );
        assert_eq!(error(&format!("{post}Content-Length: 65\r\n\r\n")), 413);
        let chunked = format!("{post}Transfer-Encoding: chunked\r\n\r\n");
        assert_eq!(
            requests(&format!("{chunked}40\r\n{body}\r\n0\r\n\r\n")).len(),
            1
        );
        assert_eq!(
            error(&format!("{chunked}20\r\n{}\r\n21\r\n", "x".repeat(32))),
            413
        );
        let padded = |bytes: usize| format!("{post}A: {}\r\n\r\n", "x".repeat(bytes));
        let fits = 256 - padded(0).len();
        assert_eq!(requests(&padded(fits)).len(), 1);
        assert_eq!(error(&padded(fits + 1)), 431);
        assert_eq!(error(&"x".repeat(256)), 431);
        assert_eq!(
            error(&format!("{chunked}0\r\n{}", "a: b\r\n".repeat(100))),
            431
        );
    }

    #[test]
    fn a_parser_that_has_failed_goes_on_failing() {
        let mut parser = RequestParser::new(LIMITS);
        let mut input = BytesMut::from("\0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(parser.next(&mut input).is_err());
        assert!(parser.next(&mut input).is_err());
    }

    /// Bytes that get far into the parser now and then.
    fn connection() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just("GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
            Just("POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned()),
            Just("POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc".to_owned()),
            Just("2\r\nab\r\n".to_owned()),
            Just("0\r\n\r\n".to_owned()),
            Just("\r\n".to_owned()),
            "[ -~\r\n]{0,20}",
        ];
        proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat().into_bytes())
    }

    proptest! {
        #[test]
        fn a_byte_at_a_time_gives_what_all_at_once_gives(bytes in connection(), cut in 1usize..9) {
            let at_once = read([&bytes[..]].into_iter());
            prop_assert_eq!(&read(bytes.chunks(1)), &at_once);
            prop_assert_eq!(&read(bytes.chunks(cut)), &at_once);
        }
    }
}
