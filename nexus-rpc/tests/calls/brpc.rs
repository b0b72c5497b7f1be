//! The captured and hand-made frames of `tests/data/baidu_std`, over real sockets: requests to a
//! provider, whose answers are compared with those of brpc's server; answers to a channel, whose calls
//! end as those of brpc's client. Each difference stands where it is expected.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;

use bytes::BytesMut;
use nexus_net::Address;
use nexus_rpc::wire::{Frame, Limits, decode, encode_payload};
use nexus_rpc::{AuthContext, Authenticator, ServerInterceptor};

use crate::*;

#[allow(missing_docs, unreachable_pub, clippy::all)]
mod example {
    include!(concat!(env!("OUT_DIR"), "/example.rs"));
}
use example::{EchoRequest, EchoResponse, EchoService, EchoServiceClient, EchoServiceServer};

/// Does what brpc's server was made to do at the capture.
struct Echo;

impl EchoService for Echo {
    fn echo(&self, call: &CallContext, request: EchoRequest) -> Result<EchoResponse, RpcError> {
        let message = request.message;
        call.set_response_attachment(call.attachment().clone());
        if message == "failplain" {
            return Err(RpcError::new(ErrorCode::new(-1), "no code given"));
        }
        if let Some(code) = message.strip_prefix("fail:") {
            let code = ErrorCode::new(code.parse().unwrap());
            return Err(RpcError::new(code, "asked to fail"));
        }
        if message.starts_with("uf:") {
            call.set_response_metadata(MetadataKey::new("rk"), "rv");
        }
        Ok(EchoResponse { message })
    }
}

/// What an answer says: error code, opened message, attachment, metadata.
type Said = (i32, Vec<u8>, Vec<u8>, BTreeMap<String, String>);

#[test]
fn a_provider_answers_captured_requests_as_brpc_does() {
    let provider = RpcProvider::builder()
        .service(EchoServiceServer::new(Echo))
        .start("127.0.0.1:0".parse().unwrap())
        .unwrap();
    for name in names(".req") {
        let Some(expected) = expected_answers(&name) else {
            continue;
        };
        let (answers, open) = exchange(provider.local_addr(), &name, expected.len());
        assert_eq!(answers, expected, "{name}");
        assert_eq!(open, stays_open(&name), "{name}");
    }
    until("nothing is in work", || provider.in_flight() == 0);
}

/// brpc's answers by correlation id, changed where ours differ; `None` for a case that is about the
/// server's configuration and not about the frame.
fn expected_answers(name: &str) -> Option<BTreeMap<i64, Said>> {
    // A concurrency limit, and a handler that closes the connection, which brpc's alone can.
    if matches!(name, "limit_reached" | "close_connection") {
        return None;
    }
    let mut expected = BTreeMap::new();
    for frame in frames(&load_or_empty(&format!("{name}.resp"))) {
        expected.insert(frame.meta.correlation_id(), said(frame));
    }
    let ids = || frames(&load(&format!("{name}.req"))).into_iter();
    let echoed = |message: &[u8]| (0, message.to_vec(), Vec::new(), BTreeMap::new());
    let failed = |code| (code, Vec::new(), Vec::new(), BTreeMap::new());
    match name {
        // This provider does not ask who calls: `authentication_data` is ignored.
        "auth_absent" | "auth_bad" => {
            for frame in ids() {
                expected.insert(frame.meta.correlation_id(), echoed(&frame.payload));
            }
        }
        // prost reads a required field that is missing as its default; brpc answers 1003.
        "missing_required" => {
            expected
                .values_mut()
                .for_each(|said| *said = echoed(b"\x0a\x00"));
        }
        // The same, and the attachment is echoed.
        "probe_attachment_equals_payload" => {
            for frame in ids() {
                let mut said = echoed(b"\x0a\x00");
                said.2 = frame.attachment.to_vec();
                expected.insert(frame.meta.correlation_id(), said);
            }
        }
        // Only protobuf is read.
        "content_json" | "content_proto_json" | "content_proto_text" => {
            expected.values_mut().for_each(|said| *said = failed(1003));
        }
        // brpc's second answer was not captured: the client had gone.
        "two_calls_after_timeout" => {
            for frame in ids() {
                expected.insert(frame.meta.correlation_id(), echoed(&frame.payload));
            }
        }
        // Streams are not spoken: the call that asks for one is answered as any other.
        "stream_refused" => {
            for frame in ids() {
                expected.insert(frame.meta.correlation_id(), echoed(&frame.payload));
            }
        }
        // A frame that ends the connection: the call before it may or may not be answered.
        "probe_bad_magic_second" | "stream_accepted" => expected.clear(),
        _ => {}
    }
    Some(expected)
}

/// Lets in who shows what the captured client showed.
struct SecretToken;

impl Authenticator for SecretToken {
    fn verify(&self, data: &[u8], _peer: &Address) -> Result<AuthContext, RpcError> {
        match data {
            b"secret-token" => Ok(AuthContext::new("captured client").with_role("caller")),
            b"panic" => panic!("asked to"),
            _ => Err(RpcError::internal("Fail to authenticate")),
        }
    }
}

