//! Trees that others have prepared, guarded or limited, and nodes that only their owner may change.

use nexus_rpc::registry::ZooKeeperCredentials;
use nexus_testkit::ZooKeeperEnsemble;
use zookeeper::{Permission, ZkError, ZkResult};

use crate::logged::{SECRET, lines_with};
use crate::*;

#[test]
fn a_root_below_a_node_that_may_not_be_changed_is_used() {
    let server = start();
    let admin = raw_client(&server);
    make(&admin, "/shared", &world(Permission::ALL));
    make(&admin, "/shared/nexus", &world(Permission::ALL));
    set_acl(&admin, "/shared", &world(Permission::READ));
    let registry = open_below(&server, "/shared/nexus");
    let registration = registry.register(SERVICE, &[method("Echo")], &provider(80));
    assert!(registration.wait_registered(Instant::now() + PATIENCE));
}

#[test]
fn a_missing_root_is_created_and_seen_by_who_waits_for_it() {
    let server = start();
    let (callers, providers) = (
        open_below(&server, "/deep/down/below"),
        open_below(&server, "/deep/down/below"),
    );
    let seen = Seen::default();
    let _watch = seen.watch(&callers);
    seen.wait(&[], PATIENCE);
    let _registration = register(&providers, 80);
    seen.wait(&[80], PATIENCE);
}

#[test]
fn a_root_that_may_not_be_created_is_said_once_and_used_when_it_is_there() {
    let server = start();
    let admin = raw_client(&server);
    make(&admin, "/locked", &world(Permission::ALL));
    set_acl(
        &admin,
        "/locked",
        &world(Permission::READ | Permission::ADMIN),
    );
    let registry = open_below(&server, "/locked/nexus");
    let registration = registry.register(SERVICE, &[], &provider(80));
    let said = || {
        lines_with(&[
            "create /locked/nexus:",
            "NoAuth",
            "CREATE on /locked;",
            "user:password@",
        ])
    };
    wait_until("it is said what is missing", PATIENCE, || {
        !said().is_empty()
    });
    assert!(!registration.wait_registered(Instant::now() + Duration::from_secs(3)));
    assert_eq!(said().len(), 1);
    set_acl(&admin, "/locked", &world(Permission::ALL));
    assert!(registration.wait_registered(Instant::now() + PATIENCE));
}

/// The administrator lets programs create providers, and nothing else.
#[test]
fn a_prepared_tree_needs_the_permission_to_create_providers_only() {
    let server = start();
    let admin = admin(&server);
    let service = format!("/prepared/services/{SERVICE}");
    let providers = format!("{service}/providers");
    for path in ["/prepared", "/prepared/services", &service] {
        make(&admin, path, &admin_only(Permission::READ));
    }
    let create = Permission::READ | Permission::CREATE;
    make(&admin, &providers, &admin_only(create));
    let relay = Relay::start(server.address());
    let mut behind_relay = options(&relay.address());
    behind_relay.root = "/prepared".into();
    let registry = ZooKeeperRegistry::open(behind_relay).expect("valid options");
    let caller = open_below(&server, "/prepared");
    let seen = Seen::default();
    let _watch = seen.watch(&caller);
    let registration = registry.register(SERVICE, &[method("Echo")], &provider(80));
    assert!(registration.wait_registered(Instant::now() + PATIENCE));
    seen.wait(&[80], PATIENCE);
    wait_until(
        "it is said that methods are not published",
        PATIENCE,
        || {
            let parts = [
                "are not published",
                "/prepared/services/test.Service/methods",
            ];
            !lines_with(&parts).is_empty()
        },
    );
    assert!(registration.is_registered());

    // Its own node of the session before it may not delete, so it waits until that has expired.
    relay.cut();
    wait_until("the loss is noticed", PATIENCE, || {
        !registry.state().is_connected()
    });
    relay.mend();
    assert!(registration.wait_registered(Instant::now() + PATIENCE));
    let raw = raw_client(&server);
    let path = format!("{providers}/127.0.0.1:80");
    let owner = raw
        .exists(&path, false)
        .expect("an answer")
        .expect("the node")
        .ephemeral_owner;
    let looked = Instant::now();
    wait_until("every older session has expired", PATIENCE, || {
        let node = raw.exists(&path, false).expect("an answer");
        assert_eq!(node.map(|node| node.ephemeral_owner), Some(owner));
        looked.elapsed() > SESSION_TIMEOUT * 2
    });

    // Nor may it deregister: that it has gone is not claimed.
    let _staying = register(&registry, 81);
    assert!(!registration.deregister(Instant::now() + Duration::from_millis(500)));
    set_acl(&admin, &providers, &world(Permission::ALL));
    seen.wait(&[81], PATIENCE);
}

