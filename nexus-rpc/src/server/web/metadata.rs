//! What travels beside a message, as fields of HTTP.
//!
//! | field | in | what |
//! |---|---|---|
//! | `Nexus-Meta-<name>` | requests, answers | the metadata of that name, which is lower case in requests |
//! | `traceparent`, `tracestate` | requests | the metadata of these names, as the W3C has it |
//! | `Nexus-Attachment-Left-Out` | answers | an attachment of so many bytes does not travel over HTTP |
//!
//! Values are percent-encoded UTF-8: what a field of HTTP cannot carry (controls, blanks at its ends,
//! other letters than ASCII's) and the percent sign itself are written as `%` and two digits. A `%` without
//! two digits is itself. Requests are limited as every head is; answers have the same limit.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode, utf8_percent_encode};

use crate::http::HttpRequest;
use crate::server::answer::AnswerExtras;
use crate::trace::{TRACEPARENT, TRACESTATE};
use crate::{ErrorCode, Metadata, RpcError};

/// What stands before a name.
const PREFIX: &str = "Nexus-Meta-";
const LEFT_OUT: &str = "Nexus-Attachment-Left-Out";

const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'%');

/// A field of an answer.
pub(super) type Field = (Cow<'static, str>, Cow<'static, str>);

/// The metadata that a request carries.
pub(super) fn read(request: &HttpRequest) -> Result<Metadata, RpcError> {
    let mut metadata = Metadata::default();
    for (name, value) in request.fields_behind(PREFIX) {
        let name = name.to_ascii_lowercase();
        let Ok(text) = percent_decode(value.trim_ascii()).decode_utf8() else {
            let what = format!("the metadata's {name} is no UTF-8");
            return Err(RpcError::bad_request(what));
        };
        // Two readers could take different ones.
        if metadata.text(&name).is_some() {
            let what = format!("the metadata's {name} is there twice");
            return Err(RpcError::bad_request(what));
        }
        metadata.set_text(name, text);
    }
    for name in [TRACEPARENT.name(), TRACESTATE.name()] {
        if let Some(value) = request.field_text(name) {
            metadata.set_text(name, value);
        }
    }
    Ok(metadata)
}

/// An answer's fields. A name that is none in HTTP, which no key has, is left out.
///
/// # Errors
/// [`ErrorCode::BAD_RESPONSE`]: together they are larger than a head may be.
pub(super) fn fields(extras: &AnswerExtras, bytes_max: usize) -> Result<Vec<Field>, RpcError> {
    let named = extras.metadata.iter().filter(|(name, _)| is_token(name));
    let mut fields: Vec<Field> = named
        .map(|(name, text)| {
            let value = utf8_percent_encode(text, ENCODED).to_string();
            (format!("{PREFIX}{name}").into(), value.into())
        })
        .collect();
    if !extras.attachment.is_empty() {
        let bytes = extras.attachment.len().to_string();
        fields.push((LEFT_OUT.into(), bytes.into()));
    }
    let bytes = |(name, value): &Field| name.len() + value.len() + ": \r\n".len();
    if fields.iter().map(bytes).sum::<usize>() > bytes_max {
        let what = "the answer's metadata is larger than a head over HTTP may be";
        return Err(RpcError::new(ErrorCode::BAD_RESPONSE, what));
    }
    Ok(fields)
}

/// Whether it may be a field's name: RFC 9110, section 5.6.2.
fn is_token(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use proptest::prelude::*;

    use super::*;
    use crate::http::{HttpEvent, HttpLimits, RequestParser};

    fn request(fields: &str) -> HttpRequest {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let mut input = BytesMut::from(head.as_bytes());
        match RequestParser::new(HttpLimits::default()).next(&mut input) {
            Ok(Some(HttpEvent::Request(request))) => request,
            other => panic!("{other:?}"),
        }
    }

    fn extras(metadata: &[(&str, &str)]) -> AnswerExtras {
        let fields = metadata.iter();
        AnswerExtras {
            metadata: fields
                .map(|(name, text)| (name.to_string(), text.to_string()))
                .collect(),
            attachment: Bytes::new(),
        }
    }

    #[test]
    fn names_lose_their_prefix_and_case_and_values_their_encoding() {
        let metadata = read(&request(
            "nexus-meta-Tenant:  acme \r\nNEXUS-META-note: a%20b%C3%A4 100% \r\nother: x\r\n",
        ));
        let metadata = metadata.expect("well-formed");
        let fields: Vec<_> = metadata.iter().collect();
        assert_eq!(fields, [("note", "a bä 100%"), ("tenant", "acme")]);
    }

    #[test]
    fn what_is_there_twice_and_what_is_no_text_is_refused() {
        for fields in [
            "Nexus-Meta-a: 1\r\nnexus-meta-A: 2\r\n",
            "Nexus-Meta-a: %ff\r\n",
        ] {
            let error = read(&request(fields)).expect_err(fields);
            assert_eq!(error.code(), ErrorCode::BAD_REQUEST);
        }
    }

    #[test]
    fn fields_up_to_the_limit_pass_and_one_byte_more_is_refused() {
        let bytes = PREFIX.len() + 1 + 10 + 4;
        let extras = extras(&[("a", "0123456789")]);
        assert_eq!(fields(&extras, bytes).expect("fits").len(), 1);
        let error = fields(&extras, bytes - 1).expect_err("too large");
        assert_eq!(error.code(), ErrorCode::BAD_RESPONSE);
    }

    #[test]
    fn a_name_that_would_end_the_field_is_left_out() {
        let fields = fields(&extras(&[("a: b\r\nc", "x"), ("", "x"), ("ok", "y")]), 1000);
        let fields = fields.expect("fits");
        assert_eq!(fields, [("Nexus-Meta-ok".into(), "y".into())]);
    }

    proptest! {
        #[test]
        fn every_value_comes_back_and_no_value_ends_its_field(text in "\\PC*|[\\x00-\\x7f]*") {
            let sent = fields(&extras(&[("name", &text)]), usize::MAX).expect("fits");
            let (name, value) = &sent[0];
            let read = read(&request(&format!("{name}: {value}\r\n"))).expect("well-formed");
            prop_assert_eq!(read.text("name"), Some(text.as_str()));
            prop_assert_eq!(read.len(), 1);
        }
    }
}
