//! Which page a request means, and in which form.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;

use super::metadata::Field;
use super::{call, metrics, services, status};
use crate::RpcError;
use crate::http::{HttpMethod, HttpRequest};
use crate::server::serving::Serving;

const TEXT: &str = "text/plain; charset=utf-8";

/// What is answered.
pub(super) struct Page {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) fields: Vec<Field>,
    pub(super) body: Bytes,
}

impl Page {
    pub(super) fn new(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let fields = Vec::new();
        let body = body.into();
        Self {
            status,
            content_type,
            fields,
            body,
        }
    }

    /// A line for people.
    pub(super) fn plain(status: u16, text: impl Into<String>) -> Self {
        let fields = match status {
            // A 401 has to name a scheme; what is shown is the authenticator's business.
            401 => vec![("WWW-Authenticate".into(), "Nexus".into())],
            _ => Vec::new(),
        };
        let body = text.into() + "\n";
        Self {
            fields,
            ..Self::new(status, TEXT, body)
        }
    }

    /// What a call failed with.
    pub(super) fn error(error: &RpcError) -> Self {
        let status = call::status(error.code());
        let fields = Self::plain(status, "").fields;
        Self {
            fields,
            ..Self::new(status, "application/json", call::error_body(error))
        }
    }

    pub(super) fn allowing(mut self, methods: &'static str) -> Self {
        self.fields.push(("Allow".into(), methods.into()));
        self
    }
}

/// How a page is to be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    Html,
    Text,
}

impl Form {
    /// As the query says, or else the field `accept`; text for programs of the command line, which accept
    /// everything.
    fn of(request: &HttpRequest) -> Self {
        match request.query_value("format") {
            Some("json") => return Self::Json,
            Some("html") => return Self::Html,
            Some("text") => return Self::Text,
            _ => {}
        }
        let accepted = request.field_text("accept").unwrap_or("");
        let first = accepted
            .split(',')
            .map(|kind| kind.split(';').next().unwrap_or(kind).trim())
            .find_map(|kind| match kind {
                "application/json" => Some(Self::Json),
                "text/html" => Some(Self::Html),
                "text/plain" => Some(Self::Text),
                _ => None,
            });
        first.unwrap_or(Self::Text)
    }
}

/// The page that a request asks for.
pub(super) fn page(serving: &Arc<Serving>, request: &HttpRequest) -> Page {
    if !matches!(request.method, HttpMethod::Get | HttpMethod::Head) {
        return Page::plain(405, "pages are only shown").allowing("GET, HEAD");
    }
    let form = Form::of(request);
    match request.path.as_str() {
        "/health" => health(serving, form),
        "/" | "/status" => status::status(serving, form),
        "/connections" => status::connections(serving, form),
        "/metrics" => metrics::page(serving),
        "/services" if request.query_value("format") == Some("descriptor") => {
            Page::new(200, "application/x-protobuf", services::files(serving))
        }
        "/services" => services::page(serving),
        _ => Page::plain(
            404,
            "there are /health, /status, /connections, /metrics and /services",
        ),
    }
}

fn health(serving: &Serving, form: Form) -> Page {
    serving.health_was_asked();
    let (status, word) = match serving.is_draining() {
        true => (503, "draining"),
        false => (200, "serving"),
    };
    match form {
        Form::Json => json_page(status, &json!({ "status": word })),
        Form::Html | Form::Text => Page::plain(status, word),
    }
}

pub(super) fn json_page(status: u16, value: &serde_json::Value) -> Page {
    Page::new(status, "application/json", format!("{value:#}\n"))
}

pub(super) fn text_page(text: String) -> Page {
    Page::new(200, TEXT, text)
}

/// The text as it is, in a page that a browser shows.
pub(super) fn html_page(title: &str, text: &str) -> Page {
    let escaped = text
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\
         <p><a href=\"/status\">status</a> <a href=\"/connections\">connections</a> \
         <a href=\"/services\">services</a> <a href=\"/metrics\">metrics</a></p>\
         <pre>{escaped}</pre></html>\n"
    );
    Page::new(200, "text/html; charset=utf-8", html)
}
