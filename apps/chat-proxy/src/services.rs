//! The services behind the proxy: one typed client each, and what their failures mean to a client.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chat_bus::ProxyId;
use chat_node::secret::ClusterSecret;
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
}

impl Services {
    pub(crate) fn new(
        registry: Arc<dyn Registry>,
        loops: Arc<LoopGroup>,
        proxy: ProxyId,
        options: &ProxyOptions,
    ) -> Self {
        let secret = options.cluster.secret.clone();
        let options = ChannelOptions {
            timeout: options.request_timeout,
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
    pub(crate) fn session(&self, user: i32, session: SessionId) -> CallOptions {
        self.own()
            .with_metadata(metadata::SESSION, session.0)
            .with_metadata(metadata::USER, user)
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
}

impl Failure {
    /// Logs what is a fault of the system: with ids, without contents.
    pub(crate) fn of(error: &RpcError, request: &str, session: Option<SessionId>) -> Self {
        let session = session.map_or(0, |session| session.0);
        if is_unavailable(error.code()) {
            log::debug!("session {session}: {request}: {error}");
            return Self {
                code: code::UNAVAILABLE,
                text: "the service is not available at the moment, try again",
            };
        }
        log::error!("session {session}: {request}: {error}");
        Self {
            code: code::INTERNAL,
            text: "the service failed",
        }
    }
}

/// Whether a failed call might have been carried out all the same.
pub(crate) fn may_have_run(error: ErrorCode) -> bool {
    !error.never_ran() && error != ErrorCode::HOST_DOWN
}

/// Whether the failure is one of the way to the service or of its load, not of the service.
fn is_unavailable(error: ErrorCode) -> bool {
    error.is_retryable()
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
