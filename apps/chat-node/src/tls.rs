//! Certificates and keys: from the keys of a configuration to TLS, and read again by [`Reload`].

use std::path::{Path, PathBuf};

use nexus_net::{ClientPemFiles, ClientTls, Error, PemFiles, ServerTls};
use serde::Deserialize;

use crate::config::Problems;
use crate::reload::Reload;

/// The keys `certificate` and `key` of a side that listens. Both or none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsSection {
    /// The certificate, followed by those between it and the root (PEM).
    pub certificate: Option<PathBuf>,
    /// Its private key (PEM).
    pub key: Option<PathBuf>,
}

impl TlsSection {
    /// TLS for whoever connects, if the section asks for it. What is wrong is noted in `problems`, with
    /// file and key; the files are added to what is read again. `section` is the section's name.
    pub fn server(
        &self,
        section: &str,
        problems: &mut Problems,
        reload: &mut Reload,
    ) -> Option<ServerTls> {
        let (certificates, key) = both(
            section,
            &self.certificate,
            &self.key,
            "certificate",
            problems,
        )?;
        let files = PemFiles {
            certificates,
            key,
            ..PemFiles::default()
        };
        server(section, files, problems, reload)
    }
}

/// The keys `ca`, `certificate` and `key` of a section about a server that is connected to: the files, if
/// the section asks for TLS. They are read to see whether they are good; what is wrong is noted in
/// `problems`, with file and key.
pub fn backend(
    section: &str,
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    problems: &mut Problems,
) -> Option<ClientPemFiles> {
    let identity = both(section, &certificate, &key, "certificate", problems);
    let Some(roots) = ca else {
        problems.require(
            &format!("{section}.ca"),
            certificate.is_none() && key.is_none(),
            "missing: needed with a certificate, to know the other side by",
        );
        return None;
    };
    let files = ClientPemFiles {
        roots,
        identity,
        ..ClientPemFiles::default()
    };
    note_client(section, &files, problems, files.client_config())?;
    Some(files)
}

/// TLS from these files. See [`TlsSection::server`].
pub(crate) fn server(
    section: &str,
    files: PemFiles,
    problems: &mut Problems,
    reload: &mut Reload,
) -> Option<ServerTls> {
    let keys = [
        ("certificate", Some(&files.certificates)),
        ("key", Some(&files.key)),
        ("ca", files.client_roots.as_ref()),
    ];
    let tls = note(section, &keys, problems, ServerTls::from_pem(&files))?;
    let shared = tls.clone();
    reload.add(format!("[{section}]"), move || {
        shared.reload(&files).map_err(|error| error.to_string())
    });
    Some(tls)
}

/// TLS towards servers whose certificates are for `server_name`. See [`TlsSection::server`].
pub(crate) fn client(
    section: &str,
    files: ClientPemFiles,
    server_name: &str,
    problems: &mut Problems,
    reload: &mut Reload,
) -> Option<ClientTls> {
    let made = ClientTls::from_pem(&files, server_name);
    let tls = note_client(section, &files, problems, made)?;
    let shared = tls.clone();
    reload.add(format!("[{section}]"), move || {
        shared.reload(&files).map_err(|error| error.to_string())
    });
    Some(tls)
}

/// Two keys of a section that mean something together only.
pub(crate) fn both(
    section: &str,
    first: &Option<PathBuf>,
    key: &Option<PathBuf>,
    first_name: &str,
    problems: &mut Problems,
) -> Option<(PathBuf, PathBuf)> {
    match (first, key) {
        (Some(first), Some(key)) => return Some((first.clone(), key.clone())),
        (None, None) => {}
        (Some(_), None) => problems.add(
            &format!("{section}.key"),
            format!("missing: needed with `{section}.{first_name}`"),
        ),
        (None, Some(_)) => problems.add(
            &format!("{section}.{first_name}"),
            format!("missing: needed with `{section}.key`"),
        ),
    }
    None
}

fn note_client<T>(
    section: &str,
    files: &ClientPemFiles,
    problems: &mut Problems,
    result: Result<T, Error>,
) -> Option<T> {
    let identity = files.identity.as_ref();
    let keys = [
        ("ca", Some(&files.roots)),
        ("certificate", identity.map(|(certificate, _)| certificate)),
        ("key", identity.map(|(_, key)| key)),
    ];
    note(section, &keys, problems, result)
}

/// Notes an error about the key whose file it names.
fn note<T>(
    section: &str,
    keys: &[(&str, Option<&PathBuf>)],
    problems: &mut Problems,
    result: Result<T, Error>,
) -> Option<T> {
    let error = match result {
        Ok(value) => return Some(value),
        Err(error) => error,
    };
    let of_file = |what: &str| {
        let named = |path: &&PathBuf| Path::new(what) == path.as_path();
        keys.iter()
            .find(|(_, path)| path.as_ref().is_some_and(named))
            .map(|(key, _)| *key)
    };
    let key = match &error {
        Error::Tls { what, .. } => of_file(what).unwrap_or("server_name"),
        _ => "certificate",
    };
    problems.add(&format!("{section}.{key}"), error);
    None
}
