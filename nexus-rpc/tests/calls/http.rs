//! A provider's port spoken to over HTTP, by a client of a few lines.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::AtomicBool;

use nexus_net::Address;
use nexus_rpc::{
    AuthContext, Authenticator, ConcurrencyLimit, HttpOptions, Pages, ServerInterceptor,
};
use prost_reflect::DescriptorPool;
use serde_json::Value;

use crate::*;

/// One connection.
pub(crate) struct Http {
    stream: BufReader<TcpStream>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn closes(&self) -> bool {
        self.head.contains("connection: close")
    }
}

impl Http {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream: BufReader::new(stream),
        }
    }

    pub(crate) fn write(&mut self, bytes: &str) {
        assert!(self.try_write(bytes));
    }

    /// Whether the connection still takes what is sent.
    pub(crate) fn try_write(&mut self, bytes: &str) -> bool {
        let stream = self.stream.get_mut();
        stream.write_all(bytes.as_bytes()).is_ok()
    }

    /// The next answer; `None` at the end of the connection.
    pub(crate) fn try_read(&mut self, has_body: bool) -> Option<Answer> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.stream.read_line(&mut head).ok()? == 0 {
                assert!(head.is_empty(), "cut off: {head:?}");
                return None;
            }
        }
        let head = head.to_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        if has_body {
            self.stream.read_exact(&mut body).unwrap();
        }
        let body = String::from_utf8_lossy(&body).into_owned();
        Some(Answer { status, head, body })
    }

    pub(crate) fn read(&mut self) -> Answer {
        self.try_read(true).expect("an answer")
    }

    pub(crate) fn get(&mut self, target: &str) -> Answer {
        self.write(&format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
        self.read()
    }

    pub(crate) fn post(&mut self, method: &str, fields: &str, json: &str) -> Answer {
        self.write(&post(method, fields, json));
        self.read()
    }
}

fn post(method: &str, fields: &str, json: &str) -> String {
    format!(
        "POST /nexus.test.Modes/{method} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n\
         {fields}Content-Length: {}\r\n\r\n{json}",
        json.len()
    )
}

pub(crate) fn serve(options: ProviderOptions) -> (RpcProvider, Arc<Seen>) {
    let registry: Arc<dyn Registry> = Arc::new(InProcessRegistry::new());
    provide(&registry, &loops(), options)
}

fn http() -> (RpcProvider, Arc<Seen>, Http) {
    let (provider, seen) = serve(ProviderOptions::default());
    let http = Http::connect(provider.local_addr());
    (provider, seen, http)
}

