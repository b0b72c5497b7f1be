//! The meta message of a frame, generated from `proto/nexus/baidu_std.proto`, and its constructors.
//!
//! What is written follows brpc: `compress_type`, `correlation_id`, `content_type`,
//! `checksum_type` and `checksum_value` are present also when they are 0 or empty, and a success says
//! `error_code: 0`. The protocol would accept less; eight bytes a frame buy answers that no peer has
//! reason to read differently from brpc's own.

use std::borrow::Cow;

use bytes::Bytes;

use super::{ChecksumType, CompressType};
use crate::error::{ErrorCode, RpcError};

pub use self::generated::{RpcMeta, RpcRequestMeta, RpcResponseMeta, StreamSettings};

#[allow(missing_docs, clippy::all)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/nexus.baidu_std.rs"));
}

/// A text is for people, and may quote what the peer sent.
const ERROR_TEXT_BYTES_MAX: usize = 4096;

impl RpcMeta {
    /// The meta of a request. `service` and `method` are not copied when they are static.
    pub fn for_request(
        service: impl Into<Bytes>,
        method: impl Into<Bytes>,
        correlation_id: i64,
    ) -> Self {
        let request = RpcRequestMeta {
            service_name: Some(service.into()),
            method_name: Some(method.into()),
            ..Default::default()
        };
        Self {
            request: Some(request),
            ..Self::with_correlation_id(correlation_id)
        }
    }

    /// The meta of a successful answer.
    pub fn for_success(correlation_id: i64) -> Self {
        Self {
            response: Some(RpcResponseMeta {
                error_code: Some(0),
                error_text: None,
            }),
            ..Self::with_correlation_id(correlation_id)
        }
    }

    /// The meta of an answer that says why the call failed. Such an answer carries neither
    /// payload nor attachment. A text of more than 4 KiB is cut.
    pub fn for_failure(correlation_id: i64, error: &RpcError) -> Self {
        Self {
            response: Some(RpcResponseMeta {
                error_code: Some(error.code().number()),
                error_text: Some(Bytes::copy_from_slice(shortened(error.text()).as_bytes())),
            }),
            ..Self::with_correlation_id(correlation_id)
        }
    }

    fn with_correlation_id(correlation_id: i64) -> Self {
        Self {
            compress_type: Some(CompressType::None.number()),
            correlation_id: Some(correlation_id),
            content_type: Some(ContentType::Protobuf.number()),
            checksum_type: Some(ChecksumType::None.number()),
            checksum_value: Some(Bytes::new()),
            ..Default::default()
        }
    }

    /// Why the call failed, if this is the meta of a failed answer. A missing response field, or
    /// one without a code, is a success. Text that is not UTF-8 is shown with replacement
    /// characters.
    pub fn failure(&self) -> Option<RpcError> {
        let response = self.response.as_ref()?;
        let code = ErrorCode::from_wire(response.error_code())?;
        let text = String::from_utf8_lossy(response.error_text()).into_owned();
        Some(RpcError::new(code, Cow::Owned(text)))
    }

    /// How the message in the payload is encoded.
    pub fn content(&self) -> ContentType {
        ContentType::from_number(self.content_type())
    }
}

/// At most [`ERROR_TEXT_BYTES_MAX`] of the text, and no half of a character.
fn shortened(text: &str) -> &str {
    text.get(..text.floor_char_boundary(ERROR_TEXT_BYTES_MAX))
        .unwrap_or(text)
}

/// How the message in a payload is encoded. Only protobuf is spoken here; the others have names so
/// that a refusal can say what it refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContentType {
    /// 0: protobuf.
    #[default]
    Protobuf,
    /// 1: JSON.
    Json,
    /// 2: protobuf's canonical JSON.
    ProtoJson,
    /// 3: protobuf's text format.
    ProtoText,
}

impl ContentType {
    /// The type with this number; any other number reads as absent, which is protobuf.
    pub const fn from_number(number: i32) -> Self {
        match number {
            1 => Self::Json,
            2 => Self::ProtoJson,
            3 => Self::ProtoText,
            _ => Self::Protobuf,
        }
    }

    /// The number on the wire.
    pub const fn number(self) -> i32 {
        match self {
            Self::Protobuf => 0,
            Self::Json => 1,
            Self::ProtoJson => 2,
            Self::ProtoText => 3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_code_is_a_success() {
        assert_eq!(RpcMeta::default().failure(), None);
        assert_eq!(RpcMeta::for_success(1).failure(), None);
    }

    #[test]
    fn a_long_error_text_is_cut_between_characters() {
        let text = format!("x{}", "é".repeat(ERROR_TEXT_BYTES_MAX));
        let meta = RpcMeta::for_failure(1, &RpcError::internal(text.clone()));
        let sent = meta.failure().expect("an error").text().to_owned();
        assert_eq!(sent.len(), ERROR_TEXT_BYTES_MAX - 1);
        assert!(text.starts_with(&sent));
    }

    #[test]
    fn an_error_text_that_is_not_utf8_is_still_shown() {
        let mut meta = RpcMeta::for_failure(1, &RpcError::internal("x"));
        if let Some(response) = &mut meta.response {
            response.error_text = Some(Bytes::from_static(b"\xb4\xed\xce\xf3 (GBK)"));
        }
        let error = meta.failure().expect("an error");
        assert!(error.text().ends_with("(GBK)"), "{error}");
    }

    #[test]
    fn an_unknown_content_type_reads_as_protobuf() {
        assert_eq!(ContentType::from_number(99), ContentType::Protobuf);
        assert_eq!(ContentType::from_number(-1), ContentType::Protobuf);
        for number in 0..4 {
            assert_eq!(ContentType::from_number(number).number(), number);
        }
    }
}
