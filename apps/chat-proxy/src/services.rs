//! The services behind the proxy: one typed client each, and what their failures mean to a client.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use chat_bus::{LoginNumber, NO_NUMBER, ProxyId};
use chat_node::secret::ClusterSecret;
use chat_proto::call_time::CallTime;
use chat_proto::client_address::ClientAddress;
use chat_proto::ids::{code, metadata};
use chat_proto::messages::{
    FriendServiceRpcClient, GroupChatServiceRpcClient, GroupServiceRpcClient,
    OneChatServiceRpcClient, UserServiceRpcClient,
};
use nexus_net::LoopGroup;
use nexus_rpc::registry::Registry;
use nexus_rpc::{
    BackupOptions, BudgetOptions, CallOptions, ChannelOptions, Credentials, ErrorCode, RpcChannel,
    RpcError,
};

use crate::ProxyOptions;
use crate::directory::SessionId;

const NAMES: [&str; 5] = [
    UserServiceRpcClient::SERVICE,
    FriendServiceRpcClient::SERVICE,
    OneChatServiceRpcClient::SERVICE,
    GroupServiceRpcClient::SERVICE,
    GroupChatServiceRpcClient::SERVICE,
];

/// What may be sent twice without harm goes to a second server when the first has not answered for so long:
/// many commits take less, and a server that stands still, or has lost its network, costs its callers no whole
/// deadline.
pub(crate) const BACKUP_AFTER: Duration = Duration::from_secs(1);
/// Enough for the calls in flight to one server when it stops. When the database is slow for all, a fifth more
/// of them reach it.
const BACKUPS: BudgetOptions = BudgetOptions {
    share: 0.2,
    per_second: 10.0,
    burst: 1000,
};

/// The services, wherever the registry says they are.
pub(crate) struct Services {
    pub(crate) user: UserServiceRpcClient,
    pub(crate) friend: FriendServiceRpcClient,
    pub(crate) one_chat: OneChatServiceRpcClient,
    pub(crate) group: GroupServiceRpcClient,
    pub(crate) group_chat: GroupChatServiceRpcClient,
    channel: RpcChannel,
    proxy: ProxyId,
    /// How long a client's request may take, from when it reached the proxy.
    request_timeout: Duration,
    /// See [`CallTime::epoch`].
    epoch: AtomicU32,
}

impl Services {
    pub(crate) fn new(
        registry: Arc<dyn Registry>,
        loops: Arc<LoopGroup>,
        proxy: ProxyId,
        options: &ProxyOptions,
    ) -> Self {
        let secret = options.cluster.secret.clone();
        let request_timeout = options.request_timeout;
        let options = ChannelOptions {
            timeout: request_timeout,
            credentials: secret.map(|secret| Arc::new(Shown(secret)) as Arc<dyn Credentials>),
            tls: options.cluster.tls.clone(),
            backup: BackupOptions {
                after: None,
                budget: BACKUPS,
            },
            ..ChannelOptions::default()
        };
        let channel = RpcChannel::new(registry, loops, options);
        let services = Self {
            user: UserServiceRpcClient::new(channel.clone()),
            friend: FriendServiceRpcClient::new(channel.clone()),
            one_chat: OneChatServiceRpcClient::new(channel.clone()),
            group: GroupServiceRpcClient::new(channel.clone()),
            group_chat: GroupChatServiceRpcClient::new(channel.clone()),
            channel,
            proxy,
            request_timeout,
            epoch: AtomicU32::new(0),
        };
        // The first look begins to watch, so that the first client need not wait for it.
        services.is_ready();
        services
    }

    /// Whether each service has a provider that is connected.
    pub(crate) fn is_ready(&self) -> bool {
        // Each of them, not only up to the first that is missing.
        let missing = NAMES.iter().filter(|name| !self.channel.is_ready(name));
        missing.count() == 0
    }

    /// Metadata of the proxy's own calls.
    pub(crate) fn own(&self) -> CallOptions {
        CallOptions::default().with_metadata(metadata::PROXY, self.proxy.as_u64())
    }

    /// Metadata of a call for a connection that nobody has logged in on.
    pub(crate) fn anonymous(&self, client: ClientAddress) -> CallOptions {
        self.own().with_metadata(metadata::ADDRESS, client)
    }

    /// Metadata of a login.
    pub(crate) fn login(&self, session: SessionId, client: ClientAddress) -> CallOptions {
        self.anonymous(client)
            .with_metadata(metadata::SESSION, session.0)
    }

    /// Metadata of a call for a user who is logged in.
    pub(crate) fn session(&self, user: i32, session: SessionId, login: LoginNumber) -> CallOptions {
        let options = self
            .own()
            .with_metadata(metadata::SESSION, session.0)
            .with_metadata(metadata::USER, user);
        match login {
            NO_NUMBER => options,
            login => options.with_metadata(metadata::LOGIN, login),
        }
    }

