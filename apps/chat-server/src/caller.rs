//! Who calls: what the proxy that authenticated the connection sends along with each call.

use chat_bus::{ProxyId, SessionRef};
use chat_proto::ids::metadata;
use chat_store::UserId;
use nexus_rpc::{CallContext, ErrorCode, RpcError};

/// The user on whose connection the request came. It counts, never what a message body says.
///
/// # Errors
/// [`ErrorCode::UNAUTHENTICATED`]: the caller is no proxy, or one with a fault.
pub(crate) fn user(call: &CallContext) -> Result<UserId, RpcError> {
    number(call, metadata::USER)
        .and_then(UserId::new)
        .ok_or_else(|| missing(metadata::USER))
}

/// The connection that the request came on.
///
/// # Errors
/// As [`user`].
pub(crate) fn session(call: &CallContext) -> Result<SessionRef, RpcError> {
    let proxy = number(call, metadata::PROXY).ok_or_else(|| missing(metadata::PROXY))?;
    let session = number(call, metadata::SESSION).ok_or_else(|| missing(metadata::SESSION))?;
    Ok(SessionRef {
        proxy: ProxyId::from_u64(proxy),
        session,
    })
}

fn number<T: std::str::FromStr>(call: &CallContext, field: &str) -> Option<T> {
    call.user_field(field)?.parse().ok()
}

fn missing(field: &str) -> RpcError {
    RpcError::new(
        ErrorCode::UNAUTHENTICATED,
        format!("the call carries no valid {field}"),
    )
}
