//! The baidu_std wire format, sans-IO: bytes in, frames out, and back.
//!
//! Nothing here knows a socket, a thread or a clock. A frame, the same in both directions:
//!
//! | offset | size | type | what | limit |
//! |---|---|---|---|---|
//! | 0 | 4 | ASCII | `PRPC` | |
//! | 4 | 4 | u32, big-endian | body size: every byte after this header | [`Limits::body_bytes_max`] |
//! | 8 | 4 | u32, big-endian | meta size | the body size |
//! | 12 | meta size | protobuf | [`RpcMeta`] | |
//! | 12 + meta size | the rest | bytes | payload: the message, perhaps compressed | |
//! | end − attachment size | [`RpcMeta::attachment_size`] | bytes | attachment, never compressed | |
//!
//! Receiving has two steps, because they fail differently. [`decode`] cuts frames out of a
//! connection's bytes; its errors are the stream's, and the connection is closed without an answer.
//! [`Frame::open`] verifies and decompresses one frame's payload; its errors are one call's, and
//! the connection goes on.
//!
//! Streams (frames that start with `STRM`) are not spoken: to [`decode`] they are a wrong magic.

mod body;
mod checksum;
mod compress;
mod decode;
mod encode;
mod meta;
mod meta_codec;

pub(crate) use body::Sealed;
pub use body::{Body, BodyError, Side};
pub use checksum::{ChecksumType, crc32c_masked};
pub use compress::{CompressError, CompressType, compress, decompress};
pub use decode::{DecodeError, Frame, decode, frame_bytes};
pub(crate) use decode::{Header, peek_meta};
pub use encode::{EncodeError, encode_frame, encode_payload};
pub use meta::{ContentType, RpcMeta, RpcRequestMeta, RpcResponseMeta, StreamSettings};

/// The first four bytes of every frame.
pub const MAGIC: [u8; 4] = *b"PRPC";

/// What stands before a frame's body: magic, body size, meta size.
pub const HEADER_BYTES: usize = 12;

/// How large frames may be, in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest body: meta, payload and attachment together. Default 64 MiB, as in brpc.
    pub body_bytes_max: usize,
    /// The largest message that a compressed payload may become. Default 64 MiB.
    pub message_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 64 << 20,
            message_bytes_max: 64 << 20,
        }
    }
}
