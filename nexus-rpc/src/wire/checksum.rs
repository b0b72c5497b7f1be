//! The optional checksum of a payload: CRC-32C, masked.

/// How a frame's checksum was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChecksumType {
    /// 0: there is none. A number that is not known reads as this: what cannot be checked is not
    /// checked.
    #[default]
    None,
    /// 1: CRC-32C (Castagnoli) over the payload as sent, then over the attachment if
    /// `checksum_with_attachment` is set; masked, 4 bytes, big-endian.
    Crc32c,
}

impl ChecksumType {
    /// The type with this number.
    pub const fn from_number(number: i32) -> Self {
        match number {
            1 => Self::Crc32c,
            _ => Self::None,
        }
    }

    /// The number on the wire.
    pub const fn number(self) -> i32 {
        match self {
            Self::None => 0,
            Self::Crc32c => 1,
        }
    }
}

/// Added after the rotation, so that the checksum of data that holds its own checksum stays useful.
const MASK_DELTA: u32 = 0xa282_ead8;

/// The checksum of the payload followed by the attachment, as it stands in `checksum_value`.
/// An attachment that is not covered is passed as an empty slice.
pub fn crc32c_masked(payload: &[u8], attachment: &[u8]) -> [u8; 4] {
    let crc = crc32c::crc32c_append(crc32c::crc32c(payload), attachment);
    crc.rotate_right(15).wrapping_add(MASK_DELTA).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &[u8] = b"\x0a\x0bhello world";

    #[test]
    fn the_published_example_is_met() {
        assert_eq!(crc32c::crc32c(MESSAGE), 0xe037_1884);
        assert_eq!(crc32c_masked(MESSAGE, b""), [0xd3, 0x8c, 0xab, 0x46]);
    }

    #[test]
    fn the_attachment_continues_the_payload() {
        let whole: Vec<u8> = [MESSAGE, b"0123456789"].concat();
        assert_eq!(
            crc32c_masked(MESSAGE, b"0123456789"),
            crc32c_masked(&whole, b"")
        );
    }

    #[test]
    fn an_unknown_type_is_not_checked() {
        assert_eq!(ChecksumType::from_number(99), ChecksumType::None);
        assert_eq!(ChecksumType::from_number(-1), ChecksumType::None);
    }
}
