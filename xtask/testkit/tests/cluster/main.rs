//! The composition of a cluster: real backends and nginx, and stand-ins for the chat's nodes.
//! (The chat's own tests start it with the real ones; this crate knows nothing of the chat.)

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use nexus_testkit::{Cluster, ClusterOptions, Error, Link, wait_until};

/// Does what a node does as far as a cluster sees: reads its file, says that it is ready,
/// accepts, ends on SIGTERM. It is a Redis on the address of the node.
const STAND_IN: &str = r#"#!/bin/sh
[ "$1" = -i ] || exit 2
port=$(sed -n 's/^listen = "127\.0\.0\.1:\([0-9]*\)"$/\1/p' "$2")
echo "INFO main stand_in: ready on $port" >&2
exec redis-server --port "$port" --bind 127.0.0.1 --save '' --loglevel warning
"#;

fn install(folder: &Path, program: &str, script: &str) {
    let path = folder.join(program);
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Asks whatever is at the other end of nginx, a stand-in, to which port it listens.
fn answering_port(cluster: &Cluster) -> Option<u16> {
    let mut stream = TcpStream::connect(cluster.address()).ok()?;
    stream.write_all(b"INFO server\r\nQUIT\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer
        .lines()
        .find_map(|line| line.strip_prefix("tcp_port:"))?
        .parse()
        .ok()
}

#[test]
fn clients_reach_every_proxy_and_all_parts_can_be_restarted_and_stopped_in_order() {
    let binaries = tempfile::tempdir().unwrap();
    install(binaries.path(), "chat-server", STAND_IN);
    install(binaries.path(), "chat-proxy", STAND_IN);
    let cluster = Cluster::start(ClusterOptions::new(binaries.path().to_path_buf())).unwrap();

    let mut reached = [answering_port(&cluster), answering_port(&cluster)].map(Option::unwrap);
    let mut proxies = [0, 1].map(|index| cluster.proxy(index).address().port());
    reached.sort_unstable();
    proxies.sort_unstable();
    assert_eq!(reached, proxies);

    cluster.proxy(0).kill();
    let second = cluster.proxy(1).address().port();
    assert_eq!(answering_port(&cluster), Some(second));
    assert_eq!(answering_port(&cluster), Some(second));
    cluster.proxy(0).restart().unwrap();

    let names: Vec<&str> = cluster
        .processes()
        .iter()
        .map(|process| process.name())
        .collect();
    let expected = "mariadb redis zookeeper chat-server-1 chat-server-2 chat-proxy-1 \
                    chat-proxy-2 nginx";
    assert_eq!(names.join(" "), expected);
    for process in cluster.processes().iter().rev() {
        assert!(process.is_running(), "{} still runs", process.name());
        process.stop();
    }
    let folder = cluster.data_dir().to_path_buf();
    drop(cluster);
    assert!(!folder.exists());
}

#[test]
fn a_node_that_ends_at_once_is_an_error_with_its_words() {
    let binaries = tempfile::tempdir().unwrap();
    install(binaries.path(), "chat-server", STAND_IN);
    install(
        binaries.path(),
        "chat-proxy",
        "#!/bin/sh\necho 'no such key: listen' >&2\nexit 2\n",
    );
    let error = Cluster::start(ClusterOptions::new(binaries.path().to_path_buf())).unwrap_err();
    assert!(
        matches!(&error, Error::Exited { name, .. } if name == "chat-proxy-1"),
        "{error}"
    );
    assert!(error.to_string().contains("no such key: listen"), "{error}");
}

#[test]
fn each_part_of_a_relayed_cluster_reaches_the_next_through_its_link() {
    let binaries = tempfile::tempdir().unwrap();
    install(binaries.path(), "chat-server", STAND_IN);
    install(binaries.path(), "chat-proxy", STAND_IN);
    let options = ClusterOptions {
        servers: 1,
        proxies: 1,
        relayed: true,
        ..ClusterOptions::new(binaries.path().to_path_buf())
    };
    let cluster = Cluster::start(options).unwrap();
    let config = |node: &str| {
        let file = cluster.data_dir().join(node).join("config.toml");
        fs::read_to_string(file).unwrap()
    };
    let (server, proxy) = (config("chat-server-1"), config("chat-proxy-1"));
    for (link, relay) in cluster.links() {
        let address = relay.address().to_string();
        match link {
            Link::NginxToProxy(_) => assert!(answering_port(&cluster).is_some()),
            Link::ProxiesToServer(_) => {
                assert!(
                    server.contains(&format!("advertise = \"{address}\"")),
                    "{server}"
                );
            }
            Link::ServerToMariaDb(_) | Link::ServerToRedis(_) | Link::ServerToZooKeeper(_) => {
                assert!(server.contains(&address), "{link:?} {address} {server}");
            }
            Link::ProxyToRedis(_) | Link::ProxyToZooKeeper(_) => {
                assert!(proxy.contains(&address), "{link:?} {address} {proxy}");
            }
        }
    }
    assert_eq!(cluster.links().count(), 7);
    cluster.link(Link::NginxToProxy(0)).cut();
    assert_eq!(answering_port(&cluster), None);
    cluster.link(Link::NginxToProxy(0)).open();
    wait_until(
        "the proxy is reached again",
        Duration::from_secs(10),
        || answering_port(&cluster).is_some(),
    );
}

#[test]
fn the_data_of_a_named_folder_is_taken_up_again_by_an_ensemble_on_other_ports() {
    let folder = tempfile::tempdir().unwrap();
    install(folder.path(), "chat-server", STAND_IN);
    install(folder.path(), "chat-proxy", STAND_IN);
    let options = ClusterOptions {
        servers: 1,
        proxies: 1,
        zookeepers: 3,
        data_dir: Some(folder.path().join("data")),
        ..ClusterOptions::new(folder.path().to_path_buf())
    };
    for _ in 0..2 {
        let cluster = Cluster::start(options.clone()).unwrap();
        assert_eq!(cluster.zookeeper().nodes().len(), 3);
        assert!(cluster.zookeeper().leader().is_some());
        assert!(answering_port(&cluster).is_some());
    }
}
