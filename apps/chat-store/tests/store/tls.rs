//! A MariaDB with TLS, which asks for a certificate.

use chat_store::*;
use nexus_testkit::{Authority, MariaDb, MariaDbOptions, ServerFiles};

#[test]
fn a_database_with_tls_serves_who_shows_a_certificate_and_is_known_by_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Authority::open(folder.path(), "ca").unwrap();
    let other_ca = Authority::open(folder.path(), "other-ca").unwrap();
    let node = ca.issue("node", "chat-server").unwrap();
    let stranger = other_ca.issue("stranger", "chat-server").unwrap();
    let database = MariaDb::start_with(MariaDbOptions {
        tls: Some(ServerFiles {
            identity: ca.issue("mariadb", "mariadb").unwrap(),
            client_ca: ca.certificate(),
            probe: node.clone(),
        }),
        ..MariaDbOptions::default()
    })
    .unwrap();
    let prepare = |tls: Option<MySqlTls>| {
        let options = MySqlOptions {
            tls,
            ..MySqlOptions::new(database.url())
        };
        MySqlStore::new(options).unwrap().prepare_schema()
    };
    let with = |ca: &Authority, identity: Option<&nexus_testkit::Identity>| {
        Some(MySqlTls {
            ca: ca.certificate(),
            identity: identity.map(|own| (own.certificate.clone(), own.key.clone())),
        })
    };
    for (what, tls) in [
        ("plain", None),
        ("without a certificate", with(&ca, None)),
        ("with a stranger's", with(&ca, Some(&stranger))),
        (
            "to a database that is not believed",
            with(&other_ca, Some(&node)),
        ),
    ] {
        let refused = prepare(tls);
        assert!(refused.is_err(), "{what}");
    }
    prepare(with(&ca, Some(&node))).unwrap();
}
