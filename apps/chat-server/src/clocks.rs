//! How long calls were on their way, by the clocks of the proxies that made them.
//!
//! A call says when its proxy gives it up ([`CallTime`]). In epoch 0 the two clocks are taken to agree. If they do not,
//! calls look late that are not, and the proxy gets the refusal so soon that it knows better: it begins another epoch.
//! From then on the quickest call of the epoch says how far the clocks are apart.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chat_bus::ProxyId;
use chat_proto::call_time::CallTime;
use chat_proto::ids::metadata;
use chat_store::Terms;
use nexus_rpc::{CallContext, RpcError};
use parking_lot::Mutex;

/// Less is not told from a clock that is a little off, or from a busy machine.
const WAITED_MIN: Duration = Duration::from_secs(1);
/// With less than this part of its time left, a call that was long on its way is not begun.
const PART_LEFT_MIN: u32 = 8;
/// Two clocks drift apart by less than one millisecond in so many.
const DRIFT: i64 = 1000;
/// Proxies whose clocks are known to differ.
const PROXIES_MAX: usize = 1000;

/// When a call was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Asked {
    at: Instant,
    /// How long the client's request had waited on its way here; zero if that is less than a second.
    pub(crate) waited_on_the_way: Duration,
    /// From then on nobody waits for it. `None`: not known.
    pub(crate) deadline: Option<Instant>,
}

impl Asked {
    /// It may be done as long as it is waited for.
    pub(crate) fn terms(&self) -> Terms {
        Terms {
            deadline: self.deadline,
            login: None,
        }
    }

    /// How long the client's request has waited by now, here too; zero if that is less than a second.
    pub(crate) fn waited(&self) -> Duration {
        at_least_a_second(self.at.elapsed())
    }
}

fn at_least_a_second(waited: Duration) -> Duration {
    match waited < WAITED_MIN {
        true => Duration::ZERO,
        false => waited,
    }
}

/// The clocks of proxies, compared with that of this process. From any thread.
#[derive(Default)]
pub(crate) struct Clocks {
    /// Asked for calls of proxies whose clocks differ; of the others none.
    offsets: Mutex<HashMap<ProxyId, Offset>>,
}

/// By how much a proxy's clock is behind, beside the time that its quickest call took.
#[derive(Clone, Copy)]
struct Offset {
    epoch: u32,
    ms: i64,
    at: Instant,
}

impl Clocks {
    /// When this call was asked for.
    ///
    /// # Errors
    /// [`TOO_LATE`](metadata::TOO_LATE): its proxy gives it up before it could be carried out, or has done so. A caller's
    /// fault: what stands there cannot be read.
    pub(crate) fn asked(&self, call: &CallContext) -> Result<Asked, RpcError> {
        let now = Instant::now();
        let proxy = call.metadata().get(metadata::PROXY)?;
        let time = call.metadata().get(metadata::TIME)?;
        let (Some(proxy), Some(time), Some(left)) = (proxy, time, call.remaining()) else {
            // A proxy of an older version, or no proxy.
            return Ok(Asked {
                at: now,
                waited_on_the_way: Duration::ZERO,
                deadline: call.deadline(),
            });
        };
        let proxy = ProxyId::from_u64(proxy);
        self.judge(proxy, time, left, unix_ms(), now)
            .ok_or_else(|| RpcError::new(metadata::TOO_LATE, "it came too late to be carried out"))
    }

    /// `left`: until the deadline, had the call been on its way for no time; `now_ms`: this clock.
    fn judge(
        &self,
        proxy: ProxyId,
        time: CallTime,
        left: Duration,
        now_ms: i64,
        now: Instant,
    ) -> Option<Asked> {
        let left_ms = i64::try_from(left.as_millis()).ok()?;
        let apart_ms = now_ms
            .saturating_add(left_ms)
            .saturating_sub(time.deadline_ms);
        let offset_ms = match time.epoch {
            0 => 0,
            epoch => self.offset_ms(proxy, epoch, apart_ms, now),
        };
        let on_the_way = duration(apart_ms.saturating_sub(offset_ms));
        let left = left.saturating_sub(on_the_way);
        let whole = duration(time.deadline_ms.saturating_sub(time.asked_ms));
        if !on_the_way.is_zero() && left <= whole / PART_LEFT_MIN {
            return None;
        }
        let waited = whole.saturating_sub(left);
        Some(Asked {
            at: now.checked_sub(waited).unwrap_or(now),
            waited_on_the_way: at_least_a_second(waited),
            deadline: Some(now + left),
        })
    }

