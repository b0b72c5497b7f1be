//! Every way to serve a call and every way to make one.

use std::sync::mpsc;

use crate::*;

#[test]
fn each_kind_of_handler_answers() {
    let setting = setting();
    assert_eq!(
        setting.client.pooled(&text("a")).wait().unwrap().message,
        text("a")
    );
    assert_eq!(
        setting.client.inline(&text("b")).wait().unwrap().message,
        text("b")
    );
    assert_eq!(
        setting.client.later(&text("c")).wait().unwrap().message,
        text("c")
    );
    assert_eq!(setting.provider.in_flight(), 0);
    assert_eq!(setting.channel.in_flight(ModesClient::SERVICE), 0);
}

#[test]
fn attachment_and_metadata_travel_both_ways() {
    let setting = setting();
    let options = CallOptions {
        attachment: Bytes::from_static(b"raw"),
        ..Default::default()
    };
    let options = options.with_metadata(K, "v".to_owned());
    let reply = setting
        .client
        .pooled_with(&text("a"), options)
        .wait()
        .unwrap();
    assert_eq!(reply.attachment, "raw");
    assert_eq!(reply.metadata.text("k"), Some("v"));
}

#[test]
fn a_callback_runs_on_a_loop_and_may_call_again() {
    let setting = setting();
    let (sender, receiver) = mpsc::channel();
    let client = setting.client.clone();
    setting
        .client
        .inline(&text("first"))
        .on_complete(move |first| {
            client
                .inline(&text(&format!("{} again", first.unwrap().message.text)))
                .on_complete(move |second| sender.send(second.unwrap().message.text).unwrap());
        });
    assert_eq!(
        receiver.recv_timeout(Duration::from_secs(10)).unwrap(),
        "first again"
    );
}

#[test]
fn a_failing_or_panicking_or_forgetful_handler_fails_its_call_only() {
    let setting = setting();
    let code = |result: Result<_, RpcError>| result.map(|_| ()).unwrap_err().code();
    assert_eq!(
        code(setting.client.pooled(&text("fail")).wait()),
        ErrorCode::new(12345)
    );
    assert_eq!(
        code(setting.client.pooled(&text("panic")).wait()),
        ErrorCode::INTERNAL
    );
    assert_eq!(
        code(setting.client.later(&text("drop")).wait()),
        ErrorCode::INTERNAL
    );
    assert_eq!(
        setting.client.pooled(&text("a")).wait().unwrap().message,
        text("a")
    );
}

#[test]
fn waiting_on_a_loop_thread_is_an_error_and_no_deadlock() {
    let setting = setting();
    let (sender, receiver) = mpsc::channel();
    let client = setting.client.clone();
    setting.client.later(&text("keep")).on_complete(move |_| {
        sender.send(client.inline(&text("b")).wait()).unwrap();
    });
    // Answered only now, so that the callback is there first and runs on the loop.
    until("it is in work", || !setting.seen.kept.lock().is_empty());
    let responder = setting.seen.kept.lock().pop().unwrap();
    responder.complete(Ok(text("a")));
    let result = receiver.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(result.unwrap_err().code(), ErrorCode::INTERNAL);
}

#[test]
fn many_calls_share_one_connection() {
    let setting = setting();
    let calls: Vec<_> = (0..10_000)
        .map(|i| (i, setting.client.inline(&text(&i.to_string()))))
        .collect();
    for (i, call) in calls {
        assert_eq!(call.wait().unwrap().message.text, i.to_string());
    }
}

#[test]
fn a_call_without_provider_fails_at_once() {
    let loops = Arc::new(LoopGroup::start("test", 1).unwrap());
    let registry = Arc::new(InProcessRegistry::new());
    let channel = RpcChannel::new(registry, loops, ChannelOptions::default());
    let error = ModesClient::new(channel)
        .pooled(&text("a"))
        .wait()
        .unwrap_err();
    assert_eq!(error.code(), ErrorCode::HOST_DOWN);
}

#[test]
fn draining_finishes_what_is_in_work_and_the_provider_is_gone_then() {
    let mut setting = setting();
    let call = setting.client.later(&text("a"));
    let report = setting.provider.drain(Duration::from_secs(10));
    assert_eq!(report.aborted, 0);
    assert_eq!(call.wait().unwrap().message, text("a"));
    let error = setting.client.pooled(&text("a")).wait().unwrap_err();
    assert!(error.code().is_retryable(), "{error}");
    assert!(!setting.channel.is_ready(ModesClient::SERVICE));
}
