//! Certificates: of clients, renewed, broken.

use std::io::{Read, Write};
use std::sync::mpsc;

use nexus_net::{ClientPemFiles, CloseReason, ConnectionOptions, Error, PemFiles, ServerTls};

use super::support::*;
use crate::support::*;

fn assert_echoes_tls(stream: &mut TlsStream) {
    stream.write_all(b"hello").unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello");
}

fn shown_by_server(stream: &TlsStream) -> &[u8] {
    &stream.conn.peer_certificates().unwrap()[0]
}

#[test]
fn a_server_that_asks_for_client_certificates_sees_them_and_refuses_others() {
    let ca = Ca::new();
    ca.issue("server", "localhost");
    let tls = ServerTls::from_pem(&PemFiles {
        client_roots: Some(ca.file("ca.pem")),
        ..ca.server_files()
    })
    .unwrap();
    let (sender, seen) = mpsc::channel();
    let served = serve_tls(tls, ConnectionOptions::default(), move |conn, call| {
        if let Call::Opened = call {
            let tls = conn.tls().expect("TLS");
            let _ = sender.send(tls.peer_certificates().map(|all| all[0].to_vec()));
        }
        echo(conn, call);
    });

    // Without one. The server's verdict follows the client's last flight (RFC 8446, section 4.4.3).
    let mut nobody = ca.client().connect(served.address());
    let refused = nobody.read(&mut [0; 1]).unwrap_err();
    assert!(
        refused.to_string().contains("CertificateRequired"),
        "{refused}"
    );

    // With one of another authority.
    let stranger = Ca::new();
    stranger.issue("mallory", "mallory");
    let client = ca.client().identity(&stranger, "mallory");
    let refused = client.connect(served.address()).read(&mut [0; 1]);
    assert!(refused.is_err());
    wait_for("both to be counted", || {
        served.loop_handle().metrics().handshakes_failed() == 2
    });

    let alice = ca.issue("alice", "alice");
    let client = ca.client().identity(&ca, "alice");
    assert_echoes_tls(&mut client.connect(served.address()));
    assert_eq!(seen.recv_timeout(DEADLINE).unwrap(), Some(alice));
    assert!(seen.try_recv().is_err());
}

#[test]
fn renewed_certificates_serve_new_connections_and_old_ones_go_on() {
    let ca = Ca::new();
    let first = ca.issue("server", "localhost");
    let tls = ServerTls::from_pem(&ca.server_files()).unwrap();
    let served = serve_tls(tls.clone(), ConnectionOptions::default(), echo);
    let mut old = ca.client().connect(served.address());
    assert_eq!(shown_by_server(&old), first);

    let second = ca.issue("server", "localhost");
    tls.reload(&ca.server_files()).unwrap();
    let mut new = ca.client().connect(served.address());
    assert_eq!(shown_by_server(&new), second);
    assert_echoes_tls(&mut old);
    assert_echoes_tls(&mut new);
}

#[test]
fn files_that_cannot_be_used_leave_what_is_in_use() {
    let ca = Ca::new();
    let first = ca.issue("server", "localhost");
    let tls = ServerTls::from_pem(&ca.server_files()).unwrap();
    let served = serve_tls(tls.clone(), ConnectionOptions::default(), echo);
    let path = ca.file("server.pem");
    for broken in [
        "",
        "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
    ] {
        std::fs::write(&path, broken).unwrap();
        let error = tls.reload(&ca.server_files()).unwrap_err();
        assert!(
            matches!(&error, Error::Tls { what, .. } if *what == path.display().to_string()),
            "{error}"
        );
    }
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(
        tls.reload(&ca.server_files()),
        Err(Error::Tls { .. })
    ));
    assert_eq!(
        shown_by_server(&ca.client().connect(served.address())),
        first
    );
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let ca = Ca::new();
    ca.issue("server", "localhost");
    ca.issue("other", "localhost");
    let files = PemFiles {
        key: ca.file("other.key"),
        ..ca.server_files()
    };
    assert!(matches!(
        ServerTls::from_pem(&files),
        Err(Error::Tls { what, .. }) if what == files.key.display().to_string()
    ));
}

#[test]
fn a_client_takes_up_new_roots_with_its_next_attempt_and_none_that_are_broken() {
    let (ca, stranger) = (Ca::new(), Ca::new());
    let served = serve_tls(ca.server(&[]), ConnectionOptions::default(), echo);
    let tls = stranger.client().tls("localhost");
    let client = start_client(served.address(), Some(tls.clone()), |_, _| {});
    assert!(matches!(
        client.events.closed(),
        CloseReason::ConnectFailed(_)
    ));
    tls.reload(&ca.client().0).unwrap();
    client.events.opened();

    let missing = ClientPemFiles {
        roots: ca.file("missing.pem"),
        ..ClientPemFiles::default()
    };
    assert!(matches!(tls.reload(&missing), Err(Error::Tls { .. })));
    let another = start_client(served.address(), Some(tls), |_, _| {});
    another.events.opened();
}

#[test]
fn a_client_names_the_file_it_cannot_use() {
    let ca = Ca::new();
    let files = ClientPemFiles {
        roots: ca.file("missing.pem"),
        ..ClientPemFiles::default()
    };
    let error = files.client_config().unwrap_err();
    assert!(error.to_string().contains("missing.pem"), "{error}");
}
