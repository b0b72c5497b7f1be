//! The calls in flight on one connection, sans-IO: bytes in, answers out.
//!
//! It knows neither sockets nor clocks. What a call is, is the caller's: whoever takes one out
//! completes it, and each is taken out once: by its answer, at its deadline, or at the connection's end.

use bytes::BytesMut;
use rustc_hash::FxHashMap;

use crate::wire::{DecodeError, Frame, Limits, decode};

/// Calls by their correlation ids, which are the channel's own and never repeat.
#[derive(Debug)]
pub(crate) struct Exchange<C> {
    limits: Limits,
    calls: FxHashMap<i64, C>,
}

impl<C> Exchange<C> {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            calls: FxHashMap::default(),
        }
    }

    /// Takes a call in, before or after its request is sent.
    pub(crate) fn begin(&mut self, correlation_id: i64, call: C) {
        let before = self.calls.insert(correlation_id, call);
        debug_assert!(before.is_none(), "a correlation id was used twice");
    }

    /// The call of the next answer in `input`; `None` when no whole answer is left in it. Answers to
    /// calls that are not in flight (answered, or over their deadline) are passed over.
    ///
    /// # Errors
    /// [`DecodeError`]; the stream is broken, and the connection is to be closed.
    pub(crate) fn receive(
        &mut self,
        input: &mut BytesMut,
    ) -> Result<Option<(C, Frame)>, DecodeError> {
        while let Some(frame) = decode(input, &self.limits)? {
            if let Some(call) = self.calls.remove(&frame.meta.correlation_id()) {
                return Ok(Some((call, frame)));
            }
        }
        Ok(None)
    }

    /// Takes a call out without an answer.
    pub(crate) fn take(&mut self, correlation_id: i64) -> Option<C> {
        self.calls.remove(&correlation_id)
    }

    /// Takes all calls out: the connection has ended.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = C> + use<C> {
        std::mem::take(&mut self.calls).into_values()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::wire::{RpcMeta, encode_payload};

    /// What a provider sends: answers in some order, some to nobody, in pieces, up to a cut.
    #[derive(Debug, Clone)]
    struct Script {
        calls: usize,
        /// Correlation ids, those beyond the calls unknown; repeated ones answer twice.
        answers: Vec<i64>,
        pieces: Vec<usize>,
        /// Of all bytes, in 256ths.
        cut: usize,
        /// Calls whose deadline passes after so many pieces.
        late: Vec<(usize, i64)>,
    }

    fn script() -> impl Strategy<Value = Script> {
        (1..20_usize).prop_flat_map(|calls| {
            let id = 1..calls as i64 + 5;
            let answers = proptest::collection::vec(id.clone(), 0..30);
            let pieces = proptest::collection::vec(1..60_usize, 1..40);
            let late = proptest::collection::vec((0..40_usize, id), 0..5);
            (answers, pieces, 0..=256_usize, late).prop_map(move |(answers, pieces, cut, late)| {
                Script {
                    calls,
                    answers,
                    pieces,
                    cut,
                    late,
                }
            })
        })
    }

    fn answer(id: i64) -> BytesMut {
        let mut out = BytesMut::new();
        let payload = id.to_string();
        let mut meta = RpcMeta::for_success(id);
        encode_payload(
            &mut meta,
            payload.as_bytes(),
            &[],
            &Limits::default(),
            &mut out,
        )
        .unwrap();
        out
    }

    proptest! {
        /// However the bytes are split, and wherever the connection is cut: each call is taken out
        /// exactly once, with its own answer if it has one.
        #[test]
        fn each_call_ends_once_wherever_the_connection_is_cut(script in script()) {
            let mut exchange = Exchange::new(Limits::default());
            let ids = 1..=script.calls as i64;
            for id in ids.clone() {
                exchange.begin(id, id);
            }
            let mut bytes: Vec<u8> = script.answers.iter().flat_map(|&id| answer(id)).collect();
            bytes.truncate(bytes.len() * script.cut / 256);
            let mut ended: BTreeMap<i64, usize> = BTreeMap::new();
            let mut input = BytesMut::new();
            let (mut rest, mut turn) = (&bytes[..], 0);
            while !rest.is_empty() {
                for &(_, id) in script.late.iter().filter(|&&(when, _)| when == turn) {
                    if let Some(call) = exchange.take(id) {
                        *ended.entry(call).or_default() += 1;
                    }
                }
                let piece = script.pieces[turn % script.pieces.len()].min(rest.len());
                input.extend_from_slice(&rest[..piece]);
                rest = &rest[piece..];
                turn += 1;
                while let Some((call, frame)) = exchange.receive(&mut input).unwrap() {
                    let own = call.to_string();
                    prop_assert_eq!(&frame.payload[..], own.as_bytes());
                    *ended.entry(call).or_default() += 1;
                }
            }
            for call in exchange.take_all() {
                *ended.entry(call).or_default() += 1;
            }
            prop_assert!(exchange.is_empty());
            let expected: BTreeMap<i64, usize> = ids.map(|id| (id, 1)).collect();
            prop_assert_eq!(ended, expected);
        }
    }

    #[test]
    fn garbage_ends_the_stream_and_leaves_the_calls_to_be_ended() {
        let mut exchange = Exchange::new(Limits::default());
        exchange.begin(1, "one");
        let mut input = BytesMut::from(&b"HTTP/1.1 200 OK"[..]);
        assert!(exchange.receive(&mut input).is_err());
        assert_eq!(exchange.take_all().collect::<Vec<_>>(), ["one"]);
    }
}