#[test]
fn nobody_else_may_change_what_a_client_with_credentials_created() {
    let server = start();
    let registry = open_as(&server.address(), "nexus");
    let registration = registry.register(SERVICE, &[method("Echo")], &provider(80));
    assert!(registration.wait_registered(Instant::now() + PATIENCE));
    let methods = format!("/nexus/services/{SERVICE}/methods/Echo");
    let (nobody, other) = (raw_client(&server), raw_client(&server));
    wait_until("the methods are published", PATIENCE, || {
        let node = nobody.exists(&methods, false);
        node.expect("an answer").is_some()
    });
    other
        .add_auth("digest", format!("nexus:{SECRET}-but-wrong").into_bytes())
        .expect("ZooKeeper takes every password");
    let providers = format!("/nexus/services/{SERVICE}/providers");
    let above = ["/nexus", "/nexus/services", &providers, &methods];
    for raw in [&nobody, &other] {
        for path in above.into_iter().chain([NODE]) {
            let below = format!("{path}/x");
            assert_eq!(
                try_make(raw, &below, &world(Permission::ALL)),
                Err(ZkError::NoAuth),
                "{path}"
            );
            assert_eq!(
                raw.set_data(path, Vec::new(), None).err(),
                Some(ZkError::NoAuth),
                "{path}"
            );
            let opened = raw.set_acl(path, world(Permission::ALL), None);
            assert_eq!(opened.err(), Some(ZkError::NoAuth), "{path}");
            if path != "/nexus" {
                assert_eq!(raw.delete(path, None), Err(ZkError::NoAuth), "{path}");
            }
            // Everybody may read.
            raw.get_data(path, false).expect("its content");
            raw.get_children(path, false).expect("its children");
        }
    }
    let caller = open(&server.address());
    let seen = Seen::default();
    let _watch = seen.watch(&caller);
    seen.wait(&[80], PATIENCE);

    // Whoever has the credentials may, as another process of the same deployment.
    let same = raw_client(&server);
    same.add_auth("digest", format!("nexus:{SECRET}").into_bytes())
        .expect("authenticated");
    let before = same
        .exists(NODE, false)
        .expect("an answer")
        .expect("the node")
        .czxid;
    same.delete(NODE, None).expect("deleted");
    wait_until("the node is there again", PATIENCE, || {
        let node = same.exists(NODE, false).expect("an answer");
        node.is_some_and(|node| node.czxid > before)
    });
    let opened = nobody.set_acl(NODE, world(Permission::ALL), None);
    assert_eq!(opened.err(), Some(ZkError::NoAuth));
    assert_eq!(lines_with(&[SECRET]), Vec::<String>::new());
}

#[test]
fn credentials_are_shown_in_every_session() {
    let server = start();
    let relay = Relay::start(server.address());
    let registry = open_as(&relay.address(), "nexus");
    let caller = open(&server.address());
    let seen = Seen::default();
    let _watch = seen.watch(&caller);
    let registration = register(&registry, 80);
    seen.wait(&[80], PATIENCE);
    relay.cut();
    seen.wait(&[], PATIENCE);
    relay.mend();
    seen.wait(&[80], RECOVERY);
    server.kill();
    server.restart().expect("ZooKeeper again");
    wait_until("it is registered again", PATIENCE, || {
        registration.is_registered()
    });
    let nobody = raw_client(&server);
    wait_until("by the new session", PATIENCE, || {
        nobody.exists(NODE, false).expect("an answer").is_some()
    });
    assert_eq!(nobody.delete(NODE, None), Err(ZkError::NoAuth));
    // A new one can be created, too: not only what was there has been kept.
    let _second = register(&registry, 81);
    seen.wait(&[80, 81], PATIENCE);
}

#[test]
fn a_client_with_another_password_is_told_and_registered_once_it_may() {
    let server = start();
    let (right, wrong) = (
        open_as(&server.address(), "one"),
        open_as(&server.address(), "two"),
    );
    let _right = register(&right, 80);
    let seen = Seen::default();
    // It may read all the same.
    let _watch = seen.watch(&wrong);
    seen.wait(&[80], PATIENCE);
    let registration = wrong.register(SERVICE, &[], &provider(8081));
    wait_until("it is said what is missing", PATIENCE, || {
        let parts = [
            "127.0.0.1:8081 is not registered",
            "CREATE on /nexus/services/test.Service/providers",
            "check user and password",
        ];
        !lines_with(&parts).is_empty()
    });
    assert!(!registration.is_registered());
    let both = raw_client(&server);
    for user in ["one", "two"] {
        both.add_auth("digest", format!("{user}:{SECRET}").into_bytes())
            .expect("authenticated");
    }
    // "auth" stands for both of them.
    let providers = format!("/nexus/services/{SERVICE}/providers");
    set_acl(&both, &providers, &Acl::creator_all().clone());
    assert!(registration.wait_registered(Instant::now() + PATIENCE));
    assert_eq!(lines_with(&[SECRET]), Vec::<String>::new());
}

