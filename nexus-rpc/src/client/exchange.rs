//! The calls in flight on one connection, sans-IO: bytes in, answers out, and whose time is over.
//!
//! It knows neither sockets nor timers. What a call is, is the caller's: whoever takes one out
//! completes it, and each is taken out once: by its answer, at its deadline, or at the connection's end.
//!
//! Deadlines stand in a heap, beside the calls. Calls begin in the order of their deadlines, nearly, so one more
//! costs a few steps. What is answered leaves its entry behind; when most are such, they are swept out. A
//! timer of its own for each call, to be started and cancelled, cost ten times as much.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use bytes::BytesMut;
use rustc_hash::FxHashMap;

use crate::wire::{DecodeError, Limits, Sealed, decode};
use crate::{Metadata, RpcError};

/// Deadlines that are kept however few calls are in flight.
const DEADLINES_MIN: usize = 64;

/// Calls by their correlation ids, which are the channel's own and never repeat.
#[derive(Debug)]
pub(crate) struct Exchange<C> {
    limits: Limits,
    calls: FxHashMap<i64, C>,
    /// The next one first. A call that is over may still have one.
    deadlines: BinaryHeap<Reverse<(Instant, i64)>>,
}

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Received {
    /// What the provider failed the call with.
    pub(crate) failure: Option<RpcError>,
    pub(crate) metadata: Metadata,
    pub(crate) sealed: Sealed,
}

impl<C> Exchange<C> {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            calls: FxHashMap::default(),
            deadlines: BinaryHeap::new(),
        }
    }

    /// Takes a call in, before or after its request is sent. With `None` it is never late.
    pub(crate) fn begin(&mut self, correlation_id: i64, deadline: Option<Instant>, call: C) {
        let before = self.calls.insert(correlation_id, call);
        debug_assert!(before.is_none(), "a correlation id was used twice");
        let Some(deadline) = deadline else {
            return;
        };
        if self.deadlines.len() >= DEADLINES_MIN.max(2 * self.calls.len()) {
            let calls = &self.calls;
            self.deadlines
                .retain(|Reverse((_, id))| calls.contains_key(id));
        }
        self.deadlines.push(Reverse((deadline, correlation_id)));
    }

    /// The call of the next answer in `input`; `None` when no whole answer is left in it. Answers to
    /// calls that are not in flight (answered, or over their deadline) are passed over.
    ///
    /// # Errors
    /// [`DecodeError`]; the stream is broken, and the connection is to be closed.
    pub(crate) fn receive(
        &mut self,
        input: &mut BytesMut,
    ) -> Result<Option<(C, Received)>, DecodeError> {
        while let Some(frame) = &mut decode(input, &self.limits)? {
            if let Some(call) = self.calls.remove(&frame.meta.correlation_id()) {
                let received = Received {
                    failure: frame.meta.failure(),
                    metadata: Metadata::from_fields(std::mem::take(&mut frame.meta.user_fields)),
                    sealed: frame.take_sealed(),
                };
                return Ok(Some((call, received)));
            }
        }
        Ok(None)
    }

    /// Takes a call out without an answer.
    pub(crate) fn take(&mut self, correlation_id: i64) -> Option<C> {
        self.calls.remove(&correlation_id)
    }

    /// Takes out a call whose deadline has come, the latest one last.
    pub(crate) fn take_late(&mut self, now: Instant) -> Option<C> {
        while self.next_deadline()? <= now {
            let Reverse((_, id)) = self.deadlines.pop()?;
            if let Some(call) = self.calls.remove(&id) {
                return Some(call);
            }
        }
        None
    }

    /// When the next call is late.
    pub(crate) fn next_deadline(&mut self) -> Option<Instant> {
        while let Some(&Reverse((deadline, id))) = self.deadlines.peek() {
            if self.calls.contains_key(&id) {
                return Some(deadline);
            }
            self.deadlines.pop();
        }
        None
    }

    /// Takes all calls out: the connection has ended.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = C> + use<C> {
        self.deadlines.clear();
        std::mem::take(&mut self.calls).into_values()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

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
                exchange.begin(id, None, id);
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
                while let Some((call, received)) = exchange.receive(&mut input).unwrap() {
                    let own = call.to_string();
                    prop_assert_eq!(&received.sealed.payload[..], own.as_bytes());
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

    #[derive(Debug, Clone)]
    enum Step {
        /// A call with so many milliseconds to go.
        Begin(u64),
        /// The call that began so many calls ago is answered.
        Answer(usize),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..50_u64).prop_map(Step::Begin),
            4 => (1..20_usize).prop_map(Step::Answer),
            1 => (0..40_u64).prop_map(Step::Pass),
        ]
    }

    proptest! {
        /// Whatever was answered meanwhile: a call is late at its deadline and not before, the earliest
        /// first, and the deadlines of calls that are over do not pile up.
        #[test]
        fn a_call_is_late_at_its_deadline(steps in proptest::collection::vec(step(), 0..400)) {
            let start = Instant::now();
            let mut now = start;
            let mut exchange = Exchange::new(Limits::default());
            let mut waiting: BTreeMap<i64, Instant> = BTreeMap::new();
            let mut last_id = 0;
            for step in steps {
                match step {
                    Step::Begin(left_ms) => {
                        last_id += 1;
                        let deadline = now + Duration::from_millis(left_ms);
                        exchange.begin(last_id, Some(deadline), deadline);
                        waiting.insert(last_id, deadline);
                        let most = DEADLINES_MIN.max(2 * waiting.len());
                        prop_assert!(exchange.deadlines.len() <= most);
                    }
                    Step::Answer(back) => {
                        let id = last_id - back as i64;
                        prop_assert_eq!(exchange.take(id), waiting.remove(&id));
                    }
                    Step::Pass(ms) => now += Duration::from_millis(ms),
                }
                let mut late: Vec<Instant> = waiting.values().copied().filter(|&at| at <= now).collect();
                late.sort_unstable();
                waiting.retain(|_, &mut at| at > now);
                let taken: Vec<Instant> = std::iter::from_fn(|| exchange.take_late(now)).collect();
                prop_assert_eq!(taken, late);
                prop_assert_eq!(exchange.next_deadline(), waiting.values().min().copied());
            }
        }
    }

    #[test]
    fn the_deadlines_of_answered_calls_are_swept_out_while_one_call_stays() {
        let now = Instant::now();
        let mut exchange = Exchange::new(Limits::default());
        exchange.begin(0, Some(now), ());
        for id in 1..10_000 {
            exchange.begin(id, Some(now + Duration::from_secs(1)), ());
            exchange.take(id);
        }
        assert!(exchange.deadlines.len() <= DEADLINES_MIN);
        assert_eq!(exchange.next_deadline(), Some(now));
    }

    #[test]
    fn garbage_ends_the_stream_and_leaves_the_calls_to_be_ended() {
        let mut exchange = Exchange::new(Limits::default());
        exchange.begin(1, None, "one");
        let mut input = BytesMut::from(&b"HTTP/1.1 200 OK"[..]);
        assert!(exchange.receive(&mut input).is_err());
        assert_eq!(exchange.take_all().collect::<Vec<_>>(), ["one"]);
    }
}
