//! Certificates and secrets, from the configuration to what comes of them.

use std::path::{Path, PathBuf};

use chat_node::cluster::{ClusterSection, ProxySide, ServerSide};
use chat_node::config::{self, Problems};
use chat_node::reload::Reload;
use chat_node::tls::TlsSection;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use tempfile::TempDir;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A folder with an authority's certificate, a node's of it, and a secret.
fn files() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let ca_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    write("ca.pem", &params.self_signed(&ca_key).unwrap().pem());
    let issuer = rcgen::Issuer::new(params, ca_key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["chat-server".to_owned()]).unwrap();
    write("node.pem", &params.signed_by(&key, &issuer).unwrap().pem());
    write("node.key", &key.serialize_pem());
    write("other.key", &KeyPair::generate().unwrap().serialize_pem());
    write("secret", SECRET);
    write("empty", "");
    folder
}

/// A section, whose values are names of files in the folder.
fn section<T: serde::de::DeserializeOwned>(folder: &Path, keys: &[(&str, &str)]) -> T {
    let mut text = String::new();
    for (key, file) in keys {
        text += &format!("{key} = {:?}\n", folder.join(file));
    }
    let file = folder.join("section.toml");
    std::fs::write(&file, text).unwrap();
    config::load(&file).unwrap()
}

fn both_sides(folder: &Path, keys: &[(&str, &str)]) -> Result<(ServerSide, ProxySide), String> {
    let section: ClusterSection = section(folder, keys);
    let (mut problems, mut reload) = (Problems::new("node.toml"), Reload::default());
    let server = section.server_side(&mut problems, &mut reload);
    let proxy = section.proxy_side(&mut problems, &mut reload);
    problems.finish().map_err(|error| error.to_string())?;
    Ok((server, proxy))
}

#[test]
fn an_empty_section_leaves_the_cluster_open() {
    let folder = files();
    let (server, proxy) = both_sides(folder.path(), &[]).unwrap();
    assert!(server.is_open());
    assert!(proxy.tls.is_none() && proxy.secret.is_none());
}

#[test]
fn a_secret_certificates_or_both_close_it() {
    let folder = files();
    let secret = [("secret_file", "secret")];
    let certificates = [
        ("ca", "ca.pem"),
        ("certificate", "node.pem"),
        ("key", "node.key"),
    ];
    let (server, proxy) = both_sides(folder.path(), &secret).unwrap();
    assert!(!server.is_open() && server.tls.is_none());
    assert!(
        server
            .secret
            .unwrap()
            .is_shown(&proxy.secret.unwrap().shown())
    );
    let (server, proxy) = both_sides(folder.path(), &certificates).unwrap();
    assert!(!server.is_open() && server.secret.is_none());
    assert!(server.tls.is_some() && proxy.tls.is_some());
    let all = [&secret[..], &certificates[..]].concat();
    let (server, proxy) = both_sides(folder.path(), &all).unwrap();
    assert!(server.tls.is_some() && server.secret.is_some());
    assert!(proxy.tls.is_some() && proxy.secret.is_some());
}

#[test]
fn what_is_missing_or_broken_is_named_by_key_and_file() {
    let folder = files();
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[("secret_file", "empty")], "cluster.secret_file"),
        (&[("secret_file", "none")], "cluster.secret_file"),
        (&[("ca", "ca.pem")], "cluster.certificate"),
        (&[("certificate", "node.pem")], "cluster.key"),
        (&[("key", "node.key")], "cluster.certificate"),
        (
            &[("certificate", "node.pem"), ("key", "node.key")],
            "cluster.ca",
        ),
        (
            &[
                ("ca", "empty"),
                ("certificate", "node.pem"),
                ("key", "node.key"),
            ],
            "cluster.ca",
        ),
        (
            &[
                ("ca", "ca.pem"),
                ("certificate", "none"),
                ("key", "node.key"),
            ],
            "cluster.certificate",
        ),
        (
            &[
                ("ca", "ca.pem"),
                ("certificate", "node.pem"),
                ("key", "empty"),
            ],
            "cluster.key",
        ),
        (
            &[
                ("ca", "ca.pem"),
                ("certificate", "node.pem"),
                ("key", "other.key"),
            ],
            "cluster.key",
        ),
    ];
    for (keys, expected) in cases {
        let error = both_sides(folder.path(), keys).unwrap_err();
        let of_key = |line: &&str| line.contains(&format!("node.toml: key \"{expected}\""));
        let line = error.lines().find(of_key);
        let line = line.unwrap_or_else(|| panic!("{keys:?}: {error}"));
        // A file that is there and cannot be used is named, too.
        if !line.contains("missing: needed") {
            let named = expected.strip_prefix("cluster.").unwrap();
            let (_, file) = keys.iter().find(|(key, _)| *key == named).unwrap();
            let path: PathBuf = folder.path().join(file);
            assert!(line.contains(&path.display().to_string()), "{line}");
        }
    }
}

#[test]
fn a_listening_side_needs_certificate_and_key() {
    let folder = files();
    let server = |keys: &[(&str, &str)]| {
        let section: TlsSection = section(folder.path(), keys);
        let (mut problems, mut reload) = (Problems::new("proxy.toml"), Reload::default());
        let tls = section.server("tls", &mut problems, &mut reload);
        problems.finish().map_err(|error| error.to_string())?;
        Ok::<_, String>((tls.is_some(), format!("{reload:?}")))
    };
    assert_eq!(server(&[]), Ok((false, "[]".to_owned())));
    let whole = [("certificate", "node.pem"), ("key", "node.key")];
    assert_eq!(server(&whole), Ok((true, r#"["[tls]"]"#.to_owned())));
    let error = server(&whole[..1]).unwrap_err();
    assert!(error.contains("\"tls.key\": missing"), "{error}");
    let error = server(&[whole[0], ("key", "other.key")]).unwrap_err();
    assert!(
        error.contains("\"tls.key\"") && error.contains("other.key"),
        "{error}"
    );
}
