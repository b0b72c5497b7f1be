//! The example programs do what they say. `examples/echo.rs`, which listens on a fixed port, is compiled
//! with them, and is what the READMEs show.

#[allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::all,
    reason = "generated code, and every `main`"
)]
mod programs;

use bytes::Bytes;
use nexus_rpc::{ErrorCode, RpcError};
use programs::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

#[test]
fn a_handler_that_answers_later_answers_every_order_once() {
    let mut numbers = async_handler::run(100).unwrap();
    numbers.sort_unstable();
    assert_eq!(numbers, Vec::from_iter(1..=100));
}

#[test]
fn an_attachment_goes_there_and_back_beside_the_message() {
    let reply = attachment::run(Bytes::from_static(b"attached")).unwrap();
    assert_eq!(reply.attachment, b"dehcatta"[..]);
    assert_eq!(reply.message.message, "turn this round");
    assert_eq!(reply.metadata.text("content-type"), Some("text/plain"));
}

#[test]
fn only_callers_that_are_known_and_may_read_get_an_answer() {
    let results = auth::run(&["a secret", "another secret", "a guess"]).unwrap();
    let codes: Vec<_> = results
        .into_iter()
        .map(|result| result.map_err(|error| error.code()))
        .collect();
    let forbidden = ErrorCode::new(403);
    assert_eq!(
        codes,
        [
            Ok("gold for ada".into()),
            Err(forbidden),
            Err(ErrorCode::UNAUTHENTICATED)
        ]
    );
}

#[test]
fn a_key_stays_with_its_provider_and_moves_only_when_that_one_leaves() {
    let (with_three, with_two) = consistent_hash::run(200).unwrap();
    for (key, &before) in &with_three {
        let after = with_two[key];
        assert!(
            after == before || before == 2,
            "{key}: {before}, then {after}"
        );
        assert_ne!(after, 2, "{key}");
    }
    let counts = [0, 1, 2].map(|n| with_three.values().filter(|&&owner| owner == n).count());
    assert!(counts.iter().all(|&count| count > 20), "{counts:?}");
}

#[test]
fn a_backup_request_is_answered_while_the_slow_provider_sleeps() {
    let answers = hedging::run(8).unwrap();
    assert_eq!(answers.len(), 8);
    for (who, took) in answers {
        assert_eq!(who, "fast", "{took:?}");
    }
}

#[test]
fn interceptors_on_both_sides_see_the_call() {
    assert_eq!(
        interceptor::run(Some("acme")).unwrap(),
        (Ok("acme: hello".into()), 0)
    );
    let (refused, failed) = interceptor::run(None).unwrap();
    assert_eq!(refused.unwrap_err().code(), ErrorCode::BAD_REQUEST);
    assert_eq!(failed, 1);
}

#[test]
fn failures_are_repeated_elsewhere_and_answered_by_the_fallback_in_the_end() {
    let answers = retries_and_fallback::run().unwrap();
    assert_eq!(answers, [(3, false), (3, false), (3, false), (0, true)]);
}

#[tokio::test]
async fn a_handler_of_axum_awaits_a_call() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let asked = async {
        // The first requests may come before the channel is connected.
        loop {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request = b"GET /greet/ada HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
            stream.write_all(request).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            if !answer.starts_with("HTTP/1.1 503") {
                stop.send(()).unwrap();
                return answer;
            }
        }
    };
    let serving = axum_server::serve(listener, async {
        let _ = stopped.await;
    });
    let (served, answer) = tokio::join!(serving, asked);
    served.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.ends_with("hello, ada"), "{answer}");
}

#[cfg(feature = "tls")]
mod with_tls {
    use std::path::Path;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

    use super::*;

    /// An authority, and a certificate of it for each side; a stranger's is of another authority.
    fn certificates(folder: &Path) {
        let stranger = authority(folder, "stranger-ca");
        let issuer = authority(folder, "ca");
        for (name, issuer) in [
            ("server", &issuer),
            ("client", &issuer),
            ("stranger", &stranger),
        ] {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            let certificate = params.signed_by(&key, issuer).unwrap();
            std::fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
            std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
        }
    }

    fn authority(folder: &Path, name: &str) -> Issuer<'static, KeyPair> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
        Issuer::new(params, key)
    }

    #[test]
    fn a_call_under_tls_is_served_to_those_with_a_certificate_of_the_authority() {
        let folder = tempfile::tempdir().unwrap();
        certificates(folder.path());
        let answer = tls::run(folder.path(), Some("client")).unwrap();
        assert_eq!(answer, "nobody listens in");
    }

    #[test]
    fn the_port_of_the_pages_asks_for_no_certificate() {
        let folder = tempfile::tempdir().unwrap();
        certificates(folder.path());
        let file = |name: &str| folder.path().join(name);
        let tls = nexus_net::ServerTls::from_pem(&nexus_net::PemFiles {
            certificates: file("server.pem"),
            key: file("server.key"),
            client_roots: Some(file("ca.pem")),
            ..Default::default()
        })
        .unwrap();
        let provider = nexus_rpc::RpcProvider::builder()
            .options(nexus_rpc::ProviderOptions {
                tls: Some(tls),
                ..Default::default()
            })
            .pages_on("127.0.0.1:0".parse().unwrap())
            .start("127.0.0.1:0".parse().unwrap())
            .unwrap();
        let mut stream = std::net::TcpStream::connect(provider.pages_addr().unwrap()).unwrap();
        let request = b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        std::io::Write::write_all(&mut stream, request).unwrap();
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    #[test]
    fn callers_without_a_certificate_or_with_a_strangers_are_not_let_in() {
        let folder = tempfile::tempdir().unwrap();
        certificates(folder.path());
        for identity in [None, Some("stranger")] {
            let error = tls::run(folder.path(), identity).unwrap_err();
            // Of the call, and not of a file; and it says what the provider did not like.
            let error = error.downcast::<RpcError>().unwrap();
            assert_eq!(error.code(), ErrorCode::TLS, "{identity:?}: {error}");
            assert!(error.text().contains("alert"), "{identity:?}: {error}");
        }
    }
}
