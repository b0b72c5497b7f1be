//! A call from its first attempt to its one completion.
//!
//! ```text
//!                    ┌── another provider, at once ◄── not sent, refused ──┐
//!   first attempt ───┤                                                     ├── attempt out ── answer ─► completed
//!                    ├── after a delay, within the budget ◄── lost, if     │       │
//!                    │                                     idempotent ─────┘       └── deadline ─► completed
//!   backup attempt ──┘
//! ```
//!
//! However many attempts are out, the first answer completes the call, and so do its deadline, its
//! cancellation, and a failure after which nothing is left to try. The protocol has no frame to cancel a
//! request, so attempts that lost go on at their providers; their answers are dropped.

mod attempt;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use parking_lot::{Condvar, Mutex, MutexGuard};
use smallvec::SmallVec;

pub(crate) use self::attempt::Attempt;
use super::endpoint::EndpointId;
use super::interceptor::{ClientInterceptor, ClientOutcome};
use super::options::Readiness;
use super::route::Route;
use crate::bounds::timeout_ms;
use crate::policy::backup::BackupTimer;
use crate::wire::{Limits, Sealed, decode, encode_payload};
use crate::{Metadata, MethodDescriptor, RpcError};

/// Gives an answer in place of a call that failed: the encoded request and the error in, the encoded
/// response or the error to fail with out.
pub(crate) type Fallback = dyn Fn(&[u8], &RpcError) -> Result<Bytes, RpcError> + Send + Sync;

/// Refusals of one call that cost nothing, and returns to a provider whose connection ended before the call was
/// sent. It bounds what a call adds to the load of a large service that is
/// overloaded everywhere.
const REFUSALS_MAX: u32 = 16;

/// What is known of a call when it is made.
pub(crate) struct Plan {
    pub(crate) method: &'static MethodDescriptor,
    pub(crate) started: Instant,
    pub(crate) deadline: Instant,
    pub(crate) hash_key: Option<u64>,
    pub(crate) idempotent: bool,
    pub(crate) readiness: Readiness,
    pub(crate) attempts_max: u32,
    pub(crate) limits: Limits,
    /// Those that the call has passed, the outermost first.
    pub(crate) interceptors: Option<Arc<[Arc<dyn ClientInterceptor>]>>,
    pub(crate) interceptors_passed: usize,
    /// Learns how long calls of the method take.
    pub(crate) backup_timer: Option<Arc<BackupTimer>>,
    /// With the encoded request for it.
    pub(crate) fallback: Option<(Arc<Fallback>, Bytes)>,
}

/// A successful answer as it came, or as the fallback gave it.
pub(crate) struct Answered {
    pub(crate) sealed: Sealed,
    pub(crate) metadata: Metadata,
    /// Why the fallback was asked.
    pub(crate) degraded: Option<RpcError>,
}

pub(crate) type RawResult = Result<Answered, RpcError>;

pub(crate) type Callback = Box<dyn FnOnce(RawResult) + Send>;

pub(crate) struct Flight {
    pub(crate) plan: Plan,
    state: Mutex<State>,
    done: Condvar,
}

struct State {
    slot: Slot,
    /// Somebody is about to put the result into the slot.
    ending: bool,
    route: Weak<Route>,
    /// The request as it was first sent, for further attempts. Empty once the call has ended.
    frame: Bytes,
    /// Attempts that are out.
    live: u32,
    /// Attempts that were sent.
    attempts: u32,
    /// Those that count: not the refused ones, while there is somebody else to ask.
    spent: u32,
    refusals: u32,
    /// Who has had it.
    tried: SmallVec<[EndpointId; 4]>,
}

enum Slot {
    Waiting(Waiter),
    Done(RawResult),
    /// By its caller; or the caller has gone.
    Taken,
}

enum Waiter {
    Nobody,
    Thread,
    Task(Waker),
    Callback(Callback),
}

