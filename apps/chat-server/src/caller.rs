//! Who calls: what the proxy that authenticated the connection sends along with each call.

use std::borrow::Cow;
use std::str::FromStr;

use chat_bus::{ProxyId, SessionRef};
use chat_proto::client_address::ClientAddress;
use chat_proto::ids::metadata;
use chat_store::{Login, Terms, UserId};
use nexus_rpc::{CallContext, ErrorCode, MetadataKey, RpcError};

use crate::clocks::Clocks;

/// The user on whose connection the request came. It counts, never what a message body says.
///
/// # Errors
/// [`ErrorCode::UNAUTHENTICATED`]: the caller is no proxy, or one with a fault.
pub(crate) fn user(call: &CallContext) -> Result<UserId, RpcError> {
    let user = field(call, metadata::USER)?;
    UserId::new(user).ok_or_else(|| unauthenticated("the call's user is none"))
}

/// The connection that the request came on.
///
/// # Errors
/// As [`user`].
pub(crate) fn session(call: &CallContext) -> Result<SessionRef, RpcError> {
    Ok(SessionRef {
        proxy: ProxyId::from_u64(field(call, metadata::PROXY)?),
        session: field(call, metadata::SESSION)?,
    })
}

/// Who asks, and on what terms it may be done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    pub(crate) user: UserId,
    pub(crate) terms: Terms,
}

/// Who asks for what changes something, or tells something.
///
/// # Errors
/// As [`user`], and as [`Clocks::asked`].
pub(crate) fn caller(call: &CallContext, clocks: &Clocks) -> Result<Caller, RpcError> {
    let user = user(call)?;
    let number = call.metadata().get(metadata::LOGIN);
    let number = number.map_err(|error| unauthenticated(error.to_string()))?;
    let terms = Terms {
        deadline: clocks.asked(call)?.deadline,
        login: number.map(|number| Login { user, number }),
    };
    Ok(Caller { user, terms })
}

/// From where the client connects; all whose proxy does not say so count as one.
///
/// # Errors
/// [`ErrorCode::UNAUTHENTICATED`]: what the proxy says is no address.
pub(crate) fn address(call: &CallContext) -> Result<ClientAddress, RpcError> {
    match call.metadata().get(metadata::ADDRESS) {
        Ok(address) => Ok(address.unwrap_or(ClientAddress::UNKNOWN)),
        Err(error) => Err(unauthenticated(error.to_string())),
    }
}

fn field<T: FromStr>(call: &CallContext, key: MetadataKey<T>) -> Result<T, RpcError> {
    let field = call.metadata().require(key);
    field.map_err(|error| unauthenticated(error.to_string()))
}

fn unauthenticated(what: impl Into<Cow<'static, str>>) -> RpcError {
    RpcError::new(ErrorCode::UNAUTHENTICATED, what)
}
