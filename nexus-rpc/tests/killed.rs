//! Provider processes that are killed under load.
//!
//! Each is this very program, started again with other arguments: so it has a main of its own.

use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use nexus_net::LoopGroup;
use nexus_rpc::registry::{Registry, ZooKeeperOptions, ZooKeeperRegistry};
use nexus_rpc::{
    CallContext, CallOptions, ChannelOptions, EndpointState, RpcChannel, RpcError, RpcProvider,
};
use nexus_testkit::{Launch, Process, ZooKeeper, wait_until};

include!(concat!(env!("OUT_DIR"), "/example.rs"));

const PATIENCE: Duration = Duration::from_secs(60);
/// The first argument of a provider; the second is ZooKeeper's address.
const AS_PROVIDER: &str = "--as-provider";
const SERVING: &str = "the provider serves";

const PROVIDERS: usize = 3;
const CALLERS: usize = 4;
/// How many calls a caller has out at a time.
const CALLS: usize = 16;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args.as_slice() {
        [_, first, zookeeper] if first == AS_PROVIDER => provide(zookeeper),
        _ => no_call_that_may_be_repeated_fails_while_one_provider_after_the_other_is_killed(),
    }
}

struct Echo;

impl EchoService for Echo {
    fn echo(&self, _call: &CallContext, request: EchoRequest) -> Result<EchoResponse, RpcError> {
        let message = request.message;
        Ok(EchoResponse { message })
    }
}

/// Serves until it is killed.
fn provide(zookeeper: &str) {
    let provider = RpcProvider::builder()
        .service(EchoServiceServer::new(Echo))
        .registry(registry(zookeeper))
        .start(([127, 0, 0, 1], 0).into())
        .expect("a provider");
    wait_until("it is registered", PATIENCE, || provider.is_registered());
    println!("{SERVING}");
    loop {
        std::thread::park();
    }
}

fn registry(zookeeper: &str) -> Arc<dyn Registry> {
    let mut options = ZooKeeperOptions::new([zookeeper.to_owned()]);
    options.session_timeout = Duration::from_secs(2);
    Arc::new(ZooKeeperRegistry::open(options).expect("valid options"))
}

fn start(zookeeper: &ZooKeeper, folder: &tempfile::TempDir, number: usize) -> Process {
    let name = format!("provider-{number}");
    let process = Process::start(Launch {
        program: std::env::current_exe().expect("its own path"),
        args: [AS_PROVIDER.to_owned(), zookeeper.address()]
            .map(OsString::from)
            .to_vec(),
        log: folder.path().join(format!("{name}.log")),
        ready: Box::new(|output| output.contains(SERVING)),
        name,
    });
    process.expect("a provider")
}

fn no_call_that_may_be_repeated_fails_while_one_provider_after_the_other_is_killed() {
    let zookeeper = ZooKeeper::start().expect("ZooKeeper");
    let folder = tempfile::tempdir().expect("a folder");
    let providers: Vec<_> = (0..PROVIDERS)
        .map(|number| start(&zookeeper, &folder, number))
        .collect();
    let options = ChannelOptions {
        timeout: PATIENCE,
        ..ChannelOptions::default()
    };
    let loops = Arc::new(LoopGroup::start("test", 2).expect("loops"));
    let channel = RpcChannel::new(registry(&zookeeper.address()), loops, options);
    let service = EchoServiceClient::SERVICE;
    let states = || {
        let endpoints = channel.endpoints(service);
        let ready = endpoints.iter().filter(|e| e.state == EndpointState::Ready);
        (endpoints.len(), ready.count())
    };
    let all_are_used = || {
        wait_until("all are connected, and no others", PATIENCE, || {
            states() == (PROVIDERS, PROVIDERS)
        });
    };
    all_are_used();
    let (made, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _ended = Ending(&ended);
        for _ in 0..CALLERS {
            scope.spawn(|| {
                let _ended = Ending(&ended);
                call(&channel, &made, &ended);
            });
        }
        let calls_go_on = || {
            let before = made.load(Ordering::SeqCst);
            wait_until("calls go on", PATIENCE, || {
                assert!(!ended.load(Ordering::SeqCst), "a caller has failed");
                made.load(Ordering::SeqCst) > before + 1000
            });
        };
        calls_go_on();
        for victim in &providers {
            victim.kill();
            calls_go_on();
            // Its session expires, and it leaves the list.
            wait_until("the others are left", PATIENCE, || {
                states().0 == PROVIDERS - 1
            });
            victim.restart().expect("a provider again");
            all_are_used();
            calls_go_on();
        }
        // Two of three at once.
        providers[0].kill();
        providers[1].kill();
        calls_go_on();
    });
    assert_eq!(channel.in_flight(service), 0);
    println!("{} calls, none failed", made.load(Ordering::SeqCst));
}

fn call(channel: &RpcChannel, made: &AtomicUsize, ended: &AtomicBool) {
    let client = EchoServiceClient::new(channel.clone());
    let request = EchoRequest {
        message: "again, if need be".to_owned(),
    };
    while !ended.load(Ordering::SeqCst) {
        let calls: Vec<_> = (0..CALLS)
            .map(|_| {
                let options = CallOptions {
                    idempotent: Some(true),
                    ..CallOptions::default()
                };
                client.echo_with(&request, options)
            })
            .collect();
        for call in calls {
            let reply = call.wait().expect("every call is answered");
            assert_eq!(reply.message.message, request.message);
        }
        made.fetch_add(CALLS, Ordering::SeqCst);
    }
}

/// Ends the callers also when something fails.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
