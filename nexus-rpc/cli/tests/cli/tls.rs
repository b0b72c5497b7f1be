//! Providers that speak TLS.

use std::fs;
use std::path::PathBuf;

use nexus_net::{PemFiles, ServerTls};
use nexus_rpc::ProviderOptions;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::support::{Provider, Ran, program, run, shop_proto};

/// A folder with an authority and certificates of it: for the provider, for its caller, and one that has expired;
/// and with another authority that has signed none of them.
struct Certificates(TempDir);

impl Certificates {
    fn make() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str| folder.path().join(name);
        let authority = |name: &str| {
            let key = KeyPair::generate().expect("a key");
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, name);
            let certificate = params.self_signed(&key).expect("signed");
            fs::write(file(name), certificate.pem()).expect("written");
            Issuer::new(params, key)
        };
        let issuer = authority("ca.pem");
        let other = authority("other-ca.pem");
        for (name, issuer) in [
            ("server", &issuer),
            ("client", &issuer),
            ("expired", &issuer),
            ("stranger", &other),
        ] {
            let key = KeyPair::generate().expect("a key");
            let mut params =
                CertificateParams::new(vec!["shop.internal".to_owned()]).expect("a name");
            if name == "expired" {
                params.not_after = rcgen::date_time_ymd(2020, 1, 1);
            }
            let certificate = params.signed_by(&key, issuer).expect("signed");
            fs::write(file(&format!("{name}.pem")), certificate.pem()).expect("written");
            fs::write(file(&format!("{name}.key")), key.serialize_pem()).expect("written");
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
        self.shop_as("server", Some(self.path("ca.pem")))
    }

    /// A shop with this certificate, which asks callers for one of `client_roots`.
    fn shop_as(&self, name: &str, client_roots: Option<PathBuf>) -> Provider {
        let tls = ServerTls::from_pem(&PemFiles {
            certificates: self.path(&format!("{name}.pem")),
            key: self.path(&format!("{name}.key")),
            client_roots,
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

/// The same trouble while types are asked for, and in the call itself.
const LIST: &[&str] = &["list"];
const CALL: &[&str] = &["call", "shop.Shop/Price"];

/// Asserts that each command says what is wrong and what to do.
#[track_caller]
fn complain(options: &[&str], what: &str, next: &str) {
    let proto = shop_proto();
    for command in [
        LIST.to_vec(),
        CALL.to_vec(),
        [CALL, &["--proto", &proto]].concat(),
    ] {
        let timeout = ["--timeout", "2s"];
        let complaint = run(&[options, &timeout, &command].concat()).complained();
        let (says, advises) = complaint.rsplit_once("\n next: ").expect("advice");
        assert!(says.contains(what), "{command:?}: {complaint}");
        assert!(advises.contains(next), "{command:?}: {complaint}");
    }
}

#[test]
fn nobody_listening_and_tls_on_one_side_only_are_told_apart() {
    let certificates = Certificates::make();
    let ca = certificates.text("ca.pem");
    let tls = ["--tls-ca", &ca, "--tls-name", "shop.internal"];
    // Held, and not listened on.
    let held = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let nobody = format!("list://{}", held.local_addr().expect("its address"));
    let refused = ["--registry", &nobody];
    complain(&refused, "connection refused", "start the provider");
    complain(
        &[&refused[..], &tls].concat(),
        "connection refused",
        "start the provider",
    );

    let encrypted = certificates.shop_as("server", None);
    let url = encrypted.url();
    complain(
        &["--registry", &url],
        "speaks TLS",
        "--tls-ca FILE --tls-name NAME",
    );

    let plain = Provider::start();
    let url = plain.url();
    let options = [&["--registry", &url], &tls[..]].concat();
    complain(&options, "speaks no TLS", "leave out --tls-ca");
    assert_eq!((encrypted.calls.count(), plain.calls.count()), (0, 0));
}

#[test]
fn each_trouble_with_a_certificate_has_its_own_advice() {
    let certificates = Certificates::make();
    let (ca, other) = (
        certificates.text("ca.pem"),
        certificates.text("other-ca.pem"),
    );
    let shop = certificates.shop_as("server", None);
    let url = shop.url();
    let to = |url, ca, name| ["--registry", url, "--tls-ca", ca, "--tls-name", name];
    complain(
        &to(&url, &other, "shop.internal"),
        "nobody in the file of --tls-ca has signed it",
        "the authority that signed",
    );
    complain(
        &to(&url, &ca, "bank.internal"),
        "not for bank.internal",
        "--tls-name NAME",
    );
    let old = certificates.shop_as("expired", None);
    let url = old.url();
    complain(
        &to(&url, &ca, "shop.internal"),
        "expired",
        "renew the provider's certificate",
    );

    let closed = certificates.shop();
    let url = closed.url();
    let nothing_shown = to(&url, &ca, "shop.internal");
    complain(
        &nothing_shown,
        "wants a client certificate",
        "--tls-cert FILE --tls-key FILE",
    );
    for (name, what, next) in [
        (
            "stranger",
            "refuses the client certificate",
            "an authority which the provider trusts",
        ),
        (
            "expired",
            "it has expired",
            "renew the certificate of --tls-cert",
        ),
    ] {
        let cert = certificates.text(&format!("{name}.pem"));
        let key = certificates.text(&format!("{name}.key"));
        let shown = ["--tls-cert", &cert, "--tls-key", &key];
        complain(&[&nothing_shown[..], &shown].concat(), what, next);
    }
    for shop in [shop, old, closed] {
        assert_eq!(shop.calls.count(), 0);
    }
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
