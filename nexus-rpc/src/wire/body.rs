//! Opens one frame's payload: declared sizes, checksum, compression, message.
//!
//! What fails here fails one call. The connection is as good as before.

use bytes::Bytes;
use prost::Message;

use super::{
    ChecksumType, CompressError, CompressType, ContentType, Frame, Limits, crc32c_masked,
    decompress,
};
use crate::error::{ErrorCode, RpcError};

/// A payload that was verified and decompressed, with the attachment beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct Body {
    /// The encoded message.
    pub message: Bytes,
    /// How it is encoded.
    pub content: ContentType,
    /// The attachment; empty when there is none.
    pub attachment: Bytes,
}

/// Who opens the frame; the two answer for some faults with different codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// A provider that reads a request.
    Server,
    /// A channel that reads an answer.
    Client,
}

/// A frame's payload cannot be used. The sender's fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The declared attachment is larger than payload and attachment together.
    #[error("attachment_size={declared_bytes} is larger than the payload of {payload_bytes} bytes")]
    AttachmentTooLarge {
        /// `attachment_size` of the meta.
        declared_bytes: usize,
        /// What follows the meta.
        payload_bytes: usize,
    },
    /// The payload is not what was sent.
    #[error("the checksum does not match")]
    ChecksumMismatch,
    /// Nobody here can decompress this.
    #[error("compress_type={0} is not known")]
    UnknownCompression(i32),
    /// The payload does not decompress, or to too much.
    #[error("the payload cannot be decompressed: {0}")]
    Compress(#[from] CompressError),
    /// The message is not encoded as protobuf.
    #[error("messages encoded as {0:?} are not supported")]
    UnsupportedContent(ContentType),
    /// The message is not the protobuf message that it should be.
    #[error("the message cannot be decoded: {0}")]
    BadMessage(#[from] prost::DecodeError),
}

impl Frame {
    /// Verifies the attachment's size and the checksum, if there is one, and decompresses the payload.
    ///
    /// # Errors
    /// [`BodyError`], except its two variants on the message, which [`Body::decode`] returns.
    pub fn open(mut self, limits: &Limits) -> Result<Body, BodyError> {
        self.take_sealed().open(limits)
    }

    /// Takes out what there is to open, and leaves the rest.
    pub(crate) fn take_sealed(&mut self) -> Sealed {
        let meta = &mut self.meta;
        let checksum = match ChecksumType::from_number(meta.checksum_type()) {
            ChecksumType::None => None,
            ChecksumType::Crc32c => Some(Checksum {
                value: meta.checksum_value.take().unwrap_or_default(),
                with_attachment: meta.checksum_with_attachment(),
            }),
        };
        Sealed {
            payload: std::mem::take(&mut self.payload),
            attachment: std::mem::take(&mut self.attachment),
            declared_bytes: meta.attachment_size(),
            compress_type: meta.compress_type(),
            content: meta.content(),
            checksum,
        }
    }
}

/// What of a frame is still to be opened: payload and attachment as they came, and what the meta says of
/// them. It goes from hand to hand in place of the frame, of which it is a quarter.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) payload: Bytes,
    pub(crate) attachment: Bytes,
    /// `attachment_size` of the meta.
    declared_bytes: i32,
    compress_type: i32,
    content: ContentType,
    checksum: Option<Checksum>,
}

#[derive(Debug)]
struct Checksum {
    value: Bytes,
    with_attachment: bool,
}

impl Sealed {
    /// A message that nothing was done to.
    pub(crate) fn plain(message: Bytes) -> Self {
        Self {
            payload: message,
            attachment: Bytes::new(),
            declared_bytes: 0,
            compress_type: CompressType::None.number(),
            content: ContentType::Protobuf,
            checksum: None,
        }
    }

    /// As [`Frame::open`].
    pub(crate) fn open(self, limits: &Limits) -> Result<Body, BodyError> {
        let declared_bytes = usize::try_from(self.declared_bytes).unwrap_or(0);
        if declared_bytes != self.attachment.len() {
            return Err(BodyError::AttachmentTooLarge {
                declared_bytes,
                payload_bytes: self.payload.len(),
            });
        }
        self.verify_checksum()?;
        let number = self.compress_type;
        let compression =
            CompressType::from_number(number).ok_or(BodyError::UnknownCompression(number))?;
        let message = match compression {
            CompressType::None => self.payload,
            _ => decompress(compression, self.payload, limits.message_bytes_max)?,
        };
        Ok(Body {
            message,
            content: self.content,
            attachment: self.attachment,
        })
    }

    fn verify_checksum(&self) -> Result<(), BodyError> {
        let Some(checksum) = &self.checksum else {
            return Ok(());
        };
        let covered: &[u8] = match checksum.with_attachment {
            true => &self.attachment,
            false => &[],
        };
        match checksum.value == crc32c_masked(&self.payload, covered)[..] {
            true => Ok(()),
            false => Err(BodyError::ChecksumMismatch),
        }
    }
}

impl Body {
    /// Decodes the message. Its `bytes` fields, when generated as `Bytes`, are slices of the body.
    ///
    /// A proto2 field that is `required` and missing reads as its default: prost does not tell. (brpc
    /// refuses the message.)
    ///
    /// # Errors
    /// [`BodyError::UnsupportedContent`], [`BodyError::BadMessage`].
    pub fn decode<M: Message + Default>(&self) -> Result<M, BodyError> {
        match self.content {
            ContentType::Protobuf => Ok(M::decode(self.message.clone())?),
            other => Err(BodyError::UnsupportedContent(other)),
        }
    }
}

impl BodyError {
    /// What the call fails with: a provider answers it, a channel gives it to its caller. The
    /// codes are brpc's.
    pub fn into_rpc_error(self, side: Side) -> RpcError {
        let code = match (&self, side) {
            (Self::AttachmentTooLarge { .. }, Side::Client) => ErrorCode::BAD_RESPONSE,
            _ => ErrorCode::BAD_REQUEST,
        };
        RpcError::new(code, self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::RpcMeta;

    fn frame(meta: RpcMeta) -> Frame {
        Frame {
            meta,
            payload: Bytes::from_static(b"\x0a\x0bhello world"),
            attachment: Bytes::new(),
        }
    }

    #[test]
    fn an_attachment_that_is_not_there_is_another_code_on_each_side() {
        let meta = RpcMeta {
            attachment_size: Some(1000),
            ..RpcMeta::for_success(1)
        };
        let error = || {
            frame(meta.clone())
                .open(&Limits::default())
                .expect_err("refused")
        };
        let at_server = error().into_rpc_error(Side::Server);
        assert_eq!(at_server.code(), ErrorCode::BAD_REQUEST);
        let at_client = error().into_rpc_error(Side::Client);
        assert_eq!(at_client.code(), ErrorCode::BAD_RESPONSE);
    }

    #[test]
    fn json_is_refused_by_name() {
        let meta = RpcMeta {
            content_type: Some(ContentType::Json.number()),
            ..RpcMeta::for_success(1)
        };
        let body = frame(meta).open(&Limits::default()).expect("opened");
        let error = body.decode::<()>().expect_err("refused");
        assert!(matches!(
            error,
            BodyError::UnsupportedContent(ContentType::Json)
        ));
    }
}
