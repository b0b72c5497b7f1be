//! A connection's bytes, cut into reads: the same frames whatever the cut, and each frame is written
//! again as it was. The last byte of the input is the size of a read.
#![no_main]

use std::mem::discriminant;

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use nexus_rpc::wire::{
    CompressType, DecodeError, Frame, HEADER_BYTES, Limits, RpcMeta, decode, encode_payload,
    frame_bytes,
};

const LIMITS: Limits = Limits {
    body_bytes_max: 2048,
    message_bytes_max: 1024,
};

fuzz_target!(|data: &[u8]| {
    let Some((&read_bytes, input)) = data.split_last() else {
        return;
    };
    let whole = decode_reads([input].into_iter());
    let cut = decode_reads(input.chunks(usize::from(read_bytes).max(1)));
    assert_eq!(whole.frames, cut.frames);
    match (whole.end, cut.end) {
        (Ok(rest), Ok(cut_rest)) => assert_eq!(rest, cut_rest),
        // What a wrong magic quotes depends on what had arrived, so only the kinds are the same.
        (Err(error), Err(cut_error)) => {
            assert_eq!(discriminant(&error), discriminant(&cut_error));
            let _ = error.to_string();
        }
        (whole, cut) => panic!("{whole:?} and, when cut, {cut:?}"),
    }
    for frame in whole.frames {
        write_again(&frame);
        open(frame);
    }
});

struct Decoded {
    frames: Vec<Frame>,
    /// What is left, or what ended the stream.
    end: Result<BytesMut, DecodeError>,
}

fn decode_reads<'a>(reads: impl Iterator<Item = &'a [u8]>) -> Decoded {
    let mut input = BytesMut::new();
    let mut frames = Vec::new();
    for read in reads {
        input.extend_from_slice(read);
        loop {
            let announced = frame_bytes(&input, &LIMITS);
            let before = input.len();
            match decode(&mut input, &LIMITS) {
                Ok(Some(frame)) => {
                    let taken = before - input.len();
                    assert_eq!(announced, Ok(Some(taken)));
                    assert!(taken <= HEADER_BYTES + LIMITS.body_bytes_max);
                    assert!(frame.payload.len() + frame.attachment.len() <= taken - HEADER_BYTES);
                    frames.push(frame);
                }
                Ok(None) => {
                    assert_eq!(input.len(), before);
                    assert!(matches!(announced, Ok(size) if size.is_none_or(|size| size > before)));
                    break;
                }
                Err(error) => {
                    return Decoded {
                        frames,
                        end: Err(error),
                    };
                }
            }
        }
    }
    Decoded {
        frames,
        end: Ok(input),
    }
}

/// Only what depends on the body may become another: the attachment's size and the checksum.
fn write_again(frame: &Frame) {
    let limits = Limits::default();
    let mut meta = frame.meta.clone();
    let mut bytes = BytesMut::new();
    encode_payload(
        &mut meta,
        &frame.payload,
        &frame.attachment,
        &limits,
        &mut bytes,
    )
    .expect("within the limits");
    let again = decode(&mut bytes, &limits).expect("valid").expect("whole");
    assert!(bytes.is_empty());
    let restored = RpcMeta {
        attachment_size: frame.meta.attachment_size,
        checksum_value: frame.meta.checksum_value.clone(),
        ..again.meta.clone()
    };
    assert_eq!(restored, frame.meta);
    assert_eq!(again.meta, meta);
    assert_eq!(again.payload, frame.payload);
    assert_eq!(again.attachment, frame.attachment);
    if CompressType::from_number(meta.compress_type()) == Some(CompressType::None) {
        let body = again
            .open(&limits)
            .expect("size and checksum are right now");
        assert_eq!(body.message, frame.payload);
    }
}

fn open(frame: Frame) {
    let _ = frame.meta.failure();
    let as_it_is = frame.meta.compress_type() == CompressType::None.number();
    match frame.open(&LIMITS) {
        Ok(body) => {
            assert!(as_it_is || body.message.len() <= LIMITS.message_bytes_max);
            // Any message will do.
            let _ = body.decode::<RpcMeta>();
        }
        Err(error) => drop(error.to_string()),
    }
}
