//! The thread of a subscription: connects, listens, and connects again, until it is stopped.
//!
//! ```text
//!   connect ──ok──> Connected, messages ──closed or silent──> Lost ──┐
//!      ^ └──failed──┐                                                │
//!      └──── wait (longer each time, with jitter) <──────────────────┘
//! ```

use std::time::{Duration, Instant};

use bytes::Bytes;
use log::Level;
use redis::{RedisError, Value};

use super::link::{Endpoint, LinkError};
use crate::subscription::StopSignal;
use crate::{BusEvent, OnEvent};

/// How long a read may block before the thread looks whether it should stop.
const STOP_CHECK: Duration = Duration::from_millis(100);
/// The pause before the first new attempt, and the longest one.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What the thread of a subscription owns.
pub(super) struct Subscriber {
    pub(super) endpoint: Endpoint,
    pub(super) channel: String,
    pub(super) ping_interval: Duration,
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
        let deadline = Instant::now() + self.endpoint.timeout;
        let mut link = self.endpoint.connect(deadline)?;
        // Not `PubSub::subscribe`, which takes a refusal for a success.
        let mut request = redis::cmd("SUBSCRIBE");
        let request = request.arg(&self.channel).get_packed_command();
        link.exchange_checked(&request, 1, deadline)?;
        *connected = true;
        log::info!("subscribed to {}", self.channel);
        (self.on_event)(BusEvent::Connected);

        let connection = link.connection();
        connection.set_read_timeout(Some(STOP_CHECK))?;
        let mut subscribed = connection.as_pubsub();
        let mut heard = Instant::now();
        loop {
            match subscribed.get_message() {
                Ok(message) => {
                    let payload = Bytes::copy_from_slice(message.get_payload_bytes());
                    (self.on_event)(BusEvent::Message(payload));
                    heard = Instant::now();
                }
                Err(error) if error.is_timeout() => {}
                Err(error) => return Err(error.into()),
            }
            if stop.is_set() {
                return Ok(());
            }
            if heard.elapsed() >= self.ping_interval {
                subscribed.set_read_timeout(Some(self.endpoint.timeout))?;
                let pong: Result<Value, RedisError> = subscribed.ping();
                // Dropping `subscribed` waits for an answer: briefly, if there is none.
                subscribed.set_read_timeout(Some(STOP_CHECK))?;
                pong?;
                heard = Instant::now();
            }
        }
    }
}
