//! The end of a loop that has ten thousand connections.

use crate::child::{Child, role};
use crate::roles::{Server, numbers, played};

const COUNT: usize = 10_000;
const DESCRIPTORS_MAX: usize = 20_000;

fn connected(test: &str) -> (Server, Child) {
    let mut server = Server::start(test, DESCRIPTORS_MAX);
    let mut clients = Child::start(test, "connect");
    let addresses = server.addresses();
    let answer = clients.ask(&format!("connect {COUNT} {addresses}"));
    assert_eq!(numbers(&answer), [COUNT, 0]);
    (server, clients)
}

#[test]
fn loops_that_stop_with_ten_thousand_connections_close_each_once() {
    if played(role()) {
        return;
    }
    let test = "stop::loops_that_stop_with_ten_thousand_connections_close_each_once";
    let (mut server, mut clients) = connected(test);
    let [opened, closed, alive, descriptors] = numbers(&server.0.ask("stop"));
    assert_eq!((opened, closed), (COUNT, COUNT));
    assert_eq!((alive, descriptors), (0, 0), "left behind");
    assert_eq!(clients.ask("ended"), "ended");
    server.0.finish();
    clients.finish();
}

#[test]
fn a_drain_with_ten_thousand_connections_ends_each_in_order() {
    if played(role()) {
        return;
    }
    let test = "stop::a_drain_with_ten_thousand_connections_ends_each_in_order";
    let (mut server, mut clients) = connected(test);
    assert_eq!(server.0.ask("drain"), "drained");
    assert_eq!(clients.ask("ended"), "ended");
    let [opened, closed, alive, descriptors] = numbers(&server.0.ask("stop"));
    assert_eq!((opened, closed), (COUNT, COUNT));
    assert_eq!((alive, descriptors), (0, 0), "left behind");
    server.0.finish();
    clients.finish();
}

#[test]
fn a_loop_of_clients_that_stops_leaves_its_server_nothing() {
    if played(role()) {
        return;
    }
    let test = "stop::a_loop_of_clients_that_stops_leaves_its_server_nothing";
    let mut server = Server::start(test, DESCRIPTORS_MAX);
    let (before, descriptors_before) = (server.state(), server.descriptors());
    let mut clients = Child::start(test, "connect");
    let addresses = server.addresses();
    let answer = clients.ask(&format!("connect {COUNT} {addresses}"));
    assert_eq!(numbers(&answer), [COUNT, 0]);
    assert_eq!(server.state().handlers, COUNT);
    assert_eq!(numbers(&clients.ask("stop")), [COUNT, 0]);
    server.wait_for_state(|state| state == before);
    assert_eq!(server.descriptors(), descriptors_before);
    server.0.finish();
    clients.finish();
}
