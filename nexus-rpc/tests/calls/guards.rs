//! What stands before a handler: interceptors, limits, the deadline; and what its calls inherit.

use std::time::Instant;

use nexus_rpc::{
    AdaptiveLimit, ConcurrencyLimit, Metadata, ProviderError, ServerInterceptor, ServerOutcome,
    TraceContext,
};

use crate::*;

/// What the inner interceptor is to do.
const INNER: MetadataKey<String> = MetadataKey::new("inner");

/// What interceptors and handlers did, in its order.
type Journal = Arc<Mutex<Vec<String>>>;

struct Noting {
    name: &'static str,
    journal: Journal,
}

impl ServerInterceptor for Noting {
    fn before(&self, call: &CallContext) -> Result<(), RpcError> {
        let name = self.name;
        self.journal.lock().push(format!("{name} before"));
        match call.metadata().text(name) {
            Some("refuse") => Err(RpcError::new(ErrorCode::new(77), "refused")),
            Some("panic before") => panic!("asked to"),
            _ => Ok(()),
        }
    }

    fn after(&self, call: &CallContext, outcome: &ServerOutcome<'_>) {
        let code = outcome.error.map_or(0, |error| error.code().number());
        self.journal
            .lock()
            .push(format!("{} after {code}", self.name));
        assert!(outcome.response_bytes > 12 && outcome.latency < LONG);
        let asked = call.metadata().text(self.name);
        assert_ne!(asked, Some("panic after"), "asked to");
    }
}

/// A provider with two interceptors, a client of it, and what they note.
fn intercepted() -> (RpcProvider, ModesClient, Journal) {
    let journal = Journal::default();
    let noting = |name| Noting {
        name,
        journal: Arc::clone(&journal),
    };
    let provider = RpcProvider::builder()
        .service(ModesServer::new(Service::default()))
        .interceptor(noting("outer"))
        .interceptor(noting("inner"))
        .start("127.0.0.1:0".parse().unwrap())
        .unwrap();
    let client = ModesClient::new(channel_to([provider.local_addr()]));
    (provider, client, journal)
}

/// Makes the call in each of the three ways of running.
fn in_each_way(client: &ModesClient, message: &str, options: &CallOptions) -> Vec<i32> {
    let calls = [
        client.pooled_with(&text(message), options.clone()),
        client.inline_with(&text(message), options.clone()),
        client.later_with(&text(message), options.clone()),
    ];
    let code = |call: nexus_rpc::Call<Text>| match call.wait() {
        Ok(_) => 0,
        Err(error) => error.code().number(),
    };
    calls.into_iter().map(code).collect()
}

#[test]
fn interceptors_stand_around_every_kind_of_handler_in_order() {
    let (_provider, client, journal) = intercepted();
    for call in [
        client.pooled(&text("a")),
        client.inline(&text("a")),
        client.later(&text("a")),
    ] {
        call.wait().unwrap();
    }
    // Three calls at once: the order holds within each.
    let journal = journal.lock().clone();
    let places = |what: &str| -> Vec<usize> {
        let found = (0..).zip(&journal).filter(|(_, said)| *said == what);
        found.map(|(place, _)| place).collect()
    };
    let columns = [
        "outer before",
        "inner before",
        "inner after 0",
        "outer after 0",
    ]
    .map(places);
    for (call, &first) in columns[0].iter().enumerate() {
        let row: Vec<usize> = columns.iter().map(|column| column[call]).collect();
        assert!(row.is_sorted() && row[0] == first, "{journal:?}");
    }
    assert_eq!((columns[0].len(), journal.len()), (3, 12), "{journal:?}");
}

#[test]
fn a_refusal_spares_the_handler_and_what_stands_inside() {
    let (provider, client, journal) = intercepted();
    let options = CallOptions::timeout(LONG).with_metadata(INNER, "refuse".to_owned());
    assert_eq!(in_each_way(&client, "a", &options), [77; 3]);
    let journal = journal.lock().clone();
    let count = |what: &str| journal.iter().filter(|said| *said == what).count();
    assert_eq!(count("inner before"), 3);
    assert_eq!(count("outer after 77"), 3);
    assert_eq!(count("inner after 77"), 0);
    until("nothing is in work", || provider.in_flight() == 0);
}

