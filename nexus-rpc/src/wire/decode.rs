//! Cuts frames out of the bytes of a connection.

use bytes::{Buf, Bytes, BytesMut};

use super::{HEADER_BYTES, Limits, MAGIC, RpcMeta, meta_codec};

/// One frame, as it came. `payload` and `attachment` are slices of the buffer it was read into.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// What the frame is.
    pub meta: RpcMeta,
    /// The message as sent: not verified, not decompressed. [`Frame::open`] does both.
    pub payload: Bytes,
    /// Raw bytes beside the message. Empty when the meta declares more attachment than there is;
    /// then `payload` holds everything, and [`Frame::open`] refuses it.
    pub attachment: Bytes,
}

/// The bytes of a connection are not baidu_std. The peer's fault, and nothing after this point can be
/// trusted: the connection is closed without an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The frame does not begin with `PRPC`. Found with the first byte that differs. Stream
    /// frames (`STRM`), HTTP and everything else that brpc also understands end here.
    #[error("not a baidu_std frame: begins with \"{}\"", .found.escape_ascii())]
    BadMagic {
        /// What it begins with: up to four bytes, as many as had arrived.
        found: Bytes,
    },
    /// The body is larger than allowed. Found with the header, before any of the body is waited for.
    #[error("a body of {body_bytes} bytes is over the limit of {bytes_max}")]
    BodyTooLarge {
        /// The size in the header.
        body_bytes: u32,
        /// The limit.
        bytes_max: usize,
    },
    /// The meta is said to be larger than the body that holds it. (brpc drops such a frame and goes
    /// on, but where the next frame begins is then a guess.)
    #[error("a meta of {meta_bytes} bytes does not fit a body of {body_bytes}")]
    MetaTooLarge {
        /// The meta size in the header.
        meta_bytes: u32,
        /// The body size in the header.
        body_bytes: u32,
    },
    /// The meta is not the protobuf message that it should be.
    #[error("the meta cannot be decoded: {0}")]
    BadMeta(#[from] prost::DecodeError),
    /// The meta has a request in which a name is missing. An empty name is another matter: that is
    /// a service or method that does not exist.
    #[error("the meta's request lacks {0}")]
    MissingName(&'static str),
}

/// Takes the first frame off `input`. `Ok(None)`: the frame is not complete, read more.
///
/// The frame's memory is that of `input`, split off and shared, never copied. When the frame is
/// not complete, [`frame_bytes`] tells how much there will be of it.
///
/// # Errors
/// See [`DecodeError`]; each is final for the connection. Errors in the header are found as soon
/// as the bytes that show them are there. After an error `input` is in an unspecified state.
pub fn decode(input: &mut BytesMut, limits: &Limits) -> Result<Option<Frame>, DecodeError> {
    let Some(header) = Header::parse(input, limits)? else {
        return Ok(None);
    };
    if input.len() < header.frame_bytes() {
        return Ok(None);
    }
    let mut meta = input.split_to(header.frame_bytes()).freeze();
    // Filled in where it is: a frame is half a kilobyte, too much to be handed up in parts.
    let mut frame = Frame {
        payload: meta.split_off(HEADER_BYTES + header.meta_bytes),
        attachment: Bytes::new(),
        meta: RpcMeta::default(),
    };
    meta.advance(HEADER_BYTES);
    meta_codec::merge(&mut frame.meta, &meta)?;
    check_names(&frame.meta)?;
    let attachment_bytes = usize::try_from(frame.meta.attachment_size()).unwrap_or(0);
    if let Some(payload_bytes) = frame.payload.len().checked_sub(attachment_bytes) {
        frame.attachment = frame.payload.split_off(payload_bytes);
    }
    Ok(Some(frame))
}

/// The size of the frame that `input` begins with, header included; `Ok(None)` while the header is
/// not complete.
///
/// # Errors
/// Those of [`decode`] that the header alone shows.
pub fn frame_bytes(input: &[u8], limits: &Limits) -> Result<Option<usize>, DecodeError> {
    let header = Header::parse(input, limits)?;
    Ok(header.map(|header| header.frame_bytes()))
}

/// The meta of the frame that `input` begins with, whatever of the frame is missing behind it; `None` while the meta is
/// not complete.
///
/// # Errors
/// Those of [`decode`].
pub(crate) fn peek_meta(input: &[u8], header: &Header) -> Result<Option<RpcMeta>, DecodeError> {
    let behind = input.get(HEADER_BYTES..).unwrap_or(&[]);
    let Some(bytes) = behind.get(..header.meta_bytes) else {
        return Ok(None);
    };
    let mut meta = RpcMeta::default();
    meta_codec::merge(&mut meta, &Bytes::copy_from_slice(bytes))?;
    check_names(&meta)?;
    Ok(Some(meta))
}

/// A checked header: both sizes fit the limits and each other.
pub(crate) struct Header {
    body_bytes: usize,
    pub(crate) meta_bytes: usize,
}

impl Header {
    /// The header that `input` begins with; `None` while it is not complete.
    ///
    /// # Errors
    /// Those of [`decode`] that the header alone shows.
    pub(crate) fn parse(input: &[u8], limits: &Limits) -> Result<Option<Self>, DecodeError> {
        let begin = input.get(..MAGIC.len()).unwrap_or(input);
        if !MAGIC.starts_with(begin) {
            let found = Bytes::copy_from_slice(begin);
            return Err(DecodeError::BadMagic { found });
        }
        let Some((_, sizes)) = input.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let Some((body_bytes, sizes)) = sizes.split_first_chunk() else {
            return Ok(None);
        };
        let body_bytes = u32::from_be_bytes(*body_bytes);
        let bytes_max = limits.body_bytes_max;
        if widen(body_bytes) > bytes_max {
            return Err(DecodeError::BodyTooLarge {
                body_bytes,
                bytes_max,
            });
        }
        let Some(meta_bytes) = sizes.first_chunk() else {
            return Ok(None);
        };
        let meta_bytes = u32::from_be_bytes(*meta_bytes);
        if meta_bytes > body_bytes {
            return Err(DecodeError::MetaTooLarge {
                meta_bytes,
                body_bytes,
            });
        }
        Ok(Some(Self {
            body_bytes: widen(body_bytes),
            meta_bytes: widen(meta_bytes),
        }))
    }

    /// The whole frame, this header included.
    pub(crate) fn frame_bytes(&self) -> usize {
        HEADER_BYTES.saturating_add(self.body_bytes)
    }
}

/// Lossless on every platform that has the memory for such a frame.
fn widen(bytes: u32) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn check_names(meta: &RpcMeta) -> Result<(), DecodeError> {
    match &meta.request {
        Some(request) if request.service_name.is_none() => {
            Err(DecodeError::MissingName("service_name"))
        }
        Some(request) if request.method_name.is_none() => {
            Err(DecodeError::MissingName("method_name"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(body_bytes_max: usize) -> Limits {
        Limits {
            body_bytes_max,
            ..Limits::default()
        }
    }

    fn decode_once(input: &[u8], limits: &Limits) -> Result<Option<Frame>, DecodeError> {
        decode(&mut BytesMut::from(input), limits)
    }

    #[test]
    fn a_wrong_magic_is_found_at_its_first_wrong_byte() {
        let limits = Limits::default();
        for good in ["", "P", "PR", "PRP", "PRPC"] {
            assert_eq!(decode_once(good.as_bytes(), &limits), Ok(None));
        }
        for bad in ["S", "PX", "PRX", "PRPX", "STRM", "GET / HTTP/1.1"] {
            let error = decode_once(bad.as_bytes(), &limits).expect_err(bad);
            assert!(matches!(error, DecodeError::BadMagic { .. }), "{error}");
        }
    }

    #[test]
    fn a_body_at_the_limit_is_waited_for_and_one_over_is_refused_at_once() {
        let at = b"PRPC\x00\x00\x00\x10\x00\x00\x00\x10";
        assert_eq!(decode_once(at, &limits(16)), Ok(None));
        assert_eq!(frame_bytes(at, &limits(16)), Ok(Some(28)));
        let over = DecodeError::BodyTooLarge {
            body_bytes: 16,
            bytes_max: 15,
        };
        assert_eq!(decode_once(at, &limits(15)), Err(over.clone()));
        assert_eq!(decode_once(&at[..8], &limits(15)), Err(over));
    }

    #[test]
    fn a_meta_larger_than_its_body_is_refused_with_the_header() {
        let header = b"PRPC\x00\x00\x00\x10\x00\x00\x00\x11";
        let error = decode_once(header, &Limits::default()).expect_err("refused");
        assert!(matches!(error, DecodeError::MetaTooLarge { .. }));
    }

    #[test]
    fn the_parts_of_a_frame_lie_in_the_buffer_they_were_read_into() {
        let mut input = BytesMut::from(&b"PRPC\x00\x00\x00\x07\x00\x00\x00\x02\x28\x02abcde"[..]);
        let begin = input.as_ptr() as usize;
        let frame = decode(&mut input, &Limits::default())
            .expect("valid")
            .expect("whole");
        assert_eq!(
            (&frame.payload[..], &frame.attachment[..]),
            (&b"abc"[..], &b"de"[..])
        );
        assert_eq!(frame.payload.as_ptr() as usize, begin + 14);
        assert_eq!(frame.attachment.as_ptr() as usize, begin + 17);
    }
}