/// What is known of an attempt that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing of it was sent.
    NotSent,
    /// It was sent, and refused before it ran.
    Refused,
    /// It may have run.
    Unknown,
    /// The provider has answered with an error of its own.
    Answered,
}

/// What is to be done after an attempt has failed.
pub(crate) enum Next {
    /// Nothing: the call has ended, or another attempt decides.
    Nothing,
    /// Fail the call.
    Fail,
    /// Try again, elsewhere if possible.
    Again,
}

impl Flight {
    pub(crate) fn new(plan: Plan) -> Arc<Self> {
        Arc::new(Self {
            plan,
            state: Mutex::new(State {
                slot: Slot::Waiting(Waiter::Nobody),
                ending: false,
                route: Weak::new(),
                frame: Bytes::new(),
                live: 0,
                attempts: 0,
                spent: 0,
                refusals: 0,
                tried: SmallVec::new(),
            }),
            done: Condvar::new(),
        })
    }

    // ---- attempts ----

    /// The first attempt, with the request as it was encoded.
    pub(crate) fn first(
        self: &Arc<Self>,
        route: &Arc<Route>,
        correlation_id: i64,
        frame: Bytes,
    ) -> Attempt {
        let mut state = self.state.lock();
        state.route = Arc::downgrade(route);
        state.frame = frame;
        state.live = 1;
        state.attempts = 1;
        state.spent = 1;
        drop(state);
        self.attempt(correlation_id, None)
    }

    /// One more attempt; `None` when the call has ended, has no time left, or has had them all.
    pub(crate) fn another(self: &Arc<Self>, correlation_id: i64) -> Option<Attempt> {
        let left = self.plan.deadline.checked_duration_since(Instant::now())?;
        let mut state = self.state.lock();
        if state.is_over() || state.spent >= self.plan.attempts_max {
            return None;
        }
        let frame = again(&state.frame, correlation_id, left, &self.plan.limits)?;
        state.live += 1;
        state.attempts += 1;
        state.spent += 1;
        drop(state);
        Some(self.attempt(correlation_id, Some(frame)))
    }

    fn attempt(self: &Arc<Self>, correlation_id: i64, frame: Option<Bytes>) -> Attempt {
        Attempt {
            flight: Some(Arc::clone(self)),
            correlation_id,
            frame,
            sent: self.plan.started,
        }
    }

    pub(crate) fn note_tried(&self, endpoint: EndpointId) {
        self.state.lock().tried.push(endpoint);
    }

    /// Who has had it: a copy, so that many endpoints can be looked at without a lock.
    pub(crate) fn tried(&self) -> SmallVec<[EndpointId; 4]> {
        self.state.lock().tried.clone()
    }

    /// It has waited, and everybody may be asked again.
    pub(crate) fn forget_tried(&self) {
        self.state.lock().tried.clear();
    }

    pub(crate) fn attempts(&self) -> u32 {
        self.state.lock().attempts
    }

    /// All who could be asked have refused: that counts as one attempt. Whether there may be another.
    pub(crate) fn spend_refusals(&self) -> bool {
        let mut state = self.state.lock();
        state.spent += 1;
        state.spent < self.plan.attempts_max
    }

    /// Whether it may go once more to a provider that has had it and did not read it.
    pub(crate) fn may_return(&self) -> bool {
        let mut state = self.state.lock();
        let may = state.refusals < REFUSALS_MAX;
        state.refusals += u32::from(may);
        may
    }

    pub(crate) fn route(&self) -> Option<Arc<Route>> {
        self.state.lock().route.upgrade()
    }

    /// Whether an attempt is out.
    pub(crate) fn is_out(&self) -> bool {
        self.state.lock().live > 0
    }

    fn attempt_failed(self: &Arc<Self>, error: RpcError, fate: Fate) {
        match self.after_failure(&error, fate) {
            Next::Nothing => {}
            Next::Fail => self.finish(Err(error)),
            Next::Again => match self.route() {
                Some(route) => route.again(self, error, fate),
                None => self.finish(Err(error)),
            },
        }
    }

