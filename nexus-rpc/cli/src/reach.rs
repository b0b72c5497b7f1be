//! Why a provider cannot be reached: one connection to it, made only to find the cause.
//!
//! | found | how |
//! |---|---|
//! | nobody listens, no answer, no such host | connecting |
//! | TLS is spoken, and was not expected | a ClientHello is answered by a TLS record |
//! | TLS was expected, and is not spoken | the answer is no TLS record, or the provider answers HTTP |
//! | a certificate is refused, by this side or the provider | the handshake, and the first read after it (TLS 1.3) |

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription as Alert, CertificateError, ClientConfig, ClientConnection, Error};

use crate::failure::Failure;
use crate::tls::Tls;

const HEALTH: &[u8] = b"GET /health HTTP/1.1\r\nHost: nexus-rpc\r\nConnection: close\r\n\r\n";

const WITHOUT_TLS: &str = "call without TLS: leave out --tls-ca, --tls-name and the other --tls options (and NEXUS_TLS_*)";

/// What is wrong with the provider at `address` (host:port); `None` when nothing is found. Each step may take
/// `patience`.
pub(crate) fn trouble(address: &str, tls: Option<&Tls>, patience: Duration) -> Option<Failure> {
    let stream = match connect(address, patience) {
        Ok(stream) => stream,
        Err(error) => return Some(unconnected(address, &error)),
    };
    match tls {
        Some(tls) => {
            let error = handshake(stream, tls.config(), tls.server_name(), Some(HEALTH)).err()?;
            untrusting(address, tls, &error, patience)
        }
        None => speaks_tls(stream).then(|| {
            Failure::new(
                format!("{address} speaks TLS"),
                "say whom to trust and what name the provider has: --tls-ca FILE --tls-name NAME",
            )
        }),
    }
}

/// Why no connection can be made to `address` (host:port); `None` when it can.
pub(crate) fn unreachable(address: &str, patience: Duration) -> Option<Failure> {
    let error = connect(address, patience).err()?;
    Some(unconnected(address, &error))
}