/// Who called, as the handlers saw it.
struct Callers(Arc<Mutex<Vec<AuthContext>>>);

impl ServerInterceptor for Callers {
    fn before(&self, call: &CallContext) -> Result<(), RpcError> {
        self.0.lock().extend(call.auth().cloned());
        Ok(())
    }
}

#[test]
fn a_provider_that_asks_who_calls_asks_once_per_connection_as_brpc_does() {
    let callers = Arc::default();
    let provider = RpcProvider::builder()
        .service(EchoServiceServer::new(Echo))
        .authenticator(SecretToken)
        .interceptor(Callers(Arc::clone(&callers)))
        .start("127.0.0.1:0".parse().unwrap())
        .unwrap();
    for name in ["auth_good", "auth_bad", "auth_absent"] {
        let mut expected = BTreeMap::new();
        for frame in frames(&load(&format!("{name}.resp"))) {
            expected.insert(frame.meta.correlation_id(), said(frame));
        }
        let (answers, open) = exchange(provider.local_addr(), name, expected.len());
        assert_eq!(answers, expected, "{name}");
        assert_eq!(open, name == "auth_good", "{name}");
    }
    // Three calls, and the one that saw whether the connection was still open.
    let caller = AuthContext::new("captured client").with_role("caller");
    assert_eq!(*callers.lock(), vec![caller; 4]);
    assert_eq!(provider.in_flight(), 0);
}

#[test]
fn an_authenticator_that_panics_lets_nobody_in() {
    let provider = RpcProvider::builder()
        .service(EchoServiceServer::new(Echo))
        .authenticator(SecretToken)
        .start("127.0.0.1:0".parse().unwrap())
        .unwrap();
    let mut frame = frames(&load("auth_bad.req")).remove(0);
    frame.meta.authentication_data = Some(Bytes::from_static(b"panic"));
    let mut out = BytesMut::new();
    let limits = Limits::default();
    encode_payload(&mut frame.meta, &frame.payload, &[], &limits, &mut out).unwrap();
    let mut stream = TcpStream::connect(provider.local_addr()).unwrap();
    stream.write_all(&out).unwrap();
    let answer = next_frame(&mut stream, &mut BytesMut::new()).unwrap();
    assert_eq!(said(answer).0, ErrorCode::UNAUTHENTICATED.number());
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
}

fn stays_open(name: &str) -> bool {
    let header = header_line(&format!("{name}.req"));
    match name {
        // brpc skips the frame; where the next one begins is then a guess.
        "probe_meta_larger_than_body" | "stream_accepted" => false,
        // Authentication is not asked for, so there is nothing to close for.
        "auth_bad" => true,
        _ => !header.contains("connection afterwards: closed"),
    }
}

/// Sends the file's bytes, reads as many answers, and sees whether another request is served.
fn exchange(address: SocketAddr, name: &str, count: usize) -> (BTreeMap<i64, Said>, bool) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.set_nodelay(true).unwrap();
    let bytes = load(&format!("{name}.req"));
    match name {
        "probe_byte_at_a_time" => bytes
            .chunks(1)
            .for_each(|byte| stream.write_all(byte).unwrap()),
        _ => stream.write_all(&bytes).unwrap(),
    }
    let mut input = BytesMut::new();
    let mut answers = BTreeMap::new();
    while answers.len() < count {
        let frame = next_frame(&mut stream, &mut input).unwrap_or_else(|| panic!("{name}: closed"));
        answers.insert(frame.meta.correlation_id(), said(frame));
    }
    let written = stream.write_all(&load("echo_plain.req"));
    let mut open = false;
    while let (Ok(()), Some(frame)) = (&written, next_frame(&mut stream, &mut input)) {
        // What came before a frame that ends the connection may still be answered.
        let may_come = matches!(name, "probe_bad_magic_second" | "stream_accepted");
        open = said(frame).1.ends_with(b"hello world") && !may_come;
        if open {
            break;
        }
    }
    (answers, open)
}

#[test]
fn a_channel_ends_calls_as_brpcs_client_does() {
    for name in names(".resp").filter(|name| name.starts_with("answer_")) {
        let (code, message, attachment_bytes) = match name.as_str() {
            // There is no code for it in the protocol: brpc says EINVAL, here the connection is lost.
            "answer_bad_magic" | "answer_garbage_meta" => (1014, "", 0),
            // brpc gives 112: it has tried again in vain. Here the refusal is what the caller gets.
            "answer_elogoff_retry" => (2003, "", 0),
            // Calls that open streams do not exist: it is an answer like any other.
            "answer_plain_answer_to_stream" => (0, "*", 0),
            name => brpcs_end(name),
        };
        // The frames are those of one run with one call each.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let script = load(&format!("{name}.resp"));
        let server = std::thread::spawn({
            let name = name.clone();
            move || play(&listener, &name, &script)
        });
        let client = EchoServiceClient::new(channel_to([address]));
        let request = EchoRequest {
            message: "hello world".to_owned(),
        };
        let timeout = match code {
            1008 => Duration::from_millis(200),
            _ => LONG,
        };
        let result = client
            .echo_with(&request, CallOptions::timeout(timeout))
            .wait();
        match result {
            Ok(reply) => {
                assert_eq!(code, 0, "{name}");
                assert!(message == "*" || reply.message.message == message, "{name}");
                assert_eq!(reply.attachment.len(), attachment_bytes, "{name}");
            }
            Err(error) => assert_eq!(error.code().number(), code, "{name}: {error}"),
        }
        drop(client);
        server.join().unwrap();
    }
}

