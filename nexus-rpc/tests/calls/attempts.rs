//! A call and its attempts: retries, backup requests, cancellation, waiting, fallbacks.

use std::sync::atomic::AtomicBool;
use std::sync::mpsc;

use nexus_rpc::wire::RpcMeta;
use nexus_rpc::{Backup, BackupOptions, Connections, Readiness, RetryOptions};

use crate::fakes::{Asked, Fake};
use crate::http::Http;
use crate::*;

fn idempotent() -> CallOptions {
    CallOptions {
        idempotent: Some(true),
        ..CallOptions::timeout(LONG)
    }
}

#[test]
fn a_lost_call_is_repeated_elsewhere_only_if_that_does_no_harm() {
    let losing = Fake::start(|_| Asked::Close);
    let seen = Arc::new(Seen::default());
    let provider = RpcProvider::builder()
        .service(ModesServer::new(Service(Arc::clone(&seen))))
        .start("127.0.0.1:0".parse().unwrap())
        .unwrap();
    let channel = channel_to([losing.address(), provider.local_addr()]);
    let client = ModesClient::new(channel.clone());
    until("both are connected", || ready(&channel) == 2);
    let mut lost = 0;
    for _ in 0..2 {
        if let Err(error) = client
            .inline_with(&text("a"), CallOptions::timeout(LONG))
            .wait()
        {
            assert_eq!(error.code(), ErrorCode::CONNECTION_CLOSED);
            lost += 1;
        }
    }
    assert_eq!((lost, seen.calls()), (1, 1));
    until("both are connected again", || ready(&channel) == 2);
    for _ in 0..2 {
        client.inline_with(&text("a"), idempotent()).wait().unwrap();
    }
    assert_eq!(seen.calls(), 3);
}

#[test]
fn a_provider_killed_under_load_costs_no_call_that_may_be_repeated() {
    let start = || {
        RpcProvider::builder()
            .service(ModesServer::new(Service::default()))
            .start("127.0.0.1:0".parse().unwrap())
            .unwrap()
    };
    let (first, second) = (start(), start());
    let channel = channel_to([first.local_addr(), second.local_addr()]);
    until("both are connected", || ready(&channel) == 2);
    let (made, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let client = ModesClient::new(channel.clone());
            let (made, ended) = (&made, &ended);
            scope.spawn(move || {
                while !ended.load(Ordering::SeqCst) {
                    let calls: Vec<_> = (0..16)
                        .map(|_| client.pooled_with(&text("a"), idempotent()))
                        .collect();
                    for call in calls {
                        call.wait().unwrap();
                    }
                    made.fetch_add(16, Ordering::SeqCst);
                }
            });
        }
        until("calls run", || made.load(Ordering::SeqCst) > 500);
        drop(first);
        let before = made.load(Ordering::SeqCst);
        until("calls go on", || made.load(Ordering::SeqCst) > before + 500);
        ended.store(true, Ordering::SeqCst);
    });
    assert_eq!(second.in_flight(), 0);
    assert_eq!(channel.in_flight(ModesClient::SERVICE), 0);
}

#[test]
fn retries_end_with_the_attempts_and_with_the_budget() {
    let losing = Fake::start(|_| Asked::Answer(ErrorCode::new(110)));
    let options = |attempts_max, budget| ChannelOptions {
        retry: RetryOptions {
            attempts_max,
            budget,
            ..RetryOptions::default()
        },
        ..ChannelOptions::default()
    };
    let budget = nexus_rpc::BudgetOptions {
        share: 0.0,
        per_second: 0.0,
        burst: 3,
    };
    let channel = channel_with([losing.address()], options(3, budget));
    let client = ModesClient::new(channel);
    // Two retries, then one, then none: three in all.
    for requests in [3, 5, 6, 7] {
        let error = client
            .inline_with(&text("a"), idempotent())
            .wait()
            .unwrap_err();
        assert_eq!(error.code(), ErrorCode::new(110));
        assert_eq!(losing.requests(), requests);
    }
}

