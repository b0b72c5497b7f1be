//! The whole chat in one process: one chat server and one proxy, on SQLite, an in-process registry
//! and an in-process bus. The proxy calls the server by RPC over loopback, as in a cluster.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use chat_bus::{Bus, LocalBus};
use chat_node::secret::ClusterSecret;
use chat_proxy::{Proxy, ProxyOptions};
use chat_server::{ChatServer, ServerOptions};
use chat_store::{SqliteStore, Store};
use nexus_net::LoopGroup;
use nexus_rpc::registry::{InProcessRegistry, Registry};

mod backup;
mod data_folder;

pub use backup::back_up;
use data_folder::{DataFolder, cannot_use};

/// Loops that the proxy and the server share.
const LOOPS: usize = 2;
/// The database is closed this long after the last work on it, at the latest.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// The chat cannot start, or cannot be backed up; the text says what to do about it.
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
    // In the order in which they are to be dropped.
    proxy: Proxy,
    server: ChatServer,
    store: Arc<dyn Store>,
    data: DataFolder,
}

impl Standalone {
    /// Listens for clients on `listen` and keeps everything in the folder `data`, which is made if
    /// it is missing. `adjust` may change how the parts run.
    ///
    /// # Errors
    /// [`StartError`]: the folder cannot be used or another chat uses it, or the port cannot be had.
    pub fn start(
        listen: SocketAddr,
        data: &Path,
        adjust: impl FnOnce(&mut ServerOptions, &mut ProxyOptions),
    ) -> Result<Self, StartError> {
        let data = DataFolder::open(data)?;
        let store = open_store(&data)?;
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
            Arc::clone(&store),
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
        Ok(Self {
            proxy,
            server,
            store,
            data,
        })
    }

    /// Where clients connect, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.proxy.local_addr()
    }

    /// Whether requests can be served.
    pub fn is_ready(&self) -> bool {
        self.proxy.is_ready()
    }

    /// Ends in order: the clients first, then the services, then the database, which is one file afterwards. Blocks.
    pub fn drain(self, deadline: Duration) {
        let Self {
            mut proxy,
            mut server,
            store,
            data,
        } = self;
        let until = Instant::now() + deadline;
        proxy.drain(deadline);
        server.drain(until.saturating_duration_since(Instant::now()));
        drop(proxy);
        drop(server);
        // Threads that end with the server may still hold it.
        let until = Instant::now() + CLOSE_MAX;
        while Arc::strong_count(&store) > 1 && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
        if Arc::strong_count(&store) > 1 {
            log::warn!("the database is still in use: a copy of it needs chat.db-wal as well");
        }
        drop(store);
        drop(data);
    }
}

fn open_store(data: &DataFolder) -> Result<Arc<dyn Store>, StartError> {
    let path = data.database();
    let opened = SqliteStore::open(&path).and_then(|store| {
        store.prepare_schema()?;
        Ok(store)
    });
    let advice =
        "Let this user read and write the file, or choose another folder with --data PATH.";
    let store = opened.map_err(|error| cannot_use(&path, &error, advice))?;
    Ok(Arc::new(store))
}

fn stopped(error: impl std::fmt::Display) -> StartError {
    StartError(error.to_string())
}
