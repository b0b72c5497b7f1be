//! A connection that is made again when it is lost.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use rand::RngExt;

use crate::{
    Address, CloseReason, ConnHandle, ConnId, Connection, ConnectionOptions, Error, Handler,
    LoopContext, LoopHandle,
};

/// Delays between attempts: each doubles the last, up to a maximum, and each is shortened by a random
/// part so that clients of one server do not come back in step.
#[derive(Debug, Clone)]
pub struct Backoff {
    /// The first delay. Default 100 ms.
    pub initial: Duration,
    /// The longest delay. Default 5 s.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(100),
            max: Duration::from_secs(5),
        }
    }
}

impl Backoff {
    /// The delay after `failures` failed attempts in a row (1 or more), with `random` in 0.0..1.0:
    /// between half of the full delay and all of it.
    pub fn delay(&self, failures: u32, random: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(20);
        let full = self.initial.saturating_mul(1 << doublings).min(self.max);
        full.mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
    }
}

/// How a [`TcpClient`] connects.
///
/// Build it with `..ClientOptions::default()`, also where you name every field: features add some.
#[derive(Debug, Clone, Default)]
pub struct ClientOptions {
    /// Limits of the connection.
    pub connection: ConnectionOptions,
    /// Delays between attempts.
    pub backoff: Backoff,
    /// Other addresses that do as well: after a failure or a loss the next one is tried, in a circle.
    /// Default: none.
    pub fallbacks: Vec<Address>,
    /// TLS, and which server to expect. Default: none.
    #[cfg(feature = "tls")]
    pub tls: Option<crate::ClientTls>,
}

type MakeHandler = dyn FnMut(&ConnHandle) -> Box<dyn Handler> + Send;

/// Keeps one connection to an address, or to one of several: connects, and after each loss or failure
/// connects again, with growing delays. Dropping it ends that and closes the connection.
pub struct TcpClient {
    handle: LoopHandle,
    shared: Arc<Shared>,
}

struct Shared {
    stopped: AtomicBool,
    /// The present connection or attempt.
    current: Mutex<Option<ConnHandle>>,
}

/// The client's part that lives on the loop.
struct Client {
    /// At least one; the first is the next to be tried, or the present one.
    addresses: VecDeque<Address>,
    options: Arc<ConnectionOptions>,
    backoff: Backoff,
    #[cfg(feature = "tls")]
    tls: Option<crate::ClientTls>,
    failures: u32,
    make_handler: Box<MakeHandler>,
    shared: Arc<Shared>,
}

impl TcpClient {
    /// Starts to connect, on the given loop.
    ///
    /// `make_handler` is called on the loop for each attempt. Its handler hears `opened` when the
    /// attempt succeeds, or only `closed` with [`CloseReason::ConnectFailed`].
    ///
    /// An attempt that cannot even be started (no descriptors, no route) makes no handler; it is
    /// logged, and counts as failed.
    ///
    /// # Errors
    /// [`Error::Options`] for options out of range, [`Error::LoopGone`].
    pub fn start(
        handle: &LoopHandle,
        address: impl Into<Address>,
        options: ClientOptions,
        make_handler: impl FnMut(&ConnHandle) -> Box<dyn Handler> + Send + 'static,
    ) -> Result<Self, Error> {
        options.connection.check().map_err(Error::Options)?;
        let mut addresses = VecDeque::from(options.fallbacks);
        addresses.push_front(address.into());
        let shared = Arc::new(Shared {
            stopped: AtomicBool::new(false),
            current: Mutex::new(None),
        });
        let client = Self {
            handle: handle.clone(),
            shared: Arc::clone(&shared),
        };
        handle
            .post(move |context| {
                let client = Client {
                    addresses,
                    options: Arc::new(options.connection),
                    backoff: options.backoff,
                    #[cfg(feature = "tls")]
                    tls: options.tls,
                    failures: 0,
                    make_handler: Box::new(make_handler),
                    shared,
                };
                attempt(&Rc::new(RefCell::new(client)), context);
            })
            .map_err(|_| Error::LoopGone)?;
        Ok(client)
    }

    /// The loop it runs on.
    pub fn loop_handle(&self) -> &LoopHandle {
        &self.handle
    }
}

impl Drop for TcpClient {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
        if let Some(conn) = self.shared.current.lock().take() {
            let _ = conn.close();
        }
    }
}

impl std::fmt::Debug for TcpClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TcpClient")
            .field("loop", &self.handle)
            .finish_non_exhaustive()
    }
}

impl Client {
    fn address(&self) -> &Address {
        &self.addresses[0]
    }

    /// On to the next address; returns the delay until then.
    fn failed(&mut self) -> Duration {
        self.addresses.rotate_left(1);
        self.failures = self.failures.saturating_add(1);
        self.backoff.delay(self.failures, rand::rng().random())
    }
}

