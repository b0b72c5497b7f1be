//! Echo under TLS, with certificates renewed while it runs:
//! `cargo run -p nexus-net --features tls --example tls_echo -- 127.0.0.1:7443 cert.pem key.pem`.
//!
//! The handler is the one of `echo`: TLS is a layer below it. Enter reads the files again; whoever is
//! connected stays, and new connections are shown the new certificate. For a certificate to try:
//!
//! ```sh
//! openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 \
//!     -subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem
//! openssl s_client -quiet -CAfile cert.pem -connect 127.0.0.1:7443
//! ```

use bytes::BytesMut;
use nexus_net::{
    Address, Connection, Error, Handler, LoopGroup, PemFiles, ServerOptions, ServerTls, TcpServer,
};

struct Echo;

impl Handler for Echo {
    fn opened(&mut self, conn: &mut Connection<'_>) {
        if let Some(tls) = conn.tls() {
            println!("{}: {:?}", conn.peer_addr(), tls.version());
        }
    }

    fn data(&mut self, conn: &mut Connection<'_>, input: &mut BytesMut) {
        conn.send(input.split().freeze());
    }
}

/// Starts the server.
pub(crate) fn start(
    loops: &LoopGroup,
    address: impl Into<Address>,
    tls: &ServerTls,
) -> Result<TcpServer, Error> {
    let options = ServerOptions {
        tls: Some(tls.clone()),
        ..ServerOptions::default()
    };
    TcpServer::start(loops, address, options, |_| Box::new(Echo))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, certificates, key] = arguments.as_slice() else {
        return Err("usage: tls_echo ADDRESS CERTIFICATES.pem KEY.pem".into());
    };
    let files = PemFiles {
        certificates: certificates.into(),
        key: key.into(),
        ..PemFiles::default()
    };
    let tls = ServerTls::from_pem(&files)?;
    let loops = LoopGroup::start("tls-echo", 2)?;
    let server = start(&loops, address.parse::<Address>()?, &tls)?;
    println!("tls_echo listens on {}", server.local_addr());
    for _line in std::io::stdin().lines() {
        match tls.reload(&files) {
            Ok(()) => println!("certificates read again"),
            // What was in use stays in use.
            Err(error) => println!("{error}"),
        }
    }
    loop {
        std::thread::park();
    }
}
