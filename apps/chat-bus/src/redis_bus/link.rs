//! [`Link`]: one connection to Redis, on which every request has a deadline.
//!
//! The crate's own pipeline and connection set-up are not used: both read on after a read has
//! timed out, once per outstanding reply, so that a silent Redis would hold a caller for as many
//! timeouts as it has commands. Here the first failure ends the link.

use std::time::{Duration, Instant};

use redis::{
    Client, Cmd, Connection, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    RedisConnectionInfo, RedisError, ServerError, Value,
};

use super::tls::RedisTls;

/// How to make links.
#[derive(Clone)]
pub(super) struct Endpoint {
    client: Client,
    /// With TLS: certificates are those of now.
    tls: Option<RedisTls>,
    /// Written on every new link: `AUTH` and `SELECT`, where the URL has them.
    set_up: Vec<Cmd>,
    /// How long a request may take, and a connect together with the request it is made for.
    pub(super) timeout: Duration,
}

impl Endpoint {
    /// The Redis at `url`; the error says what is wrong with it, without its password.
    pub(super) fn new(
        url: &str,
        tls: Option<&RedisTls>,
        timeout: Duration,
    ) -> Result<Self, String> {
        let expected = "expected redis://[[user]:password@]host:port[/db], rediss:// with TLS, or \
                        unix:///path";
        let info: ConnectionInfo = url
            .into_connection_info()
            .map_err(|error| format!("{}; {expected}", error.detail().unwrap_or("not a URL")))?;
        match info.addr() {
            ConnectionAddr::TcpTls { insecure: true, .. } => {
                return Err("a Redis that anybody may stand in for is not supported".to_owned());
            }
            ConnectionAddr::TcpTls { .. } => {}
            _ if tls.is_some() => {
                return Err(format!("certificates are for TLS only; {expected}"));
            }
            _ => {}
        }
        let set_up = set_up(info.redis_settings());
        let bare = RedisConnectionInfo::default().set_skip_set_lib_name();
        let client = Client::open(info.set_redis_settings(bare))
            .map_err(|_| format!("not a URL; {expected}"))?;
        Ok(Self {
            client,
            tls: tls.cloned(),
            set_up,
            timeout,
        })
    }

    /// Connects, authenticates and selects the database, all before `deadline`.
    pub(super) fn connect(&self, deadline: Instant) -> Result<Link, LinkError> {
        let connection = match &self.tls {
            None => self
                .client
                .get_connection_with_timeout(remaining(deadline)?)?,
            Some(tls) => {
                let info = self.client.get_connection_info().clone();
                Client::build_with_tls(info, tls.certificates())?
                    .get_connection_with_timeout(remaining(deadline)?)?
            }
        };
        let mut link = Link { connection };
        if self.set_up.is_empty() {
            return Ok(link);
        }
        let mut request = Vec::new();
        for command in &self.set_up {
            command.write_packed_command(&mut request);
        }
        link.exchange_checked(&request, self.set_up.len(), deadline)?;
        Ok(link)
    }
}

/// One connection. After an error it is out of step with Redis and must be dropped.
pub(super) struct Link {
    connection: Connection,
}

impl Link {
    /// Writes `request`, which holds `replies` commands, and reads that many replies, errors of
    /// the server among them.
    ///
    /// Ends at the first read or write that fails; at the latest when twice the time until
    /// `deadline` has passed, in case the last reply read in time was followed by silence.
    pub(super) fn exchange(
        &mut self,
        request: &[u8],
        replies: usize,
        deadline: Instant,
    ) -> Result<Vec<Value>, LinkError> {
        let patience = remaining(deadline)?;
        self.connection.set_write_timeout(Some(patience))?;
        self.connection.set_read_timeout(Some(patience))?;
        self.connection.send_packed_command(request)?;
        let mut values = Vec::with_capacity(replies);
        for _ in 0..replies {
            remaining(deadline)?;
            values.push(self.connection.recv_response()?);
        }
        Ok(values)
    }

    /// As [`exchange`](Self::exchange), with an error of the server for a failure.
    pub(super) fn exchange_checked(
        &mut self,
        request: &[u8],
        replies: usize,
        deadline: Instant,
    ) -> Result<(), LinkError> {
        for reply in self.exchange(request, replies, deadline)? {
            if let Value::ServerError(error) = reply {
                return Err(LinkError::Failed(server_error(&error)));
            }
        }
        Ok(())
    }

    /// The connection itself, for a subscription.
    pub(super) fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    /// Redis closed the connection, or had done so before.
    #[error("the connection was closed")]
    Closed,
    /// Redis was silent for too long.
    #[error("no answer in time")]
    TimedOut,
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

impl From<RedisError> for LinkError {
    fn from(error: RedisError) -> Self {
        if error.is_timeout() {
            Self::TimedOut
        } else if error.is_connection_dropped() && !error.is_connection_refusal() {
            Self::Closed
        } else {
            Self::Failed(error.to_string())
        }
    }
}

/// Whether Redis says that it cannot at the moment: it loads its data, runs a script, follows another, has no
/// memory, or cannot write to its disk.
pub(super) fn is_passing(error: &ServerError) -> bool {
    matches!(
        error.code(),
        "LOADING" | "BUSY" | "MASTERDOWN" | "READONLY" | "MISCONF" | "OOM" | "NOREPLICAS"
    )
}

/// An error of the server as text, without the arguments of the command it may repeat: those can
/// be messages or passwords.
pub(super) fn server_error(error: &ServerError) -> String {
    let details = error.details().unwrap_or_default();
    let details = details.split(", with args").next().unwrap_or_default();
    format!("{} {details}", error.code())
}

/// The time until `deadline`, never zero, which a socket would take as "for ever".
fn remaining(deadline: Instant) -> Result<Duration, LinkError> {
    let remaining = deadline.saturating_duration_since(Instant::now());
    if remaining.is_zero() {
        Err(LinkError::TimedOut)
    } else {
        Ok(remaining)
    }
}

fn set_up(settings: &RedisConnectionInfo) -> Vec<Cmd> {
    let mut commands = Vec::new();
    if let Some(password) = settings.password() {
        let mut auth = redis::cmd("AUTH");
        if let Some(user) = settings.username() {
            auth.arg(user);
        }
        auth.arg(password);
        commands.push(auth);
    }
    if settings.db() != 0 {
        let mut select = redis::cmd("SELECT");
        select.arg(settings.db());
        commands.push(select);
    }
    commands
}
