//! `nexus-rpc call`.

use std::fs;

use crate::support::{Provider, Ran, run, run_with_input, shop_proto};

const PRICE: &str = r#"{
    "article": "tea", "count": 3,
    "options": [{"name": "bow", "kind": "GIFT_WRAPPED"}, {"name": "none"}]
}"#;

/// Calls with the types of the file.
fn call(shop: &Provider, args: &[&str]) -> Ran {
    let (url, proto) = (shop.url(), shop_proto());
    let mut all = vec!["--registry", &url, "call", "--proto", &proto];
    all.extend(args);
    run(&all)
}

#[test]
fn a_call_prints_its_answer_as_json() {
    let shop = Provider::start();
    let out = call(&shop, &["shop.Shop/Price", PRICE]).printed();
    let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    // protobuf's JSON writes 64 bits as text.
    let expected = serde_json::json!({"cents": "300", "article": "tea", "options": ["bow"]});
    assert_eq!(json, expected);
    assert!(out.starts_with("{\n  \"cents\": "), "{out}");
    assert_eq!(shop.calls.count(), 1);
}

#[test]
fn the_request_may_come_from_stdin_or_be_left_out() {
    let shop = Provider::start();
    let (url, proto) = (shop.url(), shop_proto());
    let args = [
        "--registry",
        &url,
        "call",
        "--proto",
        &proto,
        "shop.Shop.Price",
        "-",
    ];
    let out = run_with_input(&args, PRICE).printed();
    assert!(out.contains("\"300\""), "{out}");
    let out = call(&shop, &["shop.Shop/Price"]).printed();
    assert!(out.contains("\"cents\": \"0\""), "{out}");
}

#[test]
fn metadata_and_attachment_go_along_and_come_back() {
    let shop = Provider::start();
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let (sent, received) = (path("sent"), path("received"));
    fs::write(&sent, [0, 1, 2, 255]).expect("written");
    let args = [
        "shop.Shop/Price",
        "--attachment",
        &sent,
        "--metadata",
        "customer=ann=1",
        "-v",
    ];
    let ran = call(&shop, &args);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.err.contains("\ncustomer=ann=1\n"), "{ran:?}");
    assert!(ran.err.contains("an attachment of 4 bytes"), "{ran:?}");
    let mut args = args.to_vec();
    args.extend(["--save-attachment", &received]);
    let ran = call(&shop, &args);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(fs::read(&received).expect("a file"), [0, 1, 2, 255]);
}

