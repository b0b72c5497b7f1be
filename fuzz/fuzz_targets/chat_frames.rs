//! A client connection's bytes, cut into reads, in both directions: the same frames whatever the
//! cut, and each frame is written again as it was. The last byte of the input is the size of a read.
#![no_main]

use std::fmt::Debug;

use bytes::BytesMut;
use chat_proto::frame::{FrameError, decode, to_bytes};
use chat_proto::messages::{RequestFrame, ResponseFrame};
use libfuzzer_sys::fuzz_target;
use prost::Message;

const LENGTH_MAX: usize = 1024;

fuzz_target!(|data: &[u8]| {
    let Some((&read_bytes, input)) = data.split_last() else {
        return;
    };
    let read_bytes = usize::from(read_bytes).max(1);
    check::<RequestFrame>(input, read_bytes);
    check::<ResponseFrame>(input, read_bytes);
});

fn check<F: Message + Default + PartialEq + Debug>(input: &[u8], read_bytes: usize) {
    let whole = decode_reads::<F>([input].into_iter());
    let cut = decode_reads::<F>(input.chunks(read_bytes));
    assert_eq!(whole, cut);
    for frame in whole.0 {
        let mut bytes = BytesMut::from(to_bytes(&frame));
        assert_eq!(decode::<F>(&mut bytes, usize::MAX), Ok(Some(frame)));
        assert!(bytes.is_empty());
    }
}

/// The frames, and then what is left or what ended the stream.
fn decode_reads<'a, F: Message + Default>(
    reads: impl Iterator<Item = &'a [u8]>,
) -> (Vec<F>, Result<BytesMut, FrameError>) {
    let mut input = BytesMut::new();
    let mut frames = Vec::new();
    for read in reads {
        input.extend_from_slice(read);
        loop {
            let before = input.len();
            match decode::<F>(&mut input, LENGTH_MAX) {
                Ok(Some(frame)) => {
                    assert!(before - input.len() <= 4 + LENGTH_MAX);
                    frames.push(frame);
                }
                Ok(None) => break,
                Err(error) => {
                    let _ = error.to_string();
                    return (frames, Err(error));
                }
            }
        }
    }
    (frames, Ok(input))
}
