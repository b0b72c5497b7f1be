//! TLS as the command line asks for it.

use std::path::Path;
use std::sync::Arc;

use nexus_net::rustls::crypto::ring;
use nexus_net::rustls::{ClientConfig, RootCertStore};
use nexus_net::{ClientPemFiles, ClientTls, Error};

/// TLS with a server of this name, whose certificate is signed by one of `ca`, or by one of those that this
/// system trusts.
pub(crate) fn client(ca: Option<&Path>, server_name: &str) -> Result<ClientTls, String> {
    let tls = match ca {
        Some(ca) => ClientTls::from_pem(
            &ClientPemFiles {
                roots: ca.to_owned(),
                ..ClientPemFiles::default()
            },
            server_name,
        ),
        None => of_system(server_name)?,
    };
    tls.map_err(|error| error.to_string())
}

fn of_system(server_name: &str) -> Result<Result<ClientTls, Error>, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map(ToString::to_string);
        return Err(format!(
            "this system names no certificates to trust ({}): name one with --ca FILE",
            why.as_deref().unwrap_or("none found")
        ));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(ClientTls::new(Arc::new(config), server_name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_is_named() {
        let error = client(Some(Path::new("/no/such/file")), "localhost").unwrap_err();
        assert!(error.contains("/no/such/file"), "{error}");
    }
}