#[test]
fn a_repeated_call_prints_an_answer_a_line() {
    let shop = Provider::start();
    let out = call(&shop, &["shop.Shop/Price", PRICE, "--repeat", "3"]).printed();
    assert_eq!(out.lines().count(), 3, "{out}");
    for line in out.lines() {
        assert!(
            serde_json::from_str::<serde_json::Value>(line).is_ok(),
            "{out}"
        );
    }
    assert_eq!(shop.calls.count(), 3);
    let refused = [r#"{"code": 42}"#, "--repeat", "2"];
    let complaint = call(&shop, &[&["shop.Shop/Refuse"], &refused[..]].concat()).complained();
    assert!(complaint.contains("2 of 2 calls failed"), "{complaint}");
}

#[test]
fn a_failed_call_says_code_name_and_text() {
    let shop = Provider::start();
    let refuse = |code: i32| {
        let request = format!(r#"{{"code": {code}, "text": "sold out"}}"#);
        call(&shop, &["shop.Shop/Refuse", &request]).complained()
    };
    let own = refuse(4711);
    assert!(
        own.contains("error: shop.Shop/Refuse: E4711: sold out\n"),
        "{own}"
    );
    assert!(own.contains("the service's own"), "{own}");
    let known = refuse(1004);
    assert!(known.contains("ERPCAUTH (1004): sold out"), "{known}");
    assert!(known.contains("--authorization"), "{known}");
}

#[test]
fn a_text_that_would_steer_the_terminal_is_made_harmless() {
    let shop = Provider::start();
    let request = r#"{"code": 7, "text": "\u001b]0;owned\u0007 and\nmore"}"#;
    let complaint = call(&shop, &["shop.Shop/Refuse", request]).complained();
    assert!(
        complaint.contains("E7:  ]0;owned  and more\n next: "),
        "{complaint:?}"
    );
    let rest = ["--rate", "10", "--duration", "100ms", "--timeout", "5s"];
    let (url, proto) = (shop.url(), shop_proto());
    let args = [
        "--registry",
        &url,
        "press",
        "--proto",
        &proto,
        "shop.Shop/Refuse",
        request,
    ];
    let ran = run(&[&args[..], &rest].concat());
    assert!(
        !ran.out.contains('\u{1b}') && ran.out.contains("]0;owned"),
        "{ran:?}"
    );
}

#[test]
fn a_call_that_takes_too_long_times_out() {
    let shop = Provider::start();
    let request = r#"{"timeMs": 1000}"#;
    let ran = call(&shop, &["shop.Shop/Dawdle", request, "--timeout", "100ms"]);
    let complaint = ran.complained();
    assert!(complaint.contains("ERPCTIMEDOUT (1008)"), "{complaint}");
    assert!(complaint.contains("--timeout"), "{complaint}");
}

#[test]
fn a_request_that_is_no_such_message_is_not_sent() {
    let shop = Provider::start();
    for (request, named) in [
        (r#"{"artikel": "tea"}"#, "artikel"),
        (r#"{"count": "many"}"#, "column 16"),
        (r#"{"count": 1} {}"#, "trailing"),
        ("{", "EOF"),
        (r#"{"count": 1, "count": 2}"#, "\"count\" stands twice"),
        (
            r#"{"shelf": {"number": 1, "number": 1}}"#,
            "\"number\" stands twice",
        ),
        (r#"{"discounts": {"a": 1, "a": 2}}"#, "\"a\" stands twice"),
    ] {
        let complaint = call(&shop, &["shop.Shop/Price", request]).complained();
        assert!(
            complaint.contains("the request is no shop.PriceRequest"),
            "{complaint}"
        );
        assert!(complaint.contains(named), "{complaint}");
        assert!(
            complaint.contains("nexus-rpc describe shop.PriceRequest"),
            "{complaint}"
        );
    }
    assert_eq!(shop.calls.count(), 0);
}

#[test]
fn a_name_that_is_not_there_is_answered_with_those_that_are() {
    let shop = Provider::start();
    let complaint = call(&shop, &["shop.Shop/Prize"]).complained();
    assert!(
        complaint.contains("shop.Shop has no method Prize"),
        "{complaint}"
    );
    assert!(
        complaint.contains("it has Price, Refuse, Dawdle"),
        "{complaint}"
    );
    let complaint = call(&shop, &["shop.Stop/Price"]).complained();
    assert!(
        complaint.contains("these are known: shop.Shop"),
        "{complaint}"
    );
}

#[test]
fn a_provider_that_cannot_be_reached_is_named() {
    // Held, and not listened on.
    let held = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = held.local_addr().expect("its address");
    let (url, proto) = (format!("list://{address}"), shop_proto());
    let args = [
        "--registry",
        &url,
        "--timeout",
        "300ms",
        "call",
        "shop.Shop/Price",
    ];
    let complaint = run(&[&args[..], &["--proto", &proto]].concat()).complained();
    assert!(
        complaint.contains(&format!("tried {address}")),
        "{complaint}"
    );
    // Asked for its types, it does not answer either.
    let complaint = run(&args).complained();
    assert!(
        complaint.contains(&format!("{address} does not tell its types")),
        "{complaint}"
    );
    assert!(complaint.contains("connection refused"), "{complaint}");
    assert!(complaint.contains("start the provider"), "{complaint}");
}

#[test]
fn wrong_usage_is_told_apart_from_failure() {
    for args in [
        &["call"][..],
        &["call", "NoSlash"],
        &["call", "a.B/C", "--metadata", "no-value"],
        &["call", "a.B/C", "--repeat", "0"],
        &["call", "a.B/C", "--timeout", "soon"],
    ] {
        let ran = run(args);
        assert_eq!(ran.code, Some(2), "{ran:?}");
    }
}