/// How brpc's client ended the call, from the capture's first line.
fn brpcs_end(name: &str) -> (i32, &'static str, usize) {
    let header = header_line(&format!("{name}.resp"));
    let field = |name: &str| {
        let (_, rest) = header.split_once(name).unwrap();
        let digits = rest.split(|c: char| c != '-' && !c.is_ascii_digit());
        digits.into_iter().next().unwrap().parse::<i32>().unwrap()
    };
    let message = match header.contains("msg=\"hello world\"") {
        true => "hello world",
        false => "",
    };
    let attachment_bytes = usize::try_from(field("att=")).unwrap();
    (field("code="), message, attachment_bytes)
}

/// Answers every request with the script, for the id that was really used, until the channel goes or has
/// had enough.
fn play(listener: &TcpListener, name: &str, script: &[u8]) {
    let (mut stream, _) = listener.accept().unwrap();
    let mut input = BytesMut::new();
    let first = next_frame(&mut stream, &mut input);
    let mut request = Some(first.unwrap_or_else(|| panic!("{name}: no request")));
    while let Some(asked) = request {
        let _ = stream.write_all(&answer(&asked, name, script));
        request = next_frame(&mut stream, &mut input);
    }
    let _ = stream.shutdown(Shutdown::Both);
}

fn answer(request: &Frame, name: &str, script: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    let wrong_first = usize::from(name == "answer_wrong_cid_first");
    let mut rest = BytesMut::from(script);
    let mut index = 0;
    while let Ok(Some(mut frame)) = decode(&mut rest, &Limits::default()) {
        if frame.meta.correlation_id.is_some() && index >= wrong_first {
            frame.meta.correlation_id = request.meta.correlation_id;
        }
        let declared = frame.meta.attachment_size;
        let mut one = BytesMut::new();
        let (payload, attachment) = (&frame.payload, &frame.attachment);
        encode_payload(
            &mut frame.meta,
            payload,
            attachment,
            &Limits::default(),
            &mut one,
        )
        .unwrap();
        if declared.is_some() && attachment.is_empty() {
            // A lie that the encoder does not tell: build the frame by hand.
            frame.meta.attachment_size = declared;
            let meta = prost::Message::encode_to_vec(&frame.meta);
            let sizes = [meta.len() + payload.len(), meta.len()];
            one = BytesMut::from(&b"PRPC"[..]);
            for size in sizes {
                one.extend_from_slice(&u32::try_from(size).unwrap().to_be_bytes());
            }
            one.extend_from_slice(&meta);
            one.extend_from_slice(payload);
        }
        out.extend_from_slice(&one);
        index += 1;
    }
    if index == 0 {
        // Not to be decoded, and meant so.
        out.extend_from_slice(script);
    }
    out
}

fn next_frame(stream: &mut TcpStream, input: &mut BytesMut) -> Option<Frame> {
    loop {
        if let Some(frame) = decode(input, &Limits::default()).unwrap() {
            return Some(frame);
        }
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece).ok().filter(|&count| count > 0)?;
        input.extend_from_slice(&piece[..count]);
    }
}

fn said(frame: Frame) -> Said {
    let code = frame.meta.response.as_ref().map_or(0, |r| r.error_code());
    let user_fields = frame.meta.user_fields.clone();
    let body = frame.open(&Limits::default()).unwrap();
    (
        code,
        body.message.to_vec(),
        body.attachment.to_vec(),
        user_fields,
    )
}

fn frames(bytes: &[u8]) -> Vec<Frame> {
    let mut input = BytesMut::from(bytes);
    std::iter::from_fn(|| decode(&mut input, &Limits::default()).ok().flatten()).collect()
}

fn names(kind: &str) -> impl Iterator<Item = String> {
    let end = format!("{kind}.hex");
    let mut names: Vec<String> = fs::read_dir(data_dir())
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(&end).map(str::to_owned))
        .collect();
    names.sort_unstable();
    assert!(!names.is_empty());
    names.into_iter()
}

fn header_line(name: &str) -> String {
    let text = fs::read_to_string(data_dir().join(format!("{name}.hex"))).unwrap();
    text.lines().next().unwrap().to_owned()
}

fn load(name: &str) -> Vec<u8> {
    let text = fs::read_to_string(data_dir().join(format!("{name}.hex"))).unwrap();
    let digits: String = text.lines().filter(|line| !line.starts_with('#')).collect();
    hex::decode(digits).unwrap()
}

fn load_or_empty(name: &str) -> Vec<u8> {
    match data_dir().join(format!("{name}.hex")).exists() {
        true => load(name),
        false => Vec::new(),
    }
}

fn data_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/baidu_std")
}
