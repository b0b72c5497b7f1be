//! Types that a provider tells.

use nexus_net::Address;
use nexus_rpc::{
    AuthContext, Authenticator, ErrorCode, HttpOptions, Pages, ProviderOptions, RpcError, registry,
};
use nexus_testkit::{ZooKeeper, wait_until};

use crate::support::{PATIENCE, Provider, program, run, shop_proto};

const CALL: [&str; 3] = ["call", "shop.Shop/Price", r#"{"count": 2}"#];

fn with_pages(pages: Pages) -> Provider {
    let http = HttpOptions {
        pages,
        ..HttpOptions::default()
    };
    let options = ProviderOptions {
        http,
        ..ProviderOptions::default()
    };
    Provider::start_with(|builder| builder.options(options))
}

#[test]
fn a_provider_in_zookeeper_tells_its_types() {
    let server = ZooKeeper::start().expect("ZooKeeper");
    let url = format!("zookeeper://{}", server.address());
    let registry = registry::open(&url).expect("a valid url");
    let shop = Provider::start_with(|builder| builder.registry(registry.clone()));
    wait_until("it is registered", PATIENCE, || {
        shop.provider.is_registered()
    });
    let proto = shop_proto();
    for name in [
        &[][..],
        &["shop.Shop"],
        &["shop.Shop.Price"],
        &["shop.Kind"],
    ] {
        let of_file = run(&[&["describe", "--proto", &proto], name].concat()).printed();
        let told = run(&[&["--registry", &url, "describe"], name].concat()).printed();
        assert_eq!(told, of_file, "{name:?}");
    }
    let out = run(&[&["--registry", &url], &CALL[..]].concat()).printed();
    assert!(out.contains("\"cents\": \"200\""), "{out}");
    let complaint = run(&["--registry", &url, "describe", "shop.Stop"]).complained();
    assert!(complaint.contains("shop.Stop is known"), "{complaint}");
}

#[test]
fn a_provider_in_a_list_tells_its_types() {
    let shop = Provider::start();
    let proto = shop_proto();
    for name in [&[][..], &["shop.Shop"], &["shop.Kind"]] {
        let of_file = run(&[&["describe", "--proto", &proto], name].concat()).printed();
        let told = run(&[&["--registry", &shop.url(), "describe"], name].concat()).printed();
        assert_eq!(told, of_file, "{name:?}");
    }
    let out = run(&[&["--registry", &shop.url()], &CALL[..]].concat()).printed();
    assert!(out.contains("\"cents\": \"200\""), "{out}");
}

#[test]
fn pages_on_an_inner_port_are_asked_there() {
    let shop = with_pages(Pages::InnerPort(([127, 0, 0, 1], 0).into()));
    let url = shop.url();
    let complaint = run(&[&["--registry", &url], &CALL[..]].concat()).complained();
    assert!(complaint.contains("does not tell its types"), "{complaint}");
    assert!(complaint.contains("--pages HOST:PORT"), "{complaint}");
    let pages = shop
        .provider
        .pages_addr()
        .expect("an inner port")
        .to_string();
    let args = [
        &["--registry", &url, "--timeout", "10s"],
        &CALL[..],
        &["--pages", &pages],
    ];
    let out = run(&args.concat()).printed();
    assert!(out.contains("\"cents\": \"200\""), "{out}");
}

/// Lets in whoever knows the word.
struct Doorman;

impl Authenticator for Doorman {
    fn verify(&self, data: &[u8], _: &Address) -> Result<AuthContext, RpcError> {
        match data {
            b"sesame" => Ok(AuthContext::new("ali")),
            _ => Err(RpcError::new(ErrorCode::UNAUTHENTICATED, "say the word")),
        }
    }
}

#[test]
fn what_an_authenticator_wants_is_shown_to_pages_and_calls() {
    let shop = Provider::start_with(|builder| builder.authenticator(Doorman));
    let (url, proto) = (shop.url(), shop_proto());
    let call = [&["--registry", &url], &CALL[..]].concat();
    let complaint = run(&call).complained();
    assert!(complaint.contains("HTTP 401"), "{complaint}");
    assert!(complaint.contains("NEXUS_AUTHORIZATION"), "{complaint}");
    // With the types from a file, it is the call that is refused.
    let complaint = run(&[&call[..], &["--proto", &proto]].concat()).complained();
    assert!(complaint.contains("ERPCAUTH (1004)"), "{complaint}");
    assert!(complaint.contains("NEXUS_AUTHORIZATION"), "{complaint}");
    assert_eq!(shop.calls.count(), 0);
    let mut command = program(&call);
    command.env("NEXUS_AUTHORIZATION", "sesame");
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(shop.calls.count(), 1);
}
