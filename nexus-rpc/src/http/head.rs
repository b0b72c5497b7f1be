//! A request's head: what is asked for, and how its body is framed.

use bytes::Bytes;

use super::{HttpError, HttpLimits};

/// Fields of a head.
const FIELDS_MAX: usize = 64;

/// What is to be done with the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HttpMethod {
    /// Show it.
    Get,
    /// Show it, without the body.
    Head,
    /// Call it.
    Post,
    /// Anything else, which nothing here offers.
    Other,
}

/// A request with its whole body.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpRequest {
    /// What is to be done.
    pub method: HttpMethod,
    /// The path, as it came, with its leading slash.
    pub path: String,
    /// What stands behind the question mark, without it; empty when there is none.
    pub query: String,
    /// Names and values, in their order.
    fields: Vec<(String, Bytes)>,
    /// The body, unchunked.
    pub body: Bytes,
    /// Whether the connection is to stay open behind the answer.
    pub keep_alive: bool,
    /// The caller speaks HTTP/1.0: that the connection stays open has to be said in the answer.
    pub is_http_1_0: bool,
}

impl HttpRequest {
    /// The value of the first field of this name, in whatever case.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        self.all(name).next()
    }

    /// The same, if it is text.
    pub fn field_text(&self, name: &str) -> Option<&str> {
        self.field(name)
            .and_then(|value| std::str::from_utf8(value).ok())
            .map(str::trim)
    }

    /// The fields whose names begin with `prefix`, in whatever case: what stands behind it, and the values.
    pub fn fields_behind<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.fields.iter().filter_map(move |(name, value)| {
            let (begin, rest) = name.split_at_checked(prefix.len())?;
            begin
                .eq_ignore_ascii_case(prefix)
                .then_some((rest, value.as_ref()))
        })
    }

    /// The value of `name=value` in the query, as it came.
    pub fn query_value(&self, name: &str) -> Option<&str> {
        let mut pairs = self
            .query
            .split('&')
            .filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.fields
            .iter()
            .filter(move |(own, _)| own.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_ref())
    }

    /// Whether a list of tokens, in a field that may come several times, has this one.
    fn has_token(&self, name: &str, token: &str) -> bool {
        self.all(name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .any(|own| own.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    }
}

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(usize),
    Chunked,
}

/// A head that was read.
pub(super) struct Head {
    pub(super) request: HttpRequest,
    pub(super) framing: Framing,
    pub(super) expects_continue: bool,
}

/// Reads a whole head, the empty line behind it included.
pub(super) fn read_head(bytes: &[u8], limits: &HttpLimits) -> Result<Head, HttpError> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut fields);
    match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(read_bytes)) if read_bytes == bytes.len() => {}
        Ok(_) => return Err(HttpError::Malformed("the head's end is ambiguous")),
        Err(httparse::Error::TooManyHeaders) => return Err(HttpError::HeadTooLarge),
        Err(httparse::Error::Version) => return Err(HttpError::Version),
        Err(httparse::Error::HeaderName | httparse::Error::HeaderValue) => {
            return Err(HttpError::Malformed("a field is none"));
        }
        Err(_) => return Err(HttpError::Malformed("the request line is none")),
    }
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version)
    else {
        return Err(HttpError::Malformed("the request line is incomplete"));
    };
    let (path, query) = split_target(target)?;
    let fields = parsed.headers.iter();
    let mut request = HttpRequest {
        method: match method {
            "GET" => HttpMethod::Get,
            "HEAD" => HttpMethod::Head,
            "POST" => HttpMethod::Post,
            _ => HttpMethod::Other,
        },
        path: path.to_owned(),
        query: query.to_owned(),
        fields: fields
            .map(|field| (field.name.to_owned(), Bytes::copy_from_slice(field.value)))
            .collect(),
        body: Bytes::new(),
        keep_alive: false,
        is_http_1_0: minor == 0,
    };
    let is_1_1 = minor == 1;
    request.keep_alive = !request.has_token("connection", "close")
        && (is_1_1 || request.has_token("connection", "keep-alive"));
    if request.all("host").count() > 1 || (is_1_1 && request.field("host").is_none()) {
        return Err(HttpError::Malformed("exactly one host is needed"));
    }
    let expects_continue = match request.field_text("expect") {
        Some(expected) if expected.eq_ignore_ascii_case("100-continue") => is_1_1,
        Some(_) => return Err(HttpError::Expectation),
        None => false,
    };
    let framing = framing(&request, is_1_1, limits)?;
    Ok(Head {
        expects_continue: expects_continue && framing != Framing::Length(0),
        framing,
        request,
    })
}

/// Path and query; a proxy's absolute form loses its authority.
fn split_target(target: &str) -> Result<(&str, &str), HttpError> {
    let path = match target.split_once("://") {
        Some((_, rest)) if !target.starts_with('/') => match rest.find('/') {
            Some(at) => rest.get(at..).unwrap_or("/"),
            None => "/",
        },
        _ => target,
    };
    if !path.starts_with('/') && path != "*" {
        return Err(HttpError::Malformed("the target is no path"));
    }
    Ok(path.split_once('?').unwrap_or((path, "")))
}

/// A request whose body could be framed in two ways is refused: another reader, in front of this one, may
/// have chosen the other.
fn framing(request: &HttpRequest, is_1_1: bool, limits: &HttpLimits) -> Result<Framing, HttpError> {
    let mut lengths = request.all("content-length");
    let mut codings = request.all("transfer-encoding");
    let (length, coding) = (lengths.next(), codings.next());
    if lengths.next().is_some()
        || codings.next().is_some()
        || (length.is_some() && coding.is_some())
    {
        return Err(HttpError::Malformed("the body's length is said twice"));
    }
    if let Some(coding) = coding {
        return match coding.trim_ascii().eq_ignore_ascii_case(b"chunked") {
            true if is_1_1 => Ok(Framing::Chunked),
            true => Err(HttpError::Malformed("HTTP/1.0 has no chunks")),
            false => Err(HttpError::TransferCoding),
        };
    }
    let Some(length) = length else {
        return Ok(Framing::Length(0));
    };
    let digits = length.trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(HttpError::Malformed("the body's length is no number"));
    }
    let length = std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| digits.parse().ok());
    match length {
        Some(length) if length <= limits.body_bytes_max => Ok(Framing::Length(length)),
        _ => Err(HttpError::BodyTooLarge),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_up_to_the_limit_pass_and_one_more_is_refused() {
        let read = |fields: usize| {
            let head = format!(
                "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
                "a: b\r\n".repeat(fields)
            );
            read_head(head.as_bytes(), &HttpLimits::default()).map(|head| head.request.fields.len())
        };
        assert_eq!(read(FIELDS_MAX - 1), Ok(FIELDS_MAX));
        assert_eq!(read(FIELDS_MAX), Err(HttpError::HeadTooLarge));
    }
}
