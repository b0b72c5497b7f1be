//! The framework inside a program that is not its own: under tokio, in callbacks, ended while calls are out.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use nexus_net::{LoopGroup, on_loop_thread};
use nexus_rpc::registry::{Provider, Registry, StaticRegistry};
use nexus_rpc::{
    CallContext, ChannelOptions, ErrorCode, Responder, RpcChannel, RpcError, RpcProvider,
};
use parking_lot::Mutex;

#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
mod modes {
    include!(concat!(env!("OUT_DIR"), "/nexus.test.rs"));
}
use modes::{Modes, ModesClient, ModesServer, Text};

/// How long a test waits for what has to happen.
const LONG: Duration = Duration::from_secs(20);

/// Answers, and keeps what is called `Later` until it is let go.
#[derive(Default)]
struct Service {
    kept: Arc<Mutex<Vec<Responder<Text>>>>,
}

impl Modes for Service {
    fn pooled(&self, _call: &CallContext, request: Text) -> Result<Text, RpcError> {
        Ok(request)
    }

    fn inline(&self, _call: &CallContext, request: Text) -> Result<Text, RpcError> {
        Ok(request)
    }

    fn later(&self, _call: CallContext, _request: Text, responder: Responder<Text>) {
        self.kept.lock().push(responder);
    }
}

struct Setting {
    loops: Arc<LoopGroup>,
    provider: RpcProvider,
    channel: RpcChannel,
    client: ModesClient,
    kept: Arc<Mutex<Vec<Responder<Text>>>>,
}

fn setting() -> Setting {
    let loops = Arc::new(LoopGroup::start("test", 2).unwrap());
    let service = Service::default();
    let kept = Arc::clone(&service.kept);
    let provider = RpcProvider::builder()
        .service(ModesServer::new(service))
        .loops(Arc::clone(&loops))
        .start(([127, 0, 0, 1], 0).into())
        .unwrap();
    let registry: Arc<dyn Registry> =
        Arc::new(StaticRegistry::new([Provider::new(provider.local_addr())]));
    let options = ChannelOptions {
        timeout: LONG,
        ..ChannelOptions::default()
    };
    let channel = RpcChannel::new(registry, Arc::clone(&loops), options);
    assert!(channel.wait_ready(ModesClient::SERVICE, LONG));
    let client = ModesClient::new(channel.clone());
    Setting {
        loops,
        provider,
        channel,
        client,
        kept,
    }
}

fn text(text: impl Into<String>) -> Text {
    Text { text: text.into() }
}

#[track_caller]
fn until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < LONG, "not in time: {what}");
        std::thread::yield_now();
    }
}

/// Many calls at once, by tasks of their own; each gets its own answer.
async fn call_concurrently(client: &ModesClient) {
    let tasks: Vec<_> = (0..1_000)
        .map(|number| {
            let client = client.clone();
            let request = text(number.to_string());
            tokio::spawn(async move {
                let reply = match number % 2 {
                    0 => client.pooled(&request).await,
                    _ => client.inline(&request).await,
                };
                assert_eq!(reply.unwrap().message, request);
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_on_several_threads_await_their_calls() {
    let setting = setting();
    call_concurrently(&setting.client).await;
    assert_eq!(setting.channel.in_flight(ModesClient::SERVICE), 0);
}

#[tokio::test(flavor = "current_thread")]
async fn tasks_on_one_thread_await_their_calls() {
    let setting = setting();
    call_concurrently(&setting.client).await;
    assert_eq!(setting.channel.in_flight(ModesClient::SERVICE), 0);
}

#[tokio::test]
async fn a_call_that_loses_a_select_is_abandoned_and_the_channel_goes_on() {
    let setting = setting();
    let (kept, client) = (&setting.kept, &setting.client);
    let never = client.later(&text("never answered"));
    tokio::select! {
        biased;
        reply = client.pooled(&text("first")) => assert_eq!(reply.unwrap().message.text, "first"),
        reply = never => panic!("{reply:?}"),
    }
    let slow = client.later(&text("timed out"));
    // Abandoned sooner, it would not even be sent.
    until("both have arrived", || kept.lock().len() == 2);
    let in_time = tokio::time::timeout(Duration::from_millis(1), slow);
    assert!(in_time.await.is_err());
    // Answers that nobody waits for any more.
    for responder in kept.lock().drain(..) {
        responder.complete(Ok(text("too late")));
    }
    let reply = client.inline(&text("after")).await.unwrap();
    assert_eq!(reply.message.text, "after");
    until("nothing is in flight", || {
        setting.channel.in_flight(ModesClient::SERVICE) == 0
    });
}

#[test]
fn waiting_on_a_loop_is_an_error_at_once_and_a_callback_is_served() {
    let setting = setting();
    let (report, reports) = mpsc::channel();
    let client = setting.client.clone();
    let on_loop = setting.loops.handles()[0].clone();
    let posted = on_loop.post(move |_| {
        // The call itself could be made; it is the waiting that would stop the loop.
        let waited = client.pooled(&text("waited for")).wait();
        report.send(waited.unwrap_err().code()).unwrap();
        client.pooled(&text("left")).on_complete(move |reply| {
            assert!(on_loop_thread());
            assert_eq!(reply.unwrap().message.text, "left");
            report.send(ErrorCode::new(7)).unwrap();
        });
    });
    assert!(posted.is_ok());
    assert_eq!(reports.recv_timeout(LONG).unwrap(), ErrorCode::INTERNAL);
    assert_eq!(reports.recv_timeout(LONG).unwrap(), ErrorCode::new(7));
}

#[test]
fn calls_in_flight_outlive_their_channel() {
    let setting = setting();
    let calls: Vec<_> = (0..10).map(|_| setting.client.later(&text("x"))).collect();
    until("all have arrived", || setting.kept.lock().len() == 10);
    drop((setting.client, setting.channel));
    for responder in setting.kept.lock().drain(..) {
        responder.complete(Ok(text("answered")));
    }
    for call in calls {
        assert_eq!(call.wait().unwrap().message.text, "answered");
    }
}

#[test]
fn calls_in_flight_end_when_their_provider_is_dropped() {
    let setting = setting();
    let calls: Vec<_> = (0..10).map(|_| setting.client.later(&text("x"))).collect();
    until("all have arrived", || setting.kept.lock().len() == 10);
    drop(setting.provider);
    for call in calls {
        let code = call.wait().unwrap_err().code();
        assert_eq!(code, ErrorCode::CONNECTION_CLOSED);
    }
    assert_eq!(setting.channel.in_flight(ModesClient::SERVICE), 0);
}
