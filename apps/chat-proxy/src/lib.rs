//! The gateway that holds the clients' connections.
//!
//! ```text
//!             ┌──────────────────────────── proxy ───────────────────────────┐
//!   client ◄──┤ Session (a handler on its loop) ── calls ──► Services ───────┼──► chat servers
//!             │    ▲   ▲                      └─► Acks ──────────┤           │
//!             │    │   └ Directory ◄─ push ◄─ subscription ◄─────┼───────────┼─── bus
//!             │    └ closed ─► Logouts ──────────────────────────┘           │
//!             │      LeaseKeeper ── lease, restore ──────────────────────────┼──► bus
//!             └───────────────────────────────────────────────────────────────┘
//! ```
//!
//! | module | owns | runs on |
//! |---|---|---|
//! | `session` | one client connection: its login, its requests, what it is shown | its loop |
//! | `clients` | what one client may do, counted over its connections | |
//! | `requests` | the table of what is forwarded, and of the answers that say no | |
//! | `services` | the clients of the chat services; what their failures mean | |
//! | `delivery` | the order of what a session is shown, sans-IO | |
//! | `directory` | which sessions get what is pushed to a user | |
//! | `push` | from the bus to the sessions | the subscription's thread |
//! | `acks` | what clients have received, collected | a thread |
//! | `logouts` | users whose connection has closed | a thread |
//! | `lease` | the proxy's lease, and its users' presence | a thread |
//! | `pulse` | whether the process has stood still | a thread |
//! | `resync` | sessions that fetch what they may have missed, a few at a time | |
//! | [`config`] | the configuration file of the program | |
//!
//! Nothing on a loop's thread blocks; whatever asks the bus has a thread of its own. A proxy keeps
//! nothing that would be lost with it: what it has not delivered is pending in the store.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use chat_bus::{Bus, BusEvent, ProxyId, Subscription};
use nexus_net::{Accepted, ByteBudget, LoopGroup, Mailbox, TcpServer};
use nexus_rpc::registry::Registry;

mod acks;
mod clients;
pub mod config;
mod delivery;
mod directory;
mod lease;
mod logouts;
mod options;
mod pulse;
mod push;
mod requests;
mod resync;
mod services;
mod session;

use acks::Acks;
pub use clients::ClientLimits;
use lease::{LeaseKeeper, ToLease};
use logouts::Logouts;
pub use options::ProxyOptions;
use pulse::Beating;
use services::Services;
use session::{Session, Shared};

/// A running proxy. Dropping it cuts its connections off; for an orderly end call
/// [`drain`](Self::drain) first.
pub struct Proxy {
    // In the order in which they are to be dropped.
    server: TcpServer,
    background: Background,
    shared: Arc<Shared>,
    bus: Arc<dyn Bus>,
    id: ProxyId,
    lease_held: Arc<AtomicBool>,
    _loops: Arc<LoopGroup>,
}

/// A proxy cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// The address cannot be listened on, or an option is out of range.
    #[error(transparent)]
    Net(#[from] nexus_net::Error),
    /// The system refuses a thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainReport {
    /// Connections that were open when the drain began.
    pub open_at_start: usize,
    /// How many of them were cut off at the deadline.
    pub aborted: usize,
    /// Users whose logout the services did not answer in time. They are offline all the same, since the
    /// proxy's lease has ended.
    pub logouts_left: usize,
    /// How long it took.
    pub took: Duration,
}

impl Proxy {
    /// Listens and serves on the loops of `loops`, calling the services that `registry` names.
    ///
    /// Neither the services nor the bus need to be there yet: clients are told "unavailable" until
    /// they are ([`is_ready`](Self::is_ready)).
    ///
    /// # Errors
    /// See [`ProxyError`].
    pub fn start(
        options: ProxyOptions,
        loops: Arc<LoopGroup>,
        registry: Arc<dyn Registry>,
        bus: Arc<dyn Bus>,
    ) -> Result<Self, ProxyError> {
        let id = ProxyId::random();
        let (listen, server_options) = (options.listen, options.server());
        let services = Services::new(registry, Arc::clone(&loops), id, &options);
        let (lease, inbox) = channel();
        let shared = Arc::new(Shared {
            unauthenticated: Arc::new(ByteBudget::new(options.unauthenticated_bytes_max)),
            options,
            services: Arc::new(services),
            directory: Arc::default(),
            acks: Arc::default(),
            logouts: Arc::default(),
            resync: Arc::default(),
            pulse: Arc::default(),
            addresses: Arc::default(),
            paces: Default::default(),
            lease,
            last_session: AtomicU64::new(0),
        });
        let lease_held = Arc::new(AtomicBool::new(false));
        let background = Background::start(&shared, &bus, id, &lease_held, inbox)?;
        let for_sessions = Arc::clone(&shared);
        let server =
            TcpServer::start(&loops, listen, server_options, move |accepted: Accepted| {
                let mailbox = Arc::new(Mailbox::new(accepted.conn));
                Box::new(Session::new(
                    Arc::clone(&for_sessions),
                    mailbox,
                    &accepted.peer,
                ))
            })?;
        Ok(Self {
            server,
            background,
            shared,
            bus,
            id,
            lease_held,
            _loops: loops,
        })
    }