    /// The options for a call that is made now for what a client has `asked` for then: the server is told, and looks at
    /// it where it carries the call out. `None` when it is too late.
    pub(crate) fn in_time(&self, options: CallOptions, asked: Instant) -> Option<CallOptions> {
        let waited = asked.elapsed();
        let left = self.request_timeout.checked_sub(waited)?;
        if left.is_zero() {
            return None;
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let ms = |since: Duration| i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        let time = CallTime {
            epoch: self.epoch.load(Ordering::Relaxed),
            asked_ms: ms(now.saturating_sub(waited)),
            deadline_ms: ms(now + left),
        };
        let options = CallOptions {
            timeout: Some(left),
            ..options
        };
        Some(options.with_metadata(metadata::TIME, time))
    }

    /// What a client is told of a call that failed, which was made at that time.
    pub(crate) fn failure(
        &self,
        error: &RpcError,
        request: &str,
        session: Option<SessionId>,
        called: Instant,
    ) -> Failure {
        // A server that says so at once reckons with a clock that is not this one.
        if error.code() == metadata::TOO_LATE && called.elapsed() < self.request_timeout / 2 {
            self.epoch.fetch_add(1, Ordering::Relaxed);
        }
        Failure::of(error, request, session)
    }
}

/// Shows the cluster's secret with the first call of each connection.
struct Shown(ClusterSecret);

impl Credentials for Shown {
    fn authentication_data(&self) -> Bytes {
        self.0.shown()
    }
}

/// What a client is told of a call that failed.
pub(crate) struct Failure {
    pub(crate) code: i32,
    pub(crate) text: &'static str,
    may_have_run: bool,
}

impl Failure {
    /// Logs what is a fault of the system: with ids, without contents.
    pub(crate) fn of(error: &RpcError, request: &str, session: Option<SessionId>) -> Self {
        let may_have_run = may_have_run(error.code());
        let session = session.map_or(0, |session| session.0);
        if is_unavailable(error.code()) {
            log::debug!("session {session}: {request}: {error}");
            return Self {
                code: code::UNAVAILABLE,
                text: "the service is not available at the moment, try again",
                may_have_run,
            };
        }
        log::error!("session {session}: {request}: {error}");
        Self {
            code: code::INTERNAL,
            text: "the service failed",
            may_have_run,
        }
    }

    /// Of a request that was not carried out, as nobody waited for it any more.
    pub(crate) const TOO_LATE: Self = Self {
        code: code::UNAVAILABLE,
        text: "it took too long and was not carried out, try again",
        may_have_run: false,
    };

    /// Of a request that must not be made again as long as it may have been carried out.
    pub(crate) fn of_change(self) -> Self {
        match (self.code, self.may_have_run) {
            (code::UNAVAILABLE, true) => Self {
                code: code::UNCERTAIN,
                text: "the service did not answer in time: it is not known whether it was done",
                ..self
            },
            _ => self,
        }
    }
}

/// Whether a failed call might have been carried out all the same.
pub(crate) fn may_have_run(error: ErrorCode) -> bool {
    !error.never_ran() && error != ErrorCode::HOST_DOWN && error != metadata::TOO_LATE
}

/// Whether the failure is one of the way to the service or of its load, not of the service.
fn is_unavailable(error: ErrorCode) -> bool {
    error.is_retryable()
        || error == metadata::TOO_LATE
        || matches!(
            error,
            ErrorCode::DEADLINE_EXCEEDED
                | ErrorCode::REJECTED
                | ErrorCode::CLOSED_ON_PURPOSE
                | ErrorCode::CONNECTION_UNUSED
                | ErrorCode::WRITE_SHUT_DOWN
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(error: ErrorCode) -> i32 {
        Failure::of(&RpcError::new(error, "test"), "Test", None).code
    }

    #[test]
    fn a_change_that_may_have_been_made_is_not_to_be_made_again() {
        let told = |error| {
            Failure::of(&RpcError::new(error, "test"), "Test", None)
                .of_change()
                .code
        };
        for error in [
            ErrorCode::DEADLINE_EXCEEDED,
            ErrorCode::CONNECTION_CLOSED,
            ErrorCode::CONNECTION_FAILED,
        ] {
            assert_eq!(told(error), code::UNCERTAIN, "{error}");
        }
        for error in [
            ErrorCode::HOST_DOWN,
            ErrorCode::SEND_QUEUE_FULL,
            ErrorCode::OVERLOADED,
            ErrorCode::STOPPING,
            metadata::TOO_LATE,
        ] {
            assert_eq!(told(error), code::UNAVAILABLE, "{error}");
        }
        assert_eq!(told(ErrorCode::INTERNAL), code::INTERNAL);
    }

    #[test]
    fn what_may_pass_is_unavailable_and_the_rest_is_internal() {
        for error in [
            ErrorCode::HOST_DOWN,
            ErrorCode::CONNECTION_FAILED,
            ErrorCode::CONNECTION_CLOSED,
            ErrorCode::DEADLINE_EXCEEDED,
            ErrorCode::SEND_QUEUE_FULL,
            ErrorCode::OVERLOADED,
            ErrorCode::STOPPING,
        ] {
            assert_eq!(told(error), code::UNAVAILABLE, "{error}");
        }
        for error in [
            ErrorCode::INTERNAL,
            ErrorCode::NO_METHOD,
            ErrorCode::BAD_REQUEST,
            ErrorCode::UNAUTHENTICATED,
            ErrorCode::new(12345),
        ] {
            assert_eq!(told(error), code::INTERNAL, "{error}");
        }
    }
}
