//! Payloads that are not what they claim, and bombs: an error, and no more memory than the limit
//! allows. What was compressed here comes back.
//!
//! The first byte of the input says which compression, the second and third where the compressed
//! bytes are damaged.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use nexus_rpc::wire::{CompressError, CompressType, compress, decompress};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// The output's buffer while it doubles: the old and the new one. And what a decompressor owns.
const MEMORY_BYTES_MAX: usize = 3 * MESSAGE_BYTES_MAX + (128 << 10);

fuzz_target!(|data: &[u8]| {
    let [kind, at @ .., value] = data.first_chunk::<4>().copied().unwrap_or_default();
    let Some(data) = data.get(4..) else {
        return;
    };
    let compression = match kind % 3 {
        0 => CompressType::Snappy,
        1 => CompressType::Gzip,
        _ => CompressType::Zlib,
    };
    unpack(compression, Bytes::copy_from_slice(data));

    let data = Bytes::copy_from_slice(data);
    let packed = compress(compression, data.clone()).expect("compressed");
    let back = decompress(compression, packed.clone(), data.len()).expect("what was compressed");
    assert_eq!(back, data);
    if let Some(too_few) = data.len().checked_sub(1) {
        let result = decompress(compression, packed.clone(), too_few);
        assert!(
            matches!(result, Err(CompressError::TooLarge { .. })),
            "{result:?}"
        );
    }

    let mut damaged = packed.to_vec();
    let at = usize::from(u16::from_le_bytes(at)) % damaged.len();
    damaged[at] ^= value;
    unpack(compression, Bytes::from(damaged));
});

fn unpack(compression: CompressType, data: Bytes) {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let result = decompress(compression, data, MESSAGE_BYTES_MAX);
    let used = MEMORY.peak_usage().saturating_sub(before);
    assert!(
        used <= MEMORY_BYTES_MAX,
        "{used} bytes of memory for {compression:?}"
    );
    match result {
        Ok(message) => assert!(message.len() <= MESSAGE_BYTES_MAX),
        Err(error) => drop(error.to_string()),
    }
}