#[test]
fn a_backup_request_helps_when_the_first_provider_is_silent() {
    let silent = Fake::start(|_| Asked::Nothing);
    let seen = Arc::new(Seen::default());
    let provider = RpcProvider::builder()
        .service(ModesServer::new(Service(Arc::clone(&seen))))
        .start("127.0.0.1:0".parse().unwrap())
        .unwrap();
    let channel = channel_to([silent.address(), provider.local_addr()]);
    until("both are connected", || ready(&channel) == 2);
    let client = ModesClient::new(channel);
    let options = || CallOptions {
        backup: Backup::After(Duration::from_millis(1)),
        ..CallOptions::timeout(LONG)
    };
    for _ in 0..10 {
        client.inline_with(&text("a"), options()).wait().unwrap();
    }
    until("the silent one was asked first", || silent.requests() > 0);
}

#[test]
fn a_second_attempt_takes_no_turn_of_the_calls_after_it() {
    let refusing = Fake::start(|_| Asked::Answer(ErrorCode::OVERLOADED));
    let well = Fake::start(|_| Asked::Echo);
    let channel = channel_to([refusing.address(), well.address()]);
    until("both are connected", || ready(&channel) == 2);
    let client = ModesClient::new(channel);
    for _ in 0..20 {
        client
            .inline_with(&text("a"), CallOptions::timeout(LONG))
            .wait()
            .unwrap();
    }
    // Every second call began there, and not each or none of them.
    assert_eq!((refusing.requests(), well.requests()), (10, 20));
}

#[test]
fn backup_requests_end_with_their_budget_and_are_not_for_methods_that_may_do_harm() {
    let silent = Fake::start(|_| Asked::Nothing);
    let options = ChannelOptions {
        backup: BackupOptions {
            after: Some(nexus_rpc::BackupAfter::Delay(Duration::from_millis(1))),
            budget: nexus_rpc::BudgetOptions {
                share: 0.0,
                per_second: 0.0,
                burst: 2,
            },
        },
        ..ChannelOptions::default()
    };
    let client = ModesClient::new(channel_with([silent.address()], options));
    let calls: Vec<_> = (0..4)
        .map(|n| {
            let options = CallOptions {
                idempotent: Some(n > 0),
                ..CallOptions::timeout(LONG)
            };
            client.inline_with(&text("a"), options)
        })
        .collect();
    // Four calls, and a second request for two of the three that allow it.
    until("all have come", || silent.requests() == 6);
    let mut asked: Vec<usize> = silent.metas().iter().map(number_of_call).collect();
    asked.sort_unstable();
    asked.dedup();
    assert_eq!(asked.len(), 6, "each attempt has an id of its own");
    // A call whose own delay comes later than all of those.
    let last = CallOptions {
        backup: Backup::After(Duration::from_millis(5)),
        ..CallOptions::timeout(LONG)
    };
    let last = client.inline_with(&text("b"), last);
    until("it has come", || silent.requests() >= 7);
    drop((calls, last));
    assert_eq!(silent.requests(), 7);
}

fn number_of_call(meta: &RpcMeta) -> usize {
    usize::try_from(meta.correlation_id()).unwrap()
}

#[test]
fn a_canceled_call_ends_at_once_and_its_answer_is_dropped() {
    let setting = setting();
    let call = setting
        .client
        .later_with(&text("keep"), CallOptions::timeout(LONG));
    until("it is in work", || !setting.seen.kept.lock().is_empty());
    call.cancel();
    assert_eq!(code(call.wait()), ErrorCode::CANCELED);
    let responder = setting.seen.kept.lock().pop().unwrap();
    responder.complete(Ok(text("late")));
    until("the table is empty", || {
        setting.channel.in_flight(ModesClient::SERVICE) == 0
    });
    assert!(setting.client.inline(&text("b")).wait().is_ok());
}

#[test]
fn a_canceled_call_runs_its_callback_once() {
    let setting = setting();
    let call = setting.client.later(&text("keep"));
    until("it is in work", || !setting.seen.kept.lock().is_empty());
    let (sender, receiver) = mpsc::channel();
    call.cancel();
    call.cancel();
    call.on_complete(move |result| sender.send(code(result)).unwrap());
    assert_eq!(receiver.recv().unwrap(), ErrorCode::CANCELED);
    assert!(receiver.recv().is_err(), "called again");
}

