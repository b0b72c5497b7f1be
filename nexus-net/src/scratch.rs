//! The buffers that a loop reads its sockets into.
//!
//! One is read into at a time; what a read brought is handed out as a part of it, and may be kept.
//! A buffer that has no room left rests until nobody holds a part of it, and is then used again: a
//! loop whose handlers pass on what they read allocates nothing in the long run.

use std::collections::VecDeque;

use bytes::{Buf, BytesMut};

/// Room offered to one read.
pub(crate) const READ_BYTES: usize = 64 << 10;
const BUFFER_BYTES: usize = 4 * READ_BYTES;
/// Where reading begins in a buffer. The allocator places one of this size 16 bytes into a page, and
/// to there, just behind where the kernel's own pages begin, some processors (AMD's Zen 3 and 4) copy
/// several times slower.
const START: usize = 48;
/// Less room than this is not worth a read of its own.
const JOIN_BYTES_MIN: usize = 16 << 10;
/// Buffers kept for later, 4 MiB. More are in use only while handlers or queues of output hold on to
/// what was read; those are freed by whoever holds the last part.
const RESTING_MAX: usize = 16;

#[derive(Debug)]
pub(crate) struct Scratch {
    current: BytesMut,
    /// The one that rests longest first.
    resting: VecDeque<BytesMut>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            current: new_buffer(),
            resting: VecDeque::new(),
        }
    }
}

impl Scratch {
    /// An empty buffer with room for one read.
    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        debug_assert!(self.current.is_empty(), "what was read must be taken out");
        // One connection's bytes are never another's, whoever forgot them here.
        self.current.clear();
        // From its beginning whenever nobody holds a part of it: that memory is in the cache.
        if !reclaim(&mut self.current) && self.current.capacity() < READ_BYTES {
            self.replace();
        }
        &mut self.current
    }

    /// The buffer as the last read into it has left it.
    pub(crate) fn just_read(&mut self) -> &mut BytesMut {
        &mut self.current
    }

    /// Puts the rest of the buffer behind what was read into it last, so that the next read goes on there.
    /// `false`: something else lies there, or too little room is left.
    pub(crate) fn join(&mut self, read: &mut BytesMut) -> bool {
        let adjoins = read.as_ptr_range().end == self.current.as_ptr();
        let fits = adjoins && self.current.capacity() >= JOIN_BYTES_MIN;
        if fits {
            read.unsplit(std::mem::take(&mut self.current));
        }
        fits
    }

    /// Takes the rest of the buffer back, behind a read.
    pub(crate) fn part(&mut self, read: &mut BytesMut) {
        self.current = read.split_off(read.len());
    }

    fn replace(&mut self) {
        let reusable = self
            .resting
            .iter_mut()
            .position(reclaim)
            .and_then(|index| self.resting.remove(index));
        let next = reusable.unwrap_or_else(new_buffer);
        let used_up = std::mem::replace(&mut self.current, next);
        if self.resting.len() == RESTING_MAX {
            self.resting.pop_front();
        }
        self.resting.push_back(used_up);
    }
}

fn new_buffer() -> BytesMut {
    let mut buffer = BytesMut::with_capacity(START + BUFFER_BYTES);
    skip_start(&mut buffer);
    buffer
}

/// Makes the whole of a buffer available again, if nobody holds a part of it.
fn reclaim(buffer: &mut BytesMut) -> bool {
    let whole = buffer.try_reclaim(START + BUFFER_BYTES);
    if whole {
        skip_start(buffer);
    }
    whole
}

fn skip_start(buffer: &mut BytesMut) {
    buffer.resize(START, 0);
    buffer.advance(START);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// One read of `count` bytes, kept.
    fn read(scratch: &mut Scratch, count: usize) -> Bytes {
        let buffer = scratch.buffer();
        assert!(buffer.capacity() >= READ_BYTES);
        buffer.resize(count, 7);
        buffer.split().freeze()
    }

    #[test]
    fn what_is_read_and_dropped_is_read_over_and_over_into_one_buffer() {
        let mut scratch = Scratch::default();
        let mut addresses = std::collections::HashSet::new();
        for _ in 0..1000 {
            addresses.insert(read(&mut scratch, READ_BYTES).as_ptr() as usize);
        }
        assert_eq!(addresses.len(), 1, "{addresses:?}");
        assert!(scratch.resting.is_empty());
    }

    #[test]
    fn a_buffer_is_used_again_once_its_parts_are_gone() {
        let mut scratch = Scratch::default();
        for _ in 0..50 {
            // As much as eight buffers hold, as a turn with many connections keeps until it writes.
            let kept: Vec<Bytes> = (0..32).map(|_| read(&mut scratch, READ_BYTES)).collect();
            assert!(kept.iter().all(|bytes| bytes.iter().all(|&byte| byte == 7)));
        }
        assert!(scratch.resting.len() <= 8, "{}", scratch.resting.len());
    }

    #[test]
    fn parts_that_are_kept_for_good_do_not_pile_up_here() {
        let mut scratch = Scratch::default();
        let _kept: Vec<Bytes> = (0..200).map(|_| read(&mut scratch, READ_BYTES)).collect();
        assert_eq!(scratch.resting.len(), RESTING_MAX);
    }
}
