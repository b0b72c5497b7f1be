//! The thread of a subscription: connects, listens, and connects again, until it is stopped.
//!
//! ```text
//!   connect ──ok──> Connected, messages ──closed or silent──> Lost ──┐
//!      ^ └──failed──┐                                                │
//!      └──── wait (longer each time, with jitter) <──────────────────┘
//! ```
//!
//! A subscription that hears nothing looks like one to which nothing is published. So the thread publishes a *beat* now and
//! then, as other programs publish: through the pool, whose links are at a master that takes writes. Redis says how many
//! subscribers it has passed the beat on to. None: the subscription is at another Redis, such as a master that was demoted
//! and keeps its connections. A beat that Redis has passed on has to arrive. While Redis is away for the pool, the
//! subscription asks on its own connection whether Redis is there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use log::Level;
use redis::{PubSub, RedisError, Value};

use super::link::LinkError;
use super::pool::Pool;
use crate::subscription::StopSignal;
use crate::{BusEvent, OnEvent};

/// How long a read may block before the thread looks whether it should stop.
const STOP_CHECK: Duration = Duration::from_millis(100);
/// The pause before the first new attempt, and the longest one.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What the thread of a subscription owns.
pub(super) struct Subscriber {
    pub(super) pool: Arc<Pool>,
    pub(super) channel: String,
    /// For beats; of this subscription alone.
    pub(super) beat_channel: String,
    pub(super) beat_interval: Duration,
    pub(super) on_event: OnEvent,
}

impl Subscriber {
    /// Returns when `stop` is set.
    pub(super) fn run(mut self, stop: &StopSignal) {
        let mut pause = PAUSE_MIN;
        let mut log_level = Level::Warn;
        loop {
            let mut connected = false;
            let Err(error) = self.listen(stop, &mut connected) else {
                return;
            };
            if connected {
                (self.on_event)(BusEvent::Lost);
                pause = PAUSE_MIN;
                log_level = Level::Warn;
            }
            log::log!(
                log_level,
                "no subscription to {}: {error}; trying again",
                self.channel
            );
            // One clear line per outage.
            log_level = Level::Debug;
            if stop.is_set_within(pause.mul_f64(rand::random_range(0.5..1.0))) {
                return;
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// One connection, from its beginning to its loss; `Ok` means stopped.
    fn listen(&mut self, stop: &StopSignal, connected: &mut bool) -> Result<(), LinkError> {
        let endpoint = self.pool.endpoint();
        let timeout = endpoint.timeout;
        let deadline = Instant::now() + timeout;
        let mut link = endpoint.connect(deadline)?;
        // Not `PubSub::subscribe`, which takes a refusal for a success.
        let mut request = redis::cmd("SUBSCRIBE");
        request.arg(&self.channel).arg(&self.beat_channel);
        link.exchange_checked(&request.get_packed_command(), 2, deadline)?;
        *connected = true;
        log::info!("subscribed to {}", self.channel);
        (self.on_event)(BusEvent::Connected);

        let connection = link.connection();
        connection.set_read_timeout(Some(STOP_CHECK))?;
        let mut subscribed = connection.as_pubsub();
        let mut beat_at = Instant::now() + self.beat_interval;
        // Until when the beat that is under way, or any message before it, has to arrive.
        let mut expected_by: Option<Instant> = None;
        loop {
            match subscribed.get_message() {
                Ok(message) if message.get_channel_name() == self.beat_channel => {
                    expected_by = None;
                }
                Ok(message) => {
                    let payload = Bytes::copy_from_slice(message.get_payload_bytes());
                    (self.on_event)(BusEvent::Message(payload));
                    expected_by = expected_by.map(|_| Instant::now() + timeout);
                }
                Err(error) if error.is_timeout() => {}
                Err(error) => return Err(error.into()),
            }
            if stop.is_set() {
                return Ok(());
            }
            let now = Instant::now();
            if expected_by.is_some_and(|by| by <= now) {
                return Err(LinkError::TimedOut);
            }
            if beat_at <= now && expected_by.is_none() {
                match self.beat() {
                    Some(0) => return Err(LinkError::Elsewhere),
                    Some(_) => expected_by = Some(Instant::now() + timeout),
                    None => ping(&mut subscribed, timeout)?,
                }
                beat_at = Instant::now() + self.beat_interval;
            }
        }
    }

    /// Publishes a beat; how many subscribers it was passed on to. `None`: it was not published.
    fn beat(&self) -> Option<i64> {
        let mut publish = redis::cmd("PUBLISH");
        let publish = publish.arg(&self.beat_channel).arg("").get_packed_command();
        match self.pool.round_trip_at_once(&publish, 1).as_deref() {
            Ok([Value::Int(receivers)]) => Some(*receivers),
            _ => None,
        }
    }
}

/// Asks Redis on the subscription's own connection whether it is there.
fn ping(subscribed: &mut PubSub<'_>, timeout: Duration) -> Result<(), LinkError> {
    subscribed.set_read_timeout(Some(timeout))?;
    let pong: Result<Value, RedisError> = subscribed.ping();
    // Dropping `subscribed` waits for an answer: briefly, if there is none.
    subscribed.set_read_timeout(Some(STOP_CHECK))?;
    pong?;
    Ok(())
}
