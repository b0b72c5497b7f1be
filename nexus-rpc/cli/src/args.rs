//! The command line.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  nexus-rpc list
  nexus-rpc describe example.EchoService
  nexus-rpc call example.EchoService/Echo '{\"message\": \"hello\"}'
  nexus-rpc press example.EchoService/Echo '{\"message\": \"hello\"}' --callers 64 --duration 10s

Under TLS, say whom to trust and what name the providers have:
  nexus-rpc --tls-ca ca.pem --tls-name shop.internal list

Without ZooKeeper, name the providers themselves:
  nexus-rpc --registry list://127.0.0.1:9100 list

A provider that is not of nexus-rpc (brpc) does not tell its types; give its .proto file:
  nexus-rpc --registry list://127.0.0.1:8000 call example.EchoService/Echo \\
      '{\"message\": \"hello\"}' --proto echo.proto

Exit codes: 0 done, 1 failed (stderr says why, and what to do next), 2 wrong usage.";

/// Looks at services that speak baidu_std, calls them, and puts load on them.
#[derive(Parser, Debug)]
#[command(name = "nexus-rpc", version, after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const FOR_ALL: &str = "Options of every command";

/// What every command may be told.
#[derive(clap::Args, Debug)]
pub(crate) struct Global {
    /// Who provides what: zookeeper://user:password@host:port,host:port/root, where user and password are
    /// optional, or list://host:port,host:port
    #[arg(
        long,
        global = true,
        help_heading = FOR_ALL,
        value_name = "URL",
        env = "NEXUS_REGISTRY",
        // It may hold a password.
        hide_env_values = true,
        default_value = "zookeeper://127.0.0.1:2181/nexus"
    )]
    pub(crate) registry: String,
    /// How long to wait: for the registry, for a connection, for an answer
    #[arg(
        long,
        global = true,
        help_heading = FOR_ALL,
        value_name = "TIME",
        default_value = "5s",
        value_parser = humantime::parse_duration
    )]
    pub(crate) timeout: Duration,
    /// What a provider's authenticator wants to see; better given in the environment
    #[arg(
        long,
        global = true,
        help_heading = FOR_ALL,
        value_name = "TEXT",
        env = "NEXUS_AUTHORIZATION",
        hide_env_values = true
    )]
    pub(crate) authorization: Option<String>,
    #[command(flatten)]
    pub(crate) tls: TlsFiles,
}

/// How providers that speak TLS are known, and who asks.
#[derive(clap::Args, Debug)]
pub(crate) struct TlsFiles {
    /// Speak TLS, and trust providers whose certificates are signed by one of those in this PEM file
    #[arg(long, global = true, help_heading = FOR_ALL, value_name = "FILE", env = "NEXUS_TLS_CA")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// With --tls-ca: the name that every provider's certificate has to be for
    #[arg(long, global = true, help_heading = FOR_ALL, value_name = "NAME", env = "NEXUS_TLS_NAME")]
    pub(crate) tls_name: Option<String>,
    /// The certificate to show to providers that want one, a PEM file
    #[arg(long, global = true, help_heading = FOR_ALL, value_name = "FILE", env = "NEXUS_TLS_CERT")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The private key of that certificate, a PEM file
    #[arg(long, global = true, help_heading = FOR_ALL, value_name = "FILE", env = "NEXUS_TLS_KEY")]
    pub(crate) tls_key: Option<PathBuf>,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Show the services and who provides them
    List(List),
    /// Show methods and messages as .proto text
    Describe(Describe),
    /// Call a method with JSON and print its answer as JSON
    Call(Call),
    /// Put load on a method and measure it; Ctrl-C ends it with what was measured so far
    ///
    /// Each call is made once: failures are counted, not retried. The latencies are those of the calls that
    /// succeeded; if none did, the exit code is 1.
    Press(Press),
}