/// Somebody else's node lies at the provider's own path, and may be neither deleted nor read.
#[test]
fn a_node_that_only_another_user_may_change_is_waited_for() {
    let server = start();
    let admin = admin(&server);
    let providers = format!("/nexus/services/{SERVICE}/providers");
    for path in [
        "/nexus",
        "/nexus/services",
        &format!("/nexus/services/{SERVICE}"),
    ] {
        make(&admin, path, &world(Permission::ALL));
    }
    make(
        &admin,
        &providers,
        &admin_only(Permission::READ | Permission::CREATE),
    );
    let path = format!("{providers}/127.0.0.1:8082");
    let private = Acl::creator_all().clone();
    admin
        .create(&path, Vec::new(), private, CreateMode::Ephemeral)
        .expect("created");
    let registry = open(&server.address());
    let seen = Seen::default();
    let _watch = seen.watch(&registry);
    let registration = registry.register(SERVICE, &[], &provider(8082));
    let other = registry.register(SERVICE, &[], &provider(8083));
    assert!(other.wait_registered(Instant::now() + PATIENCE));
    // What may not be read takes nothing from the others.
    seen.wait(&[8083], PATIENCE);
    wait_until("it is said", PATIENCE, || {
        let parts = ["127.0.0.1:8082 is not registered", "DELETE on", "NoAuth"];
        !lines_with(&parts).is_empty()
    });
    assert!(!registration.is_registered());
    drop(admin);
    assert!(registration.wait_registered(Instant::now() + PATIENCE));
    seen.wait(&[8082, 8083], PATIENCE);
}

#[test]
fn a_list_that_may_not_be_read_is_said_once_and_read_when_it_may() {
    let server = start();
    let admin = admin(&server);
    let providers = register(&open_as(&server.address(), "admin"), 80);
    drop(providers);
    let private = "/private";
    make(&admin, private, &Acl::creator_all().clone());
    make(&admin, "/private/services", &Acl::creator_all().clone());
    make(
        &admin,
        "/private/services/test.Service",
        &Acl::creator_all().clone(),
    );
    let path = "/private/services/test.Service/providers";
    make(&admin, path, &Acl::creator_all().clone());
    let registry = open_below(&server, private);
    let seen = Seen::default();
    let _watch = seen.watch(&registry);
    let said = || lines_with(&["list /private/services/test.Service/providers", "READ on"]);
    wait_until("it is said", PATIENCE, || !said().is_empty());
    set_acl(&admin, path, &world(Permission::ALL));
    let _registration = register(&registry, 80);
    seen.wait(&[80], PATIENCE);
    assert_eq!(said().len(), 1, "{:?}", said());
}

#[test]
fn nodes_that_everybody_may_change_are_told_to_a_client_with_credentials() {
    let server = start();
    let raw = raw_client(&server);
    make(&raw, "/legacy", &world(Permission::ALL));
    make(&raw, "/legacy/services", &world(Permission::ALL));
    let mut options = options_as(&server.address(), "nexus");
    options.root = "/legacy".into();
    let registry = ZooKeeperRegistry::open(options).expect("valid options");
    let _registrations = (register(&registry, 80), register(&registry, 81));
    let said = lines_with(&[
        "everybody may change /legacy, /legacy/services, though",
        "setAcl -R /legacy",
    ]);
    assert_eq!(said.len(), 1, "{said:?}");
}

