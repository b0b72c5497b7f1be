//! What runs around each call of a channel, and how the caller says who it is.

use std::time::Duration;

use bytes::Bytes;

use crate::{Metadata, MethodDescriptor, RpcError};

/// What an interceptor may see of a call before it is sent, and change.
#[derive(Debug)]
#[non_exhaustive]
pub struct CallHead<'a> {
    /// The method that is called.
    pub method: &'static MethodDescriptor,
    /// What goes along beside the request.
    pub metadata: &'a mut Metadata,
    /// How long the caller waits.
    pub timeout: &'a mut Duration,
}

/// How a call ended, as an interceptor's [`after`](ClientInterceptor::after) sees it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ClientOutcome<'a> {
    /// The method that was called.
    pub method: &'static MethodDescriptor,
    /// What it failed with; `None` for a success. An answer that a fallback gave counts as the failure
    /// before it.
    pub error: Option<&'a RpcError>,
    /// What came beside the answer; empty when it was an error.
    pub metadata: &'a Metadata,
    /// From the call to its end.
    pub latency: Duration,
    /// Attempts that were made: 0 when no provider could be found.
    pub attempts: u32,
}

/// Runs around every call of a channel: to add metadata, log, measure, or refuse. A provider's counterpart is
/// [`ServerInterceptor`](crate::ServerInterceptor).
///
/// Calls pass through interceptors in the order of
/// [`ChannelOptions::interceptors`](crate::ChannelOptions), their ends in the reverse order.
pub trait ClientInterceptor: Send + Sync + 'static {
    /// Before the request is encoded, on the caller's thread. Must not block: that thread may be a
    /// loop's.
    ///
    /// # Errors
    /// The call then fails with this error and is not sent; interceptors that it has passed hear
    /// its end.
    fn before(&self, call: &mut CallHead<'_>) -> Result<(), RpcError> {
        let _ = call;
        Ok(())
    }

    /// Once, when the call has ended: on a loop's thread, as a rule, where it must not block. Not for
    /// a call that was dropped by its caller.
    fn after(&self, outcome: &ClientOutcome<'_>) {
        let _ = outcome;
    }
}

/// Says who the caller is. Sent with the first request of each connection, as brpc does.
pub trait Credentials: Send + Sync {
    /// The `authentication_data` of a connection that is being opened. On a loop's thread: must not
    /// block.
    fn authentication_data(&self) -> Bytes;
}
