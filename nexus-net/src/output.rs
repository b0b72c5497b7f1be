//! What a connection still has to write.
//!
//! ```text
//!   chunks: [Bytes][Bytes]…   large pieces, shared, never copied
//!   tail:   BytesMut          small pieces, copied together; always behind the chunks
//! ```
//!
//! All of it leaves with one vectored write. The tail's buffer and the queue of chunks come
//! from a pool of the loop and go back when they have been written, so a connection with nothing to
//! write owns no memory and a steady exchange allocates nothing.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes, BytesMut};

use crate::transport::Transport;

/// Pieces up to this length are copied to the tail: cheaper than an entry in the vectored write.
const COPY_BYTES_MAX: usize = 1024;
/// Slices handed to one vectored write.
const SLICES_MAX: usize = 64;
const TAIL_BYTES: usize = 4096;
/// A buffer that grew beyond this is freed rather than pooled.
const POOLED_BYTES_MAX: usize = 256 * 1024;
/// Spare bytes of one loop: what a turn of many connections writes at once.
const POOL_BYTES_MAX: usize = 4 << 20;
const POOLED_QUEUES_MAX: usize = 1024;

/// Spare buffers and queues of one loop.
#[derive(Debug, Default)]
pub(crate) struct BufferPool {
    buffers: Vec<BytesMut>,
    /// What the buffers hold in all.
    bytes: usize,
    queues: Vec<VecDeque<Bytes>>,
}

impl BufferPool {
    fn take(&mut self) -> BytesMut {
        let Some(buffer) = self.buffers.pop() else {
            return BytesMut::with_capacity(TAIL_BYTES);
        };
        self.bytes -= buffer.capacity();
        buffer
    }

    fn put(&mut self, mut buffer: BytesMut) {
        buffer.clear();
        // try_reclaim finds the whole allocation again after `advance`, unless it is shared.
        if buffer.try_reclaim(TAIL_BYTES)
            && buffer.capacity() <= POOLED_BYTES_MAX
            && self.bytes + buffer.capacity() <= POOL_BYTES_MAX
        {
            self.bytes += buffer.capacity();
            self.buffers.push(buffer);
        }
    }

