//! Compression of payloads: snappy, gzip and zlib, each with a limit on what comes out.

use std::io::{self, Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::bufread::{MultiGzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};

/// How a payload is compressed. Attachments never are. Each direction of a call says its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CompressType {
    /// 0: as it is.
    #[default]
    None,
    /// 1: snappy, the raw block format.
    Snappy,
    /// 2: gzip, RFC 1952.
    Gzip,
    /// 3: zlib, RFC 1950.
    Zlib,
}

impl CompressType {
    /// The type with this number; `None` for numbers that nobody can decompress, which fail the
    /// call. (4 is LZ4 in brpc's list of numbers, without an implementation there either.)
    pub const fn from_number(number: i32) -> Option<Self> {
        match number {
            0 => Some(Self::None),
            1 => Some(Self::Snappy),
            2 => Some(Self::Gzip),
            3 => Some(Self::Zlib),
            _ => None,
        }
    }

    /// The number on the wire.
    pub const fn number(self) -> i32 {
        match self {
            Self::None => 0,
            Self::Snappy => 1,
            Self::Gzip => 2,
            Self::Zlib => 3,
        }
    }
}

/// A payload that cannot be compressed or decompressed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompressError {
    /// The data is not what its compression type says.
    #[error("not valid {compression:?} data")]
    Corrupt {
        /// What it should be.
        compression: CompressType,
        /// What the decompressor found.
        #[source]
        source: io::Error,
    },
    /// More would come out than is allowed; nothing was kept of it.
    #[error("decompresses to more than {bytes_max} bytes")]
    TooLarge {
        /// The limit.
        bytes_max: usize,
    },
}

/// Snappy's densest element is a copy of 64 bytes in 3, so no valid block grows more than this.
/// A block that claims more is refused before its claim is allocated.
const SNAPPY_GROWTH_MAX: usize = 22;

/// Compresses a payload. [`CompressType::None`] gives it back without a copy.
///
/// # Errors
/// [`CompressError::Corrupt`] when the compressor refuses the data, which snappy does from 4 GiB on.
pub fn compress(compression: CompressType, data: Bytes) -> Result<Bytes, CompressError> {
    let corrupt = |source| CompressError::Corrupt {
        compression,
        source,
    };
    match compression {
        CompressType::None => Ok(data),
        CompressType::Snappy => snap::raw::Encoder::new()
            .compress_vec(&data)
            .map(Bytes::from)
            .map_err(|error| corrupt(error.into())),
        CompressType::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            let written = encoder.write_all(&data).and_then(|()| encoder.finish());
            written.map(Bytes::from).map_err(corrupt)
        }
        CompressType::Zlib => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
            let written = encoder.write_all(&data).and_then(|()| encoder.finish());
            written.map(Bytes::from).map_err(corrupt)
        }
    }
}

/// Decompresses a payload to at most `bytes_max` bytes. [`CompressType::None`] gives it back without
/// a copy, whatever its length: it is there already.
///
/// # Errors
/// [`CompressError::Corrupt`] for data that is not of this type, [`CompressError::TooLarge`] for
/// more than `bytes_max` bytes. Memory used never exceeds the limit by more than a buffer.
pub fn decompress(
    compression: CompressType,
    data: Bytes,
    bytes_max: usize,
) -> Result<Bytes, CompressError> {
    match compression {
        CompressType::None => Ok(data),
        CompressType::Snappy => decompress_snappy(&data, bytes_max),
        CompressType::Gzip => {
            read_limited(compression, MultiGzDecoder::new(data.as_ref()), bytes_max)
        }
        CompressType::Zlib => read_limited(compression, ZlibDecoder::new(data.as_ref()), bytes_max),
    }
}

fn decompress_snappy(data: &[u8], bytes_max: usize) -> Result<Bytes, CompressError> {
    let corrupt = |source| CompressError::Corrupt {
        compression: CompressType::Snappy,
        source,
    };
    let claimed = snap::raw::decompress_len(data).map_err(|error| corrupt(error.into()))?;
    if claimed > data.len().saturating_mul(SNAPPY_GROWTH_MAX) {
        let text = "claims more than a block of its length can hold";
        return Err(corrupt(io::Error::new(io::ErrorKind::InvalidData, text)));
    }
    if claimed > bytes_max {
        return Err(CompressError::TooLarge { bytes_max });
    }
    snap::raw::Decoder::new()
        .decompress_vec(data)
        .map(Bytes::from)
        .map_err(|error| corrupt(error.into()))
}

/// Reads to the end, or to the first byte over the limit.
fn read_limited(
    compression: CompressType,
    decoder: impl Read,
    bytes_max: usize,
) -> Result<Bytes, CompressError> {
    let mut out = Vec::new();
    let limit = u64::try_from(bytes_max)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    decoder
        .take(limit)
        .read_to_end(&mut out)
        .map_err(|source| CompressError::Corrupt {
            compression,
            source,
        })?;
    if out.len() > bytes_max {
        return Err(CompressError::TooLarge { bytes_max });
    }
    Ok(Bytes::from(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [CompressType; 4] = [
        CompressType::None,
        CompressType::Snappy,
        CompressType::Gzip,
        CompressType::Zlib,
    ];

    #[test]
    fn what_is_compressed_comes_back() {
        for compression in ALL {
            for data in [Bytes::new(), Bytes::from(vec![b'a'; 100_000])] {
                let packed = compress(compression, data.clone()).expect("compressed");
                let back = decompress(compression, packed, data.len()).expect("decompressed");
                assert_eq!(back, data, "{compression:?}");
            }
        }
    }

    #[test]
    fn a_bomb_is_refused_at_the_limit() {
        for compression in &ALL[1..] {
            let packed = compress(*compression, Bytes::from(vec![0; 1 << 20])).expect("compressed");
            let over = decompress(*compression, packed.clone(), (1 << 20) - 1);
            assert!(
                matches!(over, Err(CompressError::TooLarge { .. })),
                "{compression:?} {over:?}"
            );
            assert!(decompress(*compression, packed, 1 << 20).is_ok());
        }
    }

    #[test]
    fn a_snappy_claim_that_cannot_be_true_is_refused_before_it_is_allocated() {
        let claims_4_gib = Bytes::from_static(b"\xff\xff\xff\xff\x0f\x00");
        let result = decompress(CompressType::Snappy, claims_4_gib, usize::MAX);
        assert!(matches!(result, Err(CompressError::Corrupt { .. })));
    }

    #[test]
    fn garbage_and_truncation_are_corrupt() {
        for compression in &ALL[1..] {
            let garbage = Bytes::from_static(b"\x0a\x0bhello world");
            let result = decompress(*compression, garbage, 1 << 20);
            assert!(matches!(result, Err(CompressError::Corrupt { .. })));
            let packed = compress(*compression, Bytes::from_static(MANY)).expect("compressed");
            let cut = packed.slice(..packed.len() - 1);
            let result = decompress(*compression, cut, 1 << 20);
            assert!(matches!(result, Err(CompressError::Corrupt { .. })));
        }
    }

    const MANY: &[u8] = b"the quick brown fox jumps over the lazy dog and away";
}