    fn after_failure(&self, error: &RpcError, fate: Fate) -> Next {
        let mut state = self.state.lock();
        state.live -= 1;
        // Whoever has it tried is not asked again, so this ends.
        match fate {
            Fate::NotSent => {
                state.attempts -= 1;
                state.spent -= 1;
            }
            Fate::Refused if state.refusals < REFUSALS_MAX => {
                state.refusals += 1;
                state.spent -= 1;
            }
            Fate::Refused | Fate::Unknown | Fate::Answered => {}
        }
        if state.is_over() {
            return Next::Nothing;
        }
        let harmless = match fate {
            Fate::NotSent | Fate::Refused => true,
            Fate::Unknown | Fate::Answered => self.plan.idempotent && error.code().is_retryable(),
        };
        if state.live > 0 && (harmless || fate != Fate::Answered) {
            return Next::Nothing;
        }
        if harmless && state.spent < self.plan.attempts_max {
            Next::Again
        } else {
            Next::Fail
        }
    }

    // ---- the end ----

    /// Whether it has ended, or nobody waits for its end.
    pub(crate) fn is_over(&self) -> bool {
        self.state.lock().is_over()
    }

    /// Completes the call; does nothing when it has ended.
    pub(crate) fn finish(&self, result: RawResult) {
        self.end(result, self.state.lock());
    }

    /// An attempt has ended in a way that ends the call.
    fn ended(&self, result: RawResult) {
        let mut state = self.state.lock();
        state.live -= 1;
        self.end(result, state);
    }

    fn end(&self, result: RawResult, mut state: MutexGuard<'_, State>) {
        if state.is_over() {
            return;
        }
        if let Some(timer) = &self.plan.backup_timer {
            let now = Instant::now();
            timer.observe(now.saturating_duration_since(self.plan.started), now);
        }
        if self.plan.interceptors_passed == 0 && (result.is_ok() || self.plan.fallback.is_none()) {
            self.hand_over(state, result);
            return;
        }
        // Foreign code runs without the lock, and before the caller hears of the end.
        state.ending = true;
        let attempts = state.attempts;
        drop(state);
        self.tell_interceptors(&result, attempts);
        let result = self.degrade(result);
        self.hand_over(self.state.lock(), result);
    }

    fn hand_over(&self, mut state: MutexGuard<'_, State>, result: RawResult) {
        state.ending = false;
        state.frame = Bytes::new();
        match std::mem::replace(&mut state.slot, Slot::Taken) {
            Slot::Waiting(Waiter::Callback(callback)) => {
                drop(state);
                run_foreign("the callback of a call", || callback(result));
            }
            Slot::Waiting(waiter) => {
                state.slot = Slot::Done(result);
                drop(state);
                match waiter {
                    Waiter::Thread => {
                        self.done.notify_all();
                    }
                    Waiter::Task(waker) => run_foreign("the waker of a call", || waker.wake()),
                    Waiter::Nobody | Waiter::Callback(_) => {}
                }
            }
            // Its caller went away meanwhile.
            Slot::Taken => {}
            Slot::Done(_) => debug_assert!(false, "a call was completed twice"),
        }
    }

    fn tell_interceptors(&self, result: &RawResult, attempts: u32) {
        let Some(interceptors) = &self.plan.interceptors else {
            return;
        };
        let none = Metadata::default();
        let outcome = ClientOutcome {
            method: self.plan.method,
            error: result.as_ref().err(),
            metadata: result.as_ref().map_or(&none, |answered| &answered.metadata),
            latency: self.plan.started.elapsed(),
            attempts,
        };
        for interceptor in interceptors
            .iter()
            .take(self.plan.interceptors_passed)
            .rev()
        {
            run_foreign("an interceptor", || interceptor.after(&outcome));
        }
    }

