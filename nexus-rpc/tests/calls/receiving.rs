//! What a provider keeps of requests that are not complete: how much, for how long, and of whom.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use bytes::BytesMut;
use nexus_net::Address;
use nexus_rpc::wire::{Frame, Limits, RpcMeta, decode, encode_payload};
use nexus_rpc::{AuthContext, Authenticator, Credentials, HttpOptions};
use prost::Message;

use crate::http::Http;
use crate::*;

const SHORT: Duration = Duration::from_millis(300);
const MIB: usize = 1 << 20;

struct Secret;

impl Authenticator for Secret {
    fn verify(&self, data: &[u8], _peer: &Address) -> Result<AuthContext, RpcError> {
        match data {
            b"secret" => Ok(AuthContext::new("caller")),
            _ => Err(RpcError::new(ErrorCode::UNAUTHENTICATED, "who are you")),
        }
    }
}

impl Credentials for Secret {
    fn authentication_data(&self) -> Bytes {
        Bytes::from_static(b"secret")
    }
}

fn guarded(options: ProviderOptions) -> RpcProvider {
    RpcProvider::builder()
        .service(ModesServer::new(Service::default()))
        .authenticator(Secret)
        .options(options)
        .start("127.0.0.1:0".parse().unwrap())
        .unwrap()
}

/// A connection that sends what it likes.
struct Raw {
    stream: TcpStream,
    input: BytesMut,
}

impl Raw {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.set_write_timeout(Some(LONG)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            input: BytesMut::new(),
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next frame; `None` at the end.
    fn receive(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = decode(&mut self.input, &Limits::default()).unwrap() {
                return Some(frame);
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(count) => self.input.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("nothing received: {error}"),
            }
        }
    }

    fn expect_answer(&mut self, correlation_id: i64, code: i32) {
        let frame = self.receive().expect("an answer");
        assert_eq!(frame.meta.correlation_id(), correlation_id);
        let response = frame.meta.response.expect("a response");
        assert_eq!(response.error_code.unwrap_or(0), code);
    }

    fn expect_closed(&mut self) {
        assert!(self.receive().is_none());
    }
}

/// A request to echo a text of so many bytes.
fn request(
    correlation_id: i64,
    method: &'static str,
    bytes: usize,
    secret: Option<&[u8]>,
) -> Vec<u8> {
    let mut meta = RpcMeta::for_request("nexus.test.Modes", method, correlation_id);
    meta.authentication_data = secret.map(Bytes::copy_from_slice);
    let payload = text(&"x".repeat(bytes)).encode_to_vec();
    let mut out = BytesMut::new();
    let limits = Limits::default();
    encode_payload(&mut meta, &payload, &[], &limits, &mut out).unwrap();
    out.to_vec()
}

#[test]
fn a_caller_without_the_secret_is_refused_before_its_body_comes() {
    let provider = guarded(ProviderOptions::default());
    for secret in [None, Some(&b"guess"[..])] {
        let mut raw = Raw::connect(provider.local_addr());
        raw.send(&request(7, "Inline", 8 * MIB, secret)[..200]);
        raw.expect_answer(7, ErrorCode::UNAUTHENTICATED.number());
        raw.expect_closed();
    }
    // Who has it may send as much, in whatever pieces.
    let frame = request(8, "Inline", 8 * MIB, Some(b"secret"));
    for cut in [3, 12, 20, 200, MIB] {
        let mut raw = Raw::connect(provider.local_addr());
        raw.send(&frame[..cut]);
        raw.send(&frame[cut..]);
        raw.expect_answer(8, 0);
    }
}

#[test]
fn a_caller_that_is_not_known_has_no_long_meta() {
    let provider = guarded(ProviderOptions::default());
    let mut raw = Raw::connect(provider.local_addr());
    raw.send(b"PRPC\x00\x10\x00\x00\x00\x08\x00\x00");
    raw.expect_closed();
    let mut raw = Raw::connect(provider.local_addr());
    raw.send(b"PRPC\x00\x10\x00\x00\x00\x00\x40\x00");
    raw.send(&[0; 12]);
    // Not decodable, which is not looked at before all of it is there.
    raw.send(&[0; 16 << 10]);
    raw.expect_closed();
}

#[test]
fn a_connection_has_to_authenticate_in_time() {
    let provider = guarded(ProviderOptions {
        authentication_timeout: SHORT,
        ..ProviderOptions::default()
    });
    let frame = request(1, "Inline", 10, Some(b"secret"));
    let mut known = Raw::connect(provider.local_addr());
    known.send(&frame);
    known.expect_answer(1, 0);
    for bytes in [0, 1, 12, 30] {
        let mut raw = Raw::connect(provider.local_addr());
        raw.send(&frame[..bytes]);
        raw.expect_closed();
    }
    known.send(&request(2, "Inline", 10, None));
    known.expect_answer(2, 0);
}

