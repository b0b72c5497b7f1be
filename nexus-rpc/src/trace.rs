//! Which trace a call belongs to: the W3C's trace context, carried in a call's metadata.
//!
//! | metadata | what | limit |
//! |---|---|---|
//! | `traceparent` | version, trace id, span id and flags, in lower-case hexadecimal | 55 characters; later versions may have more |
//! | `tracestate` | what tracing systems tell each other; handed on as it came | 512 characters, or it is dropped |
//!
//! ```text
//!   00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01
//!   version     trace id (16 bytes)      span id (8)     flags
//! ```
//!
//! Nothing here records spans. A provider reads the context of a call, its handler's own calls carry
//! children of it, and whoever traces finds them together.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::metadata::{Metadata, MetadataKey};

/// The metadata's name for the trace, span and flags.
pub(crate) const TRACEPARENT: MetadataKey<TraceContext> = MetadataKey::new("traceparent");

/// The metadata's name for what tracing systems add.
pub(crate) const TRACESTATE: MetadataKey<String> = MetadataKey::new("tracestate");

/// The length of a `traceparent` of version 0, and of the known part of a later one.
const TRACEPARENT_BYTES: usize = 55;

/// What every participant has to be able to hand on; more is dropped.
const TRACESTATE_BYTES_MAX: usize = 512;

/// Somebody records this trace.
const SAMPLED: u8 = 1;

/// The trace id was chosen at random, all of it.
const RANDOM: u8 = 2;

/// A call's place in a trace: which trace, and which span of it the call came from.
///
/// Its text form, read with [`parse`](Self::parse) and written with [`Display`](fmt::Display), is the
/// `traceparent` of the W3C's recommendation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    flags: u8,
    state: Option<Arc<str>>,
}

/// A text is no `traceparent`. It says nothing about the call that came with it, which is served
/// as one without a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TraceError {
    /// Too short, too long for its version, or a dash is not where one has to be.
    #[error("a traceparent is version-trace id-span id-flags, in 2, 32, 16 and 2 digits")]
    Form,
    /// Something other than `0`-`9` and `a`-`f`.
    #[error("a traceparent has lower-case hexadecimal digits only")]
    Digit,
    /// Version `ff` will never be one.
    #[error("version ff is forbidden")]
    Version,
    /// A trace id or a span id of zeros only.
    #[error("an id of zeros is none")]
    ZeroId,
}

impl TraceContext {
    /// The beginning of a new trace, with random ids, sampled.
    pub fn new_root() -> Self {
        Self {
            trace_id: random_id(),
            span_id: random_id(),
            flags: SAMPLED | RANDOM,
            state: None,
        }
    }

