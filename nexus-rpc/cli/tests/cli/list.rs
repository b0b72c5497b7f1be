//! `nexus-rpc list`.

use nexus_rpc::ProviderOptions;
use nexus_rpc::registry;
use nexus_testkit::{ZooKeeper, wait_until};

use crate::support::{PATIENCE, Provider, run};

fn options(weight: u32, zone: &str, version: &str) -> ProviderOptions {
    ProviderOptions {
        weight,
        zone: zone.to_owned(),
        version: version.to_owned(),
        ..ProviderOptions::default()
    }
}

#[test]
fn services_in_zookeeper_are_listed_with_their_providers() {
    let server = ZooKeeper::start().expect("ZooKeeper");
    let url = format!("zookeeper://{}/shops", server.address());
    let complaint = run(&["--registry", &url, "list"]).complained();
    assert!(
        complaint.contains("no service has registered"),
        "{complaint}"
    );

    let registry = registry::open(&url).expect("a valid url");
    let shops = [options(3, "east", "1.2"), options(1, "", "")].map(|options| {
        Provider::start_with(|builder| builder.options(options).registry(registry.clone()))
    });
    wait_until("both are registered", PATIENCE, || {
        shops.iter().all(|shop| shop.provider.is_registered())
    });
    let table = run(&["--registry", &url, "list"]).printed();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|row| row.split_whitespace().collect())
        .collect();
    let [first, second] = shops.each_ref().map(|shop| shop.provider.local_addr());
    assert_eq!(rows.len(), 3, "{table}");
    assert_eq!(
        rows[0],
        ["SERVICE", "PROVIDER", "WEIGHT", "ZONE", "VERSION"]
    );
    assert!(
        rows.contains(&vec!["shop.Shop", &first.to_string(), "3", "east", "1.2"]),
        "{table}"
    );
    assert!(
        rows.contains(&vec!["shop.Shop", &second.to_string(), "1", "-", "-"]),
        "{table}"
    );

    let json = run(&["--registry", &url, "list", "--json"]).printed();
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json[0]["service"], "shop.Shop");
    let providers = json[0]["providers"].as_array().expect("an array");
    let of_first = providers.iter().find(|p| p["address"] == first.to_string());
    assert_eq!(of_first.expect("the first")["zone"], "east");

    // The service stays known when nobody provides it any more.
    drop(shops);
    drop(registry);
    wait_until("the providers are gone", PATIENCE, || {
        let table = run(&["--registry", &url, "list"]).printed();
        let last = table.lines().last().unwrap_or_default().to_owned();
        last.split_whitespace()
            .eq(["shop.Shop", "-", "-", "-", "-"])
    });
    let call = ["--registry", &url, "call", "shop.Shop/Price"];
    let complaint = run(&call).complained();
    assert!(
        complaint.contains("nobody provides shop.Shop"),
        "{complaint}"
    );
}

#[test]
fn the_services_of_addresses_are_told_by_their_providers() {
    let shops = [Provider::start(), Provider::start()];
    let [first, second] = shops.each_ref().map(|shop| shop.provider.local_addr());
    let url = format!("list://{first},{second}");
    let table = run(&["--registry", &url, "list"]).printed();
    let mut found: Vec<String> = table
        .lines()
        .skip(1)
        .filter_map(|row| row.split_whitespace().nth(1))
        .map(str::to_owned)
        .collect();
    found.sort();
    let mut expected = [first, second].map(|address| address.to_string());
    expected.sort();
    assert_eq!(found, expected, "{table}");
    assert!(table.contains("\nshop.Shop  "), "{table}");
}

#[test]
fn a_registry_that_is_away_is_named() {
    // Nothing listens on a port that was free a moment ago and is held, not listened on.
    let held = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let url = format!("zookeeper://{}", held.local_addr().expect("its address"));
    let ran = run(&["--registry", &url, "--timeout", "300ms", "list"]);
    let complaint = ran.complained();
    assert!(
        complaint.contains(&format!("{url} does not answer")),
        "{complaint}"
    );
    assert!(complaint.contains("connection refused"), "{complaint}");
}

#[test]
fn a_url_that_is_not_understood_is_explained() {
    let complaint = run(&["--registry", "etcd://a:1", "list"]).complained();
    assert!(complaint.contains("neither zookeeper://"), "{complaint}");
}

#[test]
fn the_password_of_the_registry_is_not_shown() {
    let held = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = held.local_addr().expect("its address");
    for (url, shown) in [
        (
            format!("zookeeper://user:s3cret@{address}"),
            format!("zookeeper://***@{address} does not answer"),
        ),
        (
            format!("zk://user:s3cret@{address}"),
            "neither zookeeper://".to_owned(),
        ),
        (
            format!("zookeeper://user:s3cret/x@{address}"),
            "percent-encoded".to_owned(),
        ),
    ] {
        let ran = run(&["--registry", &url, "--timeout", "300ms", "list"]);
        let complaint = ran.complained();
        assert!(complaint.contains(&shown), "{complaint}");
        assert!(!complaint.contains("s3cret"), "{complaint}");
    }
    let mut help = std::process::Command::new(env!("CARGO_BIN_EXE_nexus-rpc"));
    help.env("NEXUS_REGISTRY", "zookeeper://user:s3cret@a:1");
    let help = help.arg("--help").output().expect("it runs");
    let help = String::from_utf8_lossy(&help.stdout);
    assert!(help.contains("NEXUS_REGISTRY"), "{help}");
    assert!(!help.contains("s3cret"), "{help}");
}

#[test]
fn the_help_names_every_command() {
    let help = run(&["--help"]).printed();
    for command in ["list", "describe", "call", "press"] {
        assert!(help.contains(&format!("\n  {command} ")), "{help}");
    }
}
