//! The codec against frames captured from Apache brpc (`tests/data/baidu_std`).
//!
//! `frames.txt` beside the captures says what each holds. Every capture goes through every test
//! here; what our side does differently from brpc stands in [`outcome`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use nexus_rpc::wire::{
    CompressType, DecodeError, Frame, Limits, RpcMeta, Side, compress, decode, encode_frame,
    encode_payload,
};
use nexus_rpc::{ErrorCode, RpcError};
use proptest::prelude::*;

/// `example.EchoRequest` and `example.EchoResponse`: they have the same fields.
#[derive(Clone, PartialEq, prost::Message)]
struct Echo {
    #[prost(string, required, tag = "1")]
    message: String,
}

#[test]
fn every_captured_file_is_listed() {
    let listed: BTreeSet<String> = expected_frames().into_keys().collect();
    let present: BTreeSet<String> = fs::read_dir(data_dir())
        .expect("the captures")
        .filter_map(|entry| entry.expect("an entry").file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".hex").map(str::to_owned))
        .collect();
    assert_eq!(listed, present);
    assert!(listed.len() > 160);
}

#[test]
fn every_capture_decodes_to_what_was_sent() {
    for (name, expected) in expected_frames() {
        let (frames, end) = decode_all(&load(&name));
        let mut shown: Vec<String> = frames.iter().map(show).collect();
        shown.extend(end.map(|error| show_error(&error)));
        assert_eq!(shown, expected, "{name}");
    }
}

#[test]
fn every_capture_decodes_the_same_a_byte_at_a_time() {
    for name in expected_frames().into_keys() {
        let bytes = load(&name);
        let (frames, end) = decode_all(&bytes);
        let (single, single_end) = decode_pieces(bytes.chunks(1));
        assert_eq!(frames, single, "{name}");
        assert_eq!(
            end.map(|e| kind(&e)),
            single_end.map(|e| kind(&e)),
            "{name}"
        );
    }
}

#[test]
fn every_call_and_answer_ends_as_documented() {
    for name in expected_frames().into_keys() {
        let side = match name.ends_with(".req") {
            true => Side::Server,
            false => Side::Client,
        };
        for frame in decode_all(&load(&name)).0 {
            match outcome(&name) {
                Outcome::Echoed => {
                    let echo = read(frame, side).unwrap_or_else(|error| panic!("{name}: {error}"));
                    assert!(!echo.message.is_empty(), "{name}");
                }
                Outcome::Empty => {
                    let echo = read(frame, side).unwrap_or_else(|error| panic!("{name}: {error}"));
                    assert_eq!(echo.message, "", "{name}");
                }
                Outcome::Fails(code) => {
                    let error = read(frame, side).expect_err(&name);
                    assert_eq!(error.code().number(), code, "{name}: {error}");
                }
            }
        }
    }
}

#[test]
fn what_brpc_wrote_is_written_again_byte_for_byte() {
    let real = |name: &String| !name.starts_with("probe_") && !name.starts_with("answer_");
    for name in expected_frames().into_keys().filter(real) {
        let bytes = load(&name);
        let mut again = BytesMut::new();
        for mut frame in decode_all(&bytes).0 {
            let limits = Limits::default();
            let Frame {
                meta,
                payload,
                attachment,
            } = &mut frame;
            encode_payload(meta, payload, attachment, &limits, &mut again).expect("encoded");
        }
        assert_eq!(again[..], bytes[..again.len()], "{name}");
        assert!(
            again.len() == bytes.len() || name.starts_with("stream_"),
            "{name}"
        );
    }
}

#[test]
fn frames_built_here_are_those_that_brpc_builds() {
    let hello = Echo {
        message: "hello world".into(),
    };
    let request = || RpcMeta::for_request("example.EchoService", "Echo", 4_294_967_298);
    let answer = || RpcMeta::for_success(4_294_967_298);
    let logged = |log_id| {
        let mut meta = request();
        meta.request.as_mut().expect("a request").log_id = Some(log_id);
        meta
    };
    let checked = |meta, with_attachment| RpcMeta {
        checksum_type: Some(1),
        checksum_with_attachment: with_attachment,
        ..meta
    };
    let crc_hello = Echo {
        message: "crc:hello".into(),
    };
    let digits = b"0123456789";
    for (name, mut meta, message, attachment) in [
        ("echo_plain.req", logged(0), &hello, &b""[..]),
        ("echo_plain.resp", answer(), &hello, b""),
        ("echo_no_log_id.req", request(), &hello, b""),
        ("echo_large_log_id.req", logged(i64::MAX), &hello, b""),
        ("echo_attachment.req", logged(1), &hello, digits),
        ("echo_attachment.resp", answer(), &hello, digits),
        ("checksum_crc32c.req", checked(request(), None), &hello, b""),
        (
            "checksum_crc32c_response.resp",
            checked(answer(), None),
            &crc_hello,
            b"",
        ),
        (
            "checksum_crc32c_attachment.req",
            checked(request(), Some(true)),
            &hello,
            digits,
        ),
        (
            "checksum_crc32c_not_attachment.req",
            checked(request(), None),
            &hello,
            digits,
        ),
    ] {
        let mut out = BytesMut::new();
        let limits = Limits::default();
        encode_frame(&mut meta, message, attachment, &limits, &mut out).expect("encoded");
        assert_eq!(hex::encode(out), hex::encode(load(name)), "{name}");
    }
}

