//! Providers that speak TLS.

use std::fs;
use std::path::PathBuf;

use nexus_net::{PemFiles, ServerTls};
use nexus_rpc::ProviderOptions;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::support::{Provider, Ran, program, run, shop_proto};

/// A folder with an authority, and a certificate of it for the provider and one for its caller.
struct Certificates(TempDir);

impl Certificates {
    fn make() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("signed");
        fs::write(folder.path().join("ca.pem"), certificate.pem()).expect("written");
        let issuer = Issuer::new(params, key);
        for name in ["server", "client"] {
            let key = KeyPair::generate().expect("a key");
            let params = CertificateParams::new(vec!["shop.internal".to_owned()]).expect("a name");
            let certificate = params.signed_by(&key, &issuer).expect("signed");
            let file = |kind: &str| folder.path().join(format!("{name}.{kind}"));
            fs::write(file("pem"), certificate.pem()).expect("written");
            fs::write(file("key"), key.serialize_pem()).expect("written");
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("UTF-8").to_owned()
    }

    /// A shop that lets only callers with a certificate in.
    fn shop(&self) -> Provider {
        let tls = ServerTls::from_pem(&PemFiles {
            certificates: self.path("server.pem"),
            key: self.path("server.key"),
            client_roots: Some(self.path("ca.pem")),
            ..PemFiles::default()
        });
        let options = ProviderOptions {
            tls: Some(tls.expect("usable files")),
            ..ProviderOptions::default()
        };
        Provider::start_with(|builder| builder.options(options))
    }

    /// Runs a command that knows the authority, and shows a certificate.
    fn run(&self, shop: &Provider, command: &[&str]) -> Ran {
        let (ca, cert, key) = (
            self.text("ca.pem"),
            self.text("client.pem"),
            self.text("client.key"),
        );
        let url = shop.url();
        let mut args = vec![
            "--registry",
            &url,
            "--tls-ca",
            &ca,
            "--tls-name",
            "shop.internal",
        ];
        args.extend(["--tls-cert", &cert, "--tls-key", &key]);
        args.extend(command);
        run(&args)
    }
}

#[test]
fn services_are_listed_described_called_and_pressed_under_tls() {
    let certificates = Certificates::make();
    let shop = certificates.shop();
    let list = certificates.run(&shop, &["list"]).printed();
    assert!(list.contains("shop.Shop"), "{list}");
    let text = certificates
        .run(&shop, &["describe", "shop.Shop"])
        .printed();
    assert!(text.contains("rpc Price"), "{text}");
    let call = [
        "call",
        "shop.Shop/Price",
        r#"{"article": "tea", "count": 1}"#,
    ];
    let out = certificates.run(&shop, &call).printed();
    assert!(out.contains("\"100\""), "{out}");
    let press = [
        "press",
        "shop.Shop/Price",
        "--duration",
        "100ms",
        "--callers",
        "2",
        "--json",
    ];
    let pressed = certificates.run(&shop, &press);
    assert_eq!(pressed.code, Some(0), "{pressed:?}");
    assert!(shop.calls.count() > 1);
}

#[test]
fn the_files_may_be_named_in_the_environment() {
    let certificates = Certificates::make();
    let shop = certificates.shop();
    let mut command = program(&["--registry", &shop.url(), "list"]);
    command
        .env("NEXUS_TLS_CA", certificates.path("ca.pem"))
        .env("NEXUS_TLS_NAME", "shop.internal")
        .env("NEXUS_TLS_CERT", certificates.path("client.pem"))
        .env("NEXUS_TLS_KEY", certificates.path("client.key"));
    let output = command.output().expect("it runs");
    let out = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(out.contains("shop.Shop"), "{out}");
}

#[test]
fn a_caller_without_a_certificate_is_told_to_show_one() {
    let certificates = Certificates::make();
    let shop = certificates.shop();
    let (ca, url, proto) = (certificates.text("ca.pem"), shop.url(), shop_proto());
    let ours = [
        "--registry",
        &url,
        "--tls-ca",
        &ca,
        "--tls-name",
        "shop.internal",
    ];
    let call = ["call", "--proto", &proto, "shop.Shop/Price"];
    let complaint = run(&[&ours[..], &call[..]].concat()).complained();
    assert!(complaint.contains("ESSL"), "{complaint}");
    assert!(complaint.contains("--tls-cert"), "{complaint}");
    assert_eq!(shop.calls.count(), 0);
}

#[test]
fn a_provider_of_another_name_is_not_believed() {
    let certificates = Certificates::make();
    let shop = certificates.shop();
    let (ca, url) = (certificates.text("ca.pem"), shop.url());
    let args = [
        "--registry",
        &url,
        "--tls-ca",
        &ca,
        "--tls-name",
        "bank.internal",
        "list",
    ];
    let complaint = run(&args).complained();
    assert!(complaint.contains("certificate"), "{complaint}");
}

#[test]
fn what_is_said_of_tls_has_to_be_whole() {
    let certificates = Certificates::make();
    let (ca, none) = (certificates.text("ca.pem"), certificates.text("none.pem"));
    let named = ["--tls-ca", &ca, "--tls-name", "shop.internal"];
    for (args, wanted) in [
        (vec!["--tls-ca", &ca], "--tls-name"),
        (vec!["--tls-name", "shop.internal"], "--tls-ca"),
        (vec!["--tls-cert", &ca, "--tls-key", &ca], "--tls-ca"),
        ([&named[..], &["--tls-cert", &ca]].concat(), "--tls-key"),
        (
            vec!["--tls-ca", &none, "--tls-name", "shop.internal"],
            "none.pem",
        ),
        (vec!["--tls-ca", &ca, "--tls-name", "no name"], "--tls-name"),
    ] {
        let all = [&["--registry", "list://127.0.0.1:1", "list"], &args[..]].concat();
        let complaint = run(&all).complained();
        assert!(complaint.contains(wanted), "{args:?}: {complaint}");
    }
}
