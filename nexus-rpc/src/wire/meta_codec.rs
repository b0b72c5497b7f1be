//! Reads and writes the metas that nearly all frames have, by hand; prost does the rest.
//!
//! A meta is the larger part of a small frame, and prost's way through it, field by field in general form,
//! was a quarter of what a provider did for a call. What is usual here is every field that brpc and
//! nexus-rpc set, in its plain form. Whatever else comes (an unknown field, a message in two
//! parts, a varint that does not end) is left to prost together with all that follows it: merging
//! a meta in two parts is what merging it whole is. So the two cannot differ in what they accept, and
//! the tests below hold them to it.
//!
//! Keys, all of one byte: number << 3 | wire type, where 0 is a varint and 2 is bytes after their length.

use bytes::Bytes;
use prost::Message;

use super::meta::{RpcMeta, RpcRequestMeta, RpcResponseMeta};

/// Merges an encoded meta into `meta`. The names and values in it share the memory of `encoded`.
pub(super) fn merge(meta: &mut RpcMeta, encoded: &Bytes) -> Result<(), prost::DecodeError> {
    let mut input = Input(encoded);
    while !input.0.is_empty() {
        let field = input.0;
        if merge_field(meta, &mut input, encoded).is_none() {
            return meta.merge(encoded.slice_ref(field));
        }
    }
    Ok(())
}

/// Merges the next field. `None`: it is not usual, and `meta` is as before.
fn merge_field(meta: &mut RpcMeta, input: &mut Input<'_>, encoded: &Bytes) -> Option<()> {
    match input.byte()? {
        0x0a if meta.request.is_none() => {
            let request = Input(input.bytes()?);
            // In place, since it is large; and out again if it is not usual.
            let merged = merge_request(meta.request.insert(Default::default()), request, encoded);
            if merged.is_none() {
                meta.request = None;
            }
            merged?;
        }
        0x12 if meta.response.is_none() => {
            let response = read_response(Input(input.bytes()?), encoded)?;
            meta.response = Some(response);
        }
        0x18 => meta.compress_type = Some(input.int32()?),
        0x20 => meta.correlation_id = Some(input.int64()?),
        0x28 => meta.attachment_size = Some(input.int32()?),
        0x3a => meta.authentication_data = Some(encoded.slice_ref(input.bytes()?)),
        0x4a => {
            let mut entry = Input(input.bytes()?);
            let key = entry.text(0x0a)?;
            let value = entry.text(0x12)?;
            if !entry.0.is_empty() {
                return None;
            }
            meta.user_fields.insert(key, value);
        }
        0x50 => meta.content_type = Some(input.int32()?),
        0x58 => meta.checksum_type = Some(input.int32()?),
        0x62 => meta.checksum_value = Some(encoded.slice_ref(input.bytes()?)),
        0x68 => meta.checksum_with_attachment = Some(input.varint()? != 0),
        _ => return None,
    }
    Some(())
}

fn merge_request(
    request: &mut RpcRequestMeta,
    mut input: Input<'_>,
    encoded: &Bytes,
) -> Option<()> {
    while !input.0.is_empty() {
        match input.byte()? {
            0x0a => request.service_name = Some(encoded.slice_ref(input.bytes()?)),
            0x12 => request.method_name = Some(encoded.slice_ref(input.bytes()?)),
            0x18 => request.log_id = Some(input.int64()?),
            0x20 => request.trace_id = Some(input.int64()?),
            0x28 => request.span_id = Some(input.int64()?),
            0x30 => request.parent_span_id = Some(input.int64()?),
            0x40 => request.timeout_ms = Some(input.int32()?),
            _ => return None,
        }
    }
    Some(())
}

fn read_response(mut input: Input<'_>, encoded: &Bytes) -> Option<RpcResponseMeta> {
    let mut response = RpcResponseMeta::default();
    while !input.0.is_empty() {
        match input.byte()? {
            0x08 => response.error_code = Some(input.int32()?),
            0x12 => response.error_text = Some(encoded.slice_ref(input.bytes()?)),
            _ => return None,
        }
    }
    Some(response)
}

