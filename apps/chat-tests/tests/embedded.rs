//! The suite on the whole chat in one process.

use std::time::Duration;

use chat_server::PasswordCost;
use chat_standalone::Standalone;
use chat_tests::{System, suite};

#[test]
fn the_embedded_chat_passes_the_suite() {
    let data = tempfile::tempdir().unwrap();
    let chat = Standalone::start("127.0.0.1:0".parse().unwrap(), data.path(), |server, _| {
        server.password_cost = PasswordCost::MINIMAL;
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
