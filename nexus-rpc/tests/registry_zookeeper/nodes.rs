//! Where nodes lie, what they hold, and that they come back.

use crate::*;

#[test]
fn nodes_lie_where_they_should_and_hold_what_they_should() {
    let server = start();
    let registry = open(&server.address());
    let methods = [method("Echo"), method("Ping")];
    let registration = registry.register(SERVICE, &methods, &provider(80));
    assert!(registration.wait_registered(Instant::now() + PATIENCE));
    let raw = raw_client(&server);
    let stat = raw
        .exists(NODE, false)
        .expect("an answer")
        .expect("the provider's node");
    assert_ne!(stat.ephemeral_owner, 0);
    // ip = 1, port = 2, keep_alive = 3, weight = 4.
    let (content, _) = raw.get_data(NODE, false).expect("its content");
    assert_eq!(content, b"\x0a\x09127.0.0.1\x10\x50\x18\x01\x20\x01");
    let path = "/nexus/services/test.Service/methods";
    wait_until("the methods are published", PATIENCE, || {
        let mut names = raw.get_children(path, false).unwrap_or_default();
        names.sort();
        names == ["Echo", "Ping"]
    });
    let (content, stat) = raw
        .get_data(&format!("{path}/Echo"), false)
        .expect("a method");
    assert_eq!(content, b"\x0a\x08t.EchoIn\x12\x09t.EchoOut");
    assert_eq!(stat.ephemeral_owner, 0);
}

#[test]
fn nodes_with_garbage_are_skipped() {
    let server = start();
    let registry = open(&server.address());
    let registration = register(&registry, 80);
    let raw = raw_client(&server);
    for (name, content) in [
        ("a", &b"\xff\xff"[..]),
        ("b", b""),
        ("c:1", b"{\"json\":true}"),
    ] {
        let path = format!("/nexus/services/{SERVICE}/providers/{name}");
        let acl = Acl::open_unsafe().clone();
        raw.create(&path, content.to_vec(), acl, CreateMode::Persistent)
            .expect("created");
    }
    let seen = Seen::default();
    let _watch = seen.watch(&registry);
    seen.wait(&[80], PATIENCE);
    drop(registration);
    seen.wait(&[], PATIENCE);
}

#[test]
fn a_node_deleted_by_somebody_is_created_again() {
    let server = start();
    let mut options = options(&server.address());
    // So that only the watch can notice.
    options.reread_interval = Duration::from_secs(3600);
    let registry = ZooKeeperRegistry::open(options).expect("valid options");
    let _registration = register(&registry, 80);
    let raw = raw_client(&server);
    for _ in 0..3 {
        let before = raw
            .exists(NODE, false)
            .expect("an answer")
            .expect("the node")
            .czxid;
        raw.delete(NODE, None).expect("deleted");
        wait_until("the node is there again", PATIENCE, || {
            let stat = raw.exists(NODE, false).expect("an answer");
            stat.is_some_and(|stat| stat.czxid > before)
        });
    }
}

#[test]
fn a_new_service_is_named_by_the_watch_alone() {
    let server = start();
    let mut options = options(&server.address());
    options.reread_interval = Duration::from_secs(3600);
    let registry = ZooKeeperRegistry::open(options).expect("valid options");
    let told: Arc<Mutex<Vec<Vec<String>>>> = Arc::default();
    let names = Arc::clone(&told);
    let _watch = registry.watch_services(Box::new(move |list| names.lock().push(list.to_vec())));
    let wait = |expected: &[&str]| {
        wait_until(&format!("the names are {expected:?}"), PATIENCE, || {
            told.lock().last().is_some_and(|list| list == expected)
        });
    };
    // The node of the services is not there yet.
    wait(&[]);
    let other = open(&server.address());
    let _first = other.register("test.First", &[], &provider(80));
    wait(&["test.First"]);
    let _second = other.register("test.Second", &[], &provider(80));
    wait(&["test.First", "test.Second"]);
}
