//! What every registry that can be registered in does, whichever it is. The in-process registry and the
//! one in ZooKeeper pass the same cases.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nexus_rpc::registry::{
    InProcessRegistry, Provider, Registration, Registry, RegistryState, StaticRegistry, Watch,
    ZooKeeperOptions, ZooKeeperRegistry, open,
};
use nexus_testkit::{ZooKeeper, wait_until};
use parking_lot::Mutex;

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn the_in_process_registry_conforms() {
    let registry = InProcessRegistry::new();
    conforms(&|| Box::new(registry.clone()));
}

#[test]
fn the_zookeeper_registry_conforms() {
    let _ = env_logger::builder().is_test(true).try_init();
    let server = ZooKeeper::start().expect("ZooKeeper");
    let options = ZooKeeperOptions::parse(&format!("{}/conform/ance", server.address()));
    let options = options.expect("valid options");
    conforms(&|| Box::new(ZooKeeperRegistry::open(options.clone()).expect("valid options")));
}

#[test]
fn the_static_registry_has_one_list_for_all() {
    let registry = open("list://127.0.0.2:80,127.0.0.1:80,127.0.0.1:80").expect("a valid url");
    let seen = Seen::default();
    let _watch = seen.watch(&*registry, "any.Service");
    assert_eq!(seen.addresses(), Some(vec![address(1, 80), address(2, 80)]));
    let registration = registry.register("any.Service", &[], &provider(3, 80));
    assert!(registration.wait_registered(Instant::now()));
    assert!(registration.deregister(Instant::now()));
    assert_eq!(seen.count(), 1);
    let names = Names::default();
    let _watch = names.watch(&*registry);
    assert_eq!(names.last(), Some(vec![]));
    assert_eq!(registry.state(), RegistryState::Connected);
}

#[test]
fn a_url_that_is_not_understood_is_an_error() {
    for url in [
        "",
        "zk://a:1",
        "list://",
        "list://nowhere",
        "zookeeper://",
        "zookeeper://a:1/",
    ] {
        assert!(open(url).is_err(), "{url}");
    }
    assert!(StaticRegistry::parse("127.0.0.1:1").is_ok());
}

/// Opens registries that see the same world.
type Open<'a> = &'a dyn Fn() -> Box<dyn Registry>;

fn conforms(open: Open<'_>) {
    a_watch_begins_with_the_present_list(open);
    a_watch_sees_providers_come_and_go(open);
    a_provider_is_told_as_it_was_registered(open);
    a_dropped_watch_is_silent(open);
    a_later_registration_at_the_same_address_replaces_the_earlier(open);
    services_do_not_see_each_other(open);
    many_register_at_once(open);
    a_watch_may_use_the_registry(open);
    a_panicking_watch_harms_nobody(open);
    dropping_the_registry_takes_its_providers_along(open);
    the_services_are_named(open);
    a_dropped_watch_of_names_is_silent(open);
}

fn a_watch_begins_with_the_present_list(open: Open<'_>) {
    let (here, there) = (open(), open());
    let seen = Seen::default();
    let _watch = seen.watch(&*here, "case.Begins");
    seen.wait(&[]);
    let _registration = registered(&*there, "case.Begins", &provider(1, 80));
    let late = Seen::default();
    let _watch_2 = late.watch(&*here, "case.Begins");
    late.wait(&[address(1, 80)]);
    // Also on the thread that already watches, where the list is known.
    let again = Seen::default();
    let _watch_3 = again.watch(&*here, "case.Begins");
    again.wait(&[address(1, 80)]);
    assert_eq!(again.count(), 1);
}

fn a_watch_sees_providers_come_and_go(open: Open<'_>) {
    let (here, there) = (open(), open());
    let seen = Seen::default();
    let _watch = seen.watch(&*here, "case.ComeAndGo");
    let second = registered(&*there, "case.ComeAndGo", &provider(2, 80));
    seen.wait(&[address(2, 80)]);
    let first = registered(&*there, "case.ComeAndGo", &provider(1, 80));
    seen.wait(&[address(1, 80), address(2, 80)]);
    assert!(second.deregister(Instant::now() + PATIENCE));
    seen.wait(&[address(1, 80)]);
    drop(first);
    seen.wait(&[]);
    seen.assert_no_repetition();
}

