//! More connections than descriptors.

use std::net::SocketAddr;

use crate::child::{Child, role};
use crate::roles::{Server, numbers, played};
use crate::support::*;

const DESCRIPTORS_MAX: usize = 4096;
/// Of two processes, as one may have 20,000 descriptors altogether.
const EACH: usize = 10_000;

#[test]
fn twenty_thousand_at_once_meet_a_limit_of_4096_descriptors() {
    if played(role()) {
        return;
    }
    let test = "storm::twenty_thousand_at_once_meet_a_limit_of_4096_descriptors";
    let mut server = Server::start(test, DESCRIPTORS_MAX);
    let addresses = server.addresses();
    let first: SocketAddr = addresses.split(' ').next().unwrap().parse().unwrap();
    let (before, descriptors_before) = (server.state(), server.descriptors());

    let mut clients = [Child::start(test, "connect"), Child::start(test, "connect")];
    for client in &mut clients {
        client.tell(&format!("connect {EACH} {addresses}"));
    }
    // Each is served or closed; none is left hanging.
    let [[served, refused], [served_too, refused_too]] =
        [&clients[0], &clients[1]].map(|client| numbers(&client.answer()));
    let served = served + served_too;
    assert_eq!(served + refused + refused_too, 2 * EACH);
    let state = server.state();
    assert_eq!(state.connections, served, "what was not served is not held");
    assert!(served > DESCRIPTORS_MAX - 64, "{served} served");

    // At the limit: those it holds are served, newcomers are closed, and between them it sleeps.
    for client in &mut clients {
        assert_eq!(client.ask("again"), "echoed");
    }
    for _ in 0..10 {
        wait_until_gone(&connect(first));
    }
    // A listener tries again by itself, with one timer however many it has turned away.
    let listeners = addresses.split(' ').count();
    let timers = server.state().timers;
    assert!(
        timers <= state.connections + listeners,
        "{timers} timers of {} connections",
        state.connections
    );
    let [turns] = numbers(&server.0.ask("turns"));
    assert!(turns < 1000, "{turns} turns with nothing to do");

    // With descriptors free again it accepts again.
    let [first_clients, mut other_clients] = clients;
    drop(first_clients);
    server.wait_for_state(|state| state.connections < served);
    assert_echoes(&mut connect(first), b"room");
    assert_eq!(other_clients.ask("again"), "echoed");
    drop(other_clients);
    server.wait_for_state(|state| state == before);
    assert_eq!(server.descriptors(), descriptors_before);
    server.0.finish();
}