    /// The same trace with a new span id: what a call made on behalf of this one carries.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            span_id: random_id(),
            ..self.clone()
        }
    }

    /// Reads a `traceparent`. Of a version later than 0 the known part is read, and written again as
    /// version 0; flags without a meaning are dropped.
    ///
    /// # Errors
    /// [`TraceError`].
    pub fn parse(traceparent: &str) -> Result<Self, TraceError> {
        let bytes = traceparent.as_bytes();
        let (known, more) = bytes
            .split_first_chunk::<TRACEPARENT_BYTES>()
            .ok_or(TraceError::Form)?;
        let (version, known) = field::<1>(known)?;
        let (trace_id, known) = field::<16>(known)?;
        let (span_id, known) = field::<8>(known)?;
        let (flags, _) = field::<1>(known)?;
        match version {
            [0] if !more.is_empty() => return Err(TraceError::Form),
            [0xff] => return Err(TraceError::Version),
            _ if !matches!(more, [] | [b'-', ..]) => return Err(TraceError::Form),
            _ => {}
        }
        if trace_id == [0; 16] || span_id == [0; 8] {
            return Err(TraceError::ZeroId);
        }
        let [flags] = flags;
        Ok(Self {
            trace_id,
            span_id,
            flags: flags & (SAMPLED | RANDOM),
            state: None,
        })
    }

    /// The trace that all its spans share. Never all zeros.
    pub fn trace_id(&self) -> [u8; 16] {
        self.trace_id
    }

    /// The span that the call came from. Never all zeros.
    pub fn span_id(&self) -> [u8; 8] {
        self.span_id
    }

    /// Whether the caller may have recorded its span.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Says whether spans of this trace are recorded.
    #[must_use]
    pub fn sampled(mut self, sampled: bool) -> Self {
        self.flags = match sampled {
            true => self.flags | SAMPLED,
            false => self.flags & !SAMPLED,
        };
        self
    }

    /// The `tracestate`, as it came.
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// Sets the `tracestate`; one of more than 512 characters, or with others than visible ASCII,
    /// blanks and tabs, is dropped.
    #[must_use]
    pub fn with_state(mut self, state: &str) -> Self {
        self.state = accepted_state(state).map(Arc::from);
        self
    }

    /// The trace that a call's metadata names; `None` without one, or with one that is malformed.
    pub fn from_metadata(metadata: &Metadata) -> Option<Self> {
        // Nearly every call without a trace is without metadata.
        if metadata.is_empty() {
            return None;
        }
        let context = metadata.get(TRACEPARENT).ok()??;
        Some(match metadata.text(TRACESTATE.name()) {
            Some(state) => context.with_state(state),
            None => context,
        })
    }

    /// Puts the trace into a call's metadata, in the place of one that is there.
    pub fn write_to(&self, metadata: &mut Metadata) {
        metadata.set_text(TRACEPARENT.name(), self.to_string());
        match &self.state {
            Some(state) => metadata.set_text(TRACESTATE.name(), state.as_ref()),
            None => {
                metadata.remove(TRACESTATE);
            }
        }
    }
}

impl fmt::Display for TraceContext {
    /// The `traceparent`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        self.trace_id
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("-")?;
        self.span_id
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, "-{:02x}", self.flags)
    }
}

impl FromStr for TraceContext {
    type Err = TraceError;

    fn from_str(traceparent: &str) -> Result<Self, TraceError> {
        Self::parse(traceparent)
    }
}

/// Takes a field of `N` bytes, and the dash behind it unless it is the last, off the text.
fn field<const N: usize>(text: &[u8]) -> Result<([u8; N], &[u8]), TraceError> {
    let (digits, rest) = text.split_at_checked(2 * N).ok_or(TraceError::Form)?;
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        for &digit in pair {
            *byte = *byte << 4 | digit_value(digit)?;
        }
    }
    match rest {
        [] => Ok((bytes, rest)),
        [b'-', rest @ ..] => Ok((bytes, rest)),
        _ => Err(TraceError::Form),
    }
}

fn digit_value(digit: u8) -> Result<u8, TraceError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(TraceError::Digit),
    }
}

fn accepted_state(state: &str) -> Option<&str> {
    let allowed = |byte: u8| matches!(byte, b'\t' | b' '..=b'~');
    (state.len() <= TRACESTATE_BYTES_MAX && state.bytes().all(allowed)).then_some(state)
}