#[test]
fn a_call_that_is_to_wait_is_served_by_a_provider_that_comes_later() {
    let registry: Arc<dyn Registry> = Arc::new(InProcessRegistry::new());
    let loops = loops();
    let channel = RpcChannel::new(
        Arc::clone(&registry),
        Arc::clone(&loops),
        ChannelOptions::default(),
    );
    let client = ModesClient::new(channel);
    assert_eq!(code(client.inline(&text("a")).wait()), ErrorCode::HOST_DOWN);
    let calls: Vec<_> = (0..100)
        .map(|_| client.inline_with(&text("a"), CallOptions::timeout(LONG).wait_for_ready()))
        .collect();
    let (_provider, seen) = provide(&registry, &loops, ProviderOptions::default());
    for call in calls {
        call.wait().unwrap();
    }
    assert_eq!(seen.calls(), 100);
}

#[test]
fn a_call_that_waits_for_a_provider_ends_when_its_channel_and_loops_do() {
    let registry: Arc<dyn Registry> = Arc::new(InProcessRegistry::new());
    let channel = RpcChannel::new(registry, loops(), ChannelOptions::default());
    let client = ModesClient::new(channel);
    let waiting = CallOptions::timeout(LONG).wait_for_ready();
    let call = client.inline_with(&text("a"), waiting);
    drop(client);
    assert_eq!(code(call.wait()), ErrorCode::CONNECTION_FAILED);
}

#[test]
fn waiting_calls_are_bounded_in_time_and_number() {
    let registry: Arc<dyn Registry> = Arc::new(InProcessRegistry::new());
    let options = ChannelOptions {
        readiness: Readiness::WaitForReady,
        waiting_max: 2,
        timeout: Duration::from_millis(50),
        ..ChannelOptions::default()
    };
    let client = ModesClient::new(RpcChannel::new(registry, loops(), options));
    for _ in 0..3 {
        let calls: Vec<_> = (0..3).map(|_| client.inline(&text("a"))).collect();
        let codes: Vec<_> = calls.into_iter().map(|call| code(call.wait())).collect();
        let late = ErrorCode::DEADLINE_EXCEEDED;
        assert_eq!(codes, [late, late, ErrorCode::SEND_QUEUE_FULL]);
    }
}

#[test]
fn a_fallback_answers_when_all_fails_and_says_so() {
    let channel = channel_to([]);
    let client = ModesClient::new(channel);
    client.inline_fallback(|request: Text, error| match request.text.as_str() {
        "hopeless" => Err(RpcError::new(ErrorCode::new(77), "not even that")),
        "panic" => panic!("asked to"),
        text => Ok(crate::text(&format!("{text}, although {}", error.code()))),
    });
    let reply = client.inline(&text("a")).wait().unwrap();
    assert_eq!(reply.message, text("a, although EHOSTDOWN (112)"));
    assert_eq!(
        reply.degraded.map(|error| error.code()),
        Some(ErrorCode::HOST_DOWN)
    );
    assert_eq!(
        code(client.inline(&text("hopeless")).wait()),
        ErrorCode::new(77)
    );
    assert_eq!(
        code(client.inline(&text("panic")).wait()),
        ErrorCode::HOST_DOWN
    );
    // Another method has none.
    assert_eq!(code(client.pooled(&text("a")).wait()), ErrorCode::HOST_DOWN);

    let setting = setting();
    setting
        .client
        .inline_fallback(|_: Text, _| Ok(text("fallback")));
    let reply = setting.client.inline(&text("a")).wait().unwrap();
    assert_eq!((reply.message, reply.degraded), (text("a"), None));
}

#[test]
fn several_connections_are_made_and_all_used() {
    let fake = Fake::start(|_| Asked::Echo);
    let options = ChannelOptions {
        connections: Connections::Several(3),
        ..ChannelOptions::default()
    };
    let client = ModesClient::new(channel_with([fake.address()], options));
    until("all connections are used", || {
        let calls: Vec<_> = (0..9).map(|_| client.inline(&text("a"))).collect();
        for call in calls {
            call.wait().unwrap();
        }
        fake.connections_asked() == 3
    });
    assert_eq!(fake.connections(), 3);
}