fn a_provider_is_told_as_it_was_registered(open: Open<'_>) {
    let (here, there) = (open(), open());
    let mut provider = Provider::new("[::1]:8080".parse().expect("an address"));
    provider.weight = 3;
    provider.zone = "east".into();
    provider.version = "1.0".into();
    provider.tags.insert("disk".into(), "ssd".into());
    let _registration = registered(&*there, "case.AsRegistered", &provider);
    let seen = Seen::default();
    let _watch = seen.watch(&*here, "case.AsRegistered");
    seen.wait(&[provider.address]);
    assert_eq!(seen.last(), Some(vec![provider]));
}

fn a_dropped_watch_is_silent(open: Open<'_>) {
    let (here, there) = (open(), open());
    let (ended, going) = (Seen::default(), Seen::default());
    let watch = ended.watch(&*here, "case.Dropped");
    let _watch = going.watch(&*here, "case.Dropped");
    ended.wait(&[]);
    drop(watch);
    let _registration = registered(&*there, "case.Dropped", &provider(1, 80));
    going.wait(&[address(1, 80)]);
    assert_eq!(ended.count(), 1);
}

fn a_later_registration_at_the_same_address_replaces_the_earlier(open: Open<'_>) {
    let here = open();
    let seen = Seen::default();
    let _watch = seen.watch(&*here, "case.Replaced");
    let mut provider = provider(1, 80);
    let earlier = registered(&*here, "case.Replaced", &provider);
    provider.version = "2".into();
    let later = registered(&*here, "case.Replaced", &provider);
    wait_until("the later one is seen", PATIENCE, || {
        seen.last() == Some(vec![provider.clone()])
    });
    assert!(!earlier.is_registered());
    drop(earlier);
    assert!(later.is_registered());
    let other = registered(&*here, "case.Replaced", &self::provider(2, 80));
    seen.wait(&[address(1, 80), address(2, 80)]);
    drop((later, other));
    seen.wait(&[]);
}

fn services_do_not_see_each_other(open: Open<'_>) {
    let here = open();
    let seen = Seen::default();
    let _watch = seen.watch(&*here, "case.One");
    seen.wait(&[]);
    let _other = registered(&*here, "case.Two", &provider(1, 80));
    let _own = registered(&*here, "case.One", &provider(2, 80));
    seen.wait(&[address(2, 80)]);
    assert_eq!(seen.count(), 2);
}

fn many_register_at_once(open: Open<'_>) {
    let (here, there) = (open(), open());
    let seen = Seen::default();
    let _watch = seen.watch(&*here, "case.Many");
    let registrations: Vec<Registration> = (1..=40)
        .map(|port| there.register("case.Many", &[], &provider(1, port)))
        .collect();
    let all: Vec<SocketAddr> = (1..=40).map(|port| address(1, port)).collect();
    seen.wait(&all);
    drop(registrations);
    seen.wait(&[]);
    seen.assert_no_repetition();
}

fn a_watch_may_use_the_registry(open: Open<'_>) {
    let here: Arc<dyn Registry> = open().into();
    let registrations: Arc<Mutex<Vec<Registration>>> = Arc::default();
    let (registry, made) = (Arc::downgrade(&here), Arc::clone(&registrations));
    let watch = here.watch(
        "case.Reentrant",
        Box::new(move |list| {
            let port = list.len() as u16 + 1;
            if let Some(registry) = registry.upgrade().filter(|_| port <= 3) {
                let registration = registry.register("case.Reentrant", &[], &provider(1, port));
                made.lock().push(registration);
            }
        }),
    );
    let seen = Seen::default();
    let _watch = seen.watch(&*here, "case.Reentrant");
    seen.wait(&[address(1, 1), address(1, 2), address(1, 3)]);
    drop(watch);
    registrations.lock().clear();
    seen.wait(&[]);
}

fn a_panicking_watch_harms_nobody(open: Open<'_>) {
    let here = open();
    let _bad = here.watch("case.Panic", Box::new(|_| panic!("as this test wants")));
    let seen = Seen::default();
    let _watch = seen.watch(&*here, "case.Panic");
    let _registration = registered(&*here, "case.Panic", &provider(1, 80));
    seen.wait(&[address(1, 80)]);
}

