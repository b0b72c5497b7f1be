//! A chunked body, chunk by chunk.
//!
//! ```text
//!   size [; extension] CRLF  data CRLF   …   0 CRLF  [trailer CRLF]…  CRLF
//! ```

use bytes::{Buf, BytesMut};

use super::{HttpError, HttpLimits};

/// A line with the size of a chunk; extensions, which nobody uses, have to fit as well.
const SIZE_LINE_BYTES_MAX: usize = 256;

/// A body that is being read.
#[derive(Debug, Default)]
pub(super) struct Chunked {
    pub(super) body: BytesMut,
    part: Part,
    /// Bytes of trailers so far.
    trailer_bytes: usize,
}

#[derive(Debug, Default)]
enum Part {
    #[default]
    Size,
    Data {
        left_bytes: usize,
    },
    DataEnd,
    Trailers,
}

impl Chunked {
    /// Takes what there is; `true` when the body is complete.
    pub(super) fn read(
        &mut self,
        input: &mut BytesMut,
        limits: &HttpLimits,
    ) -> Result<bool, HttpError> {
        loop {
            match self.part {
                Part::Size => {
                    let Some(line) = take_line(input, SIZE_LINE_BYTES_MAX)? else {
                        return Ok(false);
                    };
                    let left_bytes = chunk_size(&line)?;
                    if left_bytes > limits.body_bytes_max.saturating_sub(self.body.len()) {
                        return Err(HttpError::BodyTooLarge);
                    }
                    self.part = match left_bytes {
                        0 => Part::Trailers,
                        _ => Part::Data { left_bytes },
                    };
                }
                Part::Data { left_bytes } => {
                    let taken = input.split_to(left_bytes.min(input.len()));
                    self.body.extend_from_slice(&taken);
                    let left_bytes = left_bytes - taken.len();
                    if left_bytes > 0 {
                        self.part = Part::Data { left_bytes };
                        return Ok(false);
                    }
                    self.part = Part::DataEnd;
                }
                Part::DataEnd => match input.get(..2) {
                    Some(b"\r\n") => {
                        input.advance(2);
                        self.part = Part::Size;
                    }
                    None if b"\r\n".starts_with(input) => return Ok(false),
                    _ => return Err(HttpError::Malformed("a chunk is longer than its size")),
                },
                Part::Trailers => {
                    let left_bytes = limits.head_bytes_max.saturating_sub(self.trailer_bytes);
                    let Some(line) = take_line(input, left_bytes)? else {
                        return Ok(false);
                    };
                    if line.is_empty() {
                        return Ok(true);
                    }
                    // Nothing here has a use for trailers.
                    self.trailer_bytes += line.len() + 2;
                }
            }
        }
    }
}

/// Takes a line off, without its end; `None` while it is not complete.
fn take_line(input: &mut BytesMut, bytes_max: usize) -> Result<Option<BytesMut>, HttpError> {
    let searched = input.get(..bytes_max.saturating_add(2)).unwrap_or(input);
    let Some(at) = searched.iter().position(|&byte| byte == b'\n') else {
        return match input.len() >= bytes_max.saturating_add(2) {
            true => Err(HttpError::HeadTooLarge),
            false => Ok(None),
        };
    };
    let mut line = input.split_to(at + 1);
    if !line.ends_with(b"\r\n") {
        return Err(HttpError::Malformed("a line ends without CR"));
    }
    line.truncate(line.len() - 2);
    Ok(Some(line))
}

fn chunk_size(line: &[u8]) -> Result<usize, HttpError> {
    let no_size = HttpError::Malformed("a chunk's size is no number");
    let digits = line.split(|&byte| byte == b';').next().unwrap_or(line);
    let digits = std::str::from_utf8(digits.trim_ascii_end()).map_err(|_| no_size)?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(no_size);
    }
    usize::from_str_radix(digits, 16).map_err(|_| HttpError::BodyTooLarge)
}
