//! One attempt of a call, as its connection holds it.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::{Answered, Fate, Flight};
use crate::wire::Sealed;
use crate::{ErrorCode, Metadata, RpcError};

/// The obligation to end one attempt of a call. Dropped, it fails the attempt.
pub(crate) struct Attempt {
    pub(super) flight: Option<Arc<Flight>>,
    pub(crate) correlation_id: i64,
    /// Its request, if that is not the one that the flight keeps.
    pub(super) frame: Option<Bytes>,
    /// When it was handed to the connection.
    pub(crate) sent: Instant,
}

impl Attempt {
    /// Whose attempt it is.
    pub(crate) fn flight(&self) -> &Arc<Flight> {
        // Only `end` takes it, and that consumes the attempt.
        self.flight.as_ref().expect("an attempt that has not ended")
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.flight().plan.deadline
    }

    /// Has `send` send the request; `None` when the call has ended and nothing is to be sent. Lent, a
    /// request that is copied on costs no counting of references.
    pub(crate) fn send_with<R>(&self, send: impl FnOnce(&Bytes) -> R) -> Option<R> {
        let state = self.flight().state.lock();
        match &self.frame {
            _ if state.is_over() => None,
            Some(own) => {
                drop(state);
                Some(send(own))
            }
            None => Some(send(&state.frame)),
        }
    }

    /// The provider has answered with success.
    pub(crate) fn answered(mut self, sealed: Sealed, metadata: Metadata) {
        if let Some(flight) = self.flight.take() {
            flight.ended(Ok(Answered {
                sealed,
                metadata,
                degraded: None,
            }));
        }
    }

    pub(crate) fn failed(mut self, error: RpcError, fate: Fate) {
        if let Some(flight) = self.flight.take() {
            flight.attempt_failed(error, fate);
        }
    }

    /// The deadline has passed: of the attempt, and so of the call.
    pub(crate) fn timed_out(mut self, error: RpcError) {
        if let Some(flight) = self.flight.take() {
            flight.ended(Err(error));
        }
    }

    /// It was never made: nobody could be found for it.
    pub(crate) fn retract(mut self) {
        if let Some(flight) = self.flight.take() {
            let mut state = flight.state.lock();
            state.live -= 1;
            state.attempts -= 1;
            state.spent -= 1;
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(flight) = self.flight.take() {
            flight.ended(Err(RpcError::new(
                ErrorCode::CONNECTION_FAILED,
                "the channel was closed before the call was answered",
            )));
        }
    }
}
