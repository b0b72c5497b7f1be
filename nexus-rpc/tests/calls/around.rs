//! What goes along with a call: interceptors, credentials, and what a handler's own calls inherit.

use std::sync::mpsc;

use bytes::Bytes;
use nexus_rpc::{CallHead, ClientInterceptor, ClientOutcome, Credentials, TraceContext};

use crate::fakes::{Asked, Fake};
use crate::*;

/// Writes down what passes, and refuses calls on demand.
struct Noting {
    name: &'static str,
    notes: mpsc::Sender<String>,
}

impl ClientInterceptor for Noting {
    fn before(&self, call: &mut CallHead<'_>) -> Result<(), RpcError> {
        let _ = self
            .notes
            .send(format!("{} before {}", self.name, call.method.name));
        call.metadata.set(K, self.name.to_owned());
        match self.name {
            "refusing" => Err(RpcError::new(ErrorCode::REJECTED, "not today")),
            _ => Ok(()),
        }
    }

    fn after(&self, outcome: &ClientOutcome<'_>) {
        let code = outcome.error.map(RpcError::code);
        let answered = outcome.metadata.text("k").unwrap_or("nothing");
        let _ = self.notes.send(format!(
            "{} after {code:?} {} {answered}",
            self.name, outcome.attempts
        ));
    }
}

fn with_interceptors(names: &[&'static str]) -> (ChannelOptions, mpsc::Receiver<String>) {
    let (notes, noted) = mpsc::channel();
    let noting = |&name: &&'static str| {
        let notes = notes.clone();
        Arc::new(Noting { name, notes }) as Arc<dyn ClientInterceptor>
    };
    let options = ChannelOptions {
        interceptors: names.iter().map(noting).collect(),
        ..ChannelOptions::default()
    };
    (options, noted)
}

#[test]
fn interceptors_wrap_a_call_in_their_order() {
    let (options, noted) = with_interceptors(&["outer", "inner"]);
    let setting = setting_with(ProviderOptions::default(), options);
    let reply = setting.client.pooled(&text("a")).wait().unwrap();
    assert_eq!(reply.metadata.text("k"), Some("inner"));
    assert_eq!(
        code(setting.client.pooled(&text("fail")).wait()),
        ErrorCode::new(12345)
    );
    let notes: Vec<String> = noted.try_iter().collect();
    assert_eq!(
        notes,
        [
            "outer before Pooled",
            "inner before Pooled",
            "inner after None 1 inner",
            "outer after None 1 inner",
            "outer before Pooled",
            "inner before Pooled",
            "inner after Some(E12345) 1 nothing",
            "outer after Some(E12345) 1 nothing",
        ]
    );
}

#[test]
fn a_refused_call_is_not_sent_and_only_those_it_passed_hear_its_end() {
    let (options, noted) = with_interceptors(&["outer", "refusing", "inner"]);
    let setting = setting_with(ProviderOptions::default(), options);
    let error = setting.client.pooled(&text("a")).wait().unwrap_err();
    assert_eq!(
        (error.code(), error.text()),
        (ErrorCode::REJECTED, "not today")
    );
    let notes: Vec<String> = noted.try_iter().collect();
    let expected = [
        "outer before Pooled",
        "refusing before Pooled",
        "outer after Some(EREJECT (1018)) 0 nothing",
    ];
    assert_eq!(notes, expected);
    assert_eq!(setting.seen.calls(), 0);
}

struct Password;

impl Credentials for Password {
    fn authentication_data(&self) -> Bytes {
        Bytes::from_static(b"sesame")
    }
}

#[test]
fn credentials_go_out_with_the_first_request_of_each_connection() {
    let fake = Fake::start(|nth| match nth {
        2 => Asked::Close,
        _ => Asked::Echo,
    });
    let options = ChannelOptions {
        credentials: Some(Arc::new(Password)),
        ..ChannelOptions::default()
    };
    let channel = channel_with([fake.address()], options);
    let client = ModesClient::new(channel.clone());
    for n in 0..5 {
        assert!(channel.wait_ready(ModesClient::SERVICE, LONG));
        assert_eq!(client.inline(&text("a")).wait().is_ok(), n != 2);
    }
    let said: Vec<bool> = fake
        .metas()
        .iter()
        .map(|meta| meta.authentication_data.as_deref() == Some(b"sesame"))
        .collect();
    assert_eq!(said, [true, false, false, true, false]);
}

/// Answers with what it is told of time and trace.
struct Inner;

impl Modes for Inner {
    fn pooled(&self, call: &CallContext, _request: Text) -> Result<Text, RpcError> {
        let trace = call.trace().map(|trace| hex::encode(trace.trace_id()));
        let left_ms = call.remaining().unwrap().as_millis();
        Ok(text(&format!("{left_ms} {}", trace.unwrap_or_default())))
    }

    fn inline(&self, call: &CallContext, request: Text) -> Result<Text, RpcError> {
        self.pooled(call, request)
    }

    fn later(&self, call: CallContext, request: Text, responder: Responder<Text>) {
        responder.complete(self.pooled(&call, request));
    }
}

/// Asks another service on behalf of its own caller.
struct Outer(ModesClient);

impl Modes for Outer {
    fn pooled(&self, _call: &CallContext, request: Text) -> Result<Text, RpcError> {
        let options = CallOptions::timeout(LONG);
        Ok(self.0.pooled_with(&request, options).wait()?.message)
    }

    fn inline(&self, _call: &CallContext, request: Text) -> Result<Text, RpcError> {
        Ok(request)
    }

    fn later(&self, _call: CallContext, request: Text, responder: Responder<Text>) {
        let options = CallOptions::timeout(LONG);
        let call = self.0.pooled_with(&request, options);
        call.on_complete(move |result| responder.complete(result.map(|reply| reply.message)));
    }
}

#[test]
fn a_handlers_own_calls_inherit_what_is_left_of_time_and_the_trace() {
    let start = |service: ModesServer<_>| service;
    let inner = RpcProvider::builder()
        .service(ModesServer::new(Inner))
        .start("127.0.0.1:0".parse().unwrap())
        .unwrap();
    let to_inner = ModesClient::new(channel_to([inner.local_addr()]));
    let outer = RpcProvider::builder()
        .service(start(ModesServer::new(Outer(to_inner))))
        .start("127.0.0.1:0".parse().unwrap())
        .unwrap();
    let client = ModesClient::new(channel_to([outer.local_addr()]));
    let trace = TraceContext::new_root();
    let options = || CallOptions {
        trace: Some(trace.clone()),
        ..CallOptions::timeout(LONG / 2)
    };
    for call in [
        client.pooled_with(&text("a"), options()),
        client.later_with(&text("a"), options()),
    ] {
        let answer = call.wait().unwrap().message.text;
        let (left_ms, seen) = answer.split_once(' ').unwrap();
        assert!(
            left_ms.parse::<u128>().unwrap() <= (LONG / 2).as_millis(),
            "{left_ms}"
        );
        assert_eq!(seen, hex::encode(trace.trace_id()));
    }
}