fn attempt(client: &Rc<RefCell<Client>>, context: &mut LoopContext<'_>) {
    let mut this = client.borrow_mut();
    if this.shared.stopped.load(Ordering::Acquire) {
        return;
    }
    let this = &mut *this;
    let result = connect(this, client, context);
    // Dropped meanwhile: either the drop saw the handle stored above, or this sees `stopped`.
    if this.shared.stopped.load(Ordering::Acquire)
        && let Some(conn) = this.shared.current.lock().take()
    {
        let _ = conn.close();
    }
    if let Err(error) = result {
        log::warn!("{}: cannot start to connect: {error}", this.address());
        let delay = this.failed();
        let client = Rc::clone(client);
        context.after(delay, move |context| attempt(&client, context));
    }
}

fn connect(
    this: &mut Client,
    client: &Rc<RefCell<Client>>,
    context: &mut LoopContext<'_>,
) -> io::Result<ConnId> {
    let (address, options) = (this.address().clone(), Arc::clone(&this.options));
    let make_handler = |conn: &ConnHandle| -> Box<dyn Handler> {
        *this.shared.current.lock() = Some(conn.clone());
        Box::new(Reconnecting {
            inner: (this.make_handler)(conn),
            client: Rc::clone(client),
            was_open: false,
        })
    };
    #[cfg(feature = "tls")]
    if let Some(tls) = &this.tls {
        return context.connect_tls(address, tls, options, make_handler);
    }
    context.connect(address, options, make_handler)
}

/// Passes everything on to the user's handler, and connects again in the end.
struct Reconnecting {
    inner: Box<dyn Handler>,
    client: Rc<RefCell<Client>>,
    was_open: bool,
}

impl Handler for Reconnecting {
    fn opened(&mut self, conn: &mut Connection<'_>) {
        self.was_open = true;
        self.inner.opened(conn);
    }

    fn data(&mut self, conn: &mut Connection<'_>, input: &mut BytesMut) {
        // Something came: the peer is worth a quick retry when it is lost again.
        self.client.borrow_mut().failures = 0;
        self.inner.data(conn, input);
    }

    fn eof(&mut self, conn: &mut Connection<'_>) {
        self.inner.eof(conn);
    }

    fn woken(&mut self, conn: &mut Connection<'_>) {
        self.inner.woken(conn);
    }

    fn timer(&mut self, conn: &mut Connection<'_>, token: u64) {
        self.inner.timer(conn, token);
    }

    fn drained(&mut self, conn: &mut Connection<'_>) {
        self.inner.drained(conn);
    }

    fn draining(&mut self, conn: &mut Connection<'_>) {
        self.inner.draining(conn);
    }

    fn closed(&mut self, context: &mut LoopContext<'_>, reason: CloseReason) {
        if !matches!(reason, CloseReason::LoopStopped) {
            self.schedule(context, &reason);
        }
        self.inner.closed(context, reason);
    }
}

impl Reconnecting {
    fn schedule(&self, context: &mut LoopContext<'_>, reason: &CloseReason) {
        let mut this = self.client.borrow_mut();
        if this.shared.stopped.load(Ordering::Acquire) {
            return;
        }
        this.shared.current.lock().take();
        let address = this.address().clone();
        let delay = this.failed();
        let what = if self.was_open {
            "connection lost"
        } else {
            "not connected"
        };
        log::debug!("{address}: {what}: {reason}; next attempt in {delay:?}");
        let client = Rc::clone(&self.client);
        context.after(delay, move |context| attempt(&client, context));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff {
        initial: Duration::from_millis(100),
        max: Duration::from_secs(1),
    };

    #[test]
    fn delays_double_up_to_the_maximum() {
        let delays: Vec<u128> = (1..=6)
            .map(|failures| BACKOFF.delay(failures, 1.0).as_millis())
            .collect();
        assert_eq!(delays, [100, 200, 400, 800, 1000, 1000]);
    }

    #[test]
    fn jitter_takes_off_at_most_half() {
        for failures in 1..10 {
            let full = BACKOFF.delay(failures, 1.0);
            assert_eq!(BACKOFF.delay(failures, 0.0), full / 2);
            let middle = BACKOFF.delay(failures, 0.5);
            assert!(full / 2 < middle && middle < full);
        }
    }

    #[test]
    fn no_number_of_failures_and_no_random_value_overflows() {
        let longest = Backoff {
            initial: Duration::MAX,
            max: Duration::from_secs(5),
        };
        for backoff in [BACKOFF, longest] {
            for failures in [0, 1, 31, 32, 33, u32::MAX] {
                for random in [-1.0, 0.0, 1.0, 2.0] {
                    assert!(backoff.delay(failures, random) <= backoff.max);
                }
            }
        }
    }
}
