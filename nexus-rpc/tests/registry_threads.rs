//! A registry's threads end with it. A file of its own: it counts the threads of the whole process.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nexus_rpc::registry::{Provider, Registry, ZooKeeperOptions, ZooKeeperRegistry};
use nexus_testkit::{ZooKeeper, wait_until};

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_dropped_registry_leaves_no_thread_behind() {
    let server = ZooKeeper::start().expect("ZooKeeper");
    let before = thread_count();
    for round in 0..3 {
        let options = ZooKeeperOptions::new([server.address()]);
        let registry = ZooKeeperRegistry::open(options).expect("valid options");
        let provider = Provider::new(SocketAddr::from(([127, 0, 0, 1], 80)));
        let registration = registry.register("test.Service", &[], &provider);
        assert!(registration.wait_registered(Instant::now() + PATIENCE));
        if round == 1 {
            // Also those of the session that is lost here.
            server.kill();
            wait_until("the loss is noticed", PATIENCE, || {
                !registry.state().is_connected()
            });
            server.restart().expect("ZooKeeper again");
            assert!(registration.wait_registered(Instant::now() + PATIENCE));
        }
        drop(registry);
        wait_until("the threads have ended", PATIENCE, || {
            thread_count() == before
        });
    }
}

fn thread_count() -> usize {
    fs::read_dir("/proc/self/task")
        .expect("the threads")
        .count()
}