#[test]
fn an_interceptor_that_panics_before_fails_its_call_and_after_changes_nothing() {
    let (provider, client, _journal) = intercepted();
    let before = CallOptions::timeout(LONG).with_metadata(INNER, "panic before".to_owned());
    let internal = ErrorCode::INTERNAL.number();
    assert_eq!(in_each_way(&client, "a", &before), [internal; 3]);
    let after = CallOptions::timeout(LONG).with_metadata(INNER, "panic after".to_owned());
    assert_eq!(in_each_way(&client, "a", &after), [0; 3]);
    // Also while the panic of a handler is on its way.
    assert_eq!(in_each_way(&client, "panic", &after), [internal; 3]);
    assert_eq!(
        in_each_way(&client, "a", &CallOptions::timeout(LONG)),
        [0; 3]
    );
    assert_eq!(provider.in_flight(), 0);
}

#[test]
fn a_method_at_its_limit_refuses_while_the_others_go_on() {
    let seen = Arc::new(Seen::default());
    let provider = RpcProvider::builder()
        .service(ModesServer::new(Service(Arc::clone(&seen))))
        .limit("nexus.test.Modes.Later", ConcurrencyLimit::Constant(1))
        .start("127.0.0.1:0".parse().unwrap())
        .unwrap();
    let client = ModesClient::new(channel_to([provider.local_addr()]));
    let first = client.later_with(&text("keep"), CallOptions::timeout(LONG));
    until("it is in work", || !seen.kept.lock().is_empty());
    let second = client.later(&text("a")).wait().unwrap_err();
    assert_eq!(second.code(), ErrorCode::OVERLOADED);
    assert!(client.inline(&text("a")).wait().is_ok());
    seen.kept.lock().pop().unwrap().complete(Ok(text("kept")));
    assert!(first.wait().is_ok());
    assert!(client.later(&text("a")).wait().is_ok());
}

#[test]
fn under_an_adaptive_limit_calls_beyond_it_are_refused_and_the_rest_served() {
    let adaptive = AdaptiveLimit {
        initial: 4,
        max: 4,
        ..Default::default()
    };
    let options = ProviderOptions {
        concurrency: ConcurrencyLimit::Adaptive(adaptive),
        ..Default::default()
    };
    let setting = setting_with(options, ChannelOptions::default());
    let keep = || {
        let options = CallOptions::timeout(LONG);
        setting.client.later_with(&text("keep"), options)
    };
    let kept: Vec<_> = (0..4).map(|_| keep()).collect();
    until("four are in work", || setting.seen.kept.lock().len() == 4);
    let over = setting.client.inline(&text("a")).wait().unwrap_err();
    assert_eq!(over.code(), ErrorCode::OVERLOADED);
    for responder in setting.seen.kept.lock().drain(..) {
        responder.complete(Ok(text("kept")));
    }
    assert!(kept.into_iter().all(|call| call.wait().is_ok()));
    assert!(setting.client.inline(&text("a")).wait().is_ok());
}

#[test]
fn a_limit_for_a_method_that_is_not_there_is_an_error() {
    let started = RpcProvider::builder()
        .service(ModesServer::new(Service::default()))
        .limit("nexus.test.Modes.Latter", ConcurrencyLimit::Constant(1))
        .start("127.0.0.1:0".parse().unwrap());
    assert!(
        matches!(&started, Err(ProviderError::UnknownMethod(name)) if name.ends_with("Latter")),
        "{started:?}"
    );
}

/// Opens the gate also when a test fails, so that its provider can end.
struct OpenGate(Arc<Seen>);

impl Drop for OpenGate {
    fn drop(&mut self) {
        self.0.open_gate();
    }
}

