//! The text of a message of the load: who sent it, which of its messages it is, when it was due, and a
//! checksum over all of that.
//!
//! ```text
//!   5f3a09c1 7d21 1a 2f 1e8480 xxxxxxxx…
//!   checksum run  │  │  │      filling up to the size
//!                 │  │  └ due, microseconds since the load's epoch
//!                 │  └ number, from 1 for each sender
//!                 └ sender's user id          (all hexadecimal)
//! ```

use std::fmt::Write as _;

/// The checksum's digits.
const CHECKSUM_LEN: usize = 8;

/// What a message says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope {
    /// Which load it belongs to.
    pub run: u32,
    /// Who sent it.
    pub sender: i32,
    /// Which of the sender's messages it is, from 1. Also its client message id.
    pub number: u64,
    /// When it was to be sent, in microseconds since the load's epoch.
    pub due_us: u64,
}

impl Envelope {
    /// As a text of at least `size_bytes` bytes.
    pub fn to_text(self, size_bytes: usize) -> String {
        let Self {
            run,
            sender,
            number,
            due_us,
        } = self;
        let mut text = String::with_capacity(size_bytes.max(64));
        text.push_str("00000000 ");
        // Writing to a String cannot fail.
        let _ = write!(text, "{run:x} {sender:x} {number:x} {due_us:x} ");
        let filling = size_bytes.saturating_sub(text.len());
        text.extend(std::iter::repeat_n('x', filling));
        let checksum = format!("{:08x}", checksum(&text));
        text.replace_range(..CHECKSUM_LEN, &checksum);
        text
    }

    /// Reads a text back; `None` if it is not as it was written.
    pub fn of_text(text: &str) -> Option<Self> {
        let written = u32::from_str_radix(text.get(..CHECKSUM_LEN)?, 16).ok()?;
        if written != checksum(text) {
            return None;
        }
        let mut words = text.get(CHECKSUM_LEN + 1..)?.split(' ');
        let mut number = || u64::from_str_radix(words.next()?, 16).ok();
        Some(Self {
            run: number()?.try_into().ok()?,
            sender: number()?.try_into().ok()?,
            number: number()?,
            due_us: number()?,
        })
    }
}

/// Of what stands behind the checksum.
fn checksum(text: &str) -> u32 {
    crc32c::crc32c(text.as_bytes().get(CHECKSUM_LEN..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENVELOPE: Envelope = Envelope {
        run: u32::MAX,
        sender: i32::MAX,
        number: 77,
        due_us: u64::MAX,
    };

    #[test]
    fn a_text_reads_back_and_has_its_size() {
        for size in [0, 64, 500] {
            let text = ENVELOPE.to_text(size);
            assert!(text.len() >= size, "{text}");
            assert_eq!(Envelope::of_text(&text), Some(ENVELOPE));
        }
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let text = ENVELOPE.to_text(80);
        for index in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[index] ^= 1;
            let changed = String::from_utf8(bytes).unwrap();
            assert_eq!(Envelope::of_text(&changed), None, "byte {index}");
        }
        for len in 0..text.len() {
            assert_eq!(Envelope::of_text(&text[..len]), None, "cut to {len}");
        }
    }

    #[test]
    fn what_others_write_is_none() {
        for text in ["", "hello", "00000000 ", "äöüäöüäöüäöü"] {
            assert_eq!(Envelope::of_text(text), None, "{text}");
        }
    }
}
