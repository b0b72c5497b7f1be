//! The registry against a real ZooKeeper that is stopped, killed, paused, cut off, and guarded.
//!
//! Who is to lose its connection while the others keep theirs reaches ZooKeeper through a [`Relay`].

mod guarded;
mod logged;
mod nodes;
mod outages;
mod rivals;

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nexus_rpc::registry::{
    MethodInfo, Provider, Registration, Registry, RegistryState, Watch, ZooKeeperOptions,
    ZooKeeperRegistry,
};
use nexus_testkit::{ZooKeeper, wait_until};
use parking_lot::Mutex;
use zookeeper::{Acl, CreateMode, ZooKeeper as RawClient};

const SERVICE: &str = "test.Service";
const NODE: &str = "/nexus/services/test.Service/providers/127.0.0.1:80";
const PATIENCE: Duration = Duration::from_secs(30);
/// Within this time after ZooKeeper is back, everything is as before.
const RECOVERY: Duration = Duration::from_secs(10);
const SESSION_TIMEOUT: Duration = Duration::from_secs(2);

fn start() -> ZooKeeper {
    start_with(&[])
}

/// With these Java system properties.
fn start_with(properties: &[(&'static str, &'static str)]) -> ZooKeeper {
    logged::start();
    let options = nexus_testkit::ZooKeeperOptions {
        properties: properties.to_vec(),
        ..Default::default()
    };
    ZooKeeper::start_with(options).expect("ZooKeeper")
}

fn options(address: &str) -> ZooKeeperOptions {
    let mut options = ZooKeeperOptions::new([address]);
    options.session_timeout = SESSION_TIMEOUT;
    options.operation_deadline = Duration::from_secs(2);
    options.reread_interval = Duration::from_secs(2);
    options
}

fn open(address: &str) -> ZooKeeperRegistry {
    ZooKeeperRegistry::open(options(address)).expect("valid options")
}

fn register(registry: &ZooKeeperRegistry, port: u16) -> Registration {
    let registration = registry.register(SERVICE, &[], &provider(port));
    assert!(registration.wait_registered(Instant::now() + PATIENCE));
    registration
}

fn provider(port: u16) -> Provider {
    Provider::new(SocketAddr::from(([127, 0, 0, 1], port)))
}

fn method(name: &str) -> MethodInfo {
    MethodInfo {
        name: name.to_owned(),
        request_type: format!("t.{name}In"),
        response_type: format!("t.{name}Out"),
    }
}

fn raw_client(server: &ZooKeeper) -> RawClient {
    RawClient::connect(&server.address(), PATIENCE, |_| ()).expect("a session")
}

/// The ports in the lists that a watch was given.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Vec<u16>>>>);

impl Seen {
    fn watch(&self, registry: &ZooKeeperRegistry) -> Watch {
        let lists = Arc::clone(&self.0);
        let on_change = move |list: &[Provider]| {
            let ports = list.iter().map(|provider| provider.address.port());
            lists.lock().push(ports.collect());
        };
        registry.watch(SERVICE, Box::new(on_change))
    }

    /// Only the first list, from before anything was registered, was empty.
    #[track_caller]
    fn assert_never_empty_again(&self) {
        let lists = self.0.lock();
        assert!(
            lists.iter().skip(1).all(|list| !list.is_empty()),
            "{lists:?}"
        );
    }

    fn last(&self) -> Option<Vec<u16>> {
        self.0.lock().last().cloned()
    }

    #[track_caller]
    fn wait(&self, expected: &[u16], deadline: Duration) {
        wait_until(&format!("the list is {expected:?}"), deadline, || {
            self.last().as_deref() == Some(expected)
        });
    }
}

/// Passes connections on to a server until it is cut.
struct Relay {
    address: SocketAddr,
    links: Arc<Mutex<Links>>,
}

#[derive(Default)]
struct Links {
    cut: bool,
    streams: Vec<TcpStream>,
}

impl Relay {
    fn start(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let links: Arc<Mutex<Links>> = Arc::default();
        let accepted = Arc::clone(&links);
        // Ends with the process: a test's relay is needed until its end.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let mut links = accepted.lock();
                if !links.cut {
                    // A server that is not there is what the client then sees.
                    let _ = links.join(client, &server);
                }
            }
        });
        Self { address, links }
    }

    fn address(&self) -> String {
        self.address.to_string()
    }

    /// Ends every connection, and every one that is begun from now on.
    fn cut(&self) {
        let mut links = self.links.lock();
        links.cut = true;
        for stream in links.streams.drain(..) {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn mend(&self) {
        self.links.lock().cut = false;
    }
}

impl Links {
    fn join(&mut self, client: TcpStream, server: &str) -> io::Result<()> {
        let server = TcpStream::connect(server)?;
        for (from, to) in [(&client, &server), (&server, &client)] {
            let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
            thread::spawn(move || {
                let _ = io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
        self.streams.extend([client, server]);
        Ok(())
    }
}