    fn offset_ms(&self, proxy: ProxyId, epoch: u32, apart_ms: i64, now: Instant) -> i64 {
        let mut offsets = self.offsets.lock();
        if offsets.len() >= PROXIES_MAX && !offsets.contains_key(&proxy) {
            let oldest = offsets.iter().min_by_key(|(_, offset)| offset.at);
            let oldest = oldest.map(|(&proxy, _)| proxy);
            oldest.and_then(|oldest| offsets.remove(&oldest));
        }
        let first = Offset {
            epoch,
            ms: apart_ms,
            at: now,
        };
        let known = offsets.entry(proxy).or_insert(first);
        if known.epoch != epoch {
            *known = first;
            log::warn!(
                "the clock of proxy {proxy} differs by about {apart_ms} ms: let all nodes' clocks be synchronised"
            );
        }
        let drifted = i64::try_from((now - known.at).as_millis()).unwrap_or(i64::MAX) / DRIFT;
        *known = Offset {
            epoch,
            ms: known.ms.saturating_add(drifted).min(apart_ms),
            at: match drifted {
                0 if apart_ms > known.ms => known.at,
                _ => now,
            },
        };
        known.ms
    }
}

fn duration(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

/// UTC, milliseconds since 1970.
fn unix_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: ProxyId = ProxyId::from_u64(1);
    const WHOLE_MS: i64 = 5_000;

    /// Calls of one proxy, whose clock is ahead of this one by `ahead_ms`.
    struct Calls {
        clocks: Clocks,
        start: Instant,
        ahead_ms: i64,
        epoch: u32,
    }

    impl Calls {
        fn new(ahead_ms: i64, epoch: u32) -> Self {
            Self {
                clocks: Clocks::default(),
                start: Instant::now(),
                ahead_ms,
                epoch,
            }
        }

        /// A call that is made at `at_ms`, of a request that came then, and arrives `after_ms` later: how long it has
        /// waited, and what is left; `None` if it is refused.
        fn arrive(&self, at_ms: i64, after_ms: i64) -> Option<(i64, i64)> {
            let asked_ms = at_ms + self.ahead_ms;
            let time = CallTime {
                epoch: self.epoch,
                asked_ms,
                deadline_ms: asked_ms + WHOLE_MS,
            };
            let now = self.start + duration(at_ms + after_ms);
            let asked =
                self.clocks
                    .judge(PROXY, time, duration(WHOLE_MS), at_ms + after_ms, now)?;
            let left = asked.deadline.expect("known") - now;
            let ms = |duration: Duration| i64::try_from(duration.as_millis()).expect("short");
            Some((ms(now - asked.at), ms(left)))
        }
    }

    #[test]
    fn what_was_long_on_its_way_has_less_time_or_none() {
        let calls = Calls::new(0, 0);
        assert_eq!(calls.arrive(0, 0), Some((0, 5_000)));
        assert_eq!(calls.arrive(1_000, 900), Some((900, 4_100)));
        assert_eq!(calls.arrive(2_000, 3_000), Some((3_000, 2_000)));
        for late_ms in [4_400, 5_000, 60_000] {
            assert_eq!(calls.arrive(3_000, late_ms), None, "{late_ms}");
        }
    }

    #[test]
    fn a_clock_that_is_ahead_makes_nothing_late() {
        let calls = Calls::new(60_000, 0);
        assert_eq!(calls.arrive(0, 0), Some((0, 5_000)));
    }

    #[test]
    fn in_a_later_epoch_the_quickest_call_says_how_far_the_clocks_are_apart() {
        for ahead_ms in [-60_000, -2_000, 60_000] {
            let first = Calls::new(ahead_ms, 0);
            assert_eq!(first.arrive(0, 0).is_none(), ahead_ms < -4_375);
            let calls = Calls::new(ahead_ms, 1);
            assert_eq!(calls.arrive(0, 7), Some((0, 5_000)));
            assert_eq!(calls.arrive(1_000, 2), Some((0, 5_000)));
            // In four seconds the clocks may have drifted apart by 4 ms.
            assert_eq!(calls.arrive(2_000, 3_002), Some((2_996, 2_004)));
            assert_eq!(calls.arrive(3_000, 60_000), None);
        }
    }

    #[test]
    fn clocks_that_drift_are_followed() {
        let mut calls = Calls::new(-60_000, 1);
        for minute in 0..600 {
            let at_ms = minute * 60_000;
            assert_eq!(calls.arrive(at_ms, 1), Some((0, 5_000)), "{minute}");
            calls.ahead_ms -= 30;
        }
    }

    #[test]
    fn another_epoch_begins_anew() {
        let mut calls = Calls::new(0, 1);
        assert!(calls.arrive(0, 0).is_some());
        // The clock was set.
        calls.ahead_ms = -3_600_000;
        assert_eq!(calls.arrive(1_000, 0), None);
        calls.epoch = 2;
        assert_eq!(calls.arrive(2_000, 0), Some((0, 5_000)));
    }

    #[test]
    fn what_is_kept_of_proxies_is_bounded() {
        let clocks = Clocks::default();
        let now = Instant::now();
        for proxy in 0..2 * PROXIES_MAX as u64 {
            clocks.offset_ms(ProxyId::from_u64(proxy), 1, 5, now);
        }
        assert_eq!(clocks.offsets.lock().len(), PROXIES_MAX);
    }
}