#[test]
fn errors_built_here_are_those_that_brpc_builds() {
    for (name, code, text) in [
        (
            "user_error.resp",
            12345,
            "[127.0.0.1:18000][E12345]asked to fail",
        ),
        (
            "user_error_negative.resp",
            -7,
            "[127.0.0.1:18000][E-7]asked to fail",
        ),
        (
            "user_error_plain.resp",
            -1,
            "[127.0.0.1:18000]no code given",
        ),
        (
            "unknown_method.resp",
            1002,
            "[127.0.0.1:18000][E1002]Fail to find method=example.EchoService/Missing",
        ),
    ] {
        let error = RpcError::new(ErrorCode::new(code), text);
        let mut meta = RpcMeta::for_failure(4_294_967_298, &error);
        let mut out = BytesMut::new();
        encode_payload(&mut meta, &[], &[], &Limits::default(), &mut out).expect("encoded");
        assert_eq!(hex::encode(out), hex::encode(load(name)), "{name}");
        assert_eq!(meta.failure(), Some(error), "{name}");
    }
}

#[test]
fn compressed_captures_hold_what_we_compress() {
    for (name, compression) in [
        ("compress_snappy_both.req", CompressType::Snappy),
        ("compress_gzip_both.resp", CompressType::Gzip),
        ("compress_zlib_both.req", CompressType::Zlib),
    ] {
        let frame = decode_all(&load(name)).0.remove(0);
        let theirs = frame
            .clone()
            .open(&Limits::default())
            .expect("opens")
            .message;
        let ours = compress(compression, theirs.clone()).expect("compressed");
        let ours = Frame {
            payload: ours,
            ..frame
        };
        assert_eq!(
            ours.open(&Limits::default()).expect("opens").message,
            theirs,
            "{name}"
        );
    }
}

/// How reading a frame as an [`Echo`] ends.
enum Outcome {
    Echoed,
    /// A message without text. Where brpc sees a required field missing, prost sees its default.
    Empty,
    /// With this code, ours or the answer's.
    Fails(i32),
}

fn outcome(name: &str) -> Outcome {
    match name {
        "echo_empty_string.req" | "echo_empty_string.resp" | "answer_empty_body.resp" => {
            Outcome::Empty
        }
        // brpc: 1003, because `message` is required.
        "missing_required.req" | "probe_attachment_equals_payload.req" | "probe_zero_body.req" => {
            Outcome::Empty
        }
        // brpc reads these encodings; here they are refused with its code for the unreadable.
        "content_json.req" | "content_proto_json.req" | "content_proto_text.req" => {
            Outcome::Fails(1003)
        }
        "probe_attachment_too_large.req"
        | "probe_unknown_compress.req"
        | "probe_negative_compress.req"
        | "probe_compress_mismatch.req"
        | "probe_bad_body.req"
        | "probe_bad_checksum.req"
        | "answer_undeclared_tail.resp" => Outcome::Fails(1003),
        "answer_attachment_too_large.resp" => Outcome::Fails(2002),
        // Answers that say themselves how the call failed.
        "unknown_method.resp" | "unknown_service_full.resp" | "answer_enomethod_retry.resp" => {
            Outcome::Fails(1002)
        }
        "unknown_service_short.resp"
        | "probe_zero_body.resp"
        | "probe_no_request_field.resp"
        | "probe_empty_service_name.resp"
        | "probe_only_response.resp" => Outcome::Fails(1001),
        "missing_required.resp"
        | "probe_attachment_too_large.resp"
        | "probe_attachment_equals_payload.resp"
        | "probe_unknown_compress.resp"
        | "probe_negative_compress.resp"
        | "probe_compress_mismatch.resp"
        | "probe_bad_body.resp"
        | "probe_bad_checksum.resp" => Outcome::Fails(1003),
        "auth_bad.resp" | "auth_absent.resp" => Outcome::Fails(1004),
        "user_error.resp" => Outcome::Fails(12345),
        "user_error_negative.resp" => Outcome::Fails(-7),
        "user_error_attachment.resp" => Outcome::Fails(99),
        "user_error_plain.resp"
        | "answer_error_no_text.resp"
        | "answer_error_with_payload.resp" => Outcome::Fails(2001),
        "answer_elogoff_retry.resp" => Outcome::Fails(2003),
        "limit_reached.resp" | "answer_elimit_retry.resp" => Outcome::Fails(2004),
        _ => Outcome::Echoed,
    }
}