    /// The address it listens on, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.server
            .local_addr()
            .as_tcp()
            .expect("started on a TCP address")
    }

    /// This run of the proxy, as the bus knows it.
    pub fn id(&self) -> ProxyId {
        self.id
    }

    /// Users logged in here now.
    pub fn sessions(&self) -> usize {
        self.shared.directory.len()
    }

    /// Whether it can serve everything: it holds its lease on the bus, and each service has a provider
    /// that is connected.
    pub fn is_ready(&self) -> bool {
        self.lease_held.load(Ordering::Acquire) && self.shared.services.is_ready()
    }

    /// Ends in order: accepts nobody, lets requests in flight finish, logs everybody out, gives up the
    /// lease and closes; what is not done by the deadline is cut off. Blocks, so it is not for loop
    /// threads.
    pub fn drain(&mut self, deadline: Duration) -> DrainReport {
        let started = Instant::now();
        // The rest is for the logouts.
        let drained = self.server.drain(deadline / 4 * 3);
        let logouts_left = self.shared.logouts.wait_idle(started + deadline);
        self.background.stop();
        self.lease_held.store(false, Ordering::Release);
        if let Err(error) = self.bus.end_lease(self.id) {
            log::warn!("proxy {}: the lease is left to run out: {error}", self.id);
        }
        DrainReport {
            open_at_start: drained.open_at_start,
            aborted: drained.aborted,
            logouts_left,
            took: started.elapsed(),
        }
    }
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy")
            .field("id", &self.id)
            .field("address", &self.local_addr())
            .finish_non_exhaustive()
    }
}

/// The threads beside the loops. Dropped, they end.
struct Background {
    acks: Arc<Acks>,
    logouts: Arc<Logouts>,
    lease: Sender<ToLease>,
    subscription: Option<Subscription>,
    beating: Option<Beating>,
    threads: Vec<JoinHandle<()>>,
}

impl Background {
    fn start(
        shared: &Shared,
        bus: &Arc<dyn Bus>,
        id: ProxyId,
        lease_held: &Arc<AtomicBool>,
        inbox: Receiver<ToLease>,
    ) -> std::io::Result<Self> {
        let lease = shared.lease.clone();
        let mut background = Self {
            acks: Arc::clone(&shared.acks),
            logouts: Arc::clone(&shared.logouts),
            lease: lease.clone(),
            subscription: None,
            beating: None,
            threads: Vec::new(),
        };
        let (beating, pulse) = shared.pulse.start()?;
        background.beating = Some(beating);
        background.threads.push(pulse);
        let services = &shared.services;
        let acks = shared
            .acks
            .start(Arc::clone(services), shared.options.ack_interval)?;
        background.threads.push(acks);
        let logouts = shared
            .logouts
            .start(Arc::clone(services), Arc::clone(bus), id)?;
        background.threads.push(logouts);
        let keeper = LeaseKeeper {
            bus: Arc::clone(bus),
            proxy: id,
            time_to_live: shared.options.lease_ttl,
            directory: Arc::clone(&shared.directory),
            resync: Arc::clone(&shared.resync),
            held: Arc::clone(lease_held),
            inbox,
        };
        let keeper = thread::Builder::new()
            .name("proxy-lease".to_owned())
            .spawn(move || keeper.run())?;
        background.threads.push(keeper);
        let directory = Arc::clone(&shared.directory);
        let on_event = move |event| match event {
            BusEvent::Message(message) => push::distribute(message, &directory),
            // Refused once the keeper has ended.
            BusEvent::Lost => {
                log::warn!("the bus was lost; sessions fetch what they miss");
                let _ = lease.send(ToLease::Lost);
            }
            BusEvent::Connected => {
                let _ = lease.send(ToLease::Connected);
            }
        };
        background.subscription = Some(bus.subscribe(id, Box::new(on_event)));
        Ok(background)
    }

    fn stop(&mut self) {
        drop(self.subscription.take());
        drop(self.beating.take());
        let _ = self.lease.send(ToLease::Stop);
        self.acks.stop();
        self.logouts.stop();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                log::error!("a thread of the proxy had panicked");
            }
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop();
    }
}
