//! Calls found through a real ZooKeeper that fails under them.

use std::sync::atomic::AtomicBool;

use nexus_rpc::registry::{ZooKeeperOptions, ZooKeeperRegistry};
use nexus_testkit::ZooKeeper;

use crate::*;

const SESSION_TIMEOUT: Duration = Duration::from_secs(2);

#[test]
fn no_call_fails_while_zookeeper_is_killed_and_paused_and_providers_come_and_go() {
    let zookeeper = ZooKeeper::start().expect("ZooKeeper");
    let open = || -> Arc<dyn Registry> {
        let mut options = ZooKeeperOptions::new([zookeeper.address()]);
        options.session_timeout = SESSION_TIMEOUT;
        options.operation_deadline = Duration::from_secs(1);
        options.reread_interval = Duration::from_secs(1);
        Arc::new(ZooKeeperRegistry::open(options).expect("valid options"))
    };
    let (of_providers, of_callers) = (open(), open());
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