    /// A failed call's answer by its fallback, if it has one.
    fn degrade(&self, result: RawResult) -> RawResult {
        let (Err(error), Some((fallback, request))) = (&result, &self.plan.fallback) else {
            return result;
        };
        match catch_unwind(AssertUnwindSafe(|| fallback(request, error))) {
            Ok(Ok(payload)) => Ok(Answered {
                sealed: Sealed::plain(payload),
                metadata: Metadata::default(),
                degraded: result.err(),
            }),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                log::error!(
                    "the fallback of {}/{} panicked",
                    self.plan.method.service,
                    self.plan.method.name
                );
                result
            }
        }
    }

    // ---- the caller's end ----

    /// Blocks until the call has ended; `None`: its result was taken before.
    pub(crate) fn wait(&self) -> Option<RawResult> {
        let mut state = self.state.lock();
        loop {
            match std::mem::replace(&mut state.slot, Slot::Waiting(Waiter::Thread)) {
                Slot::Done(result) => {
                    state.slot = Slot::Taken;
                    return Some(result);
                }
                Slot::Taken => {
                    state.slot = Slot::Taken;
                    return None;
                }
                Slot::Waiting(_) => self.done.wait(&mut state),
            }
        }
    }

    /// Leaves a callback, or returns what it is to be called with now.
    pub(crate) fn leave(&self, callback: Callback) -> Option<(Callback, RawResult)> {
        let mut state = self.state.lock();
        match std::mem::replace(&mut state.slot, Slot::Taken) {
            Slot::Done(result) => Some((callback, result)),
            Slot::Waiting(_) => {
                state.slot = Slot::Waiting(Waiter::Callback(callback));
                None
            }
            Slot::Taken => Some((callback, Err(already_taken()))),
        }
    }

    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<RawResult> {
        let mut state = self.state.lock();
        match std::mem::replace(&mut state.slot, Slot::Taken) {
            Slot::Done(result) => Poll::Ready(result),
            Slot::Waiting(waiter) => {
                let waker = match waiter {
                    Waiter::Task(waker) if waker.will_wake(context.waker()) => waker,
                    _ => context.waker().clone(),
                };
                state.slot = Slot::Waiting(Waiter::Task(waker));
                Poll::Pending
            }
            Slot::Taken => Poll::Ready(Err(already_taken())),
        }
    }

    /// Nobody waits for the result any more: no further attempts are made.
    pub(crate) fn abandon(&self) {
        let mut state = self.state.lock();
        let before = std::mem::replace(&mut state.slot, Slot::Taken);
        state.frame = Bytes::new();
        drop(state);
        // A result or a waker is foreign code when it is dropped.
        drop(before);
    }
}

impl State {
    fn is_over(&self) -> bool {
        self.ending || !matches!(self.slot, Slot::Waiting(_))
    }
}

/// The request again, under another correlation id and with what is left of its time. `None` once the call
/// has ended and its request is gone.
fn again(frame: &Bytes, correlation_id: i64, left: Duration, limits: &Limits) -> Option<Bytes> {
    let mut whole = BytesMut::from(&frame[..]);
    let frame = decode(&mut whole, limits).ok()??;
    let mut meta = frame.meta;
    meta.correlation_id = Some(correlation_id);
    if let Some(request) = &mut meta.request {
        request.timeout_ms = Some(timeout_ms(left));
    }
    let mut out = BytesMut::new();
    encode_payload(
        &mut meta,
        &frame.payload,
        &frame.attachment,
        limits,
        &mut out,
    )
    .ok()?;
    Some(out.freeze())
}

/// Runs what a user left behind. Its panic is its own: other calls of the connection, whose loop this
/// is, go on.
fn run_foreign(what: &str, run: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(run)).is_err() {
        log::error!("{what} panicked");
    }
}

fn already_taken() -> RpcError {
    RpcError::internal("the call's result was already taken")
}