#[test]
fn a_pooled_connection_carries_one_call_at_a_time() {
    let fake = Fake::start(|nth| match nth {
        0 | 1 => Asked::Nothing,
        _ => Asked::Echo,
    });
    let options = ChannelOptions {
        connections: Connections::Pooled(3),
        ..ChannelOptions::default()
    };
    let client = ModesClient::new(channel_with([fake.address()], options));
    let held: Vec<_> = (0..2)
        .map(|n| {
            let call = client.inline_with(&text("held"), CallOptions::timeout(LONG));
            until("it arrived", || fake.requests() == n + 1);
            call
        })
        .collect();
    // The third connection serves one call after the other.
    for _ in 0..10 {
        client
            .inline_with(&text("a"), CallOptions::timeout(LONG))
            .wait()
            .unwrap();
    }
    assert_eq!(fake.connections(), 3);
    let third = client.inline_with(&text("a"), CallOptions::timeout(LONG));
    let fourth = client
        .inline_with(&text("a"), CallOptions::timeout(LONG))
        .wait();
    // Unless the third has been answered already.
    if let Err(error) = fourth {
        assert_eq!(error.code(), ErrorCode::SEND_QUEUE_FULL);
    }
    third.wait().unwrap();
    drop(held);
}

#[test]
fn pooled_connections_that_no_call_uses_are_closed_and_made_again_when_needed() {
    let options = ChannelOptions {
        connections: Connections::Pooled(4),
        pooled_idle_max: Duration::from_millis(20),
        ..ChannelOptions::default()
    };
    let setting = setting_with(ProviderOptions::default(), options);
    let http = Mutex::new(Http::connect(setting.provider.local_addr()));
    let open = || {
        let status = http.lock().get("/status?format=json").json();
        // The test's own is one of them.
        status["connections"].as_u64().unwrap() - 1
    };
    let keep_four = || {
        let keep = text("keep");
        let call = |_| setting.client.later_with(&keep, CallOptions::timeout(LONG));
        let calls: Vec<_> = (0..4).map(call).collect();
        until("they are in work", || setting.seen.kept.lock().len() == 4);
        calls
    };
    let calls = keep_four();
    assert_eq!(open(), 4);
    let mut kept = std::mem::take(&mut *setting.seen.kept.lock());
    let last = kept.pop().unwrap();
    for responder in kept {
        responder.complete(Ok(text("answered")));
    }
    // The first stays, and that of the call in flight as long as it is.
    until("those without a call are closed", || open() <= 2);
    assert_eq!(setting.channel.in_flight(ModesClient::SERVICE), 1);
    last.complete(Ok(text("answered")));
    assert!(calls.into_iter().all(|call| call.wait().is_ok()));
    until("only the first is left", || open() == 1);

    let calls = keep_four();
    assert_eq!(open(), 4);
    setting.seen.kept.lock().clear();
    assert!(calls.into_iter().all(|call| call.wait().is_err()));
}

#[test]
fn calls_waiting_for_a_dead_address_end_when_the_next_provider_takes_them() {
    let nobody = "127.0.0.1:1".parse().unwrap();
    let seen = Arc::new(Seen::default());
    let provider = RpcProvider::builder()
        .service(ModesServer::new(Service(Arc::clone(&seen))))
        .start("127.0.0.1:0".parse().unwrap())
        .unwrap();
    let client = ModesClient::new(channel_to([nobody, provider.local_addr()]));
    let calls: Vec<_> = (0..100)
        .map(|_| client.inline_with(&text("a"), CallOptions::timeout(LONG)))
        .collect();
    for call in calls {
        call.wait().unwrap();
    }
    assert_eq!(seen.calls(), 100);
}

fn ready(channel: &RpcChannel) -> usize {
    let endpoints = channel.endpoints(ModesClient::SERVICE);
    let ready = nexus_rpc::EndpointState::Ready;
    endpoints
        .iter()
        .filter(|endpoint| endpoint.state == ready)
        .count()
}
