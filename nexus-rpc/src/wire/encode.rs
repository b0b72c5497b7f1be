//! Writes frames: header, meta, message and attachment into one buffer.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use super::meta_codec::Head;
use super::{
    ChecksumType, CompressError, CompressType, HEADER_BYTES, Limits, MAGIC, RpcMeta, compress,
    crc32c_masked,
};

/// A frame cannot be written. Our own side's fault; nothing was added to the buffer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The frame would be larger than allowed.
    #[error("a body of {body_bytes} bytes is over the limit of {bytes_max}")]
    BodyTooLarge {
        /// Meta, payload and attachment together.
        body_bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The meta names a compression that does not exist.
    #[error("compress_type={0} is not known")]
    UnknownCompression(i32),
    /// The message cannot be compressed.
    #[error(transparent)]
    Compress(#[from] CompressError),
}

/// Appends a frame with this message to `out`.
///
/// `meta` is written as it is, except for what depends on the body: `attachment_size` is set (absent
/// when 0), and `checksum_value` when `checksum_type` asks for one. The message is compressed
/// as `compress_type` says; uncompressed, it is encoded straight into `out`.
///
/// # Errors
/// [`EncodeError`]; `out` is then as before.
pub fn encode_frame(
    meta: &mut RpcMeta,
    message: &impl Message,
    attachment: &[u8],
    limits: &Limits,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    let number = meta.compress_type();
    let compression =
        CompressType::from_number(number).ok_or(EncodeError::UnknownCompression(number))?;
    if compression == CompressType::None {
        let payload_bytes = message.encoded_len();
        return write_frame(meta, payload_bytes, attachment, limits, out, |out| {
            message.encode_raw(out);
        });
    }
    let packed = compress(compression, Bytes::from(message.encode_to_vec()))?;
    encode_payload(meta, &packed, attachment, limits, out)
}

/// Appends a frame whose payload is encoded already, and compressed as `compress_type` says.
/// Otherwise as [`encode_frame`].
///
/// # Errors
/// [`EncodeError::BodyTooLarge`]; `out` is then as before.
pub fn encode_payload(
    meta: &mut RpcMeta,
    payload: &[u8],
    attachment: &[u8],
    limits: &Limits,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    write_frame(meta, payload.len(), attachment, limits, out, |out| {
        out.put_slice(payload);
    })
}

fn write_frame(
    meta: &mut RpcMeta,
    payload_bytes: usize,
    attachment: &[u8],
    limits: &Limits,
    out: &mut BytesMut,
    write_payload: impl FnOnce(&mut BytesMut),
) -> Result<(), EncodeError> {
    let too_large = |body_bytes| EncodeError::BodyTooLarge {
        body_bytes,
        bytes_max: limits.body_bytes_max,
    };
    meta.attachment_size = match i32::try_from(attachment.len()) {
        Ok(0) => None,
        Ok(bytes) => Some(bytes),
        Err(_) => return Err(too_large(attachment.len())),
    };
    let checksum = ChecksumType::from_number(meta.checksum_type());
    if checksum == ChecksumType::Crc32c {
        meta.checksum_value = Some(Bytes::from_static(&[0; 4]));
    }

    let mut head = Head::new();
    let written_by_hand = head.put_meta(meta).is_some();
    let meta_bytes = match written_by_hand {
        true => head.written().len(),
        false => meta.encoded_len(),
    };
    let body_bytes = meta_bytes
        .saturating_add(payload_bytes)
        .saturating_add(attachment.len());
    let (Ok(body_size), Ok(meta_size)) = (u32::try_from(body_bytes), u32::try_from(meta_bytes))
    else {
        return Err(too_large(body_bytes));
    };
    if body_bytes > limits.body_bytes_max {
        return Err(too_large(body_bytes));
    }

    out.reserve(HEADER_BYTES + body_bytes);
    out.put_slice(&MAGIC);
    out.put_u32(body_size);
    out.put_u32(meta_size);
    let meta_begin = out.len();
    match written_by_hand {
        true => out.put_slice(head.written()),
        false => meta.encode_raw(out),
    }
    let payload_begin = out.len();
    write_payload(out);
    let attachment_begin = out.len();
    out.put_slice(attachment);

    if checksum == ChecksumType::Crc32c {
        let covered = match meta.checksum_with_attachment() {
            true => &out[payload_begin..],
            false => &out[payload_begin..attachment_begin],
        };
        let value = crc32c_masked(covered, &[]);
        meta.checksum_value = Some(Bytes::copy_from_slice(&value));
        // The value was written as four zeros: the same length, so the meta fits its place.
        meta.encode_raw(&mut &mut out[meta_begin..payload_begin]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Frame, decode};

    fn round_trip(mut meta: RpcMeta, attachment: &[u8]) -> Frame {
        let mut out = BytesMut::new();
        let limits = Limits::default();
        let message = String::from("hello world");
        encode_frame(&mut meta, &message, attachment, &limits, &mut out).expect("encoded");
        let frame = decode(&mut out, &limits).expect("valid").expect("whole");
        assert!(out.is_empty());
        assert_eq!(frame.meta, meta);
        frame
    }

    #[test]
    fn every_compression_and_checksum_is_opened_again() {
        for compress_type in 0..=3 {
            for (checksum_type, with_attachment) in [(0, None), (1, None), (1, Some(true))] {
                let meta = RpcMeta {
                    compress_type: Some(compress_type),
                    checksum_type: Some(checksum_type),
                    checksum_with_attachment: with_attachment,
                    ..RpcMeta::for_request("example.EchoService", "Echo", 7)
                };
                let body = round_trip(meta, b"0123")
                    .open(&Limits::default())
                    .expect("opens");
                assert_eq!(body.message[..], *b"\x0a\x0bhello world");
                assert_eq!(body.attachment[..], *b"0123");
            }
        }
    }

    #[test]
    fn a_body_at_the_limit_is_written_and_one_over_leaves_the_buffer_alone() {
        let mut meta = RpcMeta::for_success(1);
        let body_bytes = meta.encoded_len() + 10;
        let mut out = BytesMut::from("before");
        let mut limits = Limits {
            body_bytes_max: body_bytes - 1,
            ..Limits::default()
        };
        let error = encode_payload(&mut meta, &[0; 10], &[], &limits, &mut out);
        assert!(matches!(error, Err(EncodeError::BodyTooLarge { .. })));
        assert_eq!(out, "before");
        limits.body_bytes_max = body_bytes;
        encode_payload(&mut meta, &[0; 10], &[], &limits, &mut out).expect("fits");
        assert_eq!(out.len(), 6 + HEADER_BYTES + body_bytes);
    }

    #[test]
    fn an_unknown_compression_is_not_written() {
        let mut meta = RpcMeta {
            compress_type: Some(4),
            ..RpcMeta::for_success(1)
        };
        let mut out = BytesMut::new();
        let result = encode_frame(&mut meta, &(), &[], &Limits::default(), &mut out);
        assert!(matches!(result, Err(EncodeError::UnknownCompression(4))));
        assert!(out.is_empty());
    }
}