#[test]
fn every_kind_of_method_is_called_with_json_on_one_connection() {
    let (provider, _seen, mut http) = http();
    for method in ["Pooled", "Inline", "Later"] {
        let answer = http.post(method, "", r#"{"text": "hällo"}"#);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["text"], "hällo");
        assert!(answer.head.contains("content-type: application/json"));
    }
    // Nothing said is the default message.
    assert_eq!(http.post("Inline", "", "").json(), serde_json::json!({}));
    assert_eq!(provider.in_flight(), 0);
}

#[test]
fn protobuf_bodies_are_taken_and_given_as_they_are() {
    let (_provider, _seen, mut http) = http();
    http.write(
        "POST /nexus.test.Modes/Inline HTTP/1.1\r\nHost: a\r\nContent-Type: application/proto\r\n\
         Content-Length: 3\r\n\r\n\x0a\x01x",
    );
    let answer = http.read();
    assert_eq!((answer.status, answer.body.as_str()), (200, "\x0a\x01x"));
}

#[test]
fn a_failed_call_has_the_status_and_says_code_name_and_text() {
    let (provider, seen, mut http) = http();
    let failures = [
        ("Pooled", r#"{"text": "fail"}"#, 500, 12345),
        ("Pooled", r#"{"text": "panic"}"#, 500, 2001),
        ("Inline", r#"{"text": "panic"}"#, 500, 2001),
        ("Later", r#"{"text": "drop"}"#, 500, 2001),
        ("Later", r#"{"text": "panic"}"#, 500, 2001),
        ("Inline", r#"{"text": 1}"#, 400, 1003),
        ("Inline", r#"{"txet": "a"}"#, 400, 1003),
        ("Inline", r#"{"text": "a"} x"#, 400, 1003),
        ("Inline", r#"{"text": "a", "text": "b"}"#, 400, 1003),
        ("Nothing", "{}", 404, 1002),
    ];
    for (method, json, status, code) in failures {
        let answer = http.post(method, "", json);
        assert_eq!(answer.status, status, "{json} {answer:?}");
        assert_eq!(answer.json()["code"], code, "{json}");
        assert!(answer.json()["text"].is_string());
    }
    let form = post("Inline", "", "{}").replace("application/json", "text/plain");
    http.write(&form);
    assert_eq!(http.read().status, 415);
    let answer = http.get("/nexus.test.Modes/Inline");
    assert_eq!(answer.status, 405);
    assert!(answer.head.contains("allow: post"));
    until("nothing is in work", || provider.in_flight() == 0);
    assert_eq!(seen.calls(), 5);
}

#[test]
fn requests_sent_ahead_are_answered_in_their_order() {
    let (_provider, _seen, mut http) = http();
    let mut all = String::new();
    for i in 0..50 {
        let method = ["Pooled", "Inline", "Later"][i % 3];
        all += &post(method, "", &format!(r#"{{"text": "{i}"}}"#));
        all += "GET /health HTTP/1.1\r\nHost: a\r\n\r\n";
    }
    http.write(&all);
    for i in 0..50 {
        assert_eq!(http.read().json()["text"], i.to_string());
        assert_eq!(http.read().body, "serving\n");
    }
}

#[test]
fn the_protocols_are_told_apart_a_byte_at_a_time() {
    let (provider, _seen, mut http) = http();
    for byte in post("Inline", "", r#"{"text": "a"}"#).chars() {
        http.write(&byte.to_string());
    }
    assert_eq!(http.read().json()["text"], "a");
    let client = ModesClient::new(channel_to([provider.local_addr()]));
    assert!(client.inline(&text("b")).wait().is_ok());
    let listed = http.get("/connections?format=json").json();
    let mut protocols: Vec<_> = listed["connections"].as_array().unwrap().iter().collect();
    protocols.sort_by_key(|connection| connection["protocol"].to_string());
    assert_eq!(protocols[0]["protocol"], "baidu_std");
    assert_eq!(protocols[0]["calls"], 1);
    assert_eq!(protocols[1]["protocol"], "http");
}

#[test]
fn what_is_malformed_is_answered_and_ends_the_connection() {
    let (provider, _seen) = serve(ProviderOptions::default());
    for (bytes, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n",
            413,
        ),
        ("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ] {
        let mut http = Http::connect(provider.local_addr());
        http.write(bytes);
        let answer = http.read();
        assert_eq!(answer.status, status, "{bytes:?}");
        assert!(answer.closes() && http.try_read(true).is_none());
    }
    let mut http = Http::connect(provider.local_addr());
    http.write(&format!("GET / HTTP/1.1\r\nA: {}", "x".repeat(20_000)));
    assert_eq!(http.read().status, 431);
}

#[test]
fn who_waits_to_be_told_to_continue_is_told_and_head_has_no_body() {
    let (_provider, _seen, mut http) = http();
    let request = post("Pooled", "Expect: 100-continue\r\n", r#"{"text": "a"}"#);
    let (head, body) = request.split_at(request.find('{').unwrap());
    http.write(head);
    assert_eq!(http.read().status, 100);
    http.write(body);
    assert_eq!(http.read().json()["text"], "a");
    http.write("HEAD /status HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(http.try_read(false).is_some());
    http.write("GET /health HTTP/1.0\r\n\r\n");
    let last = http.read();
    assert!(last.closes() && http.try_read(true).is_none());
}

#[test]
fn the_timeout_of_a_request_is_the_call_s() {
    let options = ProviderOptions {
        worker_threads: 1,
        ..Default::default()
    };
    let (provider, seen) = serve(options);
    seen.shut_gate();
    let mut first = Http::connect(provider.local_addr());
    first.write(&post("Pooled", "", r#"{"text": "gate"}"#));
    until("the worker is busy", || seen.calls() == 1);
    let mut second = Http::connect(provider.local_addr());
    second.write(&post("Pooled", "X-Timeout-Ms: 10\r\n", "{}"));
    until("it is queued", || provider.in_flight() == 2);
    let queued = Instant::now();
    until("its deadline is over", || queued.elapsed().as_millis() > 10);
    seen.open_gate();
    assert_eq!(first.read().status, 200);
    let late = second.read();
    assert_eq!(
        (late.status, late.json()["code"].as_i64()),
        (504, Some(1008))
    );
    assert_eq!(
        second.post("Inline", "X-Timeout-Ms: soon\r\n", "{}").status,
        400
    );
    assert_eq!(seen.calls(), 1);
}

struct Token;

impl Authenticator for Token {
    fn verify(&self, data: &[u8], _peer: &Address) -> Result<AuthContext, RpcError> {
        match data {
            b"Bearer good" => Ok(AuthContext::new("friend")),
            _ => Err(RpcError::internal("who are you?")),
        }
    }
}

#[derive(Clone, Default)]
struct Users(Arc<Mutex<Vec<String>>>);

impl ServerInterceptor for Users {
    fn before(&self, call: &CallContext) -> Result<(), RpcError> {
        let user = call.auth().map_or("nobody", |auth| auth.user());
        self.0.lock().push(user.to_owned());
        Ok(())
    }
}

#[test]
fn limits_authentication_and_interceptors_hold_as_for_other_calls() {
    let (seen, users) = (Arc::new(Seen::default()), Users::default());
    let provider = RpcProvider::builder()
        .service(ModesServer::new(Service(Arc::clone(&seen))))
        .authenticator(Token)
        .interceptor(users.clone())
        .limit("nexus.test.Modes.Later", ConcurrencyLimit::Constant(1))
        .start("127.0.0.1:0".parse().unwrap())
        .unwrap();
    let mut http = Http::connect(provider.local_addr());
    let refused = http.post("Inline", "Authorization: Bearer bad\r\n", "{}");
    assert_eq!(
        (refused.status, refused.json()["code"].as_i64()),
        (401, Some(1004))
    );
    assert_eq!(http.get("/status").status, 401);
    assert_eq!(http.get("/health").status, 200);
    let good = "Authorization: Bearer good\r\n";
    assert_eq!(http.post("Inline", good, "{}").status, 200);

    let mut waiting = Http::connect(provider.local_addr());
    waiting.write(&post("Later", good, r#"{"text": "keep"}"#));
    until("it is in work", || !seen.kept.lock().is_empty());
    let over = http.post("Later", good, "{}");
    assert_eq!(
        (over.status, over.json()["name"].as_str()),
        (503, Some("ELIMIT"))
    );
    seen.kept.lock().pop().unwrap().complete(Ok(text("kept")));
    assert_eq!(waiting.read().json()["text"], "kept");
    assert_eq!(*users.0.lock(), ["friend", "friend"]);
    http.write(&format!("GET /status HTTP/1.1\r\nHost: a\r\n{good}\r\n"));
    assert_eq!(http.read().status, 200);
}

#[test]
fn the_status_counts_what_was_called_in_each_form() {
    let (_provider, _seen, mut http) = http();
    for json in [r#"{"text": "a"}"#, r#"{"text": "fail"}"#] {
        http.post("Pooled", "", json);
    }
    let status = http.get("/status?format=json").json();
    assert_eq!(
        (&status["status"], &status["in_flight"]),
        (&"serving".into(), &0.into())
    );
    let methods = status["methods"].as_array().unwrap();
    let pooled = methods
        .iter()
        .find(|method| method["method"] == "Pooled")
        .unwrap();
    for part in ["all", "recent"] {
        assert_eq!(pooled[part]["calls"], 2, "{pooled}");
        assert_eq!(pooled[part]["errors"], 1);
        assert!(pooled[part]["latency_us"]["p99"].is_u64());
    }
    let text = http.get("/status").body;
    assert!(text.contains("nexus.test.Modes/Pooled") && text.contains("2 calls, 1 errors"));
    http.write("GET / HTTP/1.1\r\nHost: a\r\nAccept: text/html,*/*\r\n\r\n");
    assert!(http.read().body.starts_with("<!doctype html>"));
    http.write("GET /status HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\n\r\n");
    assert_eq!(http.read().json()["connections"], 1);
    assert_eq!(http.get("/nowhere").status, 404);
}

#[test]
fn metrics_are_what_prometheus_reads() {
    let (_provider, _seen, mut http) = http();
    http.post("Inline", "", "{}");
    let answer = http.get("/metrics");
    assert!(
        answer
            .head
            .contains("content-type: text/plain; version=0.0.4")
    );
    let labels = r#"{service="nexus.test.Modes",method="Inline"}"#;
    for line in [
        &format!("nexus_rpc_errors_total{labels} 0"),
        &format!("nexus_rpc_latency_seconds_count{labels} 1"),
        "# TYPE nexus_rpc_latency_seconds histogram",
        "nexus_rpc_connections 1",
        "nexus_rpc_workers_queued 0",
        "nexus_net_turns_total{loop=\"0\"}",
        "nexus_net_turn_seconds_bucket",
    ] {
        assert!(answer.body.contains(line), "{line}\n{}", answer.body);
    }
}

#[test]
fn tools_can_build_messages_from_what_the_services_page_gives() {
    let (_provider, _seen, mut http) = http();
    let page = http.get("/services").json();
    let service = &page["services"][0];
    assert_eq!(service["name"], "nexus.test.Modes");
    assert_eq!(service["methods"][1]["path"], "/nexus.test.Modes/Inline");
    assert_eq!(page["messages"]["nexus.test.Text"][0]["name"], "text");
    http.write("GET /services?format=descriptor HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let mut bytes = Vec::new();
    http.stream.read_to_end(&mut bytes).unwrap();
    let body = bytes.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    let pool = DescriptorPool::decode(&bytes[body..]).unwrap();
    assert!(pool.get_service_by_name("nexus.test.Modes").is_some());
}

#[test]
fn a_connection_that_is_not_used_is_closed_and_one_whose_call_runs_is_not() {
    let http = HttpOptions {
        idle_timeout: Duration::from_millis(30),
        ..Default::default()
    };
    let (provider, seen) = serve(ProviderOptions {
        http,
        ..Default::default()
    });
    let mut idle = Http::connect(provider.local_addr());
    assert_eq!(idle.get("/health").status, 200);
    assert!(idle.try_read(true).is_none());
    let mut busy = Http::connect(provider.local_addr());
    busy.write(&post("Later", "", r#"{"text": "keep"}"#));
    until("it is in work", || !seen.kept.lock().is_empty());
    let begun = Instant::now();
    until("it takes long", || begun.elapsed().as_millis() > 100);
    seen.kept.lock().pop().unwrap().complete(Ok(text("kept")));
    assert_eq!(busy.read().json()["text"], "kept");
}

#[test]
fn who_sends_ahead_without_reading_is_served_as_it_reads() {
    let mut options = ProviderOptions::default();
    options.limits.body_bytes_max = 1 << 20;
    options.connection.output_bytes_max = 2 << 20;
    let (provider, _seen) = serve(options);
    let mut http = Http::connect(provider.local_addr());
    let count = 1000;
    let mut sending = http.stream.get_ref().try_clone().unwrap();
    std::thread::scope(|threads| {
        threads.spawn(move || {
            let one = "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
            sending.write_all(one.repeat(count).as_bytes()).unwrap();
        });
        // Together far more than a connection may have waiting.
        for _ in 0..count {
            assert_eq!(http.read().status, 200);
        }
    });
}

#[test]
fn pages_can_be_on_a_port_of_their_own_or_nowhere() {
    let inner = RpcProvider::builder()
        .service(ModesServer::new(Service::default()))
        .pages_on("127.0.0.1:0".parse().unwrap())
        .start("127.0.0.1:0".parse().unwrap())
        .unwrap();
    let mut outside = Http::connect(inner.local_addr());
    assert_eq!(outside.get("/health").status, 404);
    assert_eq!(outside.post("Inline", "", "{}").status, 200);
    let mut inside = Http::connect(inner.pages_addr().unwrap());
    assert_eq!(inside.get("/health").status, 200);
    assert_eq!(inside.post("Inline", "", "{}").status, 405);
    // Nor any other way to call: the port has no services.
    let client = ModesClient::new(channel_to([inner.pages_addr().unwrap()]));
    assert!(client.inline(&text("a")).wait().is_err());

    let http = HttpOptions {
        pages: Pages::Off,
        calls: false,
        ..Default::default()
    };
    let (silent, _seen) = serve(ProviderOptions {
        http,
        ..Default::default()
    });
    let mut nobody = Http::connect(silent.local_addr());
    nobody.write("GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(nobody.try_read(true).is_none());
}

#[test]
fn a_drain_shows_in_health_first_and_no_caller_of_either_kind_notices() {
    let registry: Arc<dyn Registry> = Arc::new(InProcessRegistry::new());
    let loops = loops();
    let (mut leaving, _) = provide(&registry, &loops, ProviderOptions::default());
    let (staying, _) = provide(&registry, &loops, ProviderOptions::default());
    let channel = RpcChannel::new(registry, loops, ChannelOptions::default());
    assert!(channel.wait_ready(ModesClient::SERVICE, LONG));
    let client = ModesClient::new(channel);
    let (first, second) = (leaving.local_addr(), staying.local_addr());
    let over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let rpc = threads.spawn(|| {
            let mut calls = 0;
            while !over.load(Ordering::SeqCst) {
                client.pooled(&text("a")).wait().expect("no failed call");
                calls += 1;
            }
            calls
        });
        // As a load balancer does: asks for health, and goes where it is good.
        let web = threads.spawn(|| {
            let mut http = Http::connect(first);
            let (mut at, mut calls) = (first, 0);
            while !over.load(Ordering::SeqCst) {
                let health = http.get("/health");
                if health.status == 503 && at == first {
                    at = second;
                    http = Http::connect(at);
                    continue;
                }
                let answer = match health.closes() {
                    true => {
                        http = Http::connect(at);
                        http.post("Pooled", "", "{}")
                    }
                    false => http.post("Pooled", "", "{}"),
                };
                assert_eq!(answer.status, 200);
                if answer.closes() {
                    http = Http::connect(at);
                }
                calls += 1;
            }
            (at, calls)
        });
        let mut watching = Http::connect(first);
        assert_eq!(watching.get("/health").status, 200);
        until("both call", || leaving.in_flight() > 0);
        let report = leaving.drain(LONG);
        assert_eq!(report.aborted, 0);
        drop(leaving);
        over.store(true, Ordering::SeqCst);
        assert!(rpc.join().unwrap() > 0);
        let (at, calls) = web.join().unwrap();
        assert!(at == second && calls > 0);
    });
}