#[test]
fn nothing_that_waited_beyond_its_deadline_is_run_and_all_else_is() {
    let options = ProviderOptions {
        worker_threads: 2,
        ..Default::default()
    };
    let setting = setting_with(options, ChannelOptions::default());
    setting.seen.shut_gate();
    let _opened_at_last = OpenGate(Arc::clone(&setting.seen));
    let long = || CallOptions::timeout(LONG);
    let gates = [0; 2].map(|_| setting.client.pooled_with(&text("gate"), long()));
    until("the workers are busy", || setting.seen.calls() == 2);
    let calls: Vec<_> = (0..60)
        .map(|i| match i % 3 {
            0 => setting.client.pooled_with(&text("a"), long()),
            _ => {
                let soon = CallOptions::timeout(Duration::from_millis(50 + i));
                setting.client.pooled_with(&text("late"), soon)
            }
        })
        .collect();
    // Behind them on the same connection: its answer shows that all have arrived. (On a busy machine
    // some are too late to be sent at all.)
    assert!(setting.client.inline(&text("last")).wait().is_ok());
    let queued = Instant::now();
    until("the deadlines are over", || {
        queued.elapsed().as_millis() > 200
    });
    setting.seen.open_gate();
    let (mut served, mut late) = (0, 0);
    for call in calls {
        match call.wait() {
            Ok(_) => served += 1,
            Err(error) => {
                assert_eq!(error.code(), ErrorCode::DEADLINE_EXCEEDED);
                late += 1;
            }
        }
    }
    assert!(gates.into_iter().all(|gate| gate.wait().is_ok()));
    until("nothing is in work", || setting.provider.in_flight() == 0);
    assert_eq!((served, late, setting.seen.calls()), (20, 40, 23));
}

/// Adds to the answers' metadata, and keeps what goes out.
struct Adding(Arc<Mutex<Vec<Metadata>>>);

const ADDED: MetadataKey<u32> = MetadataKey::new("added");

impl ServerInterceptor for Adding {
    fn before(&self, call: &CallContext) -> Result<(), RpcError> {
        call.set_response_metadata(ADDED, 7);
        Ok(())
    }

    fn after(&self, _call: &CallContext, outcome: &ServerOutcome<'_>) {
        self.0.lock().push(outcome.metadata.clone());
    }
}

#[test]
fn interceptors_add_to_the_answer_s_metadata_and_see_all_of_it() {
    let seen = Arc::default();
    let provider = RpcProvider::builder()
        .service(ModesServer::new(Service::default()))
        .interceptor(Adding(Arc::clone(&seen)))
        .start("127.0.0.1:0".parse().unwrap())
        .unwrap();
    let client = ModesClient::new(channel_to([provider.local_addr()]));
    let options = || CallOptions::timeout(LONG).with_metadata(K, "v".to_owned());
    let reply = client.pooled_with(&text("a"), options()).wait().unwrap();
    assert_eq!(reply.metadata.require(ADDED), Ok(7));
    assert_eq!(reply.metadata.text("k"), Some("v"));
    assert!(client.pooled_with(&text("fail"), options()).wait().is_err());
    assert_eq!(*seen.lock(), [reply.metadata, Metadata::default()]);
}

struct Tracing(Arc<Mutex<Vec<Option<TraceContext>>>>);

impl ServerInterceptor for Tracing {
    fn before(&self, call: &CallContext) -> Result<(), RpcError> {
        self.0.lock().push(call.trace().cloned());
        Ok(())
    }
}

#[test]
fn a_call_s_trace_is_seen_and_a_malformed_one_is_none() {
    let traces = Arc::default();
    let provider = RpcProvider::builder()
        .service(ModesServer::new(Service::default()))
        .interceptor(Tracing(Arc::clone(&traces)))
        .start("127.0.0.1:0".parse().unwrap())
        .unwrap();
    let client = ModesClient::new(channel_to([provider.local_addr()]));
    let root = TraceContext::new_root().with_state("vendor=1");
    let mut traced = CallOptions::default();
    root.write_to(&mut traced.metadata);
    let mut malformed = CallOptions::default();
    malformed.metadata.set_text("traceparent", "00-zz");
    for options in [traced, malformed] {
        client.inline_with(&text("a"), options).wait().unwrap();
    }
    let traces = traces.lock();
    let traced = traces[0].as_ref().unwrap();
    assert_eq!(traced.trace_id(), root.trace_id());
    assert_eq!(traced.state(), Some("vendor=1"));
    assert_eq!(traces[1], None);
}
