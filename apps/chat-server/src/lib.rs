//! The chat services: what a proxy calls for its clients.
//!
//! ```text
//!   proxy ── RPC ──► services ──► store (users, friends, groups; on the worker pool)
//!                       │
//!                       └──► message writer ── commit ──► answer to the sender
//!                                  │
//!                                  └──► publisher ──► bus ──► the recipients' proxies
//! ```
//!
//! | module | owns |
//! |---|---|
//! | [`config`] | the node's TOML file, checked |
//! | `gate` | who is let in: proxies |
//! | `caller` | for whom it calls: the metadata that a proxy sends along |
//! | `clocks` | how long calls were on their way |
//! | `input` | what names, texts and passwords may be |
//! | `limits` | what one client may do, and how often |
//! | `password` | Argon2id, a few at a time |
//! | `credentials` | registering, and whether a password is right |
//! | `users`, `friends`, `groups`, `chats` | the five services |
//! | `publisher` | what was committed, on its way to the recipients' proxies |
//! | `failure` | why an operation was not done, as its answer says it |
//! | `log_limit` | what an outage would write at every request, once a second |
//! | `convert` | from the store's types to the clients' messages |
//! | `pages` | how much one answer holds |
//!
//! A server keeps no state of its own: any number of them run on one store and one bus.

mod caller;
mod chats;
mod clocks;
pub mod config;
mod convert;
mod credentials;
mod failure;
mod friends;
mod gate;
mod groups;
mod input;
mod limits;
mod log_limit;
mod pages;
mod password;
mod publisher;
mod token;
mod users;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use chat_bus::{Bus, LoginPolicy};
use chat_node::cluster::ServerSide;
use chat_proto::messages::{
    FriendServiceRpcServer, GroupChatServiceRpcServer, GroupServiceRpcServer,
    OneChatServiceRpcServer, UserServiceRpcServer,
};
use chat_store::{MessageWriter, PageLimit, Store, StoreError, WriterOptions};
use nexus_net::{DrainReport, LoopGroup};
use nexus_rpc::registry::Registry;
use nexus_rpc::{HttpOptions, Pages, ProviderError, ProviderOptions, RpcProvider};

use crate::clocks::Clocks;
pub use crate::limits::ClientLimits;
use crate::limits::Limits;
pub use crate::password::PasswordCost;
use crate::password::Passwords;
use crate::publisher::Publisher;

/// One of the five services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceName {
    /// `UserServiceRpc`: register, log in and out, what is pending.
    User,
    /// `FriendServiceRpc`: friends.
    Friend,
    /// `OneChatServiceRpc`: one-to-one messages.
    OneChat,
    /// `GroupServiceRpc`: groups and their members.
    Group,
    /// `GroupChatServiceRpc`: messages to groups.
    GroupChat,
}

impl ServiceName {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::User,
        Self::Friend,
        Self::OneChat,
        Self::Group,
        Self::GroupChat,
    ];
}

/// How a server runs.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// The address to serve RPC on.
    pub listen: SocketAddr,
    /// Which services this node runs. Default all.
    pub services: BTreeSet<ServiceName>,
    /// What happens when a user logs in who is logged in already. Default: the newer login wins.
    pub login_policy: LoginPolicy,
    /// How long a client may resume its session without the password, from when it last did.
    /// Default 30 days.
    pub session_ttl: Duration,
    /// What hashing a password costs.
    pub password_cost: PasswordCost,
    /// What one client may do.
    pub clients: ClientLimits,
    /// Members of a group at most. Default 1,000.
    pub group_members_max: usize,
    /// What a login or a fetch of pending messages carries at most; there is more where that came
    /// from. Default 2,000 messages, 512 KiB; at most 1 MiB.
    pub pending_page: PageLimit,
    /// Of the message writer.
    pub writer: WriterOptions,
    /// Whom it lets in. Default: everybody who reaches it, and so only good for an address that
    /// nobody else reaches.
    pub gate: ServerSide,
    /// Of the RPC provider; its `tls` is that of `gate`. Default: no calls over HTTP, which would say of
    /// themselves for whom they are, and no pages.
    pub provider: ProviderOptions,
}

impl ServerOptions {
    /// The defaults, on this address.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            services: ServiceName::ALL.into(),
            login_policy: LoginPolicy::NewerWins,
            session_ttl: Duration::from_secs(30 * 24 * 3600),
            password_cost: PasswordCost::default(),
            clients: ClientLimits::default(),
            group_members_max: 1000,
            pending_page: PageLimit {
                messages_max: 2000,
                bytes_max: 512 << 10,
            },
            writer: WriterOptions::default(),
            gate: ServerSide::default(),
            provider: ProviderOptions {
                http: HttpOptions {
                    pages: Pages::Off,
                    calls: false,
                    ..HttpOptions::default()
                },
                ..ProviderOptions::default()
            },
        }
    }
}

/// A server cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
    /// The RPC side cannot start.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// The store cannot be used: a newer program has changed its schema.
    #[error(transparent)]
    Store(StoreError),
}

/// What the services share.
pub(crate) struct Services {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) writer: Arc<MessageWriter>,
    pub(crate) publisher: Publisher,
    pub(crate) passwords: Passwords,
    pub(crate) limits: Limits,
    pub(crate) clocks: Clocks,
    pub(crate) clients: ClientLimits,
    pub(crate) login_policy: LoginPolicy,
    pub(crate) session_ttl: Duration,
    pub(crate) group_members_max: usize,
    pub(crate) pending_page: PageLimit,
}

