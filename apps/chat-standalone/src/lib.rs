//! The whole chat in one process: one chat server and one proxy, on SQLite, an in-process registry
//! and an in-process bus. The proxy calls the server by RPC over loopback, as in a cluster.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chat_bus::{Bus, LocalBus};
use chat_node::secret::ClusterSecret;
use chat_proxy::{Proxy, ProxyOptions};
use chat_server::{ChatServer, ServerOptions};
use chat_store::{SqliteStore, Store};
use nexus_net::LoopGroup;
use nexus_rpc::registry::{InProcessRegistry, Registry};

/// Loops that the proxy and the server share.
const LOOPS: usize = 2;
const DATABASE: &str = "chat.db";

/// The chat cannot start; the text says what to do about it.
#[derive(Debug)]
pub struct StartError(String);

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

/// A running chat.
pub struct Standalone {
    proxy: Proxy,
    server: ChatServer,
}

impl Standalone {
    /// Listens for clients on `listen` and keeps everything in the folder `data`, which is made if
    /// it is missing. `adjust` may change how the parts run.
    ///
    /// # Errors
    /// [`StartError`]: the folder cannot be used, or the port cannot be had.
    pub fn start(
        listen: SocketAddr,
        data: &Path,
        adjust: impl FnOnce(&mut ServerOptions, &mut ProxyOptions),
    ) -> Result<Self, StartError> {
        let store = open_store(data)?;
        let bus: Arc<dyn Bus> = Arc::new(LocalBus::new());
        let registry: Arc<dyn Registry> = Arc::new(InProcessRegistry::new());
        let loops = Arc::new(LoopGroup::start("loop", LOOPS).map_err(stopped)?);
        let inner: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
        let mut server_options = ServerOptions::new(inner);
        // Nobody outside of this process has to notice that it stops.
        server_options.provider.discovery_delay = Duration::ZERO;
        // Whoever else is on this machine could reach the server's port.
        let secret = ClusterSecret::random();
        server_options.gate.secret = Some(secret.clone());
        let mut proxy_options = ProxyOptions {
            listen,
            ..ProxyOptions::default()
        };
        proxy_options.cluster.secret = Some(secret);
        adjust(&mut server_options, &mut proxy_options);
        let server = ChatServer::start(
            server_options,
            store,
            Arc::clone(&bus),
            Arc::clone(&registry),
            Arc::clone(&loops),
        )
        .map_err(stopped)?;
        let proxy = Proxy::start(proxy_options, loops, registry, bus).map_err(|error| {
            StartError(format!(
                "{error}\nIs another chat running? Choose another address with --listen ADDR:PORT."
            ))
        })?;
        Ok(Self { proxy, server })
    }

    /// Where clients connect, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.proxy.local_addr()
    }

    /// Whether requests can be served.
    pub fn is_ready(&self) -> bool {
        self.proxy.is_ready()
    }

    /// Ends in order: the clients first, then the services. Blocks.
    pub fn drain(mut self, deadline: Duration) {
        let until = Instant::now() + deadline;
        self.proxy.drain(deadline);
        self.server
            .drain(until.saturating_duration_since(Instant::now()));
    }
}

fn open_store(data: &Path) -> Result<Arc<dyn Store>, StartError> {
    let cannot = |what: &dyn std::fmt::Display| {
        StartError(format!(
            "cannot use {} for the chat's data: {what}\nChoose another folder with --data PATH.",
            data.display()
        ))
    };
    std::fs::create_dir_all(data).map_err(|error| cannot(&error))?;
    let store = SqliteStore::open(data.join(DATABASE)).map_err(|error| cannot(&error))?;
    store.prepare_schema().map_err(|error| cannot(&error))?;
    Ok(Arc::new(store))
}

fn stopped(error: impl std::fmt::Display) -> StartError {
    StartError(error.to_string())
}
