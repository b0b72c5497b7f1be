//! Unix domain sockets.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nexus_net::{
    Address, ClientOptions, CloseReason, ConnectionOptions, Error, LoopGroup, Placement,
    ServerOptions, TcpClient, TcpServer,
};

use crate::support::*;

struct Unix {
    server: TcpServer,
    events: Events,
    _loops: LoopGroup,
}

fn serve_at(path: &Path) -> Result<Unix, Error> {
    let loops = LoopGroup::start("unix", 2)?;
    let (sender, events) = Events::channel();
    let on = script(echo);
    let address = Address::unix(path);
    let server = TcpServer::start(&loops, address, ServerOptions::default(), move |_| {
        Scripted::boxed(&on, &sender)
    })?;
    Ok(Unix {
        server,
        events,
        _loops: loops,
    })
}

fn assert_echoes_unix(path: &Path) {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(b"hello").unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello");
}

#[test]
fn a_client_of_the_library_talks_to_a_server_over_a_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("echo.sock");
    let unix = serve_at(&path).unwrap();
    assert_eq!(unix.server.local_addr(), Address::unix(&path));

    let loops = LoopGroup::start("client", 1).unwrap();
    let (sender, events) = Events::channel();
    let server = Address::unix(&path);
    let expected = server.clone();
    let on = script(move |conn, call| match call {
        Call::Opened => {
            assert_eq!(*conn.peer_addr(), expected);
            assert_eq!(conn.local_addr().unwrap(), Address::Unix(None));
            conn.write(&pattern(0, 300_000));
        }
        other => otherwise(conn, other),
    });
    let options = ClientOptions::default();
    let client = TcpClient::start(&loops.handles()[0], server, options, move |_| {
        Scripted::boxed(&on, &sender)
    })
    .unwrap();
    let mut received = Vec::new();
    while received.len() < 300_000 {
        received.extend_from_slice(&events.find(|event| match event {
            Event::Data(bytes) => Some(bytes),
            Event::Closed(reason) => panic!("closed: {reason}"),
            _ => None,
        }));
    }
    assert_eq!(received, pattern(0, 300_000));
    drop(client);
    assert!(matches!(unix.events.closed(), CloseReason::Peer));
}

#[test]
fn the_socket_s_file_goes_with_its_server() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("echo.sock");
    let unix = serve_at(&path).unwrap();
    assert_echoes_unix(&path);
    unix.server.drain(DEADLINE);
    assert!(!path.exists());
}

#[test]
fn a_file_left_behind_is_replaced_and_one_in_use_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("echo.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let unix = serve_at(&path).unwrap();
    assert_echoes_unix(&path);

    let refused = serve_at(&path).err().unwrap();
    assert!(
        matches!(&refused, Error::Listen { source, .. } if source.kind() == std::io::ErrorKind::AddrInUse),
        "{refused}"
    );
    assert_echoes_unix(&path);
    drop(unix);
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("precious.txt");
    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(serve_at(&path), Err(Error::Listen { .. })));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn a_successor_s_file_is_not_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("echo.sock");
    let first = serve_at(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let _second = serve_at(&path).unwrap();
    first.server.drain(DEADLINE);
    assert_echoes_unix(&path);
}

#[test]
fn a_connection_to_a_path_without_a_server_fails_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let loops = LoopGroup::start("client", 1).unwrap();
    let address = Address::unix(folder.path().join("nobody.sock"));
    let result = on_loop(&loops.handles()[0], move |context| {
        context
            .connect(address, ConnectionOptions::default().into(), |_| {
                unreachable!("no attempt could be started")
            })
            .map(drop)
    });
    assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn a_listener_per_loop_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let loops = LoopGroup::start("unix", 2).unwrap();
    let options = ServerOptions {
        placement: Placement::PerLoop,
        ..ServerOptions::default()
    };
    let address = Address::unix(folder.path().join("echo.sock"));
    let refused = TcpServer::start(&loops, address, options, |_| unreachable!());
    assert!(matches!(refused, Err(Error::Options(_))));
}