/// What is left to be read. Every method takes something off its front, or returns `None`.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn varint(&mut self) -> Option<u64> {
        let first = self.byte()?;
        if first < 0x80 {
            return Some(u64::from(first));
        }
        let mut value = u64::from(first & 0x7f);
        for shift in (7..64).step_by(7) {
            let byte = self.byte()?;
            // The tenth byte has room for one bit only.
            if shift == 63 && byte > 1 {
                return None;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn int64(&mut self) -> Option<i64> {
        self.varint().map(u64::cast_signed)
    }

    /// The low half of what is written as 64 bits, as protobuf wants it.
    fn int32(&mut self) -> Option<i32> {
        self.varint().map(|value| value as i32)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.varint()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    /// A field of text with this key.
    fn text(&mut self, key: u8) -> Option<String> {
        if self.byte()? != key {
            return None;
        }
        std::str::from_utf8(self.bytes()?).ok().map(str::to_owned)
    }
}

/// Room for the head of a usual frame: its header, and its meta with names of customary length.
const HEAD_BYTES: usize = 256;

/// The beginning of a frame, written on the stack and appended to the output in one piece.
pub(super) struct Head {
    bytes: [u8; HEAD_BYTES],
    length: usize,
}

impl Head {
    /// An empty one.
    pub(super) fn new() -> Self {
        Self {
            bytes: [0; HEAD_BYTES],
            length: 0,
        }
    }

    /// What was written.
    pub(super) fn written(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// Appends bytes; `None` when there is no room.
    pub(super) fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.length.checked_add(bytes.len())?;
        self.bytes.get_mut(self.length..end)?.copy_from_slice(bytes);
        self.length = end;
        Some(())
    }

    /// Appends the meta, byte for byte as prost would. `None`: it is not usual or there is no room;
    /// what was written is then worthless.
    pub(super) fn put_meta(&mut self, meta: &RpcMeta) -> Option<()> {
        if meta.authentication_data.is_some() || meta.stream_settings.is_some() {
            return None;
        }
        if let Some(request) = &meta.request {
            self.put_nested(0x0a, |head| head.put_request(request))?;
        }
        if let Some(response) = &meta.response {
            self.put_nested(0x12, |head| {
                head.put_int(0x08, response.error_code.map(i64::from))?;
                head.put_bytes(0x12, response.error_text.as_deref())
            })?;
        }
        self.put_int(0x18, meta.compress_type.map(i64::from))?;
        self.put_int(0x20, meta.correlation_id)?;
        self.put_int(0x28, meta.attachment_size.map(i64::from))?;
        for (key, value) in &meta.user_fields {
            // prost leaves out what is empty.
            if key.is_empty() || value.is_empty() {
                return None;
            }
            self.put_nested(0x4a, |head| {
                head.put_bytes(0x0a, Some(key.as_bytes()))?;
                head.put_bytes(0x12, Some(value.as_bytes()))
            })?;
        }
        self.put_int(0x50, meta.content_type.map(i64::from))?;
        self.put_int(0x58, meta.checksum_type.map(i64::from))?;
        self.put_bytes(0x62, meta.checksum_value.as_deref())?;
        self.put_int(0x68, meta.checksum_with_attachment.map(i64::from))
    }

    fn put_request(&mut self, request: &RpcRequestMeta) -> Option<()> {
        if request.request_id.is_some() {
            return None;
        }
        self.put_bytes(0x0a, request.service_name.as_deref())?;
        self.put_bytes(0x12, request.method_name.as_deref())?;
        self.put_int(0x18, request.log_id)?;
        self.put_int(0x20, request.trace_id)?;
        self.put_int(0x28, request.span_id)?;
        self.put_int(0x30, request.parent_span_id)?;
        self.put_int(0x40, request.timeout_ms.map(i64::from))
    }

    fn put_byte(&mut self, byte: u8) -> Option<()> {
        *self.bytes.get_mut(self.length)? = byte;
        self.length += 1;
        Some(())
    }

    fn put_varint(&mut self, mut value: u64) -> Option<()> {
        while value >= 0x80 {
            self.put_byte(value as u8 | 0x80)?;
            value >>= 7;
        }
        self.put_byte(value as u8)
    }

    fn put_int(&mut self, key: u8, value: Option<i64>) -> Option<()> {
        let Some(value) = value else {
            return Some(());
        };
        self.put_byte(key)?;
        self.put_varint(value.cast_unsigned())
    }

    fn put_bytes(&mut self, key: u8, value: Option<&[u8]>) -> Option<()> {
        let Some(value) = value else {
            return Some(());
        };
        self.put_byte(key)?;
        self.put_varint(u64::try_from(value.len()).ok()?)?;
        self.put(value)
    }

    /// A message in a message. Its length has one byte here; a longer one is not usual.
    fn put_nested(&mut self, key: u8, put: impl FnOnce(&mut Self) -> Option<()>) -> Option<()> {
        self.put_byte(key)?;
        let length_at = self.length;
        self.put_byte(0)?;
        let begin = self.length;
        put(self)?;
        let length = u8::try_from(self.length - begin)
            .ok()
            .filter(|&l| l < 0x80)?;
        *self.bytes.get_mut(length_at)? = length;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::option;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::StreamSettings;

    fn some_bytes() -> impl Strategy<Value = Option<Bytes>> {
        option::of(vec(any::<u8>(), 0..40).prop_map(Bytes::from))
    }

    fn some_i64() -> impl Strategy<Value = Option<i64>> {
        option::of(prop_oneof![0..300_i64, any::<i64>()])
    }

    fn some_i32() -> impl Strategy<Value = Option<i32>> {
        option::of(prop_oneof![0..300_i32, any::<i32>()])
    }

    prop_compose! {
        fn request()(
            (service_name, method_name) in (some_bytes(), some_bytes()),
            (log_id, trace_id, span_id) in (some_i64(), some_i64(), some_i64()),
            parent_span_id in some_i64(),
            request_id in option::weighted(0.1, "[a-z]{0,4}"),
            timeout_ms in some_i32(),
        ) -> RpcRequestMeta {
            RpcRequestMeta {
                service_name, method_name, log_id, trace_id, span_id, parent_span_id, request_id, timeout_ms,
            }
        }
    }

    prop_compose! {
        fn meta()(
            request in option::of(request()),
            response in option::of((some_i32(), some_bytes())),
            (compress_type, correlation_id, attachment_size) in (some_i32(), some_i64(), some_i32()),
            authentication_data in option::weighted(0.1, vec(any::<u8>(), 0..9)),
            stream_id in option::weighted(0.1, any::<i64>()),
            user_fields in btree_map("[a-zé]{0,9}", "\\PC{0,9}", 0..3),
            (content_type, checksum_type, checksum_value) in (some_i32(), some_i32(), some_bytes()),
            checksum_with_attachment in any::<Option<bool>>(),
        ) -> RpcMeta {
            RpcMeta {
                request,
                response: response.map(|(error_code, error_text)| RpcResponseMeta { error_code, error_text }),
                compress_type,
                correlation_id,
                attachment_size,
                authentication_data: authentication_data.map(Bytes::from),
                stream_settings: stream_id.map(|stream_id| StreamSettings {
                    stream_id,
                    ..StreamSettings::default()
                }),
                user_fields,
                content_type,
                checksum_type,
                checksum_value,
                checksum_with_attachment,
            }
        }
    }

    /// Both ways to read these bytes have to come to the same.
    fn check_reading(encoded: Vec<u8>) -> Result<(), TestCaseError> {
        let encoded = Bytes::from(encoded);
        let mut by_hand = RpcMeta::default();
        let result = merge(&mut by_hand, &encoded);
        match RpcMeta::decode(encoded) {
            Ok(meta) => {
                prop_assert!(result.is_ok());
                prop_assert_eq!(by_hand, meta);
            }
            Err(_) => prop_assert!(result.is_err()),
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn a_meta_is_written_as_prost_writes_it(meta in meta()) {
            let mut head = Head::new();
            if head.put_meta(&meta).is_some() {
                prop_assert_eq!(head.written(), &meta.encode_to_vec()[..]);
            }
        }

        #[test]
        fn a_meta_is_read_as_prost_reads_it(meta in meta()) {
            check_reading(meta.encode_to_vec())?;
        }

        #[test]
        fn two_metas_in_a_row_are_merged_as_prost_merges_them(first in meta(), second in meta()) {
            check_reading([first.encode_to_vec(), second.encode_to_vec()].concat())?;
        }

        #[test]
        fn a_damaged_meta_is_read_or_refused_as_by_prost(
            meta in meta(),
            damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut encoded = meta.encode_to_vec();
            encoded.push(0);
            for (at, byte) in damage {
                let at = at.index(encoded.len());
                encoded[at] = byte;
            }
            check_reading(encoded.clone())?;
            encoded.truncate(cut.index(encoded.len()));
            check_reading(encoded)?;
        }

        #[test]
        fn any_bytes_are_read_or_refused_as_by_prost(
            keys in vec(
                (prop::sample::select(&[0x0a, 0x12, 0x18, 0x20, 0x3a, 0x4a, 0x62, 0x68, 0x0b, 0x80_u8][..]),
                 vec(any::<u8>(), 0..12)),
                0..6,
            ),
        ) {
            let encoded = keys.into_iter().flat_map(|(key, bytes)| [vec![key], bytes].concat());
            check_reading(encoded.collect())?;
        }
    }

    #[test]
    fn what_calls_and_answers_have_is_usual() {
        let mut request = RpcMeta::for_request("example.EchoService", "Echo", i64::MAX);
        request
            .user_fields
            .insert("traceparent".into(), "0".repeat(55));
        let failure = RpcMeta::for_failure(7, &crate::RpcError::internal("for some reason"));
        for meta in [request, RpcMeta::for_success(-1), failure] {
            let mut head = Head::new();
            assert!(head.put_meta(&meta).is_some(), "{meta:?}");
            assert_eq!(head.written(), meta.encode_to_vec());
            let encoded = Bytes::from(meta.encode_to_vec());
            let mut read = RpcMeta::default();
            let mut input = Input(&encoded);
            while !input.0.is_empty() {
                assert!(
                    merge_field(&mut read, &mut input, &encoded).is_some(),
                    "{meta:?}"
                );
            }
            assert_eq!(read, meta);
        }
    }
}
