//! `nexus-rpc press`.

use std::fs::File;
use std::io::Read;
use std::process::{Child, Stdio};

use nexus_testkit::wait_until;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{PATIENCE, Provider, Ran, program, run, shop_proto};

fn args<'a>(url: &'a str, proto: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
    [&["--registry", url, "press", "--proto", proto], rest].concat()
}

fn press(shop: &Provider, rest: &[&str]) -> Ran {
    let (url, proto) = (shop.url(), shop_proto());
    run(&args(&url, &proto, rest))
}

#[track_caller]
fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

#[test]
fn flat_out_every_call_is_counted() {
    let shop = Provider::start();
    let rest = [
        "shop.Shop/Price",
        "--duration",
        "300ms",
        "--callers",
        "4",
        "--connections",
        "2",
    ];
    let report = json(&press(&shop, &[&rest[..], &["--json"]].concat()).printed());
    assert_eq!(report["calls"], shop.calls.count(), "{report}");
    assert!(shop.calls.count() > 4, "{report}");
    assert_eq!(
        (&report["errors"], &report["unsent"]),
        (&0.into(), &0.into()),
        "{report}"
    );
    let quantiles = ["p50", "p90", "p99", "p999", "max"]
        .map(|name| report["latency_us"][name].as_f64().expect("a number"));
    assert!(quantiles[0] > 0.0 && quantiles.is_sorted(), "{report}");
}

#[test]
fn at_a_rate_so_many_calls_are_sent() {
    let shop = Provider::start();
    let rest = [
        "shop.Shop/Price",
        "--rate",
        "200",
        "--duration",
        "500ms",
        "--json",
    ];
    let report = json(&press(&shop, &rest).printed());
    assert_eq!(report["calls"], 100, "{report}");
    assert_eq!(shop.calls.count(), 100);
}

#[test]
fn at_a_rate_latency_counts_from_the_time_a_call_was_due() {
    let shop = Provider::start();
    // One caller can make 20 calls in this time and 100 are due: the last of them waited for most of it.
    let request = r#"{"timeMs": 25}"#;
    let rest = [
        "shop.Shop/Dawdle",
        request,
        "--rate",
        "200",
        "--duration",
        "500ms",
    ];
    let report = press(&shop, &[&rest[..], &["--callers", "1", "--json"]].concat()).printed();
    let report = json(&report);
    let number = |value: &Value| value.as_f64().expect("a number");
    assert!(number(&report["latency_us"]["max"]) > 300_000.0, "{report}");
    assert!(number(&report["late"]) > 0.0, "{report}");
    assert_eq!(
        number(&report["calls"]) + number(&report["unsent"]),
        100.0,
        "{report}"
    );
    assert!(number(&report["unsent"]) >= 79.0, "{report}");
}

#[test]
fn failures_are_counted_by_code() {
    let shop = Provider::start();
    let request = r#"{"code": 2004, "text": "full"}"#;
    let rest = [
        "shop.Shop/Refuse",
        request,
        "--rate",
        "100",
        "--duration",
        "100ms",
    ];
    let ran = press(&shop, &[&rest[..], &["--json"]].concat());
    let report = json(&ran.out);
    assert_eq!(report["errors"], 10, "{report}");
    let expected = serde_json::json!([
        {"code": 2004, "name": "ELIMIT", "count": 10, "text": "full"}
    ]);
    assert_eq!(report["errors_by_code"], expected);
    // Not one succeeded.
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains("ELIMIT (2004): full"), "{ran:?}");
    let table = press(&shop, &rest);
    assert!(
        table
            .out
            .contains("errors by code\n       10  ELIMIT (2004): full\n"),
        "{table:?}"
    );
}

#[test]
fn without_a_terminal_there_is_only_the_table() {
    let shop = Provider::start();
    let rest = ["shop.Shop/Price", "--rate", "50", "--duration", "1100ms"];
    let table = press(&shop, &rest).printed();
    assert!(
        table.starts_with("shop.Shop/Price: 50 calls/s wanted, callers 10000"),
        "{table}"
    );
    for row in [
        "calls ", "errors ", "calls/s ", "p50 ", "p90 ", "p99 ", "p999 ", "max ",
    ] {
        assert!(table.contains(&format!("\n{row}")), "{row} {table}");
    }
}

#[test]
fn on_a_terminal_each_second_has_its_line_and_ctrl_c_ends_with_the_table() {
    let shop = Provider::start();
    let (mut terminal, stdout) = pseudo_terminal();
    let (url, proto) = (shop.url(), shop_proto());
    let rest = ["shop.Shop/Price", "--duration", "20s", "--callers", "2"];
    let mut command = program(&args(&url, &proto, &rest));
    let child = command
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    // The command holds the terminal's other end open.
    drop(command);
    let mut seen = String::new();
    read_until(&mut terminal, &mut seen, "    1 s ");
    interrupt(&child);
    read_until(
        &mut terminal,
        &mut seen,
        "shop.Shop/Price: flat out, callers 2, connections 1",
    );
    read_until(&mut terminal, &mut seen, "\nmax ");
    let ended = child.wait_with_output().expect("it ends");
    assert_eq!(ended.status.code(), Some(0), "{ended:?} {seen}");
    let progress = seen.lines().next().unwrap_or_default();
    for part in ["calls/s", "0 errors", "p50", "p99"] {
        assert!(progress.contains(part), "{seen}");
    }
}

#[test]
fn ctrl_c_ends_a_press_whose_calls_are_out() {
    let shop = Provider::start();
    let (url, proto) = (shop.url(), shop_proto());
    let request = r#"{"timeMs": 300}"#;
    let rest = [
        "shop.Shop/Dawdle",
        request,
        "--duration",
        "1h",
        "--callers",
        "3",
        "--json",
    ];
    let mut command = program(&args(&url, &proto, &rest));
    let child = command.stdout(Stdio::piped()).spawn().expect("it runs");
    wait_until("calls are out", PATIENCE, || shop.calls.count() >= 3);
    interrupt(&child);
    let ended = child.wait_with_output().expect("it ends");
    let report = json(&String::from_utf8(ended.stdout).expect("UTF-8"));
    assert_eq!(report["calls"], shop.calls.count(), "{report}");
    assert_eq!(ended.status.code(), Some(0));
}

fn interrupt(child: &Child) {
    kill_process(Pid::from_child(child), Signal::INT).expect("it runs");
}

/// A terminal: what is written to the second can be read from the first.
fn pseudo_terminal() -> (File, File) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo terminal");
    grantpt(&terminal).expect("granted");
    unlockpt(&terminal).expect("unlocked");
    let name = ptsname(&terminal, Vec::new()).expect("its name");
    let name = name.to_str().expect("UTF-8").to_owned();
    let other = File::options()
        .read(true)
        .write(true)
        .open(name)
        .expect("its other end");
    (File::from(terminal), other)
}

/// Reads on until the text has come. The program ends by itself if it does not: the terminal is then closed.
fn read_until(terminal: &mut File, seen: &mut String, text: &str) {
    let mut buffer = [0; 1024];
    while !seen.contains(text) {
        let length = terminal.read(&mut buffer).unwrap_or(0);
        assert_ne!(length, 0, "it ended before {text:?} came: {seen}");
        *seen += &String::from_utf8_lossy(&buffer[..length]);
    }
}