fn read(frame: Frame, side: Side) -> Result<Echo, RpcError> {
    if let (Some(error), Side::Client) = (frame.meta.failure(), side) {
        return Err(error);
    }
    let body = frame.open(&Limits::default());
    body.and_then(|body| body.decode())
        .map_err(|error| error.into_rpc_error(side))
}

fn decode_all(bytes: &[u8]) -> (Vec<Frame>, Option<DecodeError>) {
    decode_pieces(std::iter::once(bytes))
}

/// Feeds the pieces one after the other, as reads of a socket would.
fn decode_pieces<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Frame>, Option<DecodeError>) {
    let mut input = BytesMut::new();
    let mut frames = Vec::new();
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match decode(&mut input, &Limits::default()) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

fn show_error(error: &DecodeError) -> String {
    match error {
        DecodeError::BadMagic { found } => format!("! not PRPC: {}", found.escape_ascii()),
        error => format!("! {}", kind(error)),
    }
}

fn kind(error: &DecodeError) -> &'static str {
    match error {
        DecodeError::BadMagic { .. } => "not PRPC",
        DecodeError::BodyTooLarge { .. } => "body too large",
        DecodeError::MetaTooLarge { .. } => "meta larger than body",
        DecodeError::BadMeta(_) => "meta undecodable",
        DecodeError::MissingName(_) => "request without name",
        other => panic!("a new kind of error: {other}"),
    }
}

/// A frame in the notation of `frames.txt`.
fn show(frame: &Frame) -> String {
    let meta = &frame.meta;
    let mut fields = Vec::new();
    if let Some(request) = &meta.request {
        let mut inner = Vec::new();
        add(
            &mut inner,
            "service_name",
            request.service_name.as_ref().map(quote),
        );
        add(
            &mut inner,
            "method_name",
            request.method_name.as_ref().map(quote),
        );
        add(&mut inner, "log_id", request.log_id);
        add(&mut inner, "trace_id", request.trace_id);
        add(&mut inner, "span_id", request.span_id);
        add(&mut inner, "parent_span_id", request.parent_span_id);
        add(
            &mut inner,
            "request_id",
            request.request_id.as_ref().map(quote),
        );
        add(&mut inner, "timeout_ms", request.timeout_ms);
        fields.push(format!("request{{{}}}", inner.join(" ")));
    }
    if let Some(response) = &meta.response {
        let mut inner = Vec::new();
        add(&mut inner, "error_code", response.error_code);
        add(
            &mut inner,
            "error_text",
            response.error_text.as_ref().map(quote),
        );
        fields.push(format!("response{{{}}}", inner.join(" ")));
    }
    add(&mut fields, "compress_type", meta.compress_type);
    add(&mut fields, "correlation_id", meta.correlation_id);
    add(&mut fields, "attachment_size", meta.attachment_size);
    add(
        &mut fields,
        "authentication_data",
        meta.authentication_data.as_ref().map(quote),
    );
    if let Some(settings) = &meta.stream_settings {
        let mut inner = Vec::new();
        add(&mut inner, "stream_id", Some(settings.stream_id));
        add(&mut inner, "need_feedback", settings.need_feedback);
        add(&mut inner, "writable", settings.writable);
        fields.push(format!("stream_settings{{{}}}", inner.join(" ")));
    }
    if !meta.user_fields.is_empty() {
        let pairs: Vec<String> = meta
            .user_fields
            .iter()
            .map(|(key, value)| format!("{key}=\"{value}\""))
            .collect();
        fields.push(format!("user_fields{{{}}}", pairs.join(" ")));
    }
    add(&mut fields, "content_type", meta.content_type);
    add(&mut fields, "checksum_type", meta.checksum_type);
    add(
        &mut fields,
        "checksum_value",
        meta.checksum_value.as_ref().map(hex::encode),
    );
    add(
        &mut fields,
        "checksum_with_attachment",
        meta.checksum_with_attachment,
    );
    let (payload, attachment) = (hex::encode(&frame.payload), hex::encode(&frame.attachment));
    let shown = format!("{} | {payload} | {attachment}", fields.join(" "));
    shown.trim_end().to_owned()
}

fn add(fields: &mut Vec<String>, name: &str, value: Option<impl std::fmt::Display>) {
    fields.extend(value.map(|value| format!("{name}={value}")));
}

fn quote(text: impl AsRef<[u8]>) -> String {
    format!("\"{}\"", String::from_utf8_lossy(text.as_ref()))
}

