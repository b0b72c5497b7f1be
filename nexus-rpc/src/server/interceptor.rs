//! Code around every handler of a provider.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::{CallContext, Metadata, RpcError};

/// Runs around every handler of a provider: to add metadata to the answer, log, measure, or refuse. A channel's
/// counterpart is [`ClientInterceptor`](crate::ClientInterceptor).
///
/// Several stand around the handler like shells: `before` in the order in which they were given to the
/// provider, `after` in the opposite one. Calls that never got as far, because the method is unknown, the
/// caller not authentic or a limit reached, are not seen.
///
/// A panic in `before` fails the call as one in the handler does; one in `after` is logged, and the
/// call is answered as it would have been.
pub trait ServerInterceptor: Send + Sync + 'static {
    /// Before the request is decoded and handled; on the thread of the method's
    /// [`Execution`](crate::Execution), where it may block only if the handler may. Metadata that it sets for the
    /// answer goes out with the handler's own.
    ///
    /// # Errors
    /// What the call is refused with. Then neither the handler nor the interceptors behind this one run, nor
    /// this one's `after`.
    fn before(&self, call: &CallContext) -> Result<(), RpcError> {
        let _ = call;
        Ok(())
    }

    /// The answer is written and about to leave; on the thread that answers. Must not block: it may be
    /// a loop's.
    fn after(&self, call: &CallContext, outcome: &ServerOutcome<'_>) {
        let _ = (call, outcome);
    }
}

/// How a call ended, as an interceptor's [`after`](ServerInterceptor::after) sees it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ServerOutcome<'a> {
    /// What the call failed with; `None` after a success.
    pub error: Option<&'a RpcError>,
    /// What goes out beside the answer; empty when it is an error.
    pub metadata: &'a Metadata,
    /// From when the request had arrived until now, waiting included.
    pub latency: Duration,
    /// The request as it came: message, perhaps compressed, and attachment.
    pub request_bytes: usize,
    /// The answer as it goes out, framing included.
    pub response_bytes: usize,
}

/// The interceptors that a call has entered and has to leave again.
pub(super) struct Entered {
    context: CallContext,
    count: usize,
    /// The answer's, once there is one.
    pub(super) metadata: Metadata,
}

/// Runs every `before`, noting in `entered` what there is to leave.
pub(super) fn enter_all(
    interceptors: &[Arc<dyn ServerInterceptor>],
    context: &CallContext,
    entered: &mut Option<Box<Entered>>,
) -> Result<(), RpcError> {
    if interceptors.is_empty() {
        return Ok(());
    }
    let entered = entered.insert(Box::new(Entered {
        context: context.clone(),
        count: 0,
        metadata: Metadata::default(),
    }));
    for interceptor in interceptors {
        interceptor.before(context)?;
        entered.count += 1;
    }
    Ok(())
}

/// Runs `after` of those that were entered, the last one first.
pub(super) fn leave_all(
    interceptors: &[Arc<dyn ServerInterceptor>],
    entered: &Entered,
    outcome: &ServerOutcome<'_>,
) {
    for interceptor in interceptors.iter().take(entered.count).rev() {
        let leave = AssertUnwindSafe(|| interceptor.after(&entered.context, outcome));
        if catch_unwind(leave).is_err() {
            let method = entered.context.method();
            log::error!(
                "an interceptor panicked after {}/{}",
                method.service,
                method.name
            );
        }
    }
}