/// A running chat server.
pub struct ChatServer {
    provider: RpcProvider,
    writer: Arc<MessageWriter>,
    services: Arc<Services>,
}

impl ChatServer {
    /// Serves on `store` and `bus`, and registers in `registry`. None of the three need be
    /// reachable yet: until they are, requests are answered with the "unavailable" code. The store's
    /// schema is brought up to date, in the background if that takes longer than a moment.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub fn start(
        options: ServerOptions,
        store: Arc<dyn Store>,
        bus: Arc<dyn Bus>,
        registry: Arc<dyn Registry>,
        loops: Arc<LoopGroup>,
    ) -> Result<Self, ServerError> {
        prepare_schema(&store)?;
        let publisher = Publisher::start(Arc::clone(&store), Arc::clone(&bus))?;
        // All of a batch, as soon as its last message is answered.
        let release = publisher.clone();
        let after_batch = Box::new(move || release.release());
        let writer = MessageWriter::start(Arc::clone(&store), options.writer, after_batch)?;
        let writer = Arc::new(writer);
        let waiting = Arc::downgrade(&writer);
        store.on_away(Box::new(move || {
            if let Some(writer) = waiting.upgrade() {
                writer.fail_waiting();
            }
        }));
        let services = Arc::new(Services {
            publisher,
            limits: Limits::new(Arc::clone(&bus), options.clients.clone()),
            clocks: Clocks::default(),
            store,
            bus,
            writer: Arc::clone(&writer),
            passwords: Passwords::new(
                options.password_cost,
                options.clients.password_hashes_at_once,
                options.clients.password_hashes_waiting_max,
            ),
            clients: options.clients,
            login_policy: options.login_policy,
            session_ttl: options.session_ttl,
            group_members_max: options.group_members_max,
            pending_page: pages::pending(options.pending_page),
        });
        let mut builder = RpcProvider::builder()
            .options(ProviderOptions {
                tls: options.gate.tls,
                ..options.provider
            })
            .registry(registry)
            .loops(loops);
        if let Some(secret) = options.gate.secret {
            builder = builder.authenticator(gate::ProxiesOnly(secret));
        }
        for service in &options.services {
            let services = Arc::clone(&services);
            builder = match service {
                ServiceName::User => builder.service(UserServiceRpcServer::from_arc(services)),
                ServiceName::Friend => builder.service(FriendServiceRpcServer::from_arc(services)),
                ServiceName::OneChat => {
                    builder.service(OneChatServiceRpcServer::from_arc(services))
                }
                ServiceName::Group => builder.service(GroupServiceRpcServer::from_arc(services)),
                ServiceName::GroupChat => {
                    builder.service(GroupChatServiceRpcServer::from_arc(services))
                }
            };
        }
        Ok(Self {
            provider: builder.start(options.listen)?,
            writer,
            services,
        })
    }

    /// The address it serves on, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.provider.local_addr()
    }

    /// The address of its pages, if it shows any.
    pub fn pages_addr(&self) -> Option<SocketAddr> {
        self.provider.pages_addr()
    }

    /// Whether its services are registered.
    pub fn is_registered(&self) -> bool {
        self.provider.is_registered()
    }

    /// Ends in order: deregisters, finishes the calls in work, stores and publishes what was taken.
    /// Blocks, at most a little longer than `deadline`.
    pub fn drain(&mut self, deadline: Duration) -> DrainReport {
        let until = Instant::now() + deadline;
        let report = self.provider.drain(deadline);
        let left = until
            .saturating_duration_since(Instant::now())
            .max(Duration::from_secs(1));
        let writer = self.writer.shutdown(left);
        if writer != chat_store::Shutdown::Drained {
            log::warn!("messages were still waiting for the store when time was up");
        }
        self.services.publisher.finish(left);
        report
    }
}

/// Asks for the schema until it is there; waits only for what is done in a moment, as it most often is.
/// Requests meanwhile fail by themselves.
fn prepare_schema(store: &Arc<dyn Store>) -> Result<(), ServerError> {
    const MOMENT: Duration = Duration::from_secs(2);
    const PAUSE_MAX: Duration = Duration::from_secs(1);
    let weak = Arc::downgrade(store);
    let (tell, first) = mpsc::sync_channel(1);
    std::thread::Builder::new()
        .name("schema".into())
        .spawn(move || {
            let mut pause = Duration::from_millis(100);
            while let Some(store) = weak.upgrade() {
                let result = store.prepare_schema();
                drop(store);
                // Only the first one is listened to.
                let _ = tell.try_send(result.clone());
                match result {
                    Ok(()) => return log::info!("the database is ready"),
                    Err(error) if error.is_unavailable() => {
                        log::warn!("{error}; trying again in {pause:?}");
                    }
                    Err(error) => log::error!("the schema cannot be prepared: {error}"),
                }
                std::thread::sleep(pause);
                pause = (pause * 2).min(PAUSE_MAX);
            }
        })?;
    match first.recv_timeout(MOMENT) {
        Ok(Err(error @ StoreError::NewerSchema { .. })) => Err(ServerError::Store(error)),
        _ => Ok(()),
    }
}