#[test]
fn a_channel_without_calls_authenticates_by_itself() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let options = ChannelOptions {
        credentials: Some(Arc::new(Secret)),
        ..ChannelOptions::default()
    };
    let channel = channel_with([listener.local_addr().unwrap()], options);
    assert!(channel.wait_ready(ModesClient::SERVICE, LONG));
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    let mut provider = Raw {
        stream,
        input: BytesMut::new(),
    };
    let frame = provider.receive().expect("a frame");
    let shown = frame.meta.authentication_data.as_deref();
    assert_eq!(shown, Some(&b"secret"[..]));
}

#[test]
fn a_frame_that_takes_too_long_ends_its_connection_and_no_other() {
    let (provider, _seen) = crate::http::serve(ProviderOptions {
        frame_timeout: SHORT,
        ..ProviderOptions::default()
    });
    let frame = request(1, "Inline", 100, None);
    let mut idle = Raw::connect(provider.local_addr());
    for bytes in [2, 20, 90] {
        let mut raw = Raw::connect(provider.local_addr());
        raw.send(&frame);
        raw.send(&frame[..bytes]);
        raw.expect_answer(1, 0);
        raw.expect_closed();
    }
    idle.send(&frame);
    idle.expect_answer(1, 0);
}

/// A provider that has room for one request of a mebibyte.
fn narrow() -> (RpcProvider, Arc<Seen>) {
    let limits = Limits {
        body_bytes_max: MIB + 1000,
        ..Limits::default()
    };
    let mut http = HttpOptions::default();
    http.limits.body_bytes_max = MIB + 1000;
    crate::http::serve(ProviderOptions {
        limits,
        http,
        request_bytes_max: MIB,
        ..ProviderOptions::default()
    })
}

#[test]
fn a_request_without_room_is_refused_and_skipped_and_one_that_has_begun_can_finish() {
    let (provider, _seen) = narrow();
    let large = |id| request(id, "Inline", MIB, None);
    let mut first = Raw::connect(provider.local_addr());
    first.send(&large(1)[..MIB / 2]);
    let mut second = Raw::connect(provider.local_addr());
    // Until the first has been read, the second may be the one with room.
    let mut id = 2;
    loop {
        second.send(&large(id));
        let frame = second.receive().expect("an answer");
        assert_eq!(frame.meta.correlation_id(), id);
        let code = frame.meta.response.and_then(|response| response.error_code);
        if code == Some(ErrorCode::OVERLOADED.number()) {
            break;
        }
        id += 1;
    }
    // Its connection goes on, and small requests need no room.
    second.send(&request(1000, "Inline", 1000, None));
    second.expect_answer(1000, 0);
    for piece in large(1)[MIB / 2..].chunks(100_000) {
        first.send(piece);
    }
    first.expect_answer(1, 0);
    second.send(&large(1001));
    second.expect_answer(1001, 0);
    // Cut off in the middle, it gives its room back.
    first.send(&large(3)[..MIB / 2]);
    drop(first);
    let deadline = Instant::now() + LONG;
    for id in 1002.. {
        second.send(&large(id));
        let frame = second.receive().expect("an answer");
        let code = frame.meta.response.and_then(|response| response.error_code);
        if code.unwrap_or(0) == 0 {
            break;
        }
        assert!(Instant::now() < deadline, "there is no room again");
    }
}

#[test]
fn a_large_request_holds_its_room_until_it_is_answered() {
    let (provider, seen) = narrow();
    seen.shut_gate();
    let mut meta = RpcMeta::for_request("nexus.test.Modes", "Pooled", 1);
    let mut out = BytesMut::new();
    let payload = text("gate").encode_to_vec();
    let attachment = vec![0; MIB];
    encode_payload(
        &mut meta,
        &payload,
        &attachment,
        &Limits::default(),
        &mut out,
    )
    .unwrap();
    let mut first = Raw::connect(provider.local_addr());
    first.send(&out);
    until("it is in work", || seen.calls() == 1);
    let mut second = Raw::connect(provider.local_addr());
    second.send(&request(2, "Inline", MIB, None));
    second.expect_answer(2, ErrorCode::OVERLOADED.number());
    let mut http = Http::connect(provider.local_addr());
    let body = format!("{{\"text\": \"{}\"}}", "x".repeat(MIB));
    http.write(&post_head(body.len()));
    assert_eq!(http.read().status, 503);
    seen.open_gate();
    first.expect_answer(1, 0);
    second.send(&request(3, "Inline", MIB, None));
    second.expect_answer(3, 0);
    let mut http = Http::connect(provider.local_addr());
    http.write(&post_head(body.len()));
    http.write(&body);
    assert_eq!(http.read().status, 200);
}

fn post_head(body_bytes: usize) -> String {
    format!(
        "POST /nexus.test.Modes/Inline HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n\
         Content-Length: {body_bytes}\r\n\r\n"
    )
}