/// Where messages are defined.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct TypeSource {
    /// A .proto file that defines the service; several may be given. Default: the provider is asked
    #[arg(long, value_name = "FILE")]
    pub(crate) proto: Vec<PathBuf>,
    /// A folder that the .proto files and their imports are looked for in. Default: the files' own
    #[arg(long, value_name = "DIR", requires = "proto")]
    pub(crate) import: Vec<PathBuf>,
    /// A file of descriptors that defines the service, of `protoc --include_imports --descriptor_set_out=FILE` or
    /// `buf build -o FILE`: for .proto files that --proto does not take
    #[arg(long, value_name = "FILE", conflicts_with = "proto")]
    pub(crate) descriptors: Option<PathBuf>,
    /// Where the provider shows its pages, when that is a port of its own
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["proto", "descriptors"])]
    pub(crate) pages: Option<String>,
}

#[derive(clap::Args, Debug)]
pub(crate) struct List {
    /// For programs: one JSON array
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Describe {
    /// package.Service, package.Service.Method or package.Message. Default: every service
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) types: TypeSource,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Call {
    /// package.Service/Method
    pub(crate) method: MethodName,
    /// The request as JSON; - reads it from stdin
    #[arg(value_name = "JSON", default_value = "{}")]
    pub(crate) request: String,
    #[command(flatten)]
    pub(crate) types: TypeSource,
    /// Metadata to go along; several may be given
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) metadata: Vec<(String, String)>,
    /// A file to go along as the attachment
    #[arg(long, value_name = "FILE")]
    pub(crate) attachment: Option<PathBuf>,
    /// Where to write the attachment of the answer (of the last one, with --repeat)
    #[arg(long, value_name = "FILE")]
    pub(crate) save_attachment: Option<PathBuf>,
    /// Call so many times, one after the other, and print an answer a line
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) repeat: u64,
    /// Also show, on stderr, how long each call took and the metadata of its answer
    #[arg(long, short)]
    pub(crate) verbose: bool,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Press {
    /// package.Service/Method
    pub(crate) method: MethodName,
    /// The request as JSON; - reads it from stdin
    #[arg(value_name = "JSON", default_value = "{}")]
    pub(crate) request: String,
    #[command(flatten)]
    pub(crate) types: TypeSource,
    /// Calls that are out at a time. Default: 32 flat out; with --rate as many as it takes, up to 10000
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=CALLERS_MAX))]
    pub(crate) callers: Option<u32>,
    /// Connections to each provider
    #[arg(long, value_name = "C", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) connections: u16,
    /// Calls per second, sent when their time has come whatever the answers do; latency counts from
    /// that time. Default: flat out, each caller calling again as soon as it is answered
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: Option<u32>,
    /// For how long calls are sent
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,
    /// Metadata to go along; several may be given
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) metadata: Vec<(String, String)>,
    /// For programs: the result as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// A channel lets so many calls wait for a provider.
pub(crate) const CALLERS_MAX: i64 = 10_000;

/// A method, as `package.Service/Method` or `package.Service.Method`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MethodName {
    pub(crate) service: String,
    pub(crate) method: String,
}

impl FromStr for MethodName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').or_else(|| text.rsplit_once('.'));
        match parts {
            Some((service, method)) if !service.is_empty() && !method.is_empty() => Ok(Self {
                service: service.to_owned(),
                method: method.to_owned(),
            }),
            _ => Err("package.Service/Method is expected".to_owned()),
        }
    }
}

impl std::fmt::Display for MethodName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.service, self.method)
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("KEY=VALUE is expected".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_method_is_named_with_a_slash_or_a_dot() {
        let name = |text: &str| text.parse::<MethodName>().map(|name| name.to_string());
        assert_eq!(name("a.b.C/D"), Ok("a.b.C/D".to_owned()));
        assert_eq!(name("a.b.C.D"), Ok("a.b.C/D".to_owned()));
        for wrong in ["", "D", "/D", "a.b.C/", ".D", "C."] {
            assert!(name(wrong).is_err(), "{wrong:?}");
        }
    }
}