#[test]
fn a_quota_that_is_exceeded_is_waited_for() {
    let server = start_with(&[("zookeeper.enforceQuota", "true")]);
    let raw = raw_client(&server);
    make(&raw, "/narrow", &world(Permission::ALL));
    make(&raw, "/zookeeper/quota/narrow", &world(Permission::ALL));
    let limits = "/zookeeper/quota/narrow/zookeeper_limits";
    let put = |path: &str, content: &str| {
        let acl = world(Permission::ALL);
        raw.create(
            path,
            content.as_bytes().to_vec(),
            acl,
            CreateMode::Persistent,
        )
        .expect("created");
    };
    put("/zookeeper/quota/narrow/zookeeper_stats", "count=1,bytes=0");
    put(
        limits,
        "count=-1,bytes=-1=;byteHardLimit=-1;countHardLimit=3",
    );
    let registry = open_below(&server, "/narrow");
    let registration = registry.register(SERVICE, &[], &provider(80));
    wait_until("it is said", PATIENCE, || {
        !lines_with(&["create /narrow/", "a quota that is exceeded"]).is_empty()
    });
    assert!(!registration.is_registered());
    raw.delete(limits, None).expect("deleted");
    assert!(registration.wait_registered(Instant::now() + PATIENCE));
}

#[test]
fn a_server_without_digest_authentication_is_named_as_the_reason() {
    let server = start_with(&[("zookeeper.DigestAuthenticationProvider.enabled", "false")]);
    let registry = open_as(&server.address(), "unheard");
    wait_until("it is said", PATIENCE, || {
        !lines_with(&["refuses the credentials of \"unheard\"", "AuthFailed"]).is_empty()
    });
    assert_eq!(registry.state(), RegistryState::Connecting);
}

/// What is left of an ensemble without a quorum may serve readers: nobody can register there.
#[test]
fn a_read_only_server_is_waited_for_and_the_others_are_used() {
    logged::start();
    let readers_too = nexus_testkit::ZooKeeperOptions {
        properties: vec![("readonlymode.enabled", "true")],
        ..Default::default()
    };
    let ensemble = ZooKeeperEnsemble::start_with(3, readers_too).expect("ZooKeeper");
    wait_until("it has a leader", PATIENCE, || ensemble.leader().is_some());
    let registry = open_all(&ensemble);
    let seen = Seen::default();
    let _watch = seen.watch(&registry);
    let registration = register(&registry, 80);
    seen.wait(&[80], PATIENCE);
    ensemble.node(0).kill();
    ensemble.node(1).kill();
    wait_until("the last one is read-only", PATIENCE, || {
        ensemble.node(2).mode().as_deref() == Some("read-only")
    });
    // The log repeats every 30 s why there is no session.
    wait_until("that is said", PATIENCE * 2, || {
        !lines_with(&["read-only, as it has no quorum"]).is_empty()
    });
    assert!(!registration.is_registered());
    assert_eq!(seen.last(), Some(vec![80]));
    ensemble.node(0).respawn().expect("started again");
    assert!(registration.wait_registered(Instant::now() + PATIENCE * 2));
    seen.wait(&[80], PATIENCE);
}

fn open_all(ensemble: &ZooKeeperEnsemble) -> ZooKeeperRegistry {
    let mut options = options("");
    options.servers = ensemble.addresses().split(',').map(str::to_owned).collect();
    ZooKeeperRegistry::open(options).expect("valid options")
}

fn open_below(server: &ZooKeeper, root: &str) -> ZooKeeperRegistry {
    let mut options = options(&server.address());
    options.root = root.to_owned();
    ZooKeeperRegistry::open(options).expect("valid options")
}

fn open_as(address: &str, user: &str) -> ZooKeeperRegistry {
    ZooKeeperRegistry::open(options_as(address, user)).expect("valid options")
}

fn options_as(address: &str, user: &str) -> ZooKeeperOptions {
    let mut options = options(address);
    options.credentials = Some(ZooKeeperCredentials {
        user: user.to_owned(),
        password: SECRET.to_owned(),
    });
    options
}

/// A client that may do everything with what it creates.
fn admin(server: &ZooKeeper) -> RawClient {
    let admin = raw_client(server);
    admin
        .add_auth("digest", format!("admin:{SECRET}").into_bytes())
        .expect("authenticated");
    admin
}

fn world(permissions: Permission) -> Vec<Acl> {
    vec![Acl::new(permissions, "world", "anyone")]
}

/// Everything for the admin, and this for everybody.
fn admin_only(others: Permission) -> Vec<Acl> {
    [Acl::creator_all().clone(), world(others)].concat()
}

fn make(raw: &RawClient, path: &str, acl: &[Acl]) {
    try_make(raw, path, acl).expect("created");
}

fn try_make(raw: &RawClient, path: &str, acl: &[Acl]) -> ZkResult<()> {
    raw.create(path, Vec::new(), acl.to_vec(), CreateMode::Persistent)
        .map(drop)
}

fn set_acl(raw: &RawClient, path: &str, acl: &[Acl]) {
    raw.set_acl(path, acl.to_vec(), None).expect("changed");
}