#[test]
fn over_http_nobody_s_body_is_waited_for_who_is_not_let_in() {
    let provider = guarded(ProviderOptions::default());
    let authorized = |head: &str, value: &str| {
        let field = format!("Authorization: {value}\r\nHost");
        head.replacen("Host", &field, 1)
    };
    let chunked = post_head(0).replace("Content-Length: 0", "Transfer-Encoding: chunked") + "5\r\n";
    for head in [
        post_head(100),
        authorized(&post_head(MIB), "guess"),
        post_head(100).replace("Host", "Expect: 100-continue\r\nHost"),
        chunked,
    ] {
        let mut http = Http::connect(provider.local_addr());
        http.write(&head);
        let answer = http.read();
        assert_eq!(answer.status, 401, "{head}");
        assert!(answer.closes());
    }
    let mut http = Http::connect(provider.local_addr());
    http.write(&post_head(MIB).replace("POST /nexus.test.Modes/Inline", "GET /health"));
    assert_eq!(http.read().status, 413);
    let mut http = Http::connect(provider.local_addr());
    let body = r#"{"text": "a"}"#;
    http.write(&authorized(&post_head(body.len()), "secret"));
    http.write(body);
    assert_eq!(http.read().json()["text"], "a");
}

#[test]
fn heads_and_bodies_that_never_end_are_answered_408() {
    let mut http_options = HttpOptions {
        head_timeout: SHORT,
        ..HttpOptions::default()
    };
    let serve = |http: &HttpOptions| {
        crate::http::serve(ProviderOptions {
            http: http.clone(),
            ..ProviderOptions::default()
        })
    };
    let (provider, _seen) = serve(&http_options);
    for head in ["GET /", "GET /health HTTP/1.1\r\nHost: a\r\n", "\r\nG"] {
        let mut http = Http::connect(provider.local_addr());
        // Also behind a request that was answered.
        assert_eq!(http.get("/health").status, 200);
        http.write(head);
        let answer = http.read();
        assert_eq!(answer.status, 408, "{head:?}");
        assert!(answer.closes());
    }
    // Too few bytes to tell what is spoken.
    let mut http = Http::connect(provider.local_addr());
    http.write("P");
    assert!(http.try_read(true).is_none());
    // A line now and then gains no time.
    let mut http = Http::connect(provider.local_addr());
    http.write("GET / HTTP/1.1\r\nHost: a\r\n");
    let fields = (0..1000).take_while(|_| {
        std::thread::sleep(Duration::from_millis(20));
        http.try_write("a: b\r\n")
    });
    assert!(fields.count() < 1000);

    http_options.head_timeout = LONG;
    http_options.body_timeout = SHORT;
    let (provider, _seen) = serve(&http_options);
    for rest in ["", "{"] {
        let mut http = Http::connect(provider.local_addr());
        http.write(&post_head(100));
        http.write(rest);
        let answer = http.read();
        assert_eq!(answer.status, 408, "{rest:?}");
        assert!(answer.closes());
    }
    let mut http = Http::connect(provider.local_addr());
    assert_eq!(http.get("/health").status, 200);
}

#[test]
fn empty_lines_before_a_request_are_skipped_and_not_for_ever() {
    let (provider, _seen) = crate::http::serve(ProviderOptions::default());
    let request = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut http = Http::connect(provider.local_addr());
    for empty in ["\r\n", "\n", "\n\r\n", "", "\r\n\n\r\n\n\r\n\n\r\n\n"] {
        http.write(&format!("{empty}{request}"));
        assert_eq!(http.read().status, 200, "{empty:?}");
    }
    for byte in format!("\r\n{request}\n{request}").chars() {
        http.write(&byte.to_string());
    }
    assert_eq!(http.read().status, 200);
    assert_eq!(http.read().status, 200);
    for empty in ["\r\n", "\n"] {
        let mut http = Http::connect(provider.local_addr());
        http.write(&empty.repeat(9));
        assert_eq!(http.read().status, 400);
        assert!(http.try_read(true).is_none());
    }
}

#[test]
fn an_http_1_0_caller_keeps_the_connection_that_it_asks_to_keep() {
    let (provider, _seen) = crate::http::serve(ProviderOptions::default());
    let get = |fields: &str| format!("GET /health HTTP/1.0\r\n{fields}\r\n");
    let mut http = Http::connect(provider.local_addr());
    for _ in 0..3 {
        http.write(&get("Connection: Keep-Alive\r\n"));
        let answer = http.read();
        assert_eq!(answer.status, 200);
        assert!(
            answer.head.contains("\r\nconnection: keep-alive\r\n"),
            "{answer:?}"
        );
    }
    let body = r#"{"text": "a"}"#;
    let post = post_head(body.len()).replace("HTTP/1.1", "HTTP/1.0");
    http.write(&post.replace("Host", "Connection: keep-alive\r\nHost"));
    http.write(body);
    assert!(http.read().head.contains("\r\nconnection: keep-alive\r\n"));
    for fields in [
        "",
        "Connection: close\r\n",
        "Connection: keep-alive, close\r\n",
    ] {
        let mut http = Http::connect(provider.local_addr());
        http.write(&get(fields));
        let answer = http.read();
        assert!(answer.closes(), "{answer:?}");
        assert!(http.try_read(true).is_none());
    }
    // In HTTP/1.1 it goes without saying.
    let mut http = Http::connect(provider.local_addr());
    assert!(!http.get("/health").head.contains("\r\nconnection:"));
}
