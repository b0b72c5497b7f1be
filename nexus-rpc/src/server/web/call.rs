//! A method called over HTTP: what its bodies are, and how its end becomes an answer.

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::json;

use super::metadata::{self, Field};
use crate::http::HttpRequest;
use crate::server::answer::AnswerExtras;
use crate::wire::RpcMeta;
use crate::{ErrorCode, RpcError};

/// How the messages of a call are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Content {
    Json,
    Protobuf,
}

impl Content {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Protobuf => "application/proto",
        }
    }

    /// What the request says it carries. It has to say so: a page in a browser, of whatever origin, can post
    /// forms and plain text without being asked, and must not call methods that way.
    pub(super) fn of(request: &HttpRequest) -> Option<Self> {
        let value = request.field_text("content-type")?;
        let kind = value.split(';').next().unwrap_or(value).trim();
        let is = |name: &&str| kind.eq_ignore_ascii_case(name);
        if is(&"application/json") {
            return Some(Self::Json);
        }
        let protobuf = [
            "application/proto",
            "application/protobuf",
            "application/x-protobuf",
        ];
        protobuf.iter().any(is).then_some(Self::Protobuf)
    }
}

/// A success: its body, and what goes beside it.
#[derive(Debug)]
pub(in crate::server) struct WebAnswer {
    pub(in crate::server) body: Bytes,
    pub(super) fields: Vec<Field>,
}

impl WebAnswer {
    /// # Errors
    /// [`ErrorCode::BAD_RESPONSE`]: what goes beside it is larger than `head_bytes_max`.
    pub(in crate::server) fn new(
        body: Bytes,
        extras: &AnswerExtras,
        head_bytes_max: usize,
    ) -> Result<Self, RpcError> {
        let fields = metadata::fields(extras, head_bytes_max)?;
        Ok(Self { body, fields })
    }
}

/// Where the end of a call is left for its connection, which is woken to fetch it.
#[derive(Debug)]
pub(in crate::server) struct WebReply {
    pub(in crate::server) content: Content,
    end: Mutex<Option<Result<WebAnswer, RpcError>>>,
}

impl WebReply {
    pub(super) fn new(content: Content) -> Self {
        let end = Mutex::new(None);
        Self { content, end }
    }

    /// Leaves the answer, or what the call failed with.
    pub(in crate::server) fn set(&self, end: Result<WebAnswer, RpcError>) {
        *self.end.lock() = Some(end);
    }

    pub(super) fn take(&self) -> Option<Result<WebAnswer, RpcError>> {
        self.end.lock().take()
    }
}

/// The meta of a call as it would have come over baidu_std.
pub(super) fn meta(
    request: &HttpRequest,
    service: &str,
    method: &str,
) -> Result<RpcMeta, RpcError> {
    let mut meta = RpcMeta::for_request(service.to_owned(), method.to_owned(), 0);
    if let Some(timeout) = request.field_text("x-timeout-ms") {
        let timeout_ms = timeout
            .parse::<i32>()
            .ok()
            .filter(|&timeout_ms| timeout_ms > 0);
        let Some(timeout_ms) = timeout_ms else {
            return Err(RpcError::bad_request(
                "x-timeout-ms is no number of milliseconds",
            ));
        };
        if let Some(request) = &mut meta.request {
            request.timeout_ms = Some(timeout_ms);
        }
    }
    meta.user_fields = metadata::read(request)?.into_fields();
    Ok(meta)
}

/// The status that says to programs without knowledge of this framework what failed; the mapping is
/// brpc's.
pub(super) fn status(code: ErrorCode) -> u16 {
    match code {
        ErrorCode::NO_SERVICE | ErrorCode::NO_METHOD => 404,
        ErrorCode::BAD_REQUEST => 400,
        ErrorCode::UNAUTHENTICATED => 401,
        ErrorCode::OVERLOADED | ErrorCode::STOPPING => 503,
        ErrorCode::DEADLINE_EXCEEDED => 504,
        _ => 500,
    }
}

/// The body of a failed call.
pub(super) fn error_body(error: &RpcError) -> Vec<u8> {
    let body = json!({
        "code": error.code().number(),
        "name": error.code().name(),
        "text": error.text(),
    });
    body.to_string().into_bytes()
}
