//! Frames of baidu_std, written and read, without a socket.

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{BatchSize, BenchmarkId, Criterion};
use nexus_benches::rpc::generated::inline::{ECHO_SERVICE, EchoRequest};
use nexus_benches::rpc::{Slow, message};
use nexus_rpc::wire::{Limits, RpcMeta, decode, encode_frame};

const SIZES: [usize; 2] = [16, 1024];

fn request_meta() -> RpcMeta {
    let method = &ECHO_SERVICE.methods[0];
    RpcMeta::for_request(method.service, method.name, 1 << 32)
}

fn request(bytes: usize) -> EchoRequest {
    EchoRequest {
        message: message(bytes, Slow::No),
    }
}

/// Meta and message into an empty buffer that has room.
pub(crate) fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode a frame");
    for size in SIZES {
        let request = request(size);
        let limits = Limits::default();
        let mut out = BytesMut::with_capacity(size + 1024);
        group.bench_function(BenchmarkId::new("request", size), |bencher| {
            bencher.iter(|| {
                out.clear();
                encode_frame(&mut request_meta(), &request, &[], &limits, &mut out)
            });
        });
        group.bench_function(BenchmarkId::new("answer", size), |bencher| {
            bencher.iter(|| {
                out.clear();
                let mut meta = RpcMeta::for_success(black_box(1 << 32));
                encode_frame(&mut meta, &request, &[], &limits, &mut out)
            });
        });
    }
    group.finish();
}

/// A frame from a buffer that holds many, down to the message.
fn decode_all(criterion: &mut Criterion, name: &str, mut meta: RpcMeta) {
    const FRAMES: usize = 100;
    let mut group = criterion.benchmark_group(format!("decode 100 frames: {name}"));
    for size in SIZES {
        let limits = Limits::default();
        let mut frames = BytesMut::new();
        for _ in 0..FRAMES {
            encode_frame(&mut meta, &request(size), &[], &limits, &mut frames).expect("encoded");
        }
        let frames = frames.freeze();
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter_batched(
                || BytesMut::from(&frames[..]),
                |mut input| {
                    while let Ok(Some(frame)) = decode(&mut input, &limits) {
                        let body = frame.open(&limits).expect("opens");
                        black_box::<EchoRequest>(body.decode().expect("a message"));
                    }
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

pub(crate) fn decode_frames(criterion: &mut Criterion) {
    decode_all(criterion, "requests", request_meta());
    decode_all(criterion, "answers", RpcMeta::for_success(1 << 32));
}