/// What `frames.txt` says, by file.
fn expected_frames() -> BTreeMap<String, Vec<String>> {
    let text = fs::read_to_string(data_dir().join("frames.txt")).expect("frames.txt");
    let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut current = String::new();
    for line in text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
    {
        match line.strip_prefix("  ") {
            Some(frame) => expected
                .entry(current.clone())
                .or_default()
                .push(frame.to_owned()),
            None => {
                current = line.to_owned();
                expected.entry(current.clone()).or_default();
            }
        }
    }
    expected
}

fn load(name: &str) -> Vec<u8> {
    let path = data_dir().join(format!("{name}.hex"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let digits: String = text.lines().filter(|line| !line.starts_with('#')).collect();
    hex::decode(digits).unwrap_or_else(|error| panic!("{path:?}: {error}"))
}

fn data_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/baidu_std")
}

/// A frame to send: what the meta says, payload and attachment.
fn any_frame() -> impl Strategy<Value = (RpcMeta, Vec<u8>, Vec<u8>)> {
    let meta = (
        any::<i64>(),
        "[a-zA-Z.]{0,40}",
        any::<Option<i64>>(),
        0..2_i32,
        any::<bool>(),
    );
    let meta = meta.prop_map(
        |(correlation_id, name, log_id, checksum_type, with_attachment)| {
            let mut meta = RpcMeta::for_request(Bytes::from(name), "Echo", correlation_id);
            meta.request.as_mut().expect("a request").log_id = log_id;
            meta.checksum_type = Some(checksum_type);
            meta.checksum_with_attachment = Some(with_attachment);
            meta
        },
    );
    let bytes = || proptest::collection::vec(any::<u8>(), 0..200);
    (meta, bytes(), bytes())
}

fn encode_all(frames: &[(RpcMeta, Vec<u8>, Vec<u8>)]) -> BytesMut {
    let mut out = BytesMut::new();
    for (meta, payload, attachment) in frames {
        let (mut meta, limits) = (meta.clone(), Limits::default());
        encode_payload(&mut meta, payload, attachment, &limits, &mut out).expect("encoded");
    }
    out
}

proptest! {
    #[test]
    fn frames_survive_any_split(
        frames in proptest::collection::vec(any_frame(), 1..6),
        piece_bytes in 1..300_usize,
    ) {
        let bytes = encode_all(&frames);
        let (decoded, end) = decode_pieces(bytes.chunks(piece_bytes));
        prop_assert!(end.is_none());
        prop_assert_eq!(decoded.len(), frames.len());
        for (frame, (meta, payload, attachment)) in decoded.into_iter().zip(frames) {
            prop_assert_eq!(frame.meta.correlation_id, meta.correlation_id);
            prop_assert_eq!(&frame.meta.request, &meta.request);
            let body = frame.open(&Limits::default()).expect("opens");
            prop_assert_eq!(&body.message[..], &payload[..]);
            prop_assert_eq!(&body.attachment[..], &attachment[..]);
        }
    }

    #[test]
    fn a_damaged_byte_never_panics_and_never_goes_beyond_the_input(
        frames in proptest::collection::vec(any_frame(), 1..3),
        compress_type in -1..6_i32,
        at in any::<prop::sample::Index>(),
        value in any::<u8>(),
    ) {
        let frames: Vec<_> = frames
            .into_iter()
            .map(|(meta, payload, attachment)| {
                let meta = RpcMeta { compress_type: Some(compress_type), ..meta };
                (meta, payload, attachment)
            })
            .collect();
        let mut bytes = encode_all(&frames);
        let at = at.index(bytes.len());
        bytes[at] = value;
        let (decoded, _) = decode_all(&bytes);
        let held: usize = decoded.iter().map(|f| f.payload.len() + f.attachment.len()).sum();
        prop_assert!(held <= bytes.len());
        for frame in decoded {
            let limits = Limits { message_bytes_max: 1000, ..Limits::default() };
            if let Ok(body) = frame.open(&limits) {
                prop_assert!(body.message.len() <= 1000);
            }
        }
    }

    #[test]
    fn garbage_never_panics(garbage in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut framed = b"PRPC".to_vec();
        framed.extend_from_slice(&garbage);
        let _ = decode_all(&framed);
        let _ = decode_all(&garbage);
        // A well-formed header around garbage: the meta and what follows are taken apart.
        let mut shown = String::new();
        let half = garbage.len() / 2;
        let mut framed = b"PRPC".to_vec();
        framed.extend_from_slice(&(garbage.len() as u32).to_be_bytes());
        framed.extend_from_slice(&(half as u32).to_be_bytes());
        framed.extend_from_slice(&garbage);
        for frame in decode_all(&framed).0 {
            write!(shown, "{:?}", frame.open(&Limits::default())).expect("formatted");
        }
    }
}