fn random_id<const N: usize>() -> [u8; N] {
    loop {
        let mut id = [0; N];
        rand::fill(&mut id[..]);
        if id != [0; N] {
            return id;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXAMPLE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn the_recommendation_s_example_is_read_and_written() {
        let context = TraceContext::parse(EXAMPLE).expect("valid");
        assert_eq!(context.trace_id()[..2], [0x0a, 0xf7]);
        assert_eq!(context.span_id()[7], 0x31);
        assert!(context.is_sampled());
        assert_eq!(context.to_string(), EXAMPLE);
        assert!(context.sampled(false).to_string().ends_with("-00"));
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        let later = EXAMPLE.replacen("00", "cc", 1);
        for text in [later.clone(), format!("{later}-what the future brings")] {
            let context = TraceContext::parse(&text).expect("valid");
            assert_eq!(context.to_string(), EXAMPLE);
        }
        assert_eq!(
            TraceContext::parse(&format!("{later}.more")),
            Err(TraceError::Form)
        );
    }

    #[test]
    fn what_the_recommendation_forbids_is_refused() {
        let zeros = |from: &str| EXAMPLE.replace(from, &"0".repeat(from.len()));
        for (text, error) in [
            (String::new(), TraceError::Form),
            (EXAMPLE[..54].to_owned(), TraceError::Form),
            (format!("{EXAMPLE}-"), TraceError::Form),
            (format!("{EXAMPLE}0"), TraceError::Form),
            (EXAMPLE.replace('-', "_"), TraceError::Form),
            (EXAMPLE.to_uppercase(), TraceError::Digit),
            (EXAMPLE.replacen("00", "0g", 1), TraceError::Digit),
            (EXAMPLE.replacen("00", "ff", 1), TraceError::Version),
            (
                zeros("0af7651916cd43dd8448eb211c80319c"),
                TraceError::ZeroId,
            ),
            (zeros("b7ad6b7169203331"), TraceError::ZeroId),
        ] {
            assert_eq!(TraceContext::parse(&text), Err(error), "{text}");
        }
    }

    #[test]
    fn a_child_is_another_span_of_the_same_trace_with_its_state() {
        let root = TraceContext::new_root().with_state("vendor=1");
        let child = root.child();
        assert_eq!(child.trace_id(), root.trace_id());
        assert_ne!(child.span_id(), root.span_id());
        assert_eq!(child.state(), Some("vendor=1"));
        assert_ne!(TraceContext::new_root().trace_id(), root.trace_id());
    }

    #[test]
    fn a_state_is_kept_up_to_its_limit_and_dropped_beyond() {
        let with = |state: &str| TraceContext::new_root().with_state(state).state().is_some();
        assert!(with(&"x".repeat(512)));
        assert!(!with(&"x".repeat(513)));
        assert!(!with("a=ä"));
        assert!(!with("a=1\r\nb=2"));
    }

    #[test]
    fn a_malformed_trace_in_the_metadata_is_no_trace() {
        let of = |text: &str| {
            let mut metadata = Metadata::default();
            metadata.set_text("traceparent", text);
            TraceContext::from_metadata(&metadata)
        };
        assert_eq!(TraceContext::from_metadata(&Metadata::default()), None);
        assert_eq!(of("x"), None);
        assert!(of(EXAMPLE).is_some());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_what_is_read_is_written_alike(text in ".{0,80}") {
            if let Ok(context) = TraceContext::parse(&text) {
                prop_assert_eq!(TraceContext::parse(&context.to_string()), Ok(context));
            }
        }

        #[test]
        fn every_context_survives_the_metadata(
            trace_id in any::<[u8; 16]>(),
            span_id in any::<[u8; 8]>(),
            flags in 0u8..4,
            state in proptest::option::of("[ -~]{0,512}"),
        ) {
            prop_assume!(trace_id != [0; 16] && span_id != [0; 8]);
            let context = TraceContext { trace_id, span_id, flags, state: state.map(Arc::from) };
            let mut metadata = Metadata::default();
            TraceContext::new_root().with_state("old=1").write_to(&mut metadata);
            context.write_to(&mut metadata);
            prop_assert_eq!(TraceContext::from_metadata(&metadata), Some(context));
        }

        #[test]
        fn one_wrong_character_is_never_read_as_another_context(
            at in 0usize..55,
            wrong in "[^0-9a-f-]",
        ) {
            let mut text = String::from(&EXAMPLE[..at]);
            text.push_str(&wrong);
            text.push_str(&EXAMPLE[at + 1..]);
            prop_assert!(TraceContext::parse(&text).is_err());
        }
    }
}
