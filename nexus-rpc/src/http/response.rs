//! Writes answers.

use std::time::SystemTime;

use bytes::{BufMut, BytesMut};

/// An answer with its whole body.
#[derive(Clone, Debug)]
pub struct HttpResponse<'a> {
    /// The status code.
    pub status: u16,
    /// What the body is.
    pub content_type: &'a str,
    /// Further fields, whose names and values are well-formed.
    pub fields: &'a [(&'a str, &'a str)],
    /// The body.
    pub body: &'a [u8],
    /// The body is left out, as the answer to HEAD demands.
    pub head_only: bool,
    /// The connection stays open.
    pub keep_alive: bool,
    /// The request was of HTTP/1.0.
    pub to_http_1_0: bool,
}

impl HttpResponse<'_> {
    /// Appends the answer to `out`. `now` becomes its date.
    pub fn write(&self, now: SystemTime, out: &mut BytesMut) {
        let text = |out: &mut BytesMut, text: &str| out.put_slice(text.as_bytes());
        text(out, "HTTP/1.1 ");
        text(out, &self.status.to_string());
        text(out, " ");
        text(out, reason(self.status));
        text(out, "\r\nDate: ");
        text(out, &httpdate::fmt_http_date(now));
        text(out, "\r\nContent-Type: ");
        text(out, self.content_type);
        text(out, "\r\nContent-Length: ");
        text(out, &self.body.len().to_string());
        // What is shown is of this moment.
        text(
            out,
            "\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n",
        );
        for (name, value) in self.fields {
            text(out, name);
            text(out, ": ");
            text(out, value);
            text(out, "\r\n");
        }
        text(
            out,
            match (self.keep_alive, self.to_http_1_0) {
                (true, false) => "\r\n",
                (true, true) => "Connection: keep-alive\r\n\r\n",
                (false, _) => "Connection: close\r\n\r\n",
            },
        );
        if !self.head_only {
            out.put_slice(self.body);
        }
    }
}

/// Tells the caller to send the body that it has announced.
pub fn write_continue(out: &mut BytesMut) {
    out.put_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}
