//! Many callers, in each of the three ways to call.

use std::pin::pin;
use std::sync::mpsc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use crate::*;

#[test]
fn a_thousand_threads_each_get_their_own_answer() {
    let setting = setting_with(ProviderOptions::default(), patient());
    std::thread::scope(|scope| {
        for i in 0..1000 {
            let client = setting.client.clone();
            let body = move || {
                let request = text(&i.to_string());
                let call = match i % 3 {
                    0 => client.pooled(&request),
                    1 => client.inline(&request),
                    _ => client.later(&request),
                };
                assert_eq!(call.wait().unwrap().message, request);
            };
            let builder = std::thread::Builder::new().stack_size(256 << 10);
            builder.spawn_scoped(scope, body).unwrap();
        }
    });
    assert_eq!(setting.provider.in_flight(), 0);
    assert_eq!(setting.channel.in_flight(ModesClient::SERVICE), 0);
}

#[test]
fn a_thousand_callbacks_each_run_once() {
    let setting = setting_with(ProviderOptions::default(), patient());
    let (sender, receiver) = mpsc::channel();
    for i in 0..1000 {
        let sender = sender.clone();
        setting
            .client
            .pooled(&text(&i.to_string()))
            .on_complete(move |result| {
                assert_eq!(result.unwrap().message.text, i.to_string());
                sender.send(i).unwrap();
            });
    }
    drop(sender);
    let mut ran: Vec<i32> = receiver.iter().collect();
    ran.sort_unstable();
    assert_eq!(ran, (0..1000).collect::<Vec<_>>());
}

#[test]
fn many_large_calls_on_one_connection_do_not_stop_each_other() {
    // Both ends have more to write than the other's buffers take, and more than lets a provider
    // go on reading: only the caller, by reading on, can bring things forward.
    let setting = setting_with(ProviderOptions::default(), patient());
    let request = text(&"x".repeat(64 << 10));
    let calls: Vec<_> = (0..256).map(|_| setting.client.inline(&request)).collect();
    for call in calls {
        assert_eq!(call.wait().unwrap().message, request);
    }
}

#[test]
fn calls_are_awaited_under_a_foreign_executor() {
    let setting = setting();
    let sum = pollster::block_on(async {
        let (first, second) = (
            setting.client.inline(&text("1")),
            setting.client.later(&text("2")),
        );
        let second = second.await.unwrap().message.text;
        first.await.unwrap().message.text + &second
    });
    assert_eq!(sum, "12");
}

#[test]
fn calls_are_awaited_under_an_executor_of_ten_lines() {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    fn run<T>(future: impl Future<Output = T>) -> T {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut future = pin!(future);
        loop {
            match future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(output) => return output,
                Poll::Pending => std::thread::park(),
            }
        }
    }
    let setting = setting();
    let error = run(setting.client.pooled(&text("fail"))).unwrap_err();
    assert_eq!(error.code(), ErrorCode::new(12345));
    assert_eq!(
        run(setting.client.later(&text("a"))).unwrap().message,
        text("a")
    );
}

fn patient() -> ChannelOptions {
    ChannelOptions {
        timeout: LONG,
        ..Default::default()
    }
}
