//! Calls found through a real ZooKeeper that fails under them.

use std::sync::atomic::AtomicBool;

use nexus_rpc::registry::{ZooKeeperOptions, ZooKeeperRegistry};
use nexus_testkit::{Relay, ZooKeeper};

use crate::*;

const SESSION_TIMEOUT: Duration = Duration::from_secs(2);

fn open(address: impl Into<String>) -> Arc<dyn Registry> {
    let mut options = ZooKeeperOptions::new([address.into()]);
    options.session_timeout = SESSION_TIMEOUT;
    options.operation_deadline = Duration::from_secs(1);
    options.reread_interval = Duration::from_secs(1);
    Arc::new(ZooKeeperRegistry::open(options).expect("valid options"))
}

#[test]
fn no_call_fails_while_zookeeper_is_killed_and_paused_and_providers_come_and_go() {
    let zookeeper = ZooKeeper::start().expect("ZooKeeper");
    let (of_providers, of_callers) = (open(zookeeper.address()), open(zookeeper.address()));
    let loops = loops();
    let (mut first, first_seen) = provide(&of_providers, &loops, ProviderOptions::default());
    let options = ChannelOptions {
        timeout: LONG,
        ..ChannelOptions::default()
    };
    let channel = RpcChannel::new(Arc::clone(&of_callers), Arc::clone(&loops), options);
    assert!(channel.wait_ready(ModesClient::SERVICE, LONG));
    let ended = AtomicBool::new(false);
    let made = AtomicUsize::new(0);
    let _second = std::thread::scope(|scope| {
        for _ in 0..2 {
            let client = ModesClient::new(channel.clone());
            let (ended, made) = (&ended, &made);
            scope.spawn(move || {
                while !ended.load(Ordering::SeqCst) {
                    client.pooled(&text("a")).wait().unwrap();
                    made.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let calls_go_on = || {
            let before = made.load(Ordering::SeqCst);
            until("calls go on", || made.load(Ordering::SeqCst) > before + 100);
        };
        calls_go_on();

        zookeeper.kill();
        calls_go_on();
        zookeeper.restart().expect("ZooKeeper again");
        until("the provider is registered again", || first.is_registered());

        zookeeper.pause();
        until("the silence is noticed", || {
            !of_callers.state().is_connected() && !of_providers.state().is_connected()
        });
        calls_go_on();
        zookeeper.resume();

        // What the registry says counts again: a provider that comes is found, one that drains is left.
        let (second, second_seen) = provide(&of_providers, &loops, ProviderOptions::default());
        until("the second is found", || second_seen.calls() > 0);
        let report = first.drain(LONG);
        assert_eq!(report.aborted, 0);
        let left_with = first_seen.calls();
        calls_go_on();
        assert_eq!(first_seen.calls(), left_with);
        ended.store(true, Ordering::SeqCst);
        // The last calls are still under way.
        second
    });
}

#[test]
fn no_call_fails_while_both_sides_are_cut_off_from_zookeeper_and_their_sessions_expire() {
    let zookeeper = ZooKeeper::start().expect("ZooKeeper");
    let relay = || Relay::start(zookeeper.address().parse().unwrap()).expect("a relay");
    let (to_providers, to_callers) = (relay(), relay());
    let of_providers = open(to_providers.address().to_string());
    let of_callers = open(to_callers.address().to_string());
    // Who is not cut off sees what becomes of the registrations.
    let watching = open(zookeeper.address());
    let registered = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&registered);
    let tell = move |list: &[Provider]| *told.lock() = list.iter().map(|p| p.address).collect();
    let _watch = watching.watch(ModesClient::SERVICE, Box::new(tell));

    let loops = loops();
    let (first, first_seen) = provide(&of_providers, &loops, ProviderOptions::default());
    let options = ChannelOptions {
        timeout: LONG,
        ..ChannelOptions::default()
    };
    let channel = RpcChannel::new(Arc::clone(&of_callers), Arc::clone(&loops), options);
    assert!(channel.wait_ready(ModesClient::SERVICE, LONG));
    until("it is registered", || {
        *registered.lock() == [first.local_addr()]
    });
    let ended = AtomicBool::new(false);
    let made = AtomicUsize::new(0);
    let _second = std::thread::scope(|scope| {
        let _ended = Ending(|| ended.store(true, Ordering::SeqCst));
        for _ in 0..2 {
            scope.spawn(|| {
                let client = ModesClient::new(channel.clone());
                while !ended.load(Ordering::SeqCst) {
                    client.pooled(&text("a")).wait().unwrap();
                    made.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let calls_go_on = || {
            let before = made.load(Ordering::SeqCst);
            until("calls go on", || made.load(Ordering::SeqCst) > before + 100);
        };
        calls_go_on();

        to_providers.silence();
        to_callers.silence();
        until("the provider's session expires", || {
            registered.lock().is_empty()
        });
        calls_go_on();
        until("both have noticed", || {
            !of_callers.state().is_connected() && !of_providers.state().is_connected()
        });
        assert!(!first.is_registered());
        calls_go_on();

        // The provider registers again by itself; the callers, still cut off, never noticed.
        to_providers.open();
        until("it is registered again", || {
            *registered.lock() == [first.local_addr()]
        });
        until("it knows", || first.is_registered());
        let (second, second_seen) = provide(&of_providers, &loops, ProviderOptions::default());
        until("the second is registered", || registered.lock().len() == 2);
        calls_go_on();
        assert_eq!(second_seen.calls(), 0);

        // What the registry says counts again.
        to_callers.open();
        until("the second is found", || second_seen.calls() > 0);
        let before = first_seen.calls();
        until("both are used", || first_seen.calls() > before);
        // The last calls are still under way.
        second
    });
    assert_eq!(channel.in_flight(ModesClient::SERVICE), 0);
}