fn dropping_the_registry_takes_its_providers_along(open: Open<'_>) {
    let (here, there) = (open(), open());
    let seen = Seen::default();
    let _watch = seen.watch(&*here, "case.Along");
    let registration = registered(&*there, "case.Along", &provider(1, 80));
    seen.wait(&[address(1, 80)]);
    // Where registries are one shared thing, the handle is what ends it.
    drop(there);
    drop(registration);
    seen.wait(&[]);
}

fn the_services_are_named(open: Open<'_>) {
    let (here, there) = (open(), open());
    let early = Names::default();
    let _watch = early.watch(&*here);
    let _second = registered(&*there, "case.named.Second", &provider(1, 80));
    early.wait(&["case.named.Second"]);
    let _first = registered(&*there, "case.named.First", &provider(1, 80));
    early.wait(&["case.named.First", "case.named.Second"]);
    // Another provider of a service is no new name.
    let _other = registered(&*there, "case.named.First", &provider(2, 80));
    let late = Names::default();
    let _watch_2 = late.watch(&*here);
    late.wait(&["case.named.First", "case.named.Second"]);
    assert_eq!(late.count(), 1);
    let lists = early.0.lock();
    let sorted = |names: &Vec<String>| names.is_sorted_by(|a, b| a < b);
    assert!(lists.iter().all(sorted), "{lists:?}");
    assert!(lists.windows(2).all(|pair| pair[0] != pair[1]), "{lists:?}");
}

fn a_dropped_watch_of_names_is_silent(open: Open<'_>) {
    let here = open();
    let (ended, going) = (Names::default(), Names::default());
    let watch = ended.watch(&*here);
    let _watch = going.watch(&*here);
    wait_until("the names are told", PATIENCE, || ended.count() == 1);
    drop(watch);
    let _registration = registered(&*here, "case.named.Late", &provider(1, 80));
    wait_until("the new name is told", PATIENCE, || {
        going
            .last()
            .is_some_and(|names| names.iter().any(|name| name == "case.named.Late"))
    });
    assert_eq!(ended.count(), 1);
}

/// The names that a watch of the services was given.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<Vec<Vec<String>>>>);

impl Names {
    fn watch(&self, registry: &dyn Registry) -> Watch {
        let lists = Arc::clone(&self.0);
        registry.watch_services(Box::new(move |names| lists.lock().push(names.to_vec())))
    }

    fn last(&self) -> Option<Vec<String>> {
        self.0.lock().last().cloned()
    }

    fn count(&self) -> usize {
        self.0.lock().len()
    }

    /// Waits for these of the package `case.named`: other cases leave names of theirs behind.
    #[track_caller]
    fn wait(&self, expected: &[&str]) {
        wait_until(&format!("the names are {expected:?}"), PATIENCE, || {
            let mut names = self.last().unwrap_or_default();
            names.retain(|name| name.starts_with("case.named."));
            names == expected
        });
    }
}

/// The lists that a watch was given.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Vec<Provider>>>>);

impl Seen {
    fn watch(&self, registry: &dyn Registry, service: &str) -> Watch {
        let lists = Arc::clone(&self.0);
        registry.watch(
            service,
            Box::new(move |list| lists.lock().push(list.to_vec())),
        )
    }

    fn last(&self) -> Option<Vec<Provider>> {
        self.0.lock().last().cloned()
    }

    fn addresses(&self) -> Option<Vec<SocketAddr>> {
        let list = self.last()?;
        Some(list.iter().map(|provider| provider.address).collect())
    }

    fn count(&self) -> usize {
        self.0.lock().len()
    }

    #[track_caller]
    fn wait(&self, expected: &[SocketAddr]) {
        wait_until(&format!("the list is {expected:?}"), PATIENCE, || {
            self.addresses().as_deref() == Some(expected)
        });
    }

    fn assert_no_repetition(&self) {
        let lists = self.0.lock();
        assert!(lists.windows(2).all(|pair| pair[0] != pair[1]), "{lists:?}");
    }
}

fn registered(registry: &dyn Registry, service: &str, provider: &Provider) -> Registration {
    let registration = registry.register(service, &[], provider);
    assert!(registration.wait_registered(Instant::now() + PATIENCE));
    registration
}

fn address(host: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, host], port))
}

fn provider(host: u8, port: u16) -> Provider {
    Provider::new(address(host, port))
}
