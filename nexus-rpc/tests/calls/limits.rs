//! Deadlines, sizes, and full queues.

use nexus_rpc::wire::Limits;

use crate::*;

#[test]
fn a_call_whose_deadline_passes_in_the_queue_is_not_run() {
    let options = ProviderOptions {
        worker_threads: 1,
        ..Default::default()
    };
    let setting = setting_with(options, ChannelOptions::default());
    setting.seen.shut_gate();
    let first = setting
        .client
        .pooled_with(&text("gate"), CallOptions::timeout(LONG));
    until("the worker is busy", || setting.seen.calls() == 1);
    let soon = CallOptions::timeout(Duration::from_millis(20));
    let second = setting.client.pooled_with(&text("late"), soon);
    // The provider counts the deadline from when it has the request, which is a little later.
    until("it is queued", || setting.provider.in_flight() == 2);
    let queued = Instant::now();
    let second = second.wait();
    until("its deadline is over", || queued.elapsed().as_millis() > 20);
    assert_eq!(code(second), ErrorCode::DEADLINE_EXCEEDED);
    setting.seen.open_gate();
    assert!(first.wait().is_ok());
    until("nothing is in work", || setting.provider.in_flight() == 0);
    assert_eq!(setting.seen.calls(), 1);
    assert_eq!(setting.channel.in_flight(ModesClient::SERVICE), 0);
}

#[test]
fn a_timeout_of_zero_fails_unsent_and_the_longest_is_served() {
    let setting = setting();
    let with = |timeout| {
        setting
            .client
            .inline_with(&text("a"), CallOptions::timeout(timeout))
            .wait()
    };
    assert_eq!(code(with(Duration::ZERO)), ErrorCode::DEADLINE_EXCEEDED);
    assert_eq!(setting.seen.calls(), 0);
    assert!(with(Duration::MAX).is_ok());
    assert!(
        setting
            .channel
            .wait_ready(ModesClient::SERVICE, Duration::MAX)
    );
}

#[test]
fn no_answer_in_time_ends_the_call_and_the_late_answer_is_dropped() {
    let setting = setting();
    let soon = CallOptions::timeout(Duration::from_millis(20));
    let result = setting.client.later_with(&text("keep"), soon).wait();
    assert_eq!(code(result), ErrorCode::DEADLINE_EXCEEDED);
    assert_eq!(setting.channel.in_flight(ModesClient::SERVICE), 0);
    let kept = setting.seen.kept.lock().pop().unwrap();
    kept.complete(Ok(text("late")));
    let next = setting.client.inline(&text("b")).wait().unwrap();
    assert_eq!(next.message, text("b"));
    assert_eq!(setting.provider.in_flight(), 0);
}

#[test]
fn a_full_worker_queue_refuses_clearly() {
    let options = ProviderOptions {
        worker_threads: 1,
        worker_queue_max: 1,
        ..Default::default()
    };
    let setting = setting_with(options, ChannelOptions::default());
    setting.seen.shut_gate();
    let long = || CallOptions::timeout(LONG);
    let first = setting.client.pooled_with(&text("gate"), long());
    until("the worker is busy", || setting.seen.calls() == 1);
    let queued = setting.client.pooled_with(&text("a"), long());
    let refused = setting.client.pooled_with(&text("b"), long()).wait();
    assert_eq!(code(refused), ErrorCode::OVERLOADED);
    setting.seen.open_gate();
    assert!(first.wait().is_ok() && queued.wait().is_ok());
    assert_eq!(setting.provider.in_flight(), 0);
}

#[test]
fn calls_over_the_provider_limit_and_the_channel_limit_are_refused() {
    let provider = ProviderOptions {
        in_flight_max: 1,
        ..Default::default()
    };
    let channel = ChannelOptions {
        in_flight_max: 2,
        ..Default::default()
    };
    let setting = setting_with(provider, channel);
    let long = || CallOptions::timeout(LONG);
    let first = setting.client.later_with(&text("keep"), long());
    until("it is in work", || setting.provider.in_flight() == 1);
    let second = setting.client.later_with(&text("keep"), long()).wait();
    assert_eq!(code(second), ErrorCode::OVERLOADED);

    let kept = setting.seen.kept.lock().pop().unwrap();
    kept.complete(Ok(text("done")));
    assert!(first.wait().is_ok());

    let options = ProviderOptions::default();
    let channel = ChannelOptions {
        in_flight_max: 1,
        ..Default::default()
    };
    let setting = setting_with(options, channel);
    let first = setting.client.later_with(&text("keep"), long());
    let second = setting.client.later_with(&text("a"), long()).wait();
    assert_eq!(code(second), ErrorCode::SEND_QUEUE_FULL);
    until("it arrived", || !setting.seen.kept.lock().is_empty());
    drop(first);
    setting.seen.kept.lock().clear();
    until("it is over", || {
        setting.channel.in_flight(ModesClient::SERVICE) == 0
    });
    assert!(setting.client.inline(&text("b")).wait().is_ok());
}

#[test]
fn frames_up_to_the_limit_pass_and_larger_ones_fail_their_call_only() {
    let limits = Limits {
        body_bytes_max: 256 << 10,
        ..Limits::default()
    };
    let provider = ProviderOptions {
        limits,
        ..Default::default()
    };
    let channel = ChannelOptions {
        limits,
        timeout: LONG,
        ..Default::default()
    };
    let setting = setting_with(provider, channel);
    let attached = |bytes: usize| {
        let attachment = Bytes::from(vec![7; bytes]);
        let options = CallOptions {
            attachment,
            ..Default::default()
        };
        setting.client.pooled_with(&text("a"), options).wait()
    };
    let reply = attached(255 << 10).unwrap();
    assert_eq!(reply.attachment.len(), 255 << 10);
    assert_eq!(code(attached(256 << 10)), ErrorCode::BAD_REQUEST);
    let grown = setting.client.pooled(&text("grow")).wait();
    assert_eq!(code(grown), ErrorCode::BAD_RESPONSE);
    assert!(attached(1).is_ok());
    assert_eq!(setting.provider.in_flight(), 0);
}

#[test]
fn an_error_text_of_a_megabyte_arrives_cut() {
    let setting = setting();
    let error = setting.client.pooled(&text("fail at length")).wait();
    let error = error.unwrap_err();
    assert_eq!(error.code(), ErrorCode::INTERNAL);
    assert_eq!(error.text().len(), 4096);
}
