//! What is kept of a frame that is not complete: how much, for how long, and of whom.
//!
//! ```text
//!   header ─► caller unknown? ─► wait for the meta ─► verify ─┬─ refused: answered, closed
//!                                                             ▼
//!             larger than 64 KiB? ─► room in the budget? ─┬─ yes: received to its end
//!                                                         └─ no: wait for the meta, refuse the call, skip the rest
//! ```
//!
//! The room is taken for the whole frame before more of it is kept: so a frame that has begun can always be finished,
//! and no two connections wait for each other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use nexus_net::{ByteBudget, Charge};

use crate::wire::{DecodeError, Header, Limits, RpcMeta, peek_meta};

/// Requests up to this size take nothing of the budget: one read brings them, as a rule.
pub(super) const UNCOUNTED_BYTES_MAX: usize = 64 << 10;

/// The largest meta that is waited for while the caller is not known, or while the rest is not going to be kept.
const META_BYTES_MAX: usize = 16 << 10;

/// One connection's incomplete frame.
#[derive(Debug, Default)]
pub(super) struct Receiving {
    /// When its first bytes were there; `None` when there is none.
    since: Option<Instant>,
    charge: Option<Charge>,
    /// Bytes of a refused frame that are still to come.
    skip_bytes: usize,
}

/// What is to be done about an incomplete frame.
pub(super) enum Step {
    /// More has to come.
    Wait,
    /// See who the caller is.
    Verify(RpcMeta),
    /// There is no room for it: refuse the call. The rest of the frame is skipped.
    Refuse(RpcMeta),
}

/// An incomplete frame of which the connection cannot get rid but by closing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unbearable {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("a meta of {0} bytes, of which at most {META_BYTES_MAX} are kept for such a caller")]
    MetaTooLarge(usize),
}

impl Receiving {
    /// Bytes have come at `now`: takes those off that belong to a refused frame.
    pub(super) fn skip(&mut self, input: &mut BytesMut) {
        let skipped = self.skip_bytes.min(input.len());
        input.advance(skipped);
        self.skip_bytes -= skipped;
    }

    /// The frame is complete: what it holds of the budget. The next one begins.
    pub(super) fn complete(&mut self) -> Option<Charge> {
        self.since = None;
        self.charge.take()
    }

    /// `input` is left, at `now`, and is no whole frame.
    pub(super) fn begin(&mut self, input: &[u8], now: Instant) {
        let is_within = !input.is_empty() || self.skip_bytes > 0;
        self.since = is_within.then(|| self.since.unwrap_or(now));
    }

    /// How long the frame may still take; `None` when there is none.
    pub(super) fn left(&self, timeout: Duration) -> Option<Duration> {
        let since = self.since?;
        Some(timeout.saturating_sub(since.elapsed()))
    }

    /// What to do about the frame that `input` has the beginning of.
    pub(super) fn step(
        &mut self,
        input: &mut BytesMut,
        limits: &Limits,
        is_known: bool,
        budget: &Arc<ByteBudget>,
    ) -> Result<Step, Unbearable> {
        let Some(header) = Header::parse(input, limits)? else {
            return Ok(Step::Wait);
        };
        if !is_known {
            return Ok(match meta(input, &header)? {
                Some(meta) => Step::Verify(meta),
                None => Step::Wait,
            });
        }
        let frame_bytes = header.frame_bytes();
        if frame_bytes <= UNCOUNTED_BYTES_MAX || self.charge.is_some() {
            return Ok(Step::Wait);
        }
        let mut charge = Charge::none(budget);
        if charge.resize(frame_bytes) {
            self.charge = Some(charge);
            return Ok(Step::Wait);
        }
        let Some(meta) = meta(input, &header)? else {
            return Ok(Step::Wait);
        };
        self.skip_bytes = frame_bytes.saturating_sub(input.len());
        input.clear();
        Ok(Step::Refuse(meta))
    }
}

/// The frame's meta, if it is there; it has to be short.
fn meta(input: &[u8], header: &Header) -> Result<Option<RpcMeta>, Unbearable> {
    let meta = peek_meta(input, header)?;
    if meta.is_none() && header.meta_bytes > META_BYTES_MAX {
        return Err(Unbearable::MetaTooLarge(header.meta_bytes));
    }
    Ok(meta)
}
