//! What goes wrong costs no more than it must, and every call ends once.

use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;

use crate::*;

#[test]
fn a_panic_on_the_loop_costs_its_call_and_not_the_connection() {
    let setting = setting();
    let kept = setting
        .client
        .later_with(&text("keep"), CallOptions::timeout(LONG));
    for call in [
        setting.client.inline(&text("panic")),
        setting.client.later(&text("panic")),
    ] {
        assert_eq!(call.wait().unwrap_err().code(), ErrorCode::INTERNAL);
    }
    let responder = setting.seen.kept.lock().pop().unwrap();
    responder.complete(Ok(text("kept")));
    assert_eq!(kept.wait().unwrap().message, text("kept"));
    assert_eq!(setting.provider.in_flight(), 0);
}

#[test]
fn a_panicking_callback_costs_no_other_call() {
    let setting = setting();
    setting
        .client
        .later(&text("keep"))
        .on_complete(|_| panic!("asked to"));
    until("it is in work", || !setting.seen.kept.lock().is_empty());
    let responder = setting.seen.kept.lock().pop().unwrap();
    responder.complete(Ok(text("a")));
    let other = setting.client.later(&text("b")).wait().unwrap();
    assert_eq!(other.message, text("b"));
    until("all is over", || {
        setting.channel.in_flight(ModesClient::SERVICE) == 0
    });
}

#[test]
fn a_killed_provider_ends_all_its_calls_once_and_retryably() {
    let setting = setting();
    let (sender, receiver) = mpsc::channel();
    for i in 0..1000 {
        let sender = sender.clone();
        setting
            .client
            .later_with(&text("keep"), CallOptions::timeout(LONG))
            .on_complete(move |result| sender.send((i, result)).unwrap());
    }
    drop(sender);
    until("all are in work", || setting.provider.in_flight() == 1000);
    // Cuts the connections off; the responders are still out.
    drop(setting.provider);
    let mut ended: Vec<i32> = Vec::new();
    for (i, result) in receiver.iter() {
        assert!(result.unwrap_err().code().is_retryable());
        ended.push(i);
    }
    ended.sort_unstable();
    assert_eq!(ended, (0..1000).collect::<Vec<_>>());
    // They answer to nobody.
    for responder in setting.seen.kept.lock().drain(..) {
        responder.complete(Ok(text("late")));
    }
    assert_eq!(setting.channel.in_flight(ModesClient::SERVICE), 0);
}

#[test]
fn a_dropped_provider_waits_for_its_handlers_and_not_on_a_loop() {
    let mut setting = setting();
    setting.seen.shut_gate();
    let call = setting
        .client
        .pooled_with(&text("gate"), CallOptions::timeout(LONG));
    until("it runs", || setting.seen.calls() == 1);
    let provider = setting.provider;
    let loops = loops();
    let (sender, receiver) = mpsc::channel();
    loops
        .next()
        .post(move |_| {
            drop(provider);
            sender.send(()).unwrap();
        })
        .unwrap();
    receiver.recv_timeout(LONG).unwrap();
    assert!(call.wait().is_err());
    setting.seen.open_gate();
    setting.client = ModesClient::new(setting.channel.clone());
}

#[test]
fn a_channel_dropped_in_its_callback_lets_other_calls_finish() {
    let setting = setting();
    let kept = setting
        .client
        .later_with(&text("keep"), CallOptions::timeout(LONG));
    until("it is in work", || !setting.seen.kept.lock().is_empty());
    let (client, channel) = (setting.client.clone(), setting.channel);
    let first = setting.client.inline(&text("a"));
    drop(setting.client);
    let (sender, receiver) = mpsc::channel();
    first.on_complete(move |_| {
        drop((client, channel));
        sender.send(()).unwrap();
    });
    receiver.recv_timeout(LONG).unwrap();
    let responder = setting.seen.kept.lock().pop().unwrap();
    responder.complete(Ok(text("kept")));
    assert_eq!(kept.wait().unwrap().message, text("kept"));
}

#[test]
fn calls_waiting_for_a_connection_that_fails_end_once() {
    // Bound and dropped: nobody listens there.
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let client = ModesClient::new(channel_to([address]));
    let calls: Vec<_> = (0..100).map(|_| client.inline(&text("a"))).collect();
    for call in calls {
        let error = call.wait().unwrap_err();
        assert!(error.code().is_retryable(), "{error}");
    }
}

#[test]
fn a_call_ends_at_its_deadline_when_the_peer_never_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = ModesClient::new(channel_to([listener.local_addr().unwrap()]));
    let soon = CallOptions::timeout(Duration::from_millis(50));
    let error = client.inline_with(&text("a"), soon).wait().unwrap_err();
    assert_eq!(error.code(), ErrorCode::DEADLINE_EXCEEDED);
}

#[test]
fn a_peer_that_resets_ends_calls_and_the_next_connection_serves() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let channel = channel_to([address]);
    let client = ModesClient::new(channel.clone());
    let call = client.inline_with(&text("a"), CallOptions::timeout(LONG));
    let (peer, _) = listener.accept().unwrap();
    // Closed with the request unread: a reset.
    until("the request is there", || readable(&peer));
    drop((peer, listener));
    let error = call.wait().unwrap_err();
    assert_eq!(error.code(), ErrorCode::CONNECTION_CLOSED);
    let provider = RpcProvider::builder()
        .service(ModesServer::new(Service::default()))
        .start(address)
        .unwrap();
    assert!(channel.wait_ready(ModesClient::SERVICE, LONG));
    assert!(client.inline(&text("b")).wait().is_ok());
    assert_eq!(provider.in_flight(), 0);
}

fn readable(stream: &TcpStream) -> bool {
    stream.peek(&mut [0]).is_ok_and(|count| count > 0)
}

#[test]
fn calls_after_the_loops_ended_fail_at_once() {
    let loops = loops();
    let registry = StaticRegistry::new([Provider::new("127.0.0.1:1".parse().unwrap())]);
    for handle in loops.handles() {
        handle.stop();
    }
    let client = ModesClient::new(RpcChannel::new(
        Arc::new(registry),
        Arc::clone(&loops),
        ChannelOptions::default(),
    ));
    let (sender, receiver) = mpsc::channel();
    client
        .inline_with(&text("a"), CallOptions::timeout(LONG))
        .on_complete(move |result| sender.send(result.is_err()).unwrap());
    assert!(receiver.recv_timeout(LONG / 2).unwrap());
}
