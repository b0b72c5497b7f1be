//! [`Link`]: one connection to Redis, on which every request has a deadline.
//!
//! The crate's own pipeline and connection set-up are not used: both read on after a read has
//! timed out, once per outstanding reply, so that a silent Redis would hold a caller for as many
//! timeouts as it has commands. Here the first failure ends the link, and so does a [`Refusal`].
//!
//! A link is of use only where Redis takes writes: a replica answers a `PUBLISH` and passes it on to nobody. So each link
//! begins with a small write, and goes on with one every [`CHECK_INTERVAL`], written together with a request. A master that
//! was demoted refuses it, and the next link leads to wherever the address leads by then. The first write has another use:
//! a connection to a free port of this machine may by chance be connected to itself, and then repeats what it is sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{
    Client, Cmd, Connection, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    RedisConnectionInfo, RedisError, Value,
};

use super::refusal::{Refusal, server_error};
use super::tls::RedisTls;

/// How often a link is checked, at most.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How long the key lives that is written then.
const CHECK_LIFE: Duration = Duration::from_secs(60);

/// How to make links.
#[derive(Clone)]
pub(super) struct Endpoint {
    client: Client,
    /// With TLS: certificates are those of now.
    tls: Option<RedisTls>,
    /// Written on every new link: `AUTH` and `SELECT`, where the URL has them.
    set_up: Vec<Cmd>,
    /// The write that shows whether Redis takes writes.
    check: Arc<[u8]>,
    /// How long a request may take, and a connect together with the request it is made for.
    pub(super) timeout: Duration,
}

impl Endpoint {
    /// The Redis at `url`; the error says what is wrong with it, without its password. `check_key` is written on each
    /// link.
    pub(super) fn new(
        url: &str,
        tls: Option<&RedisTls>,
        check_key: &str,
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
            check: check(check_key).into(),
            timeout,
        })
    }

    /// Connects, authenticates, selects the database and checks that Redis takes writes, all before `deadline`.
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
        let mut link = Link {
            connection,
            check: Arc::clone(&self.check),
            checked: None,
        };
        let mut request = Vec::new();
        for command in &self.set_up {
            command.write_packed_command(&mut request);
        }
        link.send(&request, deadline)?;
        for _ in &self.set_up {
            if let Value::ServerError(error) = link.receive(deadline)? {
                return Err(LinkError::Failed(server_error(&error)));
            }
        }
        link.send(&self.check, deadline)?;
        link.receive_check(deadline)?;
        Ok(link)
    }
}

/// One connection. After an error it is out of step with Redis and must be dropped.
pub(super) struct Link {
    connection: Connection,
    check: Arc<[u8]>,
    /// When Redis last took a write on it.
    checked: Option<Instant>,
}

impl Link {
    /// Writes `request`, which holds `replies` commands, and reads that many replies, errors of the request itself
    /// among them.
    ///
    /// Ends at the first read or write that fails, and at the first refusal; at the latest when twice the time until
    /// `deadline` has passed, in case the last reply read in time was followed by silence.
    pub(super) fn exchange(
        &mut self,
        request: &[u8],
        replies: usize,
        deadline: Instant,
    ) -> Result<Vec<Value>, LinkError> {
        let is_recent = |checked: Instant| checked.elapsed() < CHECK_INTERVAL;
        let is_due = !self.checked.is_some_and(is_recent);
        if is_due {
            self.send(&Arc::clone(&self.check), deadline)?;
        }
        self.send(request, deadline)?;
        if is_due {
            self.receive_check(deadline)?;
        }
        (0..replies).map(|_| self.receive(deadline)).collect()
    }

    /// As [`exchange`](Self::exchange), with any error of the server for a failure.
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

    fn send(&mut self, request: &[u8], deadline: Instant) -> Result<(), LinkError> {
        if request.is_empty() {
            return Ok(());
        }
        let patience = remaining(deadline)?;
        self.connection.set_write_timeout(Some(patience))?;
        self.connection.set_read_timeout(Some(patience))?;
        let Err(error) = self.connection.send_packed_command(request) else {
            return Ok(());
        };
        match LinkError::from(error) {
            LinkError::TimedOut => Err(LinkError::TimedOut),
            // Redis may have said why before it closed the connection: it has too many.
            error => match self.receive(deadline) {
                Err(refused @ LinkError::Refused(_)) => Err(refused),
                _ => Err(error),
            },
        }
    }

    fn receive(&mut self, deadline: Instant) -> Result<Value, LinkError> {
        remaining(deadline)?;
        match self.connection.recv_response()? {
            Value::ServerError(error) => match Refusal::of(&error) {
                Some(refusal) => Err(LinkError::Refused(refusal)),
                None => Ok(Value::ServerError(error)),
            },
            value => Ok(value),
        }
    }

    /// Reads the answer to the check.
    fn receive_check(&mut self, deadline: Instant) -> Result<(), LinkError> {
        match self.receive(deadline)? {
            Value::Okay => {
                self.checked = Some(Instant::now());
                Ok(())
            }
            Value::ServerError(error) => Err(LinkError::Failed(server_error(&error))),
            _ => Err(LinkError::NotRedis),
        }
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
    /// Redis answers that it cannot or will not.
    #[error("redis refuses: {0}")]
    Refused(Refusal),
    /// What answers is not Redis; the connection is perhaps connected to itself.
    #[error("what listens there does not answer as Redis does")]
    NotRedis,
    /// Of a subscription: it is at another Redis than those who publish.
    #[error("messages are published at another Redis by now")]
    Elsewhere,
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

/// The time until `deadline`, never zero, which a socket would take as "for ever".
fn remaining(deadline: Instant) -> Result<Duration, LinkError> {
    let remaining = deadline.saturating_duration_since(Instant::now());
    if remaining.is_zero() {
        Err(LinkError::TimedOut)
    } else {
        Ok(remaining)
    }
}

fn check(key: &str) -> Vec<u8> {
    let mut set = redis::cmd("SET");
    set.arg(key)
        .arg("")
        .arg("PX")
        .arg(CHECK_LIFE.as_millis() as u64);
    set.get_packed_command()
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
