//! The clients' framing, sans-IO: bytes in, frames out, and back.
//!
//! | offset | size | type | what |
//! |---|---|---|---|
//! | 0 | 4 | u32, big-endian | length of the rest |
//! | 4 | length | protobuf | [`RequestFrame`](crate::messages::RequestFrame) or [`ResponseFrame`](crate::messages::ResponseFrame) |

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

/// A limit for frames to the chat must not be lower: the longest message, 64 KiB, with its names and times has room in
/// it.
pub const REQUEST_FRAME_BYTES_MIN: usize = 72 << 10;
/// The most bytes of the content of a frame to a client. What would be larger comes in pages.
pub const RESPONSE_CONTENT_BYTES_MAX: usize = 4 << 20;
/// A limit for frames to a client must not be lower.
pub const RESPONSE_FRAME_BYTES_MIN: usize = RESPONSE_CONTENT_BYTES_MAX + 64;

const HEADER_BYTES: usize = 4;

/// The stream cannot be trusted any more. The peer's fault: close the connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The length is above the limit.
    #[error("a frame of {length} bytes is above the limit of {max}")]
    TooLarge {
        /// The length that the frame claims.
        length: usize,
        /// The limit.
        max: usize,
    },
    /// What the length encloses is not the frame message.
    #[error("a frame is not readable: {0}")]
    Garbage(prost::DecodeError),
}

/// Takes one frame off the front of `input`. `None`: more bytes are needed. `bytes` fields of
/// the frame share `input`'s memory.
///
/// # Errors
/// See [`FrameError`].
pub fn decode<F: Message + Default>(
    input: &mut BytesMut,
    length_max: usize,
) -> Result<Option<F>, FrameError> {
    let Some(header) = input.first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*header) as usize;
    if length > length_max {
        return Err(FrameError::TooLarge {
            length,
            max: length_max,
        });
    }
    if input.len() < HEADER_BYTES + length {
        return Ok(None);
    }
    input.advance(HEADER_BYTES);
    let body = input.split_to(length).freeze();
    F::decode(body).map(Some).map_err(FrameError::Garbage)
}

/// Appends one frame to `out`.
///
/// # Panics
/// When the frame is larger than 4 GiB, which no message here can become: contents are limited
/// where they come in.
pub fn encode(frame: &impl Message, out: &mut BytesMut) {
    let length = frame.encoded_len();
    out.reserve(HEADER_BYTES + length);
    out.put_u32(u32::try_from(length).expect("a frame is smaller than 4 GiB"));
    frame.encode_raw(out);
}

/// One frame by itself.
pub fn to_bytes(frame: &impl Message) -> Bytes {
    let mut out = BytesMut::new();
    encode(frame, &mut out);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::messages::RequestFrame;

    fn frame(message_id: i32, content: &[u8]) -> RequestFrame {
        RequestFrame {
            message_id,
            content: Bytes::copy_from_slice(content),
            request_id: 9,
        }
    }

    #[test]
    fn the_bytes_are_those_that_old_clients_send() {
        let old = RequestFrame {
            message_id: 2,
            content: Bytes::from_static(b"ab"),
            request_id: 0,
        };
        assert_eq!(
            to_bytes(&old)[..],
            [0, 0, 0, 6, 0x08, 2, 0x12, 2, b'a', b'b']
        );
    }

    #[test]
    fn a_length_at_the_limit_is_taken_and_one_over_is_refused_with_the_header_alone() {
        let one = frame(1, &[7; 100]);
        let length = one.encoded_len();
        let mut input = BytesMut::from(&to_bytes(&one)[..]);
        assert_eq!(
            decode::<RequestFrame>(&mut input.clone(), length),
            Ok(Some(one))
        );
        input.truncate(HEADER_BYTES);
        assert_eq!(
            decode::<RequestFrame>(&mut input, length - 1),
            Err(FrameError::TooLarge {
                length,
                max: length - 1
            })
        );
    }

    #[test]
    fn what_is_not_the_message_is_refused() {
        let mut input = BytesMut::from(&[0, 0, 0, 2, 0xff, 0xff][..]);
        assert!(matches!(
            decode::<RequestFrame>(&mut input, 10),
            Err(FrameError::Garbage(_))
        ));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_frames(
            contents in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 1..20),
            step in 1usize..64,
        ) {
            let frames: Vec<_> = (1..).zip(&contents).map(|(i, c)| frame(i, c)).collect();
            let mut all = BytesMut::new();
            for frame in &frames {
                encode(frame, &mut all);
            }
            let mut input = BytesMut::new();
            let mut decoded = Vec::new();
            for piece in all.chunks(step) {
                input.extend_from_slice(piece);
                while let Some(frame) = decode::<RequestFrame>(&mut input, 1000).unwrap() {
                    decoded.push(frame);
                }
            }
            prop_assert!(input.is_empty());
            prop_assert_eq!(decoded, frames);
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut input = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decode::<RequestFrame>(&mut input, 1000) {}
        }
    }
}