fn connect(address: &str, patience: Duration) -> io::Result<TcpStream> {
    let mut failed = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, patience) {
            Ok(stream) => {
                stream.set_read_timeout(Some(patience))?;
                stream.set_write_timeout(Some(patience))?;
                return Ok(stream);
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

fn unconnected(address: &str, error: &io::Error) -> Failure {
    match error.kind() {
        ErrorKind::ConnectionRefused => Failure::new(
            format!("nothing listens on {address} (connection refused)"),
            "start the provider, or correct the address (--registry)",
        ),
        ErrorKind::TimedOut => Failure::new(
            format!("{address} does not answer (time-out)"),
            "see whether the host runs and a firewall drops the packets; or wait longer with --timeout",
        ),
        _ => Failure::new(
            format!("{address} cannot be reached: {error}"),
            "check the address (--registry) and the network to it",
        ),
    }
}

/// A handshake, then a request and the first bytes of its answer: a provider that refuses a certificate says so
/// after the handshake.
fn handshake(
    mut stream: TcpStream,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    request: Option<&[u8]>,
) -> io::Result<()> {
    let mut session = ClientConnection::new(config, name).map_err(io::Error::other)?;
    while session.is_handshaking() {
        session.complete_io(&mut stream)?;
    }
    if let Some(request) = request {
        let mut stream = rustls::Stream::new(&mut session, &mut stream);
        stream.write_all(request)?;
        stream.read_exact(&mut [0])?;
    }
    Ok(())
}

/// Whether the first byte of the answer to a ClientHello is that of a TLS record: a handshake or an alert.
fn speaks_tls(mut stream: TcpStream) -> bool {
    let Ok(config) = distrustful() else {
        return false;
    };
    // Any name will do: its certificate is not looked at.
    let Ok(name) = ServerName::try_from("provider.invalid") else {
        return false;
    };
    let Ok(mut session) = ClientConnection::new(Arc::new(config), name) else {
        return false;
    };
    let mut first = [0];
    session.write_tls(&mut stream).is_ok()
        && stream.read_exact(&mut first).is_ok()
        && matches!(first, [0x15 | 0x16])
}

/// Trusts nobody: enough for a ClientHello.
fn distrustful() -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let nobody = rustls::RootCertStore::empty();
    Ok(builder.with_root_certificates(nobody).with_no_client_auth())
}

fn untrusting(address: &str, tls: &Tls, error: &io::Error, patience: Duration) -> Option<Failure> {
    let cause = error
        .get_ref()
        .and_then(|cause| cause.downcast_ref::<Error>());
    let failure = |what: String, next: &str| Some(Failure::new(what, next));
    match cause {
        Some(Error::InvalidMessage(_)) => failure(format!("{address} speaks no TLS"), WITHOUT_TLS),
        Some(Error::InvalidCertificate(why)) => failure(
            format!(
                "the certificate of {address} is refused: {}",
                refusal(why, tls)
            ),
            advice(why),
        ),
        Some(Error::AlertReceived(alert)) => Some(alerted(address, tls, *alert)),
        Some(Error::PeerIncompatible(why)) => failure(
            format!("{address} and this program have no TLS in common: {why:?}"),
            "have the provider offer TLS 1.2 or 1.3",
        ),
        Some(other) => failure(
            format!("the TLS handshake with {address} failed: {other}"),
            "the provider's log tells more",
        ),
        // It ended without a word, as one that takes the ClientHello for a broken frame.
        None if answers_http(address, patience) => {
            failure(format!("{address} speaks no TLS"), WITHOUT_TLS)
        }
        None => failure(
            format!("the TLS handshake with {address} failed: {error}"),
            "see whether it speaks TLS at all; its log tells more",
        ),
    }
}

fn answers_http(address: &str, patience: Duration) -> bool {
    let mut first = [0; 5];
    let answer = connect(address, patience).and_then(|mut stream| {
        stream.write_all(HEALTH)?;
        stream.read_exact(&mut first)
    });
    answer.is_ok() && first == *b"HTTP/"
}

fn refusal(why: &CertificateError, tls: &Tls) -> String {
    match why {
        // The second is another authority of the same name.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "nobody in the file of --tls-ca has signed it".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("it is not for {}; {why}", tls.server_name().to_str())
        }
        why => why.to_string(),
    }
}

fn advice(why: &CertificateError) -> &'static str {
    match why {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "give the certificate of the authority that signed the provider's: --tls-ca FILE"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "give a name that the certificate is for: --tls-name NAME"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "renew the provider's certificate, and see whether the clock of this machine is right"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "see whether the clock of this machine is right, or wait until the certificate is valid"
        }
        _ => "have the provider's certificate made anew; `openssl x509 -text -in FILE` shows it",
    }
}

fn alerted(address: &str, tls: &Tls, alert: Alert) -> Failure {
    match (alert, tls.shows_certificate()) {
        (Alert::CertificateRequired | Alert::HandshakeFailure | Alert::BadCertificate, false) => {
            Failure::new(
                format!("{address} wants a client certificate"),
                "show one that the provider trusts: --tls-cert FILE --tls-key FILE",
            )
        }
        (Alert::CertificateExpired, true) => Failure::new(
            format!("{address} refuses the client certificate: it has expired"),
            "renew the certificate of --tls-cert",
        ),
        (
            Alert::UnknownCA
            | Alert::BadCertificate
            | Alert::CertificateUnknown
            | Alert::CertificateRevoked
            | Alert::UnsupportedCertificate
            | Alert::DecryptError
            | Alert::AccessDenied,
            true,
        ) => Failure::new(
            format!("{address} refuses the client certificate ({alert:?})"),
            "give --tls-cert a certificate that is signed by an authority which the provider trusts, for clients",
        ),
        (alert, _) => Failure::new(
            format!("{address} ended the TLS handshake ({alert:?})"),
            "the provider's log tells more",
        ),
    }
}
