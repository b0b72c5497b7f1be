//! What goes wrong, and what to do next.

use std::fmt;

use nexus_rpc::{ErrorCode, RpcError};

use crate::args::MethodName;

/// Why a command failed. Two lines: what happened, and what its user can do about it.
#[derive(Debug)]
pub(crate) struct Failure {
    what: String,
    next: String,
}

impl Failure {
    pub(crate) fn new(what: impl Into<String>, next: impl Into<String>) -> Self {
        let (what, next) = (what.into(), next.into());
        Self { what, next }
    }

    /// Without what to do next.
    pub(crate) fn what(&self) -> &str {
        &self.what
    }

    /// The same, as the cause of `what`.
    pub(crate) fn of(self, what: impl fmt::Display) -> Self {
        Self::new(format!("{what}: {}", self.what), self.next)
    }

    /// With something else that can be done.
    pub(crate) fn or(self, next: &str) -> Self {
        Self::new(self.what, format!("{}, or {next}", self.next))
    }

    /// A call that failed.
    pub(crate) fn call(method: &MethodName, error: &RpcError) -> Self {
        let next = advice(method, error.code());
        let error = printable(&error.to_string());
        Self::new(format!("{method}: {error}"), next)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}\n next: {}", self.what, self.next)
    }
}

/// A text that somebody else wrote, for a terminal: without what would steer it.
pub(crate) fn printable(text: &str) -> String {
    let printable = |char: char| if char.is_control() { ' ' } else { char };
    text.chars().map(printable).collect()
}

fn advice(method: &MethodName, code: ErrorCode) -> String {
    let service = &method.service;
    match code {
        ErrorCode::NO_SERVICE | ErrorCode::NO_METHOD => format!(
            "`nexus-rpc describe {service}` shows what the provider has; its program may be older \
             than the .proto file"
        ),
        ErrorCode::BAD_REQUEST => {
            format!("compare the request with `nexus-rpc describe {service}.{}`", method.method)
        }
        ErrorCode::UNAUTHENTICATED => {
            "set NEXUS_AUTHORIZATION (or --authorization) to what the provider's authenticator wants"
                .to_owned()
        }
        ErrorCode::TLS => {
            "the provider wants a certificate that it trusts: --tls-cert FILE --tls-key FILE"
                .to_owned()
        }
        ErrorCode::DEADLINE_EXCEEDED => {
            "the handler may still be running; wait longer with --timeout, or see the provider's \
             /status page for what takes its time"
                .to_owned()
        }
        ErrorCode::OVERLOADED | ErrorCode::SEND_QUEUE_FULL => {
            "call with fewer callers or later; the provider's /status page shows its limits"
                .to_owned()
        }
        ErrorCode::STOPPING => {
            "the provider is shutting down: call again, another one takes over".to_owned()
        }
        ErrorCode::HOST_DOWN | ErrorCode::CONNECTION_FAILED | ErrorCode::CONNECTION_CLOSED => {
            "see whether the provider runs and is reached from here: `nexus-rpc list` shows its \
             address"
                .to_owned()
        }
        code if code.name().is_none() => {
            "the code is the service's own: its documentation tells what it means".to_owned()
        }
        _ => "the provider's log tells more".to_owned(),
    }
}
