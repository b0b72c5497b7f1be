//! Configuration files, good and bad, as a node loads them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use chat_node::config::{self, Address, ByteSize, ConfigError, Problems};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Node {
    listen: Address,
    #[serde(default)]
    services: Vec<String>,
    store: Store,
    #[serde(default)]
    limits: Limits,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Store {
    url: String,
    connections_max: u16,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Limits {
    #[serde(with = "config::duration")]
    idle: Duration,
    frame: ByteSize,
    policy: Policy,
}

#[derive(Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum Policy {
    #[default]
    NewerWins,
    OlderWins,
}

const GOOD: &str = r#"listen = "127.0.0.1:8000"
services = ["user", "friend"]

[store]
url = "mysql://here"
connections_max = 8

[limits]
idle = "1m 30s"
frame = "64KiB"
policy = "older-wins"
"#;

fn load(text: &str) -> Result<Node, ConfigError> {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("node.toml");
    fs::write(&file, text).expect("written");
    config::load(&file)
}

/// The lines of the error, without the folder.
fn problems(text: &str) -> Vec<String> {
    let error = load(text).expect_err("refused").to_string();
    let name = |line: &str| {
        let start = line.find("node.toml").expect("the file is named");
        line[start..].to_owned()
    };
    error.lines().map(name).collect()
}

#[test]
fn a_good_file_is_loaded_with_its_units() {
    let node = load(GOOD).expect("good");
    assert_eq!(node.listen.socket_addr().port(), 8000);
    assert_eq!(node.services, ["user", "friend"]);
    assert_eq!(
        (node.store.url.as_str(), node.store.connections_max),
        ("mysql://here", 8)
    );
    assert_eq!(node.limits.idle, Duration::from_secs(90));
    assert_eq!(node.limits.frame, ByteSize::kib(64));
    assert_eq!(node.limits.policy, Policy::OlderWins);
}

#[test]
fn a_missing_file_is_named() {
    let error = config::load::<Node>(Path::new("no/such.toml")).expect_err("refused");
    let text = error.to_string();
    assert!(text.starts_with("no/such.toml: cannot be read: "), "{text}");
}

#[test]
fn a_folder_or_binary_or_endless_file_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    assert!(config::load::<Node>(dir.path()).is_err());
    let binary = dir.path().join("binary");
    fs::write(&binary, [0xff, 0xfe]).expect("written");
    assert!(config::load::<Node>(&binary).is_err());
    let error = config::load::<Node>(Path::new("/dev/zero"))
        .expect_err("refused")
        .to_string();
    assert!(error.contains("larger than 1048576 bytes"), "{error}");
}

#[test]
fn every_syntax_error_is_reported_with_its_line() {
    let problems = problems("listen = \nx = 1\ny = [1\n");
    assert!(problems.len() >= 2, "{problems:#?}");
    assert!(problems[0].starts_with("node.toml:1: "), "{problems:#?}");
}

#[test]
fn an_unknown_key_is_reported_with_the_known_ones() {
    let text = GOOD.replace("connections_max", "conections_max");
    assert_eq!(
        problems(&text),
        [
            "node.toml:6: key \"store.conections_max\": unknown field `conections_max`, \
             expected `url` or `connections_max`",
            "node.toml: key \"store.connections_max\": missing",
        ]
    );
}

#[test]
fn all_mistakes_are_reported_together() {
    let text = r#"listen = "127.0.0.1:8000"
services = ["user", 7]
lisen = 1
[store]
url = "x"
connections_max = 8
pool.size = 1
[limits]
idle = 5
frame = "64 parsecs"
policy = "none"
[unknown]
x = 1
"#;
    let problems = problems(text);
    let starts: Vec<&str> = problems
        .iter()
        .filter_map(|problem| problem.split("\": ").next())
        .collect();
    assert_eq!(
        starts,
        [
            "node.toml:2: key \"services",
            "node.toml:3: key \"lisen",
            "node.toml:7: key \"store.pool",
            "node.toml:9: key \"limits.idle",
            "node.toml:10: key \"limits.frame",
            "node.toml:11: key \"limits.policy",
            "node.toml:12: key \"unknown",
        ],
        "{problems:#?}"
    );
}

#[test]
fn a_wrong_type_says_what_was_expected() {
    let text = GOOD.replace("\"mysql://here\"", "5");
    assert_eq!(
        problems(&text),
        ["node.toml:5: key \"store.url\": invalid type: integer `5`, expected a string"]
    );
    let text = GOOD.replace("= 8\n", "= 70000\n");
    assert!(
        problems(&text)[0].contains("\"store.connections_max\": "),
        "{:?}",
        problems(&text)
    );
}

#[test]
fn a_wrong_address_names_its_key() {
    let text = GOOD.replace("127.0.0.1:8000", "127.0.0.1");
    assert_eq!(
        problems(&text),
        [
            "node.toml:1: key \"listen\": \"127.0.0.1\" is not an address: \
          expected host:port, port from 0 to 65535"
        ]
    );
}

#[test]
fn a_missing_key_is_named_wherever_it_is_missing() {
    assert_eq!(problems(""), ["node.toml: key \"listen\": missing"]);
    let text = GOOD.replace("url = \"mysql://here\"\n", "");
    assert_eq!(problems(&text), ["node.toml: key \"store.url\": missing"]);
    let text = "listen = \"127.0.0.1:1\"\nstore = { url = \"x\" }\n";
    assert_eq!(
        problems(text),
        ["node.toml: key \"store.connections_max\": missing"]
    );
}

#[test]
fn checks_beyond_types_are_collected() {
    let mut problems = Problems::new("configs/proxy-1.toml");
    problems.require("workers", true, "not reported");
    problems.require("workers", 0 > 1, "is 0; expected at least 1");
    assert_eq!(problems.accept("store.port", "80".parse::<u16>()), Some(80));
    assert_eq!(problems.accept("store.port", "x".parse::<u16>()), None);
    assert_eq!(
        problems.finish().expect_err("two problems").to_string(),
        "configs/proxy-1.toml: key \"workers\": is 0; expected at least 1\n\
         configs/proxy-1.toml: key \"store.port\": invalid digit found in string"
    );
    assert!(Problems::new("x").finish().is_ok());
}
