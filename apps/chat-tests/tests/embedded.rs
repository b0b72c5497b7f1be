//! The suite on the whole chat in one process.

use std::time::Duration;

use chat_bus::Rate;
use chat_server::PasswordCost;
use chat_standalone::Standalone;
use chat_tests::{System, suite};

#[test]
fn the_embedded_chat_passes_the_suite() {
    let data = tempfile::tempdir().unwrap();
    let any_port = "127.0.0.1:0".parse().unwrap();
    let chat = Standalone::start(any_port, data.path(), |server, proxy| {
        server.password_cost = PasswordCost::MINIMAL;
        // The suite is many clients at one address, and faster than any.
        let any = Rate::literal(1_000_000, Duration::from_secs(1));
        server.clients.registrations_per_address = any;
        proxy.clients.messages_per_user = any;
        proxy.clients.requests_per_connection = any;
        proxy.clients.logins_per_address = any;
    })
    .unwrap();
    nexus_testkit::wait_until("the chat is ready", Duration::from_secs(30), || {
        chat.is_ready()
    });
    let address = chat.local_addr();
    let system = System {
        left: address.into(),
        right: address.into(),
    };
    suite::run(&system);
    chat.drain(Duration::from_secs(10));
}