    fn put_queue(&mut self, queue: VecDeque<Bytes>) {
        if self.queues.len() < POOLED_QUEUES_MAX && queue.capacity() <= SLICES_MAX {
            self.queues.push(queue);
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Output {
    chunks: VecDeque<Bytes>,
    tail: BytesMut,
    chunks_bytes: usize,
}

impl Output {
    pub(crate) fn len(&self) -> usize {
        self.chunks_bytes + self.tail.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The buffer behind everything else, to append to.
    pub(crate) fn tail(&mut self, pool: &mut BufferPool) -> &mut BytesMut {
        if self.tail.capacity() == 0 {
            self.tail = pool.take();
        }
        &mut self.tail
    }

    pub(crate) fn push(&mut self, bytes: Bytes, pool: &mut BufferPool) {
        if bytes.len() <= COPY_BYTES_MAX {
            self.tail(pool).extend_from_slice(&bytes);
            return;
        }
        if self.chunks.capacity() == 0 {
            self.chunks = pool.queues.pop().unwrap_or_default();
        }
        if !self.tail.is_empty() {
            let before = std::mem::take(&mut self.tail).freeze();
            self.chunks_bytes += before.len();
            self.chunks.push_back(before);
        }
        self.chunks_bytes += bytes.len();
        self.chunks.push_back(bytes);
    }

    /// Writes once. `Ok(n)`: n bytes have gone.
    pub(crate) fn write_to(
        &mut self,
        transport: &mut Transport,
        pool: &mut BufferPool,
    ) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut used = 0;
        for chunk in self.chunks.iter().take(SLICES_MAX) {
            slices[used] = IoSlice::new(chunk);
            used += 1;
        }
        if used < SLICES_MAX && !self.tail.is_empty() {
            slices[used] = IoSlice::new(&self.tail);
            used += 1;
        }
        let written = transport.write_vectored(&slices[..used])?;
        self.consume(written, pool);
        Ok(written)
    }

    fn consume(&mut self, mut written: usize, pool: &mut BufferPool) {
        while written > 0 {
            let Some(chunk) = self.chunks.front_mut() else {
                break;
            };
            let part = written.min(chunk.len());
            written -= part;
            self.chunks_bytes -= part;
            if part == chunk.len() {
                self.chunks.pop_front();
            } else {
                chunk.advance(part);
            }
        }
        self.tail.advance(written);
        if self.is_empty() {
            if self.chunks.capacity() > 0 {
                pool.put_queue(std::mem::take(&mut self.chunks));
            }
            // Also when it was filled to its end and has no capacity left to show.
            pool.put(std::mem::take(&mut self.tail));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn contents(output: &Output) -> Vec<u8> {
        let mut all = Vec::new();
        for chunk in &output.chunks {
            all.extend_from_slice(chunk);
        }
        all.extend_from_slice(&output.tail);
        all
    }

    #[test]
    fn order_is_kept_across_copied_and_shared_pieces() {
        let mut pool = BufferPool::default();
        let mut output = Output::default();
        let large = Bytes::from(vec![b'x'; COPY_BYTES_MAX + 1]);
        output.push(Bytes::from_static(b"a"), &mut pool);
        output.push(large.clone(), &mut pool);
        output.tail(&mut pool).extend_from_slice(b"b");
        output.push(large.clone(), &mut pool);
        let mut expected = b"a".to_vec();
        expected.extend_from_slice(&large);
        expected.push(b'b');
        expected.extend_from_slice(&large);
        assert_eq!(contents(&output), expected);
        assert_eq!(output.len(), expected.len());
    }

    #[test]
    fn any_split_of_the_writes_consumes_exactly_what_was_written() {
        for step in 1..700 {
            let mut pool = BufferPool::default();
            let mut output = Output::default();
            let mut expected = Vec::new();
            for i in 0..5u8 {
                let piece = vec![i; 400 * usize::from(i + 1)];
                expected.extend_from_slice(&piece);
                output.push(Bytes::from(piece), &mut pool);
            }
            while !output.is_empty() {
                let part = step.min(output.len());
                output.consume(part, &mut pool);
                expected.drain(..part);
                assert_eq!(contents(&output), expected);
            }
            assert!(expected.is_empty());
        }
    }

    #[test]
    fn a_written_out_connection_owns_no_buffer_and_the_pool_gets_it_back() {
        let mut pool = BufferPool::default();
        let mut output = Output::default();
        output.tail(&mut pool).extend_from_slice(b"abc");
        output.consume(3, &mut pool);
        assert_eq!(output.tail.capacity(), 0);
        assert_eq!(pool.buffers.len(), 1);
        let address = pool.buffers[0].as_ptr();
        output.tail(&mut pool).extend_from_slice(b"def");
        assert_eq!(output.tail.as_ptr(), address);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(usize),
        Tail(usize),
        /// A part of what is there, in 256ths.
        Consume(usize),
        ConsumeAll,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..2 * COPY_BYTES_MAX).prop_map(Step::Push),
            1 => (COPY_BYTES_MAX - 1..=COPY_BYTES_MAX + 1).prop_map(Step::Push),
            3 => (0..300_usize).prop_map(Step::Tail),
            1 => (TAIL_BYTES - 1..=POOLED_BYTES_MAX + 1).prop_map(Step::Tail),
            4 => (0..256_usize).prop_map(Step::Consume),
            2 => Just(Step::ConsumeAll),
        ]
    }

    /// The next bytes of a stream in which each place can be told from its neighbours.
    fn stream(from: &mut usize, count: usize) -> Vec<u8> {
        let begin = *from;
        *from += count;
        (begin..*from).map(|place| (place % 251) as u8).collect()
    }

    proptest! {
        /// Several connections of one loop against plain vectors: what goes in comes out, once and in
        /// order, and no buffer carries anything from one to the other.
        #[test]
        fn behaves_like_a_vector(
            steps in proptest::collection::vec((0..3_usize, step()), 1..100),
        ) {
            let mut pool = BufferPool::default();
            let mut conns: [(Output, Vec<u8>); 3] = Default::default();
            let mut sent = 0;
            for (which, step) in steps {
                let (output, model) = &mut conns[which];
                match step {
                    Step::Push(count) => {
                        let bytes = stream(&mut sent, count);
                        model.extend_from_slice(&bytes);
                        output.push(Bytes::from(bytes), &mut pool);
                    }
                    Step::Tail(count) => {
                        let bytes = stream(&mut sent, count);
                        model.extend_from_slice(&bytes);
                        output.tail(&mut pool).extend_from_slice(&bytes);
                    }
                    Step::Consume(part) => {
                        let count = model.len() * part / 256;
                        model.drain(..count);
                        output.consume(count, &mut pool);
                    }
                    Step::ConsumeAll => {
                        output.consume(model.len(), &mut pool);
                        model.clear();
                    }
                }
                prop_assert_eq!(output.len(), model.len());
                prop_assert_eq!(output.is_empty(), model.is_empty());
                prop_assert!(contents(output) == *model);
                let held: usize = pool.buffers.iter().map(BytesMut::capacity).sum();
                prop_assert_eq!(held, pool.bytes);
                prop_assert!(held <= POOL_BYTES_MAX && pool.queues.len() <= POOLED_QUEUES_MAX);
                for buffer in &pool.buffers {
                    prop_assert!(buffer.is_empty());
                    prop_assert!((TAIL_BYTES..=POOLED_BYTES_MAX).contains(&buffer.capacity()));
                }
            }
            for (output, model) in &mut conns {
                if !model.is_empty() {
                    output.consume(model.len(), &mut pool);
                    prop_assert_eq!(output.tail.capacity(), 0);
                    prop_assert_eq!(output.chunks.capacity(), 0);
                }
            }
        }
    }

    #[test]
    fn the_pool_keeps_no_more_than_it_may() {
        let mut pool = BufferPool::default();
        let mut outputs: Vec<Output> = Vec::new();
        outputs.resize_with(2 * POOL_BYTES_MAX / TAIL_BYTES, Output::default);
        for output in &mut outputs {
            output.tail(&mut pool).extend_from_slice(b"abc");
            output.push(Bytes::from(vec![0; COPY_BYTES_MAX + 1]), &mut pool);
        }
        for output in &mut outputs {
            output.consume(output.len(), &mut pool);
            output.tail(&mut pool).extend_from_slice(b"abc");
        }
        for output in &mut outputs {
            output.consume(3, &mut pool);
        }
        assert!(pool.bytes <= POOL_BYTES_MAX && pool.bytes + TAIL_BYTES > POOL_BYTES_MAX);
        assert_eq!(pool.queues.len(), POOLED_QUEUES_MAX);
    }
}
